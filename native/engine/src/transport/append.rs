//! Append streams as their sender sees them: frames one way, frames the other, nothing in between.

use bytes::Bytes;
use tokio::time::{Duration, Instant};

use crate::error::{Code, Failure};

use super::frame::{Frame, FrameReader, FrameSink, kind};
use super::handshake::Purpose;
use super::peers::Peers;
use super::slot::OpenStream;

/// The sending half of an append stream.
pub struct AppendSender {
    sink: FrameSink,
    open: OpenStream,
}

/// The receiving half of an append stream.
pub struct AppendReceiver {
    reader: FrameReader,
}

impl Peers {
    /// Opens an append stream to node `to` at `address`, on a connection of its own, within the time given. Fails with
    /// `Unavailable`, `Timeout`, `Refused` (another cluster, another node, not a member yet), `Closed`.
    pub async fn open_append(
        &self,
        address: &str,
        to: u64,
        within: Duration,
    ) -> Result<(AppendSender, AppendReceiver), Failure> {
        let slot = self.slot(address)?;
        let me = self.identity();
        match self.dialer().connect(address, &me, Some(to), Purpose::Append, within).await {
            Ok((reader, sink, host)) => {
                slot.met(&host);
                Ok((AppendSender { sink, open: OpenStream::new(slot) }, AppendReceiver { reader }))
            }
            Err(failure) => {
                slot.failed(&failure.message);
                Err(failure)
            }
        }
    }
}

impl AppendSender {
    /// Queues a frame made of `parts`; large parts are shared, not copied. Fails with `TooLarge` and queues nothing.
    pub fn push(&mut self, parts: &[Bytes]) -> Result<(), Failure> {
        self.sink.push(kind::APPEND, parts)
    }

    /// Bytes queued and not yet handed to the operating system.
    pub fn queued(&self) -> usize {
        self.sink.queued()
    }

    /// Whether [`AppendSender::flush`] has something to do.
    pub fn unflushed(&self) -> bool {
        self.sink.unflushed()
    }

    /// When bytes last left, or, when there were none to leave, when the first of the present ones was queued.
    pub fn progress(&self) -> Instant {
        self.sink.progress()
    }

    /// Sends what is queued. May be dropped at any time and called again. Fails with `Unavailable` when the connection
    /// broke.
    pub async fn flush(&mut self) -> Result<(), Failure> {
        self.sink.flush().await
    }

    /// Tells the statistics of a round trip measured on this stream.
    pub fn round_trip(&self, sample: Duration) {
        self.open.slot().round_trip(sample);
    }

    /// Tells the statistics why this stream is given up.
    pub fn failed(&self, message: &str) {
        self.open.slot().failed(message);
    }
}

impl AppendReceiver {
    /// The next frame; `None` when the peer ended the stream. May be dropped without losing a frame. Fails with
    /// `Unavailable` when the connection broke, with `Refused` on what is no frame of this stream.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        match self.reader.next().await? {
            None => Ok(None),
            Some(Frame { kind: kind::APPEND, body }) => Ok(Some(body)),
            Some(Frame { kind, .. }) => {
                let message = format!("{} sent a frame of kind {kind} out of place.", self.reader.remote());
                Err(Failure::new(Code::Refused, message))
            }
        }
    }
}
