//! Torture: processes are killed, paused, wiped, their network is torn, and what the clients saw must be linearizable.
//!
//! A run is made of rounds. A round has a fresh cluster of three or five processes, clients on all of them, faults for a
//! while, then none: within a bound every node must acknowledge a write, and all must read the same. The round's
//! history is then checked key by key.

pub mod clients;
pub mod clock;
pub mod faults;
pub mod history;
mod porcupine;
pub mod proxy;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quorate_engine::Failure;
use serde::Serialize;

use crate::cluster::{Cluster, Tuning};
use crate::disk::{self, Disk};
use crate::rng::Rng;
use crate::tally::Tally;
use crate::workdir::WorkDir;
use clients::Clients;
use clock::Clock;
use faults::Victim;
use history::{Line, Status};
use proxy::Network;

/// How long the faults of one round go on.
pub const ROUND: Duration = Duration::from_secs(25);
/// Clients of each node, unless a run is told otherwise.
pub const CLIENTS: u64 = 12;
/// Keys in use at a time, unless a run is told otherwise.
pub const KEYS: u64 = 30;
/// Room on a node's own disk, in bytes: a few times what it keeps.
const DISK_BYTES: u64 = 64 << 20;
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// What a run is told.
pub struct Plan {
    /// The `crash-node` program.
    pub program: PathBuf,
    /// Where data, logs and histories go.
    pub base: PathBuf,
    /// The file for the tally.
    pub tally: PathBuf,
    /// How long, at least; the last round is finished.
    pub time: Duration,
    /// How long the faults of a round go on.
    pub round: Duration,
    /// Clients of each node.
    pub clients: u64,
    /// Keys in use at a time.
    pub keys: u64,
    /// Of a hundred faults so many are kills, beside those among the others.
    pub kills_percent: u64,
    /// Where the random numbers begin.
    pub seed: u64,
    /// Ends the run early.
    pub stop: Arc<AtomicBool>,
}

/// What was done and found, in one round or in all.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Rounds.
    pub rounds: u64,
    /// Operations, whatever became of them.
    pub operations: u64,
    /// Those that may have had an effect or not.
    pub unknown: u64,
    /// Those that failed for certain.
    pub failed: u64,
    /// Faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// Terms that began.
    pub elections: u64,
    /// The longest time without an acknowledged write, in milliseconds, faults included.
    pub longest_unavailability_ms: u64,
    /// Connections that the network carried.
    pub connections: u64,
    /// Faults that are not possible here, and why.
    pub skipped: BTreeSet<String>,
    /// What was wrong, in sentences.
    pub wrong: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self.faults.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        write!(
            f,
            "{} rounds, {} operations ({} unknown, {} failed), ",
            self.rounds, self.operations, self.unknown, self.failed
        )?;
        write!(f, "{} elections, longest unavailability {} ms, ", self.elections, self.longest_unavailability_ms)?;
        write!(f, "faults: {}; {} wrong", faults.join(", "), self.wrong.len())?;
        self.skipped.iter().try_for_each(|why| write!(f, "; skipped: {why}"))
    }
}

#[derive(Serialize)]
struct TallyLine<'a> {
    run: &'static str,
    seed: u64,
    round: u64,
    nodes: usize,
    #[serde(flatten)]
    report: &'a Report,
    unix_s: u64,
}

/// Runs `plan`, printing progress with `say`; ends with the first round in which something is wrong, its directory kept.
/// Fails when the machinery itself does.
pub fn run(plan: &Plan, say: &dyn Fn(String)) -> Result<Report, Failure> {
    let mut total = Report::default();
    let begin = Instant::now();
    let tally = Tally::new(&plan.tally);
    while begin.elapsed() < plan.time && total.wrong.is_empty() && !plan.stop.load(Ordering::Relaxed) {
        let work = WorkDir::new(&plan.base)?;
        let mut rng = Rng::new(plan.seed).split(total.rounds);
        let nodes = if rng.chance(50) { 3 } else { 5 };
        let one = round(plan, work.path(), nodes, &mut rng)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        tally.add(&TallyLine {
            run: "torture",
            seed: plan.seed,
            round: total.rounds,
            nodes,
            report: &one,
            unix_s: now,
        })?;
        total.add(&one);
        if !one.wrong.is_empty() {
            work.keep();
            say(format!("round {} of seed {} FAILED; see {}", total.rounds, plan.seed, work.path().display()));
            one.wrong.iter().take(20).for_each(|sentence| say(format!("  {sentence}")));
        }
        say(total.to_string());
    }
    Ok(total)
}

impl Report {
    fn add(&mut self, one: &Report) {
        self.rounds += 1;
        self.operations += one.operations;
        self.unknown += one.unknown;
        self.failed += one.failed;
        self.elections += one.elections;
        self.connections += one.connections;
        self.longest_unavailability_ms = self.longest_unavailability_ms.max(one.longest_unavailability_ms);
        one.faults.iter().for_each(|(kind, count)| *self.faults.entry(kind.clone()).or_default() += count);
        self.skipped.extend(one.skipped.iter().cloned());
        self.wrong.extend(one.wrong.iter().cloned());
    }

