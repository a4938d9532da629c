//! Leader completeness: what was committed in a term is in the log of every leader of a later one.

use std::collections::BTreeMap;

use super::log_matching::Entry;
use super::{Holds, Violation};

const NAME: &str = "completeness";

/// What is known to be committed.
#[derive(Debug, Default)]
pub struct Completeness {
    /// Term of the entry at each index, and the term in which it was first seen committed.
    committed: BTreeMap<u64, (u64, u64)>,
}

impl Completeness {
    /// A node in `term` knows these entries to be committed.
    pub fn committed(&mut self, term: u64, entries: &[Entry]) -> Holds {
        for entry in entries {
            let (known, _) = *self.committed.entry(entry.index).or_insert((entry.term, term));
            if known != entry.term {
                return Err(Violation::new(
                    NAME,
                    format!("at index {} both terms {known} and {} were committed", entry.index, entry.term),
                ));
            }
        }
        Ok(())
    }

    /// A leader of `term` has this log; before `entries` it holds everything in a snapshot.
    pub fn leads(&self, node: usize, term: u64, entries: &[Entry]) -> Holds {
        let Some(first) = entries.first() else { return Ok(()) };
        let has: BTreeMap<u64, u64> = entries.iter().map(|entry| (entry.index, entry.term)).collect();
        for (index, (entry_term, committed_in)) in self.committed.range(first.index..) {
            if *committed_in < term && has.get(index) != Some(entry_term) {
                return Err(Violation::new(
                    NAME,
                    format!(
                        "node {node} leads in term {term} without entry {index} of term {entry_term}, committed in term \
                         {committed_in}; it has {:?} there",
                        has.get(index)
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The highest index known to be committed.
    pub fn last(&self) -> u64 {
        self.committed.keys().next_back().copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, content: 0 }
    }

    #[test]
    fn a_leader_that_lacks_what_was_committed_is_found() {
        let mut complete = Completeness::default();
        assert_eq!(complete.committed(2, &[entry(1, 1), entry(2, 2)]), Ok(()));
        assert!(complete.committed(3, &[entry(2, 3)]).is_err(), "two entries committed at one index");
        assert_eq!(complete.leads(0, 3, &[entry(1, 1), entry(2, 2), entry(3, 3)]), Ok(()));
        assert_eq!(complete.leads(0, 2, &[entry(1, 1)]), Ok(()), "committed in its own term, after it began");
        assert!(complete.leads(0, 3, &[entry(1, 1)]).is_err(), "too short");
        assert!(complete.leads(0, 3, &[entry(1, 1), entry(2, 1)]).is_err(), "another entry");
        assert_eq!(complete.leads(0, 3, &[entry(3, 3)]), Ok(()), "what is before is in its snapshot");
        assert_eq!(complete.last(), 2);
    }
}
