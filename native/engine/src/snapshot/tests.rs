//! Snapshots come back whole or not at all, and a crash leaves one of the two.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::*;
use crate::consensus::types::{LeaderId, LogId, SnapshotMeta};
use crate::error::Code;
use crate::limits::SNAPSHOT_CHUNK_BYTES;

fn meta(index: u64) -> SnapshotMeta {
    let leader_id = LeaderId { term: 3, node_id: 1 };
    SnapshotMeta { last_log_id: Some(LogId { leader_id, index }), ..SnapshotMeta::default() }
}

fn notes() -> Vec<(Vec<u8>, Vec<u8>)> {
    vec![(b"applied".to_vec(), b"17".to_vec()), (Vec::new(), Vec::new())]
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 / 7) as u8).collect()
}

fn take(dir: &SnapshotDir, index: u64, content: &[u8]) -> OpenSnapshot {
    let mut writer = dir.create(&meta(index), index * 10, &notes()).unwrap();
    writer.write_all(content).unwrap();
    writer.finish().unwrap()
}

fn read(snapshot: &OpenSnapshot) -> Vec<u8> {
    let mut out = Vec::new();
    snapshot.payload().unwrap().read_to_end(&mut out).unwrap();
    out
}

fn bytes(snapshot: &OpenSnapshot) -> Vec<u8> {
    let mut data = vec![0; snapshot.file.len as usize];
    assert_eq!(snapshot.file.read_at(0, &mut data).unwrap(), data.len());
    data
}

fn receive(dir: &SnapshotDir, data: &[u8]) -> Result<OpenSnapshot, Failure> {
    let mut incoming = dir.receive().unwrap();
    data.chunks(1000).for_each(|chunk| incoming.write_chunk(chunk).unwrap());
    incoming.finish()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn file(index: u64) -> String {
    format!("{index:020}-3.snap")
}

#[test]
fn a_snapshot_comes_back_as_it_went_whatever_its_size() {
    let root = tempfile::tempdir().unwrap();
    let dir = SnapshotDir::open(root.path()).unwrap();
    assert!(dir.latest().unwrap().is_none());
    let chunk = SNAPSHOT_CHUNK_BYTES;
    for (at, size) in [0, 1, chunk - 1, chunk, chunk + 1, 3 * chunk].into_iter().enumerate() {
        let index = at as u64 + 1;
        take(&dir, index, &content(size));
        let reopened = SnapshotDir::open(root.path()).unwrap().latest().unwrap().unwrap();
        for snapshot in [dir.latest().unwrap().unwrap(), reopened] {
            assert_eq!(
                (snapshot.meta.clone(), snapshot.index, snapshot.notes.clone()),
                (meta(index), index * 10, notes())
            );
            assert_eq!(read(&snapshot), content(size));
        }
        assert_eq!(names(root.path()), [file(index)], "older ones are gone");
    }
}

#[test]
fn a_replaced_snapshot_stays_readable_for_whoever_has_it() {
    let root = tempfile::tempdir().unwrap();
    let dir = SnapshotDir::open(root.path()).unwrap();
    let old = take(&dir, 1, &content(5000));
    take(&dir, 2, b"new");
    assert_eq!(read(&old), content(5000));
}

#[test]
fn one_that_is_not_finished_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let dir = SnapshotDir::open(root.path()).unwrap();
    take(&dir, 1, b"one");
    let mut writer = dir.create(&meta(2), 20, &notes()).unwrap();
    writer.write_all(&content(1_000_000)).unwrap();
    drop(writer);
    let mut incoming = dir.receive().unwrap();
    incoming.write_chunk(b"something").unwrap();
    drop(incoming);
    assert_eq!(names(root.path()), [file(1)]);
}

#[test]
fn a_received_snapshot_is_current_only_when_adopted() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (here_dir, there_dir) = (SnapshotDir::open(here.path()).unwrap(), SnapshotDir::open(there.path()).unwrap());
    let sent = bytes(&take(&there_dir, 7, &content(700_000)));
    take(&here_dir, 5, b"old");

    let received = receive(&here_dir, &sent).unwrap();
    assert_eq!(here_dir.latest().unwrap().unwrap().meta, meta(5));
    let adopted = here_dir.adopt_file(received.file).unwrap();
    assert_eq!(adopted.notes, notes());
    assert_eq!(read(&here_dir.latest().unwrap().unwrap()), content(700_000));
    assert_eq!(names(here.path()), [file(7)]);
}

