//! A node's configuration and its validation: nonsense is refused at start, with the reason.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Code, Failure};
use crate::limits::{MEMBERS_MAX, NAME_BYTES_MAX};

/// Which state machine a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineKind {
    /// The key-value store on sled, in the engine.
    KeyValue,
    /// A machine in the host process (see [`crate::hosted`]).
    Hosted,
}

/// Who carries what nodes say to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportKind {
    /// The engine itself, over TCP.
    Tcp,
    /// The host, as datagrams (see [`crate::transport::carried`]): nothing listens on a port, and a server's address is its
    /// name. While the host stands still, so do heartbeats.
    Host,
}

/// Certificates for the transport, files in PEM (see [`crate::transport::tls`] for what is checked).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// This node's certificate, with those between it and the CA, its own first. It must be good for servers and for clients.
    pub cert: PathBuf,
    /// Its private key, without a password.
    pub key: PathBuf,
    /// Certificates of the CAs that sign for members of this cluster, and for nobody else.
    pub ca: PathBuf,
}

impl TlsFiles {
    /// `cert.pem`, `key.pem` and `ca.pem` in `directory`.
    pub fn in_directory(directory: impl Into<PathBuf>) -> TlsFiles {
        let directory = directory.into();
        TlsFiles { cert: directory.join("cert.pem"), key: directory.join("key.pem"), ca: directory.join("ca.pem") }
    }
}

/// Everything a node needs to start. All times in milliseconds.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// This node's name; must be one of `servers`.
    pub name: String,
    /// Who carries what nodes say to each other.
    pub transport: TransportKind,
    /// Names of the configured servers, each with the address of its transport, `host:port`. The address may be empty
    /// only for a single node. With a transport of the host's it is the name, or empty.
    pub servers: BTreeMap<String, String>,
    /// Where this node listens, `host:port`, when it differs from its address in `servers`.
    pub listen: Option<String>,
    /// The data directory; made when absent.
    pub data_dir: PathBuf,
    /// Which state machine.
    pub machine: MachineKind,
    /// Interval of the leader's heartbeats.
    pub heartbeat_ms: u64,
    /// A follower that heard nothing for between 1.2 and 1.8 times this asks for votes. At least twice what a message to another
    /// server and back takes; the status says when it is not.
    pub election_timeout_ms: u64,
    /// Take a snapshot after so many commands since the last one.
    pub snapshot_commands: u64,
    /// Keep so many Raft entries before a snapshot, for followers that lag a little. Any number is safe: nothing is purged
    /// that was not applied a second before (`node::snapshots`), but a follower that lags more gets a snapshot.
    pub log_keep_entries: u64,
    /// Whether the machine can write snapshots at all. Without, none is taken and the log is kept for ever.
    pub snapshots: bool,
    /// A hosted machine that has not written a snapshot after this long has failed to; it is asked again later.
    pub snapshot_timeout_ms: u64,
    /// Disk space that the log may fill before its oldest files are used again, in bytes; a file has an eighth of it.
    pub log_bytes: u64,
    /// How long a thread of the node that has just worked waits awake for more before it sleeps, in microseconds; 0 for never. Waking
    /// threads that sleep is most of what a write costs beside the disk; other threads go first all the same (`spin`).
    pub spin_us: u64,
    /// Only join a cluster that exists; never found one.
    pub join_only: bool,
    /// Speak TLS with the other servers, and with none that has no certificate of the same CA.
    pub tls: Option<TlsFiles>,
    /// Without `tls`: listen and connect beyond loopback all the same, in plain text.
    pub insecure: bool,
    /// A command submitted here while another node leads goes to the leader; otherwise it fails with `NotLeader`.
    pub forward: bool,
    /// How long a node that is joining, or whose configured peers have not answered, waits between attempts.
    pub retry_ms: u64,
}

