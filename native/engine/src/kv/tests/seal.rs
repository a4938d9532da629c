//! A store that was closed in good order need not be read through.

use std::fs;
use std::path::{Path, PathBuf};

use super::support::*;
use crate::kv::op::Txn;
use crate::kv::{KvMachine, seal};

/// A closed store of a few entries, one of them in a blob file.
fn closed(dir: &Path) {
    let (mut machine, _reader) = open(dir);
    let put = |number: u64, bytes| Txn::put(format!("key{number}"), vec![7; bytes]).encode().unwrap();
    let sizes = (1..20).map(|number| (number, 10)).chain([(20, 300_000)]);
    let commands: Vec<_> = sizes.map(|(number, bytes)| committed(number, put(number, bytes))).collect();
    apply_noting(&mut machine, &commands, &[note("applied", Some("20"))]);
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let own = |path: &PathBuf| ["durable", "layer-0", "layer-1", seal::NAME].iter().any(|name| path.ends_with(name));
    let list = |dir: &Path| fs::read_dir(dir).unwrap().map(|item| item.unwrap().path()).collect::<Vec<_>>();
    let all = list(dir).into_iter().chain(list(&dir.join("blobs")));
    all.filter(|path| path.is_file() && !own(path)).collect()
}

#[test]
fn a_seal_holds_until_a_byte_of_any_file_differs() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("state");
    closed(&dir);
    let seal = fs::read(dir.join(seal::NAME)).unwrap();
    assert!(files(&dir).len() >= 3, "{:?}", files(&dir));
    assert!(seal::take(&dir));
    assert!(!seal::take(&dir), "once");
    for path in files(&dir) {
        let whole = fs::read(&path).unwrap();
        let mut changed = vec![whole[..whole.len() - 1].to_vec(), [&whole[..], b"x"].concat()];
        for at in [0, whole.len() / 2, whole.len() - 1] {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            changed.push(flipped);
        }
        for changed in changed {
            fs::write(&path, changed).unwrap();
            fs::write(dir.join(seal::NAME), &seal).unwrap();
            assert!(!seal::take(&dir), "{}", path.display());
        }
        fs::write(&path, whole).unwrap();
    }
    fs::write(dir.join("blobs/7777"), "").unwrap();
    fs::write(dir.join(seal::NAME), &seal).unwrap();
    assert!(!seal::take(&dir), "a file more");
    fs::remove_file(dir.join("blobs/7777")).unwrap();
    for at in 0..seal.len() {
        let mut damaged = seal.clone();
        damaged[at] ^= 1;
        fs::write(dir.join(seal::NAME), damaged).unwrap();
        assert!(!seal::take(&dir), "byte {at} of the seal");
    }
    fs::write(dir.join(seal::NAME), &seal).unwrap();
    assert!(seal::take(&dir));
}

/// Whoever changes a record and seals it goes unnoticed: so it is the seal that is believed, and nothing else.
#[test]
fn a_sealed_store_is_not_read_through_and_any_other_is() {
    let parent = tempfile::tempdir().unwrap();
    let (sealed, other) = (parent.path().join("state"), parent.path().join("other"));
    closed(&sealed);
    {
        let db = raw(&sealed);
        let (key, stored) = db.scan_prefix([crate::kv::record::DATA]).next().unwrap().unwrap();
        let mut stored = stored.to_vec();
        *stored.last_mut().unwrap() ^= 1;
        db.insert(key, stored).unwrap();
    }
    copy_store(&sealed, &other);
    seal::write(&sealed).unwrap();
    let reset = |dir: &Path| KvMachine::open(dir).unwrap().0.was_reset();
    assert_eq!(reset(&sealed), None);
    assert!(reset(&other).unwrap().contains("do not match"));
}

#[test]
fn a_store_that_failed_or_was_killed_is_not_sealed() {
    let parent = tempfile::tempdir().unwrap();
    let (dir, killed) = (parent.path().join("state"), parent.path().join("killed"));
    closed(&dir);
    let (mut machine, _reader) = open(&dir);
    put(&mut machine, 21, "more", "value");
    copy_store(&dir, &killed);
    assert!(!killed.join(seal::NAME).exists(), "nor is it while it is open");
    machine.behind.write_all().unwrap();
    fs::remove_dir_all(dir.join("blobs")).unwrap();
    let large = vec![7; 300_000];
    let command = committed(22, Txn::put("large2", large).encode().unwrap());
    apply_noting(&mut machine, &[command], &[]);
    machine.behind.write_all().unwrap_err();
    drop(machine);
    assert!(!dir.join(seal::NAME).exists());
}

/// sled itself closes in good order then.
#[test]
fn a_store_whose_journal_could_not_be_written_is_not_sealed() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("state");
    fs::create_dir(&dir).unwrap();
    ["layer-0", "layer-1"].iter().for_each(|name| std::os::unix::fs::symlink("/dev/full", dir.join(name)).unwrap());
    let (mut machine, _reader) = open(&dir);
    put(&mut machine, 1, "k", "v");
    machine.behind.write_all().unwrap_err();
    drop(machine);
    assert!(!dir.join(seal::NAME).exists());
}
