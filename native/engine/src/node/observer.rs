//! Who is told what happens on a node.

use crate::machine::Outcome;

/// A change of leadership or of this node's role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderEvent {
    /// Name of the leader before, when there was one.
    pub old_leader: Option<String>,
    /// Name of the leader now, when there is one.
    pub new_leader: Option<String>,
    /// This node's role before.
    pub old_role: Role,
    /// This node's role now.
    pub new_role: Role,
    /// The present term.
    pub term: u64,
    /// Why, in a few words: `election`, `heartbeat`, `vote-request`, `leader-lost`, `membership`.
    pub cause: &'static str,
}

/// What a node is in its cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Looking for its cluster, or waiting to be let in.
    #[default]
    Waiting,
    /// Receives the log without a vote.
    Learner,
    /// Follows a leader.
    Follower,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
    /// Closed.
    Closed,
}

impl Role {
    /// The role's name in status maps and events.
    pub fn name(self) -> &'static str {
        match self {
            Role::Waiting => "waiting",
            Role::Learner => "learner",
            Role::Follower => "follower",
            Role::Candidate => "candidate",
            Role::Leader => "leader",
            Role::Closed => "closed",
        }
    }
}

/// Receives a node's events. Called on engine threads, so it must not block and must not call back into the node.
pub trait Observer: Send + Sync {
    /// Answers of submissions, by ticket, in the order in which they were decided.
    fn completed(&self, outcomes: Vec<(u64, Outcome)>);

    /// The leader or this node's role changed.
    fn leader(&self, event: &LeaderEvent);
}
