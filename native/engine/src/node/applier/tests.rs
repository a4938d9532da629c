//! The applying thread among snapshots that come at bad moments.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::command::{Batch, Command};
use crate::consensus::types::{LeaderId, LogId, Member, Membership};
use crate::limits::APPLY_WINDOW_COMMANDS;
use crate::machine::{Frozen, Note, Notes, Outcome, Reviver};
use crate::node::observer::LeaderEvent;
use crate::node::shared::Progress;
use crate::snapshot::SnapshotDir;
use crate::surroundings::Pace;
use crate::watch;

struct Silent;

impl Observer for Silent {
    fn completed(&self, _outcomes: Vec<(u64, Outcome)>) {}
    fn leader(&self, _event: &LeaderEvent) {}
}

/// Takes a turn for each call from the test, and tells what it installed.
struct Gated {
    turns: mpsc::Receiver<()>,
    /// Calls of apply that have begun.
    begun: Arc<AtomicUsize>,
    installed: Arc<Mutex<Option<u64>>>,
}

impl StateMachine for Gated {
    fn load_notes(&mut self) -> Result<Notes, Failure> {
        Ok(Vec::new())
    }

    fn apply(&mut self, commands: &[Committed], _notes: &[Note]) -> Result<Answer, Failure> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.turns.blocking_recv();
        Ok(Answer::Now(commands.iter().map(|_| Ok(Bytes::new())).collect()))
    }

    fn freeze(&mut self) -> Result<Box<dyn Frozen>, Failure> {
        Err(Failure::invalid("not here"))
    }

    fn install(&mut self, index: u64, _: &mut dyn Read, _: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Failure> {
        *self.installed.lock() = Some(index);
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

fn shared() -> Arc<Shared> {
    Arc::new(Shared {
        queue: Arc::default(),
        pending: Arc::default(),
        observer: Arc::new(Silent),
        progress: watch::channel(Progress::default()).0,
        problems: Arc::default(),
        log: Mutex::new(None),
        covering: Default::default(),
        pace: Pace::default(),
        handed: Mutex::default(),
    })
}

fn log_id(index: u64) -> LogId {
    LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index }
}

fn entries(first: u64, count: u64) -> Vec<Entry> {
    let entry = |index| {
        let id = CommandId { node: 1, incarnation: 1, sequence: index };
        let batch = Batch::encode(0, 0, &[Command { id, low_water: 1, body: Bytes::new() }]);
        Entry { log_id: log_id(index), payload: openraft::EntryPayload::Normal(batch) }
    };
    (first..first + count).map(entry).collect()
}

fn snapshot(directory: &SnapshotDir, last: u64, index: u64) -> OpenSnapshot {
    let mut books = Books::default();
    let members: BTreeMap<u64, Member> = [(1, Member::default())].into();
    books.enter_membership(log_id(1), Membership::new_with_defaults(vec![[1].into()], members.into_keys()));
    books.applied.log_id = Some(log_id(last));
    books.applied.index = index;
    let meta = SnapshotMeta { last_log_id: Some(log_id(last)), last_membership: books.membership.clone() };
    let mut writer = directory.create(&meta, index, &books.to_notes().unwrap()).unwrap();
    writer.write_all(b"state").unwrap();
    writer.finish().unwrap()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(10), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn nothing_counts_as_applied_before_the_snapshot_is_installed() {
    let root = tempfile::tempdir().unwrap();
    let directory = SnapshotDir::open(root.path()).unwrap();
    let (_turn, turns) = mpsc::channel(1);
    let machine = Gated { turns, begun: Arc::default(), installed: Arc::default() };
    let shared = shared();
    let applier = Applier::open(Box::new(machine), Some(snapshot(&directory, 9, 7)), shared.clone()).unwrap();
    assert_eq!((shared.progress.borrow().next_log_index, shared.progress.borrow().index), (0, 0));
    assert_eq!(applier.books().applied.log_id, Some(log_id(9)));
    let thread = applier.spawn("test", Duration::ZERO).unwrap();
    eventually("the installation", || shared.progress.borrow().next_log_index == 10);
    assert_eq!(shared.progress.borrow().index, 7);
    shared.queue.close();
    thread.join().unwrap();
}

#[test]
fn a_snapshot_ends_the_wait_for_entries_that_it_made_the_log_forget() {
    let root = tempfile::tempdir().unwrap();
    let directory = SnapshotDir::open(root.path()).unwrap();
    let (turn, turns) = mpsc::channel(16);
    let installed = Arc::new(Mutex::new(None));
    let shared = shared();
    let begun = Arc::new(AtomicUsize::new(0));
    let machine = Gated { turns, begun: begun.clone(), installed: installed.clone() };
    let thread = Applier::open(Box::new(machine), None, shared.clone()).unwrap().spawn("test", Duration::ZERO).unwrap();
    let window = APPLY_WINDOW_COMMANDS as u64;
    shared.queue.push_entries(entries(1, 1));
    // Only behind work that waits is anything spilled.
    eventually("the first apply", || begun.load(Ordering::SeqCst) == 1);
    shared.queue.push_entries(entries(2, 1));
    // Too many to keep: they are to be read from a log that does not have them any more.
    shared.queue.push_entries(entries(3, window));
    (0..2).for_each(|_| turn.blocking_send(()).unwrap());
    eventually("the failing read", || !shared.problems.sentences().is_empty());
    shared.queue.push(Work::Install(snapshot(&directory, window + 2, window)));
    eventually("the installation", || *installed.lock() == Some(window));
    assert_eq!(begun.load(Ordering::SeqCst), 2);
    shared.queue.close();
    drop(turn);
    thread.join().unwrap();
}

/// Fails to install the snapshot of `bad`, as often as it is asked to.
struct Picky {
    bad: u64,
    attempts: Arc<AtomicUsize>,
    installed: Arc<Mutex<Option<u64>>>,
}

impl StateMachine for Picky {
    fn load_notes(&mut self) -> Result<Notes, Failure> {
        Ok(Vec::new())
    }

    fn apply(&mut self, commands: &[Committed], _notes: &[Note]) -> Result<Answer, Failure> {
        Ok(Answer::Now(commands.iter().map(|_| Ok(Bytes::new())).collect()))
    }

    fn freeze(&mut self) -> Result<Box<dyn Frozen>, Failure> {
        Err(Failure::invalid("not here"))
    }

    fn install(&mut self, index: u64, _: &mut dyn Read, _: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Failure> {
        if index == self.bad {
            self.attempts.fetch_add(1, Ordering::SeqCst);
            return Err(Failure::new(Code::StateMachine, "not this one"));
        }
        *self.installed.lock() = Some(index);
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

fn picky(root: &std::path::Path, bad: u64) -> (Arc<Shared>, SnapshotDir, Picky) {
    let machine = Picky { bad, attempts: Arc::default(), installed: Arc::default() };
    (shared(), SnapshotDir::open(root).unwrap(), machine)
}

#[test]
fn an_installation_that_fails_is_tried_again_until_a_newer_snapshot_takes_its_place() {
    let root = tempfile::tempdir().unwrap();
    let (shared, directory, machine) = picky(root.path(), 7);
    let (attempts, installed) = (machine.attempts.clone(), machine.installed.clone());
    let thread = Applier::open(Box::new(machine), None, shared.clone()).unwrap().spawn("test", Duration::ZERO).unwrap();
    shared.queue.push(Work::Install(snapshot(&directory, 9, 7)));
    eventually("a second attempt", || attempts.load(Ordering::SeqCst) >= 2);
    assert_eq!(shared.problems.sentences(), ["not this one"]);
    assert_eq!(shared.progress.borrow().next_log_index, 0, "what failed counts as applied");
    shared.queue.push(Work::Install(snapshot(&directory, 20, 15)));
    eventually("the newer one", || shared.progress.borrow().next_log_index == 21);
    assert_eq!(*installed.lock(), Some(15));
    assert!(shared.problems.sentences().is_empty());
    shared.queue.close();
    thread.join().unwrap();
}

#[test]
fn an_installation_that_always_fails_does_not_hold_up_the_close() {
    let root = tempfile::tempdir().unwrap();
    let (shared, directory, machine) = picky(root.path(), 7);
    let attempts = machine.attempts.clone();
    let thread = Applier::open(Box::new(machine), Some(snapshot(&directory, 9, 7)), shared.clone()).unwrap();
    let thread = thread.spawn("test", Duration::ZERO).unwrap();
    eventually("an attempt", || attempts.load(Ordering::SeqCst) >= 1);
    shared.queue.close();
    eventually("the end", || thread.is_finished());
    thread.join().unwrap();
}

/// Keeps the bookkeeping; fails when told to, and is then opened anew with what it had at an earlier moment.
#[derive(Clone, Default)]
struct Forgetful(Arc<Mutex<Memory>>);

#[derive(Default)]
struct Memory {
    notes: BTreeMap<Vec<u8>, Vec<u8>>,
    durable: BTreeMap<Vec<u8>, Vec<u8>>,
    broken: bool,
}

impl StateMachine for Forgetful {
    fn load_notes(&mut self) -> Result<Notes, Failure> {
        Ok(self.0.lock().notes.clone().into_iter().collect())
    }

    fn apply(&mut self, _commands: &[Committed], notes: &[Note]) -> Result<Answer, Failure> {
        let mut memory = self.0.lock();
        if memory.broken {
            return Err(Failure::new(Code::Io, "broken"));
        }
        memory.notes.extend(notes.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?))));
        Ok(Answer::Now(Vec::new()))
    }

    fn freeze(&mut self) -> Result<Box<dyn Frozen>, Failure> {
        Ok(Box::new(Nothing))
    }

    fn install(&mut self, _: u64, _: &mut dyn Read, _: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Failure> {
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn reviver(&self) -> Option<Box<dyn Reviver>> {
        Some(Box::new(self.clone()))
    }
}

impl Reviver for Forgetful {
    fn revive(&mut self) -> Result<Box<dyn StateMachine>, Failure> {
        let mut memory = self.0.lock();
        (memory.broken, memory.notes) = (false, memory.durable.clone());
        drop(memory);
        Ok(Box::new(self.clone()))
    }
}

struct Nothing;

impl Frozen for Nothing {
    fn write_to(self: Box<Self>, _: &mut dyn Write) -> Result<(), Failure> {
        Ok(())
    }
}

/// A full disk: the leader's log ended before what the others had committed and its machine had applied, and the machine was then
/// opened anew further back. The starting core waited for a snapshot, the machine for entries that were nowhere.
#[test]
fn what_neither_log_nor_snapshot_has_is_handed_over_again_once_a_core_starts() {
    let root = tempfile::tempdir().unwrap();
    let directory = SnapshotDir::open(root.path()).unwrap();
    let log_dir = root.path().join("log");
    let log = LogStore::open(&log_dir, crate::consensus::log::LogOptions::sized("test", 0, 1 << 20)).unwrap();
    let machine = Forgetful::default();
    let memory = machine.0.clone();
    let shared = shared();
    *shared.log.lock() = Some(log.clone());
    let applier = Applier::open(Box::new(machine), None, shared.clone()).unwrap().reviving(directory);
    let thread = applier.spawn("test", Duration::ZERO).unwrap();
    shared.queue.push_entries(entries(0, 3));
    eventually("applying", || shared.progress.borrow().next_log_index == 3);
    {
        let mut memory = memory.lock();
        memory.durable = memory.notes.clone();
    }
    shared.queue.push_entries(entries(3, 3));
    eventually("applying more", || shared.progress.borrow().next_log_index == 6);
    *shared.handed.lock() = (Some(log_id(5)), StoredMembership::default());
    memory.lock().broken = true;
    shared.queue.push_entries(entries(6, 1));
    eventually("the wait", || shared.problems.sentences().iter().any(|said| said.contains("is not in the log")));
    assert_eq!(shared.handed.lock().0, Some(log_id(5)), "while a core runs it stays");
    shared.covering.store(true, Ordering::Release);
    let (reply, view) = oneshot::channel();
    shared.queue.push(Work::Freeze(reply));
    let frozen = view.blocking_recv().unwrap().unwrap();
    assert_eq!(frozen.meta.last_log_id, Some(log_id(2)));
    assert_eq!(shared.handed.lock().0, Some(log_id(2)));
    assert_eq!(shared.progress.borrow().next_log_index, 6, "what was shown as applied stays so");
    shared.queue.push_entries(entries(3, 5));
    eventually("catching up", || shared.progress.borrow().next_log_index == 8);
    assert!(shared.problems.sentences().is_empty());
    shared.queue.close();
    thread.join().unwrap();
    log.close();
}
