//! Linearizability, key by key: reads, writes and comparisons have an order that explains them all.

use std::collections::BTreeMap;

use quorate_linear::linear::{Operation, Verdict, check, relevant};

use super::{Holds, Violation};

const NAME: &str = "linearizable";

/// What clients did to each key.
#[derive(Debug, Default)]
pub struct Histories {
    keys: BTreeMap<u32, Vec<Operation>>,
}

impl Histories {
    /// Something was done to `key`.
    pub fn add(&mut self, key: u32, operation: Operation) {
        self.keys.entry(key).or_default().push(operation);
    }

    /// How many operations there are.
    pub fn count(&self) -> u64 {
        self.keys.values().map(|operations| operations.len() as u64).sum()
    }

    /// Searches an order for each key; gives also how many histories were too hard to decide.
    pub fn judge(&self) -> (Holds, u64) {
        let mut too_hard = 0;
        for (key, operations) in &self.keys {
            let relevant = relevant(operations);
            match check(&relevant) {
                Verdict::Linearizable => {}
                Verdict::TooHard => too_hard += 1,
                Verdict::Violation(at) => {
                    let what = format!("key {key}: no place for {:?}", relevant[at]);
                    return (Err(Violation::new(NAME, what)), too_hard);
                }
            }
        }
        (Ok(()), too_hard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_linear::linear::Act;

    fn operation(call: u64, act: Act) -> Operation {
        Operation { call, done: Some(call + 1), act }
    }

    #[test]
    fn a_stale_read_is_found_and_only_in_its_key() {
        let mut histories = Histories::default();
        histories.add(1, operation(0, Act::Write(5)));
        histories.add(2, operation(2, Act::Read(0)));
        assert_eq!(histories.judge(), (Ok(()), 0));
        histories.add(1, operation(4, Act::Read(0)));
        assert!(histories.judge().0.unwrap_err().what.contains("key 1"));
        assert_eq!(histories.count(), 3);
    }
}
