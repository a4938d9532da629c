//! Consistent walks over a store that goes on changing, by copy on write.
//!
//! sled 0.34's iterators see changes made while they run. So each [`Walk`] has an undo log ([`super::undo`]). The walk reads chunk by
//! chunk (what it needs of the fresh layer is copied, then the sealed layer and sled are read: what moves down meanwhile is seen at
//! least once, unchanged) and puts the recorded former entries of the chunk's range over what it read. Neither waits for the other
//! longer than it takes to look into the log, or to copy that part.

use std::collections::BTreeMap;
use std::sync::Arc;

use sled::IVec;

use super::database::Database;
use super::merged::{Merged, Stored};
use super::record::just_after;
use super::shared::Shared;
use crate::error::Failure;

const CHUNK_ENTRIES: usize = 512;
const CHUNK_BYTES: usize = 256 << 10;

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
