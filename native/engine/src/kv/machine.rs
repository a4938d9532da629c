//! [`KvMachine`]: the state machine that the engine drives.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sled::{Batch, IVec};

use super::execute::execute;
use super::overlay::{Effects, Overlay};
use super::panics::panic_message;
use super::reader::KvReader;
use super::record::{Meta, NOTE, fingerprint, key_in};
use super::recover::{self, Recovered};
use super::shared::{Mode, Shared};
use super::snapshot::KvFrozen;
use super::store::{Store, sled_failure};
use crate::error::Failure;
use crate::machine::{Applied, Committed, Frozen, Note, Reviver, StateMachine};

/// The key-value store. One thread drives it; [`KvReader`]s read beside it.
///
/// Entries, notes and the revision change together, in one sled batch a call. sled never holds the only copy: after a
/// power cut the store may be older than what was applied, or, when sled lost more than that, set aside and
/// empty (see [`KvMachine::was_reset`]); the engine's snapshot and log bring it back.
pub struct KvMachine {
    pub(super) store: Store,
    pub(super) shared: Arc<Shared>,
    pub(super) meta: Meta,
    /// Fingerprint of each note, so that replacing one need not read it.
    pub(super) notes: HashMap<Vec<u8>, u64>,
    broken: Option<Failure>,
    reset: Option<String>,
}

impl KvMachine {
    /// Opens the store in `dir`, or makes an empty one there. Reads every record once to verify that they are whole.
    /// Damage is no failure: the directory is renamed to `<dir>.corrupt-<unix ms>` and the store starts empty.
    ///
    /// Fails with `Locked` when another process has it open, `Io` when the disk or the file system fails.
    pub fn open(dir: &Path) -> Result<(KvMachine, KvReader), Failure> {
        let Recovered { store, meta, notes, reset } = recover::open(dir)?;
        let shared = Arc::new(Shared::new(store.db.clone(), meta.revision, meta.entries.count));
        let reader = KvReader::new(shared.clone());
        Ok((KvMachine { store, shared, meta, notes, broken: None, reset }, reader))
    }

    /// [`KvMachine::open`] for the readers of an earlier machine, which failed and was dropped.
    fn reopen(dir: &Path, shared: Arc<Shared>) -> Result<KvMachine, Failure> {
        let Recovered { store, meta, notes, reset } = recover::open(dir)?;
        let mut visible = shared.visible.write();
        visible.db = Some(store.db.clone());
        visible.mode = Mode::at(meta.revision, visible.revision);
        visible.entries = meta.entries.count;
        drop(visible);
        Ok(KvMachine { store, shared, meta, notes, broken: None, reset })
    }

    /// Why the store was set aside and started empty when it was opened; `None` when it was not.
    pub fn was_reset(&self) -> Option<String> {
        self.reset.clone()
    }

