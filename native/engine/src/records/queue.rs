//! The queue between the engine, which has records, and the host, which polls them.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::PREFIX_BYTES;
use crate::session::Polled;

/// An empty queue keeps at most so many bytes of its buffer for what comes next.
const IDLE_CAPACITY_BYTES: usize = 4 << 20;

/// Records between many producers and one poller, in one contiguous buffer.
///
/// `max_records` bounds what may be *offered*. What is *pushed* is always taken: completions, whose number the in-flight
/// window bounds already.
///
/// What is offered *aside* (datagrams, which may be lost) has a share of its own: it neither crowds out the other records nor
/// waits behind them.
#[derive(Debug)]
pub struct RecordQueue {
    max_records: usize,
    max_aside: usize,
    max_aside_bytes: usize,
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct State {
    main: Lane,
    aside: Lane,
    /// Whose turn it is to be taken first.
    aside_first: bool,
    closed: bool,
    waiting: bool,
}

#[derive(Debug, Default)]
struct Lane {
    /// Whole records, of which those before `head` are taken.
    bytes: Vec<u8>,
    head: usize,
    records: usize,
}

impl RecordQueue {
    /// An empty queue which refuses offers while it holds `max_records` or more.
    pub fn new(max_records: usize) -> RecordQueue {
        RecordQueue::with_aside(max_records, 0, 0)
    }

    /// As [`RecordQueue::new`], with room for `max_aside` records of `max_aside_bytes` in all aside.
    pub fn with_aside(max_records: usize, max_aside: usize, max_aside_bytes: usize) -> RecordQueue {
        RecordQueue { max_records, max_aside, max_aside_bytes, state: Mutex::default(), arrived: Condvar::new() }
    }

    /// Appends `records`, one or more whole ones. Always taken, unless the queue is closed: then false, and nobody will
    /// ever see them.
    pub fn push(&self, records: impl AsRef<[u8]>) -> bool {
        self.append(records.as_ref(), usize::MAX)
    }

    /// As [`RecordQueue::push`], of the `count` records that `write` appends, under the queue's lock, to what it is given.
    pub fn push_with(&self, count: usize, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut state = self.state.lock();
        if state.closed {
            return false;
        }
        state.main.append_with(count, write);
        self.wake(state);
        true
    }

    /// Appends `records`, one or more whole ones, unless the queue is full or closed: then false, and nothing is taken.
    pub fn offer(&self, records: impl AsRef<[u8]>) -> bool {
        self.append(records.as_ref(), self.max_records)
    }

    /// Appends one record to those aside, unless their share is full or the queue is closed: then false.
    pub fn offer_aside(&self, record: impl AsRef<[u8]>) -> bool {
        let record = record.as_ref();
        let mut state = self.state.lock();
        let full = state.aside.records >= self.max_aside || state.aside.len() + record.len() > self.max_aside_bytes;
        if state.closed || full {
            return false;
        }
        state.aside.append(record);
        self.wake(state);
        true
    }

    /// Ends the queue with the record `last`; what is aside is dropped. What was queued before can still be polled. Closing again does nothing.
    pub fn close(&self, last: impl AsRef<[u8]>) {
        let mut state = self.state.lock();
        if !state.closed {
            state.main.append(last.as_ref());
            state.aside = Lane::default();
            state.closed = true;
            self.wake(state);
        }
    }

    /// Records that wait, not counting those aside.
    pub fn len(&self) -> usize {
        self.size().0
    }

    /// Records that wait, and their bytes, not counting those aside.
    pub fn size(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.main.records, state.main.len())
    }

    /// Whether no record waits, not counting those aside.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies as many whole records as fit into `out`, waiting up to `wait` for the first. One thread at a time.
    pub fn poll(&self, out: &mut [u8], wait: Duration) -> Polled {
        let mut state = self.state.lock();
        if state.is_empty() && !state.closed && !wait.is_zero() {
            self.wait_for_records(&mut state, wait);
        }
        state.take(out)
    }

