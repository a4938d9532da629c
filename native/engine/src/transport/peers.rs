//! The side of the transport that connects to others.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{Duration, timeout};

use crate::error::{Code, Failure};
use crate::limits::PEERS_MAX;

use super::dialer::{Dialer, no_answer};
use super::handshake::Identity;
use super::slot::{PeerStats, Slot};
use super::wire::{Tcp, Wire};

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
        let dialer = Arc::new(Dialer::new(wire, Box::new(identity)));
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

fn wrong_node(address: &str, name: &str, id: u64, wanted: u64) -> Failure {
    let message = format!("At {address} answers node \"{name}\" ({id:x}), not the node {wanted:x} that was meant.");
    Failure::new(Code::Refused, message)
}
