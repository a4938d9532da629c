//! A node's own thread: a single-threaded tokio runtime with everything that votes, replicates and answers other nodes.
//! It never touches the host and never waits for a disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use openraft::storage::{RaftLogReader, RaftLogStorage};
use tokio::time::Instant;

use crate::config::{NodeConfig, TransportKind};
use crate::consensus::log::{LogOptions, LogStore};
use crate::consensus::network::{Network, RaftInbound};
use crate::consensus::types::{LogId, Member};
use crate::durable::blocking;
use crate::error::{Code, Failure};
use crate::node::adapter::MachineAdapter;
use crate::node::adapter::RaftNode;
use crate::node::applier;
use crate::node::bootstrap;
use crate::node::conflict;
use crate::node::core::{Core, Running};
use crate::node::elections;
use crate::node::forming;
use crate::node::leadership;
use crate::node::membership;
use crate::node::messages::{Change, JOIN, encode};
use crate::node::observer::Role;
use crate::node::problems::Problem;
use crate::node::view::View;
use crate::node::{proposer, reads};
use crate::planted::{self, Defect};
use crate::snapshot::SnapshotDir;
use crate::transport::Transport;

/// Beyond every deadline.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// How often deadlines are looked at.
const DEADLINES: Duration = Duration::from_millis(10);
/// Before a consensus core that stopped by itself is started again; doubles, up to the longest, with each further time that it
/// did not last for [`LASTED`]: a node whose disk is full must not disturb the others by standing for election again and again.
const RESTART: Duration = Duration::from_secs(1);
const RESTART_LONGEST: Duration = Duration::from_secs(8);
const LASTED: Duration = Duration::from_secs(30);
/// How long a node waits to be let in before it asks again.
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a node that has a new address looks for a leader by itself before it asks others.
const READDRESS_PATIENCE: Duration = Duration::from_secs(2);
/// How long the consensus core and the log are each given to end.
const STOP_PATIENCE: Duration = Duration::from_millis(1_500);
/// A snapshot is given up when it was not sent in so long.
const SNAPSHOT_TIMEOUT_MS: u64 = 600_000;
/// Entries in one AppendEntries.
const APPEND_ENTRIES_MAX: u64 = 4_096;
/// Room between openraft's core and its state-machine worker, which never waits.
const MACHINE_CHANNEL: u64 = 65_536;
/// A host that did not move for so long while it had work costs this node its leadership: far longer than any collection.
const STUCK_HOST: Duration = Duration::from_secs(60);

/// What the thread needs beside the core.
pub struct Parts {
    /// The listening side, for a node with an address.
    pub transport: Option<Transport>,
    /// The snapshot directory.
    pub snapshots: SnapshotDir,
}

/// Runs the node until it is closed.
pub async fn run(core: Arc<Core>, parts: Parts) {
    let life = live(core.clone(), &parts);
    let deadlines = watch_deadlines(core.clone());
    let reads = reads::run(core.clone());
    let wake_bell = core.close_bell.notified();
    tokio::pin!(wake_bell);
    if !core.is_closing() {
        // None but the first ends while all is well.
        tokio::select! {
            biased;
            _ = &mut wake_bell => {}
            () = life => {}
            () = deadlines => {}
            () = reads => {}
            () = carry(&core) => {}
        }
    }
    stop(&core).await;
    if let Some(transport) = &parts.transport {
        transport.close().await;
    }
    if let Some(carried) = &core.carried {
        carried.close();
    }
    core.peers.close();
    core.askers.close();
}

/// Keeps the connections over the host's transport alive, if there are any.
async fn carry(core: &Core) {
    match &core.carried {
        Some(carried) => carried.run().await,
        None => std::future::pending().await,
    }
}

/// Finds a cluster and serves it; a consensus core that stops by itself is started again.
async fn live(core: Arc<Core>, parts: &Parts) {
    if let Err(failure) = bootstrap::run(&core).await {
        tracing::error!("The node cannot start: {failure}");
        core.problems.set(Problem::Bootstrap, failure);
        return std::future::pending().await;
    }
    let mut wait = RESTART;
    loop {
        let begun = Instant::now();
        match serve(&core, parts).await {
            Ok(()) => return,
            Err(failure) => {
                let panicked = failure.code == Code::Internal;
                // What the log itself says is nearer to the cause than what openraft makes of it.
                let log = core.applier.log.lock().clone();
                let failure = log.and_then(|log| log.health()).unwrap_or(failure);
                tracing::error!("The consensus core stopped and will be started again: {failure}");
                core.problems.set(Problem::Consensus, failure);
                if panicked {
                    close_pending(&core);
                }
            }
        }
        stop(&core).await;
        if begun.elapsed() >= LASTED {
            wait = RESTART;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RESTART_LONGEST);
    }
}

