//! One direction of a connection, on the side that receives: puts datagrams in order, and says how far it is.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::ReadBuf;
use tokio::time::Instant;

use crate::limits::{CARRIED_SEGMENTS_MAX, CARRIED_WINDOW_BYTES};

use super::datagram::{Ack, PAYLOAD_BYTES_MAX, RANGES_MAX};

/// An acknowledgement waits so long for bytes of the other direction that it can ride on.
const ACK_DELAY: Duration = Duration::from_millis(5);
/// So many bytes are acknowledged at once.
const ACK_BYTES: u64 = 2 * PAYLOAD_BYTES_MAX as u64;

/// What a reader finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Bytes.
    Bytes,
    /// The end of the stream.
    End,
    /// Nothing yet.
    Nothing,
}

/// Receives a stream. Holds at most [`CARRIED_WINDOW_BYTES`] that nobody has read.
pub(super) struct Receiving {
    /// The offset that is expected next; the end of the stream counts as one.
    next: u64,
    /// The offset that is read next.
    read: u64,
    ready: VecDeque<Bytes>,
    /// Received beyond `next`: bytes, and whether the stream ends after them.
    early: BTreeMap<u64, (Bytes, bool)>,
    ended: bool,
    /// What is read is thrown away: nobody wants it.
    discarding: bool,
    /// When an acknowledgement is due.
    ack_at: Option<Instant>,
    /// What was acknowledged, and offered room for, last.
    told: (u64, u64),
}

/// Room for what is received, before anything is.
pub(super) const WINDOW_FIRST: u32 = CARRIED_WINDOW_BYTES as u32;

impl Receiving {
    /// From the beginning, with [`WINDOW_FIRST`] told to the sender.
    pub(super) fn new() -> Receiving {
        Receiving {
            next: 0,
            read: 0,
            ready: VecDeque::new(),
            early: BTreeMap::new(),
            ended: false,
            discarding: false,
            ack_at: None,
            told: (0, WINDOW_FIRST.into()),
        }
    }

    /// Takes in a datagram of the stream. True when there is something new to read.
    pub(super) fn take(&mut self, offset: u64, last: bool, bytes: Bytes, now: Instant) -> bool {
        let end = offset + bytes.len() as u64 + u64::from(last);
        // Nothing new, or beyond what was offered room for: the sender is to know where things stand.
        if end <= self.next || end > self.right_edge() + 1 {
            self.ack_at = Some(now);
            return false;
        }
        if offset > self.next {
            if self.early.len() < CARRIED_SEGMENTS_MAX {
                self.early.entry(offset).or_insert((bytes, last));
            }
            self.ack_at = Some(now);
            return false;
        }
        let gap = !self.early.is_empty();
        self.append(offset, last, bytes);
        while let Some(first) = self.early.first_entry()
            && *first.key() <= self.next
        {
            let (offset, (bytes, last)) = first.remove_entry();
            self.append(offset, last, bytes);
        }
        let soon = if gap || self.ended || self.next - self.told.0 >= ACK_BYTES { now } else { now + ACK_DELAY };
        self.ack_at = Some(self.ack_at.map_or(soon, |at| at.min(soon)));
        true
    }

    fn append(&mut self, offset: u64, last: bool, mut bytes: Bytes) {
        let known = (self.next - offset).min(bytes.len() as u64 + u64::from(last));
        if self.ended || known == bytes.len() as u64 + u64::from(last) {
            return;
        }
        bytes.advance(known as usize);
        self.next += bytes.len() as u64 + u64::from(last);
        self.ended = last;
        if self.discarding {
            self.read += bytes.len() as u64;
        } else if !bytes.is_empty() {
            self.ready.push_back(bytes);
        }
    }

    /// Fills `out` with what comes next.
    pub(super) fn read(&mut self, out: &mut ReadBuf<'_>) -> Found {
        let mut filled = 0;
        while out.remaining() > 0
            && let Some(first) = self.ready.front_mut()
        {
            let part = first.split_to(first.len().min(out.remaining()));
            out.put_slice(&part);
            filled += part.len();
            if first.is_empty() {
                self.ready.pop_front();
            }
        }
        self.read += filled as u64;
        match filled {
            0 if self.ended => Found::End,
            0 => Found::Nothing,
            _ => Found::Bytes,
        }
    }

    /// After a read: whether the sender should hear at once that there is room again.
    pub(super) fn has_room_to_tell(&self) -> bool {
        !self.ended && self.right_edge() >= self.told.1 + CARRIED_WINDOW_BYTES as u64 / 2
    }

    /// Nobody will read: what comes is acknowledged and thrown away.
    pub(super) fn discard(&mut self) {
        self.discarding = true;
        self.read += self.ready.drain(..).map(|bytes| bytes.len() as u64).sum::<u64>();
    }

    /// Whether the other side ended the stream, and everything before its end is here.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// An acknowledgement is due now, whatever it says.
    pub(super) fn ack_now(&mut self, now: Instant) {
        self.ack_at = Some(now);
    }

    /// When an acknowledgement is due.
    pub(super) fn ack_at(&self) -> Option<Instant> {
        self.ack_at
    }

    /// The acknowledgement as of now, which counts as sent.
    pub(super) fn ack(&mut self) -> Ack {
        self.ack_at = None;
        self.told = (self.next, self.right_edge());
        Ack { next: self.next, window: self.right_edge().saturating_sub(self.next) as u32 }
    }

    /// What came early, as ranges.
    pub(super) fn ranges(&self) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for (offset, (bytes, last)) in &self.early {
            let end = offset + bytes.len() as u64 + u64::from(*last);
            match ranges.last_mut() {
                Some(range) if range.1 == *offset => range.1 = end,
                _ => ranges.push((*offset, end)),
            }
        }
        ranges.truncate(RANGES_MAX);
        ranges
    }

    /// Up to where there is room.
    fn right_edge(&self) -> u64 {
        self.read + CARRIED_WINDOW_BYTES as u64
    }

    /// Bytes held, read by nobody yet.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let early: usize = self.early.values().map(|(bytes, _)| bytes.len()).sum();
        self.ready.iter().map(Bytes::len).sum::<usize>() + early
    }
}
