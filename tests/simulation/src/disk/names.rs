//! The names in one directory that would not survive a power cut: changes in the order in which they were made. A file
//! system writes them in that order, so a power cut keeps the first few of them and undoes the rest.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A file, whatever it is called.
pub type FileId = u64;

/// One change of a directory.
#[derive(Clone, Debug)]
pub enum Change {
    /// A file came into being.
    Made(PathBuf, FileId),
    /// A directory came into being.
    MadeDir(PathBuf),
    /// A file went; it lies in the grave meanwhile.
    Removed(PathBuf, FileId, PathBuf),
    /// A file got another name; what had it before lies in the grave.
    Renamed { from: PathBuf, to: PathBuf, file: FileId, replaced: Option<(FileId, PathBuf)> },
}

impl Change {
    /// The file that has its name by this change.
    pub fn names(&self) -> Option<FileId> {
        match self {
            Change::Made(_, file) | Change::Renamed { file, .. } => Some(*file),
            Change::MadeDir(_) | Change::Removed(..) => None,
        }
    }

    /// Where a file waits that this change took the name of.
    pub fn grave(&self) -> Option<(FileId, &Path)> {
        match self {
            Change::Removed(_, file, grave) => Some((*file, grave)),
            Change::Renamed { replaced: Some((file, grave)), .. } => Some((*file, grave)),
            _ => None,
        }
    }

    /// Takes the change back on the real files. Fails as the operating system does.
    pub fn undo(&self) -> io::Result<()> {
        match self {
            Change::Made(path, _) => fs::remove_file(path),
            Change::MadeDir(path) => fs::remove_dir_all(path),
            Change::Removed(path, _, grave) => fs::rename(grave, path),
            Change::Renamed { from, to, replaced, .. } => {
                fs::rename(to, from)?;
                replaced.as_ref().map_or(Ok(()), |(_, grave)| fs::rename(grave, to))
            }
        }
    }

    /// The change is durable: what it replaced is gone for good. Fails as the operating system does.
    pub fn settle(&self) -> io::Result<()> {
        self.grave().map_or(Ok(()), |(_, grave)| fs::remove_file(grave))
    }
}