#[test]
fn an_older_one_never_replaces_a_newer() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (here_dir, there_dir) = (SnapshotDir::open(here.path()).unwrap(), SnapshotDir::open(there.path()).unwrap());
    let sent = bytes(&take(&there_dir, 4, b"older"));
    let received = receive(&here_dir, &sent).unwrap();
    let mut slow = here_dir.create(&meta(3), 30, &notes()).unwrap();
    slow.write_all(b"slow").unwrap();
    take(&here_dir, 5, b"newer");
    assert_eq!(read(&here_dir.adopt(received).unwrap()), b"older", "still readable");
    assert_eq!(read(&slow.finish().unwrap()), b"slow");
    assert_eq!(read(&here_dir.latest().unwrap().unwrap()), b"newer");
    assert_eq!(names(here.path()), [file(5)]);
}

#[test]
fn one_received_and_never_adopted_goes_with_its_last_handle() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (here_dir, there_dir) = (SnapshotDir::open(here.path()).unwrap(), SnapshotDir::open(there.path()).unwrap());
    let sent = bytes(&take(&there_dir, 4, b"never"));
    let wanted = receive(&here_dir, &sent).unwrap();
    let kept = receive(&here_dir, &sent).unwrap();
    drop(wanted);
    drop(here_dir.receive().unwrap());
    assert_eq!(names(here.path()).len(), 1);
    here_dir.adopt(kept).unwrap();
    assert_eq!(names(here.path()), [file(4)]);
}

#[test]
fn every_truncation_and_every_flipped_bit_is_noticed() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (here_dir, there_dir) = (SnapshotDir::open(here.path()).unwrap(), SnapshotDir::open(there.path()).unwrap());
    let sent = bytes(&take(&there_dir, 4, &content(300)));
    for len in 0..sent.len() {
        assert!(receive(&here_dir, &sent[..len]).is_err(), "cut at {len}");
    }
    for bit in 0..sent.len() * 8 {
        let mut data = sent.clone();
        data[bit / 8] ^= 1 << (bit % 8);
        assert!(receive(&here_dir, &data).is_err(), "bit {bit}");
    }
    assert!(receive(&here_dir, &[&sent[..], b"x"].concat()).is_err(), "something behind the end");
    assert_eq!(names(here.path()), Vec::<String>::new());
    receive(&here_dir, &sent).unwrap();
}

#[test]
fn chunks_that_changed_places_are_noticed() {
    let root = tempfile::tempdir().unwrap();
    let dir = SnapshotDir::open(root.path()).unwrap();
    let whole = take(&dir, 4, &content(2 * SNAPSHOT_CHUNK_BYTES));
    let data = bytes(&whole);
    let chunk = SNAPSHOT_CHUNK_BYTES + 8;
    let (head, rest) = data.split_at(data.len() - 2 * chunk - 16);
    let swapped = [head, &rest[chunk..2 * chunk], &rest[..chunk], &rest[2 * chunk..]].concat();
    assert_eq!(receive(&dir, &swapped).unwrap_err().code, Code::Corrupt);
}

#[test]
fn reading_stops_at_damage_without_handing_it_out() {
    let root = tempfile::tempdir().unwrap();
    let dir = SnapshotDir::open(root.path()).unwrap();
    let whole = take(&dir, 4, &content(3 * SNAPSHOT_CHUNK_BYTES));
    let mut data = bytes(&whole);
    let second = data.len() - 16 - SNAPSHOT_CHUNK_BYTES - 100;
    data[second] ^= 1;
    fs::write(&whole.file.path, data).unwrap();
    let mut out = Vec::new();
    let error = whole.payload().unwrap().read_to_end(&mut out).unwrap_err();
    assert!(error.to_string().contains("damaged at offset"), "{error}");
    assert_eq!(out, content(SNAPSHOT_CHUNK_BYTES));
}

#[test]
fn a_damaged_newest_is_set_aside_and_the_next_older_taken() {
    let root = tempfile::tempdir().unwrap();
    let dir = SnapshotDir::open(root.path()).unwrap();
    let old = bytes(&take(&dir, 1, b"old"));
    take(&dir, 2, b"new");
    fs::write(root.path().join(file(1)), old).unwrap();
    let newest = root.path().join(file(2));
    let mut data = fs::read(&newest).unwrap();
    let last = data.len() - 20;
    data[last] ^= 4;
    fs::write(&newest, data).unwrap();
    let dir = SnapshotDir::open(root.path()).unwrap();
    assert_eq!(read(&dir.latest().unwrap().unwrap()), b"old");
    assert_eq!(names(root.path()), [file(1), file(2) + ".corrupt"]);
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let path = take(&SnapshotDir::open(root.path()).unwrap(), 1, b"one").file.path;
    let mut data = fs::read(&path).unwrap();
    data[8] = 2;
    let head = u32::from_le_bytes(data[12..16].try_into().unwrap()) as usize + 16;
    let checksum = crc32fast::hash(&data[..head]).to_le_bytes();
    data[head..head + 4].copy_from_slice(&checksum);
    fs::write(&path, data).unwrap();
    let refused = SnapshotDir::open(root.path()).unwrap().latest().unwrap_err();
    assert_eq!(refused.code, Code::Refused);
    assert_eq!(names(root.path()), [file(1)]);
}

