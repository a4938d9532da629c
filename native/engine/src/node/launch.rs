//! Opening and assembling the parts of a node, and starting its threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{Notify, watch};

use crate::config::{NodeConfig, TransportKind};
use crate::datadir::DataDir;
use crate::error::Failure;
use crate::hosted::{self, Host};
use crate::kv::{KvMachine, KvReader};
use crate::machine::StateMachine;
use crate::node::applier::{self, Applier, Progress, Shared};
use crate::node::apply_queue::ApplyQueue;
use crate::node::asks::Asks;
use crate::node::bootstrap;
use crate::node::core::{Core, Identity as Known};
use crate::node::leadership::View;
use crate::node::observer::Observer;
use crate::node::pending::Pending;
use crate::node::problems::{Problem, Problems};
use crate::node::proposer::ForwardQueue;
use crate::node::reads::{self, ReadQueue};
use crate::node::requests::Requests;
use crate::node::run::{self, Parts};
use crate::node::service::{self, NodeService};
use crate::node::snapshots::Snapshots;
use crate::node::start::Machine;
use crate::snapshot::SnapshotDir;
use crate::transport::carried::Carried;
use crate::transport::tls::Tls;
use crate::transport::wire::{LoopbackTcp, Tcp, Wire};
use crate::transport::{Identity, Peers, Transport, TransportOptions};

/// Threads that a node may use to wait for disks (snapshots, opening files).
const DISK_THREADS: usize = 4;
/// How long work that waits for disks is given to end.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(1);

/// The threads of a running node.
pub struct Threads {
    /// The node's own: consensus and transport.
    pub main: JoinHandle<()>,
    /// The applying thread.
    pub applier: JoinHandle<()>,
    /// The reading thread of the key-value store.
    pub reader: Option<JoinHandle<()>>,
}

/// The sides of a machine that others than the applying thread use.
#[derive(Default)]
pub struct Sides {
    /// The key-value store's reading side.
    reader: Option<KvReader>,
    /// The host's side.
    host: Option<Arc<Host>>,
}

/// The node's identity as it is on disk, or a fresh one.
pub fn identify(data: &mut DataDir) -> Result<Known, Failure> {
    match data.identity().cloned() {
        Some(stored) => {
            let incarnation = data.next_incarnation()?;
            Ok(Known { cluster: Some(stored.cluster), node: stored.node, incarnation })
        }
        None => Ok(Known { cluster: None, node: bootstrap::fresh_id()?, incarnation: 0 }),
    }
}

/// Opens the machine that was asked for. Fails with `Io`, `Corrupt`.
pub fn open_machine(
    machine: Machine,
    data: &DataDir,
    config: &NodeConfig,
) -> Result<(Box<dyn StateMachine>, Sides), Failure> {
    let directory = data.state_dir(0);
    match machine {
        Machine::KeyValue => {
            let (machine, reader) = KvMachine::open(&directory)?;
            Ok((Box::new(machine), Sides { reader: Some(reader), host: None }))
        }
        Machine::Hosted => {
            let (machine, host) =
                hosted::pair(directory.join("exchange"), Duration::from_millis(config.snapshot_timeout_ms))?;
            Ok((Box::new(machine), Sides { reader: None, host: Some(host) }))
        }
        Machine::Own(machine) => Ok((machine, Sides::default())),
    }
}

/// Opens the applying side of `machine`.
pub fn open_applier(
    machine: Box<dyn StateMachine>,
    snapshots: &SnapshotDir,
    identity: &Known,
    observer: Arc<dyn Observer>,
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
        handed: Mutex::default(),
    });
    let applier = Applier::open(machine, snapshots.latest()?, shared.clone())?;
    let books = applier.books();
    *shared.handed.lock() = (books.applied.log_id, books.membership.clone());
    Ok((applier, shared))
}

/// Puts the parts of a node together. Fails with `Invalid` when its certificates cannot be used.
pub fn assemble(
    config: NodeConfig,
    data: DataDir,
    identity: Known,
    shared: Arc<Shared>,
    observer: Arc<dyn Observer>,
    sides: Sides,
    snapshots: SnapshotDir,
) -> Result<Arc<Core>, Failure> {
    let carried = (config.transport == TransportKind::Host).then(|| carried(&config.name, observer.clone()));
    let wire = match &carried {
        Some(carried) => Arc::new(carried.clone()),
        None => wire(&config, &shared.problems)?,
    };
    let possible = config.snapshots;
    Ok(Arc::new_cyclic(|weak| Core {
        peers: peers(&wire, weak),
        askers: peers(&wire, weak),
        wire,
        carried,
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
pub fn launch(core: &Arc<Core>, applier: Applier, snapshots: SnapshotDir) -> Result<(Handle, Threads), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(DISK_THREADS).build();
    let runtime = runtime.map_err(|error| Failure::io("Starting the runtime", &error))?;
    let transport = listen(core, &runtime)?;
    let handle = runtime.handle().clone();
    let reader = core.reader.clone().map(|reader| reads::spawn_reader(core, reader)).transpose()?;
    let applier = applier.spawn(&core.config.name)?;
    let parts = Parts { transport, snapshots };
    let owner = core.clone();
    let main = std::thread::Builder::new().name(format!("quorate-core-{}", core.config.name));
    let main = main.spawn(move || {
        let life = catch_unwind(AssertUnwindSafe(|| runtime.block_on(run::run(owner.clone(), parts))));
        if life.is_err() {
            fail_all(&owner);
        }
        runtime.shutdown_timeout(RUNTIME_PATIENCE);
    });
    let main = main.map_err(|error| Failure::io("Starting the node's thread", &error))?;
    Ok((handle, Threads { main, applier, reader }))
}

fn listen(core: &Arc<Core>, runtime: &Runtime) -> Result<Option<Transport>, Failure> {
    let Some(address) = core.config.listen_address() else { return Ok(None) };
    let service = Arc::new(NodeService::new(Arc::downgrade(core)));
    runtime.block_on(Transport::listen_on(&*core.wire, address, service, TransportOptions::default())).map(Some)
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
