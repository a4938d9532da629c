//! A command takes effect at most once: its id, and its body, which every client makes unique, have one index.

use std::collections::HashMap;

use quorate_engine::CommandId;

use super::{Holds, Violation};

const NAME: &str = "takes_effect_once";

/// Where each command took effect.
#[derive(Debug, Default)]
pub struct TakesEffectOnce {
    ids: HashMap<CommandId, u64>,
    bodies: HashMap<u64, u64>,
}

impl TakesEffectOnce {
    /// The command `id` with the body that hashes to `body` took effect at `index`, on any node.
    pub fn applied(&mut self, index: u64, id: CommandId, body: u64) -> Holds {
        let first = *self.ids.entry(id).or_insert(index);
        if first != index {
            return Err(Violation::new(NAME, format!("{id} took effect at {first} and again at {index}")));
        }
        let first = *self.bodies.entry(body).or_insert(index);
        if first != index {
            return Err(Violation::new(NAME, format!("the body of {id} took effect at {first} and again at {index}")));
        }
        Ok(())
    }

    /// Whether the command with that body took effect anywhere.
    pub fn took_effect(&self, body: u64) -> bool {
        self.bodies.contains_key(&body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_effect_is_found_by_id_and_by_body() {
        let id = |sequence| CommandId { node: 1, incarnation: 1, sequence };
        let mut once = TakesEffectOnce::default();
        assert_eq!(once.applied(1, id(1), 10), Ok(()));
        assert_eq!(once.applied(1, id(1), 10), Ok(()), "another replica");
        assert!(once.applied(2, id(1), 10).is_err());
        assert!(once.applied(3, id(2), 10).is_err(), "under another id");
        assert!(once.took_effect(10) && !once.took_effect(11));
    }
}
