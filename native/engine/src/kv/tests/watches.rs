//! What watches deliver: everything in order, or that something is missing.

use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use parking_lot::Mutex;

use super::support::*;
use crate::error::Code;
use crate::kv::op::{Event, Txn, Write};
use crate::kv::{KvMachine, KvReader, WatchSink};
use crate::limits::{WATCH_HISTORY_CHANGES, WATCHES_MAX};
use crate::machine::StateMachine;

/// Keeps events, up to a capacity.
struct Sink {
    room: Mutex<usize>,
    events: Mutex<Vec<Event>>,
}

impl Sink {
    fn new(room: usize) -> Arc<Sink> {
        Arc::new(Sink { room: Mutex::new(room), events: Mutex::default() })
    }

    fn wide() -> Arc<Sink> {
        Sink::new(usize::MAX)
    }

    fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.events.lock())
    }
}

impl WatchSink for Sink {
    fn event(&self, event: Vec<u8>) -> bool {
        let mut room = self.room.lock();
        if *room == 0 {
            return false;
        }
        *room -= 1;
        self.events.lock().push(Event::decode(event.into()).unwrap());
        true
    }
}

fn was_put(revision: u64, key: &'static str, create: u64, value: &'static str) -> Event {
    Event::Put { revision, key: key.into(), create, value: value.into() }
}

fn fresh() -> (tempfile::TempDir, KvMachine, KvReader) {
    let dir = tempfile::tempdir().unwrap();
    let (machine, reader) = open(dir.path());
    (dir, machine, reader)
}

#[test]
fn a_watch_from_now_sees_what_comes_on_its_keys_and_no_more_after_its_end() {
    let (_dir, mut machine, reader) = fresh();
    put(&mut machine, 1, "a/1", "before");
    let (prefix, exact) = (Sink::wide(), Sink::wide());
    let id = reader.watch(0, false, b"a/", prefix.clone()).unwrap();
    reader.watch(0, true, b"a/2", exact.clone()).unwrap();
    let txn = Txn {
        writes: vec![
            Write::Put { key: "a/1".into(), value: "x".into() },
            Write::Put { key: "a/2".into(), value: "y".into() },
            Write::Delete { key: "a/absent".into() },
            Write::Put { key: "b".into(), value: "z".into() },
            Write::Delete { key: "a/1".into() },
        ],
        ..Txn::default()
    };
    apply(&mut machine, 2, &[txn]);
    let deleted = Event::Delete { revision: 2, key: "a/1".into() };
    assert_eq!(prefix.take(), [was_put(2, "a/1", 1, "x"), was_put(2, "a/2", 2, "y"), deleted]);
    assert_eq!(exact.take(), [was_put(2, "a/2", 2, "y")]);
    assert!(reader.unwatch(id) && !reader.unwatch(id));
    put(&mut machine, 3, "a/2", "again");
    assert_eq!(prefix.take(), []);
    assert_eq!(exact.take(), [was_put(3, "a/2", 2, "again")]);
}

#[test]
fn a_watch_from_a_revision_gets_the_past_once_and_then_the_future() {
    let (_dir, mut machine, reader) = fresh();
    put(&mut machine, 1, "k", "1");
    put(&mut machine, 2, "k", "2");
    put(&mut machine, 3, "k", "3");
    let (second, future) = (Sink::wide(), Sink::wide());
    let id = reader.watch(2, true, b"k", second.clone()).unwrap();
    reader.watch(5, true, b"k", future.clone()).unwrap();
    put(&mut machine, 4, "k", "4");
    put(&mut machine, 5, "k", "5");
    let all = [was_put(2, "k", 1, "2"), was_put(3, "k", 1, "3"), was_put(4, "k", 1, "4"), was_put(5, "k", 1, "5")];
    assert_eq!(second.take(), all);
    assert_eq!(future.take(), all[3..]);
    assert!(reader.progress(id) && !reader.progress(99));
    assert_eq!(second.take(), [Event::Progress { revision: 5 }]);
}

