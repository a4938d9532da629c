//! Consistent walks over a store that goes on changing, by copy on write.
//!
//! sled 0.34's iterators see changes made while they run. So each [`Walk`] has an undo log: from its start on, an apply
//! records what a key held before its first change, unless the walk has passed that key. The walk reads chunk by chunk (what it needs of
//! the fresh layer is copied, then the sealed layer and sled are read: what moves down meanwhile is seen at least once, unchanged)
//! and puts the recorded former entries of the chunk's range over what it read. Neither waits for the other
//! longer than it takes to look into the log, or to copy that part.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use sled::IVec;

use super::database::Database;
use super::merged::{Merged, Stored};
use super::record::just_after;
use super::shared::Shared;
use crate::error::{Code, Failure};
use crate::limits::UNDO_BYTES_MAX;

const CHUNK_ENTRIES: usize = 512;
const CHUNK_BYTES: usize = 256 << 10;
/// What a recorded entry costs besides its bytes.
const OVERHEAD_BYTES: usize = 96;

#[derive(Default)]
pub(super) struct UndoLogs {
    logs: Mutex<Logs>,
}

#[derive(Default)]
struct Logs {
    next_id: u64,
    running: Vec<UndoLog>,
}

struct UndoLog {
    id: u64,
    /// What the walk has still to read begins here (inclusive) …
    from: Vec<u8>,
    /// … and ends before this.
    end: Vec<u8>,
    before: BTreeMap<IVec, Option<IVec>>,
    bytes: usize,
    bytes_max: usize,
    lost: Option<Failure>,
}

impl UndoLog {
    fn record(&mut self, key: &IVec, before: &Option<IVec>) {
        let awaited = self.from.as_slice() <= key.as_ref() && key.as_ref() < self.end.as_slice();
        if self.lost.is_some() || !awaited || self.before.contains_key(key) {
            return;
        }
        self.bytes += OVERHEAD_BYTES + key.len() + before.as_ref().map_or(0, |stored| stored.len());
        if self.bytes > self.bytes_max {
            let message =
                format!("More than {} bytes changed while the store was being read; try again.", self.bytes_max);
            return self.lose(Failure::new(Code::Overloaded, message));
        }
        self.before.insert(key.clone(), before.clone());
    }

    fn lose(&mut self, why: Failure) {
        self.before.clear();
        self.lost = Some(why);
    }
}

impl UndoLogs {
    /// To be called before the change becomes visible.
    pub fn record(&self, before: &[(IVec, Option<IVec>)]) {
        let mut logs = self.logs.lock();
        for log in &mut logs.running {
            before.iter().for_each(|(key, before)| log.record(key, before));
        }
    }

    /// Ends every running walk with `why` at its next step.
    pub fn lose_all(&self, why: &Failure) {
        self.logs.lock().running.iter_mut().for_each(|log| log.lose(why.clone()));
    }

    fn begin(&self, from: Vec<u8>, end: Vec<u8>) -> u64 {
        let mut logs = self.logs.lock();
        logs.next_id += 1;
        let id = logs.next_id;
        let (before, bytes_max) = (BTreeMap::new(), UNDO_BYTES_MAX);
        logs.running.push(UndoLog { id, from, end, before, bytes: 0, bytes_max, lost: None });
        id
    }

    /// Takes what was recorded below `next` and stops recording there.
    fn pass(&self, id: u64, next: &[u8]) -> Result<BTreeMap<IVec, Option<IVec>>, Failure> {
        let mut logs = self.logs.lock();
        let Some(log) = logs.running.iter_mut().find(|log| log.id == id) else {
            return Err(Failure::internal("A walk over the store has no undo log."));
        };
        if let Some(why) = &log.lost {
            return Err(why.clone());
        }
        let rest = log.before.split_off(next);
        let passed = std::mem::replace(&mut log.before, rest);
        for (key, before) in &passed {
            log.bytes -= OVERHEAD_BYTES + key.len() + before.as_ref().map_or(0, |stored| stored.len());
        }
        log.from = next.to_vec();
        Ok(passed)
    }

    fn end(&self, id: u64) {
        self.logs.lock().running.retain(|log| log.id != id);
    }

    #[cfg(test)]
    pub fn running(&self) -> usize {
        self.logs.lock().running.len()
    }
}

/// Reads a range of keys as it was when the walk began. Dropping it ends the recording.
pub(super) struct Walk {
    shared: Arc<Shared>,
    db: Arc<Database>,
    id: u64,
    from: Vec<u8>,
    end: Vec<u8>,
    done: bool,
}

impl Walk {
    /// Begins a walk over the keys of `from..end`. No batch may be applied during this call.
    pub fn begin(shared: &Arc<Shared>, db: &Arc<Database>, from: Vec<u8>, end: Vec<u8>) -> Walk {
        let id = shared.undo.begin(from.clone(), end.clone());
        Walk { shared: shared.clone(), db: db.clone(), id, from, end, done: false }
    }

    /// The next entries in the order of their keys; perhaps none, `None` at the end. Fails when sled does, when the state
    /// was replaced or closed meanwhile, or with `Overloaded` when too much changed.
    pub fn next_chunk(&mut self) -> Result<Option<Vec<Stored>>, Failure> {
        if self.done {
            return Ok(None);
        }
        let (chunk, next) = self.read_chunk()?;
        self.done = next.is_none();
        self.from = next.unwrap_or_else(|| self.end.clone());
        let undo = self.shared.undo.pass(self.id, &self.from)?;
        Ok(Some(if undo.is_empty() { chunk } else { overlaid(chunk, undo) }))
    }

    /// Entries as they are now, and where the next chunk begins.
    fn read_chunk(&self) -> Result<(Vec<Stored>, Option<Vec<u8>>), Failure> {
        let (mut chunk, mut bytes) = (Vec::with_capacity(CHUNK_ENTRIES), 0);
        let (fresh, sealed, end) = self.shared.visible.read().layers.part(&self.from, &self.end, CHUNK_ENTRIES);
        let layers = std::iter::once(&fresh).chain(sealed.as_ref().map(|sealed| &sealed.slots));
        for item in Merged::over(layers, &self.db, &self.from, &end) {
            let (key, stored) = item?;
            bytes += key.len() + stored.len();
            chunk.push((key, stored));
            if chunk.len() == CHUNK_ENTRIES || bytes >= CHUNK_BYTES {
                let next = chunk.last().map(|(key, _)| just_after(key));
                return Ok((chunk, next));
            }
        }
        Ok((chunk, (end != self.end).then_some(end)))
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        self.shared.undo.end(self.id);
    }
}

fn overlaid(chunk: Vec<Stored>, undo: BTreeMap<IVec, Option<IVec>>) -> Vec<Stored> {
    let mut merged: BTreeMap<IVec, IVec> = chunk.into_iter().collect();
    for (key, before) in undo {
        match before {
            Some(stored) => merged.insert(key, stored),
            None => merged.remove(&key),
        };
    }
    merged.into_iter().collect()
}
