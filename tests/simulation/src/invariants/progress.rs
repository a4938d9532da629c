//! Once faults stop, every node acknowledges a write within a bound.

use std::collections::BTreeMap;

use super::{Holds, Violation};

const NAME: &str = "progress";

/// Who still owes a sign of life after the faults.
#[derive(Debug, Default)]
pub struct Progress {
    until: u64,
    waiting: BTreeMap<usize, String>,
}

impl Progress {
    /// Faults have stopped: `nodes` have until `until` (ms).
    pub fn expect(&mut self, nodes: impl Iterator<Item = usize>, until: u64) {
        self.until = until;
        self.waiting = nodes.map(|node| (node, String::from("nothing"))).collect();
    }

    /// `node` acknowledged a write that it was given after the faults.
    pub fn acknowledged(&mut self, node: usize) {
        self.waiting.remove(&node);
    }

    /// What `node` said last, for whoever reads the violation.
    pub fn heard(&mut self, node: usize, what: &str) {
        if let Some(said) = self.waiting.get_mut(&node) {
            *said = what.to_string();
        }
    }

    /// Whether `node` still owes one.
    pub fn waits_for(&self, node: usize) -> bool {
        self.waiting.contains_key(&node)
    }

    /// Whether nobody owes one.
    pub fn is_complete(&self) -> bool {
        self.waiting.is_empty()
    }

    /// It is `now` (ms).
    pub fn judge(&self, now: u64) -> Holds {
        match self.waiting.first_key_value() {
            Some((node, said)) if now > self.until => {
                Err(Violation::new(NAME, format!("node {node} acknowledged nothing after the faults; it said: {said}")))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_stays_silent_is_found_when_its_time_is_up() {
        let mut progress = Progress::default();
        progress.expect(0..2, 100);
        progress.acknowledged(0);
        progress.heard(1, "no leader");
        assert!(progress.waits_for(1) && !progress.waits_for(0));
        assert_eq!(progress.judge(100), Ok(()));
        assert!(progress.judge(101).unwrap_err().what.contains("no leader"));
        progress.acknowledged(1);
        assert!(progress.is_complete());
        assert_eq!(progress.judge(101), Ok(()));
    }
}
