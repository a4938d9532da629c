//! The command line.

use std::collections::BTreeMap;
use std::path::PathBuf;

use quorate_engine::NodeConfig;
use quorate_engine::limits::IN_FLIGHT_MAX;

/// Shown with every refusal.
pub const USAGE: &str = "\
quorate-bench part floor|engine|durability|reads|recovery|growth [--quick|--long] [--rounds N] [--only WORD] [--keep] [--dir DIR] [--out DIR]
quorate-bench facts   [--dir DIR] [--out DIR]
quorate-bench report  [--out DIR] [--into FILE]
quorate-bench writers [--writers N,N,...] [--seconds S] [--bytes B] [--machine counter|kv] [--dir DIR] [--strace]
quorate-bench floor   [--seconds S] [--bytes B] [--dir DIR]";

/// The parts.
pub const PARTS: [&str; 6] = ["floor", "engine", "durability", "reads", "recovery", "growth"];

/// Where rows and report go, unless `--out` says otherwise.
const OUT: &str = "target/bench";
/// Most repetitions of a part.
const ROUNDS_MAX: u64 = 100;

/// Longest measurement, in seconds.
const SECONDS_MAX: u64 = 3_600;
/// Largest command body, in bytes.
const BYTES_MAX: usize = 1 << 20;

/// Which state machine the nodes run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MachineName {
    /// Counts commands in memory: the engine alone.
    #[default]
    Counter,
    /// The key-value store on sled; each command is a put.
    Kv,
    /// In a host that never acknowledges; for a node's process only.
    Stuck,
}

impl MachineName {
    /// As it is written on the command line.
    pub fn text(self) -> &'static str {
        match self {
            MachineName::Counter => "counter",
            MachineName::Kv => "kv",
            MachineName::Stuck => "stuck",
        }
    }
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Task {
    /// One part of the benchmark, into its file.
    Part(Part),
    /// The facts of this machine, into theirs: where it goes, and the disk that is meant.
    Facts(PathBuf, PathBuf),
    /// Tables and plots of what is in the directory; the tables into a document, too, if there is one.
    Report(PathBuf, Option<PathBuf>),
    /// Syncs of a file, one of several processes; started by the part `floor`, not by people.
    Syncs(Floor),
    /// A closed loop of commands against three processes.
    Writers(Writers),
    /// One disk sync, one round trip.
    Floor(Floor),
    /// One node's process; started by the others, not by people.
    Node(NodeOptions),
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Once and briefly: shows that it works.
    Quick,
    /// Several rounds, so that the spread is known.
    Usual,
    /// With sizes that take many minutes.
    Long,
}

/// Options of `part`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which.
    pub name: String,
    /// How much.
    pub effort: Effort,
    /// Repetitions, where others than the effort's are asked for.
    pub rounds: Option<usize>,
    /// Only what has this word in its name.
    pub only: Option<String>,
    /// Add to the rows that are there.
    pub keep: bool,
    /// Where the data goes: a temporary directory in it.
    pub dir: PathBuf,
    /// Where the rows go.
    pub out: PathBuf,
}

impl Part {
    /// One of three numbers: of a quick, a usual, a long run.
    pub fn of<T>(&self, quick: T, usual: T, long: T) -> T {
        match self.effort {
            Effort::Quick => quick,
            Effort::Usual => usual,
            Effort::Long => long,
        }
    }

    /// Repetitions, from 1: as many as were asked for, or once when quick, else `usual`.
    pub fn rounds(&self, usual: usize) -> std::ops::RangeInclusive<usize> {
        1..=self.rounds.unwrap_or(self.of(1, usual, usual))
    }

    /// Whether `name` is wanted.
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|word| name.contains(word.as_str()))
    }
}

/// What differs from the defaults of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    /// Take no snapshots, and keep the log whole.
    pub no_snapshots: bool,
    /// Commands between snapshots.
    pub snapshot_commands: Option<u64>,
    /// Raft entries that are kept before a snapshot.
    pub log_keep_entries: Option<u64>,
    /// Space of the log, in bytes.
    pub log_bytes: Option<u64>,
}

