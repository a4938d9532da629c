//! What is done to the nodes and the network between them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_engine::Failure;

use super::clients::Processes;
use super::clock::Clock;
use super::proxy::Network;
use crate::cluster::{Cluster, REJOIN, START_PATIENCE, wait_for_vote, wait_for_writes};
use crate::disk::Disk;
use crate::process;
use crate::rng::Rng;

/// How long everything may take to work again once nothing is broken: the bound on progress.
pub const PROGRESS: Duration = Duration::from_secs(30);

/// A cluster in the hands of its tormentor.
pub struct Victim {
    /// The nodes.
    pub cluster: Cluster,
    /// What lies between them.
    pub network: Arc<Network>,
    /// What the clients use.
    pub processes: Processes,
    /// Faults done so far, by kind.
    pub counts: BTreeMap<&'static str, u64>,
    /// The disks of the nodes, where each has one of its own.
    pub disks: Vec<Disk>,
    /// The clocks of those nodes that have one of their own.
    pub clocks: BTreeMap<usize, Clock>,
    /// Of a hundred faults so many are kills, beside those among the others.
    pub kills_percent: u64,
    paused: Vec<usize>,
}

impl Victim {
    /// Takes `cluster`, whose addresses `network` stands for.
    pub fn new(cluster: Cluster, network: Arc<Network>) -> Victim {
        let processes = (0..cluster.members.len()).map(|_| parking_lot::RwLock::new(None)).collect();
        Victim {
            cluster,
            network,
            processes: Arc::new(processes),
            counts: BTreeMap::new(),
            disks: Vec::new(),
            clocks: BTreeMap::new(),
            kills_percent: 0,
            paused: Vec::new(),
        }
    }

    /// Starts the node at `at`, if it does not run. Fails when it refuses.
    pub fn start(&mut self, at: usize) -> Result<(), Failure> {
        if self.cluster.members[at].process.is_some() {
            return Ok(());
        }
        let process = self.cluster.spawn(at)?;
        self.network.runs_as(at, process.pid());
        let name = &self.cluster.members[at].name;
        let started = process.started(START_PATIENCE);
        started.map_err(|failure| Failure::internal(format!("{name} does not start: {failure}")))?;
        *self.processes[at].write() = Some(process);
        Ok(())
    }

    /// Makes everything whole: links, paused and dead nodes. Fails when a node refuses to start.
    pub fn repair(&mut self, reset: bool) -> Result<(), Failure> {
        self.network.heal();
        self.disks.iter().try_for_each(Disk::free)?;
        if reset {
            self.network.reset();
        }
        for at in std::mem::take(&mut self.paused) {
            if let Ok(process) = self.cluster.process(at) {
                process.resume()?;
            }
        }
        (0..self.cluster.members.len()).try_for_each(|at| self.start(at))
    }

    /// Waits until every node acknowledges a write. Fails when one does not in time.
    pub fn wait_for_progress(&self) -> Result<(), Failure> {
        for (at, member) in self.cluster.members.iter().enumerate() {
            let process = self.cluster.process(at)?;
            wait_for_writes(&process, PROGRESS).map_err(|failure| {
                let status = process.call("status", Duration::from_secs(1));
                Failure::internal(format!("{} makes no progress: {failure} Its status: {status:?}", member.name))
            })?;
        }
        Ok(())
    }

    /// Does one fault of a random kind, lets it last, and repairs it in most cases. Fails when a node does not come back.
    pub fn torment(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let some = rng.below(self.cluster.members.len() as u64) as usize;
        let one = self.cluster.leader().filter(|_| rng.chance(50)).unwrap_or(some);
        if rng.chance(self.kills_percent) {
            self.kill(&[one]);
            std::thread::sleep(Duration::from_millis(rng.range(10, 200)));
            self.repair(false)?;
            std::thread::sleep(Duration::from_millis(rng.range(0, 400)));
            return Ok(());
        }
        match rng.below(112) {
            0..22 => self.kill(&[one]),
            100..104 => self.fill(one)?,
            104..109 => self.jump(one, rng)?,
            109..112 => self.replace(one)?,
            22..27 => self.kill(&(0..self.cluster.members.len()).collect::<Vec<_>>()),
            27..34 => self.kill(&self.majority(rng)),
            34..50 => self.pause(one)?,
            50..60 => self.isolate(one),
            60..68 => self.halves(rng),
            68..78 => self.one_way(one, rng),
            78..85 => self.bridge(rng),
            85..89 => self.wipe(one, rng)?,
            89..94 => self.ask("transfer", one, &format!("transfer {}", self.cluster.members[some].name)),
            94..97 => self.ask("snapshot", one, "snapshot"),
            _ => {
                self.count("reset");
                self.network.reset();
            }
        }
        std::thread::sleep(Duration::from_millis(rng.range(50, 1_500)));
        if rng.chance(75) {
            self.repair(rng.chance(50))?;
            std::thread::sleep(Duration::from_millis(rng.range(0, 800)));
        }
        Ok(())
    }

