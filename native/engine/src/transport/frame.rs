//! Frames: what travels on a connection.
//!
//! ```text
//! frame := length u32 (of what follows) · kind u8 · group u16 · body
//! ```

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::time::{Duration, Instant, timeout};
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use crate::codec::Reader;
use crate::error::{Code, Failure};

use super::segments::Segments;
use super::wire::{ReadHalf, WriteHalf};

/// Kinds of frames.
pub(super) mod kind {
    pub const HELLO: u8 = 1;
    pub const WELCOME: u8 = 2;
    pub const REFUSED: u8 = 3;
    pub const REQUEST: u8 = 4;
    pub const ANSWER: u8 = 5;
    pub const PING: u8 = 6;
    pub const PONG: u8 = 7;
    pub const APPEND: u8 = 8;
    pub const SNAPSHOT_HEAD: u8 = 9;
    pub const SNAPSHOT_CHUNK: u8 = 10;
    pub const SNAPSHOT_END: u8 = 11;
    pub const SNAPSHOT_BUSY: u8 = 12;
    pub const SNAPSHOT_ANSWER: u8 = 13;
}

/// A write that moves no byte for this long ends its connection.
pub(super) const WRITE_STALL: Duration = Duration::from_secs(10);
/// Bytes that a reader takes from its socket at a time.
const READ_BYTES: usize = 64 << 10;
const HEADER_BYTES: usize = 3;

/// How the records of TLS begin (RFC 8446, 5.1): with one of these types, and this major version. As the start of a frame this would be
/// a length over every limit of the handshake.
const TLS_RECORDS_FROM: u8 = 20;
const TLS_RECORDS_TO: u8 = 23;
const TLS_MAJOR: u8 = 3;

/// A frame as it was received; its body shares the read buffer.
#[derive(Debug)]
pub(super) struct Frame {
    pub kind: u8,
    pub body: Bytes,
}

/// Notes when something was read.
struct Heard {
    half: ReadHalf,
    at: Instant,
}

impl AsyncRead for Heard {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        let polled = Pin::new(&mut self.half).poll_read(context, out);
        if out.filled().len() > before {
            self.at = Instant::now();
        }
        polled
    }
}

/// Reads frames of one group. `next` may be dropped at any time without losing bytes.
pub(super) struct FrameReader {
    frames: FramedRead<Heard, LengthDelimitedCodec>,
    group: Option<u16>,
    remote: String,
}

impl FrameReader {
    /// Reads from `half` frames of any group, each of at most `max` bytes. `remote` names the peer in errors.
    pub(super) fn new(half: ReadHalf, max: usize, remote: String) -> FrameReader {
        let codec = LengthDelimitedCodec::builder().little_endian().max_frame_length(max).new_codec();
        let heard = Heard { half, at: Instant::now() };
        FrameReader { frames: FramedRead::with_capacity(heard, codec, READ_BYTES), group: None, remote }
    }

    /// When bytes came last, be it only a part of a frame.
    pub(super) fn heard_at(&self) -> Instant {
        self.frames.get_ref().at
    }

    /// From now on frames of `group` only, of at most `max` bytes.
    pub(super) fn admit(&mut self, group: u16, max: usize) {
        self.group = Some(group);
        self.frames.decoder_mut().set_max_frame_length(max);
    }

    /// Who sends, for log lines.
    pub(super) fn remote(&self) -> &str {
        &self.remote
    }

    /// The next frame, with its group; `None` when the other side ended the connection between two frames. Fails with
    /// `Refused` on what is no frame or is too large, with `Unavailable` when the connection broke.
    pub(super) async fn next_of_any_group(&mut self) -> Result<Option<(u16, Frame)>, Failure> {
        let body = match self.frames.next().await {
            None => return Ok(None),
            Some(Ok(body)) => body.freeze(),
            Some(Err(error)) => return Err(self.broken(&error)),
        };
        if body.len() < HEADER_BYTES {
            return Err(Failure::new(Code::Refused, format!("{} sent a frame without a header.", self.remote)));
        }
        let mut reader = Reader::new(body);
        let (kind, group) = (reader.u8()?, reader.u16()?);
        let body = reader.take(reader.remaining())?;
        Ok(Some((group, Frame { kind, body })))
    }

    /// The next frame of the admitted group, else as [`FrameReader::next_of_any_group`].
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, Failure> {
        match self.next_of_any_group().await? {
            None => Ok(None),
            Some((group, frame)) if Some(group) == self.group => Ok(Some(frame)),
            Some((group, _)) => {
                Err(Failure::new(Code::Refused, format!("{} sent a frame of group {group}.", self.remote)))
            }
        }
    }

