//! Append streams and snapshots.

use std::fs::File;
use std::io::Write;

use super::*;
use crate::limits::SNAPSHOT_CHUNK_BYTES;
use crate::snapshot::SnapshotFile;

fn file(len: usize) -> (SnapshotFile, u32, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("snapshot");
    let data: Vec<u8> = (0..len).map(|at| (at / 3) as u8).collect();
    File::create(&path).unwrap().write_all(&data).unwrap();
    let opened = Arc::new(File::open(&path).unwrap());
    (SnapshotFile { path, file: opened, len: len as u64 }, crc32fast::hash(&data), dir)
}

#[tokio::test]
async fn frames_of_an_append_stream_come_back_in_order_small_and_large_while_more_are_being_sent() {
    let transport = serve(Arc::new(Echo::new(identity(1, Some(7))))).await;
    let peers = peers(identity(2, Some(7)));
    let (mut sender, mut receiver) = peers.open_append(transport.address(), 1, SOON).await.unwrap();
    assert!(peers.stats()[0].connected);
    let frame = |number: u32| Bytes::from(number.to_le_bytes().repeat(1 + (number as usize % 7) * 1000));
    let (mut sent, mut received) = (0, 0);
    while received < 2000 {
        if sent < 2000 && sender.queued() < 100_000 {
            sender.push(&[frame(sent)]).unwrap();
            sent += 1;
        }
        tokio::select! {
            biased;
            answer = receiver.next(), if sent > 0 => {
                assert_eq!(answer.unwrap().unwrap(), frame(received));
                received += 1;
            }
            flushed = sender.flush(), if sender.unflushed() => flushed.unwrap(),
            else => {}
        }
    }
    drop((sender, receiver));
    assert!(!peers.stats()[0].connected);
}

#[tokio::test]
async fn closing_the_server_ends_the_stream_for_the_sender() {
    let transport = serve(Arc::new(Echo::new(identity(1, Some(7))))).await;
    let peers = peers(identity(2, Some(7)));
    let (_sender, mut receiver) = peers.open_append(transport.address(), 1, SOON).await.unwrap();
    transport.close().await;
    let end = timeout(SOON, receiver.next()).await.unwrap();
    assert!(!matches!(end, Ok(Some(_))), "{end:?}");
}

#[tokio::test]
async fn a_snapshot_arrives_whole_and_the_answer_comes_back() {
    for len in [0, 1, SNAPSHOT_CHUNK_BYTES, 5 * SNAPSHOT_CHUNK_BYTES + 17] {
        let echo = Arc::new(Echo::new(identity(1, Some(7))));
        let transport = serve(echo.clone()).await;
        let (file, hash, _dir) = file(len);
        let peers = peers(identity(2, Some(7)));
        let head = Bytes::from_static(b"head");
        let answer = peers.send_snapshot(transport.address(), 1, head, file, SOON).await.unwrap();
        assert_eq!(answer, [b"head", &hash.to_le_bytes()[..]].concat());
        assert_eq!(*echo.snapshot.lock(), Some(Ok(len)));
        assert_eq!(peers.stats()[0].snapshot, None);
    }
}

#[tokio::test]
async fn a_receiver_that_cannot_go_on_says_so_before_the_whole_file_was_sent() {
    let echo = Arc::new(Echo { disk_full: true, ..Echo::new(identity(1, Some(7))) });
    let transport = serve(echo.clone()).await;
    let (file, _, _dir) = file(64 << 20);
    let peers = peers(identity(2, Some(7)));
    let outcome = peers.send_snapshot(transport.address(), 1, Bytes::new(), file, SOON).await;
    let failure = outcome.unwrap_err();
    assert!(failure.code == Code::Io || failure.code == Code::Unavailable, "{failure}");
    assert!(peers.stats()[0].last_error.is_some());
}

#[tokio::test]
async fn a_sender_that_gives_up_leaves_the_receiver_with_an_error_not_with_a_short_file() {
    let echo = Arc::new(Echo::new(identity(1, Some(7))));
    let transport = serve(echo.clone()).await;
    let (mut file, _, _dir) = file(3 * SNAPSHOT_CHUNK_BYTES);
    // The file is shorter than it claims, so that reading it fails in the middle.
    file.len += 1;
    let peers = peers(identity(2, Some(7)));
    let outcome = peers.send_snapshot(transport.address(), 1, Bytes::new(), file, SOON).await;
    assert_eq!(outcome.unwrap_err().code, Code::Io);
    eventually("the receiver notices", || echo.snapshot.lock().is_some()).await;
    assert_eq!(echo.snapshot.lock().clone().unwrap().unwrap_err().code, Code::Unavailable);
}

#[tokio::test]
async fn a_receiver_that_stops_taking_chunks_is_noticed() {
    let (address, hold) = welcomes_and_then_stops().await;
    let (file, _, _dir) = file(32 << 20);
    let peers = peers(identity(2, Some(7)));
    let stall = Duration::from_millis(300);
    let outcome = timeout(SOON, peers.send_snapshot(&address, 1, Bytes::new(), file, stall)).await.unwrap();
    assert_eq!(outcome.unwrap_err().code, Code::Timeout);
    hold.abort();
}
