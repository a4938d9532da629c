//! openraft's view of the state machine. "Applied" here means handed to the applying thread: openraft's worker never waits
//! for a machine, so a slow or stuck one can hold up nothing but itself.

use std::io;
use std::sync::Arc;

use crate::consensus::Snapshot;
use crate::consensus::network::{SnapshotReceiver, SnapshotSink};
use crate::consensus::types::{Done, LogId, SnapshotMeta, StoredMembership, TypeConfig};
use crate::durable::blocking;
use crate::error::Failure;
use crate::node::apply_queue::Work;
use crate::node::freezing::{self, Frozen};
use crate::node::problems::Problem;
use crate::node::shared::Shared;
use crate::snapshot::{IncomingSnapshot, OpenSnapshot, SnapshotDir, SnapshotFile};
use crate::spin;
use crate::surroundings::Stage;
use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder};

/// Hands committed entries to the applying thread, and snapshots to and from the directory.
pub struct MachineAdapter {
    shared: Arc<Shared>,
    snapshots: SnapshotDir,
}

impl MachineAdapter {
    /// An adapter over the machine behind `shared`.
    pub fn new(shared: Arc<Shared>, snapshots: SnapshotDir) -> MachineAdapter {
        MachineAdapter { shared, snapshots }
    }
}

impl RaftStateMachine<TypeConfig> for MachineAdapter {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok(self.shared.handed.lock().clone())
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut batch = Vec::new();
        let (mut applied, mut members) = (None, None);
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            applied = Some(entry.log_id);
            if let openraft::EntryPayload::Membership(membership) = &entry.payload {
                members = Some(StoredMembership::new(Some(entry.log_id), membership.clone()));
            }
            batch.push(entry);
            if let Some(responder) = responder {
                responder.send(Done);
            }
        }
        spin::expect();
        let mut handed = self.shared.handed.lock();
        handed.0 = applied.or(handed.0);
        if let Some(members) = members {
            handed.1 = members;
        }
        drop(handed);
        self.shared.queue.push_entries(batch);
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        if force {
            return Some(self.get_snapshot_builder().await);
        }
        match latest(&self.snapshots).await {
            Ok(Some(open)) => Some(Builder::Latest(Some(open))),
            Ok(None) => None,
            Err(failure) => {
                self.shared.problems.set(Problem::Snapshot, failure);
                None
            }
        }
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder::Fresh(freezing::begin(&self.shared), self.snapshots.clone())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotFile) -> Result<(), io::Error> {
        self.shared.pace.pass(Stage::Snapshot).await;
        let snapshots = self.snapshots.clone();
        let adopted = blocking(move || snapshots.adopt_file(snapshot)).await?;
        *self.shared.handed.lock() = (meta.last_log_id, meta.last_membership.clone());
        self.shared.queue.push(Work::Install(adopted));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(latest(&self.snapshots).await?.map(|open| Snapshot { meta: open.meta, snapshot: open.file }))
    }
}

/// Reports the newest snapshot file. openraft takes a failed build for the end of the node, so files are written
/// before openraft is asked to look ([`crate::node::snapshots`]), and a full disk costs a snapshot, not the node. Only
/// when it insists is one written here.
pub enum Builder {
    /// The file that is there.
    Latest(Option<OpenSnapshot>),
    /// A new one, of the state as of the call that made the builder.
    Fresh(Frozen, SnapshotDir),
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let open = match self {
            Builder::Latest(open) => {
                open.take().ok_or_else(|| Failure::internal("A snapshot builder was used twice."))?
            }
            Builder::Fresh(frozen, directory) => freezing::finish(frozen, directory.clone()).await?,
        };
        Ok(Snapshot { meta: open.meta, snapshot: open.file })
    }
}

async fn latest(snapshots: &SnapshotDir) -> Result<Option<OpenSnapshot>, Failure> {
    let snapshots = snapshots.clone();
    blocking(move || snapshots.latest()).await
}

impl SnapshotSink for SnapshotDir {
    fn begin(&self) -> Result<Box<dyn SnapshotReceiver>, Failure> {
        Ok(Box::new(self.receive()?))
    }
}

impl SnapshotReceiver for IncomingSnapshot {
    fn write_chunk(&mut self, chunk: &[u8]) -> Result<(), Failure> {
        IncomingSnapshot::write_chunk(self, chunk)
    }

    fn finish(self: Box<Self>) -> Result<(SnapshotMeta, SnapshotFile), Failure> {
        let open = IncomingSnapshot::finish(*self)?;
        Ok((open.meta, open.file))
    }
}

/// A running openraft node.
pub type RaftNode = openraft::Raft<TypeConfig, MachineAdapter>;

#[cfg(test)]
mod tests;
