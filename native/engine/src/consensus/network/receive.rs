//! Incoming snapshots: from the network to the disk.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use crate::consensus::types::SnapshotMeta;
use crate::durable::blocking;
use crate::error::Failure;
use crate::snapshot::SnapshotFile;

/// Where incoming snapshots are written. Called where it may wait for the disk.
pub trait SnapshotSink: Send + Sync + 'static {
    /// Begins a new snapshot beside what is there. Fails with `Io`.
    fn begin(&self) -> Result<Box<dyn SnapshotReceiver>, Failure>;
}

/// A snapshot that is being received. Called where it may wait for the disk; dropping it throws away what was written.
pub trait SnapshotReceiver: Send {
    /// Appends the next bytes of the file. Fails with `Io`.
    fn write_chunk(&mut self, chunk: &[u8]) -> Result<(), Failure>;

    /// Everything was written: verifies it, makes it durable, and returns what it covers and the file. Fails with `Io`,
    /// with `Corrupt` when it is damaged or incomplete.
    fn finish(self: Box<Self>) -> Result<(SnapshotMeta, SnapshotFile), Failure>;
}

/// Writes `chunks` into `sink`, one after the other on threads that may block; while one is written, the next waits in
/// the socket. Fails with what either fails with; nothing is left behind then.
pub(super) async fn receive(
    sink: Arc<dyn SnapshotSink>,
    mut chunks: BoxStream<'static, Result<Bytes, Failure>>,
) -> Result<(SnapshotMeta, SnapshotFile), Failure> {
    let mut receiver = blocking(move || sink.begin()).await?;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        receiver = blocking(move || receiver.write_chunk(&chunk).map(|()| receiver)).await?;
    }
    blocking(move || receiver.finish()).await
}
