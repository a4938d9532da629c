//! Power cuts under load: every write that was acknowledged before the cut is there after it.
//!
//! There are two clusters, one of a single node and one of three, each node on a disk of its own. A cycle loads one of
//! them, cuts the power of all its disks at once ([`Kind::Solo`], [`Kind::All`]) or of one ([`Kind::One`]), kills the
//! processes, mounts the disks anew, starts the nodes and reads everything back on each of them. When one disk was
//! cut the check begins with that node and one other alone: what the two have is all that a quorum promised.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quorate_engine::Failure;
use serde::Serialize;

use crate::cluster::{Cluster, Tuning, wait_for_writes};
use crate::disk::{Cut, Disk};
use crate::ledger::{Ledger, PREFIX};
use crate::load::Load;
use crate::rng::Rng;
use crate::tally::Tally;
use crate::workdir::WorkDir;

/// How long a cluster may take to acknowledge writes, and to answer reads, after a cut.
const PATIENCE: Duration = Duration::from_secs(30);
/// Clients of the cluster of three; the single node has a third of them.
const CLIENTS: u64 = 24;
/// How long the load runs before a cut, in milliseconds, at least and at most.
const LOAD_MS: (u64, u64) = (60, 700);

/// So many of a hundred cuts come right after a snapshot was put in place: what purging relies on is then youngest.
const AIMED_PERCENT: u64 = 50;
/// How long after it at most, in microseconds.
const AIM_US: u64 = 8_000;
/// How long an aimed cut waits for a snapshot at most.
const AIM_PATIENCE: Duration = Duration::from_secs(1);

/// What is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The only disk of a single node.
    Solo,
    /// All three disks at once.
    All,
    /// One of three disks.
    One,
}

/// What a run is told.
pub struct Plan {
    /// The `crash-node` program.
    pub program: PathBuf,
    /// Where disks, logs and evidence go.
    pub base: PathBuf,
    /// The file for the tally.
    pub tally: PathBuf,
    /// So many cuts.
    pub cycles: u64,
    /// 1 or 2, see [`crate::disk`].
    pub level: u32,
    /// Where the random numbers begin.
    pub seed: u64,
    /// Ends the run early.
    pub stop: Arc<AtomicBool>,
}

/// Sums over a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Cuts made and checked.
    pub cycles: u64,
    /// Acknowledgements that counted.
    pub acknowledged: u64,
    /// Keys checked, over all reads.
    pub checked: u64,
    /// What was wrong, in sentences.
    pub wrong: Vec<String>,
    /// Unflushed sectors at the cuts, and those that survived (level 2).
    pub sectors: (u64, u64),
    /// File systems that needed e2fsck.
    pub repairs: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    run: &'static str,
    level: u32,
    seed: u64,
    cycle: u64,
    kind: Kind,
    acknowledged: u64,
    checked: u64,
    unflushed_sectors: u64,
    surviving_sectors: u64,
    wrong: &'a [String],
    unix_s: u64,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { cycles, acknowledged, checked, wrong, sectors: (unflushed, survived), repairs } = self;
        write!(f, "{cycles} power cuts, {acknowledged} writes acknowledged before a cut, {checked} keys checked, ")?;
        if *unflushed > 0 {
            write!(f, "{unflushed} unflushed sectors of which {survived} survived, {repairs} e2fsck, ")?;
        }
        write!(f, "{} wrong", wrong.len())
    }
}

