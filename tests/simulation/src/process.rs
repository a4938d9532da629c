//! The host process of a hosted machine, as a JVM would be one: it polls records and applies them to the same state as the other
//! runs, acknowledges late and in pieces, stands still for a while, writes and installs snapshots late, or not at all. It has
//! nothing that survives it.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_engine::codec::Reader;
use quorate_engine::hosted::{Bounds, host_failure};
use quorate_engine::machine::Outcome;
use quorate_engine::node::Node;
use quorate_engine::session::Polled;
use quorate_engine::{CommandId, Failure};
use quorate_linear::rng::Rng;

use crate::chance::NodeDelays;
use crate::command::{Answer, Ask, hash};
use crate::invariants::Violation;
use crate::invariants::same_everywhere::Step;
use crate::machine::Registers;
use crate::world::{Happening, Shared, World};

/// Kinds of records (see `quorate_engine::records`).
const ENTRY: u8 = 1;
const SNAPSHOT: u8 = 2;
const INSTALL: u8 = 3;
const CLOSED: u8 = 4;

/// How the host processes of a run behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hosting {
    /// Commands that a host may have unacknowledged.
    pub window: usize,
    /// The most records that it works off in one step.
    pub most: u64,
    /// How often it stands still, in a thousand steps.
    pub pauses: u64,
    /// For how long at most, in ms.
    pub pause_ms: u64,
    /// How long snapshots and installations take at most, in ms.
    pub snapshot_ms: u64,
    /// How many of them fail, in a hundred.
    pub refused: u64,
    /// How many snapshots are never answered, in a hundred.
    pub forgotten: u64,
    /// After how long the engine gives a snapshot up, in ms.
    pub timeout_ms: u64,
}

impl Hosting {
    /// The bound of the engine's hand-over.
    pub fn bounds(&self) -> Bounds {
        Bounds { commands: self.window, ..Bounds::default() }
    }
}

/// Who waits in the host process for the outcome of a command, and what the engine answered by itself.
#[derive(Debug, Default)]
pub struct Waiters {
    open: BTreeMap<u64, bool>,
}

impl Waiters {
    /// A command was accepted under `sequence`.
    pub fn expect(&mut self, sequence: u64) {
        self.open.insert(sequence, true);
    }

    /// The host has a result; true when somebody waits for it.
    fn applied(&mut self, sequence: u64) -> bool {
        self.open.get_mut(&sequence).is_some_and(std::mem::take)
    }

    /// The engine answered; true when somebody waits for it. It may not do so twice.
    fn completed(&mut self, sequence: u64) -> Result<bool, Violation> {
        match self.open.remove(&sequence) {
            Some(waits) => Ok(waits),
            None => Err(Violation::new("answered_once", format!("{sequence} was completed twice, or never accepted"))),
        }
    }
}

/// See [`Waiters`]; shared with the observer.
pub type SharedWaiters = Arc<Mutex<Waiters>>;

/// Of `outcomes`, which the engine completed, those that somebody waits for.
pub fn awaited(waiters: &SharedWaiters, mut outcomes: Vec<(u64, Outcome)>, world: &mut World) -> Vec<(u64, Outcome)> {
    let mut waiters = waiters.lock();
    outcomes.retain(|(sequence, _)| {
        let waits = waiters.completed(*sequence);
        let awaited = waits == Ok(true);
        world.judge.note(waits.map(drop));
        awaited
    });
    outcomes
}

/// Something that the host has still to do for the engine.
struct Task {
    due: u64,
    ticket: u64,
    path: String,
    work: Work,
}

enum Work {
    Write(Registers),
    Install(u64),
    Fail,
}

/// What a process is told about its surroundings.
pub struct Place {
    /// Which host.
    pub node: usize,
    /// In which life.
    pub life: u64,
    /// Who is told.
    pub shared: Shared,
    /// How slow it is.
    pub delays: Arc<NodeDelays>,
    /// Its machine fails as long as this is true.
    pub broken: Arc<AtomicBool>,
}

