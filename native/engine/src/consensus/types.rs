//! openraft's type configuration and short names for what it makes of it.

use std::cmp::Ordering;
use std::fmt;

use openraft::vote::RaftLeaderId;
use serde::{Deserialize, Serialize};

use super::runtime::CoreRuntime;
use crate::command::Batch;

/// What the cluster knows of a member, besides its id: kept in the membership record, so it travels in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The name that users know it by.
    pub name: String,
    /// Where its transport listens, `host:port`; empty for a single node without a transport.
    pub address: String,
}

/// The answer of the state machine to openraft. Results never travel this way (the submitting node answers from its
/// own application), so it is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done;

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("done")
    }
}

/// Who stands for election in which term. Two of one term do not compare: a vote for one is none for the other, so that a
/// term has one leader at most. (openraft's usual order lets the one with the larger id win after the other did, in the
/// same term; no entry is lost that way, but a term says less than Raft's users expect of it.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The term.
    pub term: u64,
    /// The node.
    pub node_id: u64,
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "T{}-N{}", self.term, self.node_id)
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Candidate) -> Option<Ordering> {
        match self.term.cmp(&other.term) {
            Ordering::Equal if self.node_id != other.node_id => None,
            order => Some(order),
        }
    }
}

/// Who stands has not won.
impl PartialEq<LeaderId> for Candidate {
    fn eq(&self, _won: &LeaderId) -> bool {
        false
    }
}

impl PartialOrd<LeaderId> for Candidate {
    fn partial_cmp(&self, won: &LeaderId) -> Option<Ordering> {
        Some(self.term.cmp(&won.term).then(Ordering::Less))
    }
}

impl RaftLeaderId for Candidate {
    type Term = u64;
    type NodeId = u64;
    type Committed = LeaderId;

    fn new(term: u64, node_id: u64) -> Candidate {
        Candidate { term, node_id }
    }

    fn term(&self) -> u64 {
        self.term
    }

    fn node_id(&self) -> &u64 {
        &self.node_id
    }

    fn to_committed(&self) -> LeaderId {
        LeaderId { term: self.term, node_id: self.node_id }
    }
}

openraft::declare_raft_types!(
    /// The types that Quorate runs openraft with.
    pub TypeConfig: D = Batch, R = Done, NodeId = u64, Node = Member, LeaderId = Candidate, AsyncRuntime = CoreRuntime,
);

/// Who won an election: term and node. There is at most one a term.
pub type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>;
/// Position in the Raft log.
pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
/// A vote.
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
/// An entry of the Raft log.
pub type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
/// What an entry carries.
pub type Payload = openraft::type_config::alias::PayloadOf<TypeConfig>;
/// A membership with the log id that made it.
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
/// A membership.
pub type Membership = openraft::Membership<u64, Member>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_of_one_term_do_not_compare_and_the_winner_comes_after_both() {
        let candidate = |term, node_id| Candidate { term, node_id };
        assert_eq!(candidate(2, 1).partial_cmp(&candidate(2, 9)), None);
        assert!(candidate(2, 9) < candidate(3, 1));
        assert_eq!(candidate(2, 1).partial_cmp(&candidate(2, 1)), Some(Ordering::Equal));
        let won = candidate(2, 1).to_committed();
        assert!(candidate(2, 1) < won && candidate(2, 9) < won && candidate(3, 1) > won);
        assert!(candidate(2, 1) != won);
    }
}