impl Tuning {
    /// On the command line of a node.
    pub fn arguments(&self) -> Vec<String> {
        let numbers = [
            ("--snapshot-commands", self.snapshot_commands),
            ("--log-keep-entries", self.log_keep_entries),
            ("--log-bytes", self.log_bytes),
        ];
        let numbers =
            numbers.iter().filter_map(|(flag, number)| Some([flag.to_string(), number.as_ref()?.to_string()]));
        numbers.flatten().chain(self.no_snapshots.then(|| "--no-snapshots".into())).collect()
    }

    /// `config` with it.
    pub fn applied(&self, config: NodeConfig) -> NodeConfig {
        NodeConfig {
            snapshots: !self.no_snapshots,
            snapshot_commands: self.snapshot_commands.unwrap_or(config.snapshot_commands),
            log_keep_entries: self.log_keep_entries.unwrap_or(config.log_keep_entries),
            log_bytes: self.log_bytes.unwrap_or(config.log_bytes),
            ..config
        }
    }
}

/// Options of `writers`.
#[derive(Debug, PartialEq, Eq)]
pub struct Writers {
    /// Commands in flight, one run each.
    pub writers: Vec<usize>,
    /// How long each run is measured, in seconds.
    pub seconds: u64,
    /// Bytes of a command (of a value, for `kv`).
    pub bytes: usize,
    /// The state machine.
    pub machine: MachineName,
    /// Where the data goes: a temporary directory in it.
    pub dir: PathBuf,
    /// Count the syncs of each process with strace.
    pub strace: bool,
}

/// Options of `floor`.
#[derive(Debug, PartialEq, Eq)]
pub struct Floor {
    /// How long each of the two is measured, in seconds.
    pub seconds: u64,
    /// Bytes that are written, and sent.
    pub bytes: usize,
    /// Where the file goes: a temporary directory in it.
    pub dir: PathBuf,
    /// Whether what is synced is written past the page cache.
    pub direct: bool,
}

/// Options of `node`.
#[derive(Debug, PartialEq, Eq)]
pub struct NodeOptions {
    /// This node's name.
    pub name: String,
    /// Addresses of all nodes by name.
    pub servers: BTreeMap<String, String>,
    /// The node's own data directory.
    pub dir: PathBuf,
    /// The state machine.
    pub machine: MachineName,
    /// What differs from the defaults.
    pub tuning: Tuning,
}

/// Reads the command line. Fails with a sentence.
pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Task, String> {
    let mut arguments = Arguments(arguments.collect());
    if arguments.0.is_empty() {
        return Err("Say what to measure.".into());
    }
    let task = match arguments.0.remove(0).as_str() {
        "part" => Task::Part(part(&mut arguments)?),
        "facts" => Task::Facts(out(&mut arguments)?, dir(&mut arguments)?),
        "report" => {
            let into = arguments.value("--into")?.map(PathBuf::from);
            Task::Report(out(&mut arguments)?, into)
        }
        "syncs" => Task::Syncs(floor(&mut arguments)?),
        "writers" => Task::Writers(writers(&mut arguments)?),
        "floor" => Task::Floor(floor(&mut arguments)?),
        "node" => Task::Node(node(&mut arguments)?),
        other => return Err(format!("There is no task {other:?}.")),
    };
    match arguments.0.first() {
        Some(left) => Err(format!("{left:?} is not understood.")),
        None => Ok(task),
    }
}

fn dir(arguments: &mut Arguments) -> Result<PathBuf, String> {
    Ok(arguments.value("--dir")?.map_or_else(std::env::temp_dir, PathBuf::from))
}

fn out(arguments: &mut Arguments) -> Result<PathBuf, String> {
    Ok(arguments.value("--out")?.unwrap_or_else(|| OUT.into()).into())
}

