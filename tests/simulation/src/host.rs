//! One machine of the cluster: a disk that outlives its node, a clock of its own, and, while it is up, a node on its runtime.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_engine::config::TransportKind;
use quorate_engine::node::{Machine, Node, Reply};
use quorate_engine::surroundings::{Surroundings, enter};
use quorate_engine::{Failure, NodeConfig};
use quorate_linear::rng::Rng;
use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::chance::{NodeChance, NodeDelays, Slow};
use crate::disk::{Power, SimDisk};
use crate::machine::{RegisterMachine, Registers};
use crate::network::{Network, SimWire};
use crate::plan::Plan;
use crate::process::{Hosting, Place, Process};
use crate::world::{Shared, SimObserver};

/// The wall clock at the beginning, in ms since 1970.
const WALL_MS: u64 = 1_700_000_000_000;
/// How long an orderly end may take, in ms.
const CLOSE_MS: u64 = 20_000;

/// A node and what it runs on.
pub struct Life {
    /// Which life of this host.
    pub number: u64,
    /// The node.
    pub node: Node,
    /// How slow it is.
    pub delays: Arc<NodeDelays>,
    /// What it has applied.
    pub registers: Arc<Mutex<Registers>>,
    /// The process that has the machine, where one has.
    process: Option<Process>,
    runtime: Runtime,
    chance: Arc<NodeChance>,
    begun: Instant,
    /// Its own time since it began, in ms.
    local_ms: u64,
}

impl Life {
    /// Has the node accept a command; whoever waits for its outcome is told by the node or its host process. Returns the sequence
    /// number. Fails as [`Node::submit`] does.
    pub fn submit(&self, body: Bytes, patience: Duration) -> Result<u64, Failure> {
        let sequence = self.node.submit(body, patience, Reply::Observer)?;
        if let Some(process) = &self.process {
            process.waiters().lock().expect(sequence);
        }
        Ok(sequence)
    }

    fn turn(&mut self, now: u64) {
        if let Some(process) = &mut self.process {
            let _runtime = self.runtime.enter();
            process.turn(now, &self.node);
        }
    }
}

/// See the module.
pub struct Host {
    /// Its place in the plan.
    pub index: usize,
    /// The server's name.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// Its disk.
    pub disk: SimDisk,
    /// Its power.
    pub power: Arc<Power>,
    /// The node, while it is up.
    pub life: Option<Life>,
    /// It stands still until then (ms).
    pub paused_until: u64,
    /// Its machine fails as long as this is true.
    pub broken: Arc<AtomicBool>,
    /// How slow it is when nothing special happens.
    pub usual: Slow,
    /// Thousandths of a ms that its clock advances in one ms.
    pub drift: u64,
    /// What was added to its wall clock, in ms.
    pub jumped_ms: i64,
    /// Why it did not start, when it did not.
    pub refused: Option<Failure>,
    directory: PathBuf,
    graves: PathBuf,
    config: NodeConfig,
    hosting: Option<Hosting>,
    /// Host processes do what they are asked for.
    calm: bool,
    rng: Rng,
    lives: u64,
    /// Time that the clock has still to be moved on, in thousandths of a ms.
    owed: u64,
    stood_still_ms: u64,
}

impl Host {
    /// The host `index` of `plan`, its files below `root`. Fails as the file system does.
    pub fn new(plan: &Plan, index: usize, root: &Path) -> std::io::Result<Host> {
        let name = plan.name(index);
        let (directory, graves) = (root.join(&name), root.join(format!("{name}.graves")));
        fs::create_dir_all(&directory)?;
        fs::create_dir_all(&graves)?;
        let rng = Rng::new(plan.seed).split(1_000 + index as u64);
        let power = Power::new();
        let disk = SimDisk::new(&directory, &graves, rng.split(1), power.clone());
        let shape = &plan.hosts[index];
        Ok(Host {
            index,
            name,
            address: plan.address(index),
            disk,
            power,
            life: None,
            paused_until: 0,
            broken: Arc::default(),
            usual: shape.slow,
            drift: shape.drift,
            jumped_ms: 0,
            refused: None,
            config: config(plan, index, &directory),
            hosting: plan.hosting,
            calm: false,
            directory,
            graves,
            rng: rng.split(2),
            lives: 0,
            owed: 0,
            stood_still_ms: 0,
        })
    }