    /// Runs `step`; a failure or a panic in it breaks the machine for good, since what sled holds in memory is
    /// then unknown.
    fn guarded<T>(&mut self, step: impl FnOnce(&mut KvMachine) -> Result<T, Failure>) -> Result<T, Failure> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let result = catch_unwind(AssertUnwindSafe(|| step(self))).unwrap_or_else(|panic| {
            Err(Failure::internal(format!("The key-value store panicked: {}", panic_message(panic.as_ref()))))
        });
        result.inspect_err(|failure| {
            self.broken = Some(failure.clone());
            self.shared.visible.write().mode = Mode::Broken(failure.message.clone());
        })
    }

    fn apply_all(&mut self, commands: &[Committed], notes: &[Note]) -> Result<Applied, Failure> {
        let mut meta = self.meta;
        let mut overlay = Overlay::new(&self.store.db, commands.len());
        let mut outcomes = Vec::with_capacity(commands.len());
        for command in commands {
            if command.index <= meta.revision {
                let (index, revision) = (command.index, meta.revision);
                return Err(Failure::internal(format!("Command {index} came after revision {revision}.")));
            }
            outcomes.push(execute(&mut overlay, command)?);
            meta.revision = command.index;
        }
        let mut effects = overlay.finish(&mut meta.entries);
        self.take_notes(notes, &mut effects.batch, &mut meta);
        self.commit(effects, meta)?;
        Ok(Applied::Now(outcomes))
    }

    pub(super) fn take_notes(&mut self, notes: &[Note], batch: &mut Batch, meta: &mut Meta) {
        for (key, value) in notes {
            let full = key_in(NOTE, key);
            if let Some(old) = self.notes.remove(key) {
                meta.notes.remove(old);
            }
            match value {
                Some(value) => {
                    let print = fingerprint(&full, value);
                    meta.notes.add(print);
                    self.notes.insert(key.clone(), print);
                    batch.insert(full, value.as_slice());
                }
                None => batch.remove(full),
            }
        }
    }

    fn commit(&mut self, effects: Effects, mut meta: Meta) -> Result<(), Failure> {
        let mut visible = self.shared.visible.write();
        self.shared.undo.record(&effects.before);
        self.store.commit(effects.batch, &mut meta)?;
        let before = visible.revision;
        visible.mode = Mode::at(meta.revision, before);
        visible.revision = before.max(meta.revision);
        visible.entries = meta.entries.count;
        drop(visible);
        if meta.revision > before {
            // A machine that was opened anew repeats what was told already.
            let news = effects.changes.into_iter().filter(|change| change.revision > before);
            self.shared.hub.lock().publish(meta.revision, news.collect());
        }
        self.meta = meta;
        self.store.pace(meta.batches)
    }
}

impl StateMachine for KvMachine {
    fn load_notes(&mut self) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Failure> {
        self.guarded(|machine| {
            let items = machine.store.db.scan_prefix([NOTE]);
            items
                .map(|item| item.map(|(key, value): (IVec, IVec)| (key[1..].to_vec(), value.to_vec())))
                .collect::<Result<_, _>>()
                .map_err(|error| sled_failure("Reading the notes", &error))
        })
    }

    fn apply(&mut self, commands: &[Committed], notes: &[Note]) -> Result<Applied, Failure> {
        if commands.is_empty() && notes.is_empty() && self.broken.is_none() {
            return Ok(Applied::Now(Vec::new()));
        }
        self.guarded(|machine| machine.apply_all(commands, notes))
    }

    fn freeze(&mut self) -> Result<Box<dyn Frozen>, Failure> {
        self.guarded(|machine| Ok(KvFrozen::begin(&machine.shared.undo, &machine.store.db, machine.meta) as _))
    }

    fn install(&mut self, index: u64, payload: &mut dyn io::Read, notes: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Failure> {
        self.guarded(|machine| machine.install_all(index, payload, notes))
    }

    fn checkpoint(&mut self) -> Result<(), Failure> {
        self.guarded(|machine| machine.store.sync(machine.meta.batches))
    }

    fn reviver(&self) -> Option<Box<dyn Reviver>> {
        Some(Box::new(KvReviver { dir: self.store.dir.clone(), shared: self.shared.clone() }))
    }
}

/// Opens a store anew that failed.
struct KvReviver {
    dir: PathBuf,
    shared: Arc<Shared>,
}

impl Reviver for KvReviver {
    fn revive(&mut self) -> Result<Box<dyn StateMachine>, Failure> {
        self.shared.visible.write().mode = Mode::Broken("it is being opened again.".into());
        Ok(Box::new(KvMachine::reopen(&self.dir, self.shared.clone())?))
    }
}

impl Drop for KvMachine {
    fn drop(&mut self) {
        self.shared.undo.lose_all(&Failure::closed());
        let mut visible = self.shared.visible.write();
        // One that failed may be opened again.
        if !matches!(visible.mode, Mode::Broken(_)) {
            visible.mode = Mode::Closed;
        }
        visible.db = None;
    }
}
