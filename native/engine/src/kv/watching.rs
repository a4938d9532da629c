//! Starting and ending watches.

use std::sync::Arc;

use super::history::Change;
use super::hub::{Watch, WatchSink};
use super::op::{Event, check_key, check_prefix};
use super::reader::KvReader;
use crate::error::Failure;

/// Changes of the past delivered at a time, so that applies wait only so long.
const REPLAY_CHANGES: usize = 512;

impl KvReader {
    /// Starts a watch on `key` (`exact`) or on all keys that begin with it, from the changes of revision `from` on (0:
    /// from the next one). Past changes are delivered before this returns, later ones as they are applied: in order, each
    /// once, until [`KvReader::unwatch`]. When `from` is no longer in the history (which is empty after a start and
    /// after the installation of a snapshot) the first event is *compacted*. Returns the watch's id.
    ///
    /// Fails with `Invalid` when `key` is out of bounds, `Overloaded` when there are
    /// [`WATCHES_MAX`](crate::limits::WATCHES_MAX) watches; perhaps after events were delivered.
    pub fn watch(&self, from: u64, exact: bool, key: &[u8], sink: Arc<dyn WatchSink>) -> Result<u64, Failure> {
        if exact {
            check_key(key)?
        } else {
            check_prefix(key)?
        };
        let mut hub = self.shared.hub.lock();
        hub.check_room()?;
        let from = if from == 0 { hub.history.current() + 1 } else { from };
        let mut watch = Watch { sink, from, exact, key: key.to_vec() };
        let mut position = hub.history.position(from);
        loop {
            // Whatever was evicted while the lock was free is a gap, like a start before the history.
            let chunk = position.and_then(|position| hub.history.from(position, REPLAY_CHANGES));
            let Some(chunk) = chunk else {
                let oldest = hub.history.oldest();
                watch.from = oldest;
                if !watch.sink.event(Event::Compacted { oldest }.encode()) {
                    return hub.register(watch, true);
                }
                position = hub.history.position(oldest);
                continue;
            };
            if chunk.len() < REPLAY_CHANGES {
                let owes = !replay(&watch, &chunk);
                return hub.register(watch, owes);
            }
            drop(hub);
            let taken = replay(&watch, &chunk);
            hub = self.shared.hub.lock();
            if !taken {
                return hub.register(watch, true);
            }
            position = position.map(|position| position + chunk.len() as u64);
        }
    }

    /// Ends a watch; false when there is none of this id. No event comes after this has returned.
    pub fn unwatch(&self, id: u64) -> bool {
        self.shared.hub.lock().unregister(id)
    }

    /// Offers each watch that missed something its compacted event again. To be called when a sink has room again: without
    /// it the event waits for the next change.
    pub fn settle_watches(&self) {
        self.shared.hub.lock().settle();
    }

    /// Delivers a progress event to watch `id`. False when there is no such watch, or it is behind.
    pub fn progress(&self, id: u64) -> bool {
        self.shared.hub.lock().progress(id)
    }
}

fn replay(watch: &Watch, changes: &[Change]) -> bool {
    changes.iter().filter(|change| watch.wants(change)).all(|change| watch.sink.event(change.event()))
}
