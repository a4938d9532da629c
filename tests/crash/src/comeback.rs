//! What is asked of a node whose disk fails for a while: it says so, and when the disk is well it is whole again by itself.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quorate_engine::Failure;
use serde::Serialize;

use crate::cluster::{Cluster, eventually, wait_for_writes};
use crate::ledger::{Ledger, PREFIX};
use crate::process::{self, Answer, Process, problem};
use crate::rng::Rng;
use crate::tally::Tally;
use crate::workdir::WorkDir;

/// How long the node may take until it says what is wrong, under load.
const NOTICE: Duration = Duration::from_secs(20);
/// How long the node may take to be whole again.
pub const BACK: Duration = Duration::from_secs(60);

/// What a run is told.
pub struct Plan {
    /// The `crash-node` program.
    pub program: PathBuf,
    /// Where data and logs go.
    pub base: PathBuf,
    /// The file for the tally.
    pub tally: PathBuf,
    /// How often the disk fails.
    pub cycles: u64,
    /// Where the random numbers begin.
    pub seed: u64,
    /// Ends the run early.
    pub stop: Arc<AtomicBool>,
}

/// What a run reports.
pub trait Findings: Clone + Display + Serialize {
    /// What must not be, in sentences.
    fn wrong(&mut self) -> &mut Vec<String>;
}

/// A cluster of which a disk fails again and again.
pub trait Trial {
    /// What it reports.
    type Report: Findings;
    /// What was found so far.
    fn report(&mut self) -> &mut Self::Report;
    /// Has the disk fail once, and the node come back. Fails with what must not be.
    fn cycle(&mut self, number: u64, rng: &mut Rng) -> Result<(), Failure>;
}

#[derive(Serialize)]
struct TallyLine<'a, R: Serialize> {
    run: &'static str,
    seed: u64,
    #[serde(flatten)]
    report: &'a R,
    unix_s: u64,
}

/// Runs the cycles of `plan` on what `begin` makes in a directory, printing progress with `say`; ends with the first cycle in which
/// something is wrong, its directory kept. Fails when the machinery itself does.
pub fn run<T: Trial>(
    plan: &Plan,
    name: &'static str,
    begin: impl FnOnce(&Plan, &Path) -> Result<T, Failure>,
    say: &dyn Fn(String),
) -> Result<T::Report, Failure> {
    let work = WorkDir::new(&plan.base)?;
    let mut trial = begin(plan, work.path())?;
    let rng = Rng::new(plan.seed);
    for cycle in 0..plan.cycles {
        if plan.stop.load(Ordering::Relaxed) {
            break;
        }
        if let Err(failure) = trial.cycle(cycle, &mut rng.split(cycle)) {
            trial.report().wrong().push(failure.message);
        }
        if !trial.report().wrong().is_empty() {
            work.keep();
            say(format!("cycle {cycle} of seed {} FAILED; see {}", plan.seed, work.path().display()));
            trial.report().wrong().iter().for_each(|sentence| say(format!("  {sentence}")));
            break;
        }
        say(trial.report().to_string());
    }
    let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let report = trial.report().clone();
    Tally::new(&plan.tally).add(&TallyLine { run: name, seed: plan.seed, report: &report, unix_s })?;
    Ok(report)
}

/// Waits until the status of `process` has a problem that contains `what`, and gives it. Fails when that takes too long.
pub fn says(process: &Process, what: &str) -> Result<String, Failure> {
    let (mut last, mut found) = (Answer::Unknown, None);
    eventually(NOTICE, || {
        last = process.call("status", process::PATIENCE);
        if let Answer::Ok(status) = &last {
            found = problem(status).filter(|said| said.contains(what)).map(str::to_string);
        }
        found.is_some()
    });
    found.ok_or_else(|| Failure::internal(format!("In {NOTICE:?} the node does not say {what:?}: {last:?}")))
}

/// The node at `at` must acknowledge a write and say that nothing is wrong; then every node must have what was acknowledged. Gives how
/// long that took, and what is wrong with the entries. Fails when it takes too long.
pub fn whole_again(cluster: &Cluster, ledger: &Ledger, at: usize) -> Result<(Duration, Vec<String>), Failure> {
    let begun = Instant::now();
    let process = cluster.process(at)?;
    wait_for_writes(&process, BACK)?;
    let mut status = Answer::Unknown;
    let well = eventually(BACK, || {
        status = process.call("status", process::PATIENCE);
        matches!(&status, Answer::Ok(status) if problem(status).is_none())
    });
    if !well {
        return Err(Failure::internal(format!("The disk is well for {BACK:?}, and the node says: {status:?}")));
    }
    let (took, mut wrong) = (begun.elapsed(), Vec::new());
    for at in cluster.running() {
        let entries = cluster.entries(at, PREFIX, BACK)?;
        let name = &cluster.members[at].name;
        wrong.extend(ledger.check(&entries).1.into_iter().map(|sentence| format!("{name}: {sentence}")));
    }
    Ok((took, wrong))
}