/// Default of [`NodeConfig::heartbeat_ms`].
pub const HEARTBEAT_MS: u64 = 100;
/// Default of [`NodeConfig::election_timeout_ms`].
pub const ELECTION_TIMEOUT_MS: u64 = 500;
/// Default of [`NodeConfig::snapshot_commands`].
pub const SNAPSHOT_COMMANDS: u64 = 100_000;
/// Default of [`NodeConfig::log_keep_entries`]; far above any apply backlog (openraft#2116).
pub const LOG_KEEP_ENTRIES: u64 = 20_000;
/// Default of [`NodeConfig::snapshot_timeout_ms`].
pub const SNAPSHOT_TIMEOUT_MS: u64 = 60_000;
/// Default of [`NodeConfig::log_bytes`].
pub const LOG_BYTES: u64 = 128 << 20;
/// Smallest [`NodeConfig::log_bytes`] that is accepted.
pub const LOG_BYTES_MIN: u64 = 64 << 10;
/// Default of [`NodeConfig::spin_us`]: longer than a round trip and a sync of a good disk.
pub const SPIN_US: u64 = 300;
/// Largest [`NodeConfig::spin_us`] that is accepted.
pub const SPIN_US_MAX: u64 = 10_000;
/// Default of [`NodeConfig::retry_ms`].
pub const RETRY_MS: u64 = 250;
/// Shortest heartbeat that is accepted.
pub const HEARTBEAT_MS_MIN: u64 = 5;
/// Longest election timeout that is accepted.
pub const ELECTION_TIMEOUT_MS_MAX: u64 = 600_000;

impl NodeConfig {
    /// A configuration with the defaults, for `name` among `servers`, with its data in `data_dir`.
    pub fn new(name: impl Into<String>, servers: BTreeMap<String, String>, data_dir: impl Into<PathBuf>) -> NodeConfig {
        NodeConfig {
            name: name.into(),
            transport: TransportKind::Tcp,
            servers,
            listen: None,
            data_dir: data_dir.into(),
            machine: MachineKind::KeyValue,
            heartbeat_ms: HEARTBEAT_MS,
            election_timeout_ms: ELECTION_TIMEOUT_MS,
            snapshot_commands: SNAPSHOT_COMMANDS,
            log_keep_entries: LOG_KEEP_ENTRIES,
            snapshots: true,
            snapshot_timeout_ms: SNAPSHOT_TIMEOUT_MS,
            log_bytes: LOG_BYTES,
            spin_us: SPIN_US,
            join_only: false,
            tls: None,
            insecure: false,
            forward: true,
            retry_ms: RETRY_MS,
        }
    }

    /// The configuration with every address a name, when the host carries everything; else as it is.
    pub fn normalized(mut self) -> NodeConfig {
        if self.transport == TransportKind::Host {
            self.servers = self.servers.into_keys().map(|name| (name.clone(), name)).collect();
            self.listen = None;
        }
        self
    }

    /// [`NodeConfig::spin_us`] as a duration.
    pub fn spin(&self) -> Duration {
        Duration::from_micros(self.spin_us)
    }

    /// This node's own address in `servers`; empty when it has none.
    pub fn address(&self) -> &str {
        self.servers.get(&self.name).map_or("", String::as_str)
    }

    /// How to reach the member of that name, which the log knows under `address`: a host's transport knows names only.
    pub fn reach<'a>(&self, name: &'a str, address: &'a str) -> &'a str {
        if self.transport == TransportKind::Host { name } else { address }
    }

    /// Where to listen: `listen`, else the own address; `None` for a single node without one.
    pub fn listen_address(&self) -> Option<&str> {
        let address = self.listen.as_deref().unwrap_or(self.address());
        (!address.is_empty()).then_some(address)
    }

    /// The other configured servers, by name.
    pub fn peers(&self) -> impl Iterator<Item = (&String, &String)> {
        self.servers.iter().filter(|(name, _)| **name != self.name)
    }

    /// Checks everything that can be known before anything is touched. Fails with `Invalid` and one sentence.
    pub fn validate(&self) -> Result<(), Failure> {
        self.validate_names()?;
        match self.transport {
            TransportKind::Tcp => self.validate_addresses()?,
            TransportKind::Host => self.validate_no_addresses()?,
        }
        self.validate_times()?;
        if self.snapshot_commands == 0 {
            return Err(Failure::invalid("The snapshot threshold must be at least 1 command."));
        }
        if self.snapshot_timeout_ms == 0 {
            return Err(Failure::invalid("The snapshot timeout must be at least 1 ms."));
        }
        if self.log_bytes < LOG_BYTES_MIN {
            let bytes = self.log_bytes;
            return Err(Failure::invalid(format!("A log of {bytes} bytes is too small; at least {LOG_BYTES_MIN}.")));
        }
        if self.spin_us > SPIN_US_MAX {
            let us = self.spin_us;
            return Err(Failure::invalid(format!("Waiting awake for {us} µs is too long; at most {SPIN_US_MAX}.")));
        }
        Ok(())
    }

