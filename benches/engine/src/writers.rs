//! The task `writers`: three processes, one leader that drives the load, one line of figures a run.

use std::time::Duration;

use quorate_engine::{Code, Failure};

use crate::ask::{Answer, Question};
use crate::cluster::{ALL, Cluster, NAMES, Plan, SLACK};
use crate::disk;
use crate::facts::load_average;
use crate::latency::{Json, Latency};
use crate::load::WARM_UP;
use crate::options::Writers;
use crate::strace;

/// What one run came to.
pub struct Run {
    /// Commands completed while measuring.
    pub ops: u64,
    /// How long was measured, in seconds.
    pub seconds: f64,
    /// From submission to completion.
    pub latency: Latency,
    /// How far the index moved, warm-up included.
    pub commands: u64,
    /// Syncs of each node's log meanwhile, by name.
    pub syncs: Vec<(&'static str, u64)>,
}

/// Measures each number of writers in turn, on one cluster. Fails when a node or a command fails, when leadership moves
/// during a run, or when the nodes do not end with the same index.
pub fn run(options: &Writers) -> Result<(), Failure> {
    disk::warn_of_memory(&options.dir);
    let traced = options.strace && strace::is_there();
    if options.strace && !traced {
        eprintln!("strace is not installed, or may not trace here: the calls are not counted.");
    }
    let dir = disk::temporary(&options.dir)?;
    let plan = Plan { machine: options.machine, strace: traced, ..Plan::default() };
    let mut cluster = Cluster::start(plan, dir.path(), &NAMES)?;
    cluster.introduce();
    for writers in &options.writers {
        let run = measure(&mut cluster, *writers, options.seconds, options.bytes)?;
        tell(options, traced, *writers, &run);
    }
    for (name, calls) in cluster.end()? {
        tell_calls(name, &calls);
    }
    Ok(())
}

/// Has the first process lead and drive the load. Fails when a command fails, when leadership moves, or when the nodes do
/// not end with the same index.
pub fn measure(cluster: &mut Cluster, writers: usize, seconds: u64, bytes: usize) -> Result<Run, Failure> {
    let before = cluster.lead()?;
    let question = Question::Load(writers, seconds, bytes);
    let patience = Duration::from_secs(seconds) + WARM_UP + SLACK;
    let result = cluster.ask(NAMES[0], question, patience)?;
    let after = cluster.settle()?;
    if before[0].text("term") != after[0].text("term") {
        let message =
            format!("The leadership moved while {writers} writers were measured; the figures would mean nothing.");
        return Err(Failure::new(Code::Unavailable, message));
    }
    let pairs = ALL.iter().zip(before.iter().zip(&after));
    Ok(Run {
        ops: result.number("ops")?,
        seconds: result.number("seconds")?,
        latency: Latency::read(&result)?,
        commands: grown("index", &before[0], &after[0])?,
        syncs: pairs
            .map(|(name, (before, after))| Ok((*name, grown("syncs", before, after)?)))
            .collect::<Result<_, Failure>>()?,
    })
}

fn tell(options: &Writers, traced: bool, writers: usize, run: &Run) {
    let (rate, load_average) = (run.ops as f64 / run.seconds, load_average());
    let syncs = run.syncs.iter().fold(Json::default(), |json, (name, syncs)| json.raw(name, syncs));
    let json = Json::default()
        .text("bench", "writers")
        .text("machine", options.machine.text())
        .raw("writers", writers)
        .raw("bytes", options.bytes)
        .text("file_system", &disk::file_system(&options.dir))
        .raw("seconds", format_args!("{:.3}", run.seconds))
        .raw("ops", run.ops)
        .raw("ops_per_s", format_args!("{rate:.0}"))
        .latency(&run.latency)
        .raw("commands", run.commands)
        .raw("log_syncs", syncs.end())
        .raw("strace", traced)
        .raw("load_average", format_args!("{load_average:.2}"));
    println!("{}", json.end());
    eprintln!("{writers} in flight, {} bytes: {rate:.0} ops/s, {}", options.bytes, run.latency);
}

fn grown(what: &str, before: &Answer, after: &Answer) -> Result<u64, Failure> {
    Ok(after.number::<u64>(what)?.saturating_sub(before.number(what)?))
}

fn tell_calls(name: &str, calls: &[(String, u64)]) {
    let json = calls
        .iter()
        .fold(Json::default().text("bench", "strace").text("node", name), |json, (call, count)| json.raw(call, count));
    println!("{}", json.end());
    let counted: Vec<String> = calls.iter().map(|(call, count)| format!("{count} × {call}")).collect();
    eprintln!("{name}: {} from start to end, as strace counted.", counted.join(", "));
}
