//! The configuration of a session, as an EDN map in UTF-8, read into the engine's own types.
//!
//! ```text
//! {:engine :node               ; or :echo
//!  :log-level :info            ; :off :error :warn :info :debug :trace, for the whole process
//!
//!  ; :node
//!  :name "a"  :servers {"a" "127.0.0.1:7001" ...}  :listen nil  :data-dir "..."
//!  :machine :kv                ; or :hosted
//!  :heartbeat-ms 100  :election-timeout-ms 500  :snapshot-commands 100000  :log-keep-entries 20000  :retry-ms 250
//!  :join-only false  :forward true  :spin-us 300
//!  :tls {:cert "cert.pem" :key "key.pem" :ca "ca.pem"}  ; or nil, then nothing beyond loopback without  :insecure true
//!  :transport :tcp              ; or :host, then the addresses in :servers are the names, or nil
//!  :snapshots true  :snapshot-timeout-ms 60000
//!
//!  ; :echo
//!  :name "a"  :mirror false  :in-flight 65536}
//! ```
//! A key whose value is nil counts as absent. An unknown key is refused with the nearest known one, a value of the wrong
//! type with what it should be.

use std::collections::BTreeMap;
use std::panic::catch_unwind;

use edn_rs::Edn;
use quorate_engine::config::{MachineKind, NodeConfig, TlsFiles, TransportKind};
use quorate_engine::{Failure, limits};
use tracing::level_filters::LevelFilter;

use crate::echo::EchoConfig;
use crate::edn_shape;

const COMMON_KEYS: &[&str] = &["engine", "log-level", "name"];
const ECHO_KEYS: &[&str] = &["mirror", "in-flight"];
const NODE_KEYS: &[&str] = &[
    "servers",
    "listen",
    "data-dir",
    "machine",
    "heartbeat-ms",
    "election-timeout-ms",
    "snapshot-commands",
    "log-keep-entries",
    "join-only",
    "tls",
    "insecure",
    "forward",
    "retry-ms",
    "spin-us",
    "transport",
    "snapshots",
    "snapshot-timeout-ms",
];

/// What is to be started.
#[derive(Debug)]
pub struct Settings {
    /// The log level for the whole process, when the map gives one.
    pub log_level: Option<LevelFilter>,
    /// Which engine, with its own configuration.
    pub engine: Engine,
}

/// The engines there are.
#[derive(Debug)]
pub enum Engine {
    /// A member of a cluster.
    Node(NodeConfig),
    /// The echo, see [`crate::echo`].
    Echo(EchoConfig),
}

/// Reads a configuration. Fails with `Invalid` and a sentence that names the key.
pub fn read(text: &[u8]) -> Result<Settings, Failure> {
    let text = std::str::from_utf8(text).map_err(|_| Failure::invalid("The configuration is not UTF-8."))?;
    edn_shape::check(text)?;
    let mut fields = Fields::parse(text)?;
    let echo = fields.choice("engine", &[("node", false), ("echo", true)])?.unwrap_or(false);
    fields.refuse_unknown(if echo { ECHO_KEYS } else { NODE_KEYS })?;
    let log_level = fields.log_level()?;
    let engine = if echo { Engine::Echo(read_echo(&mut fields)?) } else { Engine::Node(read_node(&mut fields)?) };
    Ok(Settings { log_level, engine })
}

/// The level of that name. Fails with `Invalid`; `what` says whose value it is.
pub fn log_level(name: &str, what: &str) -> Result<LevelFilter, Failure> {
    match name {
        "off" => Ok(LevelFilter::OFF),
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err(Failure::invalid(format!(
            "{what} is {name:?}; it must be one of off, error, warn, info, debug, trace."
        ))),
    }
}

fn read_echo(fields: &mut Fields) -> Result<EchoConfig, Failure> {
    let in_flight = fields.number("in-flight")?.unwrap_or(limits::IN_FLIGHT_MAX as u64);
    if in_flight == 0 || in_flight > limits::IN_FLIGHT_MAX as u64 {
        return Err(Failure::invalid(format!(":in-flight is {in_flight}; it must be 1 to {}.", limits::IN_FLIGHT_MAX)));
    }
    Ok(EchoConfig {
        name: fields.string("name")?.unwrap_or_else(|| "echo".into()),
        mirror: fields.flag("mirror")?.unwrap_or(false),
        in_flight: in_flight as usize,
    })
}