#[test]
fn after_a_restart_an_old_start_is_compacted() {
    let (dir, mut machine, _reader) = fresh();
    put(&mut machine, 1, "k", "1");
    put(&mut machine, 2, "k", "2");
    drop(machine);
    let (mut machine, reader) = open(dir.path());
    let (old, next) = (Sink::wide(), Sink::wide());
    reader.watch(2, true, b"k", old.clone()).unwrap();
    reader.watch(3, true, b"k", next.clone()).unwrap();
    put(&mut machine, 3, "k", "3");
    assert_eq!(old.take(), [Event::Compacted { oldest: 3 }, was_put(3, "k", 1, "3")]);
    assert_eq!(next.take(), [was_put(3, "k", 1, "3")]);
}

#[test]
fn the_history_is_bounded_and_whole_revisions_leave_it() {
    let (_dir, mut machine, reader) = fresh();
    let revisions = WATCH_HISTORY_CHANGES as u64 / 2 + 10;
    // Two changes a revision but in the first and the last, so that the bound falls within revision 10.
    let txn = |revision: u64| {
        let changes = if revision == 1 || revision == revisions { 1 } else { 2 };
        let writes = (0..changes).map(|_| Write::Put { key: "k".into(), value: revision.to_string().into() });
        Txn { writes: writes.collect(), ..Txn::default() }
    };
    for first in (1..=revisions).step_by(1_000) {
        let txns: Vec<Txn> = (first..=revisions.min(first + 999)).map(txn).collect();
        apply(&mut machine, first, &txns);
    }
    let sink = Sink::wide();
    reader.watch(1, true, b"k", sink.clone()).unwrap();
    let events = sink.take();
    assert_eq!(events[0], Event::Compacted { oldest: 11 });
    assert_eq!(events.len(), 1 + WATCH_HISTORY_CHANGES - 1);
    assert!(events[1..3].iter().all(|event| matches!(event, Event::Put { revision: 11, .. })));
}

#[test]
fn a_full_sink_is_told_what_it_missed_when_it_has_room() {
    let (_dir, mut machine, reader) = fresh();
    let (sink, other) = (Sink::new(1), Sink::wide());
    let id = reader.watch(0, true, b"k", sink.clone()).unwrap();
    reader.watch(0, true, b"k", other.clone()).unwrap();
    (1..=3).for_each(|revision| drop(put(&mut machine, revision, "k", "v")));
    assert_eq!(sink.take(), [was_put(1, "k", 1, "v")]);
    assert!(!reader.progress(id));
    *sink.room.lock() = 2;
    put(&mut machine, 4, "k", "w");
    assert_eq!(sink.take(), [Event::Compacted { oldest: 4 }, was_put(4, "k", 1, "w")]);
    put(&mut machine, 5, "k", "x");
    *sink.room.lock() = 10;
    reader.settle_watches();
    reader.settle_watches();
    put(&mut machine, 6, "k", "y");
    assert_eq!(sink.take(), [Event::Compacted { oldest: 6 }, was_put(6, "k", 1, "y")]);
    assert_eq!(other.take().len(), 6);
}

#[test]
fn a_sink_that_fills_while_the_past_is_delivered_is_told_too() {
    let (_dir, mut machine, reader) = fresh();
    let txns: Vec<Txn> = (0..2_000).map(|n| Txn::put("k", n.to_string())).collect();
    apply(&mut machine, 1, &txns);
    for room in [0, 5, 600] {
        let sink = Sink::new(room);
        reader.watch(1, true, b"k", sink.clone()).unwrap();
        assert_eq!(sink.take().len(), room);
        *sink.room.lock() = 9;
        reader.settle_watches();
        assert_eq!(sink.take(), [Event::Compacted { oldest: 2_001 }]);
    }
}

