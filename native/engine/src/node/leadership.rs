//! Who leads, as this node sees it: watched once, published to whoever needs it, told to the observer.

use std::sync::Arc;

use openraft::ServerState;
use openraft::metrics::RaftServerMetrics;
use tokio::time::Instant;

use crate::consensus::types::{StoredMembership, TypeConfig};
use crate::node::adapter::RaftNode;
use crate::node::applier;
use crate::node::core::Core;
use crate::node::observer::{LeaderEvent, Role};
use crate::node::view::{Leader, View};

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
    let leader = metrics.current_leader.and_then(|id| leader(core, metrics, id, role));
    View { term: metrics.vote.leader_id.term, role, leader, me: metrics.id, my_name: core.config.name.clone() }
}

fn leader(core: &Core, metrics: &RaftServerMetrics<TypeConfig>, id: u64, role: Role) -> Option<Leader> {
    if id == metrics.id {
        return (role == Role::Leader).then_some(Leader::Me);
    }
    let membership: &StoredMembership = &metrics.membership_config;
    let member = membership.get_node(&id)?;
    let address = core.config.reach(&member.name, &member.address).to_string();
    Some(Leader::Other { id, name: member.name.clone(), address })
}

/// Publishes `view`, and tells the observer when the leader or the role changed. Metrics show the newest state only, so
/// of an election that was won at once the beginning is supplied: whoever wins stood before.
pub fn publish(core: &Core, view: View) {
    let known = core.leadership.borrow().clone();
    if let Some(standing) = standing_before(&known, &view) {
        publish_one(core, standing);
    }
    publish_one(core, view);
}

fn standing_before(known: &View, won: &View) -> Option<View> {
    let skipped = won.role == Role::Leader && known.role != Role::Leader && known.leader.is_some();
    skipped.then(|| View { role: Role::Candidate, leader: None, ..won.clone() })
}

fn publish_one(core: &Core, view: View) {
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

/// The nearest of fluree/raft's causes, see [`LeaderEvent::cause`].
fn cause(old: &View, new: &View) -> &'static str {
    match (old.role, new.role) {
        (_, Role::Closed) => "closed",
        (_, Role::Leader) => "become-leader",
        (_, Role::Candidate) => "request-votes",
        (Role::Leader | Role::Follower | Role::Candidate, Role::Learner | Role::Waiting) => "config-change-response",
        _ if new.leader.is_some() => "append-entries",
        (Role::Leader, _) => "append-entries-response",
        (Role::Candidate, _) => "request-vote-response",
        _ => "request-votes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(role: Role, leader: Option<u64>) -> View {
        let leader = leader.map(|id| match (id, role) {
            (1, _) => Leader::Me,
            _ => Leader::Other { id, name: format!("server{id}"), address: String::new() },
        });
        View { term: 2, role, leader, me: 1, my_name: "server1".into() }
    }

    #[test]
    fn every_change_has_the_cause_that_fluree_users_know() {
        let led = view(Role::Follower, Some(2));
        let alone = view(Role::Follower, None);
        let standing = view(Role::Candidate, None);
        let leading = view(Role::Leader, Some(1));
        assert_eq!(cause(&led, &standing), "request-votes");
        assert_eq!(cause(&led, &alone), "request-votes");
        assert_eq!(cause(&standing, &leading), "become-leader");
        assert_eq!(cause(&alone, &view(Role::Follower, Some(3))), "append-entries");
        assert_eq!(cause(&leading, &led), "append-entries");
        assert_eq!(cause(&leading, &alone), "append-entries-response");
        assert_eq!(cause(&standing, &alone), "request-vote-response");
        assert_eq!(cause(&leading, &view(Role::Learner, None)), "config-change-response");
        assert_eq!(cause(&led, &view(Role::Closed, None)), "closed");
    }

    #[test]
    fn a_victory_seen_late_has_its_beginning_supplied() {
        let leading = view(Role::Leader, Some(1));
        let standing = standing_before(&view(Role::Follower, Some(2)), &leading);
        assert_eq!(standing, Some(view(Role::Candidate, None)));
        assert_eq!(standing_before(&view(Role::Candidate, None), &leading), None);
        assert_eq!(standing_before(&leading, &leading), None);
        assert_eq!(standing_before(&leading, &view(Role::Follower, Some(2))), None);
    }
}
