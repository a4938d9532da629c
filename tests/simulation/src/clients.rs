//! Clients: each does one thing at a time on some node, and remembers what came of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_engine::machine::Outcome;
use quorate_engine::session::Consistency;
use quorate_engine::{Code, Failure};
use quorate_linear::linear::{Act, Operation};
use quorate_linear::rng::Rng;

use crate::command::{Answer, Ask, Deed, hash};
use crate::host::Host;
use crate::invariants::Violation;
use crate::invariants::answered_once::Ticket;
use crate::invariants::linearizable::Histories;
use crate::invariants::lists::Lists;
use crate::machine::Registers;
use crate::plan::Plan;
use crate::world::{Happening, Seen, Shared, World};

/// Lists have keys from here on.
const LISTS_FROM: u32 = 1_000;
/// How many lists there are.
const LISTS: u64 = 2;

#[derive(Clone, Copy)]
struct Write {
    client: Option<usize>,
    ask: Ask,
    body: u64,
    call: u64,
}

#[derive(Clone, Copy)]
struct Reading {
    client: Option<usize>,
    node: usize,
    life: u64,
    key: u32,
    call: u64,
}

struct Client {
    rng: Rng,
    node: usize,
    idle_from: u64,
    busy: bool,
    seen: BTreeMap<u32, u32>,
}

/// What clients did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes accepted by a node.
    pub writes: u64,
    /// Writes acknowledged.
    pub acknowledged: u64,
    /// Writes of which nobody knows.
    pub unknown: u64,
    /// Writes that failed for certain.
    pub failed: u64,
    /// Reads that were answered.
    pub reads: u64,
}

/// See the module.
pub struct Clients {
    all: Vec<Client>,
    next: u64,
    writes: BTreeMap<Ticket, Write>,
    reads: BTreeMap<u64, Reading>,
    histories: Histories,
    lists: Lists,
    patience: Duration,
    think_ms: u64,
    padding: u64,
    registers: u64,
    nodes: usize,
    rng: Rng,
    /// What they did.
    pub counts: Counts,
}

impl Clients {
    /// The clients of `plan`.
    pub fn new(plan: &Plan) -> Clients {
        let rng = Rng::new(plan.seed).split(11);
        let client = |number: usize| Client {
            rng: rng.split(number as u64),
            node: number % plan.founders,
            idle_from: 0,
            busy: false,
            seen: BTreeMap::new(),
        };
        Clients {
            all: (0..plan.clients).map(client).collect(),
            next: 1,
            writes: BTreeMap::new(),
            reads: BTreeMap::new(),
            histories: Histories::default(),
            lists: Lists::default(),
            patience: Duration::from_millis(plan.patience_ms),
            think_ms: plan.think_ms,
            padding: plan.padding,
            registers: plan.registers.into(),
            nodes: plan.hosts.len(),
            rng: rng.split(1_000),
            counts: Counts::default(),
        }
    }

    /// Whoever is idle and means `host` asks it something.
    pub fn act(&mut self, now: u64, host: &Host, shared: &Shared) {
        for number in 0..self.all.len() {
            let client = &mut self.all[number];
            if client.busy || client.idle_from > now || client.node != host.index {
                continue;
            }
            let rng = &mut client.rng;
            let key = match rng.chance(25) {
                true => LISTS_FROM + rng.below(LISTS) as u32,
                false => 1 + rng.below(self.registers) as u32,
            };
            match rng.below(100) {
                0..25 => self.read(Some(number), key, Consistency::Linearizable, host, shared),
                25..35 => self.read(Some(number), key, Consistency::Lease, host, shared),
                what => self.write(Some(number), key, what < 55, now, host, shared),
            }
        }
    }

    /// Has `host` write something for nobody, to see whether it can. Returns the ticket; fails as the node does.
    pub fn probe(&mut self, now: u64, host: &Host, shared: &Shared) {
        self.write(None, LISTS_FROM, false, now, host, shared);
    }

    /// Whether a write that nobody waits for is under way on `node`.
    pub fn is_probing(&self, node: usize) -> bool {
        self.writes.iter().any(|(ticket, write)| ticket.node == node && write.client.is_none())
    }

