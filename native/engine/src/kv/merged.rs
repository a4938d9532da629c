//! Ranges of keys as they are: the layers over sled.

use std::collections::btree_map::Range;
use std::iter::Peekable;
use std::ops::Bound;

use sled::IVec;

use super::database::Database;
use super::layers::Slots;
use crate::error::Failure;

/// An entry as it lies in sled, or will: full key and stored bytes.
pub(super) type Stored = (IVec, IVec);

/// The entries of a range in the order of their keys.
pub(super) struct Merged<'a> {
    /// The newest first.
    layers: Vec<Peekable<Range<'a, IVec, Option<IVec>>>>,
    sled: Option<(sled::Iter, &'a Database)>,
    /// What comes next in sled.
    lower: Option<Stored>,
}

impl<'a> Merged<'a> {
    /// The entries of `from..end` in `layers`, the newest first, over `db`.
    pub fn over(layers: impl Iterator<Item = &'a Slots>, db: &'a Database, from: &[u8], end: &[u8]) -> Merged<'a> {
        if from >= end {
            return Merged { layers: Vec::new(), sled: None, lower: None };
        }
        let range = (Bound::Included(from), Bound::Excluded(end));
        let layers = layers.map(|slots| slots.range::<[u8], _>(range).peekable()).collect();
        Merged { layers, sled: Some((db.range::<&[u8], _>(range), db)), lower: None }
    }

    fn look_below(&mut self) -> Result<(), Failure> {
        if self.lower.is_none()
            && let Some((sled, db)) = &mut self.sled
        {
            self.lower = sled.next().transpose().map_err(|error| db.read_failure("Reading the store", &error))?;
            if self.lower.is_none() {
                self.sled = None;
            }
        }
        Ok(())
    }

    /// The next key and what it holds; `None` where it is removed.
    fn step(&mut self) -> Result<Option<(IVec, Option<IVec>)>, Failure> {
        self.look_below()?;
        let first = self.layers.iter_mut().filter_map(|layer| layer.peek().map(|(key, _)| *key)).min();
        let lower = self.lower.as_ref().map(|(key, _)| key);
        let key = match (first, lower) {
            (Some(first), Some(lower)) if first <= lower => first.clone(),
            (Some(first), None) => first.clone(),
            _ => return Ok(self.lower.take().map(|(key, stored)| (key, Some(stored)))),
        };
        if lower == Some(&key) {
            self.lower = None;
        }
        let mut newest = None;
        for layer in &mut self.layers {
            let slot = layer.next_if(|(slot, _)| **slot == key);
            newest = newest.or(slot);
        }
        Ok(newest.map(|(_, stored)| (key, stored.clone())))
    }
}

impl Iterator for Merged<'_> {
    type Item = Result<Stored, Failure>;

    fn next(&mut self) -> Option<Result<Stored, Failure>> {
        loop {
            match self.step() {
                Ok(Some((key, Some(stored)))) => return Some(Ok((key, stored))),
                Ok(Some((_, None))) => {}
                Ok(None) => return None,
                Err(failure) => return Some(Err(failure)),
            }
        }
    }
}
