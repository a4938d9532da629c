//! Watches: who wants which changes, and what each of them still owes.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::history::{Change, History};
use super::interest::Interest;
use super::op::Event;
use crate::error::{Code, Failure};
use crate::limits::WATCHES_MAX;

/// Where a watch delivers its events. Called under a lock, from the thread that applies and from those that
/// call [`KvReader`](super::KvReader): it must not block and must not call the reader.
pub trait WatchSink: Send + Sync {
    /// Takes `event` (see [`super::op`]), or answers false when it cannot: the event is then lost to this watch, which owes
    /// a compacted event instead, and delivers that as soon as the sink takes it.
    fn event(&self, event: Vec<u8>) -> bool;
}

/// One registered watch.
pub(super) struct Watch {
    pub sink: Arc<dyn WatchSink>,
    /// The first revision that it wants.
    pub from: u64,
    pub exact: bool,
    /// The key, or the prefix.
    pub key: Vec<u8>,
}

impl Watch {
    pub fn wants(&self, change: &Change) -> bool {
        let key = change.user_key();
        let matches = if self.exact { key == self.key } else { key.starts_with(&self.key) };
        matches && change.revision >= self.from
    }
}

/// All watches of a store and the history that they start from.
pub(super) struct Hub {
    pub history: History,
    watches: HashMap<u64, Watch>,
    interest: Interest,
    /// Watches that missed something and have not yet been told.
    owing: BTreeSet<u64>,
    next_id: u64,
}

impl Hub {
    pub fn new(revision: u64) -> Hub {
        Hub {
            history: History::new(revision),
            watches: HashMap::new(),
            interest: Interest::default(),
            owing: BTreeSet::new(),
            next_id: 0,
        }
    }

    /// Fails with `Overloaded` when there are [`WATCHES_MAX`] watches.
    pub fn check_room(&self) -> Result<(), Failure> {
        if self.watches.len() < WATCHES_MAX {
            return Ok(());
        }
        Err(Failure::new(Code::Overloaded, format!("{WATCHES_MAX} watches are registered already.")))
    }

    /// Registers a watch that has got everything up to now, or `owes`.
    pub fn register(&mut self, watch: Watch, owes: bool) -> Result<u64, Failure> {
        self.check_room()?;
        self.next_id += 1;
        let id = self.next_id;
        self.interest.add(id, watch.exact, &watch.key);
        self.watches.insert(id, watch);
        if owes {
            self.owing.insert(id);
        }
        Ok(id)
    }

    /// False when there is no such watch.
    pub fn unregister(&mut self, id: u64) -> bool {
        let Some(watch) = self.watches.remove(&id) else { return false };
        self.interest.remove(id, watch.exact, &watch.key);
        self.owing.remove(&id);
        true
    }

    /// Delivers the changes of the revisions up to `revision`.
    pub fn publish(&mut self, revision: u64, changes: Vec<Change>) {
        self.settle();
        if !self.watches.is_empty() {
            changes.iter().for_each(|change| self.deliver(change));
        }
        self.history.append(revision, changes);
    }

    fn deliver(&mut self, change: &Change) {
        for id in self.interest.of(change.user_key()) {
            let Some(watch) = self.watches.get(&id) else { continue };
            let due = change.revision >= watch.from && !self.owing.contains(&id);
            if due && !watch.sink.event(change.event()) {
                self.owing.insert(id);
            }
        }
    }

    /// Tells the watches that missed something, as far as their sinks take it; each goes on with what comes next.
    pub fn settle(&mut self) {
        let next = self.history.current() + 1;
        let watches = &mut self.watches;
        self.owing.retain(|id| {
            let Some(watch) = watches.get_mut(id) else { return false };
            watch.from = watch.from.max(next);
            !watch.sink.event(Event::Compacted { oldest: next }.encode())
        });
    }

    /// Tells watch `id` how far it has come. False when there is none, it owes, or its sink does not take it.
    pub fn progress(&self, id: u64) -> bool {
        let event = Event::Progress { revision: self.history.current() };
        match self.watches.get(&id) {
            Some(watch) if !self.owing.contains(&id) => watch.sink.event(event.encode()),
            _ => false,
        }
    }

    /// The state was replaced as of `revision`: everything up to it is lost to all watches.
    pub fn reset(&mut self, revision: u64) {
        self.history.reset(revision);
        self.owing.extend(self.watches.iter().filter(|(_, watch)| watch.from <= revision).map(|(id, _)| *id));
        self.settle();
    }
}