    fn validate_names(&self) -> Result<(), Failure> {
        if self.servers.len() > MEMBERS_MAX {
            return Err(Failure::invalid(format!(
                "{} servers are configured; at most {MEMBERS_MAX} are possible.",
                self.servers.len()
            )));
        }
        if let Some(name) = self.servers.keys().find(|name| name.is_empty() || name.len() > NAME_BYTES_MAX) {
            return Err(Failure::invalid(format!("The server name {name:?} must have 1 to {NAME_BYTES_MAX} bytes.")));
        }
        if !self.servers.contains_key(&self.name) {
            let known = self.servers.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(Failure::invalid(format!(
                "This server's name {:?} is not among the servers ({known}).",
                self.name
            )));
        }
        Ok(())
    }

    fn validate_addresses(&self) -> Result<(), Failure> {
        let mut seen = BTreeMap::new();
        for (name, address) in &self.servers {
            if address.is_empty() && self.servers.len() > 1 {
                return Err(Failure::invalid(format!(
                    "The server {name:?} has no address; with more than one server each needs one, \"host:port\"."
                )));
            }
            if !address.is_empty() {
                check_address(address)?;
                if let Some(other) = seen.insert(address, name) {
                    return Err(Failure::invalid(format!(
                        "The servers {other:?} and {name:?} have the same address {address}."
                    )));
                }
            }
        }
        if let Some(listen) = &self.listen {
            check_address(listen)?;
        }
        self.validate_reach()
    }

    /// Without TLS, nothing beyond loopback unless the user says that it is right.
    fn validate_reach(&self) -> Result<(), Failure> {
        if self.insecure || self.tls.is_some() {
            return Ok(());
        }
        let addresses = self.listen.iter().chain(self.servers.values()).filter(|address| !address.is_empty());
        match addresses.into_iter().find(|address| !is_loopback(address)) {
            Some(far) => Err(plain_text_refused(Code::Invalid, far)),
            None => Ok(()),
        }
    }

    fn validate_no_addresses(&self) -> Result<(), Failure> {
        match self.servers.iter().find(|(name, address)| !address.is_empty() && address != name) {
            Some((name, address)) => Err(Failure::invalid(format!(
                "The server {name:?} has the address {address:?}; with a transport of the host's it has none but its name."
            ))),
            None if self.listen.is_some() => {
                Err(Failure::invalid("With a transport of the host's there is no address to listen on."))
            }
            None if self.tls.is_some() => Err(Failure::invalid(
                "With a transport of the host's there is no TLS: the host carries what is said, and secures it.",
            )),
            None => Ok(()),
        }
    }

    fn validate_times(&self) -> Result<(), Failure> {
        let (heartbeat, election) = (self.heartbeat_ms, self.election_timeout_ms);
        if heartbeat < HEARTBEAT_MS_MIN {
            return Err(Failure::invalid(format!(
                "A heartbeat of {heartbeat} ms is too short; at least {HEARTBEAT_MS_MIN} ms."
            )));
        }
        if election > ELECTION_TIMEOUT_MS_MAX {
            return Err(Failure::invalid(format!(
                "An election timeout of {election} ms is too long; at most {ELECTION_TIMEOUT_MS_MAX} ms."
            )));
        }
        if heartbeat.saturating_mul(2) > election {
            return Err(Failure::invalid(format!(
                "An election timeout of {election} ms cannot work with a heartbeat of {heartbeat} ms: one lost heartbeat would cost an election; take at least {} ms.",
                heartbeat.saturating_mul(2)
            )));
        }
        Ok(())
    }
}

/// The refusal, with `code`, of `address` in plain text, and the way out.
pub(crate) fn plain_text_refused(code: Code, address: &str) -> Failure {
    let message = format!(
        "The address {address} is not on loopback, and what servers say to each other is not encrypted: give certificates by :tls, or set :insecure true if the network between the servers is trusted."
    );
    Failure::new(code, message)
}

fn check_address(address: &str) -> Result<(), Failure> {
    let port = address.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
    match port.map(str::parse::<u16>) {
        Some(Ok(_)) => Ok(()),
        _ => Err(Failure::invalid(format!("{address:?} is not an address; it must be \"host:port\"."))),
    }
}

