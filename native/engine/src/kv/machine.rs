//! [`KvMachine`]: the state machine that the engine drives.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sled::IVec;

use super::behind::{Behind, Drive};
use super::database::{Database, Ending};
use super::execute::execute;
use super::layers::{self, Layers};
use super::merged::Merged;
use super::overlay::{Effects, Overlay};
use super::panics::panic_message;
use super::reader::KvReader;
use super::record::{Meta, NOTE, NOTE_END, fingerprint, key_in};
use super::recover::{self, Recovered};
use super::shared::{Mode, Shared};
use super::snapshot::KvFrozen;
use super::store::Store;
use crate::error::{Code, Failure};
use crate::machine::{Alarm, Applied, Committed, Frozen, Note, Reviver, StateMachine};
use crate::surroundings::is_inline;

/// The key-value store. One thread drives it; [`KvReader`]s read beside it.
///
/// Entries, notes and the revision change together, first in memory; a thread moves them to sled, each time up to the end of a call.
/// sled never holds the only copy: after a crash the store is older than what was applied, or, when sled lost more than
/// that, set aside and empty (see [`KvMachine::was_reset`]); the engine's snapshot and log bring it back.
pub struct KvMachine {
    pub(super) behind: Arc<Behind>,
    pub(super) db: Arc<Database>,
    dir: PathBuf,
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
        KvMachine::open_driven(dir, drive())
    }

    pub(super) fn open_driven(dir: &Path, drive: Drive) -> Result<(KvMachine, KvReader), Failure> {
        let recovered = recover::open(dir)?;
        let (db, meta) = (recovered.store.db.clone(), &recovered.meta);
        let shared = Arc::new(Shared::new(db, meta.revision, meta.entries.count));
        let reader = KvReader::new(shared.clone());
        Ok((KvMachine::over(recovered, shared, drive)?, reader))
    }

    fn over(recovered: Recovered, shared: Arc<Shared>, drive: Drive) -> Result<KvMachine, Failure> {
        let Recovered { store, meta, notes, reset } = recovered;
        let Store { db, dir, .. } = &store;
        let (db, dir) = (db.clone(), dir.clone());
        let behind = Behind::start(store, shared.clone(), drive)?;
        Ok(KvMachine { behind, db, dir, shared, meta, notes, broken: None, reset })
    }

    /// For the readers of an earlier machine, which failed and was dropped.
    fn over_again(recovered: Recovered, shared: Arc<Shared>) -> Result<KvMachine, Failure> {
        let meta = &recovered.meta;
        let mut visible = shared.visible.write();
        visible.db = Some(recovered.store.db.clone());
        visible.mode = Mode::at(meta.revision, visible.revision);
        visible.entries = meta.entries.count;
        drop(visible);
        KvMachine::over(recovered, shared, drive())
    }

    /// Why the store was set aside and started empty when it was opened; `None` when it was not.
    pub fn was_reset(&self) -> Option<String> {
        self.reset.clone()
    }

    /// Runs `step`; a failure or a panic in it, or of the writer, breaks the machine for good, since what sled holds in memory
    /// is then unknown.
    fn guarded<T>(&mut self, step: impl FnOnce(&mut KvMachine) -> Result<T, Failure>) -> Result<T, Failure> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let result = catch_unwind(AssertUnwindSafe(|| self.behind.check().and_then(|()| step(self))));
        let result = result.unwrap_or_else(|panic| {
            Err(Failure::internal(format!("The key-value store panicked: {}", panic_message(panic.as_ref()))))
        });
        result.inspect_err(|failure| {
            self.broken = Some(failure.clone());
            self.shared.visible.write().mode = Mode::Broken(failure.message.clone());
        })
    }

    fn apply_all(&mut self, commands: &[Committed], notes: &[Note]) -> Result<Applied, Failure> {
        let mut meta = self.meta;
        let mut overlay = Overlay::new(&self.shared, &self.db, commands.len());
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
        effects.changed.extend(self.take_notes(notes, &mut meta));
        self.commit(effects, meta)?;
        Ok(Applied::Now(outcomes))
    }

    /// What `notes` change; `meta` is brought up to date with them.
    pub(super) fn take_notes(&mut self, notes: &[Note], meta: &mut Meta) -> Vec<layers::Change> {
        let mut changed = Vec::with_capacity(notes.len());
        for (key, value) in notes {
            let full = key_in(NOTE, key);
            if let Some(old) = self.notes.remove(key) {
                meta.notes.remove(old);
            }
            if let Some(value) = value {
                let print = fingerprint(&full, value);
                meta.notes.add(print);
                self.notes.insert(key.clone(), print);
            }
            changed.push((IVec::from(full), value.as_deref().map(IVec::from)));
        }
        changed
    }

    fn commit(&mut self, effects: Effects, meta: Meta) -> Result<(), Failure> {
        self.behind.await_room()?;
        let mut visible = self.shared.visible.write();
        // A writer that fails from here on breaks the mode after this call has set it.
        self.behind.check()?;
        self.shared.undo.record(&effects.before);
        let fill = visible.layers.fill();
        visible.layers.enter(effects.changed, meta);
        let filled = visible.layers.fill();
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
        self.behind.applied(fill, filled)
    }
}

