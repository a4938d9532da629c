//! Snapshots as files: written, fsynced, renamed, the directory fsynced; checksummed throughout.
//!
//! A snapshot is a file `INDEX-TERM.snap` (of the last log entry that it covers) in a directory of its own. It comes to
//! be as a `.tmp` file, which becomes the current snapshot by one rename; older ones go after that. So a crash at any
//! moment leaves the old snapshot or the new one. What is on the wire between nodes is the file as it is.

mod dir;
mod format;
mod temporary;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod write;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::consensus::types::SnapshotMeta;
use crate::error::Failure;

pub use dir::{Checked, SnapshotDir, check_all};
pub use format::Payload;
pub use write::{IncomingSnapshot, SnapshotWriter};

/// A complete, verified snapshot file. The open handle stays readable when a newer snapshot replaces the file.
#[derive(Clone, Debug)]
pub struct SnapshotFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Open for reading; use positioned reads, the handle is shared.
    pub file: Arc<File>,
    /// Its length in bytes.
    pub len: u64,
}

impl SnapshotFile {
    /// Reads from `offset` (in bytes) into `out` and returns how many bytes that were: fewer than asked for only at the
    /// end of the file. Fails with `Io`.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize, Failure> {
        let mut done = 0;
        while done < out.len() {
            match self.file.read_at(&mut out[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(Failure::io(format!("Reading {} at {offset}", self.path.display()), &error));
                }
            }
        }
        Ok(done)
    }
}

/// A snapshot whose beginning has been read.
#[derive(Clone, Debug)]
pub struct OpenSnapshot {
    /// What it covers.
    pub meta: SnapshotMeta,
    /// The user-visible index of its state.
    pub index: u64,
    /// The engine's bookkeeping that belongs to the state.
    pub notes: Vec<(Vec<u8>, Vec<u8>)>,
    /// The file.
    pub file: SnapshotFile,
}

impl OpenSnapshot {
    /// The state, as the machine wrote it. Reading fails, with a [`Failure`] of code `Corrupt` inside the
    /// `io::Error`, at the first damage; nothing of a damaged chunk is handed out. Fails with `Corrupt` or `Io`.
    pub fn payload(&self) -> Result<Payload, Failure> {
        format::payload(&self.file)
    }
}
