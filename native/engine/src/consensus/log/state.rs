//! What the store's threads and callers share: marks as of the last call, recent entries, the queue of the writer.

use std::collections::VecDeque;
use std::time::Duration;

use openraft::storage::IOFlushed;
use parking_lot::Mutex;
use raft_proto::eraftpb;
use tokio::sync::{Notify, Semaphore, oneshot};

use super::marks::Marks;
use super::record;
use crate::consensus::types::{Entry, LogId, TypeConfig, Vote};
use crate::error::{Code, Failure};
use crate::limits::{LOG_CACHE_BYTES, LOG_QUEUE_OPERATIONS};
use crate::worker::within;

/// One thing for the writer to make durable.
pub(super) enum Operation {
    Append { records: Vec<eraftpb::Entry>, tail: LogId, done: IOFlushed<TypeConfig> },
    Truncate { after: Option<LogId> },
    Purge { upto: LogId },
    Vote { vote: Vote, done: oneshot::Sender<Result<(), Failure>> },
}

impl Operation {
    /// Bytes that it adds to a batch, about.
    pub fn bytes(&self) -> usize {
        match self {
            Operation::Append { records, .. } => records.iter().map(|record| record.data.len() + 32).sum(),
            _ => 0,
        }
    }

    /// Tells whoever waits for it.
    pub fn complete(self, outcome: &Result<(), Failure>) {
        match self {
            Operation::Append { done, .. } => done.io_completed(outcome.clone().map_err(Into::into)),
            // Nobody listens any more when the caller gave up; that is its right.
            Operation::Vote { done, .. } => drop(done.send(outcome.clone())),
            Operation::Truncate { .. } | Operation::Purge { .. } => {}
        }
    }
}

struct Cached {
    entry: Entry,
    bytes: usize,
    /// Number of the operation that appended it.
    operation: u64,
}

/// What of a range is in memory, and what has to be read from the files before it.
pub(super) struct Plan {
    /// Indexes to be read from the files: first, one past the last.
    pub cold: Option<(u64, u64)>,
    /// Entries from memory; empty when `cold` says something.
    pub hot: Vec<Entry>,
    /// Grows with every truncation and purge.
    pub epoch: u64,
}

/// See the module.
#[derive(Default)]
pub(super) struct State {
    pub marks: Marks,
    pub queue: VecDeque<Operation>,
    pub closing: bool,
    pub failure: Option<Failure>,
    /// True when the committed position is newer than what was written last.
    pub committed_is_new: bool,
    /// True while the writer sleeps until somebody wakes it.
    pub asleep: bool,
    pub batches: u64,
    pub entries: u64,
    pub bytes: u64,
    epoch: u64,
    cache: VecDeque<Cached>,
    cache_bytes: usize,
    /// Operations queued and operations finished since open.
    queued: u64,
    finished: u64,
    /// Number of the newest operation that truncated.
    truncated: u64,
}

impl State {
    /// Fails when the store is closed, or failed before.
    pub fn usable(&self) -> Result<(), Failure> {
        match &self.failure {
            Some(failure) => Err(failure.clone()),
            None if self.closing => Err(Failure::closed()),
            None => Ok(()),
        }
    }

    /// Queues `operation`.
    pub fn push(&mut self, operation: Operation) {
        self.queued += 1;
        self.queue.push_back(operation);
    }

    /// Appends `entries`, which must follow the tail without a gap; they are readable from now on.
    pub fn append(&mut self, entries: Vec<Entry>) -> Result<(), Failure> {
        self.check_sequence(&entries)?;
        let operation = self.queued + 1;
        for entry in entries {
            self.marks.append(entry.log_id.index, entry.log_id);
            let bytes = record::size(&entry);
            self.cache_bytes += bytes;
            self.cache.push_back(Cached { entry, bytes, operation });
        }
        Ok(())
    }

    fn check_sequence(&self, entries: &[Entry]) -> Result<(), Failure> {
        let mut follows = self.marks.tail.map(|tail| tail.index + 1);
        for index in entries.iter().map(|entry| entry.log_id.index) {
            match follows {
                Some(follows) if follows != index => {
                    return Err(Failure::internal(format!("Entry {index} was appended where {follows} follows.")));
                }
                _ => follows = Some(index + 1),
            }
        }
        Ok(())
    }

    /// Removes the entries after `after`.
    pub fn truncate(&mut self, after: Option<LogId>) {
        self.epoch += 1;
        self.truncated = self.queued + 1;
        self.marks.truncate(after);
        let tail = self.marks.tail.map(|tail| tail.index);
        while self.cache.back().is_some_and(|cached| Some(cached.entry.log_id.index) > tail) {
            self.cache_bytes -= self.cache.pop_back().map_or(0, |cached| cached.bytes);
        }
    }

    /// Removes the entries up to `upto`.
    pub fn purge(&mut self, upto: LogId) {
        self.epoch += 1;
        self.marks.purge(upto);
        while self.cache.front().is_some_and(|cached| cached.entry.log_id.index <= upto.index) {
            self.cache_bytes -= self.cache.pop_front().map_or(0, |cached| cached.bytes);
        }
    }