/// Runs `plan`, printing progress with `say`. Fails when the machinery itself does; what is wrong with the nodes is in the
/// totals, and the run ends with the first such cycle, its directory kept.
pub fn run(plan: &Plan, say: &dyn Fn(String)) -> Result<Totals, Failure> {
    let work = WorkDir::new(&plan.base)?;
    let mut totals = Totals::default();
    let rng = Rng::new(plan.seed);
    let tally = Tally::new(&plan.tally);
    let mut solo = Group::new(plan, work.path(), &["s"])?;
    let mut trio = Group::new(plan, work.path(), &["a", "b", "c"])?;
    let begin = Instant::now();
    for cycle in 0..plan.cycles {
        if plan.stop.load(Ordering::Relaxed) {
            break;
        }
        let mut rng = rng.split(cycle);
        let kind = [Kind::All, Kind::Solo, Kind::One, Kind::All, Kind::One][(cycle % 5) as usize];
        let group = if kind == Kind::Solo { &mut solo } else { &mut trio };
        let one = group.cycle(kind, &mut rng)?;
        tally.add(&one.line(plan, cycle, kind))?;
        totals.add(&one);
        totals.repairs = solo.repairs() + trio.repairs();
        if !one.wrong.is_empty() {
            work.keep();
            say(format!("cycle {cycle} ({kind:?}) of seed {} FAILED; see {}", plan.seed, work.path().display()));
            one.wrong.iter().take(20).for_each(|sentence| say(format!("  {sentence}")));
            break;
        }
        if cycle % 10 == 9 {
            say(format!("{totals}, {:.1} s a cycle", begin.elapsed().as_secs_f64() / totals.cycles as f64));
        }
    }
    Ok(totals)
}

impl Totals {
    fn add(&mut self, one: &Totals) {
        self.cycles += 1;
        self.acknowledged += one.acknowledged;
        self.checked += one.checked;
        self.sectors = (self.sectors.0 + one.sectors.0, self.sectors.1 + one.sectors.1);
        self.wrong.extend(one.wrong.iter().cloned());
    }

    fn line(&self, plan: &Plan, cycle: u64, kind: Kind) -> Line<'_> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Line {
            run: "powercut",
            level: plan.level,
            seed: plan.seed,
            cycle,
            kind,
            acknowledged: self.acknowledged,
            checked: self.checked,
            unflushed_sectors: self.sectors.0,
            surviving_sectors: self.sectors.1,
            wrong: &self.wrong,
            unix_s: now.as_secs(),
        }
    }
}

/// A cluster, its disks, and what was written to it.
struct Group {
    cluster: Cluster,
    disks: Vec<Disk>,
    ledger: Arc<Ledger>,
    clients: u64,
}

impl Group {
    fn new(plan: &Plan, dir: &Path, names: &[&str]) -> Result<Group, Failure> {
        let disks: Vec<Disk> = names.iter().map(|name| Disk::new(dir, name, plan.level)).collect::<Result<_, _>>()?;
        let dirs: Vec<PathBuf> = disks.iter().map(|disk| disk.point().join("data")).collect();
        let cluster = Cluster::new(&plan.program, names, &dirs, dir, Tuning::default())?;
        let clients = if names.len() == 1 { CLIENTS / 3 } else { CLIENTS };
        Ok(Group { cluster, disks, ledger: Arc::default(), clients })
    }

    fn repairs(&self) -> u64 {
        self.disks.iter().map(|disk| disk.repairs).sum()
    }

    fn all(&self) -> Vec<usize> {
        (0..self.disks.len()).collect()
    }

    /// One cut and its check. What is wrong with the nodes is in the totals.
    fn cycle(&mut self, kind: Kind, rng: &mut Rng) -> Result<Totals, Failure> {
        let mut totals = Totals::default();
        let stopped: Vec<usize> =
            self.all().into_iter().filter(|at| self.cluster.members[*at].process.is_none()).collect();
        if let Err(failure) = self.cluster.start(&stopped).and_then(|()| self.ready()) {
            totals.wrong.push(failure.message);
            return Ok(totals);
        }
        let before = self.ledger.acknowledged();
        let targets = self.targets(kind, rng);
        totals.sectors = self.load_and_cut(&targets, rng)?;
        totals.acknowledged = self.ledger.acknowledged() - before;
        for at in &targets {
            self.disks[*at].power_up()?;
        }
        match self.check(kind, &targets, rng) {
            Ok((checked, wrong)) => (totals.checked, totals.wrong) = (checked, wrong),
            Err(failure) => totals.wrong.push(failure.message),
        }
        Ok(totals)
    }

