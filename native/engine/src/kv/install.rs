//! Replacing the whole store by a snapshot, so that a crash leaves the new state or a store that knows that it is empty.
//!
//! A mark is made durable first; a store that is opened with the mark on it is emptied. The last batch writes the notes
//! and takes the mark away.

use std::io;

use sled::Batch;

use super::layers::Layers;
use super::machine::KvMachine;
use super::op::check_key;
use super::record::{DATA, Digest, Meta, Phase, Record, fingerprint, key_in};
use super::shared::Mode;
use super::snapshot::{Loaded, PayloadReader};
use super::store::Store;
use crate::error::{Code, Failure};
use crate::machine::Note;

const BATCH_ENTRIES: usize = 512;
const BATCH_BYTES: usize = 1 << 20;

impl KvMachine {
    /// See [`crate::machine::StateMachine::install`]. Reads fail with `Unavailable` meanwhile; running snapshots fail; every
    /// watch gets a compacted event. Durable on return.
    pub(super) fn install_all(
        &mut self,
        index: u64,
        payload: &mut dyn io::Read,
        notes: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<(), Failure> {
        let mut payload = PayloadReader::begin(payload)?;
        if payload.revision > index {
            let message = format!("A snapshot of revision {} cannot be installed as of {index}.", payload.revision);
            return Err(Failure::new(Code::Corrupt, message));
        }
        // The writer waits meanwhile, and finds nothing to write.
        let behind = self.behind.clone();
        let mut store = behind.store();
        self.begin_install(&mut store)?;
        let entries = self.load(&mut store, &mut payload)?;
        store.sync()?;
        self.finish_install(&mut store, index, entries, notes)
    }

    fn begin_install(&mut self, store: &mut Store) -> Result<(), Failure> {
        self.shared.visible.write().mode = Mode::Installing;
        let replaced = Failure::new(Code::Unavailable, "The store was replaced by a snapshot while it was being read.");
        self.shared.undo.lose_all(&replaced);
        self.shared.visible.write().layers = Layers::default();
        self.meta = Meta { phase: Phase::Installing, ..Meta::default() };
        self.notes.clear();
        store.commit(Batch::default(), &self.meta)?;
        store.sync()?;
        store.clear()
    }

    fn load(&mut self, store: &mut Store, payload: &mut PayloadReader) -> Result<Digest, Failure> {
        let mut entries = Digest::default();
        let (mut batch, mut count, mut bytes, mut scratch) = (Batch::default(), 0, 0, Vec::new());
        while let Some(Loaded { key, create, modified, value }) = payload.next(entries)? {
            check_key(&key)?;
            let key = key_in(DATA, &key);
            let stored = Record { create, modified, value: &value }.store(&mut scratch);
            entries.add(fingerprint(&key, &stored));
            count += 1;
            bytes += key.len() + stored.len();
            batch.insert(key, stored);
            if count == BATCH_ENTRIES || bytes >= BATCH_BYTES {
                store.commit(std::mem::take(&mut batch), &self.meta)?;
                store.pace()?;
                (count, bytes) = (0, 0);
            }
        }
        store.commit(batch, &self.meta)?;
        Ok(entries)
    }

    fn finish_install(
        &mut self,
        store: &mut Store,
        index: u64,
        entries: Digest,
        notes: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<(), Failure> {
        let mut meta = Meta { revision: index, entries, ..Meta::default() };
        let notes: Vec<Note> = notes.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
        let mut batch = Batch::default();
        for (key, value) in self.take_notes(&notes, &mut meta) {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        store.commit(batch, &meta)?;
        store.sync()?;
        self.meta = meta;
        let mut visible = self.shared.visible.write();
        (visible.mode, visible.entries) = (Mode::at(meta.revision, visible.revision), meta.entries.count);
        visible.revision = visible.revision.max(meta.revision);
        let shown = visible.revision;
        drop(visible);
        self.shared.hub.lock().reset(shown);
        Ok(())
    }
}