    fn broken(&self, error: &std::io::Error) -> Failure {
        if let Some(Failure { code, message }) = failure_in(error) {
            return Failure::new(*code, format!("The connection with {} failed: {message}", self.remote));
        }
        if let [TLS_RECORDS_FROM..=TLS_RECORDS_TO, TLS_MAJOR, ..] = self.frames.read_buffer()[..] {
            let message =
                format!("{} speaks TLS, and this node does not: give all servers :tls, or none.", self.remote);
            return Failure::new(Code::Refused, message);
        }
        if error.kind() == std::io::ErrorKind::InvalidData {
            let max = self.frames.decoder().max_frame_length();
            return Failure::new(Code::Refused, format!("{} sent a frame of more than {max} bytes.", self.remote));
        }
        Failure::new(Code::Unavailable, format!("The connection with {} broke: {error}.", self.remote))
    }
}

/// Queues frames and writes them out.
pub(super) struct FrameSink {
    writer: WriteHalf,
    queue: Segments,
    unflushed: bool,
    group: u16,
    max: usize,
    remote: String,
    progress: Instant,
}

impl FrameSink {
    /// Writes to `half` frames of `group`, each of at most `max` bytes. `remote` names the peer in errors.
    pub(super) fn new(half: WriteHalf, group: u16, max: usize, remote: String) -> FrameSink {
        FrameSink {
            writer: half,
            queue: Segments::default(),
            unflushed: false,
            group,
            max,
            remote,
            progress: Instant::now(),
        }
    }

    /// From now on frames of at most `max` bytes.
    pub(super) fn admit(&mut self, max: usize) {
        self.max = max;
    }

    /// Queues a frame whose body is `parts` one after the other. Large parts are shared, not copied. Fails with
    /// `TooLarge`, and then has queued nothing.
    pub(super) fn push(&mut self, kind: u8, parts: &[Bytes]) -> Result<(), Failure> {
        let len = HEADER_BYTES + parts.iter().map(Bytes::len).sum::<usize>();
        if len > self.max {
            let message = format!("A message of {len} bytes for {} is over the limit of {}.", self.remote, self.max);
            return Err(Failure::new(Code::TooLarge, message));
        }
        if !self.unflushed {
            self.progress = Instant::now();
        }
        self.queue.put(&(len as u32).to_le_bytes());
        self.queue.put(&[kind]);
        self.queue.put(&self.group.to_le_bytes());
        parts.iter().for_each(|part| self.queue.put_shared(part));
        self.unflushed = true;
        Ok(())
    }

    /// Bytes queued and not yet handed to the operating system.
    pub(super) fn queued(&self) -> usize {
        self.queue.remaining()
    }

    /// Whether [`FrameSink::flush`] has something to do.
    pub(super) fn unflushed(&self) -> bool {
        self.unflushed
    }

    /// When bytes last left, or, when there were none to leave, when the first of the present ones was queued.
    pub(super) fn progress(&self) -> Instant {
        self.progress
    }

    /// Writes everything that is queued. May be dropped at any time and called again: no byte is lost or repeated.
    /// Fails with `Unavailable` when the connection broke, or moved no byte for [`WRITE_STALL`].
    pub(super) async fn flush(&mut self) -> Result<(), Failure> {
        while self.queue.has_remaining() {
            match timeout(WRITE_STALL, self.writer.write_buf(&mut self.queue)).await {
                Ok(Ok(0)) => return Err(self.broken("it takes no more bytes")),
                Ok(Ok(_)) => self.progress = Instant::now(),
                Ok(Err(error)) => return Err(self.broken(error)),
                Err(_) => {
                    return Err(self.broken(format!("no byte left for {} s", WRITE_STALL.as_secs())));
                }
            }
        }
        match timeout(WRITE_STALL, self.writer.flush()).await {
            Ok(Ok(())) => self.unflushed = false,
            Ok(Err(error)) => return Err(self.broken(error)),
            Err(_) => {
                return Err(self.broken(format!("no byte left for {} s", WRITE_STALL.as_secs())));
            }
        }
        Ok(())
    }

    fn broken(&self, reason: impl std::fmt::Display) -> Failure {
        Failure::new(Code::Unavailable, format!("The connection with {} broke: {reason}.", self.remote))
    }
}

/// The failure that a wire wrapped into an error of the operating system's kind.
pub(super) fn failure_in(error: &io::Error) -> Option<&Failure> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// The result of a call as two parts of a frame: `status u8 (0, or a code) · the answer, or the message in UTF-8`.
pub(super) fn encode_outcome(outcome: Result<Bytes, Failure>) -> [Bytes; 2] {
    match outcome {
        Ok(answer) => [Bytes::from_static(&[0]), answer],
        Err(failure) => [Bytes::copy_from_slice(&[failure.code as u8]), Bytes::from(failure.message)],
    }
}