    /// Takes the room on a node's disk away, until the next repair.
    fn fill(&mut self, at: usize) -> Result<(), Failure> {
        if let Some(disk) = self.disks.get(at) {
            disk.fill()?;
            self.count("disk full");
        }
        Ok(())
    }

    fn jump(&mut self, at: usize, rng: &mut Rng) -> Result<(), Failure> {
        if let Some(clock) = self.clocks.get(&at) {
            clock.jump(rng)?;
            self.count("clock jump");
        }
        Ok(())
    }

    /// Removes a member from the cluster; it comes back with an empty disk. Nothing else is broken meanwhile.
    fn replace(&mut self, at: usize) -> Result<(), Failure> {
        self.repair(false)?;
        self.wait_for_progress()?;
        let name = self.cluster.members[at].name.clone();
        let other = self.cluster.process((at + 1) % self.cluster.members.len())?;
        // It may be in doubt whether it was removed; it comes back in either case.
        drop(other.call(&format!("remove {name}"), process::PATIENCE));
        self.count("member removed");
        self.come_back_empty(at)
    }

    fn count(&mut self, kind: &'static str) {
        *self.counts.entry(kind).or_default() += 1;
    }

    fn majority(&self, rng: &mut Rng) -> Vec<usize> {
        let count = self.cluster.members.len();
        let first = rng.below(count as u64) as usize;
        (0..count / 2 + 1).map(|step| (first + step) % count).collect()
    }

    fn kill(&mut self, all: &[usize]) {
        for at in all {
            if self.cluster.members[*at].process.is_some() {
                self.count("kill -9");
            }
            self.kill_quietly(*at);
        }
    }

    fn kill_quietly(&mut self, at: usize) {
        *self.processes[at].write() = None;
        self.paused.retain(|paused| *paused != at);
        self.cluster.kill(at);
    }

    fn pause(&mut self, at: usize) -> Result<(), Failure> {
        let Ok(process) = self.cluster.process(at) else { return Ok(()) };
        self.count("pause");
        self.paused.push(at);
        process.pause()
    }

    fn shut(&self, from: usize, to: usize) {
        if from != to {
            self.network.set(from, to, true);
        }
    }

    fn isolate(&mut self, one: usize) {
        self.count("partition, one node");
        for other in 0..self.cluster.members.len() {
            self.shut(one, other);
            self.shut(other, one);
        }
    }

    fn halves(&mut self, rng: &mut Rng) {
        self.count("partition, two parts");
        let majority = self.majority(rng);
        for one in 0..self.cluster.members.len() {
            for other in 0..self.cluster.members.len() {
                if majority.contains(&one) != majority.contains(&other) {
                    self.shut(one, other);
                }
            }
        }
    }

    /// Nothing that it says is heard, or it hears nothing.
    fn one_way(&mut self, one: usize, rng: &mut Rng) {
        self.count("partition, one way");
        let mute = rng.chance(50);
        for other in 0..self.cluster.members.len() {
            if mute { self.shut(one, other) } else { self.shut(other, one) }
        }
    }

    /// One node reaches everybody; the others are in two parts that do not reach each other.
    fn bridge(&mut self, rng: &mut Rng) {
        self.count("partition, bridge");
        let count = self.cluster.members.len();
        let bridge = rng.below(count as u64) as usize;
        let side = |at: usize| ((at + count - bridge) % count) <= count / 2;
        for one in (0..count).filter(|at| *at != bridge) {
            for other in (0..count).filter(|at| *at != bridge) {
                if side(one) != side(other) {
                    self.shut(one, other);
                }
            }
        }
    }

    /// Takes a node's disk away. Only one at a time, and only when nothing else is broken: more would be a lost quorum.
    fn wipe(&mut self, at: usize, rng: &mut Rng) -> Result<(), Failure> {
        self.repair(rng.chance(50))?;
        self.wait_for_progress()?;
        self.count("wiped");
        self.come_back_empty(at)
    }

    fn come_back_empty(&mut self, at: usize) -> Result<(), Failure> {
        self.kill_quietly(at);
        let dir = &self.cluster.members[at].dir;
        std::fs::remove_dir_all(dir).map_err(|error| Failure::io("Wiping a node", &error))?;
        self.start(at)?;
        let process = self.cluster.process(at)?;
        wait_for_vote(&process, REJOIN)
    }

    fn ask(&mut self, kind: &'static str, at: usize, request: &str) {
        self.count(kind);
        if let Ok(process) = self.cluster.process(at) {
            // Whether it can be done now is the node's affair; a paused one does not even answer.
            drop(process.call(request, Duration::from_millis(500)));
        }
    }
}

/// The processes go when the round ends, whichever way it does.
impl Drop for Victim {
    fn drop(&mut self) {
        (0..self.cluster.members.len()).for_each(|at| self.cluster.kill(at));
        self.network.close();
    }
}
