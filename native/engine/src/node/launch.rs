//! Opening and assembling the parts of a node, and starting its threads.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::config::{NodeConfig, TransportKind};
use crate::datadir::DataDir;
use crate::disk::{Disk, OsDisk};
use crate::error::Failure;
use crate::hosted::{self, Host};
use crate::kv::{KvMachine, KvReader};
use crate::machine::StateMachine;
use crate::node::applier::{self, Applier};
use crate::node::apply_queue::ApplyQueue;
use crate::node::arrivals::Arrivals;
use crate::node::asks::Asks;
use crate::node::bootstrap;
use crate::node::core::{Core, Identity as Known};
use crate::node::forming;
use crate::node::forwarded::ForwardQueue;
use crate::node::observer::Observer;
use crate::node::pending::Pending;
use crate::node::problems::{Problem, Problems};
use crate::node::read_queue::ReadQueue;
use crate::node::reads;
use crate::node::requests::Requests;
use crate::node::run::{self, Parts};
use crate::node::service::{self, NodeService};
use crate::node::shared::{Progress, Shared};
use crate::node::snapshots::Snapshots;
use crate::node::view::View;
use crate::snapshot::SnapshotDir;
use crate::spin;
use crate::surroundings::{Pace, Surroundings};
use crate::transport::carried::Carried;
use crate::transport::tls::Tls;
use crate::transport::wire::{LoopbackTcp, Tcp, Wire};
use crate::transport::{Identity, Peers, Transport, TransportOptions};
use crate::watch;
use crate::worker::Worker;

/// Threads that a node may use to wait for disks (snapshots, opening files).
const DISK_THREADS: usize = 4;
/// How long work that waits for disks is given to end.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(1);

/// What a node applies its log to.
pub enum Machine {
    /// The key-value store on sled.
    KeyValue,
    /// A machine behind [`crate::hosted`].
    Hosted,
    /// The caller's own.
    Own(Box<dyn StateMachine>),
}

/// The workers of a running node.
pub struct Workers {
    /// The node's own: consensus and transport.
    pub main: Worker,
    /// The one that applies.
    pub applier: Worker,
    /// The one that reads the key-value store.
    pub reader: Option<Worker>,
}

/// The sides of a machine that others than the applying thread use.
#[derive(Default)]
pub struct Sides {
    /// The key-value store's reading side.
    reader: Option<KvReader>,
    /// The host's side.
    host: Option<Arc<Host>>,
}

/// Opens everything that `config` names and puts the parts together; nothing runs yet. Fails with `Invalid`, `Locked`,
/// `Corrupt`, `Io`.
pub fn open(
    config: NodeConfig,
    machine: Machine,
    observer: Arc<dyn Observer>,
    surroundings: Option<Surroundings>,
) -> Result<(Arc<Core>, Applier, SnapshotDir), Failure> {
    config.validate()?;
    let config = config.normalized();
    forming::check_hashes(config.servers.keys())?;
    let (disk, pace): (Arc<dyn Disk>, Pace) = match &surroundings {
        Some(around) => (around.disk.clone(), Pace::of(around.delays.clone())),
        None => (Arc::new(OsDisk), Pace::default()),
    };
    let mut data = DataDir::open_on(disk.clone(), &config.data_dir, &config.name)?;
    let identity = identify(&mut data, &config.name)?;
    let snapshots = SnapshotDir::open_on(disk, &data.snapshots_dir(0))?;
    let bounds = surroundings.as_ref().map(|around| around.host_bounds).unwrap_or_default();
    let (machine, sides) = open_machine(machine, &data, &config, bounds)?;
    let (applier, shared) = open_applier(machine, &snapshots, &identity, observer, pace)?;
    let core = assemble(config, data, identity, shared, sides, snapshots.clone(), surroundings)?;
    Ok((core, applier, snapshots))
}

/// The node's identity as it is on disk, or a fresh one.
fn identify(data: &mut DataDir, name: &str) -> Result<Known, Failure> {
    match data.identity().cloned() {
        Some(stored) => {
            let incarnation = data.next_incarnation()?;
            Ok(Known { cluster: Some(stored.cluster), node: stored.node, incarnation })
        }
        None => Ok(Known { cluster: None, node: bootstrap::fresh_id(name)?, incarnation: 0 }),
    }
}

