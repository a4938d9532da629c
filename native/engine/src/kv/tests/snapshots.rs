//! Snapshots taken while applies go on, and their installation.

use std::fs;
use std::io;
use std::thread;

use super::support::*;
use crate::error::{Code, Failure};
use crate::kv::op::{Read, Txn};
use crate::kv::{KvMachine, KvReader};
use crate::machine::{Frozen, StateMachine};

fn written(frozen: Box<dyn Frozen>) -> Vec<u8> {
    let mut payload = Vec::new();
    frozen.write_to(&mut payload).unwrap();
    payload
}

fn install(machine: &mut KvMachine, index: u64, payload: &[u8]) -> Result<(), Failure> {
    machine.install(index, &mut &payload[..], &[(b"applied".to_vec(), index.to_string().into_bytes())])
}

/// The model of a payload: what a fresh machine holds after its installation.
fn installed(index: u64, payload: &[u8], check: impl FnOnce(&KvReader)) {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, reader) = open(dir.path());
    install(&mut machine, index, payload).unwrap();
    assert_eq!(reader.revision(), index);
    check(&reader);
}

/// A machine with `entries` entries and its model, at the revision of its last command.
fn filled(dir: &std::path::Path, rng: &mut Rng, keys: usize) -> (KvMachine, KvReader, Model, u64) {
    let (mut machine, reader) = open(dir);
    let (mut model, mut revision) = (Model::default(), 0);
    for _ in 0..keys / 20 {
        step(&mut machine, &mut model, &mut revision, rng, keys, 20);
    }
    (machine, reader, model, revision)
}

fn step(machine: &mut KvMachine, model: &mut Model, revision: &mut u64, rng: &mut Rng, keys: usize, commands: usize) {
    let txns: Vec<Txn> = (0..commands).map(|_| random_txn(rng, model, keys)).collect();
    let expected: Vec<_> = txns.iter().zip(*revision + 1..).map(|(txn, at)| model.apply(txn, at)).collect();
    assert_eq!(apply(machine, *revision + 1, &txns), expected);
    *revision += commands as u64;
}

#[test]
fn a_snapshot_is_the_state_at_its_freeze_however_much_is_applied_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = Rng::new(7);
    let keys = 4_000;
    let (mut machine, reader, mut model, mut revision) = filled(dir.path(), &mut rng, keys);
    for round in 0..12 {
        let frozen_at = revision;
        let expected = model.clone();
        let frozen = machine.freeze().unwrap();
        let writer = thread::spawn(move || written(frozen));
        let mut calls = 0;
        while !writer.is_finished() || calls < 3 {
            let commands = 1 + rng.below(40);
            step(&mut machine, &mut model, &mut revision, &mut rng, keys, commands);
            calls += 1;
        }
        let payload = writer.join().unwrap();
        installed(frozen_at, &payload, |reader| assert_holds(reader, &expected));
        assert_eq!(machine.shared.undo.running(), 0, "round {round}");
    }
    assert_holds(&reader, &model);
}

/// Hands a payload on while applies run between its chunks, so that every chunk meets changes before and behind it.
struct Interleaved<'a> {
    payload: Vec<u8>,
    between: Box<dyn FnMut() + 'a>,
}

impl io::Write for Interleaved<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.payload.extend_from_slice(bytes);
        (self.between)();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn changes_between_the_chunks_do_not_show_and_two_snapshots_do_not_disturb_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = Rng::new(21);
    let keys = 3_000;
    let (mut machine, reader, mut model, mut revision) = filled(dir.path(), &mut rng, keys);
    let (first_model, first_at) = (model.clone(), revision);
    let first = machine.freeze().unwrap();
    step(&mut machine, &mut model, &mut revision, &mut rng, keys, 500);
    let (second_model, second_at) = (model.clone(), revision);
    let second = machine.freeze().unwrap();
    for (frozen, expected, at) in [(first, first_model, first_at), (second, second_model, second_at)] {
        let between = || step(&mut machine, &mut model, &mut revision, &mut rng, keys, 200);
        let mut out = Interleaved { payload: Vec::new(), between: Box::new(between) };
        frozen.write_to(&mut out).unwrap();
        installed(at, &out.payload, |reader| assert_holds(reader, &expected));
    }
    assert_holds(&reader, &model);
}

#[test]
fn a_count_is_of_one_revision_although_applies_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, reader) = open(dir.path());
    let keys: Vec<Txn> = (0..5_000).map(|n| Txn::put(format!("k/{n:05}"), "")).collect();
    apply(&mut machine, 1, &keys);
    let counts: Vec<u64> = thread::scope(|scope| {
        let counter = scope.spawn(|| (0..20).map(|_| count(&reader, b"k/").count).collect());
        // Each call moves keys from the front to the end and back; only between two calls are there 5,000.
        let mut revision = 5_001;
        while !counter.is_finished() {
            let (from, to) = if revision % 2 == 1 { ("k/00", "k/99") } else { ("k/99", "k/00") };
            let moved = |n| [Txn::delete(format!("{from}{n:03}")), Txn::put(format!("{to}{n:03}"), "")];
            let writes = (0..50).flat_map(moved).flat_map(|txn| txn.writes).collect();
            apply(&mut machine, revision, &[Txn { writes, ..Txn::default() }]);
            revision += 1;
        }
        counter.join().unwrap()
    });
    assert_eq!(counts, [5_000; 20]);
    assert_eq!(machine.shared.undo.running(), 0);
}