    fn ready(&self) -> Result<(), Failure> {
        self.all().into_iter().try_for_each(|at| wait_for_writes(self.cluster.process(at)?.as_ref(), PATIENCE))
    }

    /// The leader is half of the single targets, being a third of the nodes.
    fn targets(&self, kind: Kind, rng: &mut Rng) -> Vec<usize> {
        match kind {
            Kind::Solo | Kind::All => self.all(),
            Kind::One => {
                let leader = self.cluster.leader().filter(|_| rng.chance(25));
                vec![leader.unwrap_or(rng.below(self.disks.len() as u64) as usize)]
            }
        }
    }

    /// Loads the cluster, cuts, and kills all processes: those on disks with power keep their page cache.
    fn load_and_cut(&mut self, targets: &[usize], rng: &mut Rng) -> Result<(u64, u64), Failure> {
        let processes: Vec<_> = self.all().into_iter().map(|at| self.cluster.process(at)).collect::<Result<_, _>>()?;
        self.ledger.resume();
        let cut_disks: Vec<&Disk> = targets.iter().map(|at| &self.disks[*at]).collect();
        let cut = Cut::arm(&cut_disks)?;
        let load = Load::start(&self.ledger, &processes, self.clients, rng)?;
        std::thread::sleep(Duration::from_millis(rng.range(LOAD_MS.0, LOAD_MS.1)));
        if rng.chance(AIMED_PERCENT) {
            let target = targets.first().map(|at| self.disks[*at].point().join("data/group-0/snapshots"));
            target.into_iter().for_each(|snapshots| await_change(&snapshots));
            std::thread::sleep(Duration::from_micros(rng.below(AIM_US)));
        }
        self.ledger.cut();
        // Who has no power says nothing more: a sync on a cut file system may succeed falsely, and the others would hear.
        targets.iter().try_for_each(|at| processes[*at].halt())?;
        let sectors = cut.fire(rng)?;
        load.tell_to_stop();
        for at in self.all() {
            self.cluster.kill(at);
        }
        drop(load);
        Ok(sectors)
    }

    fn check(&mut self, kind: Kind, targets: &[usize], rng: &mut Rng) -> Result<(u64, Vec<String>), Failure> {
        let all = self.all();
        let mut first = all.clone();
        if kind == Kind::One {
            let others: Vec<usize> = all.iter().copied().filter(|at| !targets.contains(at)).collect();
            let without = rng.pick(&others).copied();
            first.retain(|at| Some(*at) != without);
        }
        let (mut checked, mut wrong) = self.start_and_read(&first)?;
        if first.len() < all.len() {
            let rest: Vec<usize> = all.iter().copied().filter(|at| !first.contains(at)).collect();
            let (more, also) = self.start_and_read(&rest)?;
            checked += more;
            wrong.extend(also);
        }
        Ok((checked, wrong))
    }

    fn start_and_read(&mut self, members: &[usize]) -> Result<(u64, Vec<String>), Failure> {
        self.cluster.start(members)?;
        let (mut checked, mut wrong) = (0, Vec::new());
        for at in members {
            let entries = self.cluster.entries(*at, PREFIX, PATIENCE)?;
            let (keys, sentences) = self.ledger.check(&entries);
            checked += keys;
            let name = &self.cluster.members[*at].name;
            wrong.extend(sentences.into_iter().map(|sentence| format!("{name}: {sentence}")));
        }
        Ok((checked, wrong))
    }
}

/// Waits until a snapshot is put in place in `dir`; not for ever, for the load may be too light.
fn await_change(dir: &Path) {
    let names = || {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".snap")).max()
    };
    let (before, limit) = (names(), Instant::now() + AIM_PATIENCE);
    while names() == before && Instant::now() < limit {
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// The processes go before their disks.
impl Drop for Group {
    fn drop(&mut self) {
        self.all().into_iter().for_each(|at| self.cluster.kill(at));
    }
}
