//! sled, and letting go of it.
//!
//! Dropping sled's last handle writes what it has in memory, and waits for that. After a blob file (a node over about 128 KiB)
//! could not be written, as on a full disk, sled 0.34 counts that write as under way still and would wait for ever, with a
//! lock held that every sled of the process needs (`concurrency_control`). Such a database is not dropped: it keeps some memory
//! and the lock of its directory as long as the process lives, and nothing else.

use std::io::{self, ErrorKind};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use sled::{Batch, Db, Error};

use super::seal;
use crate::error::{Code, Failure};

/// Databases that this process keeps for ever.
static KEPT: AtomicUsize = AtomicUsize::new(0);

/// A [`Failure`] that says what was being done (`doing`) when sled reported `error`.
pub(super) fn sled_failure(doing: &str, error: &sled::Error) -> Failure {
    let code = match error {
        sled::Error::Io(error) => io_code(error),
        sled::Error::Corruption { .. } | sled::Error::Unsupported(_) => Code::Corrupt,
        _ => Code::Internal,
    };
    Failure::new(code, format!("{doing}: {error}"))
}

/// sled reports damage that it finds as errors of kind `Other` and lost files as missing ones; what the operating system
/// says otherwise is about the disk or the file system.
fn io_code(error: &io::Error) -> Code {
    use io::ErrorKind::{InvalidData, InvalidInput, NotFound, Other, UnexpectedEof};
    match error.kind() {
        Other if error.to_string().contains("could not acquire lock") => Code::Locked,
        Other | NotFound | UnexpectedEof | InvalidData | InvalidInput => Code::Corrupt,
        _ => Code::Io,
    }
}

/// How the database of a machine that was dropped ended.
#[derive(Default)]
pub(super) struct Ending {
    /// Something may not have been written of which sled does not know.
    doubtful: AtomicBool,
    /// It was not dropped.
    kept: AtomicBool,
    /// Where sled's files are to be sealed once it has closed.
    sealed: Mutex<Option<PathBuf>>,
}

impl Ending {
    /// True when the directory stays locked as long as this process lives.
    pub fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Acquire)
    }

    /// What is in memory is whole, and goes to `dir` when sled closes.
    pub fn seal(&self, dir: PathBuf) {
        *self.sealed.lock() = Some(dir);
    }

    fn closed(&self) {
        let sealed = self.sealed.lock().take();
        if let Some(Err(error)) = sealed.map(|dir| seal::write(&dir)) {
            tracing::warn!("The key-value store was not sealed, and takes longer to open: {error}");
        }
    }
}

/// How many databases this process keeps for ever.
pub(super) fn kept() -> usize {
    KEPT.load(Ordering::Acquire)
}

/// An open database; derefs to sled's own handle.
pub(super) struct Database {
    db: Db,
    /// Declared, and so dropped, after it.
    last: Last,
}

impl Database {
    pub fn new(db: Db) -> Arc<Database> {
        let last = Last { db: Some(db.clone()), ending: Arc::default() };
        Arc::new(Database { db, last })
    }

    /// What will say how it ended.
    pub fn ending(&self) -> Arc<Ending> {
        self.last.ending.clone()
    }

    /// What sled reported while `doing` something that reads. A read that splits a node writes, too.
    pub fn read_failure(&self, doing: &str, error: &Error) -> Failure {
        use ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let wrote = matches!(error, Error::Io(error) if
            matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem | FileTooLarge));
        self.doubt(wrote);
        sled_failure(doing, error)
    }

    /// What sled reported while `doing` something that writes.
    pub fn write_failure(&self, doing: &str, error: &Error) -> Failure {
        self.doubt(matches!(error, Error::Io(_)));
        sled_failure(doing, error)
    }

    /// Before sled is made to wait for its writes, which it might do for ever. Fails with `Io`.
    pub fn check(&self) -> Result<(), Failure> {
        match self.last.ending.doubtful.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err(Failure::new(Code::Io, "sled could not write a part of the store.")),
        }
    }

    fn doubt(&self, doubtful: bool) {
        self.last.ending.doubtful.fetch_or(doubtful, Ordering::AcqRel);
    }
}

impl Deref for Database {
    type Target = Db;

    fn deref(&self) -> &Db {
        &self.db
    }
}

/// Drops the last handle, or keeps it.
struct Last {
    db: Option<Db>,
    ending: Arc<Ending>,
}

impl Drop for Last {
    fn drop(&mut self) {
        let Some(db) = self.db.take() else { return };
        if self.ending.doubtful.load(Ordering::Acquire) && takes_writes(&db) {
            std::mem::forget(db);
            KEPT.fetch_add(1, Ordering::AcqRel);
            self.ending.kept.store(true, Ordering::Release);
            return;
        }
        drop(db);
        self.ending.closed();
    }
}

/// Whether sled goes on after an error: where it knows of it, it takes no more writes, and does not wait for those that failed.
fn takes_writes(db: &Db) -> bool {
    // It is written to the log, and changes nothing.
    db.apply_batch(Batch::default()).is_ok()
}