/// Opens the machine that was asked for. Fails with `Io`, `Corrupt`.
fn open_machine(
    machine: Machine,
    data: &DataDir,
    config: &NodeConfig,
    bounds: hosted::Bounds,
) -> Result<(Box<dyn StateMachine>, Sides), Failure> {
    let directory = data.state_dir(0);
    match machine {
        Machine::KeyValue => {
            let (machine, reader) = KvMachine::open(&directory)?;
            Ok((Box::new(machine), Sides { reader: Some(reader), host: None }))
        }
        Machine::Hosted => {
            let timeout = Duration::from_millis(config.snapshot_timeout_ms);
            let (machine, host) = hosted::pair(directory.join("exchange"), timeout, bounds)?;
            Ok((Box::new(machine), Sides { reader: None, host: Some(host) }))
        }
        Machine::Own(machine) => Ok((machine, Sides::default())),
    }
}

/// Opens the applying side of `machine`.
fn open_applier(
    machine: Box<dyn StateMachine>,
    snapshots: &SnapshotDir,
    identity: &Known,
    observer: Arc<dyn Observer>,
    pace: Pace,
) -> Result<(Applier, Arc<Shared>), Failure> {
    let pending = Arc::new(Pending::default());
    if identity.cluster.is_some() {
        pending.identify(identity.node, identity.incarnation);
    }
    let shared = Arc::new(Shared {
        queue: Arc::new(ApplyQueue::default()),
        pending,
        observer,
        progress: watch::channel(Progress::default()).0,
        problems: Arc::new(Problems::default()),
        log: Mutex::new(None),
        pace,
        covering: AtomicBool::new(false),
        handed: Mutex::default(),
    });
    let applier = Applier::open(machine, snapshots.latest()?, shared.clone())?.reviving(snapshots.clone());
    let books = applier.books();
    *shared.handed.lock() = (books.applied.log_id, books.membership.clone());
    Ok((applier, shared))
}

/// Puts the parts of a node together. Fails with `Invalid` when its certificates cannot be used.
fn assemble(
    config: NodeConfig,
    data: DataDir,
    identity: Known,
    shared: Arc<Shared>,
    sides: Sides,
    snapshots: SnapshotDir,
    surroundings: Option<Surroundings>,
) -> Result<Arc<Core>, Failure> {
    let observer = shared.observer.clone();
    let carried = (config.transport == TransportKind::Host).then(|| carried(&config.name, observer.clone()));
    let wire = match (&carried, &surroundings) {
        (Some(carried), _) => Arc::new(carried.clone()),
        (None, Some(around)) => around.wire.clone(),
        (None, None) => wire(&config, &shared.problems)?,
    };
    let possible = config.snapshots;
    Ok(Arc::new_cyclic(|weak| Core {
        peers: peers(&wire, weak),
        arrivals: Arrivals::default(),
        askers: peers(&wire, weak),
        wire,
        carried,
        surroundings,
        config,
        data: Mutex::new(data),
        identity: RwLock::new(identity),
        pending: shared.pending.clone(),
        requests: Requests::default(),
        problems: shared.problems.clone(),
        snapshots: Snapshots::new(snapshots, shared.clone(), possible),
        applier: shared,
        observer,
        leadership: watch::channel(View::default()).0,
        forwarded: ForwardQueue::default(),
        reads: ReadQueue::default(),
        asks: Asks::default(),
        running: RwLock::new(None),
        changing: Arc::new(tokio::sync::Mutex::new(())),
        waiting_for: Mutex::new(None),
        last_election: Mutex::new(None),
        reader: sides.reader,
        host: sides.host,
        host_applied: watch::channel(0).0,
        closing: AtomicBool::new(false),
        close_bell: Notify::new(),
    }))
}

