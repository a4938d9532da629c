//! Consensus messages that no node of a working cluster sends, and transfers that are cut short.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use openraft::errors::{ReplicationClosed, StreamingError};
use openraft::network::{RPCOption, RaftNetworkV2};
use tokio::time::{sleep, timeout};

use super::node::{Node, cluster, leader};
use super::scripted::{Follower, log_id};
use super::{SOON, identity};
use crate::consensus::Snapshot;
use crate::consensus::network::codec::encode;
use crate::consensus::network::{APPEND, PRE_VOTE, TRANSFER, VOTE};
use crate::consensus::types::{Candidate, SnapshotMeta, StoredMembership, Vote};
use crate::error::{Code, Failure};
use crate::snapshot::SnapshotFile;
use crate::transport::{Peer, Peers};

fn meta(index: u64) -> SnapshotMeta {
    SnapshotMeta { last_log_id: Some(log_id(index)), last_membership: StoredMembership::default() }
}

fn vote(term: u64, committed: bool) -> Vote {
    Vote { leader_id: Candidate { term, node_id: 2 }, committed }
}

fn some_file(len: usize) -> (SnapshotFile, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    File::create(&path).unwrap().write_all(&vec![1; len]).unwrap();
    let file = Arc::new(File::open(&path).unwrap());
    (SnapshotFile { path, file, len: len as u64 }, dir)
}

async fn alone() -> Node {
    let mut nodes = cluster(1).await;
    leader(&[&nodes[0]]).await;
    nodes[0].write(b"alive".to_vec()).await;
    nodes.remove(0)
}

#[tokio::test]
async fn malformed_calls_are_errors_and_the_node_lives_on() {
    let node = alone().await;
    let peers = Peers::new(|| identity(2));
    for kind in [VOTE, PRE_VOTE, TRANSFER, APPEND] {
        for body in [&b""[..], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", &[0; 100]] {
            let call = peers.call(node.transport.address(), Some(1), kind, Bytes::from_static(body), SOON);
            assert_eq!(call.await.unwrap_err().code, Code::Corrupt, "kind {kind}, {body:?}");
        }
    }
    let unknown = peers.call(node.transport.address(), Some(1), 31, Bytes::new(), SOON).await;
    assert_eq!(unknown.unwrap_err().code, Code::Invalid);
    node.write(b"still".to_vec()).await;
    node.kill().await;
}

#[tokio::test]
async fn a_malformed_append_request_ends_its_stream_and_nothing_else() {
    let node = alone().await;
    let peers = Peers::new(|| identity(2));
    let (mut sender, mut receiver) = peers.open_append(node.transport.address(), 1, SOON).await.unwrap();
    sender.push(&[Bytes::from_static(b"nonsense")]).unwrap();
    sender.flush().await.unwrap();
    let end = timeout(SOON, receiver.next()).await.unwrap();
    assert!(!matches!(end, Ok(Some(_))), "{end:?}");
    node.write(b"still".to_vec()).await;
    node.kill().await;
}

#[tokio::test]
async fn a_snapshot_that_no_leader_sends_is_refused_before_or_after_it_is_received() {
    let node = alone().await;
    let peers = Peers::new(|| identity(2));
    let other_file = tempfile::tempdir().unwrap();
    let other = super::memory::Directory::new(other_file.path().to_path_buf()).write(&meta(900), b"data");
    let (noise, _dir) = some_file(3);
    let cases: [(Bytes, SnapshotFile); 6] = [
        (Bytes::from_static(b"junk"), other.clone()),
        (encode(&(vote(9, false), meta(900))).unwrap(), other.clone()),
        (encode(&(vote(0, true), meta(900))).unwrap(), other.clone()),
        // It says that another entry was committed at the first index.
        (encode(&(vote(9, true), meta(1))).unwrap(), other.clone()),
        (encode(&(vote(9, true), meta(800))).unwrap(), other.clone()),
        (encode(&(vote(9, true), meta(900))).unwrap(), noise),
    ];
    for (number, (head, file)) in cases.into_iter().enumerate() {
        let sent = peers.send_snapshot(node.transport.address(), 1, head, file, SOON).await;
        assert_eq!(sent.unwrap_err().code, Code::Corrupt, "case {number}");
    }
    node.write(b"still".to_vec()).await;
    node.kill().await;
}

#[tokio::test]
async fn a_newer_snapshot_takes_the_place_of_one_that_is_stuck() {
    let node = alone().await;
    let directory = node.directory.clone();
    let inbound = crate::consensus::network::RaftInbound::new(node.raft.clone(), Arc::new(directory.clone()));
    let from = Peer { node: 2, name: "server2".into(), address: String::new(), cluster: None, stranger: false };
    let head = encode(&(vote(9, true), meta(900))).unwrap();
    let first_chunk = stream::iter([Ok(Bytes::from_static(b"first"))]);
    let stuck = futures_util::StreamExt::chain(first_chunk, stream::pending::<Result<Bytes, Failure>>());
    let stuck = tokio::spawn(inbound.snapshot(from.clone(), head.clone(), Box::pin(stuck)));
    let written = async {
        while directory.files() == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, written).await.unwrap();
    let broken = stream::iter([Err(Failure::new(Code::Unavailable, "gone"))]);
    let next = inbound.snapshot(from, head, Box::pin(broken)).await;
    assert_eq!(next.unwrap_err().message, "gone");
    let replaced = timeout(SOON, stuck).await.unwrap().unwrap().unwrap_err();
    assert!(replaced.message.contains("took the place"), "{replaced}");
    let cleaned = async {
        while directory.files() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, cleaned).await.unwrap();
    node.kill().await;
}

#[tokio::test]
async fn sending_a_snapshot_stops_when_openraft_says_so_and_when_its_time_is_up() {
    // This follower never takes anything in, but gives signs of life.
    let follower = Follower::start(|_, _| Box::pin(stream::pending())).await;
    let mut client = follower.client().await;
    let (file, _dir) = some_file(1000);
    let snapshot = || Snapshot { meta: meta(1), snapshot: file.clone() };
    let cancel = async {
        sleep(Duration::from_millis(100)).await;
        ReplicationClosed::new("enough")
    };
    let sending = client.full_snapshot(vote(1, true), snapshot(), cancel, RPCOption::new(SOON));
    let outcome = timeout(SOON / 2, sending).await.unwrap();
    assert!(matches!(outcome, Err(StreamingError::Closed(_))), "{outcome:?}");
    let never = std::future::pending::<ReplicationClosed>();
    let sending = client.full_snapshot(vote(1, true), snapshot(), never, RPCOption::new(Duration::from_secs(2)));
    let outcome = timeout(SOON / 2, sending).await.unwrap();
    assert!(matches!(outcome, Err(StreamingError::Timeout(_))), "{outcome:?}");
}
