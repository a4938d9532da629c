//! Writing one snapshot: the applying thread gives a view of the state, which is written beside applies and reads.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::durable::blocking;
use crate::error::Failure;
use crate::node::apply_queue::{ApplyQueue, FrozenState, Work};
use crate::node::shared::Shared;
use crate::node::until_closed::UntilClosed;
use crate::snapshot::{OpenSnapshot, SnapshotDir};
use crate::surroundings::{Pace, Stage};

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