fn read_node(fields: &mut Fields) -> Result<NodeConfig, Failure> {
    let name = fields.string("name")?.ok_or_else(|| missing("name"))?;
    let servers = fields.servers()?.ok_or_else(|| missing("servers"))?;
    let data_dir = fields.string("data-dir")?.filter(|dir| !dir.is_empty()).ok_or_else(|| missing("data-dir"))?;
    let mut config = NodeConfig::new(name, servers, data_dir);
    config.listen = fields.string("listen")?;
    let machines = [("kv", MachineKind::KeyValue), ("hosted", MachineKind::Hosted)];
    set(&mut config.machine, fields.choice("machine", &machines)?);
    set(&mut config.heartbeat_ms, fields.number("heartbeat-ms")?);
    set(&mut config.election_timeout_ms, fields.number("election-timeout-ms")?);
    set(&mut config.snapshot_commands, fields.number("snapshot-commands")?);
    set(&mut config.log_keep_entries, fields.number("log-keep-entries")?);
    set(&mut config.retry_ms, fields.number("retry-ms")?);
    set(&mut config.spin_us, fields.number("spin-us")?);
    let transports = [("tcp", TransportKind::Tcp), ("host", TransportKind::Host)];
    set(&mut config.transport, fields.choice("transport", &transports)?);
    set(&mut config.snapshots, fields.flag("snapshots")?);
    set(&mut config.snapshot_timeout_ms, fields.number("snapshot-timeout-ms")?);
    set(&mut config.join_only, fields.flag("join-only")?);
    config.tls = fields.tls()?;
    set(&mut config.insecure, fields.flag("insecure")?);
    set(&mut config.forward, fields.flag("forward")?);
    Ok(config)
}

fn set<T>(field: &mut T, given: Option<T>) {
    if let Some(value) = given {
        *field = value;
    }
}

fn missing(key: &str) -> Failure {
    Failure::invalid(format!("The configuration lacks :{key}."))
}

fn wrong(key: &str, expected: &str, found: &Edn) -> Failure {
    Failure::invalid(format!(":{key} must be {expected}, not {found}."))
}

/// The map, by the names of its keys; what was read is taken out.
struct Fields(BTreeMap<String, Edn>);

impl Fields {
    fn parse(text: &str) -> Result<Fields, Failure> {
        let unreadable = |why: String| Failure::invalid(format!("The configuration cannot be read: {why}"));
        let parsed = catch_unwind(|| text.parse::<Edn>())
            .map_err(|_| unreadable("the EDN reader gave up on it.".into()))?
            .map_err(|error| unreadable(format!("{error:?}.")))?;
        let Edn::Map(map) = parsed else {
            return Err(Failure::invalid("The configuration must be one EDN map."));
        };
        Fields::of(map)
    }

    fn of(map: edn_rs::Map) -> Result<Fields, Failure> {
        let mut fields = BTreeMap::new();
        for (key, value) in map.to_map() {
            let name = key
                .strip_prefix(':')
                .ok_or_else(|| Failure::invalid(format!("The configuration's key {key} is not a keyword.")))?;
            if value == Edn::Empty {
                return Err(Failure::invalid(format!(":{name} has no value.")));
            }
            fields.insert(name.to_string(), value);
        }
        Ok(Fields(fields))
    }

    fn refuse_unknown(&self, keys: &[&str]) -> Result<(), Failure> {
        let known = || COMMON_KEYS.iter().chain(keys).copied();
        let Some(unknown) = self.0.keys().find(|key| !known().any(|one| one == *key)) else {
            return Ok(());
        };
        Err(Failure::invalid(match nearest(unknown, known()) {
            Some(near) => {
                format!("The configuration key :{unknown} is unknown; did you mean :{near}?")
            }
            None => {
                let all = known().map(|key| format!(":{key}")).collect::<Vec<_>>().join(" ");
                format!("The configuration key :{unknown} is unknown; known are {all}.")
            }
        }))
    }

    fn take(&mut self, key: &str) -> Option<Edn> {
        self.0.remove(key).filter(|value| *value != Edn::Nil)
    }

