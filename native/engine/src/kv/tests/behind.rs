//! Layers over sled: what is read, and what a crash leaves, wherever the writer is.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::support::*;
use crate::error::Code;
use crate::kv::behind::Drive;
use crate::kv::layers::Layer;
use crate::kv::op::{Read, Txn};
use crate::kv::{KvMachine, KvReader};
use crate::limits::UNWRITTEN_KEYS_MAX;
use crate::machine::StateMachine;

const KEYS: usize = 60;

/// How far the writer is with a layer.
enum Step {
    Sealed,
    /// In the journal, and so many of its keys in sled.
    Journaled(usize),
    Written,
}

/// A machine whose writer does a step when the test says so, beside its model.
struct Stepped {
    machine: KvMachine,
    reader: KvReader,
    rng: Rng,
    model: Model,
    revision: u64,
    /// The model after each call, with the revision: whatever a crash leaves is one of them.
    calls: Vec<(u64, Model)>,
    /// How many calls are in sled or its journal.
    written: usize,
    /// The sealed layer, how far it is, and how many calls are in it.
    sealed: Option<(Arc<Layer>, Step, usize)>,
}

impl Stepped {
    fn new(dir: &Path, seed: u64) -> Stepped {
        let (machine, reader) = KvMachine::open_driven(dir, Drive::ByHand).unwrap();
        let calls = vec![(0, Model::default())];
        let (rng, model) = (Rng::new(seed), Model::default());
        Stepped { machine, reader, rng, model, revision: 0, calls, written: 0, sealed: None }
    }

    /// One call, which notes its own number.
    fn apply(&mut self) {
        let txns: Vec<Txn> = (0..self.rng.below(8)).map(|_| random_txn(&mut self.rng, &self.model, KEYS)).collect();
        let number = self.calls.len();
        apply_call(&mut self.machine, &mut self.model, self.revision, number, &txns);
        self.revision += txns.len() as u64;
        self.calls.push((self.revision, self.model.clone()));
    }

    /// The writer's next step: seal, write the journal, a few keys after the other, the own record; settle.
    fn write(&mut self) {
        let calls = self.calls.len() - 1;
        let mut store = self.machine.behind.store();
        self.sealed = match self.sealed.take() {
            None => self.machine.behind.seal().map(|layer| (layer, Step::Sealed, calls)),
            Some((layer, Step::Sealed, calls)) => {
                store.journal_layer(&layer).unwrap();
                self.written = calls;
                Some((layer, Step::Journaled(0), calls))
            }
            Some((layer, Step::Journaled(put), calls)) if put < layer.slots.len() => {
                layer.slots.iter().skip(put).take(7).for_each(|(key, stored)| store.put(key, stored).unwrap());
                store.db.flush().unwrap();
                Some((layer, Step::Journaled(put + 7), calls))
            }
            Some((layer, Step::Journaled(_), calls)) => {
                store.end_layer(&layer.meta).unwrap();
                Some((layer, Step::Written, calls))
            }
            Some((layer, Step::Written, _)) => {
                self.machine.behind.settle(&layer);
                None
            }
        };
    }

    fn check(&mut self) {
        let key = random_key(&mut self.rng, KEYS);
        let answer = get(&self.reader, &key);
        assert_eq!((answer.revision, answer.found.as_ref()), (self.revision, self.model.0.get(&key)));
        for prefix in [&b""[..], b"a", b"b/", b"b/\xff", b"\xff"] {
            let entries = self.model.entries(prefix);
            assert_eq!(count(&self.reader, prefix).count, entries.len() as u64);
            assert_eq!(scan_all(&self.reader, prefix, 1 + self.rng.below(9) as u32), entries);
        }
    }

    /// What a kill at this moment leaves is the state after the last call that was written, and the calls after it lead on from there.
    fn check_killed(&self, dir: &Path, killed: &Path) {
        copy_store(dir, killed);
        let (mut machine, reader) = open(killed);
        let (revision, model) = &self.calls[self.written];
        assert_eq!(reader.revision(), *revision);
        assert_holds(&reader, model);
        let noted = machine.load_notes().unwrap().pop().map(|(_, value)| String::from_utf8(value).unwrap());
        assert_eq!(noted, (self.written > 0).then(|| self.written.to_string()));
        drop(machine);
        std::fs::remove_dir_all(killed).unwrap();
    }
}

