//! An acknowledged write is never lost: its index is its own for ever, and in the end every node has it. A write that is
//! said to have failed without effect has none.

use std::collections::BTreeMap;

use super::takes_effect_once::TakesEffectOnce;
use super::{Holds, Violation};

const NAME: &str = "acknowledged";

/// What was acknowledged, by index, and what was said to have no effect.
#[derive(Debug, Default)]
pub struct Acknowledged {
    bodies: BTreeMap<u64, u64>,
    without_effect: Vec<u64>,
}

impl Acknowledged {
    /// The command with that body was acknowledged, having taken effect at `index`.
    pub fn acknowledged(&mut self, index: u64, body: u64) -> Holds {
        match self.bodies.insert(index, body) {
            Some(other) if other != body => {
                Err(Violation::new(NAME, format!("two commands were acknowledged at {index}")))
            }
            _ => Ok(()),
        }
    }

    /// The command with that body failed for certain.
    pub fn failed(&mut self, body: u64) {
        self.without_effect.push(body);
    }

    /// `node` applied the command with that body at `index`.
    pub fn applied(&self, node: usize, index: u64, body: u64) -> Holds {
        match self.bodies.get(&index) {
            Some(promised) if *promised != body => Err(Violation::new(
                NAME,
                format!("the write that was acknowledged at index {index} is gone: node {node} applied another there"),
            )),
            _ => Ok(()),
        }
    }

    /// The highest acknowledged index.
    pub fn last(&self) -> u64 {
        self.bodies.keys().next_back().copied().unwrap_or(0)
    }

    /// How many were acknowledged.
    pub fn count(&self) -> u64 {
        self.bodies.len() as u64
    }

    /// In the end: how far each node has applied, and what took effect at all.
    pub fn at_end(&self, nodes: &[(usize, u64)], effects: &TakesEffectOnce) -> Holds {
        let last = self.last();
        if let Some((node, index)) = nodes.iter().find(|(_, index)| *index < last) {
            return Err(Violation::new(
                NAME,
                format!("index {last} was acknowledged, but node {node} ends at {index} although it is in touch"),
            ));
        }
        if let Some((index, _)) = self.bodies.iter().find(|(_, body)| !effects.took_effect(**body)) {
            return Err(Violation::new(NAME, format!("nobody applied what was acknowledged at index {index}")));
        }
        match self.without_effect.iter().find(|body| effects.took_effect(**body)) {
            Some(body) => Err(Violation::new(
                NAME,
                format!("a command that was said to have no effect took effect (body {body:x})"),
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_engine::CommandId;

    fn effects(bodies: &[u64]) -> TakesEffectOnce {
        let mut effects = TakesEffectOnce::default();
        for (at, body) in bodies.iter().enumerate() {
            let id = CommandId { node: 1, incarnation: 1, sequence: at as u64 };
            effects.applied(at as u64, id, *body).unwrap();
        }
        effects
    }

    #[test]
    fn a_lost_write_is_found_when_its_place_is_taken_and_at_the_end() {
        let mut acknowledged = Acknowledged::default();
        assert_eq!(acknowledged.acknowledged(1, 10), Ok(()));
        assert_eq!(acknowledged.acknowledged(2, 20), Ok(()));
        assert!(acknowledged.acknowledged(2, 21).is_err());
        let mut acknowledged = Acknowledged::default();
        acknowledged.acknowledged(2, 20).unwrap();
        assert_eq!(acknowledged.applied(0, 2, 20), Ok(()));
        assert!(acknowledged.applied(0, 2, 99).is_err());
        assert_eq!(acknowledged.at_end(&[(0, 2), (1, 3)], &effects(&[1, 2, 20])), Ok(()));
        assert!(acknowledged.at_end(&[(0, 2), (1, 1)], &effects(&[20])).is_err(), "one node ends before it");
        assert!(acknowledged.at_end(&[(0, 2)], &effects(&[1])).is_err(), "nobody applied it");
        acknowledged.failed(30);
        assert_eq!(acknowledged.at_end(&[(0, 2)], &effects(&[20])), Ok(()));
        assert!(acknowledged.at_end(&[(0, 2)], &effects(&[20, 30])).is_err(), "an effect that must not be");
    }
}
