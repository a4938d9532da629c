//! A torn end is cut off; anything else that is wrong is refused, never skipped.

use std::fs;
use std::path::PathBuf;

use super::restart::{copy_files, paths};
use super::*;
use crate::error::{Code, Failure};

/// A log of a hundred entries in batches of one, as a killed process leaves it (files not cut to size), in `to`.
async fn crashed(to: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.save_vote(&vote(5)).await.unwrap();
    for index in 0..100 {
        append(&mut store, vec![entry(1, index, 1000)]).await;
    }
    copy_files(dir.path(), to);
}

fn log_files(dir: &Path) -> Vec<PathBuf> {
    paths(dir, ".raftlog")
}

fn find(data: &[u8], what: &str) -> usize {
    data.windows(what.len()).position(|window| window == what.as_bytes()).unwrap()
}

fn refusal(dir: &Path) -> Failure {
    let failure = LogStore::open(dir, small()).err().expect("refused");
    assert_eq!(failure.code, Code::Corrupt, "{failure}");
    assert!(failure.message.contains("start the node empty"), "{failure}");
    failure
}

/// The file with entry `index`, its content, and where the entry's text begins.
fn locate(dir: &Path, index: u64) -> (PathBuf, Vec<u8>, usize) {
    let text = format!("1/{index}/...");
    for path in log_files(dir) {
        let data = fs::read(&path).unwrap();
        if data.windows(text.len()).any(|window| window == text.as_bytes()) {
            let at = find(&data, &text);
            return (path, data, at);
        }
    }
    panic!("no entry {index}");
}

#[tokio::test]
async fn a_killed_process_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    crashed(dir.path()).await;
    let mut store = open(dir.path());
    assert_eq!(ends(&mut store).await, (None, Some(99)));
    assert_eq!(store.read_vote().await.unwrap(), Some(vote(5)));
    assert_eq!(read(&mut store, 0..=99).await.len(), 100);
}

#[tokio::test]
async fn a_write_torn_anywhere_is_cut_off_and_what_was_before_it_stays() {
    let whole = tempfile::tempdir().unwrap();
    crashed(whole.path()).await;
    let (path, data, at) = locate(whole.path(), 99);
    for torn_at in [at - 20, at, at + 1, at + 500, at + 1020] {
        let dir = tempfile::tempdir().unwrap();
        copy_files(whole.path(), dir.path());
        let mut torn = data.clone();
        torn[torn_at..].fill(0);
        fs::write(dir.path().join(path.file_name().unwrap()), &torn).unwrap();
        let mut store = open(dir.path());
        assert_eq!(ends(&mut store).await, (None, Some(98)), "torn at {torn_at}, entry at {at}");
        append(&mut store, vec![entry(2, 99, 10)]).await;
        store.close();
        assert_eq!(ends(&mut open(dir.path())).await, (None, Some(99)));
    }
}

#[tokio::test]
async fn a_file_that_ends_too_early_is_cut_off_at_the_last_whole_batch() {
    let whole = tempfile::tempdir().unwrap();
    crashed(whole.path()).await;
    let (path, data, at) = locate(whole.path(), 99);
    let dir = tempfile::tempdir().unwrap();
    copy_files(whole.path(), dir.path());
    fs::write(dir.path().join(path.file_name().unwrap()), &data[..at + 300]).unwrap();
    assert_eq!(ends(&mut open(dir.path())).await, (None, Some(98)));
}

#[tokio::test]
async fn a_flipped_bit_before_other_batches_of_the_newest_file_is_refused_with_file_and_offset() {
    let whole = tempfile::tempdir().unwrap();
    crashed(whole.path()).await;
    let newest = log_files(whole.path()).pop().unwrap();
    let data = fs::read(&newest).unwrap();
    let at = (0..98).find_map(|index| {
        let text = format!("1/{index}/...");
        data.windows(text.len()).position(|window| window == text.as_bytes())
    });
    // In an entry, in the batch's head before it, and in the file's head.
    for flipped in [at.unwrap() + 100, at.unwrap() - 30, 3] {
        let dir = tempfile::tempdir().unwrap();
        copy_files(whole.path(), dir.path());
        let mut bad = data.clone();
        bad[flipped] ^= 0x10;
        fs::write(dir.path().join(newest.file_name().unwrap()), bad).unwrap();
        let failure = refusal(dir.path());
        assert!(failure.message.contains(newest.file_name().unwrap().to_str().unwrap()), "{failure}");
        assert!(failure.message.contains("offset"), "{failure}");
        refusal(dir.path());
    }
}

#[tokio::test]
async fn a_flipped_bit_in_an_older_file_is_refused() {
    let whole = tempfile::tempdir().unwrap();
    crashed(whole.path()).await;
    let files = log_files(whole.path());
    assert!(files.len() >= 3, "{files:?}");
    for index in [3, 20, 50] {
        let dir = tempfile::tempdir().unwrap();
        copy_files(whole.path(), dir.path());
        let (path, mut data, at) = locate(dir.path(), index);
        data[at + 7] ^= 1;
        fs::write(&path, data).unwrap();
        assert!(refusal(dir.path()).message.contains(path.to_str().unwrap()));
    }
}

/// What lies before the newest `verify_bytes` is looked at when it is read.
#[tokio::test]
async fn a_flipped_bit_in_an_old_part_is_refused_when_it_is_read_and_sticks() {
    let dir = tempfile::tempdir().unwrap();
    crashed(dir.path()).await;
    let (path, mut data, at) = locate(dir.path(), 10);
    data[at + 7] ^= 1;
    fs::write(&path, data).unwrap();
    let options = LogOptions { verify_bytes: 1, ..small() };
    let mut store = LogStore::open(dir.path(), options).unwrap();
    assert_eq!(read(&mut store, 90..=99).await.len(), 10);
    assert!(store.try_get_log_entries(5..15).await.unwrap_err().to_string().contains("damaged"));
    assert_eq!(store.health().unwrap().code, Code::Corrupt);
    assert!(store.save_vote(&vote(8)).await.is_err());
}

#[tokio::test]
async fn a_missing_file_is_refused_wherever_it_was() {
    let whole = tempfile::tempdir().unwrap();
    crashed(whole.path()).await;
    let files = log_files(whole.path());
    for (at, gone) in files[..files.len() - 1].iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        copy_files(whole.path(), dir.path());
        fs::remove_file(dir.path().join(gone.file_name().unwrap())).unwrap();
        let failure = refusal(dir.path());
        assert!(at == 0 || failure.message.contains("is missing"), "{failure}");
    }
}

#[tokio::test]
async fn a_file_of_another_log_is_refused() {
    let whole = tempfile::tempdir().unwrap();
    crashed(whole.path()).await;
    let files = log_files(whole.path());
    let older = fs::read(&files[0]).unwrap();
    fs::write(&files[1], older).unwrap();
    refusal(whole.path());
}

#[tokio::test]
async fn recycled_files_with_old_batches_in_them_are_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    for index in 0..2000 {
        append(&mut store, vec![entry(1, index, 1000)]).await;
        if index % 100 == 99 {
            store.purge(id(1, index - 10)).await.unwrap();
        }
    }
    for _ in 0..5 {
        let (_, last) = ends(&mut store).await;
        append(&mut store, vec![entry(1, last.unwrap() + 1, 3000)]).await;
        let copy = tempfile::tempdir().unwrap();
        copy_files(dir.path(), copy.path());
        let mut crashed = open(copy.path());
        assert_eq!(ends(&mut crashed).await, (Some(1989), last.map(|last| last + 1)));
    }
}
