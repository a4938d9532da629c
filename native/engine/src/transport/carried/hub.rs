//! All connections of one node over the host's transport, and what happens to each when a datagram or a deadline comes.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::error::Failure;
use crate::limits::{CARRIED_BACKLOG, CARRIED_CONNECTIONS_MAX};
use crate::surroundings::random_u64;

use super::connection::{Connection, Key, State};
use super::datagram::{Datagram, Packet, decode, encode};
use super::halves::halves;
use super::receiving::WINDOW_FIRST;
use crate::transport::wire::Duplex;

/// Hands a datagram for the server of that name to whoever carries it; false when it was dropped.
pub type Carrier = dyn Fn(&str, &[u8]) -> bool + Send + Sync;

/// Looked at no less often than this.
const LOOK: Duration = Duration::from_secs(1);

/// What went through, in numbers.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub sent: AtomicU64,
    pub dropped: AtomicU64,
    pub received: AtomicU64,
    pub rubbish: AtomicU64,
}

#[derive(Default)]
struct Table {
    connections: BTreeMap<Key, Arc<Connection>>,
    backlog: Option<mpsc::Sender<Duplex>>,
    closed: bool,
}

/// See the module.
pub(super) struct Hub {
    name: String,
    carrier: Box<Carrier>,
    table: Mutex<Table>,
    /// When `run` looks next.
    look_at: Mutex<Instant>,
    bell: Notify,
    pub counters: Counters,
}

impl Hub {
    pub(super) fn new(name: String, carrier: Box<Carrier>) -> Hub {
        Hub {
            name,
            carrier,
            table: Mutex::default(),
            look_at: Mutex::new(Instant::now()),
            bell: Notify::new(),
            counters: Counters::default(),
        }
    }