/// See the module.
pub struct Process {
    place: Place,
    hosting: Hosting,
    rng: Rng,
    registers: Arc<Mutex<Registers>>,
    waiters: SharedWaiters,
    polled: VecDeque<Bytes>,
    acknowledged: u64,
    buffer: Vec<u8>,
    writing: Vec<Task>,
    installing: Option<Task>,
    still_until: u64,
}

impl Process {
    /// A process with an empty state.
    pub fn new(place: Place, hosting: Hosting, rng: Rng) -> Process {
        Process {
            place,
            hosting,
            rng,
            registers: Arc::default(),
            waiters: Arc::default(),
            polled: VecDeque::new(),
            acknowledged: 0,
            buffer: vec![0; 64],
            writing: Vec::new(),
            installing: None,
            still_until: 0,
        }
    }

    /// Its state.
    pub fn registers(&self) -> &Arc<Mutex<Registers>> {
        &self.registers
    }

    /// Who waits for outcomes.
    pub fn waiters(&self) -> &SharedWaiters {
        &self.waiters
    }

    /// From now on it does what it is asked for, at once.
    pub fn calm(&mut self) {
        (self.hosting.pauses, self.hosting.refused, self.hosting.forgotten) = (0, 0, 0);
        self.still_until = 0;
    }

    /// What it does in a step of time, for the `node` of its life.
    pub fn turn(&mut self, now: u64, node: &Node) {
        self.finish(now, node);
        if self.rng.below(1_000) < self.hosting.pauses {
            self.still_until = now + self.rng.below(self.hosting.pause_ms + 1);
        }
        if now < self.still_until || self.place.delays.is_stuck() {
            return;
        }
        for _ in 0..1 + self.rng.below(self.hosting.most) {
            if self.installing.is_some() || !self.step(now, node) {
                return;
            }
        }
    }

    /// Works off one record, if there is one.
    fn step(&mut self, now: u64, node: &Node) -> bool {
        if self.polled.is_empty() {
            self.poll(node);
        }
        let Some(record) = self.polled.pop_front() else { return false };
        if let Err(failure) = self.take(now, Reader::new(record)) {
            self.violated(format!("a record cannot be read: {failure}"));
        }
        true
    }

    fn poll(&mut self, node: &Node) {
        // As much of what is applied as it likes to say now.
        let applied = self.registers.lock().index;
        let owed = applied.saturating_sub(self.acknowledged);
        self.acknowledged += if self.rng.chance(50) { owed } else { self.rng.below(owed + 1) };
        match node.poll_host(&mut self.buffer, self.acknowledged, Duration::ZERO) {
            Polled::Closed => {}
            Polled::NeedsBytes(bytes) => self.buffer = vec![0; bytes],
            Polled::Bytes(bytes) => {
                let mut records = Reader::new(Bytes::copy_from_slice(&self.buffer[..bytes]));
                while records.remaining() > 0 {
                    match records.bytes() {
                        Ok(record) => self.polled.push_back(record),
                        Err(failure) => return self.violated(format!("records cannot be read: {failure}")),
                    }
                }
            }
        }
    }

    fn take(&mut self, now: u64, mut record: Reader) -> Result<(), Failure> {
        match record.u8()? {
            ENTRY => self.entry(record),
            kind @ (SNAPSHOT | INSTALL) => {
                let (ticket, index) = (record.u64()?, record.u64()?);
                let path = String::from_utf8_lossy(&record.take(record.remaining())?).into_owned();
                let due = now + self.rng.below(self.hosting.snapshot_ms + 1);
                self.asked(kind, index, Task { due, ticket, path, work: Work::Fail });
                Ok(())
            }
            CLOSED => Ok(()),
            other => Err(Failure::internal(format!("there is no kind {other}"))),
        }
    }

