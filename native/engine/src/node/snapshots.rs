//! Taking snapshots: freeze the machine, write the file beside applies and reads, then tell openraft, which purges.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::config::NodeConfig;
use crate::consensus::types::LogId;
use crate::durable::blocking;
use crate::error::{Code, Failure};
use crate::node::adapter::RaftNode;
use crate::node::applier::Shared;
use crate::node::apply_queue::{ApplyQueue, FrozenState, Work};
use crate::node::problems::Problem;
use crate::planted::{self, Defect};
use crate::snapshot::{OpenSnapshot, SnapshotDir};
use crate::surroundings::{Pace, Stage};

/// Bytes logged since the last snapshot that call for one, however few the commands.
const SNAPSHOT_LOG_BYTES: u64 = 256 << 20;
/// After a first failure, before the next attempt; doubles with each further one, up to the longest.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(60);
/// What is purged was applied at least this long before.
const PURGE_MARGIN: Duration = Duration::from_secs(1);
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
        let open = finish(&mut begin(&self.shared), self.directory.clone()).await?;
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
        let mut purge = Purge::new(config.log_keep_entries);
        let mut failed = true;
        loop {
            tokio::time::sleep(LOOK).await;
            let progress = *self.shared.progress.borrow();
            purge.look(&raft, progress.snapshot_log_id).await;
            let logged = self.logged_bytes();
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
}

impl Purge {
    fn new(keep: u64) -> Purge {
        Purge { keep, applied: None, settled: None, looked: Instant::now() }
    }

    async fn look(&mut self, raft: &RaftNode, snapshot: Option<LogId>) {
        let (applied, purged) = {
            let metrics = raft.data_metrics();
            let metrics = metrics.borrow_watched();
            let index = |log_id: &Option<LogId>| log_id.as_ref().map(|log_id| log_id.index);
            (index(&metrics.last_applied), index(&metrics.purged))
        };
        if self.looked.elapsed() >= PURGE_MARGIN {
            (self.settled, self.applied, self.looked) = (self.applied, applied, Instant::now());
        }
        let Some(upto) = self.upto(snapshot.map(|log_id| log_id.index), purged) else { return };
        if let Err(error) = raft.trigger().purge_log(upto).await {
            tracing::debug!("The log was not purged: {error}");
        }
    }

    /// The last entry to purge, when there is enough of it to be worth it.
    fn upto(&self, snapshot: Option<u64>, purged: Option<u64>) -> Option<u64> {
        let upto = snapshot?.checked_sub(self.keep)?.min(self.settled?);
        let begins = purged.map_or(0, |purged| purged + 1);
        (upto >= begins + self.keep / 8).then_some(upto)
    }
}

/// A view of the state that the applying thread will give.
pub struct Frozen {
    view: oneshot::Receiver<Result<FrozenState, Failure>>,
    queue: Arc<ApplyQueue>,
    pace: Pace,
}

/// Asks for a view of the state as of now, in the order of the log.
pub fn begin(shared: &Shared) -> Frozen {
    let (reply, view) = oneshot::channel();
    shared.queue.push(Work::Freeze(reply));
    Frozen { view, queue: shared.queue.clone(), pace: shared.pace.clone() }
}

/// Writes the view to `directory`. Fails with `Io`, `StateMachine`, `Closed`.
pub async fn finish(frozen: &mut Frozen, directory: SnapshotDir) -> Result<OpenSnapshot, Failure> {
    let queue = frozen.queue.clone();
    let mut view = (&mut frozen.view).await.map_err(|_| Failure::closed())??;
    view.view.ready().await?;
    frozen.pace.pass(Stage::Snapshot).await;
    blocking(move || write(&directory, view, queue)).await
}

fn write(directory: &SnapshotDir, frozen: FrozenState, queue: Arc<ApplyQueue>) -> Result<OpenSnapshot, Failure> {
    if let Some(latest) = directory.latest()?
        && latest.meta.last_log_id >= frozen.meta.last_log_id
    {
        return Ok(latest);
    }
    let writer = directory.create(&frozen.meta, frozen.index, &frozen.notes)?;
    let mut writer = UntilClosed { stream: writer, queue };
    frozen.view.write_to(&mut writer)?;
    writer.stream.finish()
}

/// Reads or writes until the node closes; then it fails, so that nothing keeps a closed node's directory in use.
pub struct UntilClosed<S> {
    /// What is read or written.
    pub stream: S,
    /// Closed with the node.
    pub queue: Arc<ApplyQueue>,
}

impl<S> UntilClosed<S> {
    fn check(&self) -> io::Result<()> {
        if self.queue.is_closed() { Err(Failure::closed().into()) } else { Ok(()) }
    }
}

impl<S: Read> Read for UntilClosed<S> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        self.stream.read(out)
    }
}

impl<S: Write> Write for UntilClosed<S> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.check()?;
        self.stream.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_purged_that_is_to_be_kept_or_was_applied_only_now() {
        let purge = |keep, settled| Purge { settled, ..Purge::new(keep) };
        assert_eq!(purge(100, Some(1000)).upto(None, None), None);
        assert_eq!(purge(100, Some(1000)).upto(Some(99), None), None);
        assert_eq!(purge(100, Some(1000)).upto(Some(500), None), Some(400));
        assert_eq!(purge(100, None).upto(Some(500), None), None);
        assert_eq!(purge(100, Some(50)).upto(Some(500), None), Some(50));
        assert_eq!(purge(100, Some(1000)).upto(Some(500), Some(395)), None, "too little to be worth it");
        assert_eq!(purge(0, Some(1000)).upto(Some(500), Some(499)), Some(500));
        assert_eq!(purge(0, Some(1000)).upto(Some(500), Some(500)), None);
    }
}
