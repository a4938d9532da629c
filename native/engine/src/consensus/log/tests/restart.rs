//! What was acknowledged is there after closing and opening, whatever was done.

use std::fs;
use std::time::Instant;

use super::*;
use crate::consensus::log::state::{Operation, State};
use crate::error::Code;

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.save_vote(&vote(3)).await.unwrap();
    append(&mut store, entries(1, 0..=9)).await;
    store.save_committed(Some(id(1, 7))).await.unwrap();
    store.close();

    let mut store = open(dir.path());
    assert_eq!(store.read_vote().await.unwrap(), Some(vote(3)));
    assert_eq!(store.read_committed().await.unwrap(), Some(id(1, 7)));
    assert_eq!(ends(&mut store).await, (None, Some(9)));
    assert_eq!(read(&mut store, 0..=9).await, entries(1, 0..=9));
}

#[tokio::test]
async fn a_truncated_end_stays_gone_and_can_be_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    append(&mut store, entries(1, 0..=9)).await;
    store.truncate_after(Some(id(1, 4))).await.unwrap();
    assert_eq!(read(&mut store, 0..=9).await, entries(1, 0..=4));
    store.close();

    let mut store = open(dir.path());
    assert_eq!(ends(&mut store).await, (None, Some(4)));
    assert_eq!(read(&mut store, 0..=9).await, entries(1, 0..=4));
    append(&mut store, entries(2, 5..=6)).await;
    store.close();

    let mut store = open(dir.path());
    assert_eq!(ends(&mut store).await, (None, Some(6)));
    let expected = [entries(1, 0..=4), entries(2, 5..=6)].concat();
    assert_eq!(read(&mut store, 0..=9).await, expected);
}

/// Found by the simulation: the power went after a new file had its name and before it had its header. The node started and
/// wrote on in that file, in an older format of raft-engine's, and the next start refused it as damaged.
#[tokio::test]
async fn a_new_file_whose_header_was_lost_in_a_power_cut_costs_nothing() {
    for content in [Vec::new(), vec![0; 4096]] {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        append(&mut store, entries(1, 0..=9)).await;
        store.close();
        fs::write(dir.path().join("0000000000000002.raftlog"), content).unwrap();
        for round in 1..=3 {
            let mut store = open(dir.path());
            assert_eq!(ends(&mut store).await, (None, Some(9 * round)));
            append(&mut store, entries(1, 9 * round + 1..=9 * round + 9)).await;
            store.close();
        }
        let mut store = open(dir.path());
        assert_eq!(read(&mut store, 0..=36).await, entries(1, 0..=36));
    }
}

/// A batch on its way when a new leader's entries replaced others carried the position up to which the new ones are
/// committed, as if the old ones were.
#[test]
fn a_position_is_noted_as_committed_only_beside_the_very_entry() {
    let mut state = State::default();
    let old = Some(id(5, 9));
    state.append(entries(5, 0..=9)).unwrap();
    state.push(Operation::Purge { upto: id(5, 0) });
    state.truncate(Some(id(5, 3)));
    state.push(Operation::Truncate { after: Some(id(5, 3)) });
    state.append(entries(3, 4..=7)).unwrap();
    state.push(Operation::Purge { upto: id(5, 1) });
    state.marks.committed = Some(id(3, 6));
    assert_eq!(state.committed_by(1, old), None, "the files hold 5/6");
    assert_eq!(state.committed_by(2, Some(id(5, 3))), None, "they hold nothing there");
    assert_eq!(state.committed_by(3, Some(id(3, 7))), Some(Some(id(3, 6))));
    state.finished(2);
    assert_eq!(state.committed_by(0, Some(id(5, 3))), None);
    assert_eq!(state.committed_by(1, Some(id(3, 7))), Some(Some(id(3, 6))));
}

#[tokio::test]
async fn a_log_truncated_to_nothing_may_begin_earlier() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    append(&mut store, entries(1, 5..=9)).await;
    store.truncate_after(None).await.unwrap();
    append(&mut store, entries(2, 0..=2)).await;
    store.close();

    let mut store = open(dir.path());
    assert_eq!(read(&mut store, 0..=9).await, entries(2, 0..=2));
}

#[tokio::test]
async fn a_purge_beyond_the_end_leaves_an_empty_log_that_goes_on_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    append(&mut store, entries(1, 0..=9)).await;
    store.purge(id(2, 100)).await.unwrap();
    append(&mut store, entries(2, 101..=103)).await;
    store.close();

    let mut store = open(dir.path());
    assert_eq!(ends(&mut store).await, (Some(100), Some(103)));
    assert_eq!(read(&mut store, 0..=200).await, entries(2, 101..=103));
    store.purge(id(2, 103)).await.unwrap();
    store.close();

    let mut store = open(dir.path());
    assert_eq!(ends(&mut store).await, (Some(103), Some(103)));
    append(&mut store, entries(2, 104..=104)).await;
    assert_eq!(read(&mut store, 0..=200).await, entries(2, 104..=104));
}

#[tokio::test]
async fn purging_gives_files_back_and_never_rewrites() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let mut most = 0;
    for round in 0..60 {
        let first = round * 50;
        append(&mut store, (first..first + 50).map(|index| entry(1, index, 1000)).collect()).await;
        if round % 2 == 1 {
            store.purge(id(1, first)).await.unwrap();
        }
        most = most.max(files(dir.path(), ".raftlog"));
    }
    assert!(most * (32 << 10) < 60 * 50 * 1000 / 4, "{most} files at most, for three megabytes written");
    store.close();
    for path in paths(dir.path(), ".rewrite") {
        assert!(fs::metadata(path).unwrap().len() < 100, "nothing but the header was ever rewritten");
    }

    let mut store = open(dir.path());
    assert_eq!(ends(&mut store).await, (Some(2950), Some(2999)));
    let expected: Vec<Entry> = (2951..3000).map(|index| entry(1, index, 1000)).collect();
    assert_eq!(read(&mut store, 0..=5000).await, expected);
}