#[test]
fn a_dropped_view_ends_the_recording() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, _reader) = open(dir.path());
    let views: Vec<_> = (0..3).map(|_| machine.freeze().unwrap()).collect();
    assert_eq!(machine.shared.undo.running(), 3);
    drop(views);
    assert_eq!(machine.shared.undo.running(), 0);
}

#[test]
fn equal_states_make_equal_payloads() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, _reader, model, revision) = filled(&dir.path().join("one"), &mut Rng::new(3), 400);
    let payload = written(machine.freeze().unwrap());
    let (mut other, reader) = open(&dir.path().join("two"));
    put(&mut other, 1, "old", "state");
    install(&mut other, revision, &payload).unwrap();
    assert_holds(&reader, &model);
    assert_eq!(written(other.freeze().unwrap()), payload);
}

#[test]
fn an_installation_replaces_entries_and_notes_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (mut source, _reader, model, revision) = filled(&dir.path().join("source"), &mut Rng::new(4), 1_000);
    let payload = written(source.freeze().unwrap());
    let target = dir.path().join("target");
    let (mut machine, _reader) = open(&target);
    apply_noting(&mut machine, &[committed(1, Txn::put("gone", "v").encode().unwrap())], &[note("gone", Some("n"))]);
    install(&mut machine, revision, &payload).unwrap();
    let more = apply(&mut machine, revision + 1, &[Txn::put("more", "v")]).remove(0);
    assert_eq!(more.revision, revision + 1);
    drop(machine);
    let (mut machine, reader) = open(&target);
    assert_eq!(machine.load_notes().unwrap(), [(b"applied".to_vec(), revision.to_string().into_bytes())]);
    assert_eq!(get(&reader, b"gone").found, None);
    assert_eq!(reader.entries(), model.0.len() as u64 + 1);
}

#[test]
fn a_running_snapshot_fails_when_the_state_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, _reader, _, revision) = filled(dir.path(), &mut Rng::new(5), 200);
    let payload = written(machine.freeze().unwrap());
    let running = machine.freeze().unwrap();
    install(&mut machine, revision, &payload).unwrap();
    assert_eq!(running.write_to(&mut Vec::new()).unwrap_err().code, Code::Unavailable);
}

/// Calls `at` once, before the byte at `position` is read.
struct Interrupted<'a> {
    payload: &'a [u8],
    position: usize,
    at: Option<Box<dyn FnOnce() + 'a>>,
}

impl io::Read for Interrupted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == 0
            && let Some(at) = self.at.take()
        {
            at();
        }
        let limit = if self.position == 0 { buffer.len() } else { self.position.min(buffer.len()) };
        let read = self.payload.read(&mut buffer[..limit])?;
        self.position = self.position.saturating_sub(read);
        Ok(read)
    }
}

#[test]
fn a_machine_killed_during_an_installation_knows_that_it_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let (mut source, _reader, _, revision) = filled(&dir.path().join("source"), &mut Rng::new(6), 2_000);
    let payload = written(source.freeze().unwrap());
    for (n, position) in [100, payload.len() / 2, payload.len() - 1].into_iter().enumerate() {
        let (target, killed) = (dir.path().join(format!("target-{n}")), dir.path().join(format!("killed-{n}")));
        let (mut machine, reader) = open(&target);
        apply_noting(
            &mut machine,
            &[committed(1, Txn::put("old", "v").encode().unwrap())],
            &[note("applied", Some("1"))],
        );
        let at = || {
            copy_store(&target, &killed);
            let refused = reader.read(&Read::Count { prefix: "".into() }.encode()).unwrap_err();
            assert_eq!(refused.code, Code::Unavailable);
        };
        let mut input = Interrupted { payload: &payload, position, at: Some(Box::new(at)) };
        machine.install(revision, &mut input, &[(b"applied".to_vec(), b"2".to_vec())]).unwrap();
        let (mut machine, reader) = open(&killed);
        assert_eq!(machine.load_notes().unwrap(), []);
        assert_eq!((reader.entries(), reader.revision()), (0, 0));
        put(&mut machine, 1, "k", "v");
    }
}

#[test]
fn a_damaged_payload_breaks_the_machine_and_leaves_it_empty() {
    let dir = tempfile::tempdir().unwrap();
    let (mut source, _reader, _, revision) = filled(&dir.path().join("source"), &mut Rng::new(8), 300);
    let payload = written(source.freeze().unwrap());
    let mut rng = Rng::new(9);
    let flipped = |at: usize| {
        let mut damaged = payload.clone();
        damaged[at] ^= 0x10;
        damaged
    };
    let mut damaged: Vec<Vec<u8>> = (0..20).map(|_| payload[..rng.below(payload.len())].to_vec()).collect();
    damaged.extend((0..20).map(|_| flipped(12 + rng.below(payload.len() - 12))));
    damaged.push([&payload[..], b"x"].concat());
    for (n, damaged) in damaged.into_iter().enumerate() {
        let target = dir.path().join(format!("target-{n}"));
        let (mut machine, _reader) = open(&target);
        assert_eq!(install(&mut machine, revision, &damaged).unwrap_err().code, Code::Corrupt, "damage {n}");
        assert!(machine.apply(&[], &[note("n", Some("v"))]).is_err());
        drop(machine);
        let (mut machine, reader) = open(&target);
        assert_eq!((machine.load_notes().unwrap().len(), reader.entries()), (0, 0));
        fs::remove_dir_all(&target).unwrap();
    }
}
