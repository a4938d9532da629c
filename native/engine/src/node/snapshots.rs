//! When a snapshot is taken, and what comes of it: openraft is told, and the log behind it purged.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tokio::time::Instant;

use crate::config::NodeConfig;
use crate::consensus::types::LogId;
use crate::durable::blocking;
use crate::error::{Code, Failure};
use crate::limits::LOG_KEEP_BYTES_MAX;
use crate::node::adapter::RaftNode;
use crate::node::apply_queue::Work;
use crate::node::freezing;
use crate::node::problems::Problem;
use crate::node::shared::Shared;
use crate::planted::{self, Defect};
use crate::snapshot::{OpenSnapshot, SnapshotDir};

/// Bytes logged since the last snapshot that call for one, however few the commands.
const SNAPSHOT_LOG_BYTES: u64 = 256 << 20;
/// After a first failure, before the next attempt; doubles with each further one, up to the longest.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(60);
/// What is purged was applied at least this long before.
const PURGE_MARGIN: Duration = Duration::from_secs(1);
/// Marks of what was logged, within what is kept: so exactly its bound in bytes is held.
const MARKS: u64 = 64;
/// How often the need of a snapshot is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Takes snapshots, one at a time.
pub struct Snapshots {
    directory: SnapshotDir,
    shared: Arc<Shared>,
    /// Whether the machine can write any.
    possible: bool,
    /// Held while one is being taken.
    busy: tokio::sync::Mutex<()>,
}

impl Snapshots {
    /// For the machine behind `shared`, into `directory`; `possible` says whether that machine can write snapshots.
    pub fn new(directory: SnapshotDir, shared: Arc<Shared>, possible: bool) -> Snapshots {
        Snapshots { directory, shared, possible, busy: tokio::sync::Mutex::new(()) }
    }

    /// Takes one now and returns its user-visible index when it is durable. When nothing was applied since the last,
    /// that one's index. A failure shows in the status until one succeeds. Fails with `Io`, `StateMachine`, `Closed`.
    pub async fn take(&self, raft: &RaftNode) -> Result<u64, Failure> {
        if !self.possible {
            return Err(Failure::new(
                Code::StateMachine,
                "This state machine has no snapshots; its log is kept whole.",
            ));
        }
        let open = match self.write().await {
            Ok(open) => open,
            Err(failure) => {
                tracing::error!("A snapshot failed: {failure}");
                self.shared.problems.set(Problem::Snapshot, failure.clone());
                return Err(failure);
            }
        };
        self.shared.problems.clear(Problem::Snapshot);
        // Only now may the log be purged.
        raft.trigger().snapshot().await.map_err(|_| Failure::closed())?;
        Ok(open.index)
    }

    /// Sees to it that a snapshot reaches at least to `begins`, where the log begins: openraft takes for granted that one
    /// does, and others may need it. Fails as [`Snapshots::take`].
    pub async fn cover(&self, begins: Option<LogId>) -> Result<(), Failure> {
        let directory = self.directory.clone();
        let latest = blocking(move || directory.latest()).await?;
        if latest.and_then(|latest| latest.meta.last_log_id) >= begins {
            return Ok(());
        }
        tracing::warn!("No snapshot reaches to where the log begins; one is taken from the state.");
        self.shared.covering.store(true, Ordering::Release);
        let written = self.write().await;
        self.shared.covering.store(false, Ordering::Release);
        if written?.meta.last_log_id < begins {
            let what =
                "The state machine was opened anew and is behind what the log held; the rest comes from other members.";
            return Err(Failure::new(Code::Unavailable, what));
        }
        Ok(())
    }

    async fn write(&self) -> Result<OpenSnapshot, Failure> {
        let _one_at_a_time = self.busy.lock().await;
        let directory = self.directory.clone();
        let newest = blocking(move || directory.latest()).await?;
        let covered = newest.as_ref().and_then(|newest| newest.meta.last_log_id).map_or(0, |log_id| log_id.index + 1);
        if let Some(newest) = newest
            && covered >= self.shared.progress.borrow().next_log_index
        {
            return Ok(newest);
        }
        let open = freezing::finish(&mut freezing::begin(&self.shared), self.directory.clone()).await?;
        self.shared.has_snapshot(&open);
        if planted::is(Defect::OlderSnapshotInstalled) {
            self.shared.queue.push(Work::Install(open.clone()));
        }
        Ok(open)
    }

    /// Takes a snapshot whenever enough commands were applied, or many bytes logged, since the last, and purges what it
    /// makes needless. Runs until dropped.
    pub async fn run(&self, raft: RaftNode, config: &NodeConfig) {
        if !self.possible {
            return std::future::pending().await;
        }
        let (mut logged_at_last, mut retry, mut not_before) = (self.logged_bytes(), RETRY_FIRST, Instant::now());
        let begun = self.shared.progress.borrow().snapshot_log_id.map(|log_id| log_id.index);
        let mut purge = Purge::new(config.log_keep_entries, begun);
        let mut failed = true;
        loop {
            tokio::time::sleep(LOOK).await;
            let progress = *self.shared.progress.borrow();
            let logged = self.logged_bytes();
            purge.look(&raft, progress.snapshot_log_id, logged).await;
            let due = progress.index >= progress.snapshot_index.saturating_add(config.snapshot_commands)
                || (logged >= logged_at_last + SNAPSHOT_LOG_BYTES && progress.index > progress.snapshot_index);
            if !due && failed {
                // One came from another member meanwhile, before this or an earlier life of the core could take its own.
                self.shared.problems.clear(Problem::Snapshot);
                (failed, retry) = (false, RETRY_FIRST);
            }
            if !due || Instant::now() < not_before {
                continue;
            }
            failed = self.take(&raft).await.is_err();
            if !failed {
                (logged_at_last, retry) = (logged, RETRY_FIRST);
            } else {
                not_before = Instant::now() + retry;
                retry = (retry * 2).min(RETRY_LONGEST);
            }
        }
    }

