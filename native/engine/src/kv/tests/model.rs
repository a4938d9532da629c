//! Commands, reads, and what survives a restart.

use bytes::Bytes;

use super::support::*;
use crate::error::Code;
use crate::kv::KvMachine;
use crate::kv::op::{Condition, Event, Read, ScanAnswer, Txn, TxnOutcome, Write};
use crate::limits::{KEY_BYTES_MAX, SCAN_BYTES_MAX, SCAN_ENTRIES_MAX};
use crate::machine::{Applied, StateMachine};

#[test]
fn random_commands_do_what_the_model_does() {
    for seed in 1..=4 {
        let dir = tempfile::tempdir().unwrap();
        let (mut rng, mut model, mut revision) = (Rng::new(seed), Model::default(), 0);
        let (mut machine, mut reader) = open(dir.path());
        for call in 0..150 {
            // The guards of a call are drawn from the state before it, so later commands often meet another one.
            let txns: Vec<Txn> = (0..1 + rng.below(12)).map(|_| random_txn(&mut rng, &model, 60)).collect();
            let expected: Vec<TxnOutcome> = txns.iter().zip(revision + 1..).map(|(t, r)| model.apply(t, r)).collect();
            assert_eq!(apply(&mut machine, revision + 1, &txns), expected, "seed {seed} call {call}");
            revision += txns.len() as u64;
            let key = random_key(&mut rng, 60);
            let answer = get(&reader, &key);
            assert_eq!((answer.revision, answer.found.as_ref()), (revision, model.0.get(&key)));
            if rng.one_in(20) {
                for prefix in [&b""[..], b"a", b"b/", b"b/\xff", b"\xff", b"nothing"] {
                    let entries = model.entries(prefix);
                    assert_eq!(scan_all(&reader, prefix, 1 + rng.below(9) as u32), entries);
                    assert_eq!(count(&reader, prefix).count, entries.len() as u64);
                }
            }
            if rng.one_in(40) {
                drop(machine);
                (machine, reader) = open(dir.path());
                assert_eq!(reader.revision(), revision);
            }
        }
        assert_holds(&reader, &model);
    }
}

#[test]
fn a_key_keeps_its_create_revision_until_it_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, reader) = open(dir.path());
    put(&mut machine, 1, "k", "one");
    put(&mut machine, 2, "k", "two");
    let found = get(&reader, b"k").found.unwrap();
    assert_eq!((found.create, found.modified, &found.value[..]), (1, 2, &b"two"[..]));
    apply(&mut machine, 3, &[Txn::delete("k"), Txn::put("k", "three")]);
    let found = get(&reader, b"k").found.unwrap();
    assert_eq!((found.create, found.modified), (4, 4));
}

#[test]
fn compare_and_set_reports_what_it_found() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, _reader) = open(dir.path());
    let cas = |expected: &'static str, new: &'static str| Txn::put_if("k", Condition::Value(expected.into()), new);
    let first = Txn::put_if("k", Condition::Absent, "a");
    let outcomes = apply(&mut machine, 1, &[first.clone(), first, cas("a", "b"), cas("a", "c")]);
    let succeeded: Vec<bool> = outcomes.iter().map(TxnOutcome::succeeded).collect();
    assert_eq!(succeeded, [true, false, true, false]);
    let found = outcomes[3].failed.clone().unwrap().found.unwrap();
    assert_eq!((found.create, found.modified, &found.value[..]), (1, 3, &b"b"[..]));
}

