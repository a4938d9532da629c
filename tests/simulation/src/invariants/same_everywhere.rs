//! State-machine safety: at the same index every node applies the same command, and has the same state after it.

use quorate_engine::CommandId;

use super::{Holds, Violation};

const NAME: &str = "same_everywhere";

/// One command as it was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Whose it is.
    pub id: CommandId,
    /// Hash of its body.
    pub body: u64,
    /// Hash of what else every replica must be given alike: term, time, seed.
    pub context: u64,
    /// Hash of the state, or of the result, after it.
    pub state: u64,
}

/// What was applied at each index, by whoever came first.
#[derive(Debug, Default)]
pub struct SameEverywhere {
    steps: Vec<Option<(Step, usize)>>,
}

impl SameEverywhere {
    /// `node` applied `step` at `index`.
    pub fn applied(&mut self, node: usize, index: u64, step: Step) -> Holds {
        let at = index as usize;
        if self.steps.len() <= at {
            self.steps.resize(at + 1, None);
        }
        match self.steps[at] {
            None => self.steps[at] = Some((step, node)),
            Some((first, other)) if first != step => {
                return Err(Violation::new(
                    NAME,
                    format!("at index {index} node {node} applied {step:?}, but node {other} applied {first:?}"),
                ));
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// `node` took over the state after `index` from a snapshot.
    pub fn installed(&mut self, node: usize, index: u64, state: u64) -> Holds {
        match self.steps.get(index as usize).copied().flatten() {
            Some((first, other)) if first.state != state => Err(Violation::new(
                NAME,
                format!(
                    "node {node} installed state {state:x} of index {index}, where node {other} had {:x}",
                    first.state
                ),
            )),
            _ => Ok(()),
        }
    }

    /// The command with that `body` was acknowledged with `index`.
    pub fn acknowledged(&self, index: u64, body: u64) -> Holds {
        match self.steps.get(index as usize).copied().flatten() {
            Some((first, _)) if first.body == body => Ok(()),
            other => {
                Err(Violation::new(NAME, format!("a command was acknowledged at index {index}, where {other:?} is")))
            }
        }
    }

    /// The highest index that anybody applied.
    pub fn last(&self) -> u64 {
        self.steps.len().saturating_sub(1) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(sequence: u64, state: u64) -> Step {
        Step { id: CommandId { node: 1, incarnation: 1, sequence }, body: sequence, context: 0, state }
    }

    #[test]
    fn another_command_or_another_state_at_the_same_index_is_found() {
        let mut same = SameEverywhere::default();
        assert_eq!(same.applied(0, 1, step(1, 10)), Ok(()));
        assert_eq!(same.applied(1, 1, step(1, 10)), Ok(()));
        assert_eq!(same.applied(0, 2, step(2, 11)), Ok(()));
        assert!(same.applied(1, 2, step(3, 11)).is_err(), "another command");
        assert!(same.applied(1, 2, step(2, 12)).is_err(), "another state");
        assert_eq!(same.installed(2, 2, 11), Ok(()));
        assert!(same.installed(2, 2, 12).is_err(), "a snapshot of another state");
        assert_eq!(same.acknowledged(2, 2), Ok(()));
        assert!(same.acknowledged(2, 5).is_err(), "an answer for another command");
        assert!(same.acknowledged(3, 3).is_err(), "an answer before anybody applied it");
        assert_eq!(same.last(), 2);
    }
}
