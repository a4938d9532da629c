//! raft-engine's file system over a [`Disk`].

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use super::env::{FileSystem, Handle, Permission, WriteExt};
use crate::disk::{Disk, DiskFile, Open};

/// See the module.
pub(super) struct OnDisk(pub Arc<dyn Disk>);

pub(super) struct OpenFile(Box<dyn DiskFile>);

/// A place in a file, for reading and writing.
pub(super) struct Cursor {
    file: Arc<OpenFile>,
    at: u64,
}

impl FileSystem for OnDisk {
    type Handle = OpenFile;
    type Reader = Cursor;
    type Writer = Cursor;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<OpenFile> {
        self.0.open(path.as_ref(), Open::Create).map(OpenFile)
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<OpenFile> {
        let how = if permission == Permission::ReadOnly { Open::Read } else { Open::ReadWrite };
        self.0.open(path.as_ref(), how).map(OpenFile)
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        self.0.remove(path.as_ref())
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        self.0.rename(from.as_ref(), to.as_ref())
    }

    fn new_reader(&self, handle: Arc<OpenFile>) -> io::Result<Cursor> {
        Ok(Cursor { file: handle, at: 0 })
    }

    fn new_writer(&self, handle: Arc<OpenFile>) -> io::Result<Cursor> {
        Ok(Cursor { file: handle, at: 0 })
    }
}

impl Handle for OpenFile {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        self.0.set_len(offset as u64)
    }

    fn file_size(&self) -> io::Result<usize> {
        self.0.len().map(|len| len as usize)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}

impl Read for Cursor {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.file.0.read_at(self.at, out)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Write for Cursor {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.file.0.write_at(self.at, data)?;
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Cursor {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let at = match position {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.file.0.len()?.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a place before the beginning"))?;
        Ok(self.at)
    }
}

impl WriteExt for Cursor {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        self.file.truncate(offset)?;
        self.at = offset as u64;
        Ok(())
    }

    /// Makes the file long enough, with zeroes, as fallocate does.
    fn allocate(&mut self, offset: usize, size: usize) -> io::Result<()> {
        let len = (offset + size) as u64;
        if self.file.0.len()? < len { self.file.0.set_len(len) } else { Ok(()) }
    }
}
