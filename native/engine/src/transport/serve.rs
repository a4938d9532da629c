//! What a connection does after its handshake, by purpose.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, AbortHandle, BoxStream};
use futures_util::{FutureExt, StreamExt};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Duration, MissedTickBehavior, interval, timeout};

use crate::codec::Reader;
use crate::error::{Code, Failure};
use crate::limits::{CALLS_SERVED_MAX, SEND_QUEUE_BYTES};

use super::MEMBER_CALLS_FROM;
use super::frame::{Frame, FrameReader, FrameSink, encode_outcome, kind};
use super::handshake::{Identity, Peer};
use super::service::Service;
use super::warnings::Warnings;

/// A snapshot of which no chunk comes for this long is given up.
const SNAPSHOT_SILENCE: Duration = Duration::from_secs(30);
/// While the service digests a snapshot, the sender hears this often that the node is alive.
pub(super) const SNAPSHOT_BUSY_EVERY: Duration = Duration::from_millis(500);

/// What every connection's task needs.
pub(super) struct Context {
    pub service: Arc<dyn Service>,
    pub warnings: Warnings,
}

type Answered = (u64, Result<Bytes, Failure>);

/// Stops a stream when the task that made it ends, for whatever reason.
struct StopOnDrop(AbortHandle);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn unexpected(frame: &Frame, reader: &FrameReader) -> Failure {
    Failure::new(Code::Refused, format!("{} sent a frame of kind {} out of place.", reader.remote(), frame.kind))
}

/// Serves calls until the peer ends the connection. Calls run side by side, at most [`CALLS_SERVED_MAX`]; while that
/// many run, or while the peer does not take its answers, no more are read.
pub(super) async fn serve_calls(
    context: &Arc<Context>,
    me: Identity,
    peer: Peer,
    mut reader: FrameReader,
    mut sink: FrameSink,
) -> Result<(), Failure> {
    let mut running: JoinSet<Answered> = JoinSet::new();
    loop {
        let room = running.len() < CALLS_SERVED_MAX && sink.queued() < SEND_QUEUE_BYTES;
        tokio::select! {
            biased;
            Some(done) = running.join_next(), if !running.is_empty() => answer(&mut sink, done)?,
            frame = reader.next(), if room => match frame? {
                None => return Ok(()),
                Some(Frame { kind: kind::PING, .. }) => sink.push(kind::PONG, &[])?,
                Some(Frame { kind: kind::REQUEST, body }) => start_call(context, &me, &peer, body, &mut running)?,
                Some(frame) => return Err(unexpected(&frame, &reader)),
            },
            flushed = sink.flush(), if sink.unflushed() => flushed?,
        }
    }
}

fn start_call(
    context: &Arc<Context>,
    me: &Identity,
    peer: &Peer,
    body: Bytes,
    running: &mut JoinSet<Answered>,
) -> Result<(), Failure> {
    let mut request = Reader::new(body);
    let (id, kind) = (request.u64()?, request.u8()?);
    let body = request.take(request.remaining())?;
    if peer.stranger && kind >= MEMBER_CALLS_FROM {
        let message = format!(
            "Nodes \"{}\" and \"{}\" are not members of one cluster yet: only introductions are served.",
            me.name, peer.name
        );
        running.spawn(async move { (id, Err(Failure::new(Code::Refused, message))) });
        return Ok(());
    }
    let (context, peer) = (context.clone(), peer.clone());
    running.spawn(async move {
        let call = AssertUnwindSafe(async { context.service.call(peer, kind, body).await }).catch_unwind();
        let broke = || Failure::internal(format!("A call of kind {kind} broke; the log of the node says where."));
        (id, call.await.unwrap_or_else(|_| Err(broke())))
    });
    Ok(())
}

fn answer(sink: &mut FrameSink, done: Result<Answered, JoinError>) -> Result<(), Failure> {
    let (id, outcome) = done.map_err(|error| Failure::internal(format!("A call was lost: {error}.")))?;
    let id = Bytes::copy_from_slice(&id.to_le_bytes());
    let [status, body] = encode_outcome(outcome);
    match sink.push(kind::ANSWER, &[id.clone(), status, body]) {
        Ok(()) => Ok(()),
        Err(too_large) => {
            let [status, message] = encode_outcome(Err(too_large));
            sink.push(kind::ANSWER, &[id, status, message])
        }
    }
}

