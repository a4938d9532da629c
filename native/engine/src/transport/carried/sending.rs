//! One direction of a connection, on the side that sends: cuts the stream into datagrams, and sends again what is lost.
//!
//! Retransmission follows TCP: a timeout from the smoothed round trip (RFC 6298) for what is not acknowledged, an early
//! one for what three later datagrams overtook, a congestion window that halves at a loss. Unlike TCP the timeout stays
//! short and the window has a floor: a loss here is usually a queue of the host that was full for a moment.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use crate::limits::{CARRIED_SEGMENTS_MAX, CARRIED_WINDOW_BYTES};

use super::datagram::{Ack, PAYLOAD_BYTES_MAX};

/// Retransmission timeout before a round trip was measured.
const TIMEOUT_FIRST: Duration = Duration::from_millis(200);
/// Shortest and longest retransmission timeout.
const TIMEOUT_MIN: Duration = Duration::from_millis(30);
const TIMEOUT_MAX: Duration = Duration::from_secs(1);
/// The congestion window never falls below this.
const CONGESTION_MIN: usize = 2 * PAYLOAD_BYTES_MAX;
/// What so many later datagrams overtook is taken for lost.
const OVERTAKEN: u32 = 3;

struct Segment {
    offset: u64,
    bytes: Bytes,
    last: bool,
    first_sent: Instant,
    sent: Instant,
    resend_at: Instant,
    sendings: u32,
    /// The receiver has it, out of order.
    arrived: bool,
    overtaken: u32,
}

impl Segment {
    fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64 + u64::from(self.last)
    }
}

/// A piece of the stream to put into a datagram.
#[derive(Debug)]
pub(super) struct Piece {
    pub offset: u64,
    pub last: bool,
    pub bytes: Bytes,
}

/// Sends a stream. Holds at most [`CARRIED_WINDOW_BYTES`] that are not acknowledged.
pub(super) struct Sending {
    /// Written and not sent yet; begins at `next`.
    unsent: BytesMut,
    next: u64,
    /// Up to here even a small piece is sent; beyond, only full datagrams are.
    flushed: u64,
    /// The stream ends after what is written.
    finishing: bool,
    last_sent: bool,
    in_flight: VecDeque<Segment>,
    in_flight_bytes: usize,
    /// When something was acknowledged last.
    progressed: Option<Instant>,
    /// Up to where the receiver has room.
    right_edge: u64,
    congestion: usize,
    threshold: usize,
    /// Losses up to here belong to the same congestion.
    recovering_to: u64,
    /// Smoothed round trip and its variation.
    round_trip: Option<(Duration, Duration)>,
}

impl Sending {
    /// To a receiver that has room for `window` bytes.
    pub(super) fn new(window: u32) -> Sending {
        Sending {
            unsent: BytesMut::new(),
            next: 0,
            flushed: 0,
            finishing: false,
            last_sent: false,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            progressed: None,
            right_edge: window.into(),
            congestion: 4 * PAYLOAD_BYTES_MAX,
            threshold: CARRIED_WINDOW_BYTES,
            recovering_to: 0,
            round_trip: None,
        }
    }

