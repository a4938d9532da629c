//! What is under way on the network.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::task::Waker;

use bytes::Bytes;
use quorate_linear::rng::Rng;
use tokio::sync::oneshot;

use super::pipe::{Item, Pipe};
use super::weather::{Blocked, Weather};

/// How long a connection attempt waits behind a partition, in ms.
const CONNECT_PATIENCE_MS: u64 = 2_000;
/// Until the others notice that a machine lost its power, at most, in ms.
const SILENT_MS: u64 = 1_500;

pub type PipeId = u64;

/// The two pipes of a connection, as one side has them.
pub struct Ends {
    pub reads: PipeId,
    pub writes: PipeId,
    pub remote: usize,
}

/// A connection that is being made.
struct Connecting {
    from: usize,
    to: Option<usize>,
    until: u64,
    answer: oneshot::Sender<io::Result<Ends>>,
}

/// A node that listens.
#[derive(Default)]
pub struct Backlog {
    pub waiting: VecDeque<Ends>,
    pub waker: Option<Waker>,
}

/// A datagram under way.
pub struct Datagram {
    /// Which node sent it.
    pub from: usize,
    /// Which node it is for.
    pub to: usize,
    /// What it carries.
    pub bytes: Bytes,
}

/// What the network did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections made.
    pub connections: u64,
    /// Connections broken on purpose.
    pub resets: u64,
    /// Pieces of streams and datagrams.
    pub messages: u64,
    /// Datagrams lost.
    pub lost: u64,
    /// Datagrams that came twice.
    pub doubled: u64,
    /// Messages that waited behind, or were lost to, a partition.
    pub blocked: u64,
}

/// See the module.
pub struct State {
    pub now: u64,
    rng: Rng,
    pub weather: Weather,
    pub blocked: Blocked,
    names: BTreeMap<String, usize>,
    pub listening: BTreeMap<usize, Backlog>,
    pub pipes: BTreeMap<PipeId, Pipe>,
    busy: BTreeSet<PipeId>,
    next: u64,
    connecting: BTreeMap<(u64, u64), Connecting>,
    datagrams: BTreeMap<(u64, u64), Datagram>,
    pub traffic: Traffic,
}