/// Reverses [`encode_outcome`]. Fails with what the other side failed with, or with `Corrupt` on anything malformed.
pub(super) fn decode_outcome(mut reader: Reader) -> Result<Bytes, Failure> {
    let status = reader.u8()?;
    let rest = reader.take(reader.remaining())?;
    if status == 0 {
        return Ok(rest);
    }
    Err(Failure::new(code(status), String::from_utf8_lossy(&rest).into_owned()))
}

/// The code with `number`. A number that this release does not know comes from a newer peer and is `Internal`.
pub(super) fn code(number: u8) -> Code {
    Code::of(number).unwrap_or(Code::Internal)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pair(max: usize) -> (FrameSink, FrameReader) {
        let (near, far) = tokio::io::duplex(64);
        let (_, writer) = tokio::io::split(near);
        let (reader, _) = tokio::io::split(far);
        let mut reader = FrameReader::new(Box::new(reader), max, "far".into());
        reader.admit(3, max);
        (FrameSink::new(Box::new(writer), 3, 1 << 20, "near".into()), reader)
    }

    #[tokio::test]
    async fn frames_arrive_whole_and_in_order_through_a_narrow_pipe() {
        let (mut sink, mut reader) = pair(1 << 20);
        let large = Bytes::from((0..50_000u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
        sink.push(kind::APPEND, &[Bytes::from_static(b"head"), large.clone()]).unwrap();
        sink.push(kind::PING, &[]).unwrap();
        let writing = tokio::spawn(async move { sink.flush().await });
        let first = reader.next().await.unwrap().unwrap();
        assert_eq!(first.kind, kind::APPEND);
        assert_eq!(&first.body[..4], b"head");
        assert_eq!(first.body.slice(4..), large);
        assert_eq!(reader.next().await.unwrap().unwrap().kind, kind::PING);
        writing.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_flush_that_is_given_up_halfway_neither_loses_nor_repeats_bytes() {
        let (mut sink, mut reader) = pair(1 << 20);
        let body = Bytes::from((0..20_000u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
        sink.push(kind::APPEND, std::slice::from_ref(&body)).unwrap();
        let read = tokio::spawn(async move { reader.next().await });
        while sink.unflushed() {
            let _ = timeout(Duration::from_micros(50), sink.flush()).await;
        }
        assert_eq!(read.await.unwrap().unwrap().unwrap().body, body);
    }

    #[tokio::test]
    async fn a_frame_over_the_readers_limit_is_refused_and_names_the_limit() {
        let (mut sink, mut reader) = pair(32);
        sink.push(kind::APPEND, &[Bytes::from_static(&[0; 40])]).unwrap();
        let writing = tokio::spawn(async move { sink.flush().await });
        let failure = reader.next().await.unwrap_err();
        assert_eq!(failure.code, Code::Refused);
        assert!(failure.message.contains("more than 32 bytes"), "{failure}");
        drop(reader);
        let _ = writing.await.unwrap();
    }

    #[tokio::test]
    async fn a_frame_over_the_senders_limit_is_not_sent() {
        let (mut sink, _reader) = pair(32);
        sink.admit(16);
        let failure = sink.push(kind::APPEND, &[Bytes::from_static(&[0; 14])]).unwrap_err();
        assert_eq!(failure.code, Code::TooLarge);
        assert!(!sink.unflushed());
        sink.push(kind::APPEND, &[Bytes::from_static(&[0; 13])]).unwrap();
    }

    #[tokio::test]
    async fn a_frame_of_another_group_is_refused() {
        let (mut sink, mut reader) = pair(1 << 10);
        reader.admit(4, 1 << 10);
        sink.push(kind::PING, &[]).unwrap();
        sink.flush().await.unwrap();
        assert_eq!(reader.next().await.unwrap_err().code, Code::Refused);
    }

    #[test]
    fn outcomes_come_back_as_they_went() {
        for number in 1..=16u8 {
            assert_eq!(code(number) as u8, number);
            let failure = Failure::new(code(number), "why");
            let wire = encode_outcome(Err(failure.clone())).concat();
            assert_eq!(decode_outcome(Reader::new(wire.into())), Err(failure));
        }
        let wire = encode_outcome(Ok(Bytes::from_static(b"fine"))).concat();
        assert_eq!(decode_outcome(Reader::new(wire.into())), Ok(Bytes::from_static(b"fine")));
        assert_eq!(decode_outcome(Reader::new(Bytes::new())).unwrap_err().code, Code::Corrupt);
        assert_eq!(code(200), Code::Internal);
    }
}
