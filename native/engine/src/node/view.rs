//! What a node knows of leadership.

use crate::node::observer::Role;

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