fn apply_call(machine: &mut KvMachine, model: &mut Model, revision: u64, number: usize, txns: &[Txn]) {
    let commands: Vec<_> =
        txns.iter().zip(revision + 1..).map(|(txn, at)| committed(at, txn.encode().unwrap())).collect();
    let outcomes = apply_noting(machine, &commands, &[note("call", Some(&number.to_string()))]);
    for ((txn, at), outcome) in txns.iter().zip(revision + 1..).zip(outcomes) {
        assert_eq!(outcome.unwrap(), model.apply(txn, at).encode());
    }
}

#[test]
fn reads_and_kills_see_whole_calls_wherever_the_writer_is() {
    for seed in 1..=4 {
        let dir = tempfile::tempdir().unwrap();
        let (state, killed) = (dir.path().join("state"), dir.path().join("killed"));
        let mut stepped = Stepped::new(&state, seed);
        for step in 0..400 {
            match stepped.rng.below(5) {
                0..=2 => stepped.write(),
                _ => stepped.apply(),
            }
            stepped.check();
            if step % 16 == 15 {
                stepped.check_killed(&state, &killed);
            }
        }
        assert_holds(&stepped.reader, &stepped.model);
        assert!(stepped.written > 10, "The writer did nothing.");
        // Dropped without another step, as a kill would leave it.
        let (written, calls) = (stepped.written, std::mem::take(&mut stepped.calls));
        drop(stepped);
        let (_machine, reader) = open(&state);
        assert_eq!(reader.revision(), calls[written].0);
        assert_holds(&reader, &calls[written].1);
    }
}

/// A payload between whose chunks calls are applied and the writer goes on.
struct Between<'a> {
    payload: Vec<u8>,
    stepped: &'a mut Stepped,
}

impl io::Write for Between<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.payload.extend_from_slice(bytes);
        for _ in 0..1 + self.stepped.rng.below(4) {
            self.stepped.apply();
            self.stepped.write();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_snapshot_is_of_its_freeze_wherever_the_writer_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut stepped = Stepped::new(&dir.path().join("state"), 17);
    // More than one chunk, some of it in each of the layers and in sled.
    for (part, steps) in [200, 1, 0].into_iter().enumerate() {
        let puts: Vec<Txn> = (0..900).map(|n| Txn::put(format!("k/{:05}", n * 3 + part), vec![7; 600])).collect();
        apply_call(&mut stepped.machine, &mut stepped.model, stepped.revision, 0, &puts);
        stepped.revision += puts.len() as u64;
        stepped.calls.push((stepped.revision, stepped.model.clone()));
        (0..steps).for_each(|_| stepped.write());
    }
    // More tombstones in a row than a chunk has entries.
    let gone: Vec<Txn> = (0..1_400).map(|n| Txn::delete(format!("k/{:05}", n + n / 2))).collect();
    apply_call(&mut stepped.machine, &mut stepped.model, stepped.revision, 0, &gone);
    stepped.revision += gone.len() as u64;
    stepped.calls.push((stepped.revision, stepped.model.clone()));
    for round in 0..12 {
        let (revision, expected) = (stepped.revision, stepped.model.clone());
        let frozen = stepped.machine.freeze().unwrap();
        (0..round % 4).for_each(|_| stepped.write());
        let mut out = Between { payload: Vec::new(), stepped: &mut stepped };
        frozen.write_to(&mut out).unwrap();
        let payload = out.payload;
        let (mut machine, reader) = open(&dir.path().join(format!("copy-{round}")));
        machine.install(revision, &mut &payload[..], &[]).unwrap();
        assert_holds(&reader, &expected);
    }
    stepped.check();
}