    /// `operations` more are in the files: their entries need not stay in memory.
    pub fn finished(&mut self, operations: u64) {
        self.finished += operations;
        while self.cache_bytes > LOG_CACHE_BYTES
            && self.cache.front().is_some_and(|cached| cached.operation <= self.finished)
        {
            self.cache_bytes -= self.cache.pop_front().map_or(0, |cached| cached.bytes);
        }
    }

    /// The newest committed position, when the files hold that very entry once `operations` more are in them and the log
    /// ends at `tail` there. Else, after a power cut, another entry at its index would pass for committed.
    pub fn committed_by(&self, operations: u64, tail: Option<LogId>) -> Option<Option<LogId>> {
        let index = |id: Option<LogId>| id.map(|id| id.index);
        let same = self.truncated <= self.finished + operations;
        (same && index(self.marks.committed) <= index(tail)).then_some(self.marks.committed)
    }

    /// How to read entries `first..end`: as many from the first on as lie in one place and are, from memory, at most
    /// `bytes`, but at least one. Indexes that the log does not hold, at either end, are left out.
    pub fn plan(&self, first: u64, end: u64, bytes: usize) -> Plan {
        let held = self.marks.range();
        let (first, end) = (first.max(held.0), end.min(held.1));
        let hot_from = held.1 - self.cache.len() as u64;
        let mut plan = Plan { cold: None, hot: Vec::new(), epoch: self.epoch };
        if first >= end {
            return plan;
        }
        if first < hot_from {
            plan.cold = Some((first, end.min(hot_from)));
            return plan;
        }
        let mut taken = 0;
        for cached in self.cache.range((first - hot_from) as usize..(end - hot_from) as usize) {
            taken += cached.bytes;
            if taken > bytes && !plan.hot.is_empty() {
                break;
            }
            plan.hot.push(cached.entry.clone());
        }
        plan
    }

    /// Grows with every truncation and purge.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Empties the cache as far as it may be, so that reads go to the files.
    #[cfg(test)]
    pub fn drop_cache(&mut self) {
        while self.cache.front().is_some_and(|cached| cached.operation <= self.finished) {
            self.cache_bytes -= self.cache.pop_front().map_or(0, |cached| cached.bytes);
        }
    }
}

/// The state, and how its users wait for each other.
pub(super) struct Shared {
    pub state: Mutex<State>,
    /// Wakes the writer.
    pub work: Notify,
    /// Free places in the queue.
    pub room: Semaphore,
}

impl Shared {
    pub fn new(marks: Marks) -> Shared {
        Shared {
            state: Mutex::new(State { marks, ..State::default() }),
            work: Notify::new(),
            room: Semaphore::new(LOG_QUEUE_OPERATIONS),
        }
    }

    /// Waits for a place in the queue, lets `change` update the state and make the operation, and queues it: one step
    /// for everybody else, so state and queue have the same order. Fails as [`State::usable`] and `change` do.
    pub async fn submit(&self, change: impl FnOnce(&mut State) -> Result<Operation, Failure>) -> Result<(), Failure> {
        let place = self.room.acquire().await.map_err(|_| Failure::closed())?;
        let mut state = self.state.lock();
        state.usable()?;
        let operation = change(&mut state)?;
        state.push(operation);
        place.forget();
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    /// Waits for operations and takes as many as have about `bytes`, at least one. Nothing after `linger` when the
    /// committed position alone is to be written, and when the store is closing and the queue is empty.
    pub async fn take(&self, bytes: usize, linger: Duration) -> Vec<Operation> {
        loop {
            if let Some(operations) = self.take_queued(bytes) {
                return operations;
            }
            if within(linger, self.work.notified()).await.is_some() {
                continue;
            }
            {
                let mut state = self.state.lock();
                if !state.queue.is_empty() || state.closing {
                    continue;
                }
                if state.committed_is_new {
                    return Vec::new();
                }
                state.asleep = true;
            }
            self.work.notified().await;
            self.state.lock().asleep = false;
        }
    }

    /// What is queued, `None` when nothing is; nothing when nothing will be any more.
    fn take_queued(&self, bytes: usize) -> Option<Vec<Operation>> {
        let mut state = self.state.lock();
        if state.queue.is_empty() && !state.closing {
            return None;
        }
        let (mut operations, mut taken) = (Vec::new(), 0);
        while taken < bytes
            && let Some(operation) = state.queue.pop_front()
        {
            taken += operation.bytes();
            operations.push(operation);
        }
        drop(state);
        self.room.add_permits(operations.len());
        Some(operations)
    }

    /// From now on every operation fails with `failure`; an earlier failure stays.
    pub fn fail(&self, failure: &Failure) {
        let mut state = self.state.lock();
        if state.failure.is_none() {
            tracing::error!(target: "quorate::log", "{failure}");
            state.failure = Some(failure.clone());
        }
    }
}

/// `Corrupt`, with the way out.
pub(super) fn corrupt(what: impl std::fmt::Display) -> Failure {
    Failure::new(
        Code::Corrupt,
        format!(
            "{what} Acknowledged entries may be lost, so this node does not go on. Restore the data directory from a \
             copy, or move it away and start the node empty: it then gets everything from the other members."
        ),
    )
}
