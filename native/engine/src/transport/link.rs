//! One connection for calls: many requests in flight, told apart by number.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Duration, Instant, MissedTickBehavior, interval};

use crate::codec::Reader;
use crate::error::{Code, Failure};
use crate::limits::{CALLS_IN_FLIGHT_MAX, CALLS_QUEUED_MAX, SEND_QUEUE_BYTES};

use super::frame::{Frame, FrameReader, FrameSink, decode_outcome, kind};
use super::handshake::{Host, strangers};
use super::slot::Slot;

/// The peer is asked for a sign of life this often.
const PING_EVERY: Duration = Duration::from_secs(1);
/// A peer from which nothing came for this long after it was asked is taken for dead.
const SILENCE: Duration = Duration::from_secs(3);

type Answer = Result<Bytes, Failure>;

struct Request {
    id: u64,
    kind: u8,
    body: Bytes,
}

/// Who waits for an answer; once the connection has ended, why it did.
struct Waiting(Mutex<Result<BTreeMap<u64, oneshot::Sender<Answer>>, Failure>>);

impl Waiting {
    fn register(&self, id: u64, answer: oneshot::Sender<Answer>) -> Result<(), Failure> {
        match &mut *self.0.lock() {
            Ok(waiting) => {
                waiting.insert(id, answer);
                Ok(())
            }
            Err(reason) => Err(reason.clone()),
        }
    }

    fn take(&self, id: u64) -> Option<oneshot::Sender<Answer>> {
        self.0.lock().as_mut().ok()?.remove(&id)
    }

    fn complete(&self, id: u64, answer: Answer) {
        // A caller that has given up is no longer here, or no longer listens.
        if let Some(waiting) = self.take(id) {
            let _ = waiting.send(answer);
        }
    }

    fn end(&self, reason: &Failure) {
        let waiting = std::mem::replace(&mut *self.0.lock(), Err(reason.clone()));
        for (_, answer) in waiting.into_iter().flatten() {
            let _ = answer.send(Err(reason.clone()));
        }
    }

    fn reason(&self) -> Option<Failure> {
        self.0.lock().as_ref().err().cloned()
    }
}

/// Forgets a call that is given up.
struct Registration<'a>(&'a Waiting, u64);

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        self.0.take(self.1);
    }
}

/// A connection for calls. Its task ends when the connection does, or with the last reference to the link.
pub(super) struct Link {
    requests: mpsc::Sender<Request>,
    waiting: Arc<Waiting>,
    turns: Semaphore,
    next: AtomicU64,
    task: AbortHandle,
    made: Instant,
    mine: Option<[u8; 16]>,
    host: Host,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    /// Starts the task of a connection on which this node, then of cluster `mine`, was welcomed by `host`.
    pub(super) fn start(
        slot: &Arc<Slot>,
        reader: FrameReader,
        sink: FrameSink,
        mine: Option<[u8; 16]>,
        host: Host,
    ) -> Link {
        let waiting = Arc::new(Waiting(Mutex::new(Ok(BTreeMap::new()))));
        let (requests, queue) = mpsc::channel(CALLS_QUEUED_MAX);
        let end = End { waiting: waiting.clone(), slot: Arc::downgrade(slot), reason: None };
        let run = Run { reader, sink, queue, pinged: None, end };
        Link {
            requests,
            waiting,
            turns: Semaphore::new(CALLS_IN_FLIGHT_MAX),
            next: AtomicU64::new(1),
            task: tokio::spawn(run.run()).abort_handle(),
            made: Instant::now(),
            mine,
            host,
        }
    }

    /// Who is at the other end.
    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    /// Whether the connection is up, as far as is known.
    pub(super) fn alive(&self) -> bool {
        self.waiting.reason().is_none()
    }

