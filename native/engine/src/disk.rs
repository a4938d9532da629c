//! The seam under everything that must survive a power cut: opening, writing, syncing and renaming files. [`OsDisk`] is the
//! operating system; a simulated disk that loses what was not synced is another. Reading directories and whole files goes
//! through the operating system in either case, so a simulated disk keeps its present state in real files.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// Reading an existing file.
    Read,
    /// Reading and writing an existing file.
    ReadWrite,
    /// Reading and writing a file that is emptied, or made when it is not there.
    Create,
    /// Reading and writing a file that must not be there yet.
    CreateNew,
}

/// An open file. All calls take the place in bytes; there is no cursor. Every call fails with the operating system's error.
pub trait DiskFile: Send + Sync {
    /// Reads at `offset` into `into`; returns how many bytes, 0 at the end of the file.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Writes at `offset`; returns how many bytes were taken, which may be fewer than given.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize>;
    /// Cuts the file, or extends it with zeroes, to `len` bytes.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// The present length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// True when there is nothing in it.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }
    /// Makes contents and length durable (fdatasync); the file's name is durable only after [`Disk::sync_dir`].
    fn sync(&self) -> io::Result<()>;
}

/// Where files lie. Every call fails with the operating system's error.
pub trait Disk: Send + Sync + 'static {
    /// Opens or makes the file at `path`.
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>>;
    /// Gives the file at `from` the name `to`, replacing what has that name. Durable after [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes the file at `path`. Durable after [`Disk::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes `dir` and what is missing above it. Durable after [`Disk::sync_dir`] of the directory above.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// Writes all of `bytes` at `offset`. Fails as [`DiskFile::write_at`] does, and when that takes nothing.
pub fn write_all_at(file: &dyn DiskFile, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(offset, bytes) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::WriteZero, "the disk takes nothing more")),
            Ok(written) => {
                offset += written as u64;
                bytes = &bytes[written..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The operating system's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk;

impl Disk for OsDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(how != Open::Read);
        match how {
            Open::Read | Open::ReadWrite => &mut options,
            Open::Create => options.create(true).truncate(true),
            Open::CreateNew => options.create_new(true),
        };
        Ok(Box::new(options.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

impl DiskFile for File {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, into, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(self, bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn len(&self) -> io::Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
