//! A file system around raft-engine's own: it times syncs, knows which log file is written, and remembers failed syncs.
//!
//! raft-engine panics when a sync fails. Here the failure is remembered instead and the sync reported as done; the
//! writer looks after every batch and acknowledges nothing from the first failure on, for ever. (A file whose fsync
//! failed is never trusted again: the kernel may have dropped the dirty pages; see Rebello et al., "Can Applications
//! Recover from fsync Failures?", USENIX ATC 2020.) Nor is anything written after it: a batch in the next file
//! would be behind a hole if the power went.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::env::{FileSystem, Handle, Permission, WriteExt};
use super::files::append_seq;
use crate::error::Failure;
use crate::planted::{self, Defect};

/// What the guard has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Number of the log file that was written last.
    current: AtomicU64,
    syncs: AtomicU64,
    total_us: AtomicU64,
    last_us: AtomicU64,
    max_us: AtomicU64,
    failure: Mutex<Option<Failure>>,
}

impl Seen {
    /// Number of the log file that was written last; 0 before the first write.
    pub fn current(&self) -> u64 {
        self.current.load(Ordering::Relaxed)
    }

    /// Count, last, mean and longest duration of syncs, in microseconds.
    pub fn syncs(&self) -> (u64, u64, u64, u64) {
        let syncs = self.syncs.load(Ordering::Relaxed);
        let mean = self.total_us.load(Ordering::Relaxed) / syncs.max(1);
        (syncs, self.last_us.load(Ordering::Relaxed), mean, self.max_us.load(Ordering::Relaxed))
    }

    /// The first sync that failed.
    pub fn failure(&self) -> Option<Failure> {
        self.failure.lock().clone()
    }

    fn sync(&self, sync: impl Fn() -> io::Result<()>) {
        let begin = Instant::now();
        let mut outcome = sync().map_err(explained);
        if planted::is(Defect::SyncErrorRetried) && outcome.is_err() {
            outcome = sync().map_err(explained);
        }
        let took_us = begin.elapsed().as_micros() as u64;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.total_us.fetch_add(took_us, Ordering::Relaxed);
        self.last_us.store(took_us, Ordering::Relaxed);
        self.max_us.fetch_max(took_us, Ordering::Relaxed);
        if let Err(error) = outcome {
            self.failure.lock().get_or_insert_with(|| Failure::io("Making the log durable failed", &error));
        }
    }
}

/// See the module.
pub(super) struct Guard<F> {
    pub inner: Arc<F>,
    pub seen: Arc<Seen>,
}

pub(super) struct GuardedHandle<H> {
    inner: Arc<H>,
    seq: Option<u64>,
    seen: Arc<Seen>,
}

pub(super) struct GuardedWriter<W> {
    inner: W,
    seq: Option<u64>,
    seen: Arc<Seen>,
}

impl<F: FileSystem> Guard<F> {
    fn handle(&self, path: &Path, inner: F::Handle) -> GuardedHandle<F::Handle> {
        GuardedHandle { inner: Arc::new(inner), seq: append_seq(path), seen: self.seen.clone() }
    }
}

impl<F: FileSystem> FileSystem for Guard<F> {
    type Handle = GuardedHandle<F::Handle>;
    type Reader = F::Reader;
    type Writer = GuardedWriter<F::Writer>;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<Self::Handle> {
        Ok(self.handle(path.as_ref(), self.inner.create(path.as_ref()).map_err(explained)?))
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<Self::Handle> {
        Ok(self.handle(path.as_ref(), self.inner.open(path.as_ref(), permission).map_err(explained)?))
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        self.inner.delete(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn reuse<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        self.inner.reuse(from, to)
    }

    fn delete_metadata<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        self.inner.delete_metadata(path)
    }

    fn exists_metadata<P: AsRef<Path>>(&self, path: P) -> bool {
        self.inner.exists_metadata(path)
    }

    fn new_reader(&self, handle: Arc<Self::Handle>) -> io::Result<Self::Reader> {
        self.inner.new_reader(handle.inner.clone())
    }

    fn new_writer(&self, handle: Arc<Self::Handle>) -> io::Result<Self::Writer> {
        let inner = self.inner.new_writer(handle.inner.clone())?;
        Ok(GuardedWriter { inner, seq: handle.seq, seen: self.seen.clone() })
    }
}

impl<H: Handle> Handle for GuardedHandle<H> {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        self.inner.truncate(offset)
    }

    fn file_size(&self) -> io::Result<usize> {
        self.inner.file_size()
    }

    fn sync(&self) -> io::Result<()> {
        self.seen.sync(|| self.inner.sync());
        Ok(())
    }
}

impl<W: Write + Seek> Write for GuardedWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if let Some(failure) = self.seen.failure() {
            return Err(io::Error::other(failure.message));
        }
        if let Some(seq) = self.seq {
            self.seen.current.store(seq, Ordering::Relaxed);
        }
        match self.inner.write(data).map_err(explained) {
            Err(full) if planted::is(Defect::FullDiskSwallowed) && full.kind() == io::ErrorKind::StorageFull => {
                self.inner.seek(SeekFrom::Current(data.len() as i64)).map(|_| data.len())
            }
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<W: Seek> Seek for GuardedWriter<W> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.inner.seek(position)
    }
}

impl<W: WriteExt> WriteExt for GuardedWriter<W> {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        self.inner.truncate(offset)
    }

    fn allocate(&mut self, offset: usize, size: usize) -> io::Result<()> {
        self.inner.allocate(offset, size).map_err(explained)
    }
}

/// `error` of the call that failed just now, with the operating system's word for it, which raft-engine leaves out.
pub(super) fn explained(error: io::Error) -> io::Error {
    let last = io::Error::last_os_error();
    let same = error.raw_os_error().is_none() && last.kind() == error.kind() && last.raw_os_error() != Some(0);
    if same { io::Error::new(error.kind(), format!("{error}: {last}")) } else { error }
}

/// The file at `path`, or its first `most` bytes.
pub(super) fn read_file<F: FileSystem>(file_system: &F, path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    read_into(file_system, path, most, &mut data)?;
    Ok(data)
}

/// [`read_file`] in place of what is in `data`.
pub(super) fn read_into<F: FileSystem>(file_system: &F, path: &Path, most: u64, data: &mut Vec<u8>) -> io::Result<()> {
    let handle = Arc::new(file_system.open(path, Permission::ReadOnly)?);
    data.clear();
    data.reserve(most.min(handle.file_size()? as u64) as usize);
    file_system.new_reader(handle)?.take(most).read_to_end(data)?;
    Ok(())
}
