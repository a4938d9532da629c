//! Files that are removed unless they come to something.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::SnapshotFile;
use crate::disk::{Disk, DiskFile, Open, write_all_at};
use crate::error::Failure;
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

    /// Adds `data`. Fails with `Io`.
    pub fn write(&mut self, data: &[u8]) -> Result<(), Failure> {
        let written = write_all_at(self.file.as_ref(), self.len, data);
        written.map_err(|error| Failure::io(format!("Writing {}", self.path.display()), &error))?;
        self.len += data.len() as u64;
        Ok(())
    }

    /// Makes it durable; from now on it stays, unless what comes next fails and drops the guard.
    pub fn sync(&self) -> Result<SnapshotFile, Failure> {
        let failed = |error: &io::Error| Failure::io(format!("Making {} durable", self.path.display()), error);
        if !planted::is(Defect::PurgeBeforeSnapshot) {
            self.file.sync().map_err(|error| failed(&error))?;
        }
        // Opened anew: the handle that is shared can only read.
        let file = File::open(&self.path).map_err(|error| failed(&error))?;
        Ok(SnapshotFile { path: self.path.clone(), file: Arc::new(file), len: self.len })
    }

    /// It stays.
    pub fn keep(mut self) {
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
