//! Three nodes and their troubles.

use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::VoteRequest;

use super::SOON;
use super::node::{Node, cluster, leader};
use crate::consensus::network::Network;
use crate::consensus::types::{Candidate, Vote};

fn by_id(nodes: &[Node], id: u64) -> &Node {
    nodes.iter().find(|node| node.id == id).unwrap()
}

async fn end(nodes: Vec<Node>) {
    for node in nodes {
        node.kill().await;
    }
}

#[tokio::test]
async fn a_thousand_writes_reach_all_three_nodes_in_order_under_one_leader() {
    let nodes = cluster(3).await;
    let first = leader(&nodes.iter().collect::<Vec<_>>()).await;
    let writer = by_id(&nodes, first);
    let mut last = 0;
    for round in 0..100u32 {
        let writes = (0..10).map(|number| writer.write((round * 10 + number).to_le_bytes().to_vec()));
        last = futures_util::future::join_all(writes).await.into_iter().max().unwrap();
    }
    let expected: Vec<u8> = (0..1000u32).flat_map(u32::to_le_bytes).collect();
    for node in &nodes {
        node.applied(last).await;
        assert_eq!(node.state.lock().data, expected, "node {}", node.id);
    }
    assert_eq!(leader(&nodes.iter().collect::<Vec<_>>()).await, first);
    let stats = writer.peers.stats();
    assert!(stats.iter().all(|peer| peer.connected && peer.round_trip_us.is_some()), "{stats:?}");
    end(nodes).await;
}

#[tokio::test]
async fn when_the_leader_is_killed_another_takes_over_and_nothing_is_lost() {
    let nodes = cluster(3).await;
    let first = leader(&nodes.iter().collect::<Vec<_>>()).await;
    for number in 0..100u8 {
        by_id(&nodes, first).write(vec![number]).await;
    }
    by_id(&nodes, first).kill().await;
    let left: Vec<&Node> = nodes.iter().filter(|node| node.id != first).collect();
    let second = leader(&left).await;
    let mut last = 0;
    for number in 100..200u8 {
        last = by_id(&nodes, second).write(vec![number]).await;
    }
    for node in &left {
        node.applied(last).await;
        assert_eq!(node.state.lock().data, (0..200).collect::<Vec<u8>>(), "node {}", node.id);
    }
    for node in left {
        node.kill().await;
    }
}

#[tokio::test]
async fn a_node_that_lags_behind_the_log_gets_a_snapshot_of_several_megabytes_and_then_the_rest() {
    let mut nodes = cluster(2).await;
    let first = leader(&nodes.iter().collect::<Vec<_>>()).await;
    let writer = by_id(&nodes, first);
    let mut last = 0;
    for number in 0..120u8 {
        last = writer.write(vec![number; 64 << 10]).await;
    }
    writer.raft.trigger().snapshot().await.unwrap();
    let purged = writer.raft.wait(Some(SOON));
    purged.metrics(|metrics| metrics.purged.is_some_and(|purged| purged.index >= last), "purged").await.unwrap();
    nodes.push(Node::start(3).await);
    let (writer, late) = (by_id(&nodes, first), by_id(&nodes, 3));
    let added = writer.raft.add_learner(3, late.member(), true);
    tokio::time::timeout(SOON, added).await.unwrap().unwrap();
    let last = writer.write(b"after".to_vec()).await;
    late.applied(last).await;
    assert_eq!(late.state.lock().data.len(), (120 << 16) + 5);
    assert_eq!(late.state.lock().data, writer.state.lock().data);
    assert_eq!(late.directory.begun(), 1, "it came as a snapshot");
    end(nodes).await;
}

#[tokio::test]
async fn leadership_goes_to_the_node_that_it_is_handed_to() {
    let nodes = cluster(3).await;
    let all: Vec<&Node> = nodes.iter().collect();
    let first = leader(&all).await;
    by_id(&nodes, first).write(b"x".to_vec()).await;
    let heir = if first == 1 { 2 } else { 1 };
    let handed = async {
        while leader(&all).await != heir {
            // A transfer may fail when the heir is not up to date yet.
            let leads = leader(&all).await;
            by_id(&nodes, leads).raft.trigger().transfer_leader(heir).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        }
    };
    tokio::time::timeout(SOON, handed).await.unwrap();
    end(nodes).await;
}

#[tokio::test]
async fn a_pre_vote_is_answered_by_the_other_node_and_not_made_up() {
    let nodes = cluster(3).await;
    let first = leader(&nodes.iter().collect::<Vec<_>>()).await;
    by_id(&nodes, first).write(b"x".to_vec()).await;
    let asking = nodes.iter().find(|node| node.id != first).unwrap();
    let asked = nodes.iter().find(|node| node.id != first && node.id != asking.id).unwrap();
    let mut network = Network::new(asking.peers.clone(), asking.id);
    let mut client = network.new_client(asked.id, &asked.member()).await;
    let vote = Vote { leader_id: Candidate { term: 1_000, node_id: asking.id }, committed: false };
    let answer = client.pre_vote(VoteRequest::new(vote, None), RPCOption::new(SOON)).await.unwrap();
    assert!(!answer.vote_granted, "a node that hears its leader and has a longer log must not grant");
    asked.kill().await;
    assert!(client.pre_vote(VoteRequest::new(vote, None), RPCOption::new(SOON)).await.is_err());
    for node in nodes.iter().filter(|node| node.id != asked.id) {
        node.kill().await;
    }
}