fn part(arguments: &mut Arguments) -> Result<Part, String> {
    let effort = match (arguments.flag("--quick"), arguments.flag("--long")) {
        (true, true) => return Err("--quick and --long exclude each other.".into()),
        (true, false) => Effort::Quick,
        (false, true) => Effort::Long,
        (false, false) => Effort::Usual,
    };
    let rounds = arguments.value("--rounds")?.map(|text| within("--rounds", &text, 1, ROUNDS_MAX)).transpose()?;
    let (only, keep) = (arguments.value("--only")?, arguments.flag("--keep"));
    let (dir, out) = (dir(arguments)?, out(arguments)?);
    if arguments.0.is_empty() {
        return Err("Say which part.".into());
    }
    let name = arguments.0.remove(0);
    if !PARTS.contains(&name.as_str()) {
        return Err(format!("There is no part {name:?}; there are {}.", PARTS.join(", ")));
    }
    Ok(Part { name, effort, rounds: rounds.map(|rounds| rounds as usize), only, keep, dir, out })
}

fn tuning(arguments: &mut Arguments) -> Result<Tuning, String> {
    let mut number = |flag| arguments.value(flag)?.map(|text| within(flag, &text, 0, u64::MAX)).transpose();
    Ok(Tuning {
        snapshot_commands: number("--snapshot-commands")?,
        log_keep_entries: number("--log-keep-entries")?,
        log_bytes: number("--log-bytes")?,
        no_snapshots: arguments.flag("--no-snapshots"),
    })
}

fn writers(arguments: &mut Arguments) -> Result<Writers, String> {
    let writers = arguments.value("--writers")?.unwrap_or_else(|| "256".into());
    let writers = writers.split(',').map(|number| within("--writers", number, 1, IN_FLIGHT_MAX as u64));
    Ok(Writers {
        writers: writers.map(|number| number.map(|number| number as usize)).collect::<Result<_, _>>()?,
        seconds: arguments.number("--seconds", 10, SECONDS_MAX)?,
        bytes: arguments.number("--bytes", 128, BYTES_MAX as u64)? as usize,
        machine: machine(arguments)?,
        dir: dir(arguments)?,
        strace: arguments.flag("--strace"),
    })
}

fn floor(arguments: &mut Arguments) -> Result<Floor, String> {
    Ok(Floor {
        seconds: arguments.number("--seconds", 3, SECONDS_MAX)?,
        bytes: arguments.number("--bytes", 128, BYTES_MAX as u64)? as usize,
        dir: dir(arguments)?,
        direct: arguments.flag("--direct"),
    })
}

fn node(arguments: &mut Arguments) -> Result<NodeOptions, String> {
    let mut need = |flag| arguments.value(flag)?.ok_or(format!("{flag} is missing."));
    let (name, servers, dir) = (need("--name")?, need("--servers")?, need("--dir")?);
    let servers = servers.split(',').map(|one| {
        let pair = one.split_once('=').ok_or(format!("{one:?} is not NAME=ADDRESS."))?;
        Ok((pair.0.to_string(), pair.1.to_string()))
    });
    let servers = servers.collect::<Result<_, String>>()?;
    Ok(NodeOptions { name, servers, dir: dir.into(), machine: machine(arguments)?, tuning: tuning(arguments)? })
}

fn machine(arguments: &mut Arguments) -> Result<MachineName, String> {
    match arguments.value("--machine")?.as_deref() {
        None | Some("counter") => Ok(MachineName::Counter),
        Some("kv") => Ok(MachineName::Kv),
        Some("stuck") => Ok(MachineName::Stuck),
        Some(other) => Err(format!("There is no machine {other:?}; there are counter and kv.")),
    }
}

fn within(flag: &str, text: &str, least: u64, most: u64) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or(format!("{flag} must be {least} to {most}, not {text:?}."))
}

struct Arguments(Vec<String>);

