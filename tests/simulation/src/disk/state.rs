//! What a disk knows: names, unsynced contents, unsynced names.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use quorate_linear::rng::Rng;

use super::faults::{self, Faults, Full, Harm};
use super::names::{Change, FileId};
use super::volatile::Volatile;
use super::{Power, parent};

/// See the module.
pub struct State {
    root: PathBuf,
    graves: PathBuf,
    next: FileId,
    ids: BTreeMap<PathBuf, FileId>,
    files: BTreeMap<FileId, Volatile>,
    directories: BTreeMap<PathBuf, VecDeque<Change>>,
    pub rng: Rng,
    pub faults: Faults,
    pub harm: Harm,
}

impl State {
    pub fn new(root: PathBuf, graves: PathBuf, rng: Rng) -> State {
        State {
            root,
            graves,
            next: 1,
            ids: BTreeMap::new(),
            files: BTreeMap::new(),
            directories: BTreeMap::new(),
            rng,
            faults: Faults::default(),
            harm: Harm::default(),
        }
    }

    /// Counts one change; from the moment of a power cut on, none is made. Fails with EIO.
    pub fn permit(&mut self, power: &Power) -> io::Result<()> {
        if power.is_on()
            && let Some(left) = &mut self.faults.cut_after
        {
            match left.checked_sub(1) {
                Some(fewer) => *left = fewer,
                None => {
                    self.faults.cut_after = None;
                    power.set(false);
                }
            }
        }
        if power.is_on() { Ok(()) } else { Err(faults::broken()) }
    }

    pub fn open(&mut self, path: &Path, write: bool) -> io::Result<(File, FileId)> {
        let file = OpenOptions::new().read(true).write(write).open(path)?;
        let id = self.id(path, file.metadata()?.len());
        Ok((file, id))
    }

    pub fn create(&mut self, path: &Path, must_be_new: bool) -> io::Result<(File, FileId)> {
        let exists = path.exists();
        if exists && must_be_new {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if exists {
            let (file, id) = self.open(path, true)?;
            self.volatile(id).set_len(&file, 0)?;
            return Ok((file, id));
        }
        if self.faults.full == Some(Full::Strict) {
            return Err(self.no_space());
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        let id = self.id(path, 0);
        self.note(path, Change::Made(path.to_path_buf(), id));
        Ok((file, id))
    }

    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if parent(from) != parent(to) {
            return Err(io::Error::other("files are not moved to another directory here"));
        }
        let id = self.id(from, fs::metadata(from)?.len());
        let replaced = match fs::metadata(to) {
            Ok(there) => {
                let other = self.id(to, there.len());
                let grave = self.grave(other);
                fs::rename(to, &grave)?;
                Some((other, grave))
            }
            Err(_) => None,
        };
        fs::rename(from, to)?;
        self.ids.remove(from);
        self.ids.insert(to.to_path_buf(), id);
        let change = Change::Renamed { from: from.to_path_buf(), to: to.to_path_buf(), file: id, replaced };
        self.note(to, change);
        Ok(())
    }

    pub fn remove(&mut self, path: &Path) -> io::Result<()> {
        let id = self.id(path, fs::metadata(path)?.len());
        let grave = self.grave(id);
        fs::rename(path, &grave)?;
        self.ids.remove(path);
        self.note(path, Change::Removed(path.to_path_buf(), id, grave));
        Ok(())
    }

    pub fn create_dir(&mut self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        self.create_dir(&parent(dir))?;
        fs::create_dir(dir)?;
        self.note(dir, Change::MadeDir(dir.to_path_buf()));
        Ok(())
    }

    pub fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        fs::metadata(dir)?;
        if self.sync_fails() {
            return Err(faults::broken());
        }
        self.settle(dir, usize::MAX)
    }

    /// Makes `file`'s content durable, and in a directory of raft-engine's its name too. Fails with EIO.
    pub fn sync_file(&mut self, id: FileId) -> io::Result<()> {
        if self.sync_fails() {
            self.volatile(id).sync_failed();
            return Err(faults::broken());
        }
        self.volatile(id).synced();
        let log = |dir: &&PathBuf| dir.file_name().is_some_and(|name| name == "log");
        for dir in self.directories.keys().filter(log).cloned().collect::<Vec<_>>() {
            let named = self.directories[&dir].iter().rposition(|change| change.names() == Some(id));
            if let Some(last) = named {
                self.settle(&dir, last + 1)?;
            }
        }
        Ok(())
    }

