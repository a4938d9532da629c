//! At most one leader a term.

use std::collections::BTreeMap;

use super::{Holds, Violation};

const NAME: &str = "one_leader";

/// Who led in each term.
#[derive(Debug, Default)]
pub struct OneLeader {
    terms: BTreeMap<u64, u64>,
}

impl OneLeader {
    /// The node with raft id `id` leads in `term`.
    pub fn leads(&mut self, term: u64, id: u64) -> Holds {
        let first = *self.terms.entry(term).or_insert(id);
        if first != id {
            return Err(Violation::new(NAME, format!("both {first:x} and {id:x} led in term {term}")));
        }
        Ok(())
    }

    /// How many terms had a leader.
    pub fn count(&self) -> u64 {
        self.terms.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_leader_of_a_term_is_found() {
        let mut leaders = OneLeader::default();
        assert_eq!(leaders.leads(1, 7), Ok(()));
        assert_eq!(leaders.leads(1, 7), Ok(()));
        assert_eq!(leaders.leads(2, 8), Ok(()));
        assert!(leaders.leads(1, 8).is_err());
        assert_eq!(leaders.count(), 2);
    }
}