/// Serves one append stream until the service ends it. Answers that are ready together leave in one write.
pub(super) async fn serve_append(
    context: &Arc<Context>,
    peer: Peer,
    reader: FrameReader,
    mut sink: FrameSink,
) -> Result<(), Failure> {
    let (input, stop) = stream::abortable(append_frames(context.clone(), reader));
    let _stop = StopOnDrop(stop);
    let mut output = context.service.append_stream(peer, input.boxed());
    loop {
        tokio::select! {
            biased;
            answer = output.next(), if sink.queued() < SEND_QUEUE_BYTES => match answer {
                Some(answer) => sink.push(kind::APPEND, &[answer])?,
                None => return sink.flush().await,
            },
            flushed = sink.flush(), if sink.unflushed() => flushed?,
        }
    }
}

fn append_frames(context: Arc<Context>, reader: FrameReader) -> BoxStream<'static, Bytes> {
    let frames = stream::unfold((context, reader), |(context, mut reader)| async move {
        let failure = match reader.next().await {
            Ok(Some(Frame { kind: kind::APPEND, body })) => return Some((body, (context, reader))),
            Ok(None) => return None,
            Ok(Some(frame)) => unexpected(&frame, &reader),
            Err(failure) => failure,
        };
        if failure.code != Code::Unavailable {
            context.warnings.warn(format_args!("Append stream closed. {failure}"));
        }
        None
    });
    frames.boxed()
}

/// Serves one snapshot: hands the chunks to the service, tells the sender now and then that it is at work, and at the end
/// the service's answer.
pub(super) async fn serve_snapshot(
    context: &Arc<Context>,
    peer: Peer,
    mut reader: FrameReader,
    mut sink: FrameSink,
) -> Result<(), Failure> {
    let head = match next_within(&mut reader).await? {
        Frame { kind: kind::SNAPSHOT_HEAD, body } => body,
        frame => return Err(unexpected(&frame, &reader)),
    };
    let mut head = Reader::new(head);
    let (len, head) = (head.u64()?, head.take(head.remaining())?);
    let (chunks, stop) = stream::abortable(snapshot_chunks(reader, len));
    let _stop = StopOnDrop(stop);
    let service = context.service.clone();
    let taking = AssertUnwindSafe(async move { service.snapshot(peer, head, chunks.boxed()).await }).catch_unwind();
    tokio::pin!(taking);
    let mut busy = interval(SNAPSHOT_BUSY_EVERY);
    busy.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = &mut taking => break outcome,
            flushed = sink.flush(), if sink.unflushed() => flushed?,
            _ = busy.tick(), if !sink.unflushed() => sink.push(kind::SNAPSHOT_BUSY, &[])?,
        }
    };
    let broke = || Failure::internal("Taking in the snapshot broke; the log of the node says where.");
    sink.push(kind::SNAPSHOT_ANSWER, &encode_outcome(outcome.unwrap_or_else(|_| Err(broke()))))?;
    sink.flush().await
}

async fn next_within(reader: &mut FrameReader) -> Result<Frame, Failure> {
    match timeout(SNAPSHOT_SILENCE, reader.next()).await {
        Ok(Ok(Some(frame))) => Ok(frame),
        Ok(Ok(None)) => {
            let message = format!("{} ended a snapshot before it was complete.", reader.remote());
            Err(Failure::new(Code::Unavailable, message))
        }
        Ok(Err(failure)) => Err(failure),
        Err(_) => {
            let seconds = SNAPSHOT_SILENCE.as_secs();
            let message = format!("{} sent nothing of its snapshot for {seconds} s.", reader.remote());
            Err(Failure::new(Code::Unavailable, message))
        }
    }
}

/// The chunks of a snapshot of `len` bytes; the last item is an error unless exactly that many came.
fn snapshot_chunks(reader: FrameReader, len: u64) -> BoxStream<'static, Result<Bytes, Failure>> {
    let chunks = stream::unfold(Some((reader, len)), |state| async move {
        let (mut reader, left) = state?;
        let failure = match next_within(&mut reader).await {
            Ok(Frame { kind: kind::SNAPSHOT_CHUNK, body }) if body.len() as u64 <= left => {
                let left = left - body.len() as u64;
                return Some((Ok(body), Some((reader, left))));
            }
            Ok(Frame { kind: kind::SNAPSHOT_END, .. }) if left == 0 => return None,
            Ok(frame) => unexpected(&frame, &reader),
            Err(failure) => failure,
        };
        Some((Err(failure), None))
    });
    chunks.boxed()
}
