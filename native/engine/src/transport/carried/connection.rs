//! One connection: two streams, and a sign of life now and then.

use std::io;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::ReadBuf;
use tokio::time::Instant;

use super::datagram::{Ack, Packet};
use super::receiving::{Found, Receiving, WINDOW_FIRST};
use super::sending::Sending;

/// The peer is asked for a sign of life when nothing came for so long; and for room when there was none.
const PING_EVERY: Duration = Duration::from_secs(1);
const PROBE_EVERY: Duration = Duration::from_millis(200);
/// Between attempts to open a connection.
const OPEN_EVERY: Duration = Duration::from_millis(100);
/// A peer from which nothing came, or which acknowledged nothing, for so long is taken for dead.
const SILENCE: Duration = Duration::from_secs(10);
/// A connection that this side has done with waits so long for the other side to have done, too.
const LINGER: Duration = Duration::from_secs(20);

/// Which connection: the other server, and the number that whoever opened it chose.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub peer: String,
    pub number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Asked for; the peer has not answered.
    Opening,
    Open,
    /// Ended, for the reason in `State::failure`.
    Ended,
}

/// What a connection holds, and what it does when something happens. Knows no clock and sends nothing by itself.
pub(super) struct State {
    phase: Phase,
    failure: Option<(io::ErrorKind, &'static str)>,
    sending: Sending,
    receiving: Receiving,
    heard: Instant,
    /// When OPEN or PING goes out next.
    call_at: Instant,
    reading: bool,
    writing: bool,
    done_since: Option<Instant>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl State {
    /// `window` is the peer's first one; none as long as it has not answered.
    pub(super) fn new(window: Option<u32>, now: Instant) -> State {
        State {
            phase: if window.is_some() { Phase::Open } else { Phase::Opening },
            failure: None,
            sending: Sending::new(window.unwrap_or(0)),
            receiving: Receiving::new(),
            heard: now,
            call_at: if window.is_some() { now + PING_EVERY } else { now },
            reading: true,
            writing: true,
            done_since: None,
            reader: None,
            writer: None,
        }
    }

    /// Takes in a packet of the peer's.
    pub(super) fn take(&mut self, packet: Packet, now: Instant) {
        if self.phase == Phase::Ended {
            return;
        }
        self.heard = now;
        match packet {
            Packet::Open { .. } => {}
            Packet::Accept { window } => self.opened(window, now),
            Packet::Reset => self.end(io::ErrorKind::ConnectionReset, "the other server knows no such connection"),
            // Whatever else comes before ACCEPT is sent again.
            _ if self.phase == Phase::Opening => {}
            Packet::Data { ack, offset, last, bytes } => {
                self.acknowledged(ack, &[], now);
                if self.receiving.take(offset, last, bytes, now) {
                    wake(&mut self.reader);
                }
            }
            Packet::Ack { ack, early } => self.acknowledged(ack, &early, now),
            Packet::Ping { ack } => {
                self.acknowledged(ack, &[], now);
                self.receiving.ack_now(now);
            }
        }
    }

    fn opened(&mut self, window: u32, now: Instant) {
        if self.phase == Phase::Opening {
            self.phase = Phase::Open;
            self.sending = Sending::new(window);
            self.call_at = now + PING_EVERY;
            wake(&mut self.writer);
        }
    }

    fn acknowledged(&mut self, ack: Ack, early: &[(u64, u64)], now: Instant) {
        if self.sending.acknowledge(ack, early, now) {
            wake(&mut self.writer);
        }
    }

    /// Ends the connection; whoever reads or writes is told `why`.
    pub(super) fn end(&mut self, kind: io::ErrorKind, why: &'static str) {
        if self.phase != Phase::Ended {
            self.phase = Phase::Ended;
            self.failure = Some((kind, why));
            wake(&mut self.reader);
            wake(&mut self.writer);
        }
    }

    /// What is to be sent now. May end the connection when the peer is silent.
    pub(super) fn packets(&mut self, now: Instant) -> Vec<Packet> {
        let mut packets = Vec::new();
        match self.phase {
            Phase::Ended => {}
            Phase::Opening => {
                if self.call_at <= now {
                    self.call_at = now + OPEN_EVERY;
                    packets.push(Packet::Open { window: WINDOW_FIRST });
                }
            }
            Phase::Open => {
                self.check_life(now);
                if self.phase == Phase::Open {
                    self.open_packets(&mut packets, now);
                    self.check_done(now);
                } else {
                    packets.push(Packet::Reset);
                }
            }
        }
        packets
    }

    fn open_packets(&mut self, packets: &mut Vec<Packet>, now: Instant) {
        for piece in self.sending.pieces(now) {
            // What came early is told by ACK alone.
            let ack_at = self.receiving.ack_at();
            let ack = self.receiving.ack();
            if !self.receiving.ranges().is_empty()
                && let Some(at) = ack_at
            {
                self.receiving.ack_now(at);
            }
            packets.push(Packet::Data { ack, offset: piece.offset, last: piece.last, bytes: piece.bytes });
        }
        if self.call_at <= now || (self.sending.is_shut_out() && self.call_at > now + PROBE_EVERY) {
            let due = self.call_at <= now;
            self.call_at = now + if self.sending.is_shut_out() { PROBE_EVERY } else { PING_EVERY };
            if due && (self.sending.is_shut_out() || now >= self.heard + PING_EVERY) {
                packets.push(Packet::Ping { ack: self.receiving.ack() });
            }
        }
        if self.receiving.ack_at().is_some_and(|at| at <= now) {
            let early = self.receiving.ranges();
            packets.push(Packet::Ack { ack: self.receiving.ack(), early });
        }
    }

    fn check_life(&mut self, now: Instant) {
        let unheard = now >= self.heard + SILENCE;
        let unacknowledged = self.sending.waiting_since().is_some_and(|since| now >= since + SILENCE);
        if unheard || unacknowledged {
            self.end(io::ErrorKind::TimedOut, "the other server gives no sign of life");
        }
    }

    /// Ends what both sides have done with, or this side has and the other does not answer.
    fn check_done(&mut self, now: Instant) {
        if self.reading || self.writing {
            return;
        }
        let since = *self.done_since.get_or_insert(now);
        if (self.sending.is_finished() && self.receiving.is_ended()) || now >= since + LINGER {
            self.end(io::ErrorKind::ConnectionAborted, "it was closed");
        }
    }

    /// Whether the peer sends what nobody here will read, after all of this side's was acknowledged.
    pub(super) fn is_unwanted(&self) -> bool {
        !self.reading && !self.writing && self.sending.is_finished() && !self.receiving.is_ended()
    }

    /// When [`State::packets`] is to be asked next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Ended => None,
            Phase::Opening => Some(self.call_at),
            Phase::Open => {
                let done = self.done_since.map(|since| since + LINGER);
                [self.sending.deadline(), self.receiving.ack_at(), done]
                    .into_iter()
                    .flatten()
                    .chain([self.call_at])
                    .min()
            }
        }
    }

