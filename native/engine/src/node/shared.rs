//! What the applying thread shares with the other parts of its node.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;

use crate::consensus::log::LogStore;
use crate::consensus::types::{LogId, StoredMembership};
use crate::node::apply_queue::ApplyQueue;
use crate::node::observer::Observer;
use crate::node::pending::Pending;
use crate::node::problems::Problems;
use crate::snapshot::OpenSnapshot;
use crate::surroundings::Pace;
use crate::watch;

/// How far this node has applied, for whoever waits for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The next Raft log index to apply; everything below is applied.
    pub next_log_index: u64,
    /// The user-visible index.
    pub index: u64,
    /// This node's own low-water mark as the applied log knows it.
    pub own_low: u64,
    /// User-visible index of the newest snapshot.
    pub snapshot_index: u64,
    /// The last Raft entry in it; none before there is one.
    pub snapshot_log_id: Option<LogId>,
}

/// What the applying thread shares with the node.
pub struct Shared {
    /// Work for the thread.
    pub queue: Arc<ApplyQueue>,
    /// Where the answers belong.
    pub pending: Arc<Pending>,
    /// Who is told of them.
    pub observer: Arc<dyn Observer>,
    /// How far the machine was *given* entries (a hosted one may lag behind).
    pub progress: watch::Sender<Progress>,
    /// What is wrong, for the status.
    pub problems: Arc<Problems>,
    /// Where entries are read back from, when the queue kept only their range.
    pub log: Mutex<Option<LogStore>>,
    /// True while a starting core waits for a snapshot of what the log does not hold any more: nothing is handed over then.
    pub covering: AtomicBool,
    /// How long applying takes.
    pub pace: Pace,
    /// The last entry and the membership that openraft handed over; it lies ahead of `progress`.
    pub handed: Mutex<(Option<LogId>, StoredMembership)>,
}

impl Shared {
    /// Notes that `snapshot` is on disk, unless a newer one is.
    pub fn has_snapshot(&self, snapshot: &OpenSnapshot) {
        self.progress.send_modify(|progress| {
            if snapshot.index >= progress.snapshot_index {
                progress.snapshot_index = snapshot.index;
                progress.snapshot_log_id = snapshot.meta.last_log_id;
            }
        });
    }
}