    fn count(&mut self, lines: &[Line]) {
        let with = |status| lines.iter().filter(|line| line.status == status).count() as u64;
        self.operations = lines.len() as u64;
        (self.unknown, self.failed) = (with(Status::Unknown), with(Status::Fail));
    }
}

fn round(plan: &Plan, dir: &Path, nodes: usize, rng: &mut Rng) -> Result<Report, Failure> {
    let names = &NAMES[..nodes];
    let mut report = Report::default();
    let disks = own_disks(dir, names, rng, &mut report)?;
    let dirs: Vec<PathBuf> = match disks.is_empty() {
        true => names.iter().map(|name| dir.join(name)).collect(),
        false => disks.iter().map(|disk| disk.point().join("data")).collect(),
    };
    let mut cluster = Cluster::new(&plan.program, names, &dirs, dir, Tuning::default())?;
    let listens: Vec<String> = cluster.members.iter().map(|member| member.listen.clone()).collect();
    let (network, addresses) = Network::start(&listens)?;
    cluster.members.iter_mut().zip(addresses).for_each(|(member, address)| member.address = address);
    let mut victim = Victim::new(cluster, network);
    victim.disks = disks;
    victim.kills_percent = plan.kills_percent;
    match clock::library() {
        Ok(library) => own_clocks(&mut victim, dir, &library)?,
        Err(why) => drop(report.skipped.insert(why)),
    }
    victim.repair(false)?;
    victim.wait_for_progress()?;
    let mut clients = Clients::start(&victim.processes, plan.clients as usize, plan.keys, rng)?;
    let outcome = torment(plan, &mut victim, rng);
    let end_ns = clients.now_ns();
    let mut lines = clients.stop()?;
    let settled = outcome.and_then(|()| settle(&victim, &clients, &lines));
    match settled {
        Ok(more) => lines.extend(more),
        Err(failure) => report.wrong.push(failure.message),
    }
    history::save(&dir.join("history.jsonl"), &lines)?;
    report.wrong.extend(history::judge(&lines));
    report.count(&lines);
    report.faults = victim.counts.iter().map(|(kind, count)| (kind.to_string(), *count)).collect();
    let terms = (0..nodes).filter_map(|at| victim.cluster.process(at).ok()?.said().led_by);
    report.elections = terms.map(|(term, _)| term).max().unwrap_or(0);
    report.longest_unavailability_ms = history::longest_gap(&lines, end_ns).as_millis() as u64;
    report.connections = victim.network.carried();
    Ok(report)
}

/// In half of the rounds each node has a small disk of its own, which can be full.
fn own_disks(dir: &Path, names: &[&str], rng: &mut Rng, report: &mut Report) -> Result<Vec<Disk>, Failure> {
    if let Some(why) = disk::missing(1).or_else(|| disk::refused(dir, 1)) {
        report.skipped.insert(format!("disks are never full: {why}"));
        return Ok(Vec::new());
    }
    let made = names.iter().map(|name| Disk::sized(dir, name, 1, DISK_BYTES));
    if rng.chance(50) { made.collect() } else { Ok(Vec::new()) }
}

/// Every other node goes by a clock of its own.
fn own_clocks(victim: &mut Victim, dir: &Path, library: &Path) -> Result<(), Failure> {
    for at in (0..victim.cluster.members.len()).step_by(2) {
        let member = &mut victim.cluster.members[at];
        let clock = Clock::new(&dir.join(format!("{}.clock", member.name)))?;
        member.environment = clock.environment(library);
        victim.clocks.insert(at, clock);
    }
    Ok(())
}

/// Faults, then none; then every node must make progress.
fn torment(plan: &Plan, victim: &mut Victim, rng: &mut Rng) -> Result<(), Failure> {
    let begin = Instant::now();
    let mut outcome = Ok(());
    while outcome.is_ok() && begin.elapsed() < plan.round && !plan.stop.load(Ordering::Relaxed) {
        outcome = victim.torment(rng);
    }
    // Whatever happened: nothing may stay paused.
    outcome.and(victim.repair(true)).and_then(|()| victim.wait_for_progress())
}

/// Reads every key on every node: the reads are part of the history.
fn settle(victim: &Victim, clients: &Clients, lines: &[Line]) -> Result<Vec<Line>, Failure> {
    let keys: BTreeSet<String> = lines.iter().map(|line| line.key.clone()).collect();
    let keys: Vec<String> = keys.into_iter().collect();
    let mut reads = Vec::new();
    for at in 0..victim.cluster.members.len() {
        reads.extend(clients.read_all(at, &keys)?);
    }
    Ok(reads)
}
