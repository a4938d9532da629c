//! What a node takes from its surroundings, and what a simulation replaces: network, disk, threads, random numbers, the
//! wall clock. Time intervals are tokio's throughout the engine, which a runtime with paused time replaces by itself.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;

use crate::disk::Disk;
use crate::error::Failure;
use crate::hosted::Bounds;
use crate::transport::wire::Wire;

/// Work that may take its time; see [`Delays`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Before a batch is written to the log.
    LogWrite,
    /// After the batch is synced, before it is acknowledged.
    LogSynced,
    /// Before entries are read back from the log.
    LogRead,
    /// Before committed entries are applied.
    Apply,
    /// Before a snapshot is written or read.
    Snapshot,
    /// Before the applied state is read.
    Read,
}

/// How long the work of an inline node takes.
pub trait Delays: Send + Sync + 'static {
    /// Ends when work at `stage` may go on.
    fn pass(&self, stage: Stage) -> BoxFuture<'static, ()>;
}

/// How long a node's work takes: as long as it takes, unless a simulation wants it otherwise.
#[derive(Clone, Default)]
pub struct Pace(Option<Arc<dyn Delays>>);

impl Pace {
    /// As `delays` want it.
    pub fn of(delays: Arc<dyn Delays>) -> Pace {
        Pace(Some(delays))
    }

    /// Waits until work at `stage` may go on.
    pub async fn pass(&self, stage: Stage) {
        if let Some(delays) = &self.0 {
            delays.pass(stage).await;
        }
    }
}

/// The surroundings of a node that has no threads of its own, but lives on its caller's runtime.
#[derive(Clone)]
pub struct Surroundings {
    /// Connections to other nodes.
    pub wire: Arc<dyn Wire>,
    /// Files, but for the directory of the applied state.
    pub disk: Arc<dyn Disk>,
    /// How long work takes.
    pub delays: Arc<dyn Delays>,
    /// How much a hosted machine's host may have that it has not acknowledged.
    pub host_bounds: Bounds,
}

/// Random numbers and the wall clock of one thread.
pub trait Chance {
    /// Fills `bytes` with random ones.
    fn fill(&self, bytes: &mut [u8]);
    /// Milliseconds since 1970.
    fn wall_ms(&self) -> u64;
}

thread_local! {
    static CHANCE: RefCell<Option<Arc<dyn Chance>>> = const { RefCell::new(None) };
}

/// Until it is dropped, everything on this thread takes random numbers and the wall clock from elsewhere.
pub struct Entered(Option<Arc<dyn Chance>>);

/// Makes this thread take random numbers and the wall clock from `chance`.
pub fn enter(chance: Arc<dyn Chance>) -> Entered {
    Entered(CHANCE.replace(Some(chance)))
}

/// True when this thread was [`enter`]ed. A node whose work is done on such a thread has no threads of its own: its workers are
/// tasks, and what would wait for a disk elsewhere does so right here.
pub fn is_inline() -> bool {
    CHANCE.with_borrow(Option::is_some)
}

impl Drop for Entered {
    fn drop(&mut self) {
        CHANCE.set(self.0.take());
    }
}

/// Fills `bytes` with random ones. Fails with `Internal` when the operating system has none.
pub fn fill_random(bytes: &mut [u8]) -> Result<(), Failure> {
    match CHANCE.with_borrow(Clone::clone) {
        Some(chance) => {
            chance.fill(bytes);
            Ok(())
        }
        None => getrandom::fill(bytes).map_err(|error| Failure::internal(format!("No random numbers: {error}"))),
    }
}

/// A random number. Fails with `Internal` when the operating system has none.
pub fn random_u64() -> Result<u64, Failure> {
    let mut bytes = [0; 8];
    fill_random(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Milliseconds since 1970 by the wall clock, 0 before.
pub fn wall_ms() -> u64 {
    match CHANCE.with_borrow(Clone::clone) {
        Some(chance) => chance.wall_ms(),
        None => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64),
    }
}
