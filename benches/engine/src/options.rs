//! The command line.

use std::collections::BTreeMap;
use std::path::PathBuf;

use quorate_engine::limits::IN_FLIGHT_MAX;

/// Shown with every refusal.
pub const USAGE: &str = "\
quorate-bench writers [--writers N,N,...] [--seconds S] [--bytes B] [--machine counter|kv] [--dir DIR] [--strace]
quorate-bench floor   [--seconds S] [--bytes B] [--dir DIR]";

/// Longest measurement, in seconds.
const SECONDS_MAX: u64 = 3_600;
/// Largest command body, in bytes.
const BYTES_MAX: usize = 1 << 20;

/// Which state machine the nodes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineName {
    /// Counts commands in memory: the engine alone.
    Counter,
    /// The key-value store on sled; each command is a put.
    Kv,
}

impl MachineName {
    /// As it is written on the command line.
    pub fn text(self) -> &'static str {
        match self {
            MachineName::Counter => "counter",
            MachineName::Kv => "kv",
        }
    }
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Task {
    /// A closed loop of commands against three processes.
    Writers(Writers),
    /// One disk sync, one round trip.
    Floor(Floor),
    /// One of the three processes; started by `writers`, not by people.
    Node(NodeOptions),
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
}

/// Reads the command line. Fails with a sentence.
pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Task, String> {
    let mut arguments = Arguments(arguments.collect());
    if arguments.0.is_empty() {
        return Err("Say what to measure.".into());
    }
    let task = match arguments.0.remove(0).as_str() {
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

fn writers(arguments: &mut Arguments) -> Result<Writers, String> {
    let writers = arguments.value("--writers")?.unwrap_or_else(|| "256".into());
    let writers = writers.split(',').map(|number| within("--writers", number, 1, IN_FLIGHT_MAX as u64));
    Ok(Writers {
        writers: writers.map(|number| number.map(|number| number as usize)).collect::<Result<_, _>>()?,
        seconds: arguments.number("--seconds", 10, SECONDS_MAX)?,
        bytes: arguments.number("--bytes", 128, BYTES_MAX as u64)? as usize,
        machine: machine(arguments)?,
        dir: arguments.value("--dir")?.map_or_else(std::env::temp_dir, PathBuf::from),
        strace: arguments.flag("--strace"),
    })
}

fn floor(arguments: &mut Arguments) -> Result<Floor, String> {
    Ok(Floor {
        seconds: arguments.number("--seconds", 3, SECONDS_MAX)?,
        bytes: arguments.number("--bytes", 128, BYTES_MAX as u64)? as usize,
        dir: arguments.value("--dir")?.map_or_else(std::env::temp_dir, PathBuf::from),
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
    Ok(NodeOptions { name, servers, dir: dir.into(), machine: machine(arguments)? })
}

fn machine(arguments: &mut Arguments) -> Result<MachineName, String> {
    match arguments.value("--machine")?.as_deref() {
        None | Some("counter") => Ok(MachineName::Counter),
        Some("kv") => Ok(MachineName::Kv),
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
    }
}
