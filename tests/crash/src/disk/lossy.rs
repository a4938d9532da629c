//! A file, served through FUSE, that behaves like a disk with a volatile write cache.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request,
    WriteFlags,
};
use parking_lot::Mutex;
use quorate_engine::Failure;

use crate::rng::Rng;

/// The unit that survives a cut whole, in bytes.
pub const SECTOR: usize = 512;
/// The file system's first block is written whole: ext4 cannot be mounted with half a superblock, and real disks write
/// more than 512 bytes at once.
const WHOLE_SECTORS: u64 = 8;
const FILE: &str = "disk";
const FILE_INODE: INodeNo = INodeNo(2);
const TTL: Duration = Duration::from_secs(3600);

/// What is on the medium, and what is only in the cache.
pub struct Medium {
    durable: Vec<u8>,
    /// Unflushed contents of sectors, the oldest first.
    cached: BTreeMap<u64, Vec<[u8; SECTOR]>>,
    on: bool,
    /// Flushes that were asked for, in number.
    flushes: u64,
}

impl Medium {
    /// An empty medium of `bytes` bytes.
    pub fn new(bytes: u64) -> Medium {
        Medium { durable: vec![0; bytes as usize], cached: BTreeMap::new(), on: true, flushes: 0 }
    }

    /// Reads as much of `len` bytes at `offset` as there is; `None` without power.
    pub fn read(&self, offset: u64, len: usize) -> Option<Vec<u8>> {
        let start = (offset as usize).min(self.durable.len());
        let end = start.saturating_add(len).min(self.durable.len());
        let mut data = self.durable[start..end].to_vec();
        let sectors = start as u64 / SECTOR as u64..end.div_ceil(SECTOR) as u64;
        for (sector, versions) in self.cached.range(sectors) {
            let Some(newest) = versions.last() else { continue };
            let at = *sector as usize * SECTOR;
            let (from, to) = (at.max(start), (at + SECTOR).min(end));
            data[from - start..to - start].copy_from_slice(&newest[from - at..to - at]);
        }
        self.on.then_some(data)
    }

    /// Puts `data` at `offset` into the cache; `None` without power or behind the end.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Option<()> {
        let (start, end) = (offset as usize, offset as usize + data.len());
        if !self.on || end > self.durable.len() {
            return None;
        }
        for sector in start / SECTOR..end.div_ceil(SECTOR) {
            let at = sector * SECTOR;
            let (from, to) = (at.max(start), (at + SECTOR).min(end));
            let before = self.read(at as u64, SECTOR)?;
            let mut content = [0; SECTOR];
            content.copy_from_slice(&before);
            content[from - at..to - at].copy_from_slice(&data[from - start..to - start]);
            self.cached.entry(sector as u64).or_default().push(content);
        }
        Some(())
    }

    /// Makes everything durable; `None` without power.
    pub fn flush(&mut self) -> Option<()> {
        if !self.on {
            return None;
        }
        self.flushes += 1;
        for (sector, versions) in std::mem::take(&mut self.cached) {
            if let Some(newest) = versions.last() {
                self.put(sector, newest);
            }
        }
        Some(())
    }

    fn put(&mut self, sector: u64, content: &[u8; SECTOR]) {
        let at = sector as usize * SECTOR;
        self.durable[at..at + SECTOR].copy_from_slice(content);
    }

    /// After the power went: a random subset of the cached sectors, each in a random version, made it to the medium.
    /// Gives how many were cached and how many survived.
    pub fn settle(&mut self, rng: &mut Rng) -> (u64, u64) {
        let percent = rng.pick(&[0, 10, 50, 90]).copied().unwrap_or(50);
        let cached = std::mem::take(&mut self.cached);
        let (count, mut survived) = (cached.len() as u64, 0);
        let first_block = rng.chance(percent);
        for (sector, versions) in cached {
            let whole = sector < WHOLE_SECTORS;
            if if whole { first_block } else { rng.chance(percent) } {
                let version = if whole { versions.last() } else { rng.pick(&versions) };
                version.into_iter().for_each(|content| self.put(sector, content));
                survived += 1;
            }
        }
        (count, survived)
    }
}

/// The served file.
pub struct Lossy {
    medium: Arc<Mutex<Medium>>,
    point: PathBuf,
    session: Option<BackgroundSession>,
}

