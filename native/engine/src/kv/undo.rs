//! What walks over the store ([`super::walk`]) still have to see, though it changed: from a walk's start on, an apply records what a key
//! held before its first change, unless the walk has passed that key.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use sled::IVec;

use crate::error::{Code, Failure};
use crate::limits::UNDO_BYTES_MAX;

/// What a recorded entry costs besides its bytes.
const OVERHEAD_BYTES: usize = 96;

#[derive(Default)]
pub(super) struct UndoLogs {
    logs: Mutex<Logs>,
}

#[derive(Default)]
struct Logs {
    next_id: u64,
    running: Vec<UndoLog>,
}

struct UndoLog {
    id: u64,
    /// What the walk has still to read begins here (inclusive) …
    from: Vec<u8>,
    /// … and ends before this.
    end: Vec<u8>,
    before: BTreeMap<IVec, Option<IVec>>,
    bytes: usize,
    bytes_max: usize,
    lost: Option<Failure>,
}

impl UndoLog {
    fn record(&mut self, key: &IVec, before: &Option<IVec>) {
        let awaited = self.from.as_slice() <= key.as_ref() && key.as_ref() < self.end.as_slice();
        if self.lost.is_some() || !awaited || self.before.contains_key(key) {
            return;
        }
        self.bytes += OVERHEAD_BYTES + key.len() + before.as_ref().map_or(0, |stored| stored.len());
        if self.bytes > self.bytes_max {
            let message =
                format!("More than {} bytes changed while the store was being read; try again.", self.bytes_max);
            return self.lose(Failure::new(Code::Overloaded, message));
        }
        self.before.insert(key.clone(), before.clone());
    }

    fn lose(&mut self, why: Failure) {
        self.before.clear();
        self.lost = Some(why);
    }
}

impl UndoLogs {
    /// To be called before the change becomes visible.
    pub fn record(&self, before: &[(IVec, Option<IVec>)]) {
        let mut logs = self.logs.lock();
        for log in &mut logs.running {
            before.iter().for_each(|(key, before)| log.record(key, before));
        }
    }

    /// Ends every running walk with `why` at its next step.
    pub fn lose_all(&self, why: &Failure) {
        self.logs.lock().running.iter_mut().for_each(|log| log.lose(why.clone()));
    }

    pub fn begin(&self, from: Vec<u8>, end: Vec<u8>) -> u64 {
        let mut logs = self.logs.lock();
        logs.next_id += 1;
        let id = logs.next_id;
        let (before, bytes_max) = (BTreeMap::new(), UNDO_BYTES_MAX);
        logs.running.push(UndoLog { id, from, end, before, bytes: 0, bytes_max, lost: None });
        id
    }

    /// Takes what was recorded below `next` and stops recording there.
    pub fn pass(&self, id: u64, next: &[u8]) -> Result<BTreeMap<IVec, Option<IVec>>, Failure> {
        let mut logs = self.logs.lock();
        let Some(log) = logs.running.iter_mut().find(|log| log.id == id) else {
            return Err(Failure::internal("A walk over the store has no undo log."));
        };
        if let Some(why) = &log.lost {
            return Err(why.clone());
        }
        let rest = log.before.split_off(next);
        let passed = std::mem::replace(&mut log.before, rest);
        for (key, before) in &passed {
            log.bytes -= OVERHEAD_BYTES + key.len() + before.as_ref().map_or(0, |stored| stored.len());
        }
        log.from = next.to_vec();
        Ok(passed)
    }

    pub fn end(&self, id: u64) {
        self.logs.lock().running.retain(|log| log.id != id);
    }

    #[cfg(test)]
    pub fn running(&self) -> usize {
        self.logs.lock().running.len()
    }
}
