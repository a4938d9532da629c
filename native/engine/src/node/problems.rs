//! What is wrong with a node right now, one entry a part, and what was lately, for its status.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::Failure;
use crate::limits::PROBLEMS_KEPT_MAX;

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
    /// Certificates on disk that cannot be used; the former ones are.
    Tls,
    /// The consensus core.
    Consensus,
    /// Messages take too long for the election timeout.
    RoundTrip,
}

#[derive(Default)]
struct Known {
    present: BTreeMap<Problem, Failure>,
    /// Newest last, each with the time when it was last reported.
    past: VecDeque<(String, Instant)>,
}

/// Present problems, and the last few ones. Each part reports and withdraws its own.
#[derive(Default)]
pub struct Problems(Mutex<Known>);

impl Problems {
    /// Reports a problem of `part`, replacing its former one.
    pub fn set(&self, part: Problem, failure: Failure) {
        let mut known = self.0.lock();
        // The same sentence again is the same problem, later.
        known.past.retain(|(message, _)| *message != failure.message);
        if known.past.len() >= PROBLEMS_KEPT_MAX {
            known.past.pop_front();
        }
        known.past.push_back((failure.message.clone(), Instant::now()));
        known.present.insert(part, failure);
    }

    /// The problem of `part` is over.
    pub fn clear(&self, part: Problem) {
        self.0.lock().present.remove(&part);
    }

    /// Whether `part` has a problem.
    pub fn has(&self, part: Problem) -> bool {
        self.0.lock().present.contains_key(&part)
    }

    /// All present problems as one sentence each.
    pub fn sentences(&self) -> Vec<String> {
        self.0.lock().present.values().map(|failure| failure.message.clone()).collect()
    }

    /// The last [`PROBLEMS_KEPT_MAX`] different problems, newest first, each with how long ago it was last reported.
    pub fn past(&self) -> Vec<(String, Duration)> {
        self.0.lock().past.iter().rev().map(|(message, at)| (message.clone(), at.elapsed())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_is_remembered_once_newest_first_and_only_so_much_of_it() {
        let problems = Problems::default();
        let report = |message: String| problems.set(Problem::Machine, Failure::internal(message));
        report("early".into());
        (0..PROBLEMS_KEPT_MAX - 1).for_each(|number| report(format!("p{number}")));
        report("early".into());
        assert_eq!(problems.sentences(), ["early"]);
        problems.clear(Problem::Machine);
        assert!(problems.sentences().is_empty());
        let past: Vec<String> = problems.past().into_iter().map(|(message, _)| message).collect();
        assert_eq!((past.len(), past[0].as_str(), past[1].as_str()), (PROBLEMS_KEPT_MAX, "early", "p14"));
        report("one more".into());
        assert_eq!((problems.past().len(), problems.past()[0].0.as_str()), (PROBLEMS_KEPT_MAX, "one more"));
        assert!(problems.past().iter().all(|(message, _)| message != "p0"));
    }
}
