//! The part `growth`: more nodes, more keys, more log, and nodes that stand still ([`super::stalled`]). What must not grow with
//! the log's length is checked.

use std::time::{Duration, Instant};

use quorate_engine::Failure;
use serde_json::{Value, json};

use super::{ENGINE, MIB, stalled};
use crate::ask::Question;
use crate::cluster::{ALL, Cluster, NAMES, Plan, SLACK};
use crate::disk;
use crate::load::WARM_UP;
use crate::options::{MachineName, Part, Tuning};
use crate::row::{Row, Sink, rounded};
use crate::writers::measure;

const BYTES: usize = 128;
/// Numbers of nodes, and commands in flight for each.
const NODES: [usize; 3] = [3, 5, 7];
const IN_FLIGHT: [usize; 3] = [1, 64, 1024];
/// Puts in flight while keys are added.
const WRITERS: usize = 256;
/// Numbers of keys at which is measured; the last with a long run only.
const KEYS: [u64; 5] = [1_000, 10_000, 100_000, 1_000_000, 10_000_000];
/// Most time that one step of keys may take.
const PATIENCE: Duration = Duration::from_secs(900);
/// How often memory and disk are looked at while the log runs in fast motion.
pub(super) const LOOK: Duration = Duration::from_millis(500);
/// Snapshots as often as this, so that many fit into a minute.
const FAST_MOTION: Tuning = Tuning {
    no_snapshots: false,
    snapshot_commands: Some(10_000),
    log_keep_entries: Some(1_000),
    log_bytes: Some(32 << 20),
};
/// What may be added in the last third to the most of the middle third, in bytes, beside a quarter of that.
const SLACK_BYTES: u64 = 64 << 20;

/// Measures what is wanted. Fails when a node or a command fails, or when memory or disk grow with the log.
pub fn run(part: &Part, sink: &mut Sink) -> Result<(), Failure> {
    if part.wants("nodes") {
        part.rounds(3).try_for_each(|round| nodes(part, sink, round))?;
    }
    if part.wants("keys") {
        keys(part, sink)?;
    }
    if part.wants("log in fast motion") {
        fast_motion(part, sink)?;
    }
    stalled::run(part, sink)
}

fn nodes(part: &Part, sink: &mut Sink, round: usize) -> Result<(), Failure> {
    for count in NODES {
        let dir = disk::temporary(&part.dir)?;
        let mut cluster = Cluster::start(Plan::default(), dir.path(), &ALL[..count])?;
        for n in IN_FLIGHT {
            let run = measure(&mut cluster, n, part.of(1, 2, 5), BYTES)?;
            let row = Row::new(ENGINE, &format!("{count} nodes")).n(n).bytes(BYTES).round(round);
            sink.write(row.rate(run.ops, run.seconds).latency(&run.latency))?;
        }
        cluster.end()?;
    }
    Ok(())
}

/// Memory and disk of three nodes of the key-value store as it fills.
fn keys(part: &Part, sink: &mut Sink) -> Result<(), Failure> {
    let dir = disk::temporary(&part.dir)?;
    let plan = Plan { machine: MachineName::Kv, ..Plan::default() };
    let mut cluster = Cluster::start(plan, dir.path(), &NAMES)?;
    let (memory, disk) = (cluster.memory(), cluster.disk());
    let mut there = 0;
    for keys in KEYS.into_iter().take(part.of(3, 4, 5)) {
        cluster.ask(NAMES[0], Question::Lead, SLACK)?;
        let filled = cluster.ask(NAMES[0], Question::Fill(there, keys - there, BYTES, WRITERS), PATIENCE)?;
        let (added, seconds): (u64, f64) = (filled.number("ops")?, filled.number("seconds")?);
        cluster.settle()?;
        let now = (cluster.memory(), cluster.disk());
        let each = |now: &[u64], empty: &[u64]| {
            let grown: u64 = now.iter().zip(empty).map(|(now, empty)| now.saturating_sub(*empty)).sum();
            rounded(grown as f64 / now.len() as f64 / keys as f64, 10.0)
        };
        let row = Row::new(ENGINE, &format!("{keys} keys")).bytes(BYTES).round(1).rate(added, seconds);
        let row = row.more("memory_mib", mib(&now.0)).more("disk_mib", mib(&now.1));
        let row = row.more("memory_bytes_per_key", each(&now.0, &memory));
        sink.write(row.more("disk_bytes_per_key", each(&now.1, &disk)))?;
        there = keys;
    }
    cluster.end().map(drop)
}

/// The most of any node, in MiB.
fn mib(bytes: &[u64]) -> u64 {
    bytes.iter().max().map_or(0, |bytes| bytes / MIB)
}

