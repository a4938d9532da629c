//! One direction of a connection: bytes under way, bytes that arrived, and how it ends.

use std::collections::VecDeque;
use std::io;
use std::task::Waker;

use bytes::{Buf, Bytes};
use tokio::io::ReadBuf;

/// Bytes under way or not yet read after which a sender has to wait.
pub const WINDOW: usize = 256 << 10;

/// What travels.
#[derive(Clone, Debug)]
pub enum Item {
    /// Bytes.
    Bytes(Bytes),
    /// The sender has nothing more to say.
    End,
    /// The connection is broken.
    Reset,
}

/// See the module.
#[derive(Debug)]
pub struct Pipe {
    /// The node that writes.
    pub from: usize,
    /// The node that reads.
    pub to: usize,
    /// What travels, with the time in ms at which it arrives unless something is in the way.
    under_way: VecDeque<(u64, Item)>,
    arrived: VecDeque<Bytes>,
    end: Option<Item>,
    held: usize,
    broken: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    /// An empty pipe.
    pub fn new(from: usize, to: usize) -> Pipe {
        Pipe {
            from,
            to,
            under_way: VecDeque::new(),
            arrived: VecDeque::new(),
            end: None,
            held: 0,
            broken: false,
            reader: None,
            writer: None,
        }
    }

    /// Sends `item`, which arrives at `due` and not before what was sent earlier.
    pub fn send(&mut self, due: u64, item: Item) {
        if self.broken {
            return;
        }
        if let Item::Bytes(bytes) = &item {
            self.held += bytes.len();
        }
        let due = self.under_way.back().map_or(due, |(last, _)| due.max(*last));
        self.under_way.push_back((due, item));
    }

    /// True when something is under way.
    pub fn is_busy(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Hands over what is due at `now`; who has to be woken goes to `wake`.
    pub fn deliver(&mut self, now: u64, wake: &mut Vec<Waker>) {
        while self.under_way.front().is_some_and(|(due, _)| *due <= now) {
            match self.under_way.pop_front() {
                Some((_, Item::Bytes(bytes))) => self.arrived.push_back(bytes),
                Some((_, end)) => {
                    self.broken |= matches!(end, Item::Reset);
                    self.end.get_or_insert(end);
                }
                None => {}
            }
            wake.extend(self.reader.take());
        }
        if self.broken {
            wake.extend(self.writer.take());
        }
    }

    /// The connection breaks now, for both sides.
    pub fn reset(&mut self, wake: &mut Vec<Waker>) {
        self.broken = true;
        self.under_way.clear();
        self.end = Some(Item::Reset);
        wake.extend(self.reader.take());
        wake.extend(self.writer.take());
    }

    /// Nobody reads any more.
    pub fn reader_gone(&mut self, wake: &mut Vec<Waker>) {
        self.broken = true;
        self.under_way.clear();
        self.arrived.clear();
        self.end = Some(Item::Reset);
        self.reader = None;
        wake.extend(self.writer.take());
    }

    /// Moves what arrived `into` the reader's buffer; `None` when there is nothing yet. Fails with `ConnectionReset`.
    pub fn read(&mut self, into: &mut ReadBuf<'_>, waker: &Waker, wake: &mut Vec<Waker>) -> Option<io::Result<()>> {
        let mut taken = 0;
        while into.remaining() > 0
            && let Some(front) = self.arrived.front_mut()
        {
            let count = front.len().min(into.remaining());
            into.put_slice(&front[..count]);
            front.advance(count);
            if front.is_empty() {
                self.arrived.pop_front();
            }
            taken += count;
        }
        if taken > 0 {
            self.held -= taken;
            wake.extend(self.writer.take());
            return Some(Ok(()));
        }
        match self.end {
            Some(Item::Reset) => Some(Err(io::ErrorKind::ConnectionReset.into())),
            Some(_) => Some(Ok(())),
            None => {
                self.reader = Some(waker.clone());
                None
            }
        }
    }

    /// How many bytes the sender may send now; `None` when it has to wait. Fails with `BrokenPipe`.
    pub fn room(&mut self, waker: &Waker) -> Option<io::Result<usize>> {
        if self.broken {
            return Some(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = WINDOW.saturating_sub(self.held);
        if room == 0 {
            self.writer = Some(waker.clone());
            return None;
        }
        Some(Ok(room))
    }
}
