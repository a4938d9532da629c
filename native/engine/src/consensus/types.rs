//! openraft's type configuration and short names for what it makes of it.

use std::fmt;

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

openraft::declare_raft_types!(
    /// The types that Quorate runs openraft with.
    pub TypeConfig: D = Batch, R = Done, NodeId = u64, Node = Member, AsyncRuntime = CoreRuntime,
);

/// Identifies a leader: term and node.
pub type LeaderId = openraft::type_config::alias::LeaderIdOf<TypeConfig>;
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