    /// Starts the node at `now` (ms). Fails as [`Node::start_inline`] does.
    pub fn start(&mut self, now: u64, network: &Network, shared: &Shared) -> Result<(), Failure> {
        self.lives += 1;
        let rng = Rng::new(self.rng.next_u64());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.map_err(|error| Failure::io("Starting a runtime", &error))?;
        let chance = NodeChance::new(rng.split(1), self.wall_ms(now));
        let delays = NodeDelays::new(self.usual, rng.split(2));
        let (machine, registers, process) = self.machine(&rng, shared, &delays);
        let (node, power) = (self.index, self.power.clone());
        let wire = Arc::new(SimWire { network: network.clone(), node, power: power.clone() });
        let waiters = process.as_ref().map(|process| process.waiters().clone());
        let (shared, network_of) = (shared.clone(), network.clone());
        let observer = SimObserver { node, life: self.lives, power, shared, waiters, network: network_of };
        let surroundings = Surroundings {
            wire,
            disk: Arc::new(self.disk.clone()),
            delays: delays.clone(),
            host_bounds: self.hosting.map(|hosting| hosting.bounds()).unwrap_or_default(),
        };
        let _entered = enter(chance.clone());
        let config = self.config.clone();
        let (begun, started) = runtime.block_on(async {
            let begun = Instant::now();
            (begun, Node::start_inline(config, machine, Arc::new(observer), surroundings).await)
        });
        let node = match started {
            Ok(node) => node,
            Err(failure) => {
                let powered = self.power.is_on();
                network.kill(self.index, false);
                self.power.set(false);
                drop(runtime);
                self.power.set(powered);
                self.refused = Some(failure.clone());
                return Err(failure);
            }
        };
        self.refused = None;
        self.owed = 0;
        self.paused_until = 0;
        self.life =
            Some(Life { number: self.lives, node, delays, registers, process, runtime, chance, begun, local_ms: 0 });
        Ok(())
    }

    /// The machine of a new life, its state, and the process that it is in, if it is.
    fn machine(
        &self,
        rng: &Rng,
        shared: &Shared,
        delays: &Arc<NodeDelays>,
    ) -> (Machine, Arc<Mutex<Registers>>, Option<Process>) {
        let (shared, broken) = (shared.clone(), self.broken.clone());
        let Some(hosting) = self.hosting else {
            let (machine, registers) = RegisterMachine::new(self.index, shared, broken);
            return (Machine::Own(Box::new(machine)), registers, None);
        };
        let place = Place { node: self.index, life: self.lives, shared, delays: delays.clone(), broken };
        let mut process = Process::new(place, hosting, rng.split(3));
        if self.calm {
            process.calm();
        }
        (Machine::Hosted, process.registers().clone(), Some(process))
    }

    /// From now on host processes do what they are asked for.
    pub fn calm(&mut self) {
        self.calm = true;
        if let Some(process) = self.life.as_mut().and_then(|life| life.process.as_mut()) {
            process.calm();
        }
    }

    /// True while the node runs (it may stand still).
    pub fn is_up(&self) -> bool {
        self.life.is_some()
    }

    /// Stands still for `ms` from `now` on.
    pub fn pause(&mut self, now: u64, ms: u64) {
        self.paused_until = self.paused_until.max(now + ms);
    }