impl State {
    pub fn new(rng: Rng, names: BTreeMap<String, usize>) -> State {
        State {
            now: 0,
            rng,
            weather: Weather::CALM,
            blocked: Blocked::default(),
            names,
            listening: BTreeMap::new(),
            pipes: BTreeMap::new(),
            busy: BTreeSet::new(),
            next: 1,
            connecting: BTreeMap::new(),
            datagrams: BTreeMap::new(),
            traffic: Traffic::default(),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn due(&mut self) -> u64 {
        self.now + self.weather.delay(&mut self.rng)
    }

    pub fn connect(&mut self, from: usize, address: &str) -> oneshot::Receiver<io::Result<Ends>> {
        let (answer, answered) = oneshot::channel();
        let (due, number) = (self.due(), self.number());
        let to = self.names.get(address).copied();
        let until = self.now + CONNECT_PATIENCE_MS;
        self.connecting.insert((due, number), Connecting { from, to, until, answer });
        answered
    }

    pub fn send(&mut self, pipe: PipeId, item: Item) {
        let due = self.due();
        if let Some(open) = self.pipes.get_mut(&pipe) {
            if let Item::Bytes(bytes) = &item {
                let (now, from, to) = (self.now, open.from, open.to);
                let mark = crate::command::hash(bytes);
                tracing::trace!(target: "simulation", "{now} {from} -> {to}: {} bytes {mark:x} on {pipe} due {due}", bytes.len());
            }
            self.traffic.messages += u64::from(matches!(item, Item::Bytes(_)));
            open.send(due, item);
            self.busy.insert(pipe);
        }
    }

    pub fn send_datagram(&mut self, from: usize, to: &str, bytes: Bytes) -> bool {
        let Some(to) = self.names.get(to).copied() else { return false };
        self.traffic.messages += 1;
        if self.blocked.is(from, to) {
            self.traffic.blocked += 1;
            return true;
        }
        if self.rng.chance(self.weather.lost) {
            self.traffic.lost += 1;
            return true;
        }
        let copies = 1 + u64::from(self.rng.chance(self.weather.doubled));
        self.traffic.doubled += copies - 1;
        for _ in 0..copies {
            let (due, number) = (self.due(), self.number());
            self.datagrams.insert((due, number), Datagram { from, to, bytes: bytes.clone() });
        }
        true
    }

    /// Hands over what is due; who has to be woken goes to `wake`.
    pub fn deliver(&mut self, wake: &mut Vec<Waker>) {
        self.make_connections(wake);
        let busy: Vec<PipeId> = self.busy.iter().copied().collect();
        for id in busy {
            let Some(pipe) = self.pipes.get_mut(&id) else {
                self.busy.remove(&id);
                continue;
            };
            if self.blocked.is(pipe.from, pipe.to) {
                self.traffic.blocked += 1;
                continue;
            }
            pipe.deliver(self.now, wake);
            if !pipe.is_busy() {
                self.busy.remove(&id);
            }
        }
    }

    /// The datagrams that are due.
    pub fn arrivals(&mut self) -> Vec<Datagram> {
        let later = self.datagrams.split_off(&(self.now + 1, 0));
        let due = std::mem::replace(&mut self.datagrams, later);
        due.into_values().collect()
    }

    fn make_connections(&mut self, wake: &mut Vec<Waker>) {
        let later = self.connecting.split_off(&(self.now + 1, 0));
        let due = std::mem::replace(&mut self.connecting, later);
        for ((_, number), attempt) in due {
            let Some(to) = attempt.to else {
                // Who asked may be gone.
                drop(attempt.answer.send(Err(io::ErrorKind::AddrNotAvailable.into())));
                continue;
            };
            if self.blocked.is(attempt.from, to) || self.blocked.is(to, attempt.from) {
                if self.now >= attempt.until {
                    drop(attempt.answer.send(Err(io::ErrorKind::TimedOut.into())));
                } else {
                    self.connecting.insert((self.now + 1, number), attempt);
                }
                continue;
            }
            self.make(attempt, to, wake);
        }
    }

    fn make(&mut self, attempt: Connecting, to: usize, wake: &mut Vec<Waker>) {
        if !self.listening.contains_key(&to) {
            drop(attempt.answer.send(Err(io::ErrorKind::ConnectionRefused.into())));
            return;
        }
        let (there, back) = (self.number(), self.number());
        self.pipes.insert(there, Pipe::new(attempt.from, to));
        self.pipes.insert(back, Pipe::new(to, attempt.from));
        self.traffic.connections += 1;
        if let Some(backlog) = self.listening.get_mut(&to) {
            backlog.waiting.push_back(Ends { reads: there, writes: back, remote: attempt.from });
            wake.extend(backlog.waker.take());
        }
        let ends = Ends { reads: back, writes: there, remote: to };
        if attempt.answer.send(Ok(ends)).is_err() {
            self.pipes.remove(&back);
            self.send(there, Item::End);
        }
    }

    /// The process of `node` is gone. With the machine's power gone too, the others notice later.
    pub fn kill(&mut self, node: usize, power_cut: bool, wake: &mut Vec<Waker>) {
        self.listening.remove(&node);
        self.connecting.retain(|_, attempt| attempt.from != node);
        let silent = if power_cut { self.rng.below(SILENT_MS) } else { 0 };
        let mine: Vec<PipeId> =
            self.pipes.iter().filter(|(_, pipe)| pipe.from == node || pipe.to == node).map(|(id, _)| *id).collect();
        for id in mine {
            let due = self.due() + silent;
            let Some(pipe) = self.pipes.get_mut(&id) else { continue };
            if pipe.to == node {
                pipe.reader_gone(wake);
            } else {
                pipe.send(due, Item::Reset);
                self.busy.insert(id);
            }
        }
        // What the other side still sends goes nowhere.
        self.pipes.retain(|_, pipe| pipe.to != node);
        self.busy.retain(|id| self.pipes.contains_key(id));
    }

    /// Breaks every connection between `one` and `other`.
    pub fn reset(&mut self, one: usize, other: usize, wake: &mut Vec<Waker>) {
        for pipe in self.pipes.values_mut() {
            if (pipe.from, pipe.to) == (one, other) || (pipe.from, pipe.to) == (other, one) {
                pipe.reset(wake);
                self.traffic.resets += 1;
            }
        }
    }

    /// The reader of `pipe` is gone.
    pub fn reader_gone(&mut self, pipe: PipeId, wake: &mut Vec<Waker>) {
        if let Some(mut gone) = self.pipes.remove(&pipe) {
            gone.reader_gone(wake);
        }
    }
}
