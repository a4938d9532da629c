//! raft-engine's file system, with log files written past the page cache (`O_DIRECT`).
//!
//! A batch of the log is written once and synced at once: the page cache only costs a copy, and the kernel the work of finding the
//! dirty pages again. Direct writes take whole blocks at aligned places, so the block that a batch ends in is kept, and
//! written again with the next one, as the page cache does too. What is behind the end of a batch becomes zero up to the end of its
//! block, but for the first write after a change of place: the header of a file that is used again is written while a power cut may
//! still bring back its former name, and with it its former content. Beyond the end of a file writes go through the page cache: the
//! file must not grow by the rest of a block. Reading goes through it as ever; the kernel keeps the two in step.
//!
//! Where a file system refuses direct writes, the page cache is used.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::env::{DefaultFileSystem, FileSystem, Handle, Permission, WriteExt};

/// Place, length and memory of direct writes are multiples of this: the largest that disks in use ask for.
pub(super) const BLOCK: usize = 4 << 10;
/// Bytes that one direct write takes at most; more takes several.
pub(super) const CHUNK: usize = 1 << 20;

type Inner = DefaultFileSystem;
type InnerHandle = <Inner as FileSystem>::Handle;
type InnerFile = <Inner as FileSystem>::Writer;

/// See the module.
pub(super) struct DirectFileSystem;

pub(super) struct DirectHandle {
    inner: Arc<InnerHandle>,
    path: PathBuf,
}

impl FileSystem for DirectFileSystem {
    type Handle = DirectHandle;
    type Reader = InnerFile;
    type Writer = DirectWriter;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<DirectHandle> {
        let path = path.as_ref();
        Ok(DirectHandle { inner: Arc::new(DefaultFileSystem.create(path)?), path: path.into() })
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<DirectHandle> {
        let path = path.as_ref();
        Ok(DirectHandle { inner: Arc::new(DefaultFileSystem.open(path, permission)?), path: path.into() })
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        DefaultFileSystem.delete(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        DefaultFileSystem.rename(from, to)
    }

    fn new_reader(&self, handle: Arc<DirectHandle>) -> io::Result<InnerFile> {
        DefaultFileSystem.new_reader(handle.inner.clone())
    }

    fn new_writer(&self, handle: Arc<DirectHandle>) -> io::Result<DirectWriter> {
        DirectWriter::new(&handle, BLOCK)
    }
}

impl Handle for DirectHandle {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        self.inner.truncate(offset)
    }

    fn file_size(&self) -> io::Result<usize> {
        self.inner.file_size()
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }
}

/// Writes at its place, directly where that can be.
pub(super) struct DirectWriter {
    file: InnerFile,
    handle: Arc<InnerHandle>,
    /// `None` where the file system refuses.
    pub(super) direct: Option<File>,
    block: usize,
    at: usize,
    len: usize,
    memory: Aligned,
    /// The place up to which `memory` begins with what the block of that place holds.
    pub(super) kept: Option<usize>,
}

impl DirectWriter {
    pub(super) fn new(handle: &DirectHandle, block: usize) -> io::Result<DirectWriter> {
        let inner = handle.inner.clone();
        Ok(DirectWriter {
            file: DefaultFileSystem.new_writer(inner.clone())?,
            len: inner.file_size()?,
            handle: inner,
            direct: open_direct(&handle.path),
            block,
            at: 0,
            memory: Aligned::default(),
            kept: None,
        })
    }

    /// How many of `bytes` go directly now; 0 for the page cache.
    pub(super) fn fitting(&self, bytes: usize) -> usize {
        let head = self.at % self.block;
        let taken = bytes.min(CHUNK - head);
        let end = (self.at + taken).next_multiple_of(self.block);
        let inside = if end <= self.len { taken } else { (self.len / self.block * self.block).saturating_sub(self.at) };
        if self.direct.is_some() { inside } else { 0 }
    }

    fn write_buffered(&mut self, data: &[u8]) -> io::Result<usize> {
        self.kept = None;
        self.file.seek(SeekFrom::Start(self.at as u64))?;
        let written = self.file.write(data)?;
        self.at += written;
        self.len = self.len.max(self.at);
        Ok(written)
    }

    /// Writes `data` with what its blocks held before. False when the file system does not take it directly after all.
    fn write_direct(&mut self, data: &[u8]) -> io::Result<bool> {
        let Some(direct) = &self.direct else { return Ok(false) };
        let (head, end) = (self.at % self.block, self.at + data.len());
        let begin = self.at - head;
        let whole = (head + data.len()).next_multiple_of(self.block);
        let known = self.kept.take() == Some(self.at);
        let memory = self.memory.of(whole, if known { head } else { 0 });
        if !known {
            self.file.seek(SeekFrom::Start(begin as u64))?;
            self.file.read_exact(&mut memory[..head])?;
            self.file.seek(SeekFrom::Start(end as u64))?;
            self.file.read_exact(&mut memory[head + data.len()..])?;
        }
        memory[head..head + data.len()].copy_from_slice(data);
        if known {
            memory[head + data.len()..].fill(0);
        }
        match direct.write_all_at(memory, begin as u64) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                self.direct = None;
                return Ok(false);
            }
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                // The word by which raft-engine knows a full disk.
                return Err(io::Error::new(error.kind(), format!("nospace: {error}")));
            }
            Err(error) => return Err(error),
        }
        let last = end / self.block * self.block;
        memory.copy_within(last - begin..(last - begin + self.block).min(whole), 0);
        self.at = end;
        self.kept = Some(end);
        Ok(true)
    }
}

/// `None` where the file system refuses.
pub(super) fn open_direct(path: &Path) -> Option<File> {
    OpenOptions::new().write(true).custom_flags(OFlags::DIRECT.bits() as i32).open(path).ok()
}

impl Write for DirectWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = self.fitting(data.len());
        if taken > 0 && self.write_direct(&data[..taken])? {
            return Ok(taken);
        }
        self.write_buffered(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for DirectWriter {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let at = match position {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => (self.at as u64).checked_add_signed(by),
            SeekFrom::End(by) => (self.handle.file_size()? as u64).checked_add_signed(by),
        };
        let at = at.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a place before the beginning"))?;
        self.at = at as usize;
        Ok(at)
    }
}

impl WriteExt for DirectWriter {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        self.kept = None;
        self.file.truncate(offset)?;
        (self.at, self.len) = (offset, offset);
        Ok(())
    }

    fn allocate(&mut self, offset: usize, size: usize) -> io::Result<()> {
        self.file.allocate(offset, size)?;
        // Where there is no fallocate, nothing was done.
        self.len = self.handle.file_size()?;
        Ok(())
    }
}

/// Memory that begins at a multiple of [`BLOCK`].
#[derive(Default)]
struct Aligned {
    bytes: Vec<u8>,
    begin: usize,
}

impl Aligned {
    /// The first `len` bytes, of which the first `keep` are what they were.
    fn of(&mut self, len: usize, keep: usize) -> &mut [u8] {
        if self.bytes.len() < self.begin + len {
            let bytes = vec![0; len.next_power_of_two() + BLOCK];
            let begin = bytes.as_ptr().align_offset(BLOCK).min(BLOCK);
            let former = std::mem::replace(self, Aligned { bytes, begin });
            self.bytes[begin..begin + keep].copy_from_slice(&former.bytes[former.begin..former.begin + keep]);
        }
        &mut self.bytes[self.begin..self.begin + len]
    }
}