/// After a panic nobody knows what became of what was under way: it is answered so now, not at its deadline.
fn close_pending(core: &Core) {
    let end = Instant::now() + FOREVER;
    let mut due = core.pending.expire(end);
    due.extend(core.requests.expire(end));
    applier::deliver(due, core.observer.as_ref());
}

/// One life of the consensus core. Returns why it ended.
async fn serve(core: &Arc<Core>, parts: &Parts) -> Result<(), Failure> {
    let raft = start_raft(core, parts).await?;
    let (name, id) = (core.config.name.clone(), core.identity.read().node);
    tracing::info!("{name} ({id:x}) runs.");
    tokio::select! {
        biased;
        failure = fatal(raft.clone()) => Err(failure),
        () = elections::run(core.clone(), raft.clone()) => Err(Failure::internal("Elections ended.")),
        () = elections::watch_round_trips(core, raft.clone()) => Err(Failure::internal("The watch over round trips ended.")),
        () = leadership::run(core.clone(), raft.clone()) => Err(Failure::internal("The consensus core went away.")),
        () = proposer::run(core.clone(), raft.clone()) => Err(Failure::internal("The proposer ended.")),
        () = core.snapshots.run(raft.clone(), &core.config) => Err(Failure::internal("Snapshots ended.")),
        failure = settle_in(core, raft.clone()) => Err(failure),
        () = membership::finish_changes(core.clone(), raft.clone()) => Err(Failure::internal("Membership work ended.")),
        () = hand_over_when_stuck(core, raft) => Err(Failure::internal("The watch over the host ended.")),
    }
}

async fn start_raft(core: &Arc<Core>, parts: &Parts) -> Result<RaftNode, Failure> {
    let log = open_log(core).await?;
    let adapter = MachineAdapter::new(core.applier.clone(), parts.snapshots.clone());
    let (peers, me) = (core.peers.clone(), core.identity.read().node);
    let network = match core.config.transport {
        TransportKind::Tcp => Network::new(peers, me),
        TransportKind::Host => Network::by_name(peers, me),
    };
    let config = Arc::new(raft_config(&core.config)?);
    let node = core.identity.read().node;
    let raft = RaftNode::new(node, config, network, log, adapter).await;
    let raft = raft.map_err(|fatal| Failure::internal(format!("The consensus core did not start: {fatal}.")))?;
    let inbound = Arc::new(RaftInbound::new(raft.clone(), Arc::new(parts.snapshots.clone())));
    *core.running.write() = Some(Running { raft: raft.clone(), inbound });
    core.problems.clear(Problem::Consensus);
    Ok(raft)
}

/// Opens the log and checks that log, snapshots and state belong together.
async fn open_log(core: &Arc<Core>) -> Result<LogStore, Failure> {
    let (directory, founders) = {
        let data = core.data.lock();
        (data.log_dir(0), forming::founders(&data)?)
    };
    let options =
        LogOptions { spin: core.config.spin(), ..LogOptions::sized(&core.config.name, 0, core.config.log_bytes) };
    let mut log = match &core.surroundings {
        None => blocking(move || LogStore::open(&directory, options)).await?,
        Some(around) => LogStore::open_inline(&directory, options, around.disk.clone(), core.applier.pace.clone())?,
    };
    // From here on `stop` closes it.
    *core.applier.log.lock() = Some(log.clone());
    let reading = |error| Failure::io("Reading the log's state", &error);
    let held = log.get_log_state().await.map_err(reading)?;
    let vote = log.read_vote().await.map_err(reading)?;
    let applied = core.applier.handed.lock().0;
    if founders.is_none() && vote.is_none() && held.last_log_id.is_none() {
        return Err(lost_log());
    }
    check_gap(held.last_purged_log_id.as_ref(), applied.as_ref())?;
    // Where the log ends before the state does, or goes elsewhere, it will begin after it.
    let apart = conflict::beyond(&mut log, applied).await?;
    core.snapshots.cover(apart.or(held.last_purged_log_id)).await?;
    if let Some(applied) = apart {
        conflict::drop_entries(&mut log, applied).await?;
    }
    Ok(log)
}

