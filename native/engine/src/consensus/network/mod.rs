//! openraft's network over the [`transport`](crate::transport).
//!
//! [`Network`] makes one client for each thing that openraft sends to a node: log entries, heartbeats and snapshots have
//! connections of their own, votes share the connection for calls. [`RaftInbound`] is the other side: it turns what
//! arrives into calls of the local core.

mod alarm;
mod appends;
mod client;
mod codec;
mod errors;
mod hold;
mod inbound;
mod pipeline;
mod receive;
mod split;
mod stream;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use openraft::network::RaftNetworkFactory;

pub use client::Client;
pub use inbound::RaftInbound;
pub use receive::{SnapshotReceiver, SnapshotSink};

use crate::consensus::types::{Member, TypeConfig};
use crate::transport::Peers;

/// Call: a candidate asks for a vote.
pub const VOTE: u8 = 16;
/// Call: a node asks whether it would get a vote.
pub const PRE_VOTE: u8 = 17;
/// Call: the leader hands its office over.
pub const TRANSFER: u8 = 18;
/// Call: one append request, outside of a stream.
pub const APPEND: u8 = 19;

/// Whether a call of `kind` is for [`RaftInbound::call`]: kinds 16 to 31 are.
pub fn is_consensus_call(kind: u8) -> bool {
    (16..32).contains(&kind)
}

/// Makes the clients through which openraft talks to other nodes.
#[derive(Clone)]
pub struct Network {
    peers: Peers,
    me: u64,
    by_name: bool,
}

impl Network {
    /// For node `me`, over the connections of `peers`.
    pub fn new(peers: Peers, me: u64) -> Network {
        Network { peers, me, by_name: false }
    }

    /// As [`Network::new`], but a member's name is its address, whatever the membership says.
    pub fn by_name(peers: Peers, me: u64) -> Network {
        Network { peers, me, by_name: true }
    }

    fn client(&self, target: u64, node: &Member) -> Client {
        Client::new(self.peers.clone(), self.me, target, if self.by_name { &node.name } else { &node.address }.clone())
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    // Heartbeat and snapshot clients default to this too: a client opens its own append stream, so heartbeats never wait
    // behind entries.
    async fn new_client(&mut self, target: u64, node: &Member) -> Client {
        self.client(target, node)
    }
}
