//! Which watches a key concerns, without asking each of them.

use std::collections::{BTreeMap, HashMap};

/// Ids of watches by what they watch.
#[derive(Default)]
pub(super) struct Interest {
    keys: HashMap<Vec<u8>, Vec<u64>>,
    prefixes: HashMap<Vec<u8>, Vec<u64>>,
    /// How many distinct prefixes have which length: a key is looked up once a length.
    lengths: BTreeMap<usize, usize>,
}

impl Interest {
    pub fn add(&mut self, id: u64, exact: bool, key: &[u8]) {
        if exact {
            return self.keys.entry(key.to_vec()).or_default().push(id);
        }
        let ids = self.prefixes.entry(key.to_vec()).or_default();
        if ids.is_empty() {
            *self.lengths.entry(key.len()).or_default() += 1;
        }
        ids.push(id);
    }

    pub fn remove(&mut self, id: u64, exact: bool, key: &[u8]) {
        let map = if exact { &mut self.keys } else { &mut self.prefixes };
        let Some(ids) = map.get_mut(key) else { return };
        ids.retain(|other| *other != id);
        if !ids.is_empty() {
            return;
        }
        map.remove(key);
        if !exact && let Some(count) = self.lengths.get_mut(&key.len()) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&key.len());
            }
        }
    }

    /// The watches that `key` concerns.
    pub fn of(&self, key: &[u8]) -> impl Iterator<Item = u64> {
        let exact = self.keys.get(key).into_iter().flatten();
        let prefixes = self.lengths.range(..=key.len()).filter_map(|(len, _)| self.prefixes.get(&key[..*len]));
        exact.chain(prefixes.flatten()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(interest: &Interest, key: &[u8]) -> Vec<u64> {
        let mut ids: Vec<u64> = interest.of(key).collect();
        ids.sort();
        ids
    }

    #[test]
    fn a_key_concerns_its_own_watches_and_those_of_its_prefixes() {
        let mut interest = Interest::default();
        interest.add(1, true, b"ab");
        interest.add(2, false, b"ab");
        interest.add(3, false, b"");
        interest.add(4, false, b"abc");
        interest.add(5, false, b"ab");
        assert_eq!(of(&interest, b"ab"), [1, 2, 3, 5]);
        assert_eq!(of(&interest, b"abcd"), [2, 3, 4, 5]);
        interest.remove(2, false, b"ab");
        assert_eq!(of(&interest, b"abx"), [3, 5]);
        interest.remove(5, false, b"ab");
        interest.remove(1, true, b"ab");
        interest.remove(3, false, b"");
        interest.remove(4, false, b"abc");
        assert!(of(&interest, b"abc").is_empty() && interest.lengths.is_empty() && interest.keys.is_empty());
    }
}
