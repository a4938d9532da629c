//! Three nodes on few cores, writes of 1 KiB as fast as they go, snapshots and purges all along, one state machine slower than
//! the others: no panic, and memory and disk stay bounded (openraft#2116 is the hazard).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quorate_engine::Failure;
use serde::Serialize;

use crate::cluster::{Cluster, Tuning, wait_for_writes};
use crate::process::{self, Answer, Process};
use crate::tally::Tally;
use crate::workdir::WorkDir;

/// Bytes of a value.
const VALUE_BYTES: usize = 1024;
/// Keys that are written again and again, so that the state does not grow.
const KEYS: u64 = 5_000;
/// Clients of each node, each with one write under way.
const CLIENTS: u64 = 24;
/// The node with the slow machine, and how much longer a command takes there, in microseconds.
const SLOW: usize = 2;
const SLOW_US: u64 = 30;
/// How long a node may take to acknowledge a write at the beginning and at the end.
const PATIENCE: Duration = Duration::from_secs(60);
/// What may be added in the last third to the most of the middle third, in bytes, beside a quarter of that.
const SLACK_BYTES: u64 = 64 << 20;

/// What a run is told.
pub struct Plan {
    /// The `crash-node` program.
    pub program: PathBuf,
    /// Where data and logs go.
    pub base: PathBuf,
    /// The file for samples and tally, as JSON lines.
    pub tally: PathBuf,
    /// How long.
    pub time: Duration,
    /// How often memory and disk are measured.
    pub every: Duration,
    /// Ends the run early.
    pub stop: Arc<AtomicBool>,
}

/// Memory and disk at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Milliseconds since the beginning.
    pub at_ms: u64,
    /// Writes acknowledged so far.
    pub acknowledged: u64,
    /// Resident memory of each node, in bytes.
    pub rss: Vec<u64>,
    /// The most that it ever was, in bytes.
    pub peak_rss: Vec<u64>,
    /// What each data directory takes, in bytes.
    pub disk: Vec<u64>,
}

/// What a run found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Memory and disk over time.
    pub samples: Vec<Sample>,
    /// What must not be, in sentences.
    pub wrong: Vec<String>,
}

const MIB: u64 = 1 << 20;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>7} {:>12} {:>24} {:>24} {:>24}", "s", "writes", "RSS MiB", "peak RSS MiB", "disk MiB")?;
        let list = |bytes: &[u64]| bytes.iter().map(|one| (one / MIB).to_string()).collect::<Vec<_>>().join(" / ");
        for sample in &self.samples {
            let Sample { at_ms, acknowledged, rss, peak_rss, disk } = sample;
            let (rss, peak, disk) = (list(rss), list(peak_rss), list(disk));
            writeln!(f, "{:>7.1} {acknowledged:>12} {rss:>24} {peak:>24} {disk:>24}", *at_ms as f64 / 1e3)?;
        }
        write!(f, "{} wrong", self.wrong.len())
    }
}

#[derive(Serialize)]
struct TallyLine<'a, T: Serialize> {
    run: &'static str,
    #[serde(flatten)]
    what: &'a T,
    unix_s: u64,
}

fn line<'a, T: Serialize>(run: &'static str, what: &'a T) -> TallyLine<'a, T> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TallyLine { run, what, unix_s: now.as_secs() }
}

/// Runs `plan`, printing progress with `say`. Fails when the machinery itself does; what is wrong with the nodes is in the report,
/// and their directory is kept then.
pub fn run(plan: &Plan, say: &dyn Fn(String)) -> Result<Report, Failure> {
    let work = WorkDir::new(&plan.base)?;
    let names = ["a", "b", "slow"];
    let dirs: Vec<PathBuf> = names.iter().map(|name| work.path().join(name)).collect();
    let tuning = Tuning { times_ms: (100, 1_000), snapshot: 10_000, keep: 100, log_bytes: 32 << 20 };
    let mut cluster = Cluster::new(&plan.program, &names, &dirs, work.path(), tuning)?;
    cluster.members[SLOW].slow_us = SLOW_US;
    cluster.start(&[0, 1, 2])?;
    let processes: Vec<_> = (0..3).map(|at| cluster.process(at)).collect::<Result<_, _>>()?;
    processes.iter().try_for_each(|process| wait_for_writes(process, PATIENCE))?;
    let mut report = Report::default();
    let tally = Tally::new(&plan.tally);
    let load = Load::start(&processes)?;
    let begin = Instant::now();
    while begin.elapsed() < plan.time
        && !plan.stop.load(Ordering::Relaxed)
        && !processes.iter().any(|one| one.said().ended)
    {
        std::thread::sleep(plan.every.min(plan.time.saturating_sub(begin.elapsed())));
        let acknowledged = load.acknowledged.load(Ordering::Relaxed);
        let Some(sample) = sample(&begin, acknowledged, &processes, &dirs) else {
            let fates: Vec<String> = processes.iter().map(|process| process.fate()).collect();
            let after = begin.elapsed().as_secs();
            report.wrong.push(format!("A process ended after {after} s: {}.", fates.join(", ")));
            break;
        };
        tally.add(&line("soak-sample", &sample))?;
        let (rss, disk): (u64, u64) = (sample.rss.iter().sum(), sample.disk.iter().sum());
        say(format!(
            "{} s: {} writes, RSS {} MiB, disk {} MiB",
            sample.at_ms / 1000,
            sample.acknowledged,
            rss / MIB,
            disk / MIB
        ));
        report.samples.push(sample);
    }
    drop(load);
    report.judge_growth();
    report.judge_nodes(&cluster, &processes);
    (0..3).for_each(|at| cluster.kill(at));
    if !report.wrong.is_empty() {
        work.keep();
        report.wrong.iter().for_each(|sentence| say(format!("  {sentence}")));
        say(format!("See {}", work.path().display()));
    }
    #[derive(Serialize)]
    struct Done<'a> {
        seconds: u64,
        last: Option<&'a Sample>,
        wrong: &'a [String],
    }
    let done = Done { seconds: begin.elapsed().as_secs(), last: report.samples.last(), wrong: &report.wrong };
    tally.add(&line("soak", &done))?;
    Ok(report)
}

