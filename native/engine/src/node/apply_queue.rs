//! What waits for the applying thread. openraft's own worker must never wait for a machine (its queue would fill and
//! the consensus core would stand still), so putting something here never blocks: beyond a bound, entries are
//! remembered as a range of log indexes and read back from the log when their turn comes.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::consensus::types::{Entry, SnapshotMeta};
use crate::error::Failure;
use crate::limits::{APPLY_WINDOW_BYTES, APPLY_WINDOW_COMMANDS};
use crate::machine::Frozen;
use crate::snapshot::OpenSnapshot;

/// A consistent view and what goes into its snapshot's header.
pub struct FrozenState {
    /// Log position and membership.
    pub meta: SnapshotMeta,
    /// User-visible index.
    pub index: u64,
    /// The books, as notes.
    pub notes: Vec<(Vec<u8>, Vec<u8>)>,
    /// The machine's view.
    pub view: Box<dyn Frozen>,
}

/// One thing to do for the applying thread.
pub enum Work {
    /// Apply these committed entries.
    Entries(Vec<Entry>),
    /// Apply the committed entries from the first to the last log index, both included, out of the log.
    Range(u64, u64),
    /// Replace the state by this snapshot.
    Install(OpenSnapshot),
    /// Find out why the machine has raised its alarm.
    Check,
    /// Freeze the state as of now.
    Freeze(oneshot::Sender<Result<FrozenState, Failure>>),
}

#[derive(Default)]
struct State {
    work: VecDeque<Work>,
    entries: usize,
    bytes: usize,
    closed: bool,
}

/// The queue between openraft's state-machine worker and the applying thread.
#[derive(Default)]
pub struct ApplyQueue {
    state: Mutex<State>,
    filled: Notify,
}

/// Bytes that an entry keeps in memory.
pub fn entry_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        openraft::EntryPayload::Normal(batch) => batch.0.len(),
        _ => 0,
    }
}

impl ApplyQueue {
    /// Puts committed entries, consecutive and ascending; never blocks.
    pub fn push_entries(&self, entries: Vec<Entry>) {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
        let (first, last) = (first.log_id.index, last.log_id.index);
        let bytes: usize = entries.iter().map(entry_bytes).sum();
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        let fits = state.entries + entries.len() <= APPLY_WINDOW_COMMANDS && state.bytes + bytes <= APPLY_WINDOW_BYTES;
        if fits || state.work.is_empty() {
            state.entries += entries.len();
            state.bytes += bytes;
            state.work.push_back(Work::Entries(entries));
        } else if let Some(Work::Range(_, end)) = state.work.back_mut() {
            *end = last;
        } else {
            state.work.push_back(Work::Range(first, last));
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Puts any other work; never blocks. A snapshot to install supersedes the entries before it. Once closed, work is
    /// dropped.
    pub fn push(&self, work: Work) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        if matches!(work, Work::Install(_)) {
            state.work.retain(|queued| matches!(queued, Work::Freeze(_) | Work::Install(_)));
            (state.entries, state.bytes) = (0, 0);
        }
        state.work.push_back(work);
        drop(state);
        self.filled.notify_one();
    }

    /// Puts back before everything else a snapshot to install, then the committed entries from the first to the last log index; a
    /// snapshot that waits makes both needless.
    pub fn put_back(&self, snapshot: Option<OpenSnapshot>, range: Option<(u64, u64)>) {
        let mut state = self.state.lock();
        if state.closed || state.work.iter().any(|work| matches!(work, Work::Install(_))) {
            return;
        }
        range.into_iter().for_each(|(first, last)| state.work.push_front(Work::Range(first, last)));
        snapshot.into_iter().for_each(|snapshot| state.work.push_front(Work::Install(snapshot)));
        drop(state);
        self.filled.notify_one();
    }

    /// Drops the entries that wait.
    pub fn forget_entries(&self) {
        let mut state = self.state.lock();
        state.work.retain(|queued| matches!(queued, Work::Freeze(_) | Work::Install(_)));
        (state.entries, state.bytes) = (0, 0);
    }

    /// The next work; waits for it. `None` once closed. For one taker.
    pub async fn next(&self) -> Option<Work> {
        loop {
            {
                let mut state = self.state.lock();
                if state.closed {
                    return None;
                }
                if let Some(work) = state.work.pop_front() {
                    if let Work::Entries(entries) = &work {
                        state.entries -= entries.len();
                        state.bytes -= entries.iter().map(entry_bytes).sum::<usize>();
                    }
                    return Some(work);
                }
            }
            self.filled.notified().await;
        }
    }

    /// More entries that can be applied together with what is being applied, if the next work is entries.
    pub fn next_entries(&self) -> Option<Vec<Entry>> {
        let mut state = self.state.lock();
        if !matches!(state.work.front(), Some(Work::Entries(_))) || state.closed {
            return None;
        }
        let Some(Work::Entries(entries)) = state.work.pop_front() else { return None };
        state.entries -= entries.len();
        state.bytes -= entries.iter().map(entry_bytes).sum::<usize>();
        Some(entries)
    }

    /// True when a snapshot waits, which makes everything before it needless.
    pub fn is_superseded(&self) -> bool {
        self.state.lock().work.iter().any(|work| matches!(work, Work::Install(_)))
    }

    /// Ends [`ApplyQueue::next`] and drops what waits.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.work.clear();
        drop(state);
        self.filled.notify_one();
    }

    /// True once closed.
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }
}
