//! Looking at a node's consensus state from outside: for tools, and for tests that hold nodes against each other.

use std::sync::Arc;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::async_runtime::WatchReceiver;

use crate::consensus::types::{Entry, LogId, Member};
use crate::error::Failure;
use crate::node::core::Core;
use crate::node::messages::{ClusterId, encode};
use crate::node::observer::Role;

/// A node's consensus state at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Its raft id.
    pub node: u64,
    /// Which start this is.
    pub incarnation: u64,
    /// Its cluster, once it has one.
    pub cluster: Option<ClusterId>,
    /// What it is.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// Who has its vote in that term.
    pub voted_for: Option<u64>,
    /// The leader of that term, as far as it knows.
    pub leader: Option<u64>,
    /// The last entry in its log, durable or not.
    pub last: Option<LogId>,
    /// The newest entry that it knows as committed.
    pub committed: Option<LogId>,
    /// The last entry that was purged.
    pub purged: Option<LogId>,
    /// The last entry that its newest snapshot covers.
    pub snapshot: Option<LogId>,
    /// The next log index to apply; everything below it is applied.
    pub next_log_index: u64,
    /// The user-visible index.
    pub index: u64,
    /// Which entry made the newest membership in its log.
    pub membership: Option<LogId>,
    /// That membership: raft id, member, and whether it has a vote in any of the one or two configurations.
    pub members: Vec<(u64, Member, bool)>,
}

/// What an entry of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A leader's first.
    Blank,
    /// Commands.
    Commands,
    /// A membership.
    Membership,
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Where it is and who made it.
    pub log_id: LogId,
    /// What it is.
    pub kind: EntryKind,
    /// Its content: the batch of commands ([`crate::command::Batch`]), or the encoded membership.
    pub content: Bytes,
}

/// The state of the node behind `core`. Before its consensus runs there is no more than its identity and how far it applied.
pub fn inspect(core: &Core) -> Inspection {
    let identity = core.identity.read().clone();
    let view = core.leadership.borrow().clone();
    let progress = *core.applier.progress.borrow();
    let extent = core.applier.log.lock().as_ref().map(|log| log.extent());
    let vote = extent.and_then(|extent| extent.vote);
    let mut seen = Inspection {
        node: identity.node,
        incarnation: identity.incarnation,
        cluster: identity.cluster,
        role: view.role,
        term: vote.map_or(view.term, |vote| vote.leader_id.term),
        voted_for: vote.map(|vote| vote.leader_id.node_id),
        leader: view.leader_id(),
        last: extent.and_then(|extent| extent.last),
        committed: None,
        purged: extent.and_then(|extent| extent.purged),
        snapshot: progress.snapshot_log_id,
        next_log_index: progress.next_log_index,
        index: progress.index,
        membership: None,
        members: Vec::new(),
    };
    if let Some(running) = &*core.running.read() {
        let (data, server) = (running.raft.data_metrics(), running.raft.server_metrics());
        seen.committed = data.borrow_watched().cluster_committed;
        let server = server.borrow_watched();
        let membership = &server.membership_config;
        let voters: Vec<u64> = membership.voter_ids().collect();
        seen.membership = *membership.log_id();
        seen.members = membership.nodes().map(|(id, member)| (*id, member.clone(), voters.contains(id))).collect();
    }
    seen
}

/// The entries `first..=last` that the log holds. Fails with `Unavailable` while there is no log, with `Corrupt`, `Io`.
pub fn log_entries(core: &Arc<Core>, first: u64, last: u64) -> Result<Vec<LogEntry>, Failure> {
    let log = core.applier.log.lock().clone().ok_or_else(|| core.not_ready())?;
    log.read_now(first, last.saturating_add(1))?.into_iter().map(entry).collect()
}

fn entry(entry: Entry) -> Result<LogEntry, Failure> {
    let (kind, content) = match entry.payload {
        EntryPayload::Blank => (EntryKind::Blank, Bytes::new()),
        EntryPayload::Normal(batch) => (EntryKind::Commands, batch.0),
        EntryPayload::Membership(membership) => (EntryKind::Membership, encode(&membership)?),
    };
    Ok(LogEntry { log_id: entry.log_id, kind, content })
}