    /// Serves deadlines. Runs until dropped.
    pub(super) async fn run(&self) {
        loop {
            let next = self.look(Instant::now());
            // Either is done with in no time: the order does not matter.
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(next) => {}
                () = self.bell.notified() => {}
            }
        }
    }

    /// Does what is due; returns when to look again.
    fn look(&self, now: Instant) -> Instant {
        *self.look_at.lock() = now + LOOK;
        let all: Vec<Arc<Connection>> = self.table.lock().connections.values().cloned().collect();
        for connection in all {
            let due = connection.lock().deadline();
            let due = match due {
                Some(due) if due > now => Some(due),
                _ => self.work_on(&connection, |_, _| ()).1,
            };
            // Without the bell: it is for others than this very look.
            let mut look_at = self.look_at.lock();
            *look_at = due.map_or(*look_at, |due| due.min(*look_at));
        }
        *self.look_at.lock()
    }

    fn schedule(&self, due: Instant) {
        let mut look_at = self.look_at.lock();
        if due < *look_at {
            *look_at = due;
            drop(look_at);
            self.bell.notify_one();
        }
    }

    /// Does something to a connection, then sends what follows of it.
    pub(super) fn step<T>(&self, connection: &Arc<Connection>, work: impl FnOnce(&mut State, Instant) -> T) -> T {
        let (done, due) = self.work_on(connection, work);
        if let Some(due) = due {
            self.schedule(due);
        }
        done
    }

    /// [`Hub::step`], with the connection's next deadline, which is not seen to.
    fn work_on<T>(
        &self,
        connection: &Arc<Connection>,
        work: impl FnOnce(&mut State, Instant) -> T,
    ) -> (T, Option<Instant>) {
        let now = Instant::now();
        let mut state = connection.lock();
        let done = work(&mut state, now);
        let packets = state.packets(now);
        let (due, ended) = (state.deadline(), state.has_ended());
        drop(state);
        for packet in &packets {
            self.send(&connection.key, packet);
        }
        if ended {
            self.table.lock().connections.remove(&connection.key);
        }
        (done, due)
    }

    fn send(&self, key: &Key, packet: &Packet) {
        let datagram = encode(&self.name, &key.peer, key.number, packet);
        let counter = match (self.carrier)(&key.peer, &datagram) {
            true => &self.counters.sent,
            false => &self.counters.dropped,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes in what a host delivered. Fails with `Invalid` for what is no datagram for this server.
    pub(super) fn deliver(self: &Arc<Hub>, datagram: Bytes) -> Result<(), Failure> {
        match decode(datagram).and_then(|datagram| self.addressed(datagram)) {
            Ok((key, packet)) => {
                self.counters.received.fetch_add(1, Ordering::Relaxed);
                self.dispatch(key, packet);
                Ok(())
            }
            Err(failure) => {
                self.counters.rubbish.fetch_add(1, Ordering::Relaxed);
                Err(failure)
            }
        }
    }

    fn addressed(&self, datagram: Datagram) -> Result<(Key, Packet), Failure> {
        let Datagram { from, to, connection, packet } = datagram;
        if to != self.name || from == self.name {
            let message = format!("A datagram from {from:?} to {to:?} was delivered to the server {:?}.", self.name);
            return Err(Failure::invalid(message));
        }
        Ok((Key { peer: from, number: connection }, packet))
    }

    fn dispatch(self: &Arc<Hub>, key: Key, packet: Packet) {
        let known = self.table.lock().connections.get(&key).cloned();
        match (known, packet) {
            (Some(connection), packet) => self.take(&connection, packet),
            (None, Packet::Open { window }) => self.accept(key, window),
            (None, Packet::Reset) => {}
            (None, _) => self.send(&key, &Packet::Reset),
        }
    }

    fn take(&self, connection: &Arc<Connection>, packet: Packet) {
        let repeated = matches!(packet, Packet::Open { .. });
        let data = matches!(packet, Packet::Data { .. });
        let unwanted = self.step(connection, |state, now| {
            let unwanted = data && state.is_unwanted();
            state.take(packet, now);
            unwanted && state.is_unwanted()
        });
        if unwanted {
            self.abort(connection);
        } else if repeated {
            self.send(&connection.key, &Packet::Accept { window: WINDOW_FIRST });
        }
    }

    /// Takes a connection in, when somebody listens; without room for it the peer asks again.
    fn accept(self: &Arc<Hub>, key: Key, window: u32) {
        let mut table = self.table.lock();
        let Some(backlog) = table.backlog.clone().filter(|backlog| !backlog.is_closed()) else {
            drop(table);
            return self.send(&key, &Packet::Reset);
        };
        let Ok(place) = backlog.try_reserve() else { return };
        if table.connections.len() >= CARRIED_CONNECTIONS_MAX || table.connections.contains_key(&key) {
            return;
        }
        let connection = Arc::new(Connection::new(key.clone(), State::new(Some(window), Instant::now())));
        table.connections.insert(key.clone(), connection.clone());
        drop(table);
        self.send(&key, &Packet::Accept { window: WINDOW_FIRST });
        self.step(&connection, |_, _| ());
        place.send(self.duplex(connection));
    }

    /// Both halves of `connection`, for the transport.
    pub(super) fn duplex(self: &Arc<Hub>, connection: Arc<Connection>) -> Duplex {
        let remote = connection.key.peer.clone();
        let (reader, writer) = halves(self, connection);
        Duplex { reader: Box::new(reader), writer: Box::new(writer), remote }
    }

    /// A connection to `peer` that is to be opened.
    pub(super) fn attempt(&self, peer: &str) -> io::Result<Arc<Connection>> {
        let number = random_u64().map_err(io::Error::from)?;
        let key = Key { peer: peer.to_owned(), number };
        let connection = Arc::new(Connection::new(key.clone(), State::new(None, Instant::now())));
        let mut table = self.table.lock();
        if table.closed {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "this node is closed"));
        }
        if table.connections.len() >= CARRIED_CONNECTIONS_MAX {
            return Err(io::Error::other(format!("{CARRIED_CONNECTIONS_MAX} connections are open")));
        }
        table.connections.insert(key, connection.clone());
        Ok(connection)
    }

    /// Ends `connection` at once and tells the peer.
    pub(super) fn abort(&self, connection: &Arc<Connection>) {
        self.step(connection, |state, _| state.end(io::ErrorKind::ConnectionAborted, "it was given up"));
        self.send(&connection.key, &Packet::Reset);
    }

    /// Begins to accept. Fails with `AddrInUse` when somebody does already.
    pub(super) fn listen(&self) -> io::Result<mpsc::Receiver<Duplex>> {
        let mut table = self.table.lock();
        if table.backlog.as_ref().is_some_and(|backlog| !backlog.is_closed()) {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens already"));
        }
        let (backlog, accepted) = mpsc::channel(CARRIED_BACKLOG);
        table.backlog = Some(backlog);
        Ok(accepted)
    }

    /// Ends every connection, telling the peers; there will be no more.
    pub(super) fn close(&self) {
        let mut table = self.table.lock();
        table.closed = true;
        table.backlog = None;
        let all: Vec<Arc<Connection>> = std::mem::take(&mut table.connections).into_values().collect();
        drop(table);
        all.iter().for_each(|connection| self.abort(connection));
    }

    pub(super) fn connections(&self) -> usize {
        self.table.lock().connections.len()
    }
}
