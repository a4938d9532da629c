//! The questions of one node's host that wait for an answer, and those that it is to answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::error::{Code, Failure};
use crate::limits::{ASK_ANSWER_BYTES_MAX, ASK_QUESTION_BYTES_MAX, ASKS_MAX};
use crate::machine::Outcome;

struct State {
    next: u64,
    open: BTreeMap<u64, oneshot::Sender<Outcome>>,
    closed: bool,
}

/// The questions of one node, asked and to be answered.
pub struct Asks {
    asking: Arc<Semaphore>,
    answering: Mutex<State>,
}

impl Default for Asks {
    fn default() -> Asks {
        let answering = Mutex::new(State { next: 1, open: BTreeMap::new(), closed: false });
        Asks { asking: Arc::new(Semaphore::new(ASKS_MAX)), answering }
    }
}

impl Asks {
    /// A place among the questions that this node asks; it is free again when dropped. Fails with `Overloaded`.
    pub fn begin(&self) -> Result<OwnedSemaphorePermit, Failure> {
        self.asking.clone().try_acquire_owned().map_err(|_| {
            let message = format!("{ASKS_MAX} questions wait for their answer; ask fewer at a time.");
            Failure::new(Code::Overloaded, message)
        })
    }

    /// The host answers `ticket`. Fails with `Invalid` when nobody waits (any more), with `TooLarge`; the latter whoever
    /// asked is told, too.
    pub fn answered(&self, ticket: u64, outcome: Outcome) -> Result<(), Failure> {
        let asked = self.answering.lock().open.remove(&ticket);
        let asked = asked.ok_or_else(|| Failure::invalid(format!("No question {ticket} waits for an answer.")))?;
        let len = outcome.as_ref().map_or_else(|failure| failure.message.len(), Bytes::len);
        let checked =
            if len <= ASK_ANSWER_BYTES_MAX { Ok(()) } else { Err(too_large("answer", len, ASK_ANSWER_BYTES_MAX)) };
        // Whoever asked may have given up a moment ago.
        drop(asked.send(checked.clone().and(outcome)));
        checked
    }

    /// Refuses everything from now on; whoever waits for this host's answers gets `Closed`.
    pub fn close(&self) {
        let mut state = self.answering.lock();
        state.closed = true;
        state.open.clear();
    }

    /// A place among the questions that this node's host is to answer. Fails with `Closed`, `Unavailable`.
    pub fn open(&self) -> Result<(Open<'_>, oneshot::Receiver<Outcome>), Failure> {
        let mut state = self.answering.lock();
        if state.closed {
            return Err(Failure::closed());
        }
        if state.open.len() >= ASKS_MAX {
            let message = format!("{ASKS_MAX} questions wait for the answer of this server's host.");
            return Err(Failure::new(Code::Unavailable, message));
        }
        let ticket = state.next;
        state.next += 1;
        let (sender, answer) = oneshot::channel();
        state.open.insert(ticket, sender);
        Ok((Open { asks: self, ticket }, answer))
    }
}

/// A question to this node's host, forgotten when it is dropped.
pub struct Open<'a> {
    asks: &'a Asks,
    /// By which the host answers.
    pub ticket: u64,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.asks.answering.lock().open.remove(&self.ticket);
    }
}

/// Checks a question before anything is registered. Fails with `TooLarge`.
pub fn check(question: &Bytes) -> Result<(), Failure> {
    match question.len() {
        len if len > ASK_QUESTION_BYTES_MAX => Err(too_large("question", len, ASK_QUESTION_BYTES_MAX)),
        _ => Ok(()),
    }
}

fn too_large(what: &str, len: usize, max: usize) -> Failure {
    Failure::new(Code::TooLarge, format!("The {what} has {len} bytes; at most {max} are carried."))
}