#[test]
fn the_installation_of_a_snapshot_is_a_gap_for_every_watch() {
    let (_dir, mut machine, reader) = fresh();
    put(&mut machine, 1, "k", "1");
    let mut payload = Vec::new();
    machine.freeze().unwrap().write_to(&mut payload).unwrap();
    let (live, later, old) = (Sink::wide(), Sink::wide(), Sink::wide());
    reader.watch(0, true, b"k", live.clone()).unwrap();
    reader.watch(10, true, b"k", later.clone()).unwrap();
    machine.install(9, &mut &payload[..], &[]).unwrap();
    reader.watch(1, true, b"k", old.clone()).unwrap();
    put(&mut machine, 10, "k", "10");
    let gap = [Event::Compacted { oldest: 10 }, was_put(10, "k", 1, "10")];
    assert_eq!(live.take(), gap);
    assert_eq!(old.take(), gap);
    assert_eq!(later.take(), gap[1..]);
}

#[test]
fn watches_that_start_while_applies_go_on_lose_and_double_nothing() {
    let (_dir, mut machine, reader) = fresh();
    let value = |n: u64| Bytes::from(n.to_string());
    apply(&mut machine, 1, &(1..=3_000).map(|n| Txn::put("k", value(n))).collect::<Vec<_>>());
    let sinks: Vec<Arc<Sink>> = (0..20).map(|_| Sink::wide()).collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            for (n, sink) in sinks.iter().enumerate() {
                reader.watch(1 + n as u64 * 100, true, b"k", sink.clone()).unwrap();
            }
        });
        (3_001..=6_000).for_each(|n| drop(apply(&mut machine, n, &[Txn::put("k", value(n))])));
    });
    for (n, sink) in sinks.iter().enumerate() {
        let expected = (1 + n as u64 * 100..=6_000).map(|n| Event::Put {
            revision: n,
            key: "k".into(),
            create: 1,
            value: value(n),
        });
        assert!(sink.take().into_iter().eq(expected), "watch {n}");
    }
}

#[test]
fn watches_are_bounded_and_their_keys_checked() {
    let (_dir, _machine, reader) = fresh();
    let sink = Sink::wide();
    assert_eq!(reader.watch(0, true, b"", sink.clone()).unwrap_err().code, Code::Invalid);
    let ids: Vec<u64> = (0..WATCHES_MAX).map(|_| reader.watch(0, false, b"", sink.clone()).unwrap()).collect();
    assert_eq!(reader.watch(0, false, b"", sink.clone()).unwrap_err().code, Code::Overloaded);
    assert!(reader.unwatch(ids[0]));
    assert!(reader.watch(0, false, b"", sink).is_ok());
}

#[test]
fn a_store_that_is_opened_anew_further_back_shows_and_tells_nothing_old() {
    let (root, mut machine, reader) = fresh();
    let old = tempfile::tempdir().unwrap();
    put(&mut machine, 1, "k", "1");
    machine.checkpoint().unwrap();
    copy_store(root.path(), old.path());
    put(&mut machine, 2, "k", "2");
    put(&mut machine, 3, "k", "3");
    let sink = Sink::wide();
    reader.watch(0, true, b"k", sink.clone()).unwrap();
    let mut reviver = machine.reviver().unwrap();
    drop(machine);
    std::fs::remove_dir_all(root.path()).unwrap();
    copy_store(old.path(), root.path());
    let mut machine = reviver.revive().unwrap();
    let get_k = || reader.read(&crate::kv::op::Read::Get { key: "k".into() }.encode());
    let txn = |value: &'static str| Txn::put("k", value).encode().unwrap();
    for (revision, value) in [(2, "2"), (3, "3")] {
        assert_eq!(get_k().unwrap_err().code, Code::Unavailable, "an older state is shown before {revision}");
        assert_eq!(reader.revision(), 3);
        machine.apply(&[committed(revision, txn(value))], &[]).unwrap();
    }
    assert_eq!(get(&reader, b"k").found.unwrap().value, "3");
    assert_eq!(sink.take(), [], "told twice");
    machine.apply(&[committed(4, txn("4"))], &[]).unwrap();
    assert_eq!(sink.take(), [was_put(4, "k", 1, "4")]);
}