/// TCP as the configuration has it: with TLS, else on loopback only, unless it says otherwise.
fn wire(config: &NodeConfig, problems: &Arc<Problems>) -> Result<Arc<dyn Wire>, Failure> {
    let Some(files) = config.tls.clone() else {
        return Ok(if config.insecure { Arc::new(Tcp) } else { Arc::new(LoopbackTcp) });
    };
    let problems = problems.clone();
    let report = move |problem: Option<Failure>| match problem {
        Some(failure) => problems.set(Problem::Tls, failure),
        None => problems.clear(Problem::Tls),
    };
    Ok(Arc::new(Tls::new(files, Box::new(report))?))
}

fn carried(name: &str, observer: Arc<dyn Observer>) -> Carried {
    let carrier = move |to: &str, datagram: &[u8]| {
        let mut taken = false;
        applier::contain("The observer", || taken = observer.datagram(to, datagram));
        taken
    };
    Carried::new(name, Box::new(carrier))
}

fn peers(wire: &Arc<dyn Wire>, core: &Weak<Core>) -> Peers {
    let core = core.clone();
    // How the node introduces itself to those it connects to.
    Peers::over(wire.clone(), move || -> Identity {
        core.upgrade().map_or_else(service::nobody, |core| service::identity(&core))
    })
}

/// Binds the node's address and starts its threads. Fails with `AddressInUse`, `Io`.
pub fn launch(core: &Arc<Core>, applier: Applier, snapshots: SnapshotDir) -> Result<(Handle, Workers), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(spin::before_sleep)
        .max_blocking_threads(DISK_THREADS)
        .build();
    let runtime = runtime.map_err(|error| Failure::io("Starting the runtime", &error))?;
    let transport = runtime.block_on(listen(core))?;
    let handle = runtime.handle().clone();
    let (applier, reader) = start_workers(core, applier)?;
    let parts = Parts { transport, snapshots };
    let (owner, window) = (core.clone(), core.config.spin());
    let main = std::thread::Builder::new().name(format!("quorate-core-{}", core.config.name));
    let main = main.spawn(move || {
        // As a task: what wakes it from within the runtime is then one more entry of the run queue, while the future that a
        // runtime blocks on is polled only after a look at the sockets.
        let live = async move { tokio::spawn(live(owner, parts)).await };
        if let Err(error) = runtime.block_on(spin::awake(window, live)) {
            tracing::error!("The node's own task was lost: {error}.");
        }
        runtime.shutdown_timeout(RUNTIME_PATIENCE);
    });
    let main = main.map_err(|error| Failure::io("Starting the node's thread", &error))?;
    Ok((handle, Workers { main: Worker::Thread(main), applier, reader }))
}

/// [`launch`] in the present runtime, without threads.
pub async fn launch_inline(
    core: &Arc<Core>,
    applier: Applier,
    snapshots: SnapshotDir,
) -> Result<(Handle, Workers), Failure> {
    let transport = listen(core).await?;
    let (applier, reader) = start_workers(core, applier)?;
    let main = Worker::Task(tokio::spawn(live(core.clone(), Parts { transport, snapshots })));
    Ok((Handle::current(), Workers { main, applier, reader }))
}

fn start_workers(core: &Arc<Core>, applier: Applier) -> Result<(Worker, Option<Worker>), Failure> {
    let reader = core.reader.clone().map(|reader| reads::spawn_reader(core, reader)).transpose()?;
    Ok((applier.spawn(&core.config.name, core.config.spin())?, reader))
}

async fn live(core: Arc<Core>, parts: Parts) {
    if AssertUnwindSafe(run::run(core.clone(), parts)).catch_unwind().await.is_err() {
        fail_all(&core);
    }
}

async fn listen(core: &Arc<Core>) -> Result<Option<Transport>, Failure> {
    let Some(address) = core.config.listen_address() else { return Ok(None) };
    let service = Arc::new(NodeService::new(Arc::downgrade(core)));
    Transport::listen_on(&*core.wire, address, service, TransportOptions::default()).await.map(Some)
}

/// After a panic of the node's own thread nothing would ever be answered: everything is, and nothing more is accepted.
fn fail_all(core: &Core) {
    let failure = Failure::internal("The node's own thread panicked; start the node again.");
    tracing::error!("{failure}");
    core.problems.set(Problem::Consensus, failure);
    let mut due = core.pending.close();
    due.extend(core.requests.close());
    applier::deliver(due, core.observer.as_ref());
}
