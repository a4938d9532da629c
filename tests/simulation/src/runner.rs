//! Many seeds on several threads, and what came of them all together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use parking_lot::Mutex;

use crate::clients::Counts;
use crate::disk::Harm;
use crate::driver::{self, Report};
use crate::plan::Plan;

/// How often progress is printed.
const PRINT: Duration = Duration::from_secs(10);
/// Stack of a thread that runs seeds, in bytes.
const STACK: usize = 16 << 20;

/// What is to be run.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// The first seed.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// On so many threads.
    pub threads: usize,
    /// No seed is begun after this long.
    pub limit: Option<Duration>,
    /// Whether to go on after a failure.
    pub go_on: bool,
    /// Whether to print progress.
    pub print: bool,
}

/// What came of many runs.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    /// Seeds run.
    pub seeds: u64,
    /// Seeds that failed, with what does not hold.
    pub failed: Vec<(u64, String)>,
    /// What clients did.
    pub counts: Counts,
    /// Faults by name.
    pub faults: BTreeMap<&'static str, u64>,
    /// What disks did.
    pub harm: Harm,
    /// Connections, messages, losses.
    pub messages: u64,
    /// Terms that had a leader.
    pub elections: u64,
    /// Snapshots installed.
    pub installed: u64,
    /// Panics that were caught.
    pub panics: u64,
    /// Nodes that were started again after the faults.
    pub helped: u64,
    /// Histories that were not decided.
    pub too_hard: u64,
    /// Virtual time in ms.
    pub virtual_ms: u64,
    /// Real time of all threads together.
    pub took: Duration,
}

impl Sum {
    /// Adds what came of one seed.
    pub fn add(&mut self, seed: u64, report: &Report) {
        self.seeds += 1;
        if let Some(violation) = &report.violation {
            self.failed.push((seed, violation.to_string()));
        }
        self.counts.writes += report.counts.writes;
        self.counts.acknowledged += report.counts.acknowledged;
        self.counts.unknown += report.counts.unknown;
        self.counts.failed += report.counts.failed;
        self.counts.reads += report.counts.reads;
        report.faults.iter().for_each(|(name, count)| *self.faults.entry(name).or_default() += count);
        self.harm = self.harm.plus(&report.harm);
        self.messages += report.traffic.messages;
        self.elections += report.elections;
        self.installed += report.installed;
        self.panics += report.panics;
        self.helped += report.helped;
        self.too_hard += report.too_hard;
        self.virtual_ms += report.virtual_ms;
    }

    /// How many faults there were.
    pub fn faults(&self) -> u64 {
        self.faults.values().sum()
    }

    /// A few lines for a person.
    pub fn print(&self, took: Duration) {
        let rate = self.seeds as f64 / took.as_secs_f64().max(0.001);
        let Counts { acknowledged, unknown, reads, .. } = self.counts;
        println!(
            "{} seeds in {:.0} s ({rate:.1} a second), {:.0} virtual hours, {} failed",
            self.seeds,
            took.as_secs_f64(),
            self.virtual_ms as f64 / 3.6e6,
            self.failed.len()
        );
        println!(
            "{acknowledged} writes acknowledged, {unknown} unknown, {reads} reads; {} elections, {} snapshots installed, {} messages, \
             {} histories undecided, {} panics caught, {} nodes started again at the end",
            self.elections, self.installed, self.messages, self.too_hard, self.panics, self.helped
        );
        let Harm { sectors_lost, torn, names_lost, cuts, no_space, write_errors, sync_errors, short_writes } =
            self.harm;
        println!(
            "{} faults; disks: {cuts} power cuts ({sectors_lost} sectors, {names_lost} names lost, {torn} files torn), {no_space} ENOSPC, \
             {write_errors} EIO on write, {sync_errors} EIO on sync, {short_writes} short writes",
            self.faults()
        );
    }

    /// The faults, one a line.
    pub fn print_faults(&self) {
        self.faults.iter().for_each(|(name, count)| println!("{count:>9} {name}"));
    }
}

/// Where the files of runs lie: in memory, where the system has such a place.
pub fn base() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    base.join(format!("quorate-simulation-{}", std::process::id()))
}

/// Runs one plan in a directory of its own below `base`, which is removed afterwards unless something does not hold. Fails as
/// the file system does.
pub fn run_one(plan: &Plan, base: &Path, name: &str) -> io::Result<Report> {
    let root = base.join(name);
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    fs::create_dir_all(&root)?;
    let report = driver::run(plan, &root)?;
    if report.violation.is_none() {
        fs::remove_dir_all(&root)?;
    }
    Ok(report)
}

/// Runs seeds. Fails as the file system does.
pub fn run(order: Order) -> io::Result<Sum> {
    let base = base();
    let (next, stop) = (AtomicU64::new(order.from), AtomicBool::new(false));
    let (sum, begun) = (Mutex::new(Sum::default()), Instant::now());
    let failed: Mutex<Option<io::Error>> = Mutex::new(None);
    let work = |thread: usize| {
        loop {
            let late = order.limit.is_some_and(|limit| begun.elapsed() >= limit);
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if late || stop.load(Ordering::Relaxed) || seed >= order.from + order.seeds {
                return;
            }
            match run_one(&Plan::new(seed), &base, &format!("{thread}-seed-{seed}")) {
                Ok(report) => {
                    sum.lock().add(seed, &report);
                    if let Some(violation) = report.violation {
                        println!("seed {seed}: {violation}");
                        stop.fetch_or(!order.go_on, Ordering::Relaxed);
                    }
                }
                Err(error) => {
                    *failed.lock() = Some(io::Error::new(error.kind(), format!("seed {seed}: {error}")));
                    stop.store(true, Ordering::Relaxed);
                }
            }
        }
    };
    thread::scope(|scope| -> io::Result<()> {
        let mut threads = Vec::new();
        for number in 0..order.threads.max(1) {
            let work = &work;
            let builder = thread::Builder::new().name(format!("seeds-{number}")).stack_size(STACK);
            threads.push(builder.spawn_scoped(scope, move || work(number))?);
        }
        let mut printed = Instant::now();
        while !threads.iter().all(|thread| thread.is_finished()) {
            thread::sleep(Duration::from_millis(20));
            if order.print && printed.elapsed() >= PRINT {
                printed = Instant::now();
                sum.lock().print(begun.elapsed());
            }
        }
        Ok(())
    })?;
    if let Some(error) = failed.into_inner() {
        return Err(error);
    }
    let mut sum = sum.into_inner();
    sum.took = begun.elapsed();
    if sum.failed.is_empty() && base.exists() {
        fs::remove_dir_all(&base)?;
    }
    Ok(sum)
}
