//! The runner's own record of what was run: a JSON line a run.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use serde_json::json;

use crate::runner::Sum;

/// Appends what was run to `target/simulation/tally.jsonl`. Fails as the file system does.
pub fn append(what: &str, from: u64, sum: &Sum) -> io::Result<()> {
    let directory = Path::new("target/simulation");
    fs::create_dir_all(directory)?;
    let mut file = OpenOptions::new().create(true).append(true).open(directory.join("tally.jsonl"))?;
    let failed: Vec<u64> = sum.failed.iter().map(|(seed, _)| *seed).collect();
    let line = json!({
        "what": what,
        "from": from,
        "seeds": sum.seeds,
        "failed": failed,
        "acknowledged": sum.counts.acknowledged,
        "reads": sum.counts.reads,
        "unknown": sum.counts.unknown,
        "faults": sum.faults,
        "power_cuts": sum.harm.cuts,
        "elections": sum.elections,
        "snapshots_installed": sum.installed,
        "undecided": sum.too_hard,
        "virtual_s": sum.virtual_ms / 1_000,
        "took_s": sum.took.as_secs(),
    });
    writeln!(file, "{line}")
}
