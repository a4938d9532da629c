//! Lists that clients append to and read: the second half of linearizability. Every value is appended once, so each read tells
//! which appends came before it and in which order; all reads must tell parts of one story.

use std::collections::{BTreeMap, HashMap};

use super::{Holds, Violation};

const NAME: &str = "lists";

/// One append or read, between its call and its return (`None`: unknown whether it was done).
#[derive(Clone, Debug)]
struct Done<T> {
    call: u64,
    done: Option<u64>,
    what: T,
}

#[derive(Debug, Default)]
struct List {
    appends: Vec<Done<u32>>,
    reads: Vec<Done<Vec<u32>>>,
}

/// What clients did to each list.
#[derive(Debug, Default)]
pub struct Lists {
    keys: BTreeMap<u32, List>,
}

impl Lists {
    /// `value` was appended to `key`.
    pub fn appended(&mut self, key: u32, value: u32, call: u64, done: Option<u64>) {
        self.keys.entry(key).or_default().appends.push(Done { call, done, what: value });
    }

    /// The list `key` was read.
    pub fn read(&mut self, key: u32, content: Vec<u32>, call: u64, done: u64) {
        self.keys.entry(key).or_default().reads.push(Done { call, done: Some(done), what: content });
    }

    /// How many operations there are.
    pub fn count(&self) -> u64 {
        self.keys.values().map(|list| (list.appends.len() + list.reads.len()) as u64).sum()
    }

    /// Looks at every list.
    pub fn judge(&self) -> Holds {
        self.keys.iter().try_for_each(|(key, list)| list.judge(*key))
    }
}

impl List {
    fn judge(&self, key: u32) -> Holds {
        let wrong = |what: String| Err(Violation::new(NAME, format!("list {key}: {what}")));
        let Some(longest) = self.reads.iter().max_by_key(|read| read.what.len()) else { return Ok(()) };
        let places: HashMap<u32, usize> = longest.what.iter().enumerate().map(|(at, value)| (*value, at)).collect();
        if places.len() != longest.what.len() {
            return wrong(format!("a value is there twice: {:?}", longest.what));
        }
        if let Some(read) = self.reads.iter().find(|read| !longest.what.starts_with(&read.what)) {
            return wrong(format!("{:?} and {:?} are not of one story", read.what, longest.what));
        }
        for append in &self.appends {
            let place = places.get(&append.what).copied();
            for read in &self.reads {
                let seen = place.is_some_and(|place| place < read.what.len());
                let before = append.done.is_some_and(|done| done < read.call);
                let after = read.done.is_some_and(|done| done < append.call);
                if (before && !seen) || (after && seen) {
                    return wrong(format!("{append:?} against {read:?}"));
                }
            }
        }
        self.in_order(&places).or_else(wrong)
    }

    /// What ended before another began stands before it; so do reads.
    fn in_order(&self, places: &HashMap<u32, usize>) -> Result<(), String> {
        let placed: Vec<(usize, &Done<u32>)> =
            self.appends.iter().filter_map(|append| Some((*places.get(&append.what)?, append))).collect();
        if placed.len() < places.len() {
            return Err("a value that nobody appended".into());
        }
        for (place, append) in &placed {
            let early =
                placed.iter().find(|(other, late)| other < place && append.done.is_some_and(|done| done < late.call));
            if let Some((_, late)) = early {
                return Err(format!("{append:?} stands after {late:?}"));
            }
        }
        for read in &self.reads {
            let earlier = |late: &&Done<Vec<u32>>| read.done.is_some_and(|done| done < late.call);
            if let Some(late) = self.reads.iter().filter(earlier).find(|late| late.what.len() < read.what.len()) {
                return Err(format!("{read:?} saw more than {late:?}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn story(appends: &[(u32, u64, Option<u64>)], reads: &[(&[u32], u64, u64)]) -> Holds {
        let mut lists = Lists::default();
        appends.iter().for_each(|(value, call, done)| lists.appended(1, *value, *call, *done));
        reads.iter().for_each(|(content, call, done)| lists.read(1, content.to_vec(), *call, *done));
        lists.judge()
    }

    #[test]
    fn right_stories_are_accepted() {
        assert_eq!(story(&[], &[]), Ok(()));
        let overlapping = [(1, 0, Some(9)), (2, 1, Some(8))];
        assert_eq!(story(&overlapping, &[(&[], 0, 3), (&[2], 2, 4), (&[2, 1], 10, 11)]), Ok(()));
        assert_eq!(story(&[(1, 0, None)], &[(&[], 5, 6), (&[1], 7, 8)]), Ok(()), "late, but at last");
    }

    #[test]
    fn wrong_stories_are_found() {
        let two = [(1, 0, Some(1)), (2, 2, Some(3))];
        assert!(story(&two, &[(&[1, 2, 1], 5, 6)]).is_err(), "twice");
        assert!(story(&two, &[(&[1], 5, 6)]).is_err(), "lost");
        assert!(story(&two, &[(&[2, 1], 5, 6)]).is_err(), "in the wrong order");
        assert!(story(&two, &[(&[1, 2], 1, 1)]).is_err(), "before it was appended");
        assert!(story(&two, &[(&[1, 2, 3], 5, 6)]).is_err(), "from nowhere");
        let loose = [(1, 0, None), (2, 0, None)];
        assert!(story(&loose, &[(&[1], 1, 2), (&[2], 3, 4)]).is_err(), "two stories");
        assert!(story(&loose, &[(&[1, 2], 1, 2), (&[1], 3, 4)]).is_err(), "backwards");
    }
}
