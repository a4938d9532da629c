//! The side of the transport that connects to others.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{Duration, Instant, timeout, timeout_at};

use crate::error::{Code, Failure};
use crate::limits::PEERS_MAX;

use super::frame::{FrameReader, FrameSink, failure_in};
use super::handshake::{Host, Identity, Purpose, introduce};
use super::slot::Slot;
use super::wire::{Tcp, Wire};

/// What is known of the node at one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStats {
    /// The address, `host:port`.
    pub address: String,
    /// The Raft id of the node that answered there last.
    pub node: Option<u64>,
    /// Its name.
    pub name: Option<String>,
    /// Whether a connection to it is open, for calls or for appends.
    pub connected: bool,
    /// The last thing that went wrong with it, as a sentence; stays when all is well again.
    pub last_error: Option<String>,
    /// Smoothed round-trip time of the transport's own messages and of heartbeats, in microseconds.
    pub round_trip_us: Option<u64>,
    /// Bytes of the snapshot that is being sent there: sent so far, and in all.
    pub snapshot: Option<(u64, u64)>,
}

/// Makes connections and introduces this node over them.
pub(super) struct Dialer {
    wire: Arc<dyn Wire>,
    identity: Box<dyn Fn() -> Identity + Send + Sync>,
}

impl Dialer {
    pub(super) fn identity(&self) -> Identity {
        (self.identity)()
    }

    /// Connects to `address` and introduces `mine`, all within the time given. Fails with `Unavailable`, `Timeout` or
    /// what the handshake fails with.
    pub(super) async fn connect(
        &self,
        address: &str,
        mine: &Identity,
        to: Option<u64>,
        purpose: Purpose,
        within: Duration,
    ) -> Result<(FrameReader, FrameSink, Host), Failure> {
        let deadline = Instant::now() + within;
        let connection = match timeout_at(deadline, self.wire.connect(address)).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                if let Some(refusal) = failure_in(&error) {
                    return Err(refusal.clone());
                }
                return Err(Failure::new(Code::Unavailable, format!("Cannot connect to {address}: {error}.")));
            }
            Err(_) => return Err(no_answer(address, within)),
        };
        introduce(connection, mine, to, purpose, deadline.saturating_duration_since(Instant::now())).await
    }
}

/// Connections to other nodes, made when they are needed and kept. Clones share them.
#[derive(Clone)]
pub struct Peers {
    shared: Arc<SharedPeers>,
}

struct SharedPeers {
    dialer: Arc<Dialer>,
    /// `None` once closed.
    slots: Mutex<Option<BTreeMap<String, Arc<Slot>>>>,
}

impl Peers {
    /// Connects over TCP as the node that `identity` describes, asked for at every handshake.
    pub fn new(identity: impl Fn() -> Identity + Send + Sync + 'static) -> Peers {
        Peers::over(Arc::new(Tcp), identity)
    }

    /// [`Peers::new`] over any `wire`.
    pub fn over(wire: Arc<dyn Wire>, identity: impl Fn() -> Identity + Send + Sync + 'static) -> Peers {
        let dialer = Arc::new(Dialer { wire, identity: Box::new(identity) });
        Peers { shared: Arc::new(SharedPeers { dialer, slots: Mutex::new(Some(BTreeMap::new())) }) }
    }

    /// Who this node is now.
    pub fn identity(&self) -> Identity {
        self.dialer().identity()
    }

    /// Asks the node at `address` (when `to` is given: only that node) and waits at most `within` for its answer.
    /// Calls to one address share a connection and do not wait for each other. Fails with what the other node's
    /// service failed with, or with
    /// `Unavailable`: no connection, or it broke; whether the call took effect is not known then, except that right
    /// after a failed attempt the next calls fail at once without trying;
    /// `Timeout`: no answer in time, likewise;
    /// `Refused`: another cluster, another node than `to`, another protocol;
    /// `TooLarge`: the body does not fit into a frame; `Closed`: [`Peers::close`] was called.
    pub async fn call(
        &self,
        address: &str,
        to: Option<u64>,
        kind: u8,
        body: Bytes,
        within: Duration,
    ) -> Result<Bytes, Failure> {
        let slot = self.slot(address)?;
        let call = async {
            let link = slot.link(self.dialer(), to, kind).await?;
            let host = link.host();
            match to {
                Some(to) if to != host.node => Err(wrong_node(address, &host.name, host.node, to)),
                _ => link.call(kind, body).await,
            }
        };
        timeout(within, call).await.unwrap_or_else(|_| Err(no_answer(address, within)))
    }

    /// What is known of every address that was ever called, ordered by address.
    pub fn stats(&self) -> Vec<PeerStats> {
        let slots = self.shared.slots.lock();
        slots.iter().flat_map(BTreeMap::values).map(|slot| slot.stats()).collect()
    }

    /// Ends the connection for calls with `address` and forgets what was known of it; for a member that was removed.
    pub fn forget(&self, address: &str) {
        let slot = self.shared.slots.lock().as_mut().and_then(|slots| slots.remove(address));
        if let Some(slot) = slot {
            slot.close();
        }
    }

    /// Ends every connection for calls; whoever waits for an answer gets `Unavailable`, later calls `Closed`. Streams
    /// end when their owners drop them.
    pub fn close(&self) {
        let slots = self.shared.slots.lock().take();
        slots.into_iter().flatten().for_each(|(_, slot)| slot.close());
    }

    pub(super) fn dialer(&self) -> &Arc<Dialer> {
        &self.shared.dialer
    }

    /// The slot of `address`; makes one when there is none. Fails with `Closed`, and with `Overloaded` when
    /// [`PEERS_MAX`] addresses are in use.
    pub(super) fn slot(&self, address: &str) -> Result<Arc<Slot>, Failure> {
        let mut slots = self.shared.slots.lock();
        let slots = slots.as_mut().ok_or_else(Failure::closed)?;
        if let Some(slot) = slots.get(address) {
            return Ok(slot.clone());
        }
        if slots.len() >= PEERS_MAX {
            slots.retain(|_, slot| !slot.idle());
        }
        if slots.len() >= PEERS_MAX {
            let message = format!("Connections to {PEERS_MAX} addresses are open, {address} would be one more.");
            return Err(Failure::new(Code::Overloaded, message));
        }
        let slot = Arc::new(Slot::new(address));
        slots.insert(address.to_owned(), slot.clone());
        Ok(slot)
    }
}

fn no_answer(address: &str, within: Duration) -> Failure {
    Failure::new(Code::Timeout, format!("{address} did not answer within {} ms.", within.as_millis()))
}

fn wrong_node(address: &str, name: &str, id: u64, wanted: u64) -> Failure {
    let message = format!("At {address} answers node \"{name}\" ({id:x}), not the node {wanted:x} that was meant.");
    Failure::new(Code::Refused, message)
}
