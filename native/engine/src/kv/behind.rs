//! Writing to sled behind the applying thread.
//!
//! A sled batch costs two writes that wait for the disk, and wakes all of sled's threads, so applying does not make one a call. It
//! fills a layer in memory ([`super::layers`]), and the writer's thread moves a whole layer to sled, all or nothing
//! ([`Store::write`]), with the machine's own record as of the layer's last call. So whatever is opened after a crash is the
//! state between two calls, and the log brings it forward.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::layers::{Fill, Layer};
use super::panics::panic_message;
use super::shared::{Mode, Shared};
use super::store::Store;
use crate::error::Failure;
use crate::machine::Alarm;

/// For how long a layer that does not get half full gathers, so that repeated writes of a key become one.
const GATHERING: Duration = Duration::from_secs(1);
/// After a part of a layer the writer pauses for so many times as long as writing it took: what is applied needs the processors more.
const PAUSE_SHARE: u32 = 4;
/// How long dropping the machine waits for the last layer.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// When layers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drive {
    /// By a thread, in its own time.
    Thread,
    /// Within each call: in a node without threads everything happens in one order.
    EachCall,
    /// When a test says so.
    #[cfg(test)]
    ByHand,
}

/// What the applying thread and the writer share.
pub(super) struct Behind {
    shared: Arc<Shared>,
    drive: Drive,
    store: Mutex<Store>,
    state: Mutex<State>,
    /// Rung for the writer.
    work: Condvar,
    /// Rung by the writer when it has made room, failed or ended.
    news: Condvar,
    failed: OnceLock<Failure>,
}

#[derive(Default)]
struct State {
    stopping: bool,
    ended: bool,
    /// How many others wait for the store.
    awaited: usize,
    alarm: Option<Alarm>,
    thread: Option<JoinHandle<()>>,
}

impl Behind {
    /// Fails with `Io` when there can be no more threads.
    pub fn start(store: Store, shared: Arc<Shared>, drive: Drive) -> Result<Arc<Behind>, Failure> {
        let state = Mutex::new(State { ended: drive != Drive::Thread, ..State::default() });
        let (work, news) = (Condvar::new(), Condvar::new());
        let store = Mutex::new(store);
        let behind = Arc::new(Behind { shared, drive, store, state, work, news, failed: OnceLock::new() });
        if drive == Drive::Thread {
            let writer = behind.clone();
            let thread = thread::Builder::new().name("quorate-sled".into()).spawn(move || writer.run());
            let thread = thread.map_err(|error| Failure::io("Starting the writer's thread", &error))?;
            behind.state.lock().thread = Some(thread);
        }
        Ok(behind)
    }

