//! Log matching: if two logs have an entry of the same index and term, they are the same up to there. That follows when
//! each entry (index, term) has everywhere the same content and the same term before it.

use std::collections::BTreeMap;

use super::{Holds, Violation};

const NAME: &str = "log_matching";

/// One entry of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Hash of what it carries.
    pub content: u64,
}

/// What was seen in any log.
#[derive(Debug, Default)]
pub struct LogMatching {
    /// By index and term: content, and the term of the entry before, once both were seen together.
    entries: BTreeMap<(u64, u64), (u64, Option<u64>)>,
}

impl LogMatching {
    /// `node` has these consecutive `entries` in its log.
    pub fn saw(&mut self, node: usize, entries: &[Entry]) -> Holds {
        let mut before: Option<&Entry> = None;
        for entry in entries {
            if let Some(before) = before.filter(|before| before.index + 1 != entry.index || before.term > entry.term) {
                return Err(Violation::new(
                    NAME,
                    format!("in the log of node {node} {entry:?} comes after {before:?}"),
                ));
            }
            let previous = before.map(|before| before.term);
            let known = self.entries.entry((entry.index, entry.term)).or_insert((entry.content, previous));
            let differs = known.1.is_some() && previous.is_some() && known.1 != previous;
            if known.0 != entry.content || differs {
                return Err(Violation::new(
                    NAME,
                    format!("node {node} has {entry:?} after term {previous:?}; elsewhere it is {known:?}"),
                ));
            }
            known.1 = known.1.or(previous);
            before = Some(entry);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(terms: &[u64]) -> Vec<Entry> {
        let entry = |(at, term): (usize, &u64)| Entry { index: at as u64 + 1, term: *term, content: *term * 100 };
        terms.iter().enumerate().map(entry).collect()
    }

    #[test]
    fn logs_that_agree_at_an_entry_and_not_before_it_are_found() {
        let mut logs = LogMatching::default();
        assert_eq!(logs.saw(0, &log(&[1, 1, 2, 3])), Ok(()));
        assert_eq!(logs.saw(1, &log(&[1, 1, 2])), Ok(()));
        assert_eq!(logs.saw(2, &log(&[1, 1, 1, 1])), Ok(()), "a fork that no later entry joins");
        assert!(logs.saw(1, &log(&[1, 1, 1, 3])).is_err(), "another past of the same entry");
        let mut other = log(&[1]);
        other[0].content = 7;
        assert!(logs.saw(1, &other).is_err(), "another content");
        assert!(logs.saw(1, &log(&[2, 1])).is_err(), "a term that falls");
        let mut hole = log(&[1, 1, 2]);
        hole.remove(1);
        assert!(logs.saw(1, &hole).is_err(), "a hole");
    }
}
