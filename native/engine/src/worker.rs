//! Workers: loops that are written once, as async functions, and live on a thread of their own, or as tasks of the
//! runtime in a node that has no threads ([`crate::surroundings::is_inline`]).
//!
//! On its thread a worker may block, and waits by parking: there is no runtime, so the only timer it has is [`pause`].

use std::cell::Cell;
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::error::Failure;
use crate::spin::Spin;
use crate::surroundings::is_inline;

/// A running worker.
#[derive(Debug)]
pub enum Worker {
    /// On a thread of its own.
    Thread(thread::JoinHandle<()>),
    /// A task of the runtime.
    Task(tokio::task::JoinHandle<()>),
}

impl Worker {
    /// Starts `work`: as a task where this thread is inline, else on a thread called `name` that waits awake for at most
    /// `window` at a time. Fails with `Io` when there can be no more threads.
    pub fn start(
        name: &str,
        window: Duration,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Worker, Failure> {
        if is_inline() {
            return Ok(Worker::Task(tokio::spawn(work)));
        }
        let thread = thread::Builder::new().name(name.to_string()).spawn(move || block_on(window, work));
        thread.map(Worker::Thread).map_err(|error| Failure::io(format!("Starting the thread {name}"), &error))
    }

    /// Waits for its thread; a task is not waited for. Fails with `Internal` when it panicked.
    pub fn join(self) -> Result<(), Failure> {
        match self {
            Worker::Thread(thread) => thread.join().map_err(|_| Failure::internal("A worker panicked.")),
            Worker::Task(_) => Ok(()),
        }
    }

    /// True when it has ended.
    pub fn is_finished(&self) -> bool {
        match self {
            Worker::Thread(thread) => thread.is_finished(),
            Worker::Task(task) => task.is_finished(),
        }
    }
}

thread_local! {
    /// When the thread is to wake up by itself, if ever.
    static WAKE_AT: Cell<Option<Instant>> = const { Cell::new(None) };
}

const AWAKE: u8 = 0;
const RUNG: u8 = 1;
const ASLEEP: u8 = 2;

/// Rings for a thread, which costs a system call only when the thread sleeps.
struct Bell {
    thread: Thread,
    state: AtomicU8,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(RUNG, Ordering::AcqRel) == ASLEEP {
            self.thread.unpark();
        }
    }
}

impl Bell {
    fn rung(&self) -> bool {
        self.state.load(Ordering::Acquire) == RUNG
    }

    /// Waits for a ring, awake while `spin` says so; may return without.
    fn wait(&self, spin: &mut Spin) {
        spin.expect();
        while !self.rung() && spin.turn() {}
        if self.state.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            match WAKE_AT.get() {
                Some(at) => thread::park_timeout(at.saturating_duration_since(Instant::now())),
                None => thread::park(),
            }
        }
        // What was done before a ring that this takes back is seen by the next poll.
        self.state.swap(AWAKE, Ordering::AcqRel);
    }
}

/// Runs `future` on this thread, which waits awake for at most `window` at a time. Of timers it may use [`pause`] and [`within`] only.
pub fn block_on<F: Future>(window: Duration, future: F) -> F::Output {
    let (mut future, mut spin) = (pin!(future), Spin::new(window));
    let bell = Arc::new(Bell { thread: thread::current(), state: AtomicU8::new(AWAKE) });
    let waker = Waker::from(bell.clone());
    let mut context = Context::from_waker(&waker);
    loop {
        WAKE_AT.set(None);
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        bell.wait(&mut spin);
    }
}

/// Waits for `time`, on a worker's thread as well as in a runtime.
pub async fn pause(time: Duration) {
    if tokio::runtime::Handle::try_current().is_ok() {
        return tokio::time::sleep(time).await;
    }
    let until = Instant::now() + time;
    std::future::poll_fn(|_| {
        if Instant::now() >= until {
            return Poll::Ready(());
        }
        WAKE_AT.set(Some(WAKE_AT.get().map_or(until, |at| at.min(until))));
        Poll::Pending
    })
    .await;
}

/// What `future` comes to within `time`, on a worker's thread as well as in a runtime; `None` when it takes longer.
pub async fn within<F: Future>(time: Duration, future: F) -> Option<F::Output> {
    let (mut future, mut late) = (pin!(future), pin!(pause(time)));
    std::future::poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        late.as_mut().poll(context).map(|()| None)
    })
    .await
}

/// Runs `work` on a fresh thread and waits for it: for code that keeps something a thread. Fails with `Io` when there can
/// be no more threads, else as `work`. A panic of `work` is this thread's.
pub fn apart<T: Send>(work: impl FnOnce() -> Result<T, Failure> + Send) -> Result<T, Failure> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("quorate-apart".into()).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| Failure::io("Starting a thread", &error))?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tokio::sync::Notify;

    #[test]
    fn a_thread_without_a_runtime_waits_for_others_and_for_time() {
        let bell = Arc::new(Notify::new());
        let ringer = bell.clone();
        let worker = Worker::start("waits", Duration::from_micros(100), async move {
            assert_eq!(within(Duration::from_millis(1), std::future::pending::<()>()).await, None);
            assert_eq!(within(Duration::from_secs(60), bell.notified()).await, Some(()));
            pause(Duration::from_millis(1)).await;
        });
        ringer.notify_one();
        worker.unwrap().join().unwrap();
    }

    #[test]
    fn work_apart_is_on_another_thread_and_its_failure_comes_back() {
        assert_ne!(apart(|| Ok(thread::current().id())).unwrap(), thread::current().id());
        assert!(apart(|| Err::<(), _>(Failure::closed())).is_err());
    }
}