    fn string(&mut self, key: &str) -> Result<Option<String>, Failure> {
        match self.take(key) {
            None => Ok(None),
            Some(Edn::Str(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(key, "a string", &other)),
        }
    }

    fn number(&mut self, key: &str) -> Result<Option<u64>, Failure> {
        match self.take(key) {
            None => Ok(None),
            Some(Edn::UInt(number)) => Ok(Some(number)),
            Some(other) => Err(wrong(key, "a whole number from 0 on", &other)),
        }
    }

    fn flag(&mut self, key: &str) -> Result<Option<bool>, Failure> {
        match self.take(key) {
            None => Ok(None),
            Some(Edn::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(wrong(key, "true or false", &other)),
        }
    }

    fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Result<Option<T>, Failure> {
        let Some(found) = self.take(key) else {
            return Ok(None);
        };
        let named = |(name, _): &&(&str, T)| found == Edn::Key(format!(":{name}"));
        match choices.iter().find(named) {
            Some((_, choice)) => Ok(Some(*choice)),
            None => {
                let all = choices.iter().map(|(name, _)| format!(":{name}")).collect::<Vec<_>>().join(" or ");
                Err(wrong(key, &all, &found))
            }
        }
    }

    fn tls(&mut self) -> Result<Option<TlsFiles>, Failure> {
        let mut files = match self.take("tls") {
            None => return Ok(None),
            Some(Edn::Map(map)) => Fields::of(map)?,
            Some(other) => return Err(wrong("tls", "a map {:cert \"file\" :key \"file\" :ca \"file\"}", &other)),
        };
        let mut file = |key| match files.string(key)?.filter(|path| !path.is_empty()) {
            Some(path) => Ok(path.into()),
            None => Err(Failure::invalid(format!(":tls lacks :{key}, the name of a file in PEM."))),
        };
        let found = TlsFiles { cert: file("cert")?, key: file("key")?, ca: file("ca")? };
        match files.0.into_keys().next() {
            None => Ok(Some(found)),
            Some(unknown) => {
                Err(Failure::invalid(format!(":tls has the unknown key :{unknown}; known are :cert :key :ca.")))
            }
        }
    }

    fn log_level(&mut self) -> Result<Option<LevelFilter>, Failure> {
        match self.take("log-level") {
            None => Ok(None),
            Some(Edn::Key(name)) => log_level(name.trim_start_matches(':'), ":log-level").map(Some),
            Some(other) => Err(wrong("log-level", "a keyword such as :info", &other)),
        }
    }

    fn servers(&mut self) -> Result<Option<BTreeMap<String, String>>, Failure> {
        const EXPECTED: &str = "a map of names to addresses, {\"a\" \"host:port\"}";
        match self.take("servers") {
            None => Ok(None),
            Some(Edn::Map(map)) => map.to_map().into_iter().map(server).collect::<Result<_, _>>().map(Some),
            Some(other) => Err(wrong("servers", EXPECTED, &other)),
        }
    }
}

fn server((key, value): (String, Edn)) -> Result<(String, String), Failure> {
    let name =
        unquote(&key).ok_or_else(|| Failure::invalid(format!(":servers has the key {key}; names must be strings.")))?;
    match value {
        Edn::Str(address) => Ok((name, address)),
        Edn::Nil => Ok((name, String::new())),
        other => Err(Failure::invalid(format!(
            ":servers gives {name:?} the address {other}; it must be a string, \"host:port\"."
        ))),
    }
}

/// The string behind a map key: edn-rs keeps keys printed, strings as Rust's `Debug` prints them. `None` when the key
/// is no string.
fn unquote(key: &str) -> Option<String> {
    let inner = key.strip_prefix('"')?.strip_suffix('"')?;
    let mut text = String::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        text.push(match rest.next()? {
            't' => '\t',
            'r' => '\r',
            'n' => '\n',
            '0' => '\0',
            'u' => {
                let hex: String = rest.by_ref().skip(1).take_while(|c| *c != '}').collect();
                char::from_u32(u32::from_str_radix(&hex, 16).ok()?)?
            }
            quoted => quoted,
        });
    }
    Some(text)
}

/// The known key that `unknown` was probably meant to be: few edits away, for its length.
fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.map(|key| (edits(unknown, key), key)).min()?;
    (near.0 <= unknown.chars().count().div_ceil(3)).then_some(near.1)
}

/// Levenshtein's distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
