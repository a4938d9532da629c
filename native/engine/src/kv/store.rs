//! sled, with what it lacks: batches of records, chunked clearing, and durability.
//!
//! sled 0.34's `flush` is `sync_file_range` (sled#1452), which leaves the disk's cache and the file's metadata alone, and
//! its blob files (nodes over about 128 KiB) are never synced at all. [`Store::sync`] does both.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sled::{Batch, Db, IVec};

use super::database::{Database, sled_failure};
use super::journal::{Journal, Journaled};
use super::layers::Layer;
use super::mark::DurableMark;
use super::record::{DATA, META, Meta, NOTE};
use crate::error::{Code, Failure};
use crate::limits::{SLED_CACHE_BYTES, UNFLUSHED_BATCHES_MAX};

const CLEAR_BATCH: usize = 1_024;
/// Keys of a layer that are written at a stretch.
const LAYER_PART: usize = 128;
/// A sled that was just closed in this process unlocks its file when its last background write has ended.
const UNLOCK_WAIT: Duration = Duration::from_secs(1);
const UNLOCK_POLL: Duration = Duration::from_millis(5);

/// An open sled database and the files that it consists of.
pub(super) struct Store {
    pub db: Arc<Database>,
    pub dir: PathBuf,
    file: File,
    mark: DurableMark,
    journal: Journal,
    /// Batches and layers written so far.
    batches: u64,
    /// Batches up to this one have left sled's own unbounded queue of writes.
    flushed: u64,
    /// Blob files already synced, and how often: see [`Store::sync_blobs`].
    blobs: HashMap<OsString, u8>,
}

impl Store {
    /// Opens or makes the database in `dir`, which exists. Fails with `Locked`, `Corrupt`, `Io` or `Internal`; may panic.
    pub fn open(dir: &Path) -> Result<Store, Failure> {
        let db = Database::new(open_unlocked(dir)?);
        let io = |error| Failure::io(format!("Opening {}", dir.display()), &error);
        let file = File::open(dir.join("db")).map_err(io)?;
        let mark = DurableMark::open(dir).map_err(io)?;
        let journal = Journal::open(dir).map_err(io)?;
        sync_dir(dir).map_err(io)?;
        Ok(Store { db, dir: dir.to_owned(), file, mark, journal, batches: 0, flushed: 0, blobs: HashMap::new() })
    }

    /// The machine's own record, from which batches and layers are counted on; that of an empty machine in a new store.
    pub fn load_meta(&mut self) -> Result<Meta, Failure> {
        let stored =
            self.db.get(META).map_err(|error| self.db.read_failure("Reading the store's own record", &error))?;
        let meta = stored.map_or_else(|| Ok(Meta::default()), |stored| Meta::parse(&stored))?;
        self.batches = meta.batches;
        Ok(meta)
    }

    /// Applies `batch` and the new own record at once, all or nothing.
    pub fn commit(&mut self, mut batch: Batch, meta: &Meta) -> Result<(), Failure> {
        self.batches += 1;
        batch.insert(META, Meta { batches: self.batches, ..*meta }.store());
        self.db.apply_batch(batch).map_err(|error| self.db.write_failure("Writing a batch", &error))
    }

    /// Writes a whole layer, the own record last. Durable on return; after a crash meanwhile [`Store::finish_layers`] does the rest.
    /// sled goes on answering reads. `between` is called between two parts, with the time that the last one took.
    pub fn write(&mut self, layer: &Layer, between: &mut dyn FnMut(Duration)) -> Result<(), Failure> {
        self.journal_layer(layer)?;
        let mut begun = Instant::now();
        for (n, (key, stored)) in layer.slots.iter().enumerate() {
            self.put(key, stored)?;
            if n % LAYER_PART == LAYER_PART - 1 {
                between(begun.elapsed());
                begun = Instant::now();
            }
        }
        self.end_layer(&layer.meta)
    }

    /// The first part of [`Store::write`].
    pub(super) fn journal_layer(&mut self, layer: &Layer) -> Result<(), Failure> {
        self.batches += 1;
        let written = self.journal.write(self.batches, layer);
        written.map_err(|error| Failure::io("Writing a layer's journal", &error))
    }

    /// The last part of [`Store::write`].
    pub(super) fn end_layer(&mut self, meta: &Meta) -> Result<(), Failure> {
        self.put(META, &Some(Meta { batches: self.batches, ..*meta }.store()))?;
        self.flush()?;
        self.sync_data().map_err(|error| Failure::io(format!("Syncing {}", self.dir.display()), &error))
    }