fn is_loopback(address: &str) -> bool {
    match address.to_socket_addrs() {
        Ok(mut found) => found.all(|one: SocketAddr| one.ip().is_loopback()),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> NodeConfig {
        let servers = [("a", "127.0.0.1:7001"), ("b", "127.0.0.1:7002"), ("c", "127.0.0.1:7003")];
        NodeConfig::new("a", servers.map(|(name, address)| (name.into(), address.into())).into(), "data")
    }

    fn refusal(change: impl FnOnce(&mut NodeConfig)) -> String {
        let mut config = three();
        change(&mut config);
        config.validate().unwrap_err().message
    }

    #[test]
    fn the_defaults_are_accepted() {
        assert_eq!(three().validate(), Ok(()));
        let single = NodeConfig::new("a", [("a".to_string(), String::new())].into(), "data");
        assert_eq!(single.validate(), Ok(()));
        assert_eq!(single.listen_address(), None);
    }

    #[test]
    fn nonsense_is_refused_with_its_reason() {
        assert!(refusal(|c| c.name = "z".into()).contains("not among the servers (a, b, c)"));
        assert!(
            refusal(|c| c.servers.insert("c".into(), "127.0.0.1:7001".into()).map_or((), drop))
                .contains("same address")
        );
        assert!(refusal(|c| c.servers.insert("c".into(), "nowhere".into()).map_or((), drop)).contains("host:port"));
        assert!(refusal(|c| c.servers.insert("c".into(), "".into()).map_or((), drop)).contains("no address"));
        assert!(refusal(|c| c.election_timeout_ms = 150).contains("cannot work"));
        assert!(refusal(|c| c.heartbeat_ms = 0).contains("too short"));
        assert!(refusal(|c| c.snapshot_commands = 0).contains("at least 1"));
        assert!(refusal(|c| c.log_bytes = LOG_BYTES_MIN - 1).contains("too small"));
        assert!(refusal(|c| c.spin_us = SPIN_US_MAX + 1).contains("too long"));
        assert!(refusal(|c| c.listen = Some("0.0.0.0:7001".into())).contains(":insecure true"));
    }

    #[test]
    fn plain_text_stays_on_loopback_for_every_address_unless_the_user_says_otherwise() {
        let far: [fn(&mut NodeConfig); 3] = [
            |c| c.listen = Some("0.0.0.0:7001".into()),
            |c| c.servers.insert("a".into(), "192.0.2.1:7001".into()).map_or((), drop),
            |c| c.servers.insert("b".into(), "192.0.2.2:7001".into()).map_or((), drop),
        ];
        for change in far {
            let sentence = refusal(change);
            assert!(sentence.contains("not on loopback") && sentence.contains(":tls"), "{sentence}");
            let mut trusting = three();
            change(&mut trusting);
            trusting.insecure = true;
            assert_eq!(trusting.validate(), Ok(()));
            (trusting.insecure, trusting.tls) = (false, Some(TlsFiles::in_directory("d")));
            assert_eq!(trusting.validate(), Ok(()));
        }
    }

    #[test]
    fn with_a_transport_of_the_hosts_names_are_the_addresses() {
        let host = |change: fn(&mut NodeConfig)| {
            let mut config = three();
            config.transport = TransportKind::Host;
            config.servers.iter_mut().for_each(|(name, address)| *address = name.clone());
            change(&mut config);
            config
        };
        let config = host(|c| c.servers.values_mut().for_each(String::clear));
        assert_eq!(config.validate(), Ok(()));
        let config = config.normalized();
        assert_eq!((config.address(), config.listen_address()), ("a", Some("a")));
        assert_eq!(config.reach("b", "127.0.0.1:1"), "b");
        assert_eq!(host(|_| ()).validate(), Ok(()));
        let wrong = host(|c| c.servers.insert("b".into(), "127.0.0.1:7002".into()).map_or((), drop));
        assert!(wrong.validate().unwrap_err().message.contains("none but its name"));
        assert!(host(|c| c.listen = Some("127.0.0.1:1".into())).validate().is_err());
        let secured = host(|c| c.tls = Some(TlsFiles::in_directory("d")));
        assert!(secured.validate().unwrap_err().message.contains("there is no TLS"));
        assert_eq!(three().reach("b", "127.0.0.1:1"), "127.0.0.1:1");
    }
}