    /// Whether the connection is over.
    pub(super) fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    fn error(&self) -> io::Error {
        let (kind, why) = self.failure.unwrap_or((io::ErrorKind::NotConnected, "it is not open"));
        io::Error::new(kind, why)
    }

    pub(super) fn poll_open(&mut self, context: &Context<'_>) -> Poll<io::Result<()>> {
        match self.phase {
            Phase::Open => Poll::Ready(Ok(())),
            Phase::Ended => Poll::Ready(Err(self.error())),
            Phase::Opening => {
                self.writer = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(super) fn poll_read(
        &mut self,
        context: &Context<'_>,
        out: &mut ReadBuf<'_>,
        now: Instant,
    ) -> Poll<io::Result<()>> {
        match self.receiving.read(out) {
            Found::Bytes => {
                if self.receiving.has_room_to_tell() {
                    self.receiving.ack_now(now);
                }
                Poll::Ready(Ok(()))
            }
            Found::End => Poll::Ready(Ok(())),
            Found::Nothing if self.phase == Phase::Ended => Poll::Ready(Err(self.error())),
            Found::Nothing => {
                self.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(super) fn poll_write(&mut self, context: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.phase == Phase::Ended {
            return Poll::Ready(Err(self.error()));
        }
        match self.sending.write(bytes) {
            0 if !bytes.is_empty() => {
                self.writer = Some(context.waker().clone());
                Poll::Pending
            }
            taken => Poll::Ready(Ok(taken)),
        }
    }

    /// Has what was written sent.
    pub(super) fn flush(&mut self) {
        self.sending.flush();
    }

    /// Fails once the connection is over.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.phase == Phase::Ended { Err(self.error()) } else { Ok(()) }
    }

    /// Nothing more will be written.
    pub(super) fn finish(&mut self) {
        self.sending.finish();
    }

    /// Nobody writes any more.
    pub(super) fn drop_writer(&mut self) {
        self.writing = false;
        self.finish();
    }

    /// Nobody reads any more.
    pub(super) fn drop_reader(&mut self) {
        self.reading = false;
        self.receiving.discard();
    }
}

#[cfg(test)]
impl State {
    /// Bytes held each way.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.sending.held(), self.receiving.held())
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// A connection that the hub and the halves share.
pub(super) struct Connection {
    pub key: Key,
    state: Mutex<State>,
}

impl Connection {
    pub(super) fn new(key: Key, state: State) -> Connection {
        Connection { key, state: Mutex::new(state) }
    }

    pub(super) fn lock(&self) -> parking_lot::MutexGuard<'_, State> {
        self.state.lock()
    }
}