    /// Takes as much of `bytes` as there is room for.
    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.room());
        self.unsent.extend_from_slice(&bytes[..taken]);
        taken
    }

    /// Bytes that can be written now.
    pub(super) fn room(&self) -> usize {
        if self.finishing { 0 } else { CARRIED_WINDOW_BYTES.saturating_sub(self.unsent.len() + self.in_flight_bytes) }
    }

    /// Everything written so far is to be sent, however little it is.
    pub(super) fn flush(&mut self) {
        self.flushed = self.next + self.unsent.len() as u64;
    }

    /// The stream ends here.
    pub(super) fn finish(&mut self) {
        self.finishing = true;
        self.flush();
    }

    /// Whether nothing waits to be sent or acknowledged.
    pub(super) fn is_done(&self) -> bool {
        self.unsent.is_empty() && self.in_flight.is_empty() && (!self.finishing || self.last_sent)
    }

    /// Whether the stream was ended and its end acknowledged.
    pub(super) fn is_finished(&self) -> bool {
        self.finishing && self.is_done()
    }

    /// Since when something is on its way and nothing is acknowledged.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.in_flight
            .front()
            .map(|segment| Some(segment.first_sent).max(self.progressed).unwrap_or(segment.first_sent))
    }

    /// Whether only the receiver's room keeps something from being sent, so that it has to be asked for it.
    pub(super) fn is_shut_out(&self) -> bool {
        self.in_flight.is_empty() && self.wants_to_send() && self.next_piece_len().is_none()
    }

    /// Takes notice of an acknowledgement. True when something was acknowledged that was not before.
    pub(super) fn acknowledge(&mut self, ack: Ack, early: &[(u64, u64)], now: Instant) -> bool {
        if ack.next > self.next + u64::from(self.last_sent) {
            return false;
        }
        self.right_edge = self.right_edge.max(ack.next + u64::from(ack.window));
        let mut freed = 0;
        while let Some(first) = self.in_flight.front()
            && first.end() <= ack.next
        {
            if first.sendings == 1 && !first.arrived {
                self.measure(now.saturating_duration_since(self.in_flight[0].sent));
            }
            freed += self.in_flight.pop_front().map_or(0, |segment| segment.bytes.len());
        }
        if freed > 0 {
            self.progressed = Some(now);
            self.in_flight_bytes -= freed;
            self.grow(freed);
        }
        self.notice_early(early);
        freed > 0
    }

    /// Pieces that came early overtook those before them, unless these were sent again later.
    fn notice_early(&mut self, early: &[(u64, u64)]) {
        let mut arrived = Vec::new();
        for segment in self.in_flight.iter_mut().rev().filter(|segment| !segment.arrived) {
            if early.iter().any(|(begin, end)| *begin <= segment.offset && segment.end() <= *end) {
                segment.arrived = true;
                arrived.push(segment.sent);
            } else {
                segment.overtaken += arrived.iter().filter(|sent| **sent >= segment.sent).count() as u32;
            }
        }
    }

    fn grow(&mut self, freed: usize) {
        let more = if self.congestion < self.threshold { freed } else { freed * PAYLOAD_BYTES_MAX / self.congestion };
        self.congestion = (self.congestion + more).min(CARRIED_WINDOW_BYTES);
    }

    fn shrink(&mut self, offset: u64) {
        if offset >= self.recovering_to {
            self.recovering_to = self.next;
            self.congestion = (self.congestion / 2).max(CONGESTION_MIN);
            self.threshold = self.congestion;
        }
    }

    fn measure(&mut self, sample: Duration) {
        self.round_trip = Some(match self.round_trip {
            None => (sample, sample / 2),
            Some((mean, variation)) => ((mean * 7 + sample) / 8, (variation * 3 + mean.abs_diff(sample)) / 4),
        });
    }

    fn timeout(&self) -> Duration {
        let timeout = self.round_trip.map_or(TIMEOUT_FIRST, |(mean, variation)| mean + variation * 4);
        timeout.clamp(TIMEOUT_MIN, TIMEOUT_MAX)
    }

    /// What is to be sent now: pieces again that are lost, then new ones, as far as both windows allow.
    pub(super) fn pieces(&mut self, now: Instant) -> Vec<Piece> {
        let mut pieces = self.lost_pieces(now);
        let timeout = self.timeout();
        while let Some(len) = self.next_piece_len() {
            let bytes = self.unsent.split_to(len).freeze();
            let last = self.finishing && self.unsent.is_empty();
            let offset = self.next;
            self.next += len as u64;
            self.last_sent |= last;
            self.in_flight_bytes += len;
            pieces.push(Piece { offset, last, bytes: bytes.clone() });
            self.in_flight.push_back(Segment {
                offset,
                bytes,
                last,
                first_sent: now,
                sent: now,
                resend_at: now + timeout,
                sendings: 1,
                arrived: false,
                overtaken: 0,
            });
        }
        pieces
    }

    /// At most a congestion window of them at a time; the others wait for another timeout.
    fn lost_pieces(&mut self, now: Instant) -> Vec<Piece> {
        let (timeout, mut budget) = (self.timeout(), self.congestion);
        let (mut pieces, mut lost) = (Vec::new(), None);
        for segment in self.in_flight.iter_mut().filter(|segment| !segment.arrived) {
            let overtaken = segment.overtaken >= OVERTAKEN;
            if !overtaken && segment.resend_at > now {
                continue;
            }
            let backed_off = (timeout * segment.sendings.min(8)).min(TIMEOUT_MAX);
            segment.overtaken = 0;
            segment.resend_at = now + backed_off;
            if budget < segment.bytes.len() {
                continue;
            }
            budget -= segment.bytes.len();
            segment.sendings = segment.sendings.saturating_add(1);
            segment.sent = now;
            lost = lost.max(Some(segment.offset));
            pieces.push(Piece { offset: segment.offset, last: segment.last, bytes: segment.bytes.clone() });
        }
        if let Some(offset) = lost {
            self.shrink(offset);
        }
        pieces
    }

    /// A small piece is worth a datagram when some of it was flushed, the end alone always.
    fn wants_to_send(&self) -> bool {
        match self.unsent.len() {
            0 => self.finishing && !self.last_sent,
            len => len >= PAYLOAD_BYTES_MAX || self.flushed > self.next,
        }
    }

    /// How long the next new piece is; `None` when none may be sent now. The end of the stream alone is a piece of none.
    fn next_piece_len(&self) -> Option<usize> {
        if !self.wants_to_send() || self.in_flight.len() >= CARRIED_SEGMENTS_MAX {
            return None;
        }
        let whole = self.unsent.len().min(PAYLOAD_BYTES_MAX);
        let room = self.right_edge.saturating_sub(self.next).min(usize::MAX as u64) as usize;
        let congestion = self.congestion.saturating_sub(self.in_flight_bytes);
        let len = whole.min(room).min(congestion);
        // The end needs no room; a full piece is not cut up because of a few bytes of room.
        let worthwhile = len == whole || len >= PAYLOAD_BYTES_MAX / 2;
        (worthwhile && (len > 0 || whole == 0)).then_some(len)
    }

    /// When something may have to be sent again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.in_flight.iter().filter(|segment| !segment.arrived).map(|segment| segment.resend_at).min()
    }

    /// Bytes held, not acknowledged yet.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.unsent.len() + self.in_flight_bytes
    }
}