    /// Reads everything on `host`.
    pub fn read_all(&mut self, host: &Host, shared: &Shared) {
        let lists = (0..LISTS as u32).map(|list| LISTS_FROM + list);
        for key in (1..=self.registers as u32).chain(lists) {
            self.read(None, key, Consistency::Linearizable, host, shared);
        }
    }

    /// Whether reads that nobody waits for are under way.
    pub fn is_reading(&self) -> bool {
        self.reads.values().any(|read| read.client.is_none())
    }

    fn write(&mut self, client: Option<usize>, key: u32, compare: bool, now: u64, host: &Host, shared: &Shared) {
        let (id, value) = (self.next, self.next as u32);
        self.next += 1;
        let expected = client.and_then(|number| self.all[number].seen.get(&key).copied()).unwrap_or(0);
        let deed = match (key >= LISTS_FROM, compare) {
            (true, _) => Deed::Append { key, value },
            (false, true) => Deed::Cas { key, expected, value },
            (false, false) => Deed::Put { key, value },
        };
        let ask = Ask { id, deed };
        let body = ask.encode(self.rng.below(self.padding + 1) as usize);
        let (bytes, patience) = (hash(&body), self.patience);
        let call = shared.lock().stamp();
        let submitted = host.with(|life| (life.number, life.submit(body, patience)));
        let Some((life, Ok(sequence))) = submitted else { return self.free(client, now) };
        let ticket = Ticket { node: host.index, life, sequence };
        self.counts.writes += 1;
        self.writes.insert(ticket, Write { client, ask, body: bytes, call });
        self.occupy(client);
        let mut world = shared.lock();
        world.note(format_args!("n{}", host.index), format_args!("takes {ticket:?} {:?}", ask.deed));
        // Its clock may be slow, and it may stand still; at the end there is time enough.
        let until = now + 2 * patience.as_millis() as u64;
        let holds = world.judge.answered.accepted(ticket, until);
        world.judge.note(holds);
    }

    fn read(&mut self, client: Option<usize>, key: u32, how: Consistency, host: &Host, shared: &Shared) {
        let number = self.next;
        self.next += 1;
        let call = shared.lock().stamp();
        let patience = self.patience;
        let asked = host.with(|life| (life.number, life.node.barrier(how, patience), life.registers.clone()));
        let Some((life, barrier, registers)) = asked else { return };
        self.reads.insert(number, Reading { client, node: host.index, life, key, call });
        self.occupy(client);
        let (shared, power) = (shared.clone(), host.power.clone());
        host.spawn(async move {
            let outcome = barrier.await.map(|_| seen(&registers, key));
            if power.is_on() {
                let mut world = shared.lock();
                let stamp = world.stamp();
                world.happened.push(Happening::Read { number, outcome, stamp });
            }
        });
    }

    /// A write was answered. Returns when (in the order of events) it was asked for.
    pub fn answered(&mut self, ticket: Ticket, outcome: Outcome, stamp: u64, world: &mut World) -> Option<u64> {
        let now = world.now;
        let holds = world.judge.answered.answered(ticket);
        world.judge.note(holds);
        let write = self.writes.remove(&ticket)?;
        self.free(write.client, now);
        match outcome {
            Ok(bytes) => self.acknowledged(ticket, write, &bytes, stamp, world),
            Err(failure) => {
                world.note(format_args!("n{}", ticket.node), format_args!("fails {ticket:?} {:?}", failure.code));
                self.failed(write, &failure, world);
            }
        }
        Some(write.call)
    }

    fn acknowledged(&mut self, ticket: Ticket, write: Write, bytes: &Bytes, stamp: u64, world: &mut World) {
        self.counts.acknowledged += 1;
        let answer = Answer::decode(bytes).ok().filter(|answer| answer.id == write.ask.id);
        let Some(answer) = answer else {
            let what = format!("{ticket:?} was answered with what belongs to another command");
            return world.judge.note(Err(Violation::new("answered_once", what)));
        };
        world.note(
            format_args!("n{}", ticket.node),
            format_args!("acks {ticket:?} at {} {}", answer.index, answer.done),
        );
        world.judge.acknowledged(answer.index, write.body);
        self.done(write, Some(stamp), Some(answer.done));
    }

