//! A node: a real openraft core with this network, over loopback.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use openraft::Raft;
use parking_lot::Mutex;

use super::memory::{Directory, MemoryLog, MemoryMachine, State};
use super::{SOON, identity};
use crate::command::Batch;
use crate::consensus::network::{Network, RaftInbound, is_consensus_call};
use crate::consensus::types::{Member, TypeConfig};
use crate::error::Failure;
use crate::transport::{Identity, Peer, Peers, Service, Transport};

#[derive(Clone)]
pub struct Inbound {
    id: u64,
    raft: Arc<Mutex<Option<Arc<RaftInbound>>>>,
}

impl Inbound {
    fn get(&self) -> Result<Arc<RaftInbound>, Failure> {
        self.raft.lock().clone().ok_or_else(Failure::closed)
    }
}

impl Service for Inbound {
    fn identity(&self) -> Identity {
        identity(self.id)
    }

    fn call(&self, from: Peer, kind: u8, body: Bytes) -> BoxFuture<'static, Result<Bytes, Failure>> {
        let inbound = self.get();
        Box::pin(async move {
            assert!(is_consensus_call(kind));
            inbound?.call(from, kind, body).await
        })
    }

    fn append_stream(&self, from: Peer, input: BoxStream<'static, Bytes>) -> BoxStream<'static, Bytes> {
        self.get().map_or_else(|_| stream::empty().boxed(), |inbound| inbound.append_stream(from, input))
    }

    fn snapshot(
        &self,
        from: Peer,
        head: Bytes,
        chunks: BoxStream<'static, Result<Bytes, Failure>>,
    ) -> BoxFuture<'static, Result<Bytes, Failure>> {
        let inbound = self.get();
        Box::pin(async move { inbound?.snapshot(from, head, chunks).await })
    }
}

pub struct Node {
    pub id: u64,
    pub raft: Raft<TypeConfig, MemoryMachine>,
    pub transport: Transport,
    pub peers: Peers,
    pub state: Arc<Mutex<State>>,
    pub directory: Directory,
    _files: tempfile::TempDir,
}

impl Node {
    pub async fn start(id: u64) -> Node {
        let inbound = Inbound { id, raft: Arc::default() };
        let transport = Transport::listen("127.0.0.1:0", Arc::new(inbound.clone())).await.unwrap();
        let peers = Peers::new(move || identity(id));
        let files = tempfile::tempdir().unwrap();
        let (state, directory) = (Arc::default(), Directory::new(files.path().to_path_buf()));
        let config = openraft::Config {
            heartbeat_interval: 100,
            election_timeout_min: 500,
            election_timeout_max: 1000,
            enable_pre_vote: Some(true),
            install_snapshot_timeout: 60_000,
            snapshot_policy: openraft::SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: 0,
            purge_batch_size: 1,
            ..openraft::Config::default()
        };
        let network = Network::new(peers.clone(), id);
        let machine = MemoryMachine { state: Arc::clone(&state), directory: directory.clone() };
        let raft = Raft::new(id, Arc::new(config), network, MemoryLog::default(), machine).await.unwrap();
        let consensus = RaftInbound::new(raft.clone(), Arc::new(directory.clone()));
        *inbound.raft.lock() = Some(Arc::new(consensus));
        Node { id, raft, transport, peers, state, directory, _files: files }
    }

    pub fn member(&self) -> Member {
        Member { name: format!("server{}", self.id), address: self.transport.address().to_owned() }
    }

    /// Writes and waits until it is applied here.
    pub async fn write(&self, data: Vec<u8>) -> u64 {
        let written = self.raft.client_write(Batch(Bytes::from(data)));
        let written = tokio::time::timeout(SOON, written).await.expect("a write in time");
        written.expect("a write").log_id.index
    }

    pub async fn applied(&self, index: u64) {
        self.raft.wait(Some(SOON)).applied_index_at_least(Some(index), "applied").await.unwrap();
    }

    /// As if the process were gone.
    pub async fn kill(&self) {
        self.transport.close().await;
        self.raft.shutdown().await.unwrap();
        self.peers.close();
    }
}

/// Starts a cluster of nodes with the ids from 1 on.
pub async fn cluster(size: u64) -> Vec<Node> {
    let mut nodes = Vec::new();
    for id in 1..=size {
        nodes.push(Node::start(id).await);
    }
    let members: std::collections::BTreeMap<_, _> = nodes.iter().map(|node| (node.id, node.member())).collect();
    nodes[0].raft.initialize(members).await.unwrap();
    nodes
}

/// The node that leads, once all `nodes` agree on it.
pub async fn leader(nodes: &[&Node]) -> u64 {
    let agreed = async {
        loop {
            let mut leaders = Vec::new();
            for node in nodes {
                leaders.push(node.raft.current_leader().await);
            }
            if let Some(leader) = leaders[0]
                && leaders.iter().all(|other| *other == Some(leader))
                && nodes.iter().any(|node| node.id == leader)
            {
                return leader;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, agreed).await.expect("a leader in time")
}
