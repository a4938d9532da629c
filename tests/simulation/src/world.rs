//! What the parts of a run share: the judge, what happened since the driver last looked, the event log, and the order of
//! events.

use std::fmt::Display;
use std::fmt::Write;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use quorate_engine::Failure;
use quorate_engine::machine::Outcome;
use quorate_engine::node::{LeaderEvent, Observer};

use crate::disk::Power;
use crate::invariants::same_everywhere::Step;
use crate::invariants::{Judge, Violation};
use crate::machine::Registers;
use crate::network::Network;
use crate::process::{self, SharedWaiters};

/// What a client read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A register.
    Value(u32),
    /// A list.
    List(Vec<u32>),
}

/// Something that the driver has to hear of: on which `node`, in which `life` of it, and its place (`stamp`) in the order of events.
#[allow(missing_docs)] // the fields are told of above
#[derive(Debug)]
pub enum Happening {
    /// A command was answered.
    Answered { node: usize, life: u64, sequence: u64, outcome: Outcome, stamp: u64 },
    /// A read was done.
    Read { number: u64, outcome: Result<Seen, Failure>, stamp: u64 },
    /// A node's role or leader changed.
    Leader { node: usize, event: LeaderEvent },
    /// Something that the driver asked for ended.
    Ended { what: String, node: usize, outcome: Outcome },
}

/// See the module.
#[derive(Default)]
pub struct World {
    /// Virtual time in ms.
    pub now: u64,
    /// The invariants.
    pub judge: Judge,
    /// What happened since the driver last looked.
    pub happened: Vec<Happening>,
    /// Snapshots that were installed.
    pub installed: u64,
    /// Commands that were applied, on all nodes.
    pub applied: u64,
    log: String,
    stamps: u64,
}

impl World {
    /// The next place in the order of events.
    pub fn stamp(&mut self) -> u64 {
        self.stamps += 1;
        self.stamps
    }

    /// Writes a line of the event log.
    pub fn note(&mut self, who: impl Display, what: impl Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.log, "{:>7} {who} {what}", self.now);
    }

    /// Takes the event log out.
    pub fn take_log(&mut self) -> String {
        std::mem::take(&mut self.log)
    }
}

/// The world, shared by everything in a run.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<World>>);

impl Shared {
    /// The world, for a moment.
    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock()
    }

    /// `node` applied a command.
    pub fn applied(&self, node: usize, index: u64, step: Step) {
        let mut world = self.lock();
        world.applied += 1;
        world.judge.applied(node, index, step);
    }

    /// After `before`, `node` is given `index`: the next one, or the order is wrong.
    pub fn order(&self, node: usize, before: u64, index: u64) {
        if index != before + 1 {
            let what = format!("node {node} was given index {index} after {before}");
            self.lock().judge.note(Err(Violation::new("same_everywhere", what)));
        }
    }

    /// `node`, which had applied up to `before`, took over the state `registers` as of `index`.
    pub fn installed(&self, node: usize, before: u64, index: u64, registers: &Registers) {
        let mut world = self.lock();
        world.installed += 1;
        world.note(format_args!("n{node}"), format_args!("installed {index} over {before}"));
        let holds = world.judge.same.installed(node, index, registers.state());
        world.judge.note(holds);
        if registers.index != index || index < before {
            let what =
                format!("node {node} at {before} installed a snapshot of {index} with state of {}", registers.index);
            world.judge.note(Err(Violation::new("same_everywhere", what)));
        }
    }
}

/// What one life of a node tells.
pub struct SimObserver {
    /// Which node.
    pub node: usize,
    /// Which of its lives.
    pub life: u64,
    /// Without power nothing is heard of it.
    pub power: Arc<Power>,
    /// Who is told.
    pub shared: Shared,
    /// Who waits in the host process, where the machine is in one.
    pub waiters: Option<SharedWaiters>,
    /// What carries its datagrams.
    pub network: Network,
}

impl Observer for SimObserver {
    fn completed(&self, outcomes: Vec<(u64, Outcome)>) {
        if !self.power.is_on() {
            return;
        }
        let mut world = self.shared.lock();
        let outcomes = match &self.waiters {
            Some(waiters) => process::awaited(waiters, outcomes, &mut world),
            None => outcomes,
        };
        for (sequence, outcome) in outcomes {
            let stamp = world.stamp();
            world.happened.push(Happening::Answered { node: self.node, life: self.life, sequence, outcome, stamp });
        }
    }

    fn leader(&self, event: &LeaderEvent) {
        let event = event.clone();
        self.shared.lock().happened.push(Happening::Leader { node: self.node, event });
    }

    fn datagram(&self, to: &str, datagram: &[u8]) -> bool {
        !self.power.is_on() || self.network.send_datagram(self.node, to, datagram)
    }
}