    fn entry(&mut self, mut record: Reader) -> Result<(), Failure> {
        let (index, term, time_ms, seed) = (record.u64()?, record.u64()?, record.u64()?, record.u64()?);
        let local = record.u8()? == 1;
        let id = CommandId { node: record.u64()?, incarnation: record.u64()?, sequence: record.u64()? };
        let body = record.take(record.remaining())?;
        let ask = Ask::decode(&body)?;
        let mut registers = self.registers.lock();
        let done = registers.act(ask.deed);
        self.place.shared.order(self.place.node, registers.index, index);
        registers.index = index;
        let context = hash(&[term, time_ms, seed].map(u64::to_le_bytes).concat());
        let step = Step { id, body: hash(&body), context, state: registers.state() };
        drop(registers);
        self.place.shared.applied(self.place.node, index, step);
        if local && self.waiters.lock().applied(id.sequence) {
            let outcome = Ok(Answer { index, id: ask.id, done }.encode());
            let (node, life, sequence) = (self.place.node, self.place.life, id.sequence);
            let mut world = self.place.shared.lock();
            let stamp = world.stamp();
            world.happened.push(Happening::Answered { node, life, sequence, outcome, stamp });
        }
        Ok(())
    }

    fn asked(&mut self, kind: u8, index: u64, mut task: Task) {
        let refuses = self.rng.chance(self.hosting.refused);
        if kind == INSTALL {
            if !refuses {
                task.work = Work::Install(index);
            }
            self.installing = Some(task);
            return;
        }
        let state = self.registers.lock().clone();
        if state.index != index {
            return self.violated(format!("a snapshot of {index} is asked for at {}", state.index));
        }
        if !refuses {
            task.work = Work::Write(state);
        }
        if !self.rng.chance(self.hosting.forgotten) {
            self.writing.push(task);
        }
    }

    /// Answers what is done by now.
    fn finish(&mut self, now: u64, node: &Node) {
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.writing).into_iter().partition(|task: &Task| task.due <= now);
        self.writing = later;
        let installed = self.installing.take_if(|task| task.due <= now);
        for task in Vec::into_iter(due).chain(installed) {
            let outcome = self.carry_out(&task);
            // It may have been given up meanwhile.
            drop(node.host_finished(task.ticket, outcome));
        }
    }

    fn carry_out(&mut self, task: &Task) -> Result<(), Failure> {
        let path = Path::new(&task.path);
        match &task.work {
            _ if self.place.broken.load(Ordering::Relaxed) => Err(host_failure("The host fails on purpose.")),
            Work::Fail => Err(host_failure("The host refuses on purpose.")),
            Work::Write(state) => {
                let mut bytes = Vec::new();
                let written = state.write_to(&mut bytes).and_then(|()| fs::write(path, bytes));
                written.map_err(|error| Failure::io("Writing the host's snapshot", &error))
            }
            Work::Install(index) => {
                let read = fs::read(path).and_then(|bytes| Registers::read_from(&mut &bytes[..]));
                let state = read.map_err(|error| Failure::io("Reading a snapshot for the host", &error))?;
                let before = self.registers.lock().index;
                self.place.shared.installed(self.place.node, before, *index, &state);
                *self.registers.lock() = state;
                Ok(())
            }
        }
    }

    fn violated(&self, what: String) {
        let what = format!("the host of node {}: {what}", self.place.node);
        self.place.shared.lock().judge.note(Err(Violation::new("same_everywhere", what)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_the_first_that_comes_and_the_engine_has_one_only() {
        let mut waiters = Waiters::default();
        (1..=3).for_each(|sequence| waiters.expect(sequence));
        assert!(waiters.applied(1), "the host answers");
        assert!(!waiters.applied(1));
        assert_eq!(waiters.completed(1), Ok(false), "too late");
        assert_eq!(waiters.completed(2), Ok(true), "the engine answers");
        assert!(!waiters.applied(2), "too late");
        assert!(waiters.completed(2).is_err(), "twice");
        assert!(waiters.completed(9).is_err(), "never accepted");
    }
}
