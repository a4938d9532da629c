//! A node's disk is full for a while: the others go on, the node says what is wrong, and it comes back by itself.
//!
//! Three nodes, one of them on a small ext4 file system of its own. Clients write on all of them; a file takes all room that is
//! left, at times while the node leads, at times it is killed and started meanwhile. When the room is given back the node must
//! acknowledge a write and have everything that was acknowledged, without being touched, within a bound.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_engine::Failure;
use serde::Serialize;

use crate::cluster::{Cluster, Tuning, wait_for_writes};
pub use crate::comeback::Plan;
use crate::comeback::{self, BACK, Findings};
use crate::disk::Disk;
use crate::ledger::Ledger;
use crate::load::Load;
use crate::process;
use crate::rng::Rng;

/// Room on the small disk, in bytes: a few times what the node keeps.
const SMALL_BYTES: u64 = 64 << 20;
/// The node on the small disk.
const TIGHT: usize = 0;
/// How long the disk stays full, in milliseconds.
const FULL_MS: (u64, u64) = (6_000, 12_000);
/// How long the others may take to elect a leader and acknowledge a write.
const OTHERS: Duration = Duration::from_secs(10);
/// Terms that may begin while a disk is full for a few seconds: the leader goes, now and then a vote is split.
const TERMS_MAX: u64 = 8;
const CLIENTS: u64 = 6;

/// What was done and found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// How often the disk was full.
    pub cycles: u64,
    /// How often the node led at that moment.
    pub as_leader: u64,
    /// How often it was killed and started while the disk was full.
    pub restarts: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Terms that began while a disk was full.
    pub terms: u64,
    /// The longest time until the node was whole again, in milliseconds.
    pub longest_return_ms: u64,
    /// What the node said was wrong, each sentence once.
    pub said: Vec<String>,
    /// What must not be, in sentences.
    pub wrong: Vec<String>,
}

impl Findings for Report {
    fn wrong(&mut self) -> &mut Vec<String> {
        &mut self.wrong
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { cycles, as_leader, restarts, acknowledged, terms, longest_return_ms, wrong, .. } = self;
        write!(f, "{cycles} times full ({as_leader} as leader, {restarts} restarted meanwhile), ")?;
        write!(f, "{acknowledged} writes acknowledged, {terms} terms, back after {longest_return_ms} ms at most, ")?;
        write!(f, "{} wrong", wrong.len())
    }
}

/// Fills the disk again and again, as [`comeback::run`] says. Fails when the machinery itself does.
pub fn run(plan: &Plan, say: &dyn Fn(String)) -> Result<Report, Failure> {
    comeback::run(plan, "full", Trial::new, say)
}

/// A cluster, its small disk, and what was written to it.
struct Trial {
    cluster: Cluster,
    disk: Disk,
    ledger: Arc<Ledger>,
    report: Report,
}

impl Trial {
    fn new(plan: &Plan, dir: &Path) -> Result<Trial, Failure> {
        let disk = Disk::sized(dir, "tight", 1, SMALL_BYTES)?;
        let dirs = [disk.point().join("data"), dir.join("b"), dir.join("c")];
        let mut cluster = Cluster::new(&plan.program, &["a", "b", "c"], &dirs, dir, Tuning::default())?;
        cluster.start(&[0, 1, 2])?;
        Ok(Trial { cluster, disk, ledger: Arc::default(), report: Report::default() })
    }

    /// The node must acknowledge a write, say that nothing is wrong, and have everything.
    fn back(&mut self) -> Result<(), Failure> {
        if self.cluster.members[TIGHT].process.is_none() {
            self.cluster.start(&[TIGHT])?;
        }
        let (took, wrong) = comeback::whole_again(&self.cluster, &self.ledger, TIGHT)?;
        self.report.longest_return_ms = self.report.longest_return_ms.max(took.as_millis() as u64);
        self.report.wrong.extend(wrong);
        Ok(())
    }

    fn term(&self) -> u64 {
        let terms = self.cluster.members.iter().filter_map(|member| member.process.as_ref()?.said().led_by);
        terms.map(|(term, _)| term).max().unwrap_or(0)
    }
}

impl comeback::Trial for Trial {
    type Report = Report;

    fn report(&mut self) -> &mut Report {
        self.report.acknowledged = self.ledger.acknowledged();
        &mut self.report
    }

    fn cycle(&mut self, _number: u64, rng: &mut Rng) -> Result<(), Failure> {
        let all: Vec<_> = (0..3).map(|at| self.cluster.process(at)).collect::<Result<_, _>>()?;
        all.iter().try_for_each(|process| wait_for_writes(process, BACK))?;
        if rng.chance(50) {
            // Whether it takes the office is its affair.
            drop(all[TIGHT].call("transfer a", process::PATIENCE));
        }
        self.report.as_leader += u64::from(self.cluster.leader() == Some(TIGHT));
        let term = self.term();
        let mut load = Load::start(&self.ledger, &all, CLIENTS, rng)?;
        self.disk.fill()?;
        let begun = Instant::now();
        let noticed = comeback::says(&all[TIGHT], "No space left");
        wait_for_writes(&all[1], OTHERS)?;
        let before = self.ledger.acknowledged();
        let restart = rng.chance(30);
        if restart {
            drop(load);
            self.cluster.kill(TIGHT);
            // It may refuse: without room it cannot even count its starts. Then it is started again when there is room.
            let refused = self.cluster.spawn(TIGHT)?.started(BACK).is_err();
            self.report.restarts += 1;
            load = Load::start(&self.ledger, &all[1..], CLIENTS, rng)?;
            if refused {
                self.cluster.kill(TIGHT);
            }
        }
        let full = Duration::from_millis(rng.range(FULL_MS.0, FULL_MS.1));
        std::thread::sleep(full.saturating_sub(begun.elapsed()));
        if self.ledger.acknowledged() == before {
            self.report.wrong.push("The others acknowledged nothing while the disk of one was full.".into());
        }
        self.report.terms += self.term() - term;
        if self.term() - term > TERMS_MAX {
            self.report.wrong.push(format!("{} terms began while a disk was full.", self.term() - term));
        }
        self.disk.free()?;
        drop(load);
        let sentence = noticed?;
        if !self.report.said.contains(&sentence) {
            self.report.said.push(sentence);
        }
        self.back()?;
        self.report.cycles += 1;
        Ok(())
    }
}

/// The processes go before their disk.
impl Drop for Trial {
    fn drop(&mut self) {
        (0..3).for_each(|at| self.cluster.kill(at));
    }
}
