//! What the machine and its readers share.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use parking_lot::{Mutex, RwLock};
use sled::Db;

use super::hub::Hub;
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

/// What is visible to readers. Applying holds it for writing while a batch goes into sled, so whoever holds it for reading
/// sees the store at exactly `revision`.
pub(super) struct Visible {
    /// `None` after the machine was dropped, so that readers do not keep the directory locked.
    pub db: Option<Db>,
    pub mode: Mode,
    /// Never falls: what the mode says holds until the store is there again.
    pub revision: u64,
    pub entries: u64,
}

impl Visible {
    /// The store, at `revision` for as long as the lock is held. Fails when there is nothing to read, saying why.
    pub fn db(&self) -> Result<&Db, Failure> {
        match (&self.mode, &self.db) {
            (Mode::Ready, Some(db)) => Ok(db),
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

pub(super) struct Shared {
    pub visible: RwLock<Visible>,
    pub undo: Arc<UndoLogs>,
    pub hub: Mutex<Hub>,
    /// Counts that are running.
    pub counts: AtomicUsize,
}

impl Shared {
    pub fn new(db: Db, revision: u64, entries: u64) -> Shared {
        let visible = Visible { db: Some(db), mode: Mode::Ready, revision, entries };
        Shared {
            visible: RwLock::new(visible),
            undo: Arc::default(),
            hub: Mutex::new(Hub::new(revision)),
            counts: AtomicUsize::new(0),
        }
    }
}
