//! What nodes say to each other beside consensus: the kinds of their calls, and the messages that are encoded with postcard.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::consensus::types::Member;
use crate::error::{Code, Failure};

/// Identifies a cluster: drawn at random when it is founded.
pub type ClusterId = [u8; 16];

/// "Who are you?" → [`About`]. Introductions (kinds below 16) are served to nodes without a cluster too.
pub const ABOUT: u8 = 1;
/// Phase 1 of the agreement on a new cluster's id: [`Prepare`] → [`Promise`].
pub const PREPARE: u8 = 2;
/// Phase 2: [`Accept`] → [`Promise`].
pub const ACCEPT: u8 = 3;
/// A node asks to be let in: [`Change::Join`] → empty.
pub const JOIN: u8 = 4;
/// A leader lets an empty node in: [`Invite`] → its raft id, a `u64`.
pub const INVITE: u8 = 5;
/// A follower's commands, as a batch → empty, once they are committed.
pub const FORWARD: u8 = 32;
/// "Up to where must I have applied for a linearizable read?" One byte, 1 for the lease policy → log index `u64`.
pub const READ_INDEX: u8 = 33;
/// A membership change for the leader → empty.
pub const CHANGE: u8 = 34;
/// A question for this node's host: `within u64 (ms) · question` → its answer.
pub const ASK: u8 = 35;

/// How far a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// It has no data and no cluster.
    Empty,
    /// It has a cluster, and waits to be let in.
    Joining,
    /// It is, or was, a member.
    Member,
}

/// A node about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Its name.
    pub name: String,
    /// Its raft id; before it has a cluster, the one that it would join with.
    pub node: u64,
    /// Its cluster.
    pub cluster: Option<ClusterId>,
    /// How far it is.
    pub stage: Stage,
    /// The servers that it was configured with, by name.
    pub servers: Vec<(String, String)>,
    /// The members that it knows of.
    pub members: Vec<(u64, Member)>,
}

/// A ballot: round, then proposer, so that no two proposers share one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ballot {
    /// Counts rounds.
    pub round: u64,
    /// Who proposes, as the hash of its name.
    pub proposer: u64,
}

/// Asks for a promise not to accept anything under a lower ballot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare {
    /// The proposer's ballot.
    pub ballot: Ballot,
    /// The servers that it is configured with; both must agree on them.
    pub servers: Vec<(String, String)>,
}

/// Asks to accept a cluster id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accept {
    /// The ballot that was promised.
    pub ballot: Ballot,
    /// The cluster id.
    pub cluster: ClusterId,
    /// As in [`Prepare`].
    pub servers: Vec<(String, String)>,
}

/// An acceptor's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// Whether it agreed.
    pub agreed: bool,
    /// The highest ballot that it promised.
    pub promised: Ballot,
    /// What it accepted last.
    pub accepted: Option<(Ballot, ClusterId)>,
}

/// A leader's word that the node may join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// The cluster.
    pub cluster: ClusterId,
    /// The name by which the leader knows the node.
    pub name: String,
}

/// A membership change, for the leader to carry out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Let in the node that listens at `address` under `name`, with a vote when `voter`.
    Add {
        /// Its name.
        name: String,
        /// Where its transport listens.
        address: String,
        /// With a vote, or as a learner.
        voter: bool,
    },
    /// A node asks for itself; a member of the same name that is gone is replaced.
    Join {
        /// Its raft id.
        id: u64,
        /// Name and address.
        member: Member,
    },
    /// A member has a new address.
    Readdress {
        /// Its raft id.
        id: u64,
        /// Name and new address.
        member: Member,
    },
    /// Take the member out.
    Remove {
        /// Its name.
        name: String,
    },
    /// Make that member the leader.
    Transfer {
        /// Its name.
        name: String,
    },
}

/// Encodes a message. Fails only on a defect.
pub fn encode<T: Serialize>(message: &T) -> Result<Bytes, Failure> {
    let encoded = postcard::to_stdvec(message);
    encoded.map(Bytes::from).map_err(|error| Failure::internal(format!("A message cannot be encoded: {error}")))
}

/// Decodes a message. Fails with `Corrupt`.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    postcard::from_bytes(body)
        .map_err(|error| Failure::new(Code::Corrupt, format!("A message cannot be read: {error}")))
}