    fn logged_bytes(&self) -> u64 {
        self.shared.log.lock().as_ref().map_or(0, |log| log.stats().bytes)
    }
}

/// Purges the log behind snapshots. openraft's core panics when it still has to hand entries to the machine that are purged
/// already (openraft#2116), so only what was applied some time before is.
struct Purge {
    keep: u64,
    /// Applied as of `looked`, and as of the look before.
    applied: Option<u64>,
    settled: Option<u64>,
    looked: Instant,
    /// How many bytes had been logged, since the node was started, when an index was applied; ascending.
    marks: VecDeque<(u64, u64)>,
    /// What is kept for followers that lag ends before this index, for more than [`LOG_KEEP_BYTES_MAX`] were logged after it.
    too_old: Option<u64>,
}

impl Purge {
    /// `begun` is the snapshot that this core began with: what it holds is never handed over again, so it can go at once. A node that
    /// runs for a second only, again and again, would purge nothing otherwise.
    fn new(keep: u64, begun: Option<u64>) -> Purge {
        Purge { keep, applied: begun, settled: begun, looked: Instant::now(), marks: VecDeque::new(), too_old: None }
    }

    async fn look(&mut self, raft: &RaftNode, snapshot: Option<LogId>, logged: u64) {
        let (applied, purged) = {
            let metrics = raft.data_metrics();
            let metrics = metrics.borrow_watched();
            let index = |log_id: &Option<LogId>| log_id.as_ref().map(|log_id| log_id.index);
            (index(&metrics.last_applied), index(&metrics.purged))
        };
        if self.looked.elapsed() >= PURGE_MARGIN {
            (self.settled, self.applied, self.looked) = (self.applied, applied, Instant::now());
            self.weigh(logged);
        }
        let Some(upto) = self.upto(snapshot.map(|log_id| log_id.index), purged) else { return };
        if let Err(error) = raft.trigger().purge_log(upto).await {
            tracing::debug!("The log was not purged: {error}");
        }
    }

    /// Sees what is too old, now that `logged` bytes have been.
    fn weigh(&mut self, logged: u64) {
        let last = self.marks.back().map_or(0, |(_, bytes)| *bytes);
        if let Some(applied) = self.applied.filter(|_| logged >= last + LOG_KEEP_BYTES_MAX / MARKS) {
            self.marks.push_back((applied, logged));
        }
        while let Some((index, _)) =
            self.marks.front().filter(|(_, bytes)| logged.saturating_sub(*bytes) >= LOG_KEEP_BYTES_MAX)
        {
            self.too_old = Some(*index);
            self.marks.pop_front();
        }
    }

    /// The last entry to purge, when there is enough of it to be worth it.
    fn upto(&self, snapshot: Option<u64>, purged: Option<u64>) -> Option<u64> {
        let (snapshot, settled) = (snapshot?, self.settled?);
        let begins = purged.map_or(0, |purged| purged + 1);
        let many = snapshot.checked_sub(self.keep).map(|upto| upto.min(settled));
        let large = self.too_old.map(|upto| upto.min(snapshot).min(settled));
        many.filter(|upto| *upto >= begins + self.keep / 8).max(large.filter(|upto| *upto >= begins))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_purged_that_is_to_be_kept_or_was_applied_only_now() {
        let purge = |keep, settled| Purge { settled, ..Purge::new(keep, None) };
        assert_eq!(purge(100, Some(1000)).upto(None, None), None);
        assert_eq!(purge(100, Some(1000)).upto(Some(99), None), None);
        assert_eq!(purge(100, Some(1000)).upto(Some(500), None), Some(400));
        assert_eq!(purge(100, None).upto(Some(500), None), None);
        assert_eq!(purge(100, Some(50)).upto(Some(500), None), Some(50));
        assert_eq!(purge(100, Some(1000)).upto(Some(500), Some(395)), None, "too little to be worth it");
        assert_eq!(purge(0, Some(1000)).upto(Some(500), Some(499)), Some(500));
        assert_eq!(purge(0, Some(1000)).upto(Some(500), Some(500)), None);
        let begun = Purge::new(4, Some(500));
        assert_eq!(begun.upto(Some(500), None), Some(496), "what the core began with goes at once");
        assert_eq!(begun.upto(Some(900), None), Some(500), "and no more");
    }

    #[test]
    fn what_is_kept_for_followers_is_bounded_in_bytes_too() {
        let mut purge = Purge { settled: Some(1000), ..Purge::new(1000, None) };
        let mut at = |applied, bytes| {
            purge.applied = Some(applied);
            purge.weigh(bytes);
            [(Some(500), None), (Some(5), None), (Some(500), Some(10))]
                .map(|(snapshot, purged)| purge.upto(snapshot, purged))
        };
        assert_eq!(at(10, LOG_KEEP_BYTES_MAX / 2), [None; 3]);
        assert_eq!(at(20, LOG_KEEP_BYTES_MAX), [None; 3]);
        assert_eq!(at(30, LOG_KEEP_BYTES_MAX * 3 / 2), [Some(10), Some(5), None]);
        let mut purge = Purge::new(1000, None);
        for look in 0..10_000 {
            purge.applied = Some(look);
            purge.weigh(look * (LOG_KEEP_BYTES_MAX / 1000));
            assert!(purge.marks.len() as u64 <= MARKS + 1);
        }
    }
}
