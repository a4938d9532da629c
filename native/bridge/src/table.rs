//! Handles and the sessions behind them. A handle is a number that is used once, so a stale one is recognised and can
//! never reach another session, let alone memory.
//!
//! The table is generic in the memory that polls write to: a direct `ByteBuffer` for the JVM, a `Vec` in tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use quorate_engine::session::{Op, Polled, Queue, Session};
use quorate_engine::{Code, Failure};

use crate::log_lines::Lines;

/// Smallest buffer that can be attached, in bytes; it has room for one log line and for any record without a body.
pub const BUFFER_BYTES_MIN: usize = 16 << 10;
/// A poll that waits looks for log lines so often.
const LOG_LOOK: Duration = Duration::from_millis(100);

/// The sessions of this process. `B` is the memory that polls write to.
pub struct Table<B> {
    lines: &'static Lines,
    entries: RwLock<Entries<B>>,
}

struct Entries<B> {
    last: i64,
    slots: BTreeMap<i64, Arc<Slot<B>>>,
}

struct Slot<B> {
    session: Arc<dyn Session>,
    closed: AtomicBool,
    outlets: [Outlet<B>; 2],
}

/// One queue of a session, as far as the host uses it.
struct Outlet<B> {
    attached: AtomicBool,
    drained: AtomicBool,
    buffer: Mutex<Option<B>>,
}

impl<B> Outlet<B> {
    fn new() -> Outlet<B> {
        Outlet { attached: AtomicBool::new(false), drained: AtomicBool::new(false), buffer: Mutex::new(None) }
    }
}

impl<B> Slot<B> {
    fn outlet(&self, queue: Queue) -> &Outlet<B> {
        match queue {
            Queue::Events => &self.outlets[0],
            Queue::Apply => &self.outlets[1],
        }
    }

    /// Closed, and every queue that the host listens to was taken to its end.
    fn finished(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
            && self
                .outlets
                .iter()
                .all(|outlet| !outlet.attached.load(Ordering::SeqCst) || outlet.drained.load(Ordering::SeqCst))
    }
}

impl<B: AsMut<[u8]>> Table<B> {
    /// An empty table, whose polls of events queues also bring `lines`.
    pub const fn new(lines: &'static Lines) -> Table<B> {
        Table { lines, entries: RwLock::new(Entries { last: 0, slots: BTreeMap::new() }) }
    }

    /// Enters a session. Returns its handle, from 1 on.
    pub fn insert(&self, session: Arc<dyn Session>) -> i64 {
        let slot = Slot { session, closed: AtomicBool::new(false), outlets: [Outlet::new(), Outlet::new()] };
        let mut entries = self.entries.write();
        entries.last += 1;
        let handle = entries.last;
        entries.slots.insert(handle, Arc::new(slot));
        handle
    }

