//! Byte streams over datagrams that the *host* carries: the transport of users who bring their own network.
//!
//! The engine hands datagrams out and is handed those that arrive. They may be lost, doubled, late and in any order;
//! each connection puts its two streams in order again, sends again what is missing, and ends with an error when the
//! peer is silent. The address of a server is its name. What arrives is checked (version, checksum, addressee) before it is
//! believed. Everything held is bounded: per connection a window each way, and the number of connections.
//!
//! The retransmission is our own and small. The `kcp` crate was looked at: it numbers datagrams in 32 bits with unchecked
//! arithmetic, asserts on what it is fed, asks a closed window for room only every seven seconds, and would leave opening,
//! ending and liveness to us all the same.
//!
//! While the host stands still (a stopped JVM, say), nothing is carried: heartbeats stop, and an election may follow.

mod connection;
mod datagram;
mod halves;
mod hub;
mod receiving;
mod sending;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use crate::error::Failure;

pub use hub::Carrier;

use self::halves::opened;
use self::hub::Hub;
use super::wire::{Duplex, Listener, Wire};

/// What went through a [`Carried`] wire so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CarriedStats {
    /// Datagrams handed to the carrier.
    pub sent: u64,
    /// Datagrams that the carrier did not take.
    pub dropped: u64,
    /// Datagrams taken in.
    pub received: u64,
    /// What was delivered and was no datagram for this node.
    pub rubbish: u64,
    /// Connections at present.
    pub connections: usize,
}

/// A [`Wire`] over a host's transport. Clones share it.
#[derive(Clone)]
pub struct Carried(Arc<Hub>);

impl Carried {
    /// For the server `name`; `carrier` is asked to carry each datagram, must not block, and may drop it.
    pub fn new(name: impl Into<String>, carrier: Box<Carrier>) -> Carried {
        Carried(Arc::new(Hub::new(name.into(), carrier)))
    }

    /// Sends again what is lost, and notices who is silent. Runs until dropped; without it nothing heals.
    pub async fn run(&self) {
        self.0.run().await;
    }

    /// Takes in a datagram from another server's carrier; on any thread, never blocks. Fails with `Invalid` for what is no
    /// datagram for this server: it is dropped and counted.
    pub fn deliver(&self, datagram: Bytes) -> Result<(), Failure> {
        self.0.deliver(datagram)
    }

    /// Ends every connection and tells the peers.
    pub fn close(&self) {
        self.0.close();
    }

    /// Counts of datagrams and connections.
    pub fn stats(&self) -> CarriedStats {
        let counters = &self.0.counters;
        CarriedStats {
            sent: counters.sent.load(Ordering::Relaxed),
            dropped: counters.dropped.load(Ordering::Relaxed),
            received: counters.received.load(Ordering::Relaxed),
            rubbish: counters.rubbish.load(Ordering::Relaxed),
            connections: self.0.connections(),
        }
    }
}

impl Wire for Carried {
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Duplex>> {
        let (hub, address) = (self.0.clone(), address.to_owned());
        Box::pin(async move {
            let connection = hub.attempt(&address)?;
            let (reader, writer) = opened(&hub, connection).await?;
            Ok(Duplex { reader: Box::new(reader), writer: Box::new(writer), remote: address })
        })
    }

    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let (hub, address) = (self.0.clone(), address.to_owned());
        Box::pin(async move {
            let accepted = hub.listen()?;
            Ok(Box::new(CarriedListener { address, accepted }) as Box<dyn Listener>)
        })
    }
}

struct CarriedListener {
    address: String,
    accepted: mpsc::Receiver<Duplex>,
}

impl Listener for CarriedListener {
    fn address(&self) -> String {
        self.address.clone()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Duplex>> {
        Box::pin(async move {
            match self.accepted.recv().await {
                Some(connection) => Ok(connection),
                // Closed: there will be no more.
                None => std::future::pending().await,
            }
        })
    }
}