    /// Why nothing more can be written; the machine is then broken.
    pub fn check(&self) -> Result<(), Failure> {
        self.failed.get().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    /// Has `alarm` called, from the writer's thread, when writing fails.
    pub fn on_failure(&self, alarm: Alarm) {
        self.state.lock().alarm = Some(alarm);
        if self.failed.get().is_some() {
            self.ring();
        }
    }

    /// Waits until more may be applied. Fails when the writer has.
    pub fn await_room(&self) -> Result<(), Failure> {
        let mut state = self.state.lock();
        while !state.ended && self.failed.get().is_none() && self.fill() == Fill::Full {
            self.news.wait(&mut state);
        }
        drop(state);
        self.check()
    }

    /// Something was applied, which took the fresh layer from `before` to `after`.
    pub fn applied(&self, before: Fill, after: Fill) -> Result<(), Failure> {
        match self.drive {
            Drive::EachCall => self.write_all(),
            Drive::Thread if before != after => {
                // Whoever looked before the change waits by now.
                drop(self.state.lock());
                self.work.notify_one();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// sled itself, into which nothing is written meanwhile.
    pub fn store(&self) -> MutexGuard<'_, Store> {
        self.state.lock().awaited += 1;
        self.work.notify_one();
        let store = self.store.lock();
        self.state.lock().awaited -= 1;
        store
    }

    /// Writes everything that was applied before this call.
    pub fn write_all(&self) -> Result<(), Failure> {
        // One that was sealed before, then the rest.
        loop {
            match self.write_layer(self.store()) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(failure) => {
                    // Nobody may try again: sled may wait for ever for what failed.
                    drop(self.failed.set(failure.clone()));
                    return Err(failure);
                }
            }
        }
    }

    /// Ends the writer once it has written everything; waits for it, but not for ever. When it ended, it holds nothing of sled.
    /// True when everything is written.
    pub fn stop(&self) -> bool {
        let mut state = self.state.lock();
        state.stopping = true;
        self.work.notify_one();
        let limit = Instant::now() + STOP_PATIENCE;
        while !state.ended {
            if self.news.wait_until(&mut state, limit).timed_out() {
                let seconds = STOP_PATIENCE.as_secs();
                tracing::warn!("The key-value store did not write its last changes in {seconds} s; the log has them.");
                return false;
            }
        }
        let thread = state.thread.take();
        drop(state);
        if let Some(Err(panic)) = thread.map(JoinHandle::join) {
            tracing::error!("The writer's thread panicked: {}", panic_message(panic.as_ref()));
            return false;
        }
        self.failed.get().is_none()
    }

    fn fill(&self) -> Fill {
        self.shared.visible.read().layers.fill()
    }

    fn run(&self) {
        while self.await_work() && self.failed.get().is_none() {
            self.guarded();
        }
        self.guarded();
        self.state.lock().ended = true;
        self.news.notify_all();
    }

    /// Waits until a layer is to be written; false when the writer is to end.
    fn await_work(&self) -> bool {
        let mut state = self.state.lock();
        let mut until = None;
        while !state.stopping {
            match (self.fill(), until) {
                (Fill::Half | Fill::Full, _) => return true,
                (Fill::Empty, _) => self.work.wait(&mut state),
                (Fill::Some, None) => until = Some(Instant::now() + GATHERING),
                (Fill::Some, Some(until)) => {
                    if self.work.wait_until(&mut state, until).timed_out() {
                        return true;
                    }
                }
            }
        }
        false
    }

    /// Writes what there is; a failure or a panic in it is the machine's.
    fn guarded(&self) {
        if self.failed.get().is_some() {
            return;
        }
        let result = catch_unwind(AssertUnwindSafe(|| self.write_layer(self.store.lock()))).unwrap_or_else(|panic| {
            let reason = panic_message(panic.as_ref());
            Err(Failure::internal(format!("Writing the key-value store panicked: {reason}")))
        });
        if let Err(failure) = result {
            self.fail(failure);
        }
    }

    fn fail(&self, failure: Failure) {
        tracing::error!("The key-value store cannot be written: {failure}");
        // The flag before the mode: applying looks at it with `visible` held, and would show the store again.
        let message = failure.message.clone();
        if self.failed.set(failure).is_err() {
            return;
        }
        self.shared.visible.write().mode = Mode::Broken(message);
        self.ring();
    }

    fn ring(&self) {
        let state = self.state.lock();
        if let Some(alarm) = &state.alarm {
            alarm();
        }
        drop(state);
        self.news.notify_all();
    }

    /// Seals, writes and settles one layer; false when there was none.
    fn write_layer(&self, mut store: MutexGuard<Store>) -> Result<bool, Failure> {
        let Some(layer) = self.seal() else { return Ok(false) };
        store.write(&layer, &mut |took| self.pause(took * PAUSE_SHARE))?;
        self.settle(&layer);
        Ok(true)
    }

    /// Gives way to others between two parts of a layer, unless the next layer fills up, or somebody waits for this one.
    fn pause(&self, time: Duration) {
        let mut state = self.state.lock();
        let hurried = self.drive != Drive::Thread || state.stopping || state.awaited > 0;
        if !hurried && matches!(self.fill(), Fill::Empty | Fill::Some) {
            self.work.wait_for(&mut state, time);
        }
    }

    pub(super) fn seal(&self) -> Option<Arc<Layer>> {
        self.shared.visible.write().layers.seal()
    }

    pub(super) fn settle(&self, layer: &Arc<Layer>) {
        self.shared.visible.write().layers.settle(layer);
        drop(self.state.lock());
        self.news.notify_all();
    }
}