/// With an empty log under its old raft id a node could vote twice in a term, or elect a leader without entries that it
/// once acknowledged.
fn lost_log() -> Failure {
    let message = "The log of this node is gone, though it had one. Empty the whole data directory; the node then \
                   joins its cluster again under a new id and gets everything from there.";
    Failure::new(Code::Corrupt, message)
}

/// State and snapshots must reach to where the log begins.
fn check_gap(purged: Option<&LogId>, applied: Option<&LogId>) -> Result<(), Failure> {
    if purged <= applied {
        return Ok(());
    }
    let message = "The log begins after the newest snapshot ends, so the state cannot be rebuilt. Empty the data \
                   directory; the node then joins its cluster again and gets the state from there.";
    Err(Failure::new(Code::Corrupt, message))
}

fn raft_config(config: &NodeConfig) -> Result<openraft::Config, Failure> {
    let raft = openraft::Config {
        cluster_name: "quorate".into(),
        heartbeat_interval: config.heartbeat_ms,
        // The longest is the lease in which a follower votes for nobody else, the shortest how long a vote is waited for.
        // When to stand is decided by `elections`.
        election_timeout_min: config.election_timeout_ms - 1,
        election_timeout_max: config.election_timeout_ms,
        enable_elect: false,
        enable_pre_vote: Some(true),
        // Entries are committed as soon as two of three have them on disk, the leader or not. A leader that comes back
        // from a power cut may lack such entries: it must stand for election, and then it loses.
        enable_leader_restore: Some(false),
        install_snapshot_timeout: SNAPSHOT_TIMEOUT_MS,
        max_payload_entries: APPEND_ENTRIES_MAX,
        // Snapshots go to a node only when the log does not reach back far enough for it.
        replication_lag_threshold: u64::MAX,
        snapshot_policy: openraft::SnapshotPolicy::Never,
        // `node::snapshots` purges by itself, later than openraft would.
        max_in_snapshot_log_to_keep: u64::MAX,
        state_machine_channel_size: Some(MACHINE_CHANNEL),
        ..openraft::Config::default()
    };
    raft.validate().map_err(|error| Failure::invalid(error.to_string()))
}

/// Waits for the core to stop by itself, by metrics that do not change with every entry: they end when it does.
async fn fatal(raft: RaftNode) -> Failure {
    let mut server = raft.server_metrics();
    while server.changed().await.is_ok() {}
    match &raft.metrics().borrow_watched().running_state {
        Err(fatal) => Failure::new(Code::Unavailable, format!("{fatal}.")),
        Ok(()) => Failure::internal("The consensus core panicked."),
    }
}

/// Founds, joins, or corrects the address, whatever this node still has to do; then waits for ever.
async fn settle_in(core: &Arc<Core>, raft: RaftNode) -> Failure {
    let known = core.identity.read().clone();
    if let Err(failure) = initialize(core, &raft, known.node).await {
        return failure;
    }
    tokio::select! {
        biased;
        () = let_in(&raft) => {}
        () = ask_to_join(core, known.node) => {}
    }
    *core.waiting_for.lock() = None;
    let (forgotten, ()) = tokio::join!(forget_forming(core), keep_address(core, &raft, known.node));
    if let Err(failure) = forgotten {
        return failure;
    }
    std::future::pending().await
}

/// A founding member begins its log with the servers that the agreement was among.
async fn initialize(core: &Arc<Core>, raft: &RaftNode, node: u64) -> Result<(), Failure> {
    if node != forming::hash(&core.config.name) || has_membership(raft).await {
        return Ok(());
    }
    let owner = core.clone();
    let founders = blocking(move || forming::founders(&owner.data.lock())).await?;
    let members: BTreeMap<u64, Member> = founders
        .unwrap_or_default()
        .into_iter()
        .map(|(name, address)| (forming::hash(&name), Member { name, address }))
        .collect();
    if planted::is(Defect::WipedKeepsId) && members.is_empty() {
        return Ok(());
    }
    match raft.initialize(members).await {
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => Err(Failure::internal(format!("The cluster could not be initialised: {error}."))),
    }
}

/// Once there is a leader this node's vote is on its disk: an empty log would be a lost one from now on.
async fn forget_forming(core: &Arc<Core>) -> Result<(), Failure> {
    let mut leadership = core.leadership.subscribe();
    let led = leadership.wait_for(|view| view.leader.is_some()).await;
    drop(led.map_err(|_| Failure::closed())?);
    let owner = core.clone();
    blocking(move || owner.data.lock().save_forming(None)).await
}

