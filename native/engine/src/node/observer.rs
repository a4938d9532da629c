//! Who is told what happens on a node.

use bytes::Bytes;

use crate::error::{Code, Failure};
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
    /// Why, in fluree/raft's words: `become-leader`, this node won; `request-votes`, an election began, so there is no
    /// leader; `append-entries`, a leader made itself known; `append-entries-response`, this leader met a higher term;
    /// `request-vote-response`, this candidate did; `config-change-response`, this node is no voter any more; or `closed`.
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

    /// The host of `from` asks this one; the answer goes to [`crate::node::Node::answer`] under `ticket`. Fails, and then
    /// waits for no answer, with why the question was not taken; by default no questions are.
    fn asked(&self, _ticket: u64, _from: &str, _question: Bytes) -> Result<(), Failure> {
        Err(Failure::new(Code::Unavailable, "This server's host takes no questions."))
    }

    /// Carry `datagram` to the server `to`, where it goes into [`crate::node::Node::deliver`]. False when it was dropped,
    /// as it is by default. Asked only of nodes whose transport is the host's.
    fn datagram(&self, _to: &str, _datagram: &[u8]) -> bool {
        false
    }
}