/// A node that is started again and again purges no further than to what it had at its last start.
#[tokio::test]
async fn files_are_given_back_though_the_log_is_opened_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    // So that most files are not even read at the start.
    let options = LogOptions { verify_bytes: 64 << 10, ..small() };
    let mut most = 0;
    for life in 0..40 {
        let mut store = LogStore::open(dir.path(), options.clone()).unwrap();
        let first = life * 51;
        append(&mut store, (first..first + 50).map(|index| entry(1, index, 1000)).collect()).await;
        store.purge(id(1, first.saturating_sub(10))).await.unwrap();
        append(&mut store, vec![entry(1, first + 50, 1000)]).await;
        most = most.max(files(dir.path(), ".raftlog"));
        store.close();
    }
    assert!(most <= 14, "{most} files of 32 KiB, of which 128 KiB are kept");
    let mut store = LogStore::open(dir.path(), options).unwrap();
    assert_eq!(ends(&mut store).await, (Some(1979), Some(2039)));
    let expected: Vec<Entry> = (1980..2039).map(|index| entry(1, index, 1000)).collect();
    assert_eq!(read(&mut store, 1980..=2038).await, expected);
    for path in paths(dir.path(), ".rewrite") {
        assert!(fs::metadata(path).unwrap().len() < 100, "nothing but the header was ever rewritten");
    }
}

/// What raft-engine still has beyond the log's end keeps its files: given back, it would be rewritten.
#[tokio::test]
async fn entries_beyond_the_end_that_were_not_overwritten_keep_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    append(&mut store, (0..400).map(|index| entry(1, index, 1000)).collect()).await;
    store.truncate_after(Some(id(1, 20))).await.unwrap();
    store.save_vote(&vote(9)).await.unwrap();
    store.close();
    let mut store = open(dir.path());
    store.purge(id(1, 20)).await.unwrap();
    store.save_vote(&vote(10)).await.unwrap();
    for path in paths(dir.path(), ".rewrite") {
        assert!(fs::metadata(path).unwrap().len() < 100, "nothing but the header was ever rewritten");
    }
    append(&mut store, (21..60).map(|index| entry(2, index, 1000)).collect()).await;
    store.close();
    let mut store = open(dir.path());
    assert_eq!(read(&mut store, 0..=5000).await, (21..60).map(|index| entry(2, index, 1000)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_second_opener_is_told_that_the_log_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let refused = LogStore::open(dir.path(), small()).err().unwrap();
    assert_eq!(refused.code, Code::Locked);
    store.close();
    open(dir.path());
}

#[tokio::test]
async fn after_closing_everything_says_closed() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    append(&mut store, entries(1, 0..=3)).await;
    store.close();
    store.close();
    assert!(store.save_vote(&vote(1)).await.unwrap_err().to_string().contains("closed"));
    assert!(store.try_get_log_entries(0..=3).await.unwrap_err().to_string().contains("closed"));
    assert_eq!(store.health(), None);
}

#[tokio::test]
async fn closing_makes_durable_what_is_queued_and_answers_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let mut waiting = Vec::new();
    for index in 0..200 {
        waiting.push(send(&mut store, entries(1, index..=index)).await);
    }
    store.close();
    for durable in waiting {
        soon(durable).await.unwrap().unwrap();
    }
    let mut store = open(dir.path());
    assert_eq!(read(&mut store, 0..=300).await, entries(1, 0..=199));
}

#[tokio::test]
async fn the_committed_position_reaches_the_disk_without_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    append(&mut store, entries(1, 0..=3)).await;
    let syncs = store.stats().syncs;
    tokio::time::sleep(Duration::from_millis(100)).await;
    store.save_committed(Some(id(1, 2))).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(store.stats().syncs, syncs);
    copy_files(dir.path(), copy.path());
    let mut crashed = open(copy.path());
    assert_eq!(crashed.read_committed().await.unwrap(), Some(id(1, 2)));
}

#[tokio::test]
async fn a_million_entries_open_in_well_under_two_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions::new("million", 0);
    let mut store = LogStore::open(dir.path(), options.clone()).unwrap();
    let mut last = None;
    for batch in 0..4000_u64 {
        let indexes = batch * 250..=batch * 250 + 249;
        last = Some(send(&mut store, indexes.map(|index| entry(1, index, 100)).collect()).await);
    }
    soon(last.unwrap()).await.unwrap().unwrap();
    store.close();

    let begin = Instant::now();
    let mut store = LogStore::open(dir.path(), options).unwrap();
    let took = begin.elapsed();
    assert_eq!(ends(&mut store).await, (None, Some(999_999)));
    println!("opened in {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}

pub fn paths(dir: &Path, suffix: &str) -> Vec<std::path::PathBuf> {
    let all = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = all.filter(|path| path.to_str().unwrap().ends_with(suffix)).collect();
    found.sort();
    found
}

fn files(dir: &Path, suffix: &str) -> usize {
    paths(dir, suffix).len()
}

/// Copies the files as they are now: what a process that is killed at this moment leaves behind.
pub fn copy_files(from: &Path, to: &Path) {
    for path in paths(from, "") {
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}