impl Report {
    /// In the last third nothing may be much more than it was in the middle third.
    fn judge_growth(&mut self) {
        let third = self.samples.len() / 3;
        if third == 0 {
            return self.wrong.push("Too few samples to judge by.".into());
        }
        let (middle, last) = (&self.samples[third..2 * third], &self.samples[2 * third..]);
        let mut wrong = Vec::new();
        for (what, of) in [("memory", rss as fn(&Sample) -> &[u64]), ("disk", disk)] {
            for node in 0..3 {
                let most = |samples: &[Sample]| samples.iter().map(|sample| of(sample)[node]).max().unwrap_or(0);
                let (before, after) = (most(middle), most(last));
                if after > before + before / 4 + SLACK_BYTES {
                    let (before, after) = (before / MIB, after / MIB);
                    wrong.push(format!("The {what} of node {node} grew from {before} MiB to {after} MiB."));
                }
            }
        }
        self.wrong.extend(wrong);
    }

    /// Nobody may have panicked, and everybody must acknowledge a write.
    fn judge_nodes(&mut self, cluster: &Cluster, processes: &[Arc<Process>]) {
        for (at, process) in processes.iter().enumerate() {
            let name = &cluster.members[at].name;
            if let Err(failure) = wait_for_writes(process, PATIENCE) {
                self.wrong.push(format!("{name}: {failure}"));
            }
            let log = std::fs::read(cluster.log(at)).unwrap_or_default();
            if let Some(panic) = String::from_utf8_lossy(&log).lines().find(|line| line.contains("panicked")) {
                self.wrong.push(format!("{name} panicked: {panic}"));
            }
        }
    }
}

fn rss(sample: &Sample) -> &[u64] {
    &sample.rss
}

fn disk(sample: &Sample) -> &[u64] {
    &sample.disk
}

/// `None` when a process is gone.
fn sample(begin: &Instant, acknowledged: u64, processes: &[Arc<Process>], dirs: &[PathBuf]) -> Option<Sample> {
    let field = |name: &str| processes.iter().map(|one| memory(one.pid(), name)).collect::<Option<Vec<u64>>>();
    Some(Sample {
        at_ms: begin.elapsed().as_millis() as u64,
        acknowledged,
        rss: field("VmRSS:")?,
        peak_rss: field("VmHWM:")?,
        disk: dirs.iter().map(|dir| size(dir)).collect(),
    })
}

/// A field of `/proc/PID/status`, in bytes; `None` when the process is gone.
fn memory(pid: u32, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// What the files below `dir` take; one that goes while it is looked at takes nothing.
fn size(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size(&entry.path()),
            Ok(metadata) => std::os::unix::fs::MetadataExt::blocks(&metadata) * 512,
            Err(_) => 0,
        })
        .sum()
}

/// Running clients. Dropping it stops them.
struct Load {
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(processes: &[Arc<Process>]) -> Result<Load, Failure> {
        let mut load = Load { acknowledged: Arc::default(), stop: Arc::default(), threads: Vec::new() };
        for client in 0..CLIENTS * processes.len() as u64 {
            let process = processes[client as usize % processes.len()].clone();
            let (acknowledged, stop) = (load.acknowledged.clone(), load.stop.clone());
            let thread = std::thread::Builder::new().name(format!("client-{client}"));
            let thread = thread.spawn(move || write(client, &process, &acknowledged, &stop));
            load.threads.push(thread.map_err(|error| Failure::io("Starting a client", &error))?);
        }
        Ok(load)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                eprintln!("A client panicked.");
            }
        }
    }
}

fn write(client: u64, process: &Process, acknowledged: &AtomicU64, stop: &AtomicBool) {
    let mut number = client;
    while !stop.load(Ordering::Relaxed) && !process.said().ended {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let filler = char::from(b'a' + (number % 26) as u8).to_string().repeat(VALUE_BYTES);
        match process.call(&format!("put s/{} {filler}", (number >> 33) % KEYS), process::PATIENCE) {
            Answer::Ok(_) => drop(acknowledged.fetch_add(1, Ordering::Relaxed)),
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(disk: impl Fn(u64) -> u64) -> Report {
        let sample = |at: u64| Sample {
            at_ms: at,
            acknowledged: at,
            rss: vec![100 * MIB; 3],
            peak_rss: vec![100 * MIB; 3],
            disk: vec![disk(at) * MIB; 3],
        };
        let mut report = Report { samples: (0..30).map(sample).collect(), wrong: Vec::new() };
        report.judge_growth();
        report
    }

    #[test]
    fn what_goes_on_growing_is_wrong_and_what_levels_off_is_not() {
        assert_eq!(report(|at| 100 + 20 * at).wrong.len(), 3);
        assert!(report(|at| (100 + 100 * at).min(1_000)).wrong.is_empty());
        assert!(report(|at| 300 + 50 * (at % 5)).wrong.is_empty());
    }
}
