//! Reads that wait: for their barrier, then for the reading thread.

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};

use crate::error::{Code, Failure};
use crate::limits::READS_MAX;
use crate::session::Consistency;

/// What is done once the barrier is passed.
#[derive(Debug)]
pub enum Then {
    /// Answer with the applied index.
    Index,
    /// Read this operation from the key-value store.
    Read(Bytes),
}

/// A read in line.
#[derive(Debug)]
pub struct Waiting {
    /// Of its request.
    pub ticket: u64,
    /// Which barrier.
    pub consistency: Consistency,
    /// What then.
    pub then: Then,
}

/// Reads that wait for a barrier.
#[derive(Default)]
pub struct ReadQueue {
    waiting: Mutex<Vec<Waiting>>,
    bell: Notify,
    thread: Mutex<Option<mpsc::Sender<(u64, Bytes)>>>,
}

impl ReadQueue {
    /// Puts `one` in line.
    pub fn push(&self, one: Waiting) {
        self.waiting.lock().push(one);
        self.bell.notify_one();
    }

    /// Waits until something was pushed.
    pub async fn pushed(&self) {
        self.bell.notified().await;
    }

    /// Everything in line.
    pub fn take(&self) -> Vec<Waiting> {
        std::mem::take(&mut *self.waiting.lock())
    }

    /// What the reading thread is to read from now on: tickets and operations, until [`ReadQueue::close`].
    pub fn begin_reading(&self) -> mpsc::Receiver<(u64, Bytes)> {
        let (sender, receiver) = mpsc::channel(READS_MAX);
        *self.thread.lock() = Some(sender);
        receiver
    }

    /// Has the reading thread read `operation` for `ticket`. Fails with `Overloaded`, `Closed`.
    pub fn hand_over(&self, ticket: u64, operation: Bytes) -> Result<(), Failure> {
        match &*self.thread.lock() {
            Some(thread) => thread.try_send((ticket, operation)).map_err(|error| match error {
                TrySendError::Full(_) => Failure::new(Code::Overloaded, "Too many reads wait."),
                TrySendError::Closed(_) => Failure::closed(),
            }),
            None => Err(Failure::closed()),
        }
    }

    /// Ends the reading thread.
    pub fn close(&self) {
        self.thread.lock().take();
    }
}
