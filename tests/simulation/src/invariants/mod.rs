//! What must hold, one file each. [`Judge`] asks them all, while a run goes on and at its end.

pub mod acknowledged;
pub mod answered_once;
pub mod completeness;
pub mod linearizable;
pub mod lists;
pub mod log_matching;
pub mod members;
pub mod one_leader;
pub mod progress;
pub mod same_everywhere;
pub mod takes_effect_once;

use std::fmt;

use acknowledged::Acknowledged;
use answered_once::AnsweredOnce;
use completeness::Completeness;
use log_matching::LogMatching;
use members::Members;
use one_leader::OneLeader;
use same_everywhere::{SameEverywhere, Step};
use takes_effect_once::TakesEffectOnce;

/// What does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant's name: that of its file.
    pub invariant: &'static str,
    /// What was seen, in a sentence.
    pub what: String,
}

impl Violation {
    /// `invariant` does not hold, because of `what`.
    pub fn new(invariant: &'static str, what: impl Into<String>) -> Violation {
        Violation { invariant, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// Whether an invariant holds.
pub type Holds = Result<(), Violation>;

/// Asks the invariants that are looked at all the time; keeps the first violation.
#[derive(Debug, Default)]
pub struct Judge {
    /// The same command and state at every index.
    pub same: SameEverywhere,
    /// No command twice.
    pub once: TakesEffectOnce,
    /// No acknowledged command lost.
    pub acknowledged: Acknowledged,
    /// Every accepted command is answered once.
    pub answered: AnsweredOnce,
    /// One leader a term.
    pub leaders: OneLeader,
    /// Logs that agree at one place agree before it.
    pub logs: LogMatching,
    /// A leader has everything committed.
    pub complete: Completeness,
    /// Everybody goes by the newest membership.
    pub members: Members,
    first: Option<Violation>,
}

impl Judge {
    /// Notes a violation; the first one counts.
    pub fn note(&mut self, holds: Holds) {
        if let Err(violation) = holds {
            self.first.get_or_insert(violation);
        }
    }

    /// The first violation.
    pub fn verdict(&self) -> Option<&Violation> {
        self.first.as_ref()
    }

    /// A machine applied a command.
    pub fn applied(&mut self, node: usize, index: u64, step: Step) {
        let (id, body) = (step.id, step.body);
        let same = self.same.applied(node, index, step);
        let once = self.once.applied(index, id, body);
        let kept = self.acknowledged.applied(node, index, body);
        [kept, once, same].into_iter().for_each(|holds| self.note(holds));
    }

    /// A node acknowledged the command `body`, which took effect at `index`.
    pub fn acknowledged(&mut self, index: u64, body: u64) {
        let holds = self.acknowledged.acknowledged(index, body);
        self.note(holds);
        let holds = self.same.acknowledged(index, body);
        self.note(holds);
    }
}