    fn failed(&mut self, write: Write, failure: &Failure, world: &mut World) {
        // These two promise that the command has no effect.
        if matches!(failure.code, Code::Unavailable | Code::Membership) {
            self.counts.failed += 1;
            world.judge.acknowledged.failed(write.body);
        } else {
            self.unknown(write);
        }
    }

    fn unknown(&mut self, write: Write) {
        self.counts.unknown += 1;
        self.done(write, None, None);
    }

    fn done(&mut self, write: Write, done: Option<u64>, won: Option<bool>) {
        let call = write.call;
        match write.ask.deed {
            Deed::Append { key, value } => self.lists.appended(key, value, call, done),
            Deed::Put { key, value } => self.histories.add(key, Operation { call, done, act: Act::Write(value) }),
            Deed::Cas { key, expected, value } => {
                let act = Act::Cas(expected, value, won);
                self.histories.add(key, Operation { call, done, act });
            }
        }
    }

    /// A read was done, or failed.
    pub fn read_done(&mut self, number: u64, outcome: Result<Seen, Failure>, stamp: u64, world: &mut World) {
        let Some(read) = self.reads.remove(&number) else { return };
        self.free(read.client, world.now);
        let who = format!("n{}", read.node);
        match outcome {
            Ok(seen) => {
                self.counts.reads += 1;
                world.note(who, format_args!("reads {} {seen:?}", read.key));
                self.saw(read, seen, stamp);
            }
            Err(failure) => world.note(who, format_args!("fails to read {} {:?}", read.key, failure.code)),
        }
    }

    fn saw(&mut self, read: Reading, seen: Seen, stamp: u64) {
        match seen {
            Seen::Value(value) => {
                if let Some(client) = read.client {
                    self.all[client].seen.insert(read.key, value);
                }
                let act = Act::Read(value);
                self.histories.add(read.key, Operation { call: read.call, done: Some(stamp), act });
            }
            Seen::List(list) => self.lists.read(read.key, list, read.call, stamp),
        }
    }

    /// A life of a node is over: nothing more comes from it.
    pub fn lost(&mut self, node: usize, life: u64, now: u64) {
        let of = |ticket: &Ticket| (ticket.node, ticket.life) == (node, life);
        let lost: Vec<Ticket> = self.writes.keys().filter(|ticket| of(ticket)).copied().collect();
        for ticket in lost {
            if let Some(write) = self.writes.remove(&ticket) {
                self.free(write.client, now);
                self.unknown(write);
            }
        }
        let gone = |read: &Reading| (read.node, read.life) == (node, life);
        let clients: Vec<Option<usize>> =
            self.reads.values().filter(|read| gone(read)).map(|read| read.client).collect();
        self.reads.retain(|_, read| !gone(read));
        clients.into_iter().for_each(|client| self.free(client, now));
    }

    /// Judges everything that clients saw; gives how many histories were too hard as well. What is still under way is unknown.
    pub fn judge(&mut self, world: &mut World) -> u64 {
        let open: Vec<Write> = std::mem::take(&mut self.writes).into_values().collect();
        open.into_iter().for_each(|write| self.unknown(write));
        let (holds, too_hard) = self.histories.judge();
        world.judge.note(holds);
        world.judge.note(self.lists.judge());
        too_hard
    }

    fn occupy(&mut self, client: Option<usize>) {
        if let Some(number) = client {
            self.all[number].busy = true;
        }
    }

    fn free(&mut self, client: Option<usize>, now: u64) {
        let Some(number) = client else { return };
        let (think_ms, nodes) = (self.think_ms, self.nodes as u64);
        let client = &mut self.all[number];
        client.busy = false;
        client.idle_from = now + client.rng.below(think_ms + 1);
        if client.rng.chance(30) {
            client.node = client.rng.below(nodes) as usize;
        }
    }
}

fn seen(registers: &Arc<Mutex<Registers>>, key: u32) -> Seen {
    let registers = registers.lock();
    if key >= LISTS_FROM { Seen::List(registers.list(key)) } else { Seen::Value(registers.get(key)) }
}