/// Asked of the core itself: its metrics say nothing yet when it has just started.
async fn has_membership(raft: &RaftNode) -> bool {
    let known = raft.with_raft_state(|state| state.membership_state.effective().log_id().is_some()).await;
    // A core that stopped is reported by its own watch.
    known.unwrap_or(false)
}

/// Waits until this node has the membership in its log.
async fn let_in(raft: &RaftNode) {
    let mut metrics = raft.server_metrics();
    while !has_membership(raft).await {
        if metrics.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Asks one after the other, again and again.
async fn ask_to_join(core: &Arc<Core>, id: u64) {
    let member = Member { name: core.config.name.clone(), address: core.config.address().to_string() };
    let Ok(body) = encode(&Change::Join { id, member }) else { return };
    loop {
        for (name, address) in core.config.peers() {
            match core.peers.call(address, None, JOIN, body.clone(), JOIN_TIMEOUT).await {
                Ok(_) => break,
                Err(failure) => core.wait_for(format!("Waiting to be let in by {name}: {failure}")),
            }
        }
        tokio::time::sleep(Duration::from_millis(core.config.retry_ms)).await;
    }
}

/// Tells the cluster when this node's address is not the one that the members know. Asks the configured servers: the
/// leader does not reach this node, which may therefore know of none.
async fn keep_address(core: &Arc<Core>, raft: &RaftNode, id: u64) {
    let address = core.config.address().to_string();
    let member = Member { name: core.config.name.clone(), address: address.clone() };
    let Ok(body) = encode(&Change::Readdress { id, member: member.clone() }) else { return };
    loop {
        let known = raft.server_metrics().borrow_watched().membership_config.get_node(&id).cloned();
        if address.is_empty() || known.is_none_or(|known| known.address == address) {
            return;
        }
        let own = Change::Readdress { id, member: member.clone() };
        let mut outcome = membership::change(core, own, Instant::now() + READDRESS_PATIENCE).await;
        for (_, peer) in core.config.peers() {
            if outcome.is_err() {
                outcome = core.peers.call(peer, None, JOIN, body.clone(), JOIN_TIMEOUT).await.map(drop);
            }
        }
        if let Err(failure) = outcome {
            tracing::warn!("The new address {address} is not known to the cluster yet: {failure}");
        }
        tokio::time::sleep(Duration::from_millis(core.config.retry_ms)).await;
    }
}

async fn watch_deadlines(core: Arc<Core>) {
    let mut tick = tokio::time::interval(DEADLINES);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let now = Instant::now();
        let mut due = core.pending.expire(now);
        due.extend(core.requests.expire(now));
        applier::deliver(due, core.observer.as_ref());
    }
}

/// A leader whose host is stuck for very long hands its office to a follower, once.
async fn hand_over_when_stuck(core: &Arc<Core>, raft: RaftNode) {
    let Some(host) = core.host.clone() else { return std::future::pending().await };
    loop {
        tokio::time::sleep(STUCK_HOST / 10).await;
        let (_, waiting, still) = host.lag();
        if waiting == 0 || still < STUCK_HOST || core.leadership.borrow().role != Role::Leader {
            continue;
        }
        let Some(target) = membership::most_caught_up(&raft, *raft.node_id()) else { continue };
        tracing::warn!("The state machine has not moved for {} s; handing leadership over.", still.as_secs());
        if let Err(error) = raft.trigger().transfer_leader(target).await {
            tracing::warn!("Leadership was not handed over: {error}");
        }
    }
}

/// Ends the consensus core and its log; a disk that does not answer holds it up only so long.
async fn stop(core: &Arc<Core>) {
    let running = core.running.write().take();
    if let Some(running) = running {
        match tokio::time::timeout(STOP_PATIENCE, running.raft.shutdown()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("The consensus core did not end cleanly: {error}"),
            Err(_) => tracing::warn!("The consensus core did not end in {} ms.", STOP_PATIENCE.as_millis()),
        }
    }
    let log = core.applier.log.lock().take();
    if let Some(log) = log
        && tokio::time::timeout(STOP_PATIENCE, log.closed()).await.is_err()
    {
        tracing::warn!("The log did not close in {} ms.", STOP_PATIENCE.as_millis());
    }
    let role = if core.closing.load(Ordering::Acquire) { Role::Closed } else { Role::Waiting };
    let term = core.leadership.borrow().term;
    let me = core.identity.read().node;
    leadership::publish(core, View { term, role, leader: None, me, my_name: core.config.name.clone() });
}
