//! A disk with a synced and a volatile layer. The present state lies in real files, because the engine lists and reads
//! directories through the operating system; what changes goes through here and is recorded, so that a power cut can take
//! back what was not synced: a random subset of sectors, lengths, and the newest names of a directory.
//!
//! raft-engine syncs its directory through the operating system, out of sight, right after it synced a file that it made or
//! renamed. In a directory called `log` therefore the sync of a file makes its name durable, and what was changed before it.

mod faults;
mod file;
mod names;
mod state;
#[cfg(test)]
mod tests;
mod volatile;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use quorate_engine::disk::{Disk, DiskFile, Open};
use quorate_linear::rng::Rng;

pub use faults::{Faults, Full, Harm};
use file::SimFile;
use state::State;

/// Whether the machine that a disk and a node belong to has power.
#[derive(Debug)]
pub struct Power(AtomicBool);

impl Power {
    /// Power, on.
    pub fn new() -> Arc<Power> {
        Arc::new(Power(AtomicBool::new(true)))
    }

    /// True as long as there is power.
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Turns it off or on.
    pub fn set(&self, on: bool) {
        self.0.store(on, Ordering::Relaxed);
    }
}

/// The disk of one node. Cloning shares it.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    power: Arc<Power>,
}

impl SimDisk {
    /// A disk whose files lie below `root`, which exists; `graves`, which exists too and is on the same file system, takes
    /// removed files that may come back. What is there already is durable.
    pub fn new(root: &Path, graves: &Path, rng: Rng, power: Arc<Power>) -> SimDisk {
        let state = State::new(root.to_path_buf(), graves.to_path_buf(), rng);
        SimDisk { state: Arc::new(Mutex::new(state)), power }
    }

    /// What is wrong with it from now on.
    pub fn set_faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.state.lock().faults);
    }

    /// What is wrong with it now.
    pub fn faults(&self) -> Faults {
        self.state.lock().faults
    }

    /// What it did so far.
    pub fn harm(&self) -> Harm {
        self.state.lock().harm
    }

    /// The power goes, and comes back: what was not synced is lost, but for what chance keeps (`survive` in a hundred are
    /// kept in any case). Nobody may have a file open. Fails as the operating system does.
    pub fn cut(&self, survive: u64) -> io::Result<()> {
        let outcome = self.state.lock().cut(survive);
        self.power.set(true);
        outcome
    }

    /// The directory was emptied behind the disk's back. Fails as the operating system does.
    pub fn forget(&self) -> io::Result<()> {
        self.state.lock().forget()
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock();
        state.permit(&self.power)?;
        change(&mut state)
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        let state = || self.state.clone();
        let (file, id) = match how {
            Open::Read | Open::ReadWrite => self.state.lock().open(path, how == Open::ReadWrite)?,
            Open::Create | Open::CreateNew => self.change(|state| state.create(path, how == Open::CreateNew))?,
        };
        Ok(Box::new(SimFile { state: state(), power: self.power.clone(), file, id }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|state| state.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(|state| state.remove(path))
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.change(|state| state.create_dir(dir))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.change(|state| state.sync_dir(dir))
    }
}

/// The directory that holds `path`.
fn parent(path: &Path) -> PathBuf {
    path.parent().map(Path::to_path_buf).unwrap_or_default()
}
