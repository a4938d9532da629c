//! Snapshots on their way to the disk: written here, or received from another node.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::dir::SnapshotDir;
use super::{OpenSnapshot, SnapshotFile, format};
use crate::consensus::types::SnapshotMeta;
use crate::disk::{Disk, DiskFile, Open, write_all_at};
use crate::error::Failure;
use crate::limits::SNAPSHOT_CHUNK_BYTES;
use crate::planted::{self, Defect};

/// A temporary file that is removed when it is dropped, unless it was [`Temporary::keep`]t.
pub(super) struct Temporary {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    file: Box<dyn DiskFile>,
    len: u64,
    kept: bool,
}

impl Temporary {
    /// A new, empty file at `path`. Fails with `Io`.
    pub fn new(disk: Arc<dyn Disk>, path: PathBuf) -> Result<Temporary, Failure> {
        let file = disk.open(&path, Open::CreateNew);
        let file = file.map_err(|error| Failure::io(format!("Making {}", path.display()), &error))?;
        Ok(Temporary { path, disk, file, len: 0, kept: false })
    }

    fn write(&mut self, data: &[u8]) -> Result<(), Failure> {
        let written = write_all_at(self.file.as_ref(), self.len, data);
        written.map_err(|error| Failure::io(format!("Writing {}", self.path.display()), &error))?;
        self.len += data.len() as u64;
        Ok(())
    }

    /// Makes it durable; from now on it stays, unless what comes next fails and drops the guard.
    fn sync(&self) -> Result<SnapshotFile, Failure> {
        let failed = |error: &io::Error| Failure::io(format!("Making {} durable", self.path.display()), error);
        if !planted::is(Defect::PurgeBeforeSnapshot) {
            self.file.sync().map_err(|error| failed(&error))?;
        }
        // Opened anew: the handle that is shared can only read.
        let file = File::open(&self.path).map_err(|error| failed(&error))?;
        Ok(SnapshotFile { path: self.path.clone(), file: Arc::new(file), len: self.len })
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept {
            remove(self.disk.as_ref(), &self.path);
        }
    }
}

/// Removes `path`; that it cannot be removed is no reason to stop.
pub(super) fn remove(disk: &dyn Disk, path: &Path) {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(target: "quorate::snapshot", "{} cannot be removed: {error}", path.display());
        }
        _ => {}
    }
}

/// Writes a snapshot's payload. Dropped before [`SnapshotWriter::finish`], it leaves nothing behind.
pub struct SnapshotWriter {
    dir: SnapshotDir,
    temporary: Temporary,
    chunk: Vec<u8>,
    chunks: u64,
    total: u64,
}

impl SnapshotWriter {
    pub(super) fn new(
        dir: SnapshotDir,
        mut temporary: Temporary,
        meta: &SnapshotMeta,
        index: u64,
        notes: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<SnapshotWriter, Failure> {
        temporary.write(&format::encode_header(meta, index, notes)?)?;
        let chunk = Vec::with_capacity(SNAPSHOT_CHUNK_BYTES);
        Ok(SnapshotWriter { dir, temporary, chunk, chunks: 0, total: 0 })
    }

    /// Makes the snapshot durable and the current one (unless a newer one came meanwhile; then this one only stays
    /// readable through what is returned). Fails with `Io`; then the former snapshot is still the current one.
    pub fn finish(mut self) -> Result<OpenSnapshot, Failure> {
        self.put_chunk()?;
        self.temporary.write(&format::encode_end(self.chunks, self.total))?;
        let snapshot = format::open(self.temporary.sync()?)?;
        let snapshot = self.dir.install(snapshot)?;
        self.temporary.keep();
        Ok(snapshot)
    }

    fn put_chunk(&mut self) -> Result<(), Failure> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        self.temporary.write(&format::encode_chunk(self.chunks, &self.chunk))?;
        self.chunks += 1;
        self.total += self.chunk.len() as u64;
        self.chunk.clear();
        Ok(())
    }
}

impl Write for SnapshotWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.chunk.len() == SNAPSHOT_CHUNK_BYTES {
            self.put_chunk()?;
        }
        let len = data.len().min(SNAPSHOT_CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&data[..len]);
        Ok(len)
    }

    /// Does nothing: only [`SnapshotWriter::finish`] makes anything durable.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes in a snapshot file from another node. Dropped before [`IncomingSnapshot::finish`], it leaves nothing behind.
pub struct IncomingSnapshot {
    dir: SnapshotDir,
    temporary: Temporary,
}

impl IncomingSnapshot {
    pub(super) fn new(dir: SnapshotDir, temporary: Temporary) -> IncomingSnapshot {
        IncomingSnapshot { dir, temporary }
    }

    /// Adds `data`, the next bytes of the file. Fails with `Io`.
    pub fn write_chunk(&mut self, data: &[u8]) -> Result<(), Failure> {
        self.temporary.write(data)
    }

    /// Checks every checksum and makes the file durable. It is not yet the current snapshot: see
    /// [`SnapshotDir::adopt`]. Fails with `Corrupt`, `Refused` (a newer format) or `Io`; then nothing is left of it.
    pub fn finish(self) -> Result<OpenSnapshot, Failure> {
        let file = self.temporary.sync()?;
        format::verify(&file)?;
        let snapshot = format::open(file)?;
        self.dir.received(&snapshot.file);
        self.temporary.keep();
        Ok(snapshot)
    }
}