impl StateMachine for KvMachine {
    fn load_notes(&mut self) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Failure> {
        self.guarded(|machine| {
            let visible = machine.shared.visible.read();
            let items = Merged::over(visible.layers.slots(), &machine.db, &[NOTE], &[NOTE_END]);
            items.map(|item| item.map(|(key, value)| (key[1..].to_vec(), value.to_vec()))).collect()
        })
    }

    fn apply(&mut self, commands: &[Committed], notes: &[Note]) -> Result<Applied, Failure> {
        self.guarded(|machine| match (commands, notes) {
            ([], []) => Ok(Applied::Now(Vec::new())),
            _ => machine.apply_all(commands, notes),
        })
    }

    fn freeze(&mut self) -> Result<Box<dyn Frozen>, Failure> {
        self.guarded(|machine| Ok(KvFrozen::begin(&machine.shared, &machine.db, machine.meta) as _))
    }

    fn install(&mut self, index: u64, payload: &mut dyn io::Read, notes: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Failure> {
        self.guarded(|machine| machine.install_all(index, payload, notes))
    }

    fn checkpoint(&mut self) -> Result<(), Failure> {
        self.guarded(|machine| {
            machine.behind.write_all()?;
            machine.behind.store().sync()
        })
    }

    fn on_failure(&mut self, alarm: Alarm) {
        self.behind.on_failure(alarm);
    }

    fn reviver(&self) -> Option<Box<dyn Reviver>> {
        let (dir, shared, ending) = (self.dir.clone(), self.shared.clone(), self.db.ending());
        Some(Box::new(KvReviver { dir, shared, ending }))
    }
}

/// How a machine that is opened on this thread has its layers written.
fn drive() -> Drive {
    if is_inline() { Drive::EachCall } else { Drive::Thread }
}

/// Opens a store anew that failed.
struct KvReviver {
    dir: PathBuf,
    shared: Arc<Shared>,
    /// Of the one that failed.
    ending: Arc<Ending>,
}

impl Reviver for KvReviver {
    fn revive(&mut self) -> Result<Box<dyn StateMachine>, Failure> {
        self.shared.visible.write().mode = Mode::Broken("it is being opened again.".into());
        let recovered = match recover::open(&self.dir) {
            Err(failure) if failure.code == Code::Locked && self.ending.is_kept() => recover::replace(&self.dir)?,
            other => other?,
        };
        Ok(Box::new(KvMachine::over_again(recovered, self.shared.clone())?))
    }
}

impl Drop for KvMachine {
    fn drop(&mut self) {
        self.shared.undo.lose_all(&Failure::closed());
        if self.behind.stop() && self.broken.is_none() {
            self.db.ending().seal(self.dir.clone());
        }
        let mut visible = self.shared.visible.write();
        // One that failed may be opened again.
        if !matches!(visible.mode, Mode::Broken(_)) {
            visible.mode = Mode::Closed;
        }
        visible.db = None;
        visible.layers = Layers::default();
    }
}
