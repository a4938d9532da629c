//! Who leads, as this node sees it: watched once, published to whoever needs it, told to the observer.

use std::sync::Arc;
use std::time::Instant;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use openraft::metrics::RaftServerMetrics;

use crate::consensus::types::{StoredMembership, TypeConfig};
use crate::node::adapter::RaftNode;
use crate::node::applier;
use crate::node::core::Core;
use crate::node::observer::{LeaderEvent, Role};

/// The present leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leader {
    /// This node.
    Me,
    /// Another one.
    Other {
        /// Its raft id.
        id: u64,
        /// Its name.
        name: String,
        /// Where its transport listens.
        address: String,
    },
}

/// What this node knows of leadership.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The present term.
    pub term: u64,
    /// This node's role.
    pub role: Role,
    /// The leader, when there is one.
    pub leader: Option<Leader>,
    /// This node's own raft id.
    pub me: u64,
    /// This node's own name.
    pub my_name: String,
}

impl View {
    /// The leader's raft id.
    pub fn leader_id(&self) -> Option<u64> {
        match &self.leader {
            Some(Leader::Me) => Some(self.me),
            Some(Leader::Other { id, .. }) => Some(*id),
            None => None,
        }
    }

    /// The leader's name.
    pub fn leader_name(&self) -> Option<&str> {
        match &self.leader {
            Some(Leader::Me) => Some(&self.my_name),
            Some(Leader::Other { name, .. }) => Some(name),
            None => None,
        }
    }
}

/// Follows openraft's metrics until they end.
pub async fn run(core: Arc<Core>, raft: RaftNode) {
    let mut metrics = raft.server_metrics();
    loop {
        let view = view(&core, &metrics.borrow_and_update());
        publish(&core, view);
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

fn view(core: &Core, metrics: &RaftServerMetrics<TypeConfig>) -> View {
    let role = match metrics.state {
        ServerState::Leader => Role::Leader,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Learner if metrics.membership_config.log_id().is_none() => Role::Waiting,
        ServerState::Learner => Role::Learner,
        ServerState::Shutdown => Role::Closed,
    };
    let leader = metrics.current_leader.and_then(|id| leader(metrics, id, role));
    View { term: metrics.vote.leader_id.term, role, leader, me: metrics.id, my_name: core.config.name.clone() }
}

fn leader(metrics: &RaftServerMetrics<TypeConfig>, id: u64, role: Role) -> Option<Leader> {
    if id == metrics.id {
        return (role == Role::Leader).then_some(Leader::Me);
    }
    let membership: &StoredMembership = &metrics.membership_config;
    let member = membership.get_node(&id)?;
    Some(Leader::Other { id, name: member.name.clone(), address: member.address.clone() })
}

/// Publishes `view`, and tells the observer when the leader or the role changed.
pub fn publish(core: &Core, view: View) {
    let mut event = None;
    core.leadership.send_if_modified(|known| {
        if *known == view {
            return false;
        }
        if known.leader_name() != view.leader_name() || known.role != view.role {
            event = Some(LeaderEvent {
                old_leader: known.leader_name().map(str::to_string),
                new_leader: view.leader_name().map(str::to_string),
                old_role: known.role,
                new_role: view.role,
                term: view.term,
                cause: cause(known, &view),
            });
        }
        *known = view;
        true
    });
    if let Some(event) = event {
        *core.last_election.lock() = Some((event.cause, event.term, Instant::now()));
        applier::contain("The observer", || core.observer.leader(&event));
    }
}

fn cause(old: &View, new: &View) -> &'static str {
    match (old.role, new.role) {
        (_, Role::Closed) => "closed",
        (_, Role::Leader) => "request-vote-response",
        (_, Role::Candidate) => "election-timeout",
        (Role::Learner | Role::Waiting, Role::Follower) => "config-change",
        _ if new.leader.is_none() => "request-votes",
        _ => "append-entries",
    }
}
