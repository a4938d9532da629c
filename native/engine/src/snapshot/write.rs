//! Snapshots on their way to the disk: written here, or received from another node.

use std::io::{self, Write};

use super::dir::SnapshotDir;
use super::temporary::Temporary;
use super::{OpenSnapshot, format};
use crate::consensus::types::SnapshotMeta;
use crate::error::Failure;
use crate::limits::SNAPSHOT_CHUNK_BYTES;

impl SnapshotDir {
    /// Begins a snapshot of the state at the user-visible `index`, with the bookkeeping `notes`. Fails with `Io`.
    pub fn create(
        &self,
        meta: &SnapshotMeta,
        index: u64,
        notes: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<SnapshotWriter, Failure> {
        SnapshotWriter::new(self.clone(), self.temporary("taken")?, meta, index, notes)
    }

    /// Begins to take in a snapshot from another node. One that was received whole, but never adopted, goes away when
    /// the last handle to it was dropped and the next is begun. Fails with `Io`.
    pub fn receive(&self) -> Result<IncomingSnapshot, Failure> {
        self.remove_unwanted();
        Ok(IncomingSnapshot::new(self.clone(), self.temporary("received")?))
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
    fn new(
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
    fn new(dir: SnapshotDir, temporary: Temporary) -> IncomingSnapshot {
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
