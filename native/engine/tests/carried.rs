//! Clusters whose nodes talk through the host: a pump that loses, doubles, delays and reorders what it carries.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use quorate_engine::NodeConfig;
use quorate_engine::config::TransportKind;
use quorate_engine::error::Code;
use quorate_engine::kv::op::{GetAnswer, Read, Txn, TxnOutcome};
use quorate_engine::machine::Outcome;
use quorate_engine::node::{LeaderEvent, Node, Observer};
use quorate_engine::session::Consistency;
use support::{LONG, block_on, eventually};
use tempfile::TempDir;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Pseudo-random numbers (xorshift), the same in every run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

/// The users' network.
struct Pump {
    lost: u64,
    doubled: u64,
    delay_us: u64,
    dice: Mutex<Dice>,
    under_way: Mutex<BTreeMap<(Instant, u64), (String, Bytes)>>,
    arrived: Condvar,
    nodes: Mutex<BTreeMap<String, Arc<Node>>>,
    cut: Mutex<HashSet<String>>,
    /// So many percent of the datagrams arrive damaged, besides.
    damaged: AtomicU64,
    closed: AtomicBool,
}

impl Pump {
    fn carry(&self, from: &str, to: &str, datagram: &[u8]) {
        let mut dice = self.dice.lock();
        let cut = self.cut.lock();
        if cut.contains(from) || cut.contains(to) || dice.percent(self.lost) {
            return;
        }
        drop(cut);
        let mut copies = vec![datagram.to_vec(); 1 + usize::from(dice.percent(self.doubled))];
        if dice.percent(self.damaged.load(Ordering::SeqCst)) {
            let mut damaged = datagram.to_vec();
            let at = dice.next() as usize % damaged.len();
            damaged[at] ^= 1 + (dice.next() % 255) as u8;
            damaged.truncate(1 + dice.next() as usize % (2 * damaged.len()));
            copies.push(damaged);
        }
        let mut under_way = self.under_way.lock();
        for copy in copies {
            let due = Instant::now() + Duration::from_micros(dice.next() % (self.delay_us + 1));
            under_way.insert((due, dice.next()), (to.to_string(), copy.into()));
        }
        self.arrived.notify_one();
    }

    fn run(&self) {
        while !self.closed.load(Ordering::SeqCst) {
            let mut under_way = self.under_way.lock();
            let due = under_way.keys().next().map(|(due, _)| *due);
            match due {
                Some(due) if due <= Instant::now() => {
                    let (_, (to, datagram)) = under_way.pop_first().unwrap();
                    drop(under_way);
                    let node = self.nodes.lock().get(&to).cloned();
                    if let Some(node) = node {
                        // What is damaged is refused, which is what the test looks at in the metrics.
                        let _ = node.deliver(datagram);
                    }
                }
                Some(due) => drop(self.arrived.wait_until(&mut under_way, due)),
                None => drop(self.arrived.wait_for(&mut under_way, Duration::from_millis(50))),
            }
        }
    }
}

/// The host of one node.
struct Host {
    name: String,
    pump: Arc<Pump>,
}

impl Observer for Host {
    fn completed(&self, outcomes: Vec<(u64, Outcome)>) {
        panic!("nobody submitted by ticket: {outcomes:?}");
    }

    fn leader(&self, _event: &LeaderEvent) {}

    fn datagram(&self, to: &str, datagram: &[u8]) -> bool {
        self.pump.carry(&self.name, to, datagram);
        true
    }
}

struct Cluster {
    directory: TempDir,
    pump: Arc<Pump>,
    thread: Option<JoinHandle<()>>,
}

impl Cluster {
    fn start(lost: u64, doubled: u64, delay_us: u64, seed: u64) -> Cluster {
        let pump = Arc::new(Pump {
            lost,
            doubled,
            delay_us,
            dice: Mutex::new(Dice(seed)),
            under_way: Mutex::default(),
            arrived: Condvar::new(),
            nodes: Mutex::default(),
            cut: Mutex::default(),
            damaged: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        });
        let running = pump.clone();
        let thread = Some(std::thread::spawn(move || running.run()));
        let cluster = Cluster { directory: tempfile::tempdir().unwrap(), pump, thread };
        NAMES.iter().for_each(|name| cluster.open(name));
        eventually("five voters", || {
            let leader = NAMES.iter().find_map(|name| self::leader(&cluster, name));
            leader.is_some_and(|leader| cluster.node(&leader).status().matches(":voter true").count() == 5)
        });
        cluster
    }

    fn open(&self, name: &str) {
        let servers = NAMES.map(|name| (name.to_string(), String::new())).into();
        let mut config = NodeConfig::new(name, servers, self.directory.path().join(name));
        config.transport = TransportKind::Host;
        (config.heartbeat_ms, config.election_timeout_ms) = (100, 700);
        (config.snapshot_commands, config.log_keep_entries) = (200, 16);
        let node = Node::start(config, Arc::new(Host { name: name.into(), pump: self.pump.clone() })).unwrap();
        self.pump.nodes.lock().insert(name.into(), Arc::new(node));
    }

