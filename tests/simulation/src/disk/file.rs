//! An open file of a simulated disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_engine::disk::DiskFile;

use super::Power;
use super::names::FileId;
use super::state::State;

/// See the module.
pub struct SimFile {
    pub state: Arc<Mutex<State>>,
    pub power: Arc<Power>,
    pub file: File,
    pub id: FileId,
}

impl SimFile {
    fn change<T>(&self, change: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock();
        state.permit(&self.power)?;
        change(&mut state)
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(&self.file, into, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.change(|state| state.write(&self.file, self.id, offset, bytes))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|state| state.set_len(&self.file, self.id, len))
    }

    fn len(&self) -> io::Result<u64> {
        self.file.metadata().map(|metadata| metadata.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.change(|state| state.sync_file(self.id))
    }
}
