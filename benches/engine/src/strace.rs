//! Counting the syncs of a process from outside: `strace -c`.

use std::path::Path;
use std::process::{Command, Stdio};

/// True when strace is there and may trace.
pub fn is_there() -> bool {
    let mut probe = Command::new("strace");
    probe.args(["-f", "--seccomp-bpf", "-c", "-e", "trace=fsync,fdatasync", "true"]);
    probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

/// A command that runs `program` under strace, which writes its table to `table` when the program has ended. Other calls
/// than the counted ones are not even stopped at (`--seccomp-bpf`).
pub fn command(program: &Path, table: &Path) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "--seccomp-bpf", "-c", "-e", "trace=fsync,fdatasync", "-o"]).arg(table).arg(program);
    command
}

/// The calls of each name in a table of `strace -c`.
pub fn counts(table: &str) -> Vec<(String, u64)> {
    let rows = table.lines().filter_map(|line| {
        // "% time  seconds  usecs/call  calls  [errors]  syscall"
        let words: Vec<&str> = line.split_whitespace().collect();
        let calls = words.get(3)?.parse().ok()?;
        let name = words.last()?;
        (words.len() >= 5 && *name != "total").then(|| (name.to_string(), calls))
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_row_by_row() {
        let table = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 99.00    0.123456          12     10234           fdatasync
  1.00    0.001234          61        20         1 fsync
------ ----------- ----------- --------- --------- ----------------
100.00    0.124690          12     10254         1 total
";
        assert_eq!(counts(table), [("fdatasync".to_string(), 10_234), ("fsync".to_string(), 20)]);
        assert_eq!(counts(""), []);
    }
}
