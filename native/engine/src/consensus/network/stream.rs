//! The connection of one append stream, kept from one `stream_append` to the next: openraft opens a new one for every
//! heartbeat.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, sleep};

use crate::error::{Code, Failure};
use crate::limits::{APPENDS_IN_FLIGHT_MAX, SEND_QUEUE_BYTES};
use crate::transport::{AppendReceiver, AppendSender, Peers};

use super::codec::{Answer, Request, decode_answer, encode_request};

/// A connection slower than this counts as stalled: large requests get time in proportion.
const SLOWEST_BYTES_PER_SECOND: usize = 512 << 10;

/// Opens a stream in a task of its own, so that a caller who gives up does not cut the attempt short. Dropping it does.
pub(super) struct Opening(JoinHandle<Result<(AppendSender, AppendReceiver), Failure>>);

impl Opening {
    /// The attempt begins after `pause`: openraft's own back-off does not apply to streams that could not be opened, nor to
    /// those that the peer closes at once, and it would try again without end.
    pub(super) fn new(peers: &Peers, address: &str, target: u64, within: Duration, pause: Duration) -> Opening {
        let (peers, address) = (peers.clone(), address.to_owned());
        Opening(tokio::spawn(async move {
            sleep(pause).await;
            peers.open_append(&address, target, within).await
        }))
    }

    /// Waits for the stream. May be dropped and called again until it has returned.
    pub(super) async fn done(&mut self) -> Result<Stream, Failure> {
        let lost = |error| Failure::internal(format!("A connection attempt was lost: {error}."));
        let (sender, receiver) = (&mut self.0).await.map_err(lost)??;
        let (sent, scratch) = (VecDeque::new(), BytesMut::new());
        Ok(Stream {
            sender,
            receiver,
            sent,
            bytes: 0,
            stale: 0,
            since: Instant::now(),
            probe: None,
            useful: false,
            scratch,
        })
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An open append stream: requests that were sent and wait for their answers, oldest first.
pub(super) struct Stream {
    sender: AppendSender,
    receiver: AppendReceiver,
    /// Bytes of each request that is not answered.
    sent: VecDeque<usize>,
    bytes: usize,
    /// So many of the oldest belong to callers who have gone.
    stale: usize,
    /// Since when the oldest is the oldest.
    since: Instant,
    /// When a request without entries was sent with none before it: its answer gives the round-trip time.
    probe: Option<Instant>,
    /// Whether the peer has answered anything on it.
    pub(super) useful: bool,
    scratch: BytesMut,
}

impl Stream {
    /// Prepares for a new caller: answers that are still due to the last one will be skipped. False when the stream is
    /// of no more use: it was closed, or nothing was answered for `patience`.
    pub(super) fn renew(&mut self, patience: Duration) -> bool {
        self.stale = self.sent.len();
        self.probe = None;
        while let Some(answer) = self.receiver.next().now_or_never() {
            match answer.and_then(|answer| self.answered(answer)) {
                Ok(None) => {}
                Ok(Some(_)) | Err(_) => return false,
            }
        }
        self.stalls_at(patience).is_none_or(|at| Instant::now() < at)
    }

    /// Requests of the present caller that are not answered.
    pub(super) fn pending(&self) -> usize {
        self.sent.len() - self.stale
    }

    /// Whether another request may be queued.
    pub(super) fn room(&self) -> bool {
        self.sent.len() < APPENDS_IN_FLIGHT_MAX && self.sender.queued() < SEND_QUEUE_BYTES
    }

    /// When to give the peer up if nothing moves until then; `None` while nothing is expected of it.
    pub(super) fn stalls_at(&self, patience: Duration) -> Option<Instant> {
        if self.sent.is_empty() {
            return None;
        }
        let since = if self.sender.unflushed() { self.since.max(self.sender.progress()) } else { self.since };
        Some(since + patience + Duration::from_secs_f64(self.bytes as f64 / SLOWEST_BYTES_PER_SECOND as f64))
    }

    /// Queues `request`.
    pub(super) fn push(&mut self, request: &Request) -> Result<(), Failure> {
        let parts = encode_request(request, &mut self.scratch)?;
        self.sender.push(&parts)?;
        if self.sent.is_empty() {
            self.since = Instant::now();
            self.probe = request.entries.is_empty().then_some(self.since);
        }
        let bytes = parts.iter().map(Bytes::len).sum();
        self.sent.push_back(bytes);
        self.bytes += bytes;
        Ok(())
    }

    /// The answer to the newest request will be skipped, as are all before it.
    pub(super) fn disown(&mut self) {
        self.stale = self.sent.len();
    }

    /// Writes what is queued and waits for an answer; `None` when it was one for a caller who has gone, or when there
    /// was something to write and it is written. May be dropped at any time.
    pub(super) async fn turn(&mut self) -> Result<Option<Answer>, Failure> {
        let frame = tokio::select! {
            biased;
            frame = self.receiver.next() => frame?,
            flushed = self.sender.flush(), if self.sender.unflushed() => return flushed.map(|()| None),
        };
        self.answered(frame)
    }

    fn answered(&mut self, frame: Option<Bytes>) -> Result<Option<Answer>, Failure> {
        let Some(frame) = frame else {
            return Err(Failure::new(Code::Unavailable, "The peer closed the append stream."));
        };
        let answer = decode_answer(frame)?;
        let Some(bytes) = self.sent.pop_front() else {
            return Err(Failure::new(Code::Refused, "The peer answered a request that was not sent."));
        };
        self.bytes -= bytes;
        self.useful = true;
        self.since = Instant::now();
        if let Some(probe) = self.probe.take() {
            self.sender.round_trip(probe.elapsed());
        }
        if self.stale > 0 {
            self.stale -= 1;
            return Ok(None);
        }
        Ok(Some(answer))
    }

    /// Tells the statistics why the stream is given up.
    pub(super) fn failed(&self, failure: &Failure) {
        self.sender.failed(&failure.message);
    }
}
