//! A damaged store is set aside, never served.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::support::*;
use crate::kv::op::Txn;
use crate::kv::{KvMachine, KvReader};
use crate::limits::SET_ASIDE_MAX;
use crate::machine::StateMachine;

const CALLS: u64 = 40;
const PER_CALL: u64 = 10;

/// Applies [`CALLS`] calls, each with a note of its number. Values large enough that sled puts nodes into blob files.
fn fill(dir: &Path) {
    let (mut machine, _reader) = open(dir);
    for call in 1..=CALLS {
        let put = |n: u64| Txn::put(format!("key-{call}-{n}"), vec![call as u8; 20_000]).encode().unwrap();
        let commands: Vec<_> = (0..PER_CALL).map(|n| committed((call - 1) * PER_CALL + n + 1, put(n))).collect();
        apply_noting(&mut machine, &commands, &[note("applied", Some(&call.to_string()))]);
    }
    machine.checkpoint().unwrap();
}

fn asides(dir: &Path) -> usize {
    let items = fs::read_dir(dir.parent().unwrap()).unwrap();
    items.filter(|item| item.as_ref().unwrap().file_name().to_string_lossy().contains("state.corrupt-")).count()
}

fn assert_reset(dir: &Path) {
    let (mut machine, reader): (KvMachine, KvReader) = KvMachine::open(dir).unwrap();
    let reason = machine.was_reset().expect("The damage was not noticed.");
    assert!(reason.contains("state.corrupt-"), "{reason}");
    assert_eq!(machine.load_notes().unwrap(), []);
    assert_eq!((reader.entries(), reader.revision()), (0, 0));
    put(&mut machine, 1, "k", "v");
    drop(machine);
    let (_machine, reader) = open(dir);
    assert_eq!(reader.entries(), 1);
}

/// Nothing, or all that [`fill`] made durable.
fn assert_nothing_or_all(dir: &Path) {
    let (mut machine, reader) = open(dir);
    let applied = machine
        .load_notes()
        .unwrap()
        .pop()
        .map_or(0, |(_, value)| String::from_utf8(value).unwrap().parse::<u64>().unwrap());
    assert!(applied == 0 || applied == CALLS);
    assert_eq!((reader.entries(), reader.revision()), (applied * PER_CALL, applied * PER_CALL));
    for call in 1..=applied {
        for n in 0..PER_CALL {
            let found = get(&reader, format!("key-{call}-{n}").as_bytes()).found.unwrap();
            assert!(found.value.iter().all(|byte| *byte == call as u8));
        }
    }
}

fn damaged(damage: impl FnOnce(&Path)) {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("state");
    fill(&dir);
    damage(&dir);
    assert_reset(&dir);
    assert_eq!(asides(&dir), 1);
}

/// Wherever the file is damaged, nothing but the whole state is served, and an empty start is explained.
#[test]
fn damage_anywhere_in_the_file_is_never_served() {
    let parent = tempfile::tempdir().unwrap();
    let (filled, mut rng, mut reset) = (parent.path().join("filled"), Rng::new(11), 0);
    fill(&filled);
    for round in 0..36 {
        let dir = parent.path().join(format!("{round}")).join("state");
        copy_store(&filled, &dir);
        // sled recovers otherwise, and loses otherwise, when an earlier start has left its page table.
        if round % 2 == 0 {
            assert_nothing_or_all(&dir);
        }
        let file = OpenOptions::new().write(true).open(dir.join("db")).unwrap();
        let len = file.metadata().unwrap().len();
        match round % 3 {
            0 => file.set_len(rng.below(len as usize) as u64).unwrap(),
            1 => file.write_all_at(&[0xa5; 64], rng.below(len as usize) as u64).unwrap(),
            _ => (0..len / 8_192).for_each(|n| file.write_all_at(&[0; 512], n * 8_192 + 100).unwrap()),
        }
        drop(file);
        let set_aside = KvMachine::open(&dir).unwrap().0.was_reset().is_some();
        assert_nothing_or_all(&dir);
        assert_eq!(set_aside, open(&dir).1.entries() == 0, "round {round}");
        reset += usize::from(set_aside);
        fs::remove_dir_all(dir.parent().unwrap()).unwrap();
    }
    assert!(reset > 0, "None of this was damage?");
}

#[test]
fn a_lost_blob_file() {
    damaged(|dir| {
        let blobs: Vec<_> = fs::read_dir(dir.join("blobs")).unwrap().map(|blob| blob.unwrap().path()).collect();
        assert!(!blobs.is_empty(), "The test needs blob files.");
        blobs.iter().for_each(|path| fs::remove_file(path).unwrap());
    });
}

#[test]
fn rubbish_for_the_page_table() {
    damaged(|dir| {
        drop(raw(dir));
        let names = fs::read_dir(dir).unwrap().map(|item| item.unwrap().path());
        let tables: Vec<_> = names.filter(|path| path.to_string_lossy().contains("/snap.")).collect();
        assert!(!tables.is_empty(), "The test needs sled's own snapshot.");
        tables.iter().for_each(|path| File::create(path).unwrap().write_all(b"rubbish of some length").unwrap());
    });
}

#[test]
fn records_that_do_not_match_the_digest() {
    damaged(|dir| {
        let db = raw(dir);
        db.insert(b"dkey-0-0", &[7; 30]).unwrap();
        db.flush().unwrap();
    });
}

#[test]
fn a_store_of_another_kind() {
    damaged(|dir| {
        let db = raw(dir);
        db.remove(b"m").unwrap();
        db.flush().unwrap();
    });
}

#[test]
fn only_the_newest_damaged_stores_are_kept() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("state");
    for _ in 0..SET_ASIDE_MAX + 2 {
        let _ = fs::remove_dir_all(&dir);
        let (mut machine, _reader) = open(&dir);
        put(&mut machine, 1, "k", "v");
        drop(machine);
        let db = raw(&dir);
        db.remove(b"dk").unwrap();
        drop(db);
        assert_reset(&dir);
    }
    assert_eq!(asides(&dir), SET_ASIDE_MAX);
}