    /// Writes; returns how many bytes were taken.
    pub fn write(&mut self, file: &File, id: FileId, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        if self.faults.write_errors > 0 {
            self.faults.write_errors -= 1;
            self.harm.write_errors += 1;
            return Err(faults::broken());
        }
        let mut taken = bytes.len();
        if self.faults.short_writes > 0 && taken > 1 && self.rng.chance(self.faults.short_writes) {
            self.harm.short_writes += 1;
            taken = 1 + self.rng.below(taken as u64 - 1) as usize;
        }
        match self.faults.full {
            Some(Full::Strict) => return Err(self.no_space()),
            Some(Full::GrowingOnly) => {
                let room = self.volatile(id).len().saturating_sub(offset);
                if room == 0 && taken > 0 {
                    return Err(self.no_space());
                }
                taken = taken.min(room as usize);
            }
            None => {}
        }
        self.volatile(id).write(file, offset, &bytes[..taken])?;
        Ok(taken)
    }

    pub fn set_len(&mut self, file: &File, id: FileId, len: u64) -> io::Result<()> {
        if len > self.volatile(id).len() && self.faults.full.is_some() {
            return Err(self.no_space());
        }
        self.volatile(id).set_len(file, len)
    }

    /// Carries a power cut out.
    pub fn cut(&mut self, survive: u64) -> io::Result<()> {
        self.harm.cuts += 1;
        self.faults.cut_after = None;
        self.cut_contents(survive)?;
        // From the leaves on: a directory that goes takes everything below with it.
        let mut directories: Vec<_> = std::mem::take(&mut self.directories).into_iter().collect();
        directories.sort_by_key(|(dir, _)| std::cmp::Reverse(dir.components().count()));
        for (_, changes) in directories {
            let kept = if self.rng.chance(survive) {
                changes.len()
            } else {
                self.rng.below(changes.len() as u64 + 1) as usize
            };
            for change in changes.iter().skip(kept).rev() {
                self.harm.names_lost += 1;
                change.undo()?;
            }
            changes.iter().take(kept).try_for_each(Change::settle)?;
        }
        self.ids.clear();
        self.files.clear();
        Ok(())
    }

    fn cut_contents(&mut self, survive: u64) -> io::Result<()> {
        let present = self.ids.iter().map(|(path, id)| (*id, path.clone()));
        let buried = self.directories.values().flatten().filter_map(Change::grave);
        let places: Vec<(FileId, PathBuf)> = present.chain(buried.map(|(id, path)| (id, path.to_path_buf()))).collect();
        for (id, path) in places {
            let Some(volatile) = self.files.get_mut(&id).filter(|volatile| !volatile.is_durable()) else { continue };
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            let lost = volatile.cut(&file, &mut self.rng, survive)?;
            self.harm.sectors_lost += lost.sectors;
            self.harm.torn += lost.torn;
        }
        Ok(())
    }

    pub fn forget(&mut self) -> io::Result<()> {
        self.ids.clear();
        self.files.clear();
        self.directories.clear();
        for grave in fs::read_dir(&self.graves)? {
            fs::remove_file(grave?.path())?;
        }
        Ok(())
    }

    /// The unsynced part of file `id`.
    pub fn volatile(&mut self, id: FileId) -> &mut Volatile {
        self.files.entry(id).or_insert_with(|| Volatile::durable(0))
    }

    fn settle(&mut self, dir: &Path, count: usize) -> io::Result<()> {
        let Some(changes) = self.directories.get_mut(dir) else { return Ok(()) };
        let settled: Vec<Change> = changes.drain(..count.min(changes.len())).collect();
        if changes.is_empty() {
            self.directories.remove(dir);
        }
        settled.iter().try_for_each(Change::settle)
    }

    fn note(&mut self, path: &Path, change: Change) {
        // Above the root nothing is simulated.
        if path != self.root && path.starts_with(&self.root) {
            self.directories.entry(parent(path)).or_default().push_back(change);
        }
    }

    fn id(&mut self, path: &Path, len: u64) -> FileId {
        if let Some(id) = self.ids.get(path) {
            return *id;
        }
        let id = self.next;
        self.next += 1;
        self.ids.insert(path.to_path_buf(), id);
        self.files.insert(id, Volatile::durable(len));
        id
    }

    fn grave(&mut self, id: FileId) -> PathBuf {
        self.next += 1;
        self.graves.join(format!("{id}-{}", self.next))
    }

    fn sync_fails(&mut self) -> bool {
        let fails = self.faults.sync_errors > 0;
        if fails {
            self.faults.sync_errors -= 1;
            self.harm.sync_errors += 1;
        }
        fails
    }

    fn no_space(&mut self) -> io::Error {
        self.harm.no_space += 1;
        faults::no_space()
    }
}