impl Arguments {
    fn flag(&mut self, flag: &str) -> bool {
        let at = self.0.iter().position(|argument| argument == flag);
        at.map(|at| self.0.remove(at)).is_some()
    }

    fn value(&mut self, flag: &str) -> Result<Option<String>, String> {
        let Some(at) = self.0.iter().position(|argument| argument == flag) else { return Ok(None) };
        self.0.remove(at);
        if at == self.0.len() {
            return Err(format!("{flag} needs a value."));
        }
        Ok(Some(self.0.remove(at)))
    }

    fn number(&mut self, flag: &str, default: u64, most: u64) -> Result<u64, String> {
        self.value(flag)?.map_or(Ok(default), |text| within(flag, &text, 1, most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Task, String> {
        parse(line.split_whitespace().map(str::to_string))
    }

    #[test]
    fn what_is_written_is_what_is_meant() {
        let Ok(Task::Writers(read)) =
            read("writers --writers 1,256 --strace --seconds 60 --bytes 9 --machine kv --dir d")
        else {
            panic!("it is right");
        };
        let writers = vec![1, 256];
        let meant = Writers { writers, seconds: 60, bytes: 9, machine: MachineName::Kv, dir: "d".into(), strace: true };
        assert_eq!(read, meant);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        assert!(read("").unwrap_err().contains("what to measure"));
        assert!(read("readers").unwrap_err().contains("readers"));
        assert!(read("writers --writers 1,x").unwrap_err().contains("\"x\""));
        assert!(read("writers --writers 0").unwrap_err().contains("1 to 65536"));
        assert!(read("writers --writers").unwrap_err().contains("needs a value"));
        assert!(read("writers --second 5").unwrap_err().contains("--second"));
        assert!(read("writers --machine sql").unwrap_err().contains("sql"));
        assert!(read("floor --strace").unwrap_err().contains("--strace"));
        assert!(read("node --name a").unwrap_err().contains("--servers"));
        assert!(read("part").unwrap_err().contains("which part"));
        assert!(read("part peers").unwrap_err().contains("\"peers\""));
        assert!(read("part floor --quick --long").unwrap_err().contains("exclude"));
        assert!(read("part floor --rounds 0").unwrap_err().contains("1 to 100"));
    }

    #[test]
    fn a_part_knows_how_much_and_what_is_wanted() {
        let Ok(Task::Part(part)) = read("part recovery --quick --only leader --keep --out o") else {
            panic!("it is right");
        };
        assert_eq!((part.name.as_str(), part.keep, part.out.to_str()), ("recovery", true, Some("o")));
        assert_eq!((part.of(1, 2, 3), part.rounds(5)), (1, 1..=1));
        assert!(part.wants("the leader dies") && !part.wants("restart"));
        let report = Task::Report(OUT.into(), Some("README.md".into()));
        assert_eq!(read("report --into README.md"), Ok(report));
        let Ok(Task::Part(part)) = read("part engine --long --rounds 7") else { panic!("it is right") };
        assert_eq!((part.of(1, 2, 3), part.rounds(5)), (3, 1..=7));
        assert!(part.wants("anything"));
    }

    #[test]
    fn tuning_reaches_the_node_as_it_was_meant() {
        let tuning =
            Tuning { no_snapshots: true, snapshot_commands: Some(5), log_keep_entries: None, log_bytes: Some(9) };
        let line = format!("node --name a --servers a=x --dir d {}", tuning.arguments().join(" "));
        let Ok(Task::Node(options)) = read(&line) else { panic!("it is right: {line}") };
        assert_eq!(options.tuning, tuning);
        let config = tuning.applied(NodeConfig::new("a", options.servers, "d"));
        assert_eq!((config.snapshots, config.snapshot_commands, config.log_bytes), (false, 5, 9));
        assert_eq!(config.log_keep_entries, quorate_engine::config::LOG_KEEP_ENTRIES);
    }
}