#[test]
fn an_installation_leaves_nothing_of_what_was_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let (mut source, _reader) = open(&dir.path().join("source"));
    put(&mut source, 1, "k", "new");
    let mut payload = Vec::new();
    source.freeze().unwrap().write_to(&mut payload).unwrap();
    let target = dir.path().join("target");
    let (mut machine, reader) = KvMachine::open_driven(&target, Drive::ByHand).unwrap();
    put(&mut machine, 1, "sealed", "v");
    let sealed = machine.behind.seal().unwrap();
    put(&mut machine, 2, "fresh", "v");
    machine.install(3, &mut &payload[..], &[]).unwrap();
    machine.behind.settle(&sealed);
    assert_eq!(scan_all(&reader, b"", 0).len(), 1);
    assert!(machine.behind.seal().is_none());
    put(&mut machine, 4, "more", "v");
    assert_eq!(scan_all(&reader, b"", 0).len(), 2);
    machine.checkpoint().unwrap();
    drop(machine);
    let (_machine, reader) = open(&target);
    assert_eq!((scan_all(&reader, b"", 0).len(), reader.revision()), (2, 4));
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(10), "{what} did not happen");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_writer_works_by_itself_and_repeated_writes_reach_sled_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, reader) = open(dir.path());
    (1..=500).for_each(|n| drop(put(&mut machine, n, "k", "v")));
    let in_sled = || reader.shared.visible.read().layers.find(b"dk").is_none();
    eventually("the batch", in_sled);
    let mut store = machine.behind.store();
    let meta = store.load_meta().unwrap();
    assert_eq!(meta.revision, 500);
    assert!(meta.batches < 50, "{} batches", meta.batches);
}

#[test]
fn applying_waits_when_the_layer_is_full_and_goes_on_when_it_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, reader) = open(dir.path());
    let behind = machine.behind.clone();
    let store = behind.store();
    let puts: Vec<Txn> = (0..UNWRITTEN_KEYS_MAX).map(|n| Txn::put(n.to_string(), "v")).collect();
    let next = puts.len() as u64 + 1;
    apply(&mut machine, 1, &puts);
    let waiting = thread::spawn(move || drop(put(&mut machine, next, "k", "v")));
    thread::sleep(Duration::from_millis(100));
    assert!(!waiting.is_finished());
    assert_eq!(reader.entries() as usize, UNWRITTEN_KEYS_MAX);
    drop(store);
    waiting.join().unwrap();
    // It holds the directory.
    drop(behind);
    let (_machine, reader) = open(dir.path());
    assert_eq!(reader.entries() as usize, UNWRITTEN_KEYS_MAX + 1);
}

#[test]
fn a_writer_that_fails_breaks_the_machine_and_says_so_and_it_can_be_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    put(&mut open(dir.path()).0, 1, "k", "1");
    let journals = ["layer-0", "layer-1"].map(|name| dir.path().join(name));
    for path in &journals {
        std::fs::remove_file(path).unwrap();
        std::os::unix::fs::symlink("/dev/full", path).unwrap();
    }
    let (mut machine, reader) = open(dir.path());
    let rung = Arc::new(AtomicBool::new(false));
    let bell = rung.clone();
    machine.on_failure(Box::new(move || bell.store(true, Ordering::SeqCst)));
    put(&mut machine, 2, "more", "v");
    eventually("the alarm", || rung.load(Ordering::SeqCst));
    let read = Read::Get { key: "k".into() }.encode();
    assert_eq!(reader.read(&read).unwrap_err().code, Code::StateMachine);
    let failure = machine.apply(&[], &[]).unwrap_err();
    assert!(failure.message.contains("Writing a layer's journal"), "{failure}");
    assert!(machine.freeze().is_err());
    let mut reviver = machine.reviver().unwrap();
    drop(machine);
    journals.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    let mut machine = reviver.revive().unwrap();
    assert_eq!(reader.read(&read).unwrap_err().code, Code::Unavailable, "it is behind");
    machine.apply(&[committed(2, Txn::put("more", "v").encode().unwrap())], &[]).unwrap();
    machine.checkpoint().unwrap();
    assert_eq!((reader.revision(), reader.entries()), (2, 2));
    assert_eq!(get(&reader, b"more").found.unwrap().value, "v");
}

/// A read may split a node, and so write: what did not get to the disk then, sled waits for in its next flush, for ever.
#[test]
fn sled_is_not_waited_for_after_a_read_met_a_full_disk() {
    let parent = tempfile::tempdir().unwrap();
    let (mut machine, _reader) = open(&parent.path().join("state"));
    put(&mut machine, 1, "k", "v");
    let read = |kind: io::ErrorKind| machine.db.read_failure("Reading", &sled::Error::Io(kind.into()));
    read(io::ErrorKind::NotFound);
    machine.behind.write_all().unwrap();
    read(io::ErrorKind::StorageFull);
    let failure = machine.behind.store().sync().unwrap_err();
    assert!(failure.message.contains("could not write a part"), "{failure}");
    let ending = machine.db.ending();
    drop(machine);
    assert!(ending.is_kept());
}