    /// Whether to shake hands anew before a member's call to node `to`. When both sides were not yet of one cluster: once
    /// this node's cluster has changed from what it was, and after `age` in any case, since the other's may have
    /// changed. When another node than `to` answered: after `age` too, since a node that joins changes its id.
    pub(super) fn outdated(&self, mine: Option<[u8; 16]>, to: Option<u64>, age: Duration) -> bool {
        let old = self.made.elapsed() >= age;
        let joined = strangers(self.mine, self.host.cluster) && (old || mine != self.mine);
        joined || (old && to.is_some_and(|to| to != self.host.node))
    }

    /// Sends a request and waits for its answer, or for the end of the connection. The future may be dropped.
    pub(super) async fn call(&self, kind: u8, body: Bytes) -> Answer {
        let ended = || self.waiting.reason().unwrap_or_else(Failure::closed);
        let _turn = self.turns.acquire().await.map_err(|_| ended())?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.waiting.register(id, sender)?;
        let _registration = Registration(&self.waiting, id);
        self.requests.send(Request { id, kind, body }).await.map_err(|_| ended())?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }
}

/// Tells those who wait that the connection has ended, also when its task is aborted.
struct End {
    waiting: Arc<Waiting>,
    slot: Weak<Slot>,
    reason: Option<Failure>,
}

impl Drop for End {
    fn drop(&mut self) {
        let given_up = || Failure::new(Code::Unavailable, "The connection was closed on this side.");
        self.waiting.end(&self.reason.clone().unwrap_or_else(given_up));
        if let (Some(slot), Some(reason)) = (self.slot.upgrade(), &self.reason) {
            slot.link_ended(&reason.message);
        }
    }
}

struct Run {
    reader: FrameReader,
    sink: FrameSink,
    queue: mpsc::Receiver<Request>,
    pinged: Option<Instant>,
    end: End,
}

impl Run {
    async fn run(mut self) {
        let failure = match self.talk().await {
            Ok(()) => format!("{} closed the connection.", self.reader.remote()),
            Err(failure) => failure.message,
        };
        tracing::debug!("{failure}");
        self.end.reason = Some(Failure::new(Code::Unavailable, failure));
    }

    async fn talk(&mut self) -> Result<(), Failure> {
        let mut ping = interval(PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                frame = self.reader.next() => match frame? {
                    Some(frame) => self.take(frame)?,
                    None => return Ok(()),
                },
                Some(request) = self.queue.recv(), if self.sink.queued() < SEND_QUEUE_BYTES => self.send(request)?,
                flushed = self.sink.flush(), if self.sink.unflushed() => flushed?,
                _ = ping.tick() => self.ping()?,
            }
        }
    }

    fn take(&mut self, frame: Frame) -> Result<(), Failure> {
        match frame.kind {
            kind::PONG => {
                if let (Some(pinged), Some(slot)) = (self.pinged, self.end.slot.upgrade()) {
                    slot.round_trip(pinged.elapsed());
                }
            }
            kind::ANSWER => {
                let mut answer = Reader::new(frame.body);
                self.end.waiting.complete(answer.u64()?, decode_outcome(answer));
            }
            other => {
                let message = format!("{} sent a frame of kind {other} out of place.", self.reader.remote());
                return Err(Failure::new(Code::Refused, message));
            }
        }
        self.pinged = None;
        Ok(())
    }

    fn send(&mut self, request: Request) -> Result<(), Failure> {
        let head = [&request.id.to_le_bytes()[..], &[request.kind]].concat();
        if let Err(too_large) = self.sink.push(kind::REQUEST, &[Bytes::from(head), request.body]) {
            self.end.waiting.complete(request.id, Err(too_large));
        }
        Ok(())
    }

    fn ping(&mut self) -> Result<(), Failure> {
        match self.pinged {
            None => {
                self.pinged = Some(Instant::now());
                self.sink.push(kind::PING, &[])
            }
            // A large answer on its way is a sign of life, too.
            Some(pinged) if pinged.max(self.reader.heard_at()).elapsed() < SILENCE => Ok(()),
            Some(_) => {
                let message = format!("{} gave no sign of life for {} s.", self.reader.remote(), SILENCE.as_secs());
                Err(Failure::new(Code::Unavailable, message))
            }
        }
    }
}
