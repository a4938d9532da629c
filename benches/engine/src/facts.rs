//! What kind of machine it was: figures without that say little.

use std::path::Path;
use std::process::Command;

use quorate_engine::Failure;
use serde_json::Value;

use crate::disk;
use crate::row::{Row, Sink};

/// Writes `machine.jsonl` into `out`: one row with the facts of this machine, of the disk below `data`, and of the commit
/// that is measured. Fails with `Io`.
pub fn write(out: &Path, data: &Path) -> Result<(), Failure> {
    let mut sink = Sink::open(out, "machine", false)?;
    let commit = told("git", &["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]);
    let row = Row::new("machine", "facts")
        .more("cores", std::thread::available_parallelism().map_or(0, usize::from))
        .more("processor", line_after("/proc/cpuinfo", "model name"))
        .more("memory", line_after("/proc/meminfo", "MemTotal"))
        .more("kernel", read("/proc/sys/kernel/osrelease"))
        .more("file system", disk::file_system(data))
        .more("disk", disk::device(data))
        .more("load at start", read("/proc/loadavg"))
        .more("commit", commit)
        .more("rustc", told("rustc", &["--version"]))
        .more("began", told("date", &["-u", "+%Y-%m-%d %H:%M UTC"]));
    sink.write(row)
}

/// Of the last minute; 0 where there is no /proc. Other work on the machine makes every figure worse.
pub fn load_average() -> f64 {
    let told = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    told.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

fn read(path: &str) -> Value {
    std::fs::read_to_string(path).map_or(Value::Null, |text| text.trim().into())
}

/// The rest of the first line of `path` that begins with `name`, after its colon.
fn line_after(path: &str, name: &str) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.split_once(':'));
    found.map_or(Value::Null, |(_, rest)| rest.trim().into())
}

/// What a program says; null when it is missing or fails.
fn told(program: &str, arguments: &[&str]) -> Value {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().into(),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_are_one_row_and_what_is_not_there_is_null() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), dir.path()).unwrap();
        let text = std::fs::read_to_string(dir.path().join("machine.jsonl")).unwrap();
        let row: Row = serde_json::from_str(text.trim()).unwrap();
        assert!(row.extra("cores").unwrap() >= 1.0);
        assert_eq!(row.more["file system"], disk::file_system(dir.path()));
        assert_eq!(told("no-such-program", &[]), Value::Null);
        assert_eq!(told("sh", &["-c", "echo what it says"]), "what it says");
        assert_eq!(told("sh", &["-c", "echo what it says; exit 1"]), Value::Null);
        assert_eq!(line_after("/proc/no-such-file", "x"), Value::Null);
    }
}
