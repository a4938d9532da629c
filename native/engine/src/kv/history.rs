//! The recent changes, in memory, for watches that start in the past.

use std::collections::VecDeque;

use sled::IVec;

use super::op::Event;
use super::record::Record;
use crate::limits::{WATCH_HISTORY_BYTES, WATCH_HISTORY_CHANGES};

/// One change of one key.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub revision: u64,
    /// With its space byte.
    pub key: IVec,
    /// The new stored entry; `None` for a delete.
    pub stored: Option<IVec>,
}

impl Change {
    /// The user's key.
    pub fn user_key(&self) -> &[u8] {
        &self.key[1..]
    }

    /// The event that tells of it.
    pub fn event(&self) -> Vec<u8> {
        // An entry that the overlay has just made is always long enough to parse.
        match self.stored.as_deref().and_then(|stored| Record::parse(stored).ok()) {
            Some(record) => Event::put_bytes(self.revision, self.user_key(), record.create, record.value),
            None => Event::delete_bytes(self.revision, self.user_key()),
        }
    }

    fn bytes(&self) -> usize {
        std::mem::size_of::<Change>() + self.key.len() + self.stored.as_ref().map_or(0, |stored| stored.len())
    }
}

/// Changes in order, none missing of the revisions from `oldest` to `current`, bounded in number and bytes.
pub(super) struct History {
    changes: VecDeque<Change>,
    bytes: usize,
    /// Position of the first change kept, counted from the start of this history.
    first: u64,
    oldest: u64,
    current: u64,
    changes_max: usize,
    bytes_max: usize,
}

impl History {
    /// Empty, with the next change to come after revision `current`.
    pub fn new(current: u64) -> History {
        History::bounded(current, WATCH_HISTORY_CHANGES, WATCH_HISTORY_BYTES)
    }

    pub(super) fn bounded(current: u64, changes_max: usize, bytes_max: usize) -> History {
        let changes = VecDeque::new();
        History { changes, bytes: 0, first: 0, oldest: current + 1, current, changes_max, bytes_max }
    }

    /// The oldest revision from which on every change is kept.
    pub fn oldest(&self) -> u64 {
        self.oldest
    }

    /// The revision up to which changes were appended.
    pub fn current(&self) -> u64 {
        self.current
    }

    /// Forgets everything; the next change comes after `current`.
    pub fn reset(&mut self, current: u64) {
        // Positions handed out before must not mean anything in the new history.
        let first = self.first + self.changes.len() as u64 + 1;
        *self = History { first, ..History::bounded(current, self.changes_max, self.bytes_max) };
    }

    /// Appends the changes of the revisions up to `current`.
    pub fn append(&mut self, current: u64, changes: Vec<Change>) {
        self.current = current;
        self.bytes += changes.iter().map(Change::bytes).sum::<usize>();
        self.changes.extend(changes);
        self.evict();
    }

    /// What is left of a revision that lost a change stays unseen: `oldest` lies past it.
    fn evict(&mut self) {
        while self.changes.len() > self.changes_max || self.bytes > self.bytes_max {
            let Some(front) = self.changes.pop_front() else { return };
            self.oldest = front.revision + 1;
            self.bytes -= front.bytes();
            self.first += 1;
        }
    }

    /// Position of the first change of `revision` or later. `None` when some of those are gone.
    pub fn position(&self, revision: u64) -> Option<u64> {
        if revision < self.oldest {
            return None;
        }
        Some(self.first + self.changes.partition_point(|change| change.revision < revision) as u64)
    }

    /// Up to `count` changes from `position` on; `None` when some of those are gone.
    pub fn from(&self, position: u64, count: usize) -> Option<Vec<Change>> {
        let skip = position.checked_sub(self.first)? as usize;
        Some(self.changes.iter().skip(skip).take(count).cloned().collect())
    }
}