/// A long log in fast motion: the same keys again and again, snapshots and purges all along.
fn fast_motion(part: &Part, sink: &mut Sink) -> Result<(), Failure> {
    let dir = disk::temporary(&part.dir)?;
    let plan = Plan { machine: MachineName::Kv, tuning: FAST_MOTION, ..Plan::default() };
    let mut cluster = Cluster::start(plan, dir.path(), &NAMES)?;
    cluster.lead()?;
    let seconds = part.of(12, 60, 900);
    cluster.begin(NAMES[0], Question::Load(WRITERS, seconds, BYTES))?;
    let (began, mut samples) = (Instant::now(), Vec::new());
    while began.elapsed() < Duration::from_secs(seconds) + WARM_UP {
        samples.push(Sample { at: began.elapsed().as_secs_f64(), memory: cluster.memory(), disk: cluster.disk() });
        std::thread::sleep(LOOK);
    }
    let answer = cluster.finish(NAMES[0], SLACK)?;
    let facts = cluster.settle()?;
    let (ops, taken): (u64, f64) = (answer.number("ops")?, answer.number("seconds")?);
    let row = Row::new(ENGINE, "log in fast motion").n(WRITERS).bytes(BYTES).round(1).rate(ops, taken);
    let grown = [grown("memory", &samples, |sample| &sample.memory), grown("disk", &samples, |sample| &sample.disk)];
    let grown: Vec<String> = grown.into_iter().flatten().collect();
    let most = samples.iter().flat_map(|sample| &sample.memory).max().map_or(0, |bytes| bytes / MIB);
    let row = row.more("commands", facts[0].number::<u64>("index")?).more("memory_mib", most);
    let row = row.more("snapshot_index", facts[0].number::<u64>("snapshot")?).more("bounded", grown.is_empty());
    sink.write(row.more("timeline", timeline(&samples)))?;
    cluster.end()?;
    if grown.is_empty() { Ok(()) } else { Err(Failure::internal(grown.join(" "))) }
}

/// Memory and disk of each node at one moment.
pub(super) struct Sample {
    pub at: f64,
    pub memory: Vec<u64>,
    pub disk: Vec<u64>,
}

/// A sentence when a node has more at the end than in the middle: it grew all along, not only until its limits were reached.
pub(super) fn grown(what: &str, samples: &[Sample], of: impl Fn(&Sample) -> &Vec<u64>) -> Option<String> {
    let third = samples.len() / 3;
    let most = |samples: &[Sample], node: usize| samples.iter().map(|sample| of(sample)[node]).max().unwrap_or(0);
    let nodes = samples.first().map_or(0, |sample| of(sample).len());
    (0..nodes).find_map(|node| {
        let (middle, end) = (most(&samples[third..2 * third], node), most(&samples[2 * third..], node));
        let told = || format!("The {what} of {} grew from {} to {} MiB.", ALL[node], middle / MIB, end / MIB);
        (end > middle + middle / 4 + SLACK_BYTES).then(told)
    })
}

/// Memory and disk of each node over time, as a plot.
pub(super) fn timeline(samples: &[Sample]) -> Value {
    let line = |of: &dyn Fn(&Sample) -> u64| -> Value {
        samples.iter().map(|sample| json!([rounded(sample.at, 100.0), of(sample) / MIB])).collect()
    };
    let mut series = serde_json::Map::new();
    for (node, name) in NAMES.iter().enumerate() {
        series.insert(format!("memory of {name}"), line(&|sample| sample.memory[node]));
        series.insert(format!("disk of {name}"), line(&|sample| sample.disk[node]));
    }
    json!({"label": "MiB", "series": series})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(memory: impl Fn(u64) -> u64) -> Vec<Sample> {
        let sample = |at| Sample { at: at as f64, memory: vec![MIB, memory(at)], disk: vec![0, 0] };
        (0..30).map(sample).collect()
    }

    #[test]
    fn what_grows_all_along_is_told_and_what_fills_up_and_stays_is_not() {
        let told = |samples: &[Sample]| grown("memory", samples, |sample| &sample.memory);
        let growing = samples(|at| at * 20 * MIB);
        assert_eq!(told(&growing).unwrap(), "The memory of b grew from 380 to 580 MiB.");
        assert_eq!(told(&samples(|at| at.min(10) * 100 * MIB)), None);
        assert_eq!(told(&samples(|at| 100 * MIB + at * 2 * MIB)), None, "within the slack");
        assert_eq!(grown("disk", &growing, |sample| &sample.disk), None);
        assert_eq!(told(&[]), None);
    }
}
