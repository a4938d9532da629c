//! Sending a snapshot: the file in chunks, as fast as the receiver takes them.

use std::os::unix::fs::FileExt;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::{Duration, timeout};

use crate::codec::Reader;
use crate::durable::blocking;
use crate::error::{Code, Failure};
use crate::limits::SNAPSHOT_CHUNK_BYTES;
use crate::snapshot::SnapshotFile;

use super::frame::{Frame, FrameReader, FrameSink, decode_outcome, kind};
use super::handshake::Purpose;
use super::peers::Peers;
use super::slot::Slot;

impl Peers {
    /// Sends `file`, described by `head`, to node `to` at `address` and returns the receiver's answer. How far it is
    /// can be seen in [`Peers::stats`]. Every step, a chunk or a sign of life while the receiver digests the whole, must
    /// come about within `stall`, or it fails with `Timeout`. Further fails with `Io` when the file cannot be read,
    /// with what the receiver's service failed with, and as [`Peers::open_append`] does. Dropping the future ends the
    /// connection, and the receiver throws away what it has.
    pub async fn send_snapshot(
        &self,
        address: &str,
        to: u64,
        head: Bytes,
        file: SnapshotFile,
        stall: Duration,
    ) -> Result<Bytes, Failure> {
        let slot = self.slot(address)?;
        let progress = Progress { slot: &slot, sent: 0, len: file.len };
        let sending = async {
            let me = self.identity();
            let dialled = self.dialer().connect(address, &me, Some(to), Purpose::Snapshot, stall).await;
            let (reader, mut sink, host) = dialled?;
            slot.met(&host);
            let len = Bytes::copy_from_slice(&file.len.to_le_bytes());
            sink.push(kind::SNAPSHOT_HEAD, &[len, head])?;
            let chunks = ReadAhead::new(file);
            Sending { address, reader, sink, chunks, stall, progress }.run().await
        };
        let answer = sending.await;
        if let Err(failure) = &answer {
            slot.failed(&failure.message);
        }
        answer
    }
}

/// Shows the progress while it lives.
struct Progress<'a> {
    slot: &'a Slot,
    sent: u64,
    len: u64,
}

impl Progress<'_> {
    fn advance(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        self.slot.snapshot_progress(Some((self.sent, self.len)));
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.slot.snapshot_progress(None);
    }
}

struct Sending<'a> {
    address: &'a str,
    reader: FrameReader,
    sink: FrameSink,
    chunks: ReadAhead,
    stall: Duration,
    progress: Progress<'a>,
}

impl Sending<'_> {
    /// The answer may come before the end: a receiver that cannot go on says so at once.
    async fn run(mut self) -> Result<Bytes, Failure> {
        self.progress.advance(0);
        while let Some(chunk) = self.chunks.next().await? {
            let bytes = chunk.len();
            self.sink.push(kind::SNAPSHOT_CHUNK, &[chunk])?;
            if let Some(early) = self.flush_or_answer().await? {
                return decode_outcome(early);
            }
            self.progress.advance(bytes);
        }
        self.sink.push(kind::SNAPSHOT_END, &[])?;
        if let Some(early) = self.flush_or_answer().await? {
            return decode_outcome(early);
        }
        loop {
            if let Some(answer) = self.received().await? {
                return decode_outcome(answer);
            }
        }
    }

    /// Mere signs of life do not prolong the wait: the receiver is to take the chunk.
    async fn flush_or_answer(&mut self) -> Result<Option<Reader>, Failure> {
        let step = async {
            loop {
                tokio::select! {
                    biased;
                    frame = self.reader.next() => if let Some(answer) = answer(frame?, &self.reader)? {
                        return Ok(Some(answer));
                    },
                    flushed = self.sink.flush() => return flushed.map(|()| None),
                }
            }
        };
        timeout(self.stall, step).await.unwrap_or_else(|_| Err(stalled(self.address, self.stall)))
    }

    async fn received(&mut self) -> Result<Option<Reader>, Failure> {
        match timeout(self.stall, self.reader.next()).await {
            Ok(frame) => answer(frame?, &self.reader),
            Err(_) => Err(stalled(self.address, self.stall)),
        }
    }
}

fn stalled(address: &str, stall: Duration) -> Failure {
    let message = format!("{address} took nothing of the snapshot for {} ms.", stall.as_millis());
    Failure::new(Code::Timeout, message)
}

/// `None` for a mere sign of life.
fn answer(frame: Option<Frame>, reader: &FrameReader) -> Result<Option<Reader>, Failure> {
    match frame {
        Some(Frame { kind: kind::SNAPSHOT_BUSY, .. }) => Ok(None),
        Some(Frame { kind: kind::SNAPSHOT_ANSWER, body }) => Ok(Some(Reader::new(body))),
        Some(Frame { kind, .. }) => {
            let message = format!("{} sent a frame of kind {kind} out of place.", reader.remote());
            Err(Failure::new(Code::Refused, message))
        }
        None => {
            let message = format!("{} closed the connection before the snapshot was through.", reader.remote());
            Err(Failure::new(Code::Unavailable, message))
        }
    }
}

/// Reads the file chunk by chunk where it may block, always one ahead of the socket.
struct ReadAhead {
    file: SnapshotFile,
    offset: u64,
    next: Option<BoxFuture<'static, Result<Bytes, Failure>>>,
}

impl ReadAhead {
    fn new(file: SnapshotFile) -> ReadAhead {
        let mut ahead = ReadAhead { file, offset: 0, next: None };
        ahead.begin();
        ahead
    }

    fn begin(&mut self) {
        if self.offset >= self.file.len {
            return;
        }
        let (file, offset) = (self.file.clone(), self.offset);
        self.offset += chunk_len(&self.file, offset) as u64;
        self.next = Some(blocking(move || read_chunk(&file, offset)));
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let Some(reading) = self.next.take() else { return Ok(None) };
        let chunk = reading.await?;
        self.begin();
        Ok(Some(chunk))
    }
}

fn chunk_len(file: &SnapshotFile, offset: u64) -> usize {
    SNAPSHOT_CHUNK_BYTES.min((file.len - offset) as usize)
}

fn read_chunk(file: &SnapshotFile, offset: u64) -> Result<Bytes, Failure> {
    let mut chunk = vec![0; chunk_len(file, offset)];
    match file.file.read_exact_at(&mut chunk, offset) {
        Ok(()) => Ok(Bytes::from(chunk)),
        Err(error) => Err(Failure::io(format!("Reading {} at {offset}", file.path.display()), &error)),
    }
}
