//! Everybody agrees on who is a member: a membership entry says the same everywhere, and nobody who has applied it, or taken a
//! snapshot that covers it, goes by an older one.

use std::collections::BTreeMap;

use super::{Holds, Violation};

const NAME: &str = "members";

/// The committed memberships.
#[derive(Debug, Default)]
pub struct Members {
    /// Hash of the members, by log index.
    committed: BTreeMap<u64, u64>,
}

impl Members {
    /// A membership with that `hash` was committed at log `index`.
    pub fn committed(&mut self, index: u64, hash: u64) -> Holds {
        match *self.committed.entry(index).or_insert(hash) {
            known if known == hash => Ok(()),
            known => Err(Violation::new(NAME, format!("the membership at {index} is {known:x} and {hash:x}"))),
        }
    }

    /// `node` goes by the membership of log index `of` (`None`: by none), and holds everything up to `upto`.
    pub fn goes_by(&self, node: usize, of: Option<u64>, upto: u64) -> Holds {
        match self.committed.range(..=upto).next_back() {
            Some((newest, _)) if of < Some(*newest) => Err(Violation::new(
                NAME,
                format!(
                    "node {node} holds everything up to {upto}, but goes by the membership of {of:?}, not of {newest}"
                ),
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_membership_and_another_one_of_the_same_entry_are_found() {
        let mut members = Members::default();
        assert_eq!(members.goes_by(0, None, 5), Ok(()));
        assert_eq!((members.committed(1, 7), members.committed(9, 8)), (Ok(()), Ok(())));
        assert!(members.committed(9, 6).is_err());
        assert_eq!(members.goes_by(0, Some(1), 8), Ok(()));
        assert_eq!(members.goes_by(0, Some(12), 10), Ok(()), "one that is not committed yet");
        assert!(members.goes_by(0, Some(1), 9).is_err());
        assert!(members.goes_by(0, None, 1).is_err());
    }
}
