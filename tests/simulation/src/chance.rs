//! A node's random numbers, its wall clock, and how long its work takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use quorate_engine::surroundings::{Chance, Delays, Stage};
use quorate_linear::rng::Rng;

/// How often work that stands still looks whether it may go on.
const STUCK_LOOK: Duration = Duration::from_millis(20);

/// Random numbers from a seed, and a wall clock that is set.
pub struct NodeChance {
    rng: Mutex<Rng>,
    wall_ms: AtomicU64,
}

impl NodeChance {
    /// Random numbers that depend on `rng` alone; the clock begins at `wall_ms`.
    pub fn new(rng: Rng, wall_ms: u64) -> Arc<NodeChance> {
        Arc::new(NodeChance { rng: Mutex::new(rng), wall_ms: AtomicU64::new(wall_ms) })
    }

    /// Sets the wall clock.
    pub fn set_wall_ms(&self, wall_ms: u64) {
        self.wall_ms.store(wall_ms, Ordering::Relaxed);
    }
}

impl Chance for NodeChance {
    fn fill(&self, bytes: &mut [u8]) {
        let mut rng = self.rng.lock();
        for piece in bytes.chunks_mut(8) {
            piece.copy_from_slice(&rng.next_u64().to_le_bytes()[..piece.len()]);
        }
    }

    fn wall_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::Relaxed)
    }
}

/// How slow a node's work is at present; times in ms are upper bounds of what is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slow {
    /// Writing and syncing the log.
    pub log_ms: u64,
    /// Reading the log.
    pub read_ms: u64,
    /// Applying.
    pub apply_ms: u64,
    /// Writing and reading snapshots.
    pub snapshot_ms: u64,
    /// Nothing is applied at all.
    pub stuck: bool,
    /// No sync ends.
    pub hung: bool,
}

/// See [`Slow`].
pub struct NodeDelays {
    state: Arc<Mutex<(Slow, Rng)>>,
}

impl NodeDelays {
    /// As slow as `slow`, with random numbers from `rng`.
    pub fn new(slow: Slow, rng: Rng) -> Arc<NodeDelays> {
        Arc::new(NodeDelays { state: Arc::new(Mutex::new((slow, rng))) })
    }

    /// Whether nothing is applied.
    pub fn is_stuck(&self) -> bool {
        self.state.lock().0.stuck
    }

    /// As slow as this from now on.
    pub fn set(&self, change: impl FnOnce(&mut Slow)) {
        change(&mut self.state.lock().0);
    }
}

impl Delays for NodeDelays {
    fn pass(&self, stage: Stage) -> BoxFuture<'static, ()> {
        let state = self.state.clone();
        Box::pin(async move {
            let ms = {
                let (slow, rng) = &mut *state.lock();
                rng.below(
                    match stage {
                        Stage::LogWrite | Stage::LogSynced => slow.log_ms,
                        Stage::LogRead | Stage::Read => slow.read_ms,
                        Stage::Apply => slow.apply_ms,
                        Stage::Snapshot => slow.snapshot_ms,
                    } + 1,
                )
            };
            if ms > 0 {
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
            let stands = |slow: Slow| match stage {
                Stage::Apply => slow.stuck,
                Stage::LogWrite => slow.hung,
                _ => false,
            };
            while stands(state.lock().0) {
                tokio::time::sleep(STUCK_LOOK).await;
            }
        })
    }
}
