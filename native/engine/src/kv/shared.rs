//! What the machine and its readers share.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use parking_lot::{Mutex, RwLock};
use sled::IVec;

use super::database::Database;
use super::hub::Hub;
use super::layers::Layers;
use super::merged::Merged;
use super::undo::UndoLogs;
use crate::error::{Code, Failure};

/// Whether the store can be read.
#[derive(Clone, Debug)]
pub(super) enum Mode {
    Ready,
    /// A snapshot is being loaded, or its loading failed.
    Installing,
    /// The machine failed.
    Broken(String),
    /// The machine was opened anew and is behind the revision that was visible before.
    Behind,
    /// The machine was dropped.
    Closed,
}

impl Mode {
    /// For a store that is at `revision`, and was at `before` earlier: nobody may see an older state than was seen.
    pub fn at(revision: u64, before: u64) -> Mode {
        if revision < before { Mode::Behind } else { Mode::Ready }
    }
}

/// What is visible to readers. Applying holds it for writing while the effects of a call go into the layers, so whoever holds it for
/// reading sees the store at exactly `revision`.
pub(super) struct Visible {
    /// `None` after the machine was dropped, so that readers do not keep the directory locked.
    pub db: Option<Arc<Database>>,
    /// What lies over it.
    pub layers: Layers,
    pub mode: Mode,
    /// Never falls: what the mode says holds until the store is there again.
    pub revision: u64,
    pub entries: u64,
}

impl Visible {
    /// The store, at `revision` for as long as the lock is held. Fails when there is nothing to read, saying why.
    pub fn view(&self) -> Result<View<'_>, Failure> {
        match (&self.mode, &self.db) {
            (Mode::Ready, Some(db)) => Ok(View { layers: &self.layers, db }),
            (Mode::Installing, _) => {
                Err(Failure::new(Code::Unavailable, "The store is being replaced by a snapshot; try again."))
            }
            (Mode::Behind, _) => {
                Err(Failure::new(Code::Unavailable, "The store was opened anew and catches up; try again."))
            }
            (Mode::Broken(why), _) => {
                Err(Failure::new(Code::StateMachine, format!("The key-value store failed: {why}")))
            }
            (Mode::Closed, _) | (Mode::Ready, None) => Err(Failure::closed()),
        }
    }
}

/// The store as it is: the layers over sled.
pub(super) struct View<'a> {
    layers: &'a Layers,
    pub db: &'a Arc<Database>,
}

impl View<'_> {
    pub fn get(&self, key: &[u8]) -> Result<Option<IVec>, Failure> {
        match self.layers.find(key) {
            Some(stored) => Ok(stored),
            None => self.db.get(key).map_err(|error| self.db.read_failure("Reading an entry", &error)),
        }
    }

    /// The entries of `from..end`.
    pub fn range(&self, from: &[u8], end: &[u8]) -> Merged<'_> {
        Merged::over(self.layers.slots(), self.db, from, end)
    }
}

pub(super) struct Shared {
    pub visible: RwLock<Visible>,
    pub undo: UndoLogs,
    pub hub: Mutex<Hub>,
    /// Counts that are running.
    pub counts: AtomicUsize,
}

impl Shared {
    pub fn new(db: Arc<Database>, revision: u64, entries: u64) -> Shared {
        let visible = Visible { db: Some(db), layers: Layers::default(), mode: Mode::Ready, revision, entries };
        Shared {
            visible: RwLock::new(visible),
            undo: UndoLogs::default(),
            hub: Mutex::new(Hub::new(revision)),
            counts: AtomicUsize::new(0),
        }
    }
}
