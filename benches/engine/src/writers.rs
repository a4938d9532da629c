//! The task `writers`: three processes, one leader that drives the load, one line of figures a run.

use std::time::Duration;

use quorate_engine::{Code, Failure};

use crate::ask::{Answer, Question};
use crate::cluster::{Cluster, NAMES};
use crate::disk;
use crate::load::WARM_UP;
use crate::options::Writers;
use crate::report::{Json, Latency};
use crate::strace;

/// What a run may take beyond its time: the last commands, and a machine that is busy with other things.
const SLACK: Duration = Duration::from_secs(60);

/// Measures each number of writers in turn, on one cluster. Fails when a node or a command fails, when leadership moves
/// during a run, or when the nodes do not end with the same index.
pub fn run(options: &Writers) -> Result<(), Failure> {
    disk::warn_of_memory(&options.dir);
    let traced = options.strace && strace::is_there();
    if options.strace && !traced {
        eprintln!("strace is not installed, or may not trace here: the calls are not counted.");
    }
    let failed = |error| Failure::io(format!("Making a directory in {}", options.dir.display()), &error);
    let dir = tempfile::Builder::new().prefix("quorate-bench-").tempdir_in(&options.dir).map_err(failed)?;
    let options = Writers { strace: traced, dir: options.dir.clone(), writers: options.writers.clone(), ..*options };
    let mut cluster = Cluster::start(&options, dir.path())?;
    for writers in &options.writers {
        measure(&mut cluster, &options, *writers)?;
    }
    for (name, calls) in cluster.end()? {
        tell_calls(name, &calls);
    }
    Ok(())
}

fn measure(cluster: &mut Cluster, options: &Writers, writers: usize) -> Result<(), Failure> {
    let before = cluster.lead()?;
    let question = Question::Load(writers, options.seconds, options.bytes);
    let patience = Duration::from_secs(options.seconds) + WARM_UP + SLACK;
    let result = cluster.ask(NAMES[0], question, patience)?;
    let after = cluster.settle()?;
    if before[0].text("term") != after[0].text("term") {
        let message =
            format!("The leadership moved while {writers} writers were measured; the figures would mean nothing.");
        return Err(Failure::new(Code::Unavailable, message));
    }
    tell(options, writers, &result, &before, &after)
}

fn tell(
    options: &Writers,
    writers: usize,
    result: &Answer,
    before: &[Answer],
    after: &[Answer],
) -> Result<(), Failure> {
    let (ops, seconds): (u64, f64) = (result.number("ops")?, result.number("seconds")?);
    let latency = Latency::read(result)?;
    let (rate, load_average) = (ops as f64 / seconds, load_average());
    let json = Json::default()
        .text("bench", "writers")
        .text("machine", options.machine.text())
        .raw("writers", writers)
        .raw("bytes", options.bytes)
        .text("file_system", &disk::file_system(&options.dir))
        .raw("seconds", format_args!("{seconds:.3}"))
        .raw("ops", ops)
        .raw("ops_per_s", format_args!("{rate:.0}"))
        .latency(&latency)
        .raw("commands", grown("index", &before[0], &after[0])?)
        .raw("log_syncs", syncs(before, after)?)
        .raw("strace", options.strace)
        .raw("load_average", format_args!("{load_average:.2}"));
    println!("{}", json.end());
    eprintln!("{writers} in flight, {} bytes: {rate:.0} ops/s, {latency}", options.bytes);
    Ok(())
}

/// Syncs of each node's log from before the warm-up to the end, as a JSON object.
fn syncs(before: &[Answer], after: &[Answer]) -> Result<String, Failure> {
    let mut json = Json::default();
    for ((name, before), after) in NAMES.iter().zip(before).zip(after) {
        json = json.raw(name, grown("syncs", before, after)?);
    }
    Ok(json.end())
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

/// Of the last minute; 0 where there is no /proc. Other work on the machine makes every figure worse.
fn load_average() -> f64 {
    let told = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    told.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}
