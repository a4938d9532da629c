//! Questions between the hosts of a cluster: one node's host asks, another's answers. The engine carries both and
//! understands neither.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use openraft::async_runtime::WatchReceiver;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use crate::codec::Reader;
use crate::error::{Code, Failure};
use crate::limits::{ASK_ANSWER_BYTES_MAX, ASK_QUESTION_BYTES_MAX, ASKS_MAX};
use crate::machine::Outcome;
use crate::node::core::Core;
use crate::node::service::ASK;

/// Longest wait that a question of another node may ask for.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

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

    fn open(&self) -> Result<(u64, oneshot::Receiver<Outcome>), Failure> {
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
        Ok((ticket, answer))
    }
}

/// Forgets a question whose answer is not waited for any more.
struct Open<'a>(&'a Asks, u64);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.answering.lock().open.remove(&self.1);
    }
}

/// Checks a question before anything is registered. Fails with `TooLarge`.
pub fn check(question: &Bytes) -> Result<(), Failure> {
    match question.len() {
        len if len > ASK_QUESTION_BYTES_MAX => Err(too_large("question", len, ASK_QUESTION_BYTES_MAX)),
        _ => Ok(()),
    }
}

/// Asks the host of the member `server`, until `deadline`. Fails with `Unavailable`, `Timeout`, `StateMachine`, `TooLarge`.
pub async fn ask(core: &Arc<Core>, server: &str, question: Bytes, deadline: Instant) -> Outcome {
    let within = deadline.saturating_duration_since(Instant::now());
    if server == core.config.name {
        return serve(core, server, question, within).await;
    }
    let (id, address) = member(core, server)?;
    let mut body = BytesMut::with_capacity(8 + question.len());
    body.put_u64_le(within.as_millis() as u64);
    body.put_slice(&question);
    core.askers.call(&address, Some(id), ASK, body.freeze(), within).await.map_err(|failure| match failure.code {
        Code::Timeout | Code::StateMachine | Code::TooLarge => failure,
        _ => Failure::new(Code::Unavailable, failure.message),
    })
}

/// Raft id and address of the member of that name.
fn member(core: &Core, server: &str) -> Result<(u64, String), Failure> {
    let raft = core.raft()?;
    let metrics = raft.server_metrics();
    let metrics = metrics.borrow_watched();
    let found = metrics.membership_config.nodes().find(|(_, member)| member.name == server);
    found
        .map(|(id, member)| (*id, core.config.reach(&member.name, &member.address).to_string()))
        .ok_or_else(|| Failure::new(Code::Unavailable, format!("There is no member {server:?} to ask.")))
}

/// Another node's question, as it came over the wire.
pub async fn receive(core: &Arc<Core>, from: &str, body: Bytes) -> Outcome {
    let mut reader = Reader::new(body);
    let within = Duration::from_millis(reader.u64()?).min(WAIT_MAX);
    let question = reader.take(reader.remaining())?;
    check(&question)?;
    serve(core, from, question, within).await
}

/// Puts a question of `from` to this node's host and waits for the answer.
async fn serve(core: &Arc<Core>, from: &str, question: Bytes, within: Duration) -> Outcome {
    let (ticket, answer) = core.asks.open()?;
    let _forgotten_at_the_end = Open(&core.asks, ticket);
    core.observer.asked(ticket, from, question)?;
    match tokio::time::timeout(within, answer).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(Failure::closed()),
        Err(_) => {
            let message =
                format!("The host of {:?} did not answer within {} ms.", core.config.name, within.as_millis());
            Err(Failure::new(Code::Timeout, message))
        }
    }
}

fn too_large(what: &str, len: usize, max: usize) -> Failure {
    Failure::new(Code::TooLarge, format!("The {what} has {len} bytes; at most {max} are carried."))
}
