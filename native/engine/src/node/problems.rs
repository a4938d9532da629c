//! What is wrong with a node right now, one entry a part, for its status.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::error::Failure;

/// The part of a node that has a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// Finding or joining a cluster.
    Bootstrap,
    /// The log: nothing is acknowledged while it lasts.
    Log,
    /// The state machine: nothing is applied while it lasts.
    Machine,
    /// Taking snapshots.
    Snapshot,
    /// The consensus core.
    Consensus,
}

/// Present problems. Each part reports and withdraws its own.
#[derive(Default)]
pub struct Problems(Mutex<BTreeMap<Problem, Failure>>);

impl Problems {
    /// Reports a problem of `part`, replacing its former one.
    pub fn set(&self, part: Problem, failure: Failure) {
        self.0.lock().insert(part, failure);
    }

    /// The problem of `part` is over.
    pub fn clear(&self, part: Problem) {
        self.0.lock().remove(&part);
    }

    /// All present problems as one sentence each.
    pub fn sentences(&self) -> Vec<String> {
        self.0.lock().values().map(|failure| failure.message.clone()).collect()
    }
}