    /// `ms` pass at the end of which it is `now`; the node does what it has to do then.
    pub fn step(&mut self, now: u64, ms: u64) {
        let wall_ms = self.wall_ms(now);
        self.owed += ms * self.drift;
        if now < self.paused_until {
            self.stood_still_ms += self.owed / 1_000;
            self.owed %= 1_000;
            return;
        }
        let Some(life) = &mut self.life else { return };
        life.chance.set_wall_ms(wall_ms);
        let _entered = enter(life.chance.clone());
        let still = std::mem::take(&mut self.stood_still_ms);
        life.local_ms += still + self.owed / 1_000;
        self.owed %= 1_000;
        let until = life.begun + Duration::from_millis(life.local_ms);
        life.runtime.block_on(async {
            if still > 0 {
                tokio::time::advance(Duration::from_millis(still)).await;
            }
            tokio::time::sleep_until(until).await;
        });
        if self.power.is_on() {
            life.turn(now);
        }
    }

    /// Runs `work` with the node, on its thread and clock.
    pub fn with<T>(&self, work: impl FnOnce(&Life) -> T) -> Option<T> {
        let life = self.life.as_ref()?;
        let _entered = enter(life.chance.clone());
        let _runtime = life.runtime.enter();
        Some(work(life))
    }

    /// Starts `work` as a task of the node's runtime.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(life) = &self.life {
            life.runtime.spawn(work);
        }
    }

    /// The node ends without a goodbye. Returns the number of the life that ended.
    pub fn kill(&mut self, network: &Network, power_cut: bool) -> Option<u64> {
        let life = self.life.take()?;
        network.kill(self.index, power_cut);
        self.paused_until = 0;
        self.stood_still_ms = 0;
        let number = life.number;
        let _entered = enter(life.chance.clone());
        // Destructors are not to write: a process that is killed runs none.
        self.power.set(false);
        drop(life.node);
        drop(life.runtime);
        self.power.set(true);
        Some(number)
    }

    /// Closes the node in good order. Returns the number of the life that ended, and whether it ended in time.
    pub fn close(&mut self, network: &Network) -> Option<(u64, bool)> {
        let life = self.life.as_ref()?;
        let entered = enter(life.chance.clone());
        let limit = Duration::from_millis(CLOSE_MS);
        let ended = life.runtime.block_on(async { tokio::time::timeout(limit, life.node.close_inline()).await });
        drop(entered);
        self.kill(network, false).map(|number| (number, ended.is_ok()))
    }

    /// Empties the data directory of a node that is down. Fails as the file system does.
    pub fn wipe(&mut self) -> std::io::Result<()> {
        fs::remove_dir_all(&self.directory)?;
        fs::create_dir_all(&self.directory)?;
        self.disk.forget()
    }

    /// The state's directory is gone, as it may be at any time while the node is down. Fails as the file system does.
    pub fn data_dir(&self) -> &Path {
        &self.directory
    }

    /// Where removed files lie that may come back.
    pub fn graves(&self) -> &Path {
        &self.graves
    }

    /// Whether its machine fails on purpose.
    pub fn break_machine(&self, broken: bool) {
        self.broken.store(broken, Ordering::Relaxed);
    }

    fn wall_ms(&self, now: u64) -> u64 {
        (WALL_MS + now).saturating_add_signed(self.jumped_ms)
    }
}

fn config(plan: &Plan, index: usize, directory: &Path) -> NodeConfig {
    let mut servers: BTreeMap<String, String> =
        (0..plan.founders).map(|index| (plan.name(index), plan.address(index))).collect();
    servers.insert(plan.name(index), plan.address(index));
    let mut config = NodeConfig::new(plan.name(index), servers, directory);
    config.transport = if plan.datagrams { TransportKind::Host } else { TransportKind::Tcp };
    config.heartbeat_ms = plan.heartbeat_ms;
    config.election_timeout_ms = plan.election_ms;
    config.snapshot_commands = plan.snapshot_commands;
    config.log_keep_entries = plan.keep_entries;
    config.log_bytes = plan.log_bytes;
    if let Some(hosting) = &plan.hosting {
        config.snapshot_timeout_ms = hosting.timeout_ms;
    }
    config.join_only = index >= plan.founders;
    config.insecure = true;
    config
}