    pub(super) fn put(&self, key: &[u8], stored: &Option<IVec>) -> Result<(), Failure> {
        let done = match stored {
            Some(stored) => self.db.insert(key, stored),
            None => self.db.remove(key),
        };
        done.map(drop).map_err(|error| self.db.write_failure("Writing a layer", &error))
    }

    /// Writes again the layers that the journal holds beyond `meta`, of which sled may have a part. The own record after them.
    pub fn finish_layers(&mut self, mut meta: Meta) -> Result<Meta, Failure> {
        while let Some(Journaled { meta: next, changes }) = self.journal.read(self.batches + 1)? {
            self.batches += 1;
            changes.iter().try_for_each(|(key, stored)| self.put(key, stored))?;
            self.end_layer(&next)?;
            meta = Meta { batches: self.batches, ..next };
        }
        let forgotten = [1, 2].into_iter().try_for_each(|more| self.journal.forget(self.batches + more));
        forgotten.map_err(|error| Failure::io("Emptying the journal", &error))?;
        Ok(meta)
    }

    /// Removes every entry and note, batch by batch; the own record stays.
    pub fn clear(&self) -> Result<(), Failure> {
        for space in [DATA, NOTE] {
            loop {
                let keys: Result<Vec<IVec>, sled::Error> =
                    self.db.range([space]..[space + 1]).keys().take(CLEAR_BATCH).collect();
                let keys = keys.map_err(|error| self.db.read_failure("Reading keys to clear", &error))?;
                if keys.is_empty() {
                    break;
                }
                let mut batch = Batch::default();
                keys.into_iter().for_each(|key| batch.remove(key));
                self.db.apply_batch(batch).map_err(|error| self.db.write_failure("Clearing", &error))?;
            }
        }
        Ok(())
    }

    /// Waits for sled's writer when it is far behind: each batch is a write of its own in a queue without a bound.
    pub fn pace(&mut self) -> Result<(), Failure> {
        if self.batches < self.flushed + UNFLUSHED_BATCHES_MAX {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.db.check()?;
        self.db.flush().map_err(|error| self.db.write_failure("Flushing", &error))?;
        self.flushed = self.batches;
        Ok(())
    }

    /// How many batches were durable when the store was last synced.
    pub fn durable_batches(&self) -> u64 {
        self.mark.batches()
    }

    /// Makes everything committed so far survive a power cut. Fails with `Io`.
    pub fn sync(&mut self) -> Result<(), Failure> {
        self.flush()?;
        self.sync_files().map_err(|error| Failure::io(format!("Syncing {}", self.dir.display()), &error))
    }

    fn sync_files(&mut self) -> io::Result<()> {
        self.sync_data()?;
        self.mark.advance(self.batches)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.sync_blobs()?;
        self.file.sync_data()
    }

    /// Syncs new blob files and their directory. A file may still be growing when it is first seen (a read that splits
    /// a node writes, too); the flush before the next sync has waited for it, so each file is synced twice.
    fn sync_blobs(&mut self) -> io::Result<()> {
        let dir = self.dir.join("blobs");
        let mut present = HashMap::new();
        let mut any = false;
        for item in fs::read_dir(&dir)? {
            let name = item?.file_name();
            let synced = self.blobs.get(&name).copied().unwrap_or(0);
            if synced < 2 && !sync_if_there(&dir.join(&name))? {
                continue;
            }
            any |= synced < 2;
            present.insert(name, (synced + 1).min(2));
        }
        self.blobs = present;
        if any { sync_dir(&dir) } else { Ok(()) }
    }
}

fn open_unlocked(dir: &Path) -> Result<Db, Failure> {
    let config = sled::Config::new().path(dir).cache_capacity(SLED_CACHE_BYTES).flush_every_ms(None);
    let begun = Instant::now();
    loop {
        let failure = match config.open() {
            Ok(db) => return Ok(db),
            Err(error) => sled_failure(&format!("Opening {}", dir.display()), &error),
        };
        if failure.code != Code::Locked || begun.elapsed() > UNLOCK_WAIT {
            return Err(failure);
        }
        thread::sleep(UNLOCK_POLL);
    }
}

/// False when sled has removed the file in the meantime.
fn sync_if_there(path: &Path) -> io::Result<bool> {
    match File::open(path) {
        Ok(file) => file.sync_all().map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes the names in `dir` survive a power cut.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