/// What lies there after a crash at each step of taking number 2 over number 1.
#[test]
fn a_crash_at_any_step_leaves_the_old_or_the_new() {
    let root = tempfile::tempdir().unwrap();
    let dir = SnapshotDir::open(root.path()).unwrap();
    let old = bytes(&take(&dir, 1, b"old"));
    let new = bytes(&take(&dir, 2, b"new"));
    type Left<'a> = Vec<(String, &'a [u8])>;
    let steps: [(&str, Left<'_>, &[u8]); 4] = [
        ("half written", vec![(file(1), &old), ("taken-1.tmp".into(), &new[..new.len() / 2])], b"old"),
        ("written, not renamed", vec![(file(1), &old), ("taken-1.tmp".into(), &new)], b"old"),
        ("renamed, older not removed", vec![(file(1), &old), (file(2), &new)], b"new"),
        ("done", vec![(file(2), &new)], b"new"),
    ];
    for (step, files, expected) in steps {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| -> PathBuf { root.path().join(name) };
        files.iter().for_each(|(name, data)| fs::write(at(name), data).unwrap());
        let dir = SnapshotDir::open(root.path()).unwrap();
        assert_eq!(read(&dir.latest().unwrap().unwrap()), expected, "{step}");
        take(&dir, 3, b"next");
        assert_eq!(names(root.path()), [file(3)], "{step}");
    }
}

/// Half of the damaged heads get a right checksum, so that what lies behind it is read too.
fn with_right_checksum(mut data: Vec<u8>) -> Vec<u8> {
    let Some(claimed) = data.get(12..16) else { return data };
    let end = 16 + u32::from_le_bytes(claimed.try_into().unwrap()) as usize;
    if let Some(checksum) = data.get(..end).map(crc32fast::hash)
        && let Some(stored) = data.get_mut(end..end + 4)
    {
        stored.copy_from_slice(&checksum.to_le_bytes());
    }
    data
}

#[test]
fn fuzz_snapshot_files() {
    let root = tempfile::tempdir().unwrap();
    let dir = SnapshotDir::open(&root.path().join("whole")).unwrap();
    let samples = [0, 10, 1000].map(|len| bytes(&take(&dir, 7, &content(len))));
    let mut turn = 0;
    // Two chunks may be held at a time.
    let allowed = quorate_fuzz::Allowance { fixed: 4 << 20, per_byte: 64 };
    let path = root.path().join("damaged");
    fs::create_dir_all(&path).unwrap();
    quorate_fuzz::fuzz("snapshot files", &samples, &["quorsnap"], allowed, |input| {
        turn += 1;
        let data = if turn % 2 == 0 { input } else { with_right_checksum(input) };
        let path = path.join(file(7));
        fs::write(&path, &data).unwrap();
        let opened = SnapshotFile { file: Arc::new(File::open(&path).unwrap()), path, len: data.len() as u64 };
        if let Ok(snapshot) = format::open(opened) {
            let read = snapshot.payload().and_then(|mut payload| {
                std::io::copy(&mut payload, &mut std::io::sink())
                    .map_err(|error| Failure::io("Reading what was damaged", &error))
            });
            drop(read);
        }
    });
}

#[test]
fn fuzz_snapshot_directories() {
    let root = tempfile::tempdir().unwrap();
    let dir = SnapshotDir::open(&root.path().join("whole")).unwrap();
    let samples = [10, 1000].map(|len| bytes(&take(&dir, 7, &content(len))));
    let allowed = quorate_fuzz::Allowance { fixed: 4 << 20, per_byte: 64 };
    quorate_fuzz::fuzz("snapshot directories", &samples, &[], allowed, |data| {
        let path = root.path().join("damaged");
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join(file(7)), &data).unwrap();
        let damaged = SnapshotDir::open(&path).unwrap();
        if let Ok(Some(snapshot)) = damaged.latest() {
            std::io::copy(&mut snapshot.payload().unwrap(), &mut std::io::sink()).unwrap();
        }
        drop(receive(&damaged, &data));
        fs::remove_dir_all(&path).unwrap();
    });
}