    fn append(&self, records: &[u8], limit: usize) -> bool {
        let mut state = self.state.lock();
        if state.closed || state.main.records >= limit {
            return false;
        }
        state.main.append(records);
        self.wake(state);
        true
    }

    /// Wakes the poller if it waits and was not woken yet; after the lock is released, so that it finds it free.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        if waiting {
            self.arrived.notify_all();
        }
    }

    fn wait_for_records(&self, state: &mut MutexGuard<'_, State>, wait: Duration) {
        let until = Instant::now().checked_add(wait);
        while state.is_empty() && !state.closed {
            state.waiting = true;
            match until {
                None => self.arrived.wait(state),
                Some(until) => {
                    if self.arrived.wait_until(state, until).timed_out() {
                        break;
                    }
                }
            }
        }
        state.waiting = false;
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.main.records + self.aside.records == 0
    }

    /// Takes from both lanes, in turn from one or the other first; the first leaves half the room to the second.
    fn take(&mut self, out: &mut [u8]) -> Polled {
        if self.is_empty() {
            return if self.closed { Polled::Closed } else { Polled::Bytes(0) };
        }
        self.aside_first = !self.aside_first;
        let (first, second) =
            if self.aside_first { (&mut self.aside, &mut self.main) } else { (&mut self.main, &mut self.aside) };
        let (first, second) = if first.records == 0 { (second, first) } else { (first, second) };
        let needed = first.first_bytes();
        if needed > out.len() {
            return Polled::NeedsBytes(needed);
        }
        let share = if second.records == 0 { out.len() } else { needed.max(out.len() / 2) };
        let taken = first.take(&mut out[..share]);
        Polled::Bytes(taken + second.take(&mut out[taken..]))
    }
}

impl Lane {
    fn len(&self) -> usize {
        self.bytes.len() - self.head
    }

    fn append(&mut self, records: &[u8]) {
        self.append_with(count_records(records), |bytes| bytes.extend_from_slice(records));
    }

    fn append_with(&mut self, count: usize, write: impl FnOnce(&mut Vec<u8>)) {
        debug_assert!(count > 0, "a queue takes whole records only");
        let start = self.bytes.len();
        write(&mut self.bytes);
        debug_assert_eq!(count_records(&self.bytes[start..]), count, "as many records as was said");
        self.records += count;
    }

    /// Bytes of the next record.
    fn first_bytes(&self) -> usize {
        record_bytes(&self.bytes[self.head..])
    }

    /// Copies as many whole records as fit; returns their bytes.
    fn take(&mut self, out: &mut [u8]) -> usize {
        let (bytes, records) = self.fitting(out.len());
        out[..bytes].copy_from_slice(&self.bytes[self.head..self.head + bytes]);
        self.head += bytes;
        self.records -= records;
        self.reclaim();
        bytes
    }

    /// Bytes and number of the next whole records that fit into `room` bytes.
    fn fitting(&self, room: usize) -> (usize, usize) {
        let queued = &self.bytes[self.head..];
        if queued.len() <= room {
            return (queued.len(), self.records);
        }
        let (mut bytes, mut records) = (0, 0);
        while records < self.records {
            let next = record_bytes(&queued[bytes..]);
            if bytes + next > room {
                break;
            }
            bytes += next;
            records += 1;
        }
        (bytes, records)
    }

    /// Gives back what was taken: for nothing when all was, else once it is more than half (so each byte moves once
    /// at most on average).
    fn reclaim(&mut self) {
        if self.head == self.bytes.len() {
            self.bytes.clear();
            self.head = 0;
            self.bytes.shrink_to(IDLE_CAPACITY_BYTES);
        } else if self.head > self.bytes.len() / 2 {
            self.bytes.copy_within(self.head.., 0);
            self.bytes.truncate(self.bytes.len() - self.head);
            self.head = 0;
        }
    }
}