#[test]
fn malformed_commands_are_refused_alone_and_count_as_revisions() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, reader) = open(dir.path());
    let long = Txn::put("x", "v").encode().unwrap();
    let long = [&long[..6], &(KEY_BYTES_MAX as u32 + 1).to_le_bytes(), &vec![b'x'; KEY_BYTES_MAX + 1], b"\0\0\0\0\0\0"]
        .concat();
    let commands = [
        committed(1, Txn::put("before", "v").encode().unwrap()),
        committed(2, Bytes::new()),
        committed(3, long),
        committed(4, Txn::put("after", "v").encode().unwrap()),
    ];
    let outcomes = apply_noting(&mut machine, &commands, &[]);
    assert!(outcomes[0].is_ok() && outcomes[3].is_ok());
    let refusals: Vec<_> = outcomes[1..3].iter().map(|outcome| outcome.clone().unwrap_err()).collect();
    assert!(refusals.iter().all(|refusal| refusal.code == Code::Invalid), "{refusals:?}");
    assert!(refusals[1].message.contains("too long"), "{refusals:?}");
    assert_eq!((reader.revision(), reader.entries()), (4, 2));
}

#[test]
fn rubbish_never_panics_and_never_breaks_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, reader) = open(dir.path());
    let mut rng = Rng::new(99);
    let (mut model, mut revision) = (Model::default(), 0);
    for _ in 0..300 {
        let mut bytes = random_txn(&mut rng, &model, 10).encode().unwrap();
        match rng.below(3) {
            0 => bytes.truncate(rng.below(bytes.len())),
            1 => (0..3).for_each(|_| {
                let at = rng.below(bytes.len());
                bytes[at] = rng.below(256) as u8;
            }),
            _ => bytes = (0..rng.below(60)).map(|_| rng.below(6) as u8).collect(),
        }
        revision += 1;
        let outcome = apply_noting(&mut machine, &[committed(revision, bytes.clone())], &[]).remove(0);
        match Txn::decode(bytes.clone().into()) {
            Ok(txn) => assert_eq!(outcome.unwrap(), model.apply(&txn, revision).encode()),
            Err(refusal) => assert_eq!(outcome.unwrap_err(), refusal),
        }
        let _either = (reader.read(&bytes), Event::decode(bytes.clone().into()), TxnOutcome::decode(bytes.into()));
    }
    assert_holds(&reader, &model);
}

#[test]
fn scans_are_capped_in_entries_and_bytes_and_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, reader) = open(dir.path());
    let many: Vec<Txn> = (0..SCAN_ENTRIES_MAX + 1).map(|n| Txn::put(format!("n/{n:05}"), "")).collect();
    apply(&mut machine, 1, &many);
    let answer = scan(&reader, b"n/", None, u32::MAX);
    assert_eq!((answer.entries.len(), answer.more), (SCAN_ENTRIES_MAX, true));
    assert_eq!(scan_all(&reader, b"n/", 0).len(), SCAN_ENTRIES_MAX + 1);
    let large = |name: &'static str| Txn::put(name, vec![7; SCAN_BYTES_MAX + 1]);
    apply(&mut machine, 10_000, &[large("big/1"), large("big/2")]);
    let answer = scan(&reader, b"big/", None, 0);
    assert_eq!((answer.entries.len(), answer.more), (1, true));
    let keys = Read::Scan { prefix: "big/".into(), after: None, limit: 0, keys_only: true };
    let keys = ScanAnswer::decode(reader.read(&keys.encode()).unwrap().into()).unwrap();
    assert_eq!((keys.entries.len(), keys.more), (2, false));
    assert!(keys.entries.iter().all(|found| found.entry.value.is_empty()));
}

#[test]
fn a_cursor_outside_the_prefix_neither_leaks_nor_skips() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, reader) = open(dir.path());
    apply(&mut machine, 1, &["a", "b1", "b2", "c"].map(|key| Txn::put(key, "")));
    let keys = |after: &'static str| scan_keys(&scan(&reader, b"b", Some(after.into()), 0));
    assert_eq!(keys("a"), ["b1", "b2"]);
    assert_eq!(keys("b1"), ["b2"]);
    assert_eq!(keys("b2"), [""; 0]);
    assert_eq!(keys("z"), [""; 0]);
}

fn scan_keys(answer: &ScanAnswer) -> Vec<String> {
    answer.entries.iter().map(|found| String::from_utf8(found.key.to_vec()).unwrap()).collect()
}

