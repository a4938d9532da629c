//! Entries come from memory or from the files, and nobody can tell which.

use futures_util::StreamExt;

use super::*;
use crate::limits::LOG_READ_BYTES;

fn forget(store: &LogStore) {
    store.inner.shared.state.lock().drop_cache();
}

#[tokio::test]
async fn entries_can_be_read_before_they_are_durable() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    for index in 0..500 {
        let durable = send(&mut store, entries(1, index..=index)).await;
        assert_eq!(read(&mut store, index..=index).await, entries(1, index..=index));
        drop(durable);
    }
}

#[tokio::test]
async fn half_from_the_files_and_half_from_memory_is_one_answer() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    append(&mut store, entries(1, 0..=99)).await;
    forget(&store);
    append(&mut store, entries(1, 100..=149)).await;
    assert_eq!(read(&mut store, 0..=149).await, entries(1, 0..=149));
    assert_eq!(read(&mut store, 90..=110).await, entries(1, 90..=110));
    let all: Vec<Entry> = store.entries_stream(50..=120).await.map(Result::unwrap).collect().await;
    assert_eq!(all, entries(1, 50..=120));
}

#[tokio::test]
async fn what_replaced_a_truncated_end_is_read_from_the_files_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    append(&mut store, entries(1, 0..=99)).await;
    store.truncate_after(Some(id(1, 49))).await.unwrap();
    append(&mut store, entries(2, 50..=59)).await;
    forget(&store);
    let expected = [entries(1, 0..=49), entries(2, 50..=59)].concat();
    assert_eq!(read(&mut store, 0..=200).await, expected);
}

#[tokio::test]
async fn one_read_for_replication_is_bounded_in_bytes_and_never_empty() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = LogStore::open(dir.path(), LogOptions::new("bounds", 0)).unwrap();
    let big = |index| entry(1, index, 1 << 20);
    append(&mut store, (0..10).map(big).collect()).await;
    append(&mut store, vec![entry(1, 10, LOG_READ_BYTES * 2)]).await;
    for from_files in [false, true] {
        if from_files {
            forget(&store);
        }
        let some = store.limited_get_log_entries(2, 11).await.unwrap();
        assert_eq!(some.first().map(|entry| entry.log_id.index), Some(2), "from files: {from_files}");
        assert_eq!(some.len(), 3, "from files: {from_files}");
        assert_eq!(store.limited_get_log_entries(10, 11).await.unwrap().len(), 1, "one that is larger comes alone");
        assert_eq!(read(&mut store, 0..=10).await.len(), 11, "a whole read is whole");
    }
}

#[tokio::test]
async fn replication_is_never_given_entries_with_a_hole_before_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    append(&mut store, entries(1, 0..=9)).await;
    store.purge(id(1, 4)).await.unwrap();
    assert!(store.limited_get_log_entries(3, 8).await.unwrap_err().to_string().contains("purged"));
    assert_eq!(store.limited_get_log_entries(5, 8).await.unwrap(), entries(1, 5..=7));
}

/// raft-engine caches blocks per thread by file number and offset, which two stores have in common.
#[tokio::test]
async fn two_stores_in_one_process_are_never_given_each_others_entries() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut left, mut right) = (open(here.path()), open(there.path()));
    append(&mut left, entries(1, 0..=9)).await;
    append(&mut right, entries(7, 0..=9)).await;
    forget(&left);
    forget(&right);
    for _ in 0..3 {
        assert_eq!(read(&mut left, 0..=9).await, entries(1, 0..=9));
        assert_eq!(read(&mut right, 0..=9).await, entries(7, 0..=9));
    }
}

/// Large enough that a whole read takes several reads of the files.
fn large(term: u64, indexes: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    indexes.map(|index| entry(term, index, LOG_READ_BYTES / 8)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_no_mixture_while_the_end_is_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = LogStore::open(dir.path(), LogOptions { prefill_bytes: 0, ..LogOptions::new("mix", 0) }).unwrap();
    append(&mut store, large(1, 0..=25)).await;
    forget(&store);
    let mut reader = store.clone();
    let reading = tokio::spawn(async move {
        for _ in 0..40 {
            let found = read(&mut reader, 0..=25).await;
            let terms: Vec<u64> = found[2..].iter().map(|entry| entry.log_id.leader_id.term).collect();
            assert!(terms.iter().all(|term| *term == terms[0]), "{terms:?}");
        }
    });
    let mut term = 2;
    while !reading.is_finished() {
        store.truncate_after(Some(id(1, 1))).await.unwrap();
        append(&mut store, large(term, 2..=25)).await;
        forget(&store);
        tokio::time::sleep(Duration::from_millis(term % 40)).await;
        term += 1;
    }
    reading.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_are_purged_while_being_read_are_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    append(&mut store, entries(1, 0..=3000)).await;
    forget(&store);
    let mut reader = store.clone();
    let reading = tokio::spawn(async move {
        loop {
            let found = read(&mut reader, 0..=3000).await;
            assert_eq!(found.last().map(|entry| entry.log_id.index), Some(3000));
            if found.len() == 1 {
                return;
            }
        }
    });
    for upto in (0..3000).step_by(3) {
        store.purge(id(1, upto)).await.unwrap();
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    store.purge(id(1, 2999)).await.unwrap();
    soon(reading).await.unwrap();
    assert_eq!(store.health(), None);
}
