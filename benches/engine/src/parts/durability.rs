//! The part `durability`: how often the nodes sync, as strace counts it from outside, in runs of their own.

use quorate_engine::{Code, Failure};
use serde_json::{Map, Value};

use super::ENGINE;
use crate::cluster::{Cluster, NAMES, Plan};
use crate::disk;
use crate::options::{MachineName, Part};
use crate::row::{Row, Sink, rounded};
use crate::strace;
use crate::writers::measure;

const IN_FLIGHT: [usize; 3] = [1, 64, 1024];
const BYTES: usize = 128;

/// Counts the syncs of three traced processes, from their start to their end. Fails with `Unavailable` when strace may not
/// trace here.
pub fn run(part: &Part, sink: &mut Sink) -> Result<(), Failure> {
    if !strace::is_there() {
        return Err(Failure::new(
            Code::Unavailable,
            "strace is not installed, or may not trace here: no sync is counted.",
        ));
    }
    for n in IN_FLIGHT {
        count(part, sink, n)?;
    }
    Ok(())
}

fn count(part: &Part, sink: &mut Sink, n: usize) -> Result<(), Failure> {
    let dir = disk::temporary(&part.dir)?;
    let plan = Plan { machine: MachineName::Counter, strace: true, ..Plan::default() };
    let mut cluster = Cluster::start(plan, dir.path(), &NAMES)?;
    let run = measure(&mut cluster, n, part.of(1, 3, 10), BYTES)?;
    let counted = cluster.end()?;
    let per_node: Map<String, Value> = counted
        .iter()
        .map(|(name, calls)| (name.to_string(), calls.iter().map(|(_, count)| count).sum::<u64>().into()))
        .collect();
    let calls: u64 = counted.iter().flat_map(|(_, calls)| calls).map(|(_, count)| count).sum();
    // No rate: tracing slows every sync.
    let row = Row::new(ENGINE, "durability")
        .n(n)
        .bytes(BYTES)
        .seconds(run.seconds)
        .more("commands", run.commands)
        .more("syncs", per_node)
        .more("syncs_per_command", rounded(calls as f64 / run.commands.max(1) as f64, 1e4));
    sink.write(row)
}