#[test]
fn large_values_in_one_call_come_back_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, _reader) = open(dir.path());
    let value = |n: u8| vec![n; 4 << 20];
    apply(&mut machine, 1, &(0..6).map(|n| Txn::put(vec![b'v', n], value(n))).collect::<Vec<_>>());
    machine.checkpoint().unwrap();
    drop(machine);
    let (_machine, reader) = open(dir.path());
    (0..6).for_each(|n| assert_eq!(get(&reader, &[b'v', n]).found.unwrap().value, value(n)));
}

#[test]
fn notes_change_together_with_the_entries_and_survive() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, _reader) = open(dir.path());
    assert_eq!(machine.load_notes().unwrap(), []);
    for index in 1..=20 {
        let body = Txn::put("k", index.to_string()).encode().unwrap();
        let notes = [note("applied", Some(&index.to_string())), note("session", (index % 3 == 0).then_some("s"))];
        apply_noting(&mut machine, &[committed(index, body)], &notes);
    }
    apply_noting(&mut machine, &[], &[note("membership", Some("m")), note("applied", Some("21"))]);
    drop(machine);
    let (mut machine, reader) = open(dir.path());
    let notes = [(b"applied".to_vec(), b"21".to_vec()), (b"membership".to_vec(), b"m".to_vec())];
    assert_eq!(machine.load_notes().unwrap(), notes);
    assert_eq!(get(&reader, b"k").found.unwrap().value, "20");
    assert_eq!((reader.revision(), reader.entries()), (20, 1));
}

/// A copy of the files while the machine runs is what `kill -9` leaves.
#[test]
fn a_killed_machine_comes_back_with_notes_that_match_its_entries() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, _reader) = open(&dir.path().join("state"));
    for index in 1..=60 {
        let txn = Txn {
            writes: ["a", "b"].map(|key| Write::Put { key: key.into(), value: index.to_string().into() }).into(),
            ..Txn::default()
        };
        let notes = [note("applied", Some(&index.to_string()))];
        apply_noting(&mut machine, &[committed(index, txn.encode().unwrap())], &notes);
        if index % 10 == 0 {
            let killed = dir.path().join(format!("killed-{index}"));
            copy_store(&dir.path().join("state"), &killed);
            let (mut machine, reader) = open(&killed);
            let applied = machine.load_notes().unwrap().pop().map(|(_, value)| value).unwrap_or_default();
            let value = |key| get(&reader, key).found.map(|entry| entry.value).unwrap_or_default();
            assert_eq!((value(b"a"), value(b"b")), (applied.clone().into(), applied.into()));
        }
    }
}

#[test]
fn a_command_that_comes_twice_breaks_the_machine_loudly() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, reader) = open(dir.path());
    put(&mut machine, 5, "k", "v");
    let again = [committed(5, Txn::put("k", "w").encode().unwrap())];
    assert_eq!(machine.apply(&again, &[]).unwrap_err().code, Code::Internal);
    assert!(machine.apply(&[committed(6, Txn::put("k", "w").encode().unwrap())], &[]).is_err());
    let read = Read::Get { key: "k".into() }.encode();
    assert_eq!(reader.read(&read).unwrap_err().code, Code::StateMachine);
    drop(machine);
    // It may be opened again for the same readers.
    assert_eq!(reader.read(&read).unwrap_err().code, Code::StateMachine);
    let (machine, reader) = open(dir.path());
    assert_eq!(get(&reader, b"k").found.unwrap().value, "v");
    drop(machine);
    assert_eq!(reader.read(&read).unwrap_err().code, Code::Closed);
}

#[test]
fn nothing_to_do_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, _reader) = open(dir.path());
    assert!(matches!(machine.apply(&[], &[]), Ok(Applied::Now(outcomes)) if outcomes.is_empty()));
}

#[test]
fn a_directory_in_use_is_locked_and_not_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, reader) = open(dir.path());
    put(&mut machine, 1, "k", "v");
    assert_eq!(KvMachine::open(dir.path()).map(|_| ()).unwrap_err().code, Code::Locked);
    assert_eq!(get(&reader, b"k").found.unwrap().value, "v");
}