impl Lossy {
    /// Serves an empty disk of `bytes` bytes at `point/disk`. Fails with `Io`.
    pub fn new(point: &Path, bytes: u64) -> Result<Lossy, Failure> {
        std::fs::create_dir_all(point).map_err(|error| Failure::io("Making a mount point", &error))?;
        let medium = Arc::new(Mutex::new(Medium::new(bytes)));
        let mut lossy = Lossy { medium, point: point.to_path_buf(), session: None };
        lossy.serve()?;
        Ok(lossy)
    }

    /// The file.
    pub fn file(&self) -> PathBuf {
        self.point.join(FILE)
    }

    /// Flushes so far.
    pub fn flushes(&self) -> u64 {
        self.medium.lock().flushes
    }

    /// From now on everything fails with EIO.
    pub fn power_off(&self) {
        self.medium.lock().on = false;
    }

    /// See [`Medium::settle`].
    pub fn settle(&self, rng: &mut Rng) -> (u64, u64) {
        self.medium.lock().settle(rng)
    }

    /// Serves the medium anew: nothing that the kernel cached of the file stays. Fails with `Io`.
    pub fn power_up(&mut self) -> Result<(), Failure> {
        if let Some(session) = self.session.take() {
            session.umount_and_join().map_err(|error| Failure::io("Unmounting a served disk", &error))?;
        }
        self.medium.lock().on = true;
        self.serve()
    }

    fn serve(&mut self) -> Result<(), Failure> {
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("quorate-crash".into())];
        let served = fuser::spawn_mount(Served(self.medium.clone()), &self.point, &config);
        self.session = Some(served.map_err(|error| Failure::io("Mounting a served disk", &error))?);
        Ok(())
    }
}

struct Served(Arc<Mutex<Medium>>);

impl Served {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let file = inode == FILE_INODE;
        let size = if file { self.0.lock().durable.len() as u64 } else { 0 };
        FileAttr {
            ino: inode,
            size,
            blocks: size / SECTOR as u64,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if file { FileType::RegularFile } else { FileType::Directory },
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        }
    }
}

impl Filesystem for Served {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == INodeNo::ROOT && name == FILE {
            reply.entry(&TTL, &self.attributes(FILE_INODE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _req: &Request, inode: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attributes(inode));
    }

    fn open(&self, _req: &Request, _inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(1), FopenFlags::empty());
    }

    fn read(
        &self,
        _req: &Request,
        _inode: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.lock().read(offset, size as usize) {
            Some(data) => reply.data(&data),
            None => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _req: &Request,
        _inode: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write: WriteFlags,
        _flags: OpenFlags,
        _lock: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.lock().write(offset, data) {
            Some(()) => reply.written(data.len() as u32),
            None => reply.error(Errno::EIO),
        }
    }

    /// Called at each close: no sync.
    fn flush(&self, _req: &Request, _inode: INodeNo, _fh: FileHandle, _lock: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _req: &Request, _inode: INodeNo, _fh: FileHandle, _data: bool, reply: ReplyEmpty) {
        match self.0.lock().flush() {
            Some(()) => reply.ok(),
            None => reply.error(Errno::EIO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_flushed_survives_and_what_is_not_may_be_torn() {
        let mut medium = Medium::new(1 << 20);
        medium.write(8192, &[1; 8192]).unwrap();
        medium.flush().unwrap();
        let (mut torn, mut kept) = (false, false);
        for seed in 0..40 {
            let mut medium = Medium { durable: medium.durable.clone(), ..Medium::new(0) };
            medium.write(8192, &[2; 4096]).unwrap();
            medium.write(8192 + 100, &[3; 5]).unwrap();
            assert_eq!(medium.read(8292, 5).unwrap(), [3; 5], "the cache is what is read");
            assert_eq!(medium.read(8191, 3).unwrap(), [0, 2, 2]);
            medium.settle(&mut Rng::new(seed));
            let sectors: Vec<u8> = medium.durable[8192..12288].iter().step_by(SECTOR).copied().collect();
            torn |= sectors.contains(&1) && sectors.contains(&2);
            kept |= medium.durable[8292] == 2;
            assert!(medium.durable[12288..16384].iter().all(|byte| *byte == 1), "flushed before");
        }
        assert!(torn, "a block half old and half new");
        assert!(kept, "an older unflushed version of a sector");
    }

    #[test]
    fn without_power_nothing_works() {
        let mut medium = Medium::new(4096);
        medium.on = false;
        assert_eq!((medium.read(0, 1), medium.write(0, &[1]), medium.flush()), (None, None, None));
        medium.on = true;
        assert_eq!(medium.write(4095, &[1, 2]), None, "behind the end");
    }
}