    fn node(&self, name: &str) -> Arc<Node> {
        self.pump.nodes.lock()[name].clone()
    }

    fn kill(&self, name: &str) {
        self.pump.cut.lock().insert(name.into());
        let node = self.pump.nodes.lock().remove(name).unwrap();
        node.close();
    }

    /// The leader that most of `names` follow.
    fn leader_of(&self, names: &[&str]) -> String {
        let mut found = None;
        eventually("a leader", || {
            let mut leaders: Vec<_> = names.iter().map(|name| leader(self, name)).collect();
            leaders.dedup();
            found = (leaders.len() == 1).then(|| leaders.remove(0)).flatten();
            found.as_ref().is_some_and(|leader| names.contains(&leader.as_str()))
        });
        found.unwrap()
    }

    fn put(&self, node: &str, key: &str, value: &str) {
        let command = Txn::put(key.to_string(), value.to_string()).encode().unwrap();
        TxnOutcome::decode(block_on(self.node(node).write(command.into(), LONG)).unwrap()).unwrap();
    }

    fn get(&self, node: &str, key: &str) -> Option<String> {
        let read = Read::Get { key: Bytes::from(key.to_string()) }.encode();
        let answer = block_on(self.node(node).read(Consistency::Linearizable, read.into(), LONG)).unwrap();
        GetAnswer::decode(answer).unwrap().found.map(|entry| String::from_utf8(entry.value.to_vec()).unwrap())
    }
}

fn leader(cluster: &Cluster, name: &str) -> Option<String> {
    cluster.node(name).leader()
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let nodes = std::mem::take(&mut *self.pump.nodes.lock());
        nodes.values().for_each(|node| node.close());
        self.pump.closed.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

#[test]
fn writes_get_through_everywhere_and_go_on_without_the_leader() {
    let cluster = Cluster::start(5, 5, 8_000, 0x5eed);
    for name in NAMES {
        (0..5).for_each(|number| cluster.put(name, &format!("{name}{number}"), "here"));
    }
    for reader in NAMES {
        assert_eq!(cluster.get(reader, "c4").as_deref(), Some("here"), "on {reader}");
    }
    let leader = cluster.leader_of(&NAMES);
    cluster.kill(&leader);
    let others: Vec<&str> = NAMES.into_iter().filter(|name| *name != leader).collect();
    others.iter().for_each(|name| cluster.put(name, &format!("after-{name}"), "still here"));
    let status = cluster.node(others[0]).status();
    assert!(!status.contains("127.0.0.1"), "{status}");
    cluster.pump.cut.lock().clear();
    cluster.open(&leader);
    assert_eq!(cluster.get(&leader, &format!("after-{}", others[0])).as_deref(), Some("still here"));
}

#[test]
fn a_node_that_was_cut_off_catches_up_by_a_snapshot_of_many_datagrams() {
    let cluster = Cluster::start(3, 3, 3_000, 0xca7);
    let leader = cluster.leader_of(&NAMES);
    let away = NAMES.into_iter().find(|name| *name != leader).unwrap();
    cluster.pump.cut.lock().insert(away.into());
    let value = "x".repeat(10_000);
    for number in 0..300 {
        cluster.put(&leader, &format!("key{number}"), &value);
    }
    let behind = cluster.node(away).index();
    eventually("the purge", || !cluster.node(&leader).status().contains(":purged-log-index nil"));
    cluster.pump.cut.lock().clear();
    eventually("the same index", || cluster.node(away).index() >= 300);
    assert!(behind < 300);
    assert_eq!(cluster.get(away, "key299").as_deref(), Some(value.as_str()));
    let status = cluster.node(away).status();
    let first = status.split(":log-first-index ").nth(1).unwrap().split([' ', '}']).next().unwrap().to_string();
    assert!(first.parse::<u64>().unwrap() > 100, "no snapshot came: {status}");
}

#[test]
fn damaged_datagrams_and_rubbish_change_nothing() {
    let cluster = Cluster::start(1, 1, 1_000, 0xbad);
    cluster.pump.damaged.store(30, Ordering::SeqCst);
    for number in 0..100 {
        let name = NAMES[number % NAMES.len()];
        let rubbish: Vec<u8> = (0..number as u8).map(|byte| byte.wrapping_mul(31)).collect();
        assert_eq!(cluster.node(name).deliver(rubbish.into()).unwrap_err().code, Code::Invalid);
        cluster.put(name, &format!("key{number}"), &number.to_string());
    }
    for number in 0..100 {
        assert_eq!(cluster.get(NAMES[number % 3], &format!("key{number}")), Some(number.to_string()));
    }
}