/// Bytes of the first record in `records`, its length prefix included.
fn record_bytes(records: &[u8]) -> usize {
    let length = records.first_chunk::<PREFIX_BYTES>().map_or(0, |prefix| u32::from_le_bytes(*prefix) as usize);
    PREFIX_BYTES + length
}

fn count_records(records: &[u8]) -> usize {
    let (mut at, mut count) = (0, 0);
    while at < records.len() {
        at += record_bytes(&records[at..]);
        count += 1;
    }
    debug_assert_eq!(at, records.len(), "a queue takes whole records only");
    count
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use bytes::Bytes;

    use super::*;
    use crate::codec::Reader;
    use crate::records::{COMPLETION, completion, events_closed};

    const NOW: Duration = Duration::ZERO;
    const LONG: Duration = Duration::from_secs(20);

    fn answer(ticket: u64, size: usize) -> Vec<u8> {
        let mut out = Vec::new();
        completion(&mut out, ticket, &Ok(Bytes::from(vec![ticket as u8; size])));
        out
    }

    fn closed() -> Vec<u8> {
        let mut out = Vec::new();
        events_closed(&mut out);
        out
    }

    /// The tickets of the completions in `records`, in order.
    fn tickets(records: &[u8]) -> Vec<u64> {
        let mut reader = Reader::new(Bytes::copy_from_slice(records));
        let mut found = Vec::new();
        while reader.remaining() > 0 {
            let mut one = Reader::new(reader.bytes().unwrap());
            if one.u8().unwrap() == COMPLETION {
                found.push(one.u64().unwrap());
            }
        }
        found
    }

    #[test]
    fn a_poll_takes_as_many_whole_records_as_fit() {
        let queue = RecordQueue::new(10);
        let size = answer(0, 10).len();
        (0..5).for_each(|ticket| assert!(queue.push(answer(ticket, 10))));
        let mut out = vec![0; 2 * size];
        let mut seen = Vec::new();
        for expected in [2, 2, 1] {
            assert_eq!(queue.poll(&mut out, NOW), Polled::Bytes(expected * size));
            seen.extend(tickets(&out[..expected * size]));
        }
        assert_eq!(seen, [0, 1, 2, 3, 4]);
        assert_eq!(queue.poll(&mut out, NOW), Polled::Bytes(0));
    }

    #[test]
    fn a_record_larger_than_the_buffer_says_what_it_needs_and_stays() {
        let queue = RecordQueue::new(10);
        let large = answer(1, 1000);
        queue.push(&large);
        assert_eq!(queue.poll(&mut [0; 64], NOW), Polled::NeedsBytes(large.len()));
        let mut out = vec![0; large.len()];
        assert_eq!(queue.poll(&mut out, NOW), Polled::Bytes(large.len()));
        assert_eq!(out, large);
    }

    #[test]
    fn offers_are_refused_when_full_and_pushes_never() {
        let queue = RecordQueue::new(2);
        let two = [answer(1, 1), answer(2, 1)].concat();
        assert!(queue.offer(two));
        assert!(!queue.offer(answer(3, 1)));
        assert!(queue.push(answer(4, 1)));
        let mut out = [0; 1024];
        let Polled::Bytes(bytes) = queue.poll(&mut out, NOW) else { panic!("nothing came") };
        assert_eq!(tickets(&out[..bytes]), [1, 2, 4]);
        assert!(queue.offer(answer(5, 1)));
    }

    #[test]
    fn after_close_the_rest_comes_then_the_last_record_then_closed_for_ever() {
        let queue = RecordQueue::new(2);
        queue.push(answer(1, 1));
        queue.close(closed());
        queue.close(closed());
        assert!(!queue.push(answer(2, 1)) && !queue.offer(answer(3, 1)));
        let mut out = [0; 1024];
        assert_eq!(queue.poll(&mut out, LONG), Polled::Bytes(answer(1, 1).len() + closed().len()));
        assert_eq!(queue.poll(&mut out, LONG), Polled::Closed);
        assert_eq!(queue.poll(&mut out, LONG), Polled::Closed);
    }

    #[test]
    fn what_is_aside_has_its_own_share_and_neither_side_starves_the_other() {
        let small = answer(0, 10).len();
        let queue = RecordQueue::with_aside(2, 3, 3 * small);
        (1..=3).for_each(|ticket| assert!(queue.offer_aside(answer(ticket, 10))));
        assert!(!queue.offer_aside(answer(4, 10)));
        assert_eq!(queue.size(), (0, 0));
        assert!(queue.offer(answer(5, 10)) && queue.offer(answer(6, 10)) && !queue.offer(answer(7, 10)));
        let mut out = vec![0; 2 * small];
        for expected in [[1, 5], [6, 2]] {
            assert_eq!(queue.poll(&mut out, NOW), Polled::Bytes(2 * small));
            assert_eq!(tickets(&out), expected);
        }
        assert!(!queue.offer_aside(answer(8, 3 * small)), "too many bytes");
        let large = answer(9, 5 * small);
        queue.push(&large);
        // Whichever is first in turn: the small one comes, then the large one asks for its room.
        assert_eq!(queue.poll(&mut out, NOW), Polled::Bytes(small));
        assert_eq!(queue.poll(&mut out, NOW), Polled::NeedsBytes(large.len()));
        assert!(queue.offer_aside(answer(1, 10)));
        let mut out = vec![0; large.len()];
        let polled = [(); 2].map(|()| queue.poll(&mut out, NOW));
        assert!(polled.contains(&Polled::Bytes(large.len())), "{polled:?}");
        assert!(queue.offer_aside(answer(1, 10)));
        queue.close(closed());
        assert!(!queue.offer_aside(answer(1, 1)));
        assert_eq!(queue.poll(&mut out, NOW), Polled::Bytes(closed().len()));
    }

    #[test]
    fn an_empty_wait_ends_in_time() {
        let started = Instant::now();
        assert_eq!(RecordQueue::new(1).poll(&mut [0; 8], Duration::from_millis(30)), Polled::Bytes(0));
        assert!(started.elapsed() >= Duration::from_millis(30));
    }

    #[test]
    fn a_waiting_poll_is_woken_by_a_record_and_by_close() {
        let queue = Arc::new(RecordQueue::new(1));
        let poller = thread::spawn({
            let queue = queue.clone();
            move || [(); 2].map(|()| queue.poll(&mut [0; 64], LONG))
        });
        let started = Instant::now();
        for step in
            [|queue: &RecordQueue| assert!(queue.push(answer(1, 1))), |queue: &RecordQueue| queue.close(closed())]
        {
            while !queue.state.lock().waiting {
                thread::yield_now();
            }
            step(&queue);
        }
        let expected = [answer(1, 1), closed()].map(|record| Polled::Bytes(record.len()));
        assert_eq!(poller.join().unwrap(), expected);
        assert!(started.elapsed() < LONG / 2);
    }

    #[test]
    fn records_of_many_producers_arrive_whole_once_and_in_each_ones_order() {
        const PRODUCERS: u64 = 4;
        const EACH: u64 = 20_000;
        let queue = Arc::new(RecordQueue::new(1));
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                let queue = queue.clone();
                thread::spawn(move || {
                    (0..EACH).for_each(|n| assert!(queue.push(answer(producer << 32 | n, (n % 50) as usize))))
                })
            })
            .collect();
        let mut next = [0; PRODUCERS as usize];
        let mut out = [0; 777];
        while next.iter().sum::<u64>() < PRODUCERS * EACH {
            let Polled::Bytes(bytes) = queue.poll(&mut out, LONG) else { panic!("unexpected end") };
            assert!(bytes > 0, "a record was lost: {next:?}");
            for ticket in tickets(&out[..bytes]) {
                let expected = &mut next[(ticket >> 32) as usize];
                assert_eq!(ticket & 0xffff_ffff, *expected);
                *expected += 1;
            }
        }
        producers.into_iter().for_each(|one| one.join().unwrap());
        assert!(queue.is_empty());
    }
}
