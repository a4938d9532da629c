//! How nodes talk: connections with a handshake, calls, append streams, snapshots. Knows nothing of consensus.
//!
//! Everything runs on the tokio runtime that it is called on; nothing blocks a thread. A node has one [`Transport`] that
//! others connect to, served by its [`Service`], and one [`Peers`] that connects to others. A connection has one
//! [`Purpose`]: `Calls` carries many requests at a time, so a slow one holds up none; append streams and snapshots
//! have connections of their own, so that neither waits behind the other.

mod append;
mod backoff;
pub mod carried;
mod dialer;
mod frame;
mod handshake;
mod link;
mod peers;
mod segments;
mod serve;
mod server;
mod service;
mod slot;
mod snapshot;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
pub mod tls;
mod warnings;
pub mod wire;

pub use append::{AppendReceiver, AppendSender};
pub use handshake::{Identity, PROTOCOL_MAX, PROTOCOL_MIN, Peer, Purpose};
pub use peers::Peers;
pub use server::{Transport, TransportOptions};
pub use service::Service;
pub use slot::PeerStats;

/// Calls of a kind below this are introductions, served to nodes that have not joined the cluster yet; calls from
/// here on are for members of the same cluster only.
pub const MEMBER_CALLS_FROM: u8 = 16;
