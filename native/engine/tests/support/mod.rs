//! A cluster of real nodes in one process: real ports on loopback, real disks in a temporary directory.
#![allow(dead_code, clippy::unwrap_used)]

pub mod certificates;
pub mod host;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_engine::NodeConfig;
use quorate_engine::error::{Code, Failure};
use quorate_engine::kv::op::{Condition, GetAnswer, Read, Txn, TxnOutcome};
use quorate_engine::machine::Outcome;
use quorate_engine::node::{LeaderEvent, Node, Observer};
use quorate_engine::session::Consistency;
use tempfile::TempDir;

/// Long enough for anything that works.
pub const LONG: Duration = Duration::from_secs(30);

/// Keeps the leader events of a node.
#[derive(Default)]
pub struct Events(pub Mutex<Vec<LeaderEvent>>);

impl Observer for Events {
    fn completed(&self, outcomes: Vec<(u64, Outcome)>) {
        panic!("nobody submitted by ticket: {outcomes:?}");
    }

    fn leader(&self, event: &LeaderEvent) {
        self.0.lock().push(event.clone());
    }
}

/// Waits for a future on this thread.
pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A port that is free now.
pub fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Waits until `holds`, for as long as [`LONG`].
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < LONG, "{what} did not happen in {LONG:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// With QUORATE_LOG=debug (or another level) in the environment, the log of a failing test is shown.
fn show_log() {
    if let Some(level) = std::env::var("QUORATE_LOG").ok().and_then(|level| level.parse::<tracing::Level>().ok()) {
        // Only the first test of a process gets to set it.
        drop(tracing_subscriber::fmt().with_max_level(level).with_test_writer().try_init());
    }
}

/// Nodes by name, some of them running.
pub struct Cluster {
    directory: TempDir,
    pub servers: BTreeMap<String, String>,
    pub nodes: BTreeMap<String, Node>,
    pub tune: fn(&mut NodeConfig),
}

impl Cluster {
    /// `names`, none of them running.
    pub fn new(names: &[&str]) -> Cluster {
        show_log();
        let servers = names.iter().map(|name| (name.to_string(), free_address())).collect();
        Cluster { directory: tempfile::tempdir().unwrap(), servers, nodes: BTreeMap::new(), tune: |_| {} }
    }

    /// `names`, all of them running.
    pub fn start_all(names: &[&str]) -> Cluster {
        let mut cluster = Cluster::new(names);
        names.iter().for_each(|name| cluster.start(name));
        cluster.settle();
        cluster
    }

    /// Waits until every running node is a voter.
    pub fn settle(&self) {
        let mut ids: Vec<String> = Vec::new();
        eventually("every node voting", || {
            ids = self.nodes.values().map(id).collect();
            let status = self.node(&self.leader()).status();
            let members = status.split(":members [").nth(1).unwrap_or("").split(']').next().unwrap_or("").to_string();
            let voters = members.split('}').filter(|member| member.contains(":voter true"));
            let voters: Vec<&str> = voters.collect();
            ids.iter().all(|id| voters.iter().any(|voter| voter.contains(id)))
        });
        // Seen as voters they may be in a change that is half-way, which needs the former majority, too. The next change waits for it.
        let leader = self.leader();
        if let Some(other) = self.nodes.keys().find(|name| **name != leader) {
            block_on(self.node(&leader).add_member(other, &self.servers[other], true, LONG)).unwrap();
        }
    }

    pub fn config(&self, name: &str) -> NodeConfig {
        let mut config = NodeConfig::new(name, self.servers.clone(), self.data_dir(name));
        config.heartbeat_ms = 50;
        config.election_timeout_ms = 300;
        (self.tune)(&mut config);
        config
    }

    pub fn data_dir(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn start(&mut self, name: &str) {
        let node = Node::start(self.config(name), Arc::new(Events::default())).unwrap();
        self.nodes.insert(name.to_string(), node);
    }

    pub fn stop(&mut self, name: &str) {
        self.nodes.remove(name).unwrap().close();
    }

    pub fn wipe(&self, name: &str) {
        std::fs::remove_dir_all(self.data_dir(name)).unwrap();
    }

    pub fn node(&self, name: &str) -> &Node {
        &self.nodes[name]
    }

    /// The name of the leader that all running nodes agree on.
    pub fn leader(&self) -> String {
        let mut agreed = None;
        eventually("agreement on a leader", || {
            let mut leaders: Vec<_> = self.nodes.values().map(Node::leader).collect();
            leaders.dedup();
            agreed = if leaders.len() == 1 { leaders.remove(0) } else { None };
            agreed.is_some()
        });
        agreed.unwrap()
    }

    /// The leader, as all but `except` see it.
    pub fn leader_of_the_others(&self, except: &str) -> String {
        let others = || self.nodes.iter().filter(|(name, _)| *name != except).map(|(_, node)| node.leader());
        eventually("a leader", || others().all(|leader| leader.is_some() && leader == others().next().flatten()));
        others().next().flatten().unwrap()
    }

    pub fn follower(&self) -> String {
        let leader = self.leader();
        self.nodes.keys().find(|name| **name != leader).unwrap().clone()
    }

    pub fn put(&self, node: &str, key: &str, value: &str) -> Result<TxnOutcome, Failure> {
        self.put_within(node, key, value, LONG)
    }

    pub fn put_within(&self, node: &str, key: &str, value: &str, timeout: Duration) -> Result<TxnOutcome, Failure> {
        let command = Txn::put(key.to_string(), value.to_string()).encode()?;
        TxnOutcome::decode(block_on(self.node(node).write(command.into(), timeout))?)
    }

    pub fn put_if_absent(&self, node: &str, key: &str, value: &str) -> TxnOutcome {
        let command = Txn::put_if(key.to_string(), Condition::Absent, value.to_string()).encode().unwrap();
        TxnOutcome::decode(block_on(self.node(node).write(command.into(), LONG)).unwrap()).unwrap()
    }

    pub fn get(&self, node: &str, key: &str) -> Result<Option<String>, Failure> {
        self.get_within(node, key, Consistency::Linearizable, LONG)
    }

    pub fn get_within(
        &self,
        node: &str,
        key: &str,
        how: Consistency,
        timeout: Duration,
    ) -> Result<Option<String>, Failure> {
        let read = Read::Get { key: Bytes::from(key.to_string()) }.encode();
        let answer = GetAnswer::decode(block_on(self.node(node).read(how, read.into(), timeout))?)?;
        Ok(answer.found.map(|entry| String::from_utf8(entry.value.to_vec()).unwrap()))
    }

    /// Waits until `node` itself has applied `key = value`.
    pub fn sees(&self, node: &str, key: &str, value: &str) {
        eventually(&format!("{node} seeing {key} = {value}"), || {
            self.get_within(node, key, Consistency::Local, LONG).unwrap().as_deref() == Some(value)
        });
    }
}

/// The raft id of a node.
pub fn id(node: &Node) -> String {
    node.status().split(":id \"").nth(1).unwrap().split('"').next().unwrap().to_string()
}

/// What a failure's code is, for assertions.
pub fn code<T: std::fmt::Debug>(result: Result<T, Failure>) -> Code {
    result.unwrap_err().code
}
