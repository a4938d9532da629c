//! Taking snapshots: freeze the machine, write the file beside applies and reads, then tell openraft, which purges.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::consensus::types::LogId;
use crate::durable::blocking;
use crate::error::Failure;
use crate::node::adapter::RaftNode;
use crate::node::applier::Shared;
use crate::node::apply_queue::{ApplyQueue, FrozenState, Work};
use crate::node::problems::Problem;
use crate::snapshot::{OpenSnapshot, SnapshotDir};

/// Bytes logged since the last snapshot that call for one, however few the commands.
const SNAPSHOT_LOG_BYTES: u64 = 256 << 20;
/// After a failure, before the next attempt.
const RETRY: Duration = Duration::from_secs(5);
/// How often the need of a snapshot is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Takes snapshots, one at a time.
pub struct Snapshots {
    directory: SnapshotDir,
    shared: Arc<Shared>,
    /// Held while one is being taken.
    busy: tokio::sync::Mutex<()>,
}

impl Snapshots {
    /// For the machine behind `shared`, into `directory`.
    pub fn new(directory: SnapshotDir, shared: Arc<Shared>) -> Snapshots {
        Snapshots { directory, shared, busy: tokio::sync::Mutex::new(()) }
    }

    /// Takes one now and returns its user-visible index when it is durable. When nothing was applied since the last,
    /// that one's index. Fails with `Io`, `StateMachine`, `Closed`.
    pub async fn take(&self, raft: &RaftNode) -> Result<u64, Failure> {
        let open = self.write().await?;
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
        self.write().await.map(drop)
    }

    async fn write(&self) -> Result<OpenSnapshot, Failure> {
        let _one_at_a_time = self.busy.lock().await;
        let open = finish(&mut begin(&self.shared), self.directory.clone()).await?;
        self.shared.has_snapshot(&open);
        Ok(open)
    }

    /// Takes a snapshot whenever `commands` were applied, or many bytes logged, since the last. Runs until dropped.
    pub async fn run(&self, raft: RaftNode, commands: u64) {
        let mut logged_at_last = self.logged_bytes();
        loop {
            tokio::time::sleep(LOOK).await;
            let progress = *self.shared.progress.borrow();
            let logged = self.logged_bytes();
            let due = progress.index >= progress.snapshot_index.saturating_add(commands)
                || (logged >= logged_at_last + SNAPSHOT_LOG_BYTES && progress.index > progress.snapshot_index);
            if !due {
                continue;
            }
            match self.take(&raft).await {
                Ok(_) => {
                    logged_at_last = logged;
                    self.shared.problems.clear(Problem::Snapshot);
                }
                Err(failure) => {
                    tracing::error!("A snapshot failed: {failure}");
                    self.shared.problems.set(Problem::Snapshot, failure);
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    fn logged_bytes(&self) -> u64 {
        self.shared.log.lock().as_ref().map_or(0, |log| log.stats().bytes)
    }
}

/// A view of the state that the applying thread will give.
pub struct Frozen {
    view: oneshot::Receiver<Result<FrozenState, Failure>>,
    queue: Arc<ApplyQueue>,
}

/// Asks for a view of the state as of now, in the order of the log.
pub fn begin(shared: &Shared) -> Frozen {
    let (reply, view) = oneshot::channel();
    shared.queue.push(Work::Freeze(reply));
    Frozen { view, queue: shared.queue.clone() }
}

/// Writes the view to `directory`. Fails with `Io`, `StateMachine`, `Closed`.
pub async fn finish(frozen: &mut Frozen, directory: SnapshotDir) -> Result<OpenSnapshot, Failure> {
    let queue = frozen.queue.clone();
    let view = (&mut frozen.view).await.map_err(|_| Failure::closed())??;
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