    /// Gives the polls of a queue their memory, replacing what they had. Possible until the queue is drained, so that
    /// a large record can be taken after close too. Fails with `Invalid` when the buffer is too small or a poll is
    /// writing to the present one; with `Closed` when the queue is drained.
    pub fn attach(&self, handle: i64, queue: Queue, mut buffer: B) -> Result<(), Failure> {
        let slot = self.slot(handle)?.ok_or_else(Failure::closed)?;
        let size = buffer.as_mut().len();
        if size < BUFFER_BYTES_MIN {
            return Err(Failure::invalid(format!(
                "The buffer has {size} bytes; at least {BUFFER_BYTES_MIN} are needed."
            )));
        }
        let outlet = slot.outlet(queue);
        let mut present = outlet.buffer.try_lock().ok_or_else(|| busy(queue))?;
        if outlet.drained.load(Ordering::SeqCst) {
            return Err(Failure::closed());
        }
        *present = Some(buffer);
        outlet.attached.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// The session of that handle. Fails with `Closed`, or with `Invalid` when there never was such a handle.
    pub fn open_session(&self, handle: i64) -> Result<Arc<dyn Session>, Failure> {
        Ok(self.open_slot(handle)?.session.clone())
    }

    /// See [`Session::control`].
    pub fn control(&self, handle: i64, op: Op, body: Bytes) -> Result<Vec<u8>, Failure> {
        self.open_slot(handle)?.session.control(op, body)
    }

    /// Fails as [`Table::open_session`] would for this handle, before the caller copies anything.
    pub fn check_open(&self, handle: i64) -> Result<(), Failure> {
        self.open_slot(handle).map(drop)
    }

    /// Polls into the attached buffer; log lines come with the events. Fails with `Invalid` when nothing is attached,
    /// when another thread polls the same queue, or when there never was such a handle.
    pub fn poll(&self, handle: i64, queue: Queue, acknowledged: u64, wait: Duration) -> Result<Polled, Failure> {
        let Some(slot) = self.slot(handle)? else {
            return Ok(Polled::Closed);
        };
        let outlet = slot.outlet(queue);
        let mut guard = outlet.buffer.try_lock().ok_or_else(|| busy(queue))?;
        if outlet.drained.load(Ordering::SeqCst) {
            return Ok(Polled::Closed);
        }
        let buffer = guard.as_mut().ok_or_else(|| Failure::invalid(format!("No buffer is attached to {queue:?}.")))?;
        let polled = self.poll_session(&*slot.session, queue, buffer.as_mut(), acknowledged, wait);
        if polled == Polled::Closed {
            *guard = None;
            outlet.drained.store(true, Ordering::SeqCst);
            drop(guard);
            self.forget_if_finished(handle, &slot);
        }
        Ok(polled)
    }

    /// Closes the session: see [`Session::close`]. Does nothing the second time. Fails with `Invalid` when there never
    /// was such a handle.
    pub fn close(&self, handle: i64) -> Result<(), Failure> {
        if let Some(slot) = self.slot(handle)? {
            slot.closed.store(true, Ordering::SeqCst);
            slot.session.close();
            self.forget_if_finished(handle, &slot);
        }
        Ok(())
    }

    /// Sessions that are open, or closed and not yet drained.
    pub fn len(&self) -> usize {
        self.entries.read().slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The slot; `None` when it is closed and gone. No lock is held on return.
    fn slot(&self, handle: i64) -> Result<Option<Arc<Slot<B>>>, Failure> {
        let entries = self.entries.read();
        if handle < 1 || handle > entries.last {
            return Err(Failure::invalid(format!("There is no node with the handle {handle}.")));
        }
        Ok(entries.slots.get(&handle).cloned())
    }

    fn open_slot(&self, handle: i64) -> Result<Arc<Slot<B>>, Failure> {
        let slot = self.slot(handle)?;
        slot.filter(|slot| !slot.closed.load(Ordering::SeqCst)).ok_or_else(Failure::closed)
    }

    fn forget_if_finished(&self, handle: i64, slot: &Slot<B>) {
        if slot.finished() {
            let gone = self.entries.write().slots.remove(&handle);
            // Dropped here, after the lock.
            drop(gone);
        }
    }

    fn poll_session(
        &self,
        session: &dyn Session,
        queue: Queue,
        out: &mut [u8],
        acknowledged: u64,
        wait: Duration,
    ) -> Polled {
        let until = Instant::now().checked_add(wait);
        let mut left = wait;
        loop {
            if queue == Queue::Events && !self.lines.is_empty() {
                return self.poll_with_lines(session, out, acknowledged);
            }
            let slice = if queue == Queue::Events { left.min(LOG_LOOK) } else { left };
            let polled = session.poll(queue, out, acknowledged, slice);
            left = until.map_or(wait, |until| until.saturating_duration_since(Instant::now()));
            if polled != Polled::Bytes(0) || left.is_zero() {
                return polled;
            }
        }
    }

    /// Log lines first, in at most half of the buffer, then what events are there.
    fn poll_with_lines(&self, session: &dyn Session, out: &mut [u8], acknowledged: u64) -> Polled {
        if session.poll(Queue::Events, &mut [], acknowledged, Duration::ZERO) == Polled::Closed {
            return Polled::Closed; // CLOSED was the last record.
        }
        let (lines, _) = out.split_at_mut(out.len() / 2);
        let used = self.lines.take(lines);
        match session.poll(Queue::Events, &mut out[used..], acknowledged, Duration::ZERO) {
            Polled::Bytes(bytes) => Polled::Bytes(used + bytes),
            other if used == 0 => other,
            _ => Polled::Bytes(used),
        }
    }
}

fn busy(queue: Queue) -> Failure {
    Failure::new(Code::Invalid, format!("Another thread is polling {queue:?}; one thread polls a queue."))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use quorate_engine::session::Kind;

    use super::*;
    use crate::echo::{Echo, EchoConfig};

    const LONG: Duration = Duration::from_secs(20);
    const NOW: Duration = Duration::ZERO;
    static NO_LINES: Lines = Lines::new(1);

    fn table() -> Arc<Table<Vec<u8>>> {
        Arc::new(Table::new(&NO_LINES))
    }

    fn open(table: &Table<Vec<u8>>) -> i64 {
        let config = EchoConfig { name: "e".into(), mirror: false, in_flight: 1000 };
        table.insert(Echo::start(config).expect("an echo"))
    }

    fn open_and_listen(table: &Table<Vec<u8>>) -> i64 {
        let handle = open(table);
        table.attach(handle, Queue::Events, vec![0; BUFFER_BYTES_MIN]).expect("attached");
        handle
    }

    fn submit(table: &Table<Vec<u8>>, handle: i64, body: &'static str) -> Result<u64, Code> {
        let accepted =
            table.open_session(handle).and_then(|session| session.submit(Kind::Command, Bytes::from(body), LONG));
        accepted.map_err(|failure| failure.code)
    }

    fn poll(table: &Table<Vec<u8>>, handle: i64) -> Result<Polled, Code> {
        table.poll(handle, Queue::Events, 0, LONG).map_err(|failure| failure.code)
    }

    #[test]
    fn a_handle_that_never_was_is_invalid_everywhere() {
        let table = table();
        open(&table);
        for handle in [i64::MIN, -1, 0, 2, i64::MAX] {
            assert_eq!(submit(&table, handle, "x"), Err(Code::Invalid));
            assert_eq!(poll(&table, handle), Err(Code::Invalid));
            assert_eq!(table.close(handle).map_err(|failure| failure.code), Err(Code::Invalid));
        }
    }

    #[test]
    fn after_close_the_rest_is_polled_and_then_nothing_is_left_behind() {
        let table = table();
        let handle = open_and_listen(&table);
        assert_eq!(submit(&table, handle, "!echo delay 60000"), Ok(1));
        table.close(handle).expect("closed");
        assert_eq!(submit(&table, handle, "x"), Err(Code::Closed));
        assert_eq!(table.control(handle, Op::Status, Bytes::new()).map_err(|failure| failure.code), Err(Code::Closed));
        assert_eq!(table.len(), 1);
        assert!(matches!(poll(&table, handle), Ok(Polled::Bytes(1..))));
        assert_eq!(poll(&table, handle), Ok(Polled::Closed));
        assert_eq!(table.len(), 0);
        assert_eq!(poll(&table, handle), Ok(Polled::Closed));
        assert_eq!(submit(&table, handle, "x"), Err(Code::Closed));
        table.close(handle).expect("closed again");
        assert_eq!(open(&table), handle + 1, "handles are not used twice");
    }

    #[test]
    fn a_session_that_nobody_listens_to_goes_at_close() {
        let table = table();
        let handle = open(&table);
        table.close(handle).expect("closed");
        assert!(table.is_empty());
        assert_eq!(poll(&table, handle), Ok(Polled::Closed));
        let late = table.attach(handle, Queue::Events, vec![0; BUFFER_BYTES_MIN]);
        assert_eq!(late.map_err(|failure| failure.code), Err(Code::Closed));
    }

    #[test]
    fn a_larger_buffer_can_be_attached_even_after_close() {
        let table = table();
        let handle = open_and_listen(&table);
        submit(&table, handle, "!echo large 100000").expect("accepted");
        let Ok(Polled::NeedsBytes(needed)) = poll(&table, handle) else { panic!("it fits") };
        table.close(handle).expect("closed");
        assert_eq!(poll(&table, handle), Ok(Polled::NeedsBytes(needed)));
        table.attach(handle, Queue::Events, vec![0; needed]).expect("attached");
        assert_eq!(poll(&table, handle), Ok(Polled::Bytes(needed)));
        assert!(matches!(poll(&table, handle), Ok(Polled::Bytes(5))), "the CLOSED record");
        assert_eq!(poll(&table, handle), Ok(Polled::Closed));
        assert!(table.is_empty());
    }

    #[test]
    fn bad_buffers_and_missing_ones_are_refused() {
        let table = table();
        let handle = open(&table);
        assert_eq!(poll(&table, handle), Err(Code::Invalid));
        let small = table.attach(handle, Queue::Events, vec![0; BUFFER_BYTES_MIN - 1]);
        assert_eq!(small.map_err(|failure| failure.code), Err(Code::Invalid));
    }

    #[test]
    fn while_one_thread_waits_others_are_not_held_up_but_may_not_poll_along() {
        let table = table();
        let handle = open_and_listen(&table);
        let waiting = thread::spawn({
            let table = table.clone();
            move || poll(&table, handle)
        });
        while poll_now(&table, handle) != Err(Code::Invalid) {
            thread::yield_now();
        }
        let replaced = table.attach(handle, Queue::Events, vec![0; BUFFER_BYTES_MIN]);
        assert_eq!(replaced.map_err(|failure| failure.code), Err(Code::Invalid));
        let other = open(&table);
        table.close(other).expect("closed");
        table.close(handle).expect("closed");
        assert_eq!(waiting.join().expect("ended"), Ok(Polled::Bytes(5)));
    }

    fn poll_now(table: &Table<Vec<u8>>, handle: i64) -> Result<Polled, Code> {
        table.poll(handle, Queue::Events, 0, NOW).map_err(|failure| failure.code)
    }

    #[test]
    fn log_lines_come_with_the_events_even_to_one_who_waits_and_never_after_the_end() {
        static LINES: Lines = Lines::new(10);
        let table: Table<Vec<u8>> = Table::new(&LINES);
        let handle =
            table.insert(Echo::start(EchoConfig { name: "e".into(), mirror: false, in_flight: 9 }).expect("echo"));
        table.attach(handle, Queue::Events, vec![0; BUFFER_BYTES_MIN]).expect("attached");
        LINES.add(3, "t", "one".into());
        submit(&table, handle, "body").expect("accepted");
        const LINE: usize = 4 + 1 + 1 + 2 + 1 + 3;
        const COMPLETION: usize = 4 + 1 + 8 + 1 + 4;
        let mut found = 0;
        while found < LINE + COMPLETION {
            let Ok(Polled::Bytes(bytes @ 1..)) = poll(&table, handle) else { panic!("only {found} bytes came") };
            found += bytes;
        }
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(30));
                LINES.add(3, "t", "two".into());
            });
            let started = Instant::now();
            assert_eq!(poll(&table, handle), Ok(Polled::Bytes(LINE)));
            assert!(started.elapsed() < LONG / 2);
        });
        table.close(handle).expect("closed");
        assert_eq!(poll(&table, handle), Ok(Polled::Bytes(5)));
        LINES.add(3, "t", "three".into());
        assert_eq!(poll(&table, handle), Ok(Polled::Closed));
        assert!(!LINES.is_empty());
    }
}
