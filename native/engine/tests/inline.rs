//! Nodes without threads, in one runtime with paused time: from one seed they do the same each time.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use quorate_engine::NodeConfig;
use quorate_engine::disk::{Disk, DiskFile, Open, OsDisk};
use quorate_engine::error::Code;
use quorate_engine::hosted::Bounds;
use quorate_engine::kv::op::Txn;
use quorate_engine::machine::Outcome;
use quorate_engine::node::{LeaderEvent, Machine, Node, Observer};
use quorate_engine::session::Consistency;
use quorate_engine::surroundings::{Chance, Delays, Stage, Surroundings, enter};
use quorate_engine::transport::wire::{Duplex, Listener, Wire};
use tokio::sync::mpsc;
use tokio::time::Instant;

const NAMES: [&str; 3] = ["a", "b", "c"];
const PATIENCE: Duration = Duration::from_secs(20);

/// A seeded xorshift, and a wall clock that stands still.
struct Dice(AtomicU64);

impl Dice {
    fn roll(&self) -> u64 {
        let mut state = self.0.load(Ordering::Relaxed);
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.0.store(state, Ordering::Relaxed);
        state
    }
}

impl Chance for Dice {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.iter_mut().for_each(|byte| *byte = self.roll() as u8);
    }

    fn wall_ms(&self) -> u64 {
        1_700_000_000_000
    }
}

/// Every connection is a pair of buffers.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<BTreeMap<String, mpsc::UnboundedSender<Duplex>>>>);

struct MemoryListener(String, mpsc::UnboundedReceiver<Duplex>);

impl Wire for Memory {
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Duplex>> {
        let (near, far) = tokio::io::duplex(64 << 10);
        let side = |stream, remote: &str| {
            let (reader, writer) = tokio::io::split(stream);
            Duplex { reader: Box::new(reader), writer: Box::new(writer), remote: remote.into() }
        };
        let listener = self.0.lock().get(address).cloned();
        let taken = listener.is_some_and(|listener| listener.send(side(far, "peer")).is_ok());
        let near = side(near, address);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if taken { Ok(near) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
        })
    }

    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.0.lock().insert(address.into(), sender);
        let listener: Box<dyn Listener> = Box::new(MemoryListener(address.into(), receiver));
        Box::pin(async move { Ok(listener) })
    }
}

impl Listener for MemoryListener {
    fn address(&self) -> String {
        self.0.clone()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Duplex>> {
        Box::pin(async move {
            match self.1.recv().await {
                Some(connection) => Ok(connection),
                None => std::future::pending().await,
            }
        })
    }
}

/// Syncs take three milliseconds, everything else no time.
struct SlowSync;

impl Delays for SlowSync {
    fn pass(&self, stage: Stage) -> BoxFuture<'static, ()> {
        let ms = if stage == Stage::LogSynced { 3 } else { 0 };
        Box::pin(async move {
            if ms > 0 {
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
        })
    }
}

type Lines = Arc<Mutex<Vec<String>>>;

/// What happened, and when, in microseconds of virtual time.
#[derive(Clone)]
struct Trace {
    lines: Lines,
    begun: Instant,
}

impl Trace {
    fn note(&self, line: String) {
        let at = self.begun.elapsed().as_micros();
        self.lines.lock().push(format!("{at} {line}"));
    }
}

struct Watcher(&'static str, Trace);

impl Observer for Watcher {
    fn completed(&self, outcomes: Vec<(u64, Outcome)>) {
        self.1.note(format!("{} answers {outcomes:?}", self.0));
    }

    fn leader(&self, event: &LeaderEvent) {
        self.1.note(format!("{} {event:?}", self.0));
    }
}

fn config(root: &Path, name: &str) -> NodeConfig {
    let servers = NAMES.map(|name| (name.to_string(), format!("{name}.invalid:1")));
    let mut config = NodeConfig::new(name, servers.into(), root.join(name));
    config.insecure = true;
    config.log_bytes = 64 << 10;
    config.log_keep_entries = 8;
    config.snapshot_commands = 40;
    config
}

/// The operating system's disk, but for a sync of a log that fails when it is told to.
#[derive(Clone, Default)]
struct Failing(Arc<AtomicBool>);

struct FailingFile(Box<dyn DiskFile>, Option<Failing>);

impl Disk for Failing {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        let log = path.extension().is_some_and(|extension| extension == "raftlog");
        Ok(Box::new(FailingFile(OsDisk.open(path, how)?, log.then(|| self.clone()))))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove(path)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        OsDisk.create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        OsDisk.sync_dir(dir)
    }
}

impl DiskFile for FailingFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_at(offset, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn sync(&self) -> io::Result<()> {
        if self.1.as_ref().is_some_and(|failing| failing.0.swap(false, Ordering::Relaxed)) {
            return Err(io::Error::other("the disk is on fire"));
        }
        self.0.sync()
    }
}

/// Has `work` done by three nodes, then drops everything as a crash does.
fn live<T>(root: &Path, seed: u64, lines: &Lines, work: impl AsyncFnOnce(&[Node], &Trace) -> T) -> T {
    live_on(&|_| Arc::new(OsDisk), root, seed, lines, work)
}

/// [`live`], each node on a disk of its own.
fn live_on<T>(
    disk: &dyn Fn(&str) -> Arc<dyn Disk>,
    root: &Path,
    seed: u64,
    lines: &Lines,
    work: impl AsyncFnOnce(&[Node], &Trace) -> T,
) -> T {
    let _chance = enter(Arc::new(Dice(AtomicU64::new(seed))));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let trace = Trace { lines: lines.clone(), begun: Instant::now() };
        let wire = Memory::default();
        let mut nodes = Vec::new();
        for name in NAMES {
            let (wire, delays) = (Arc::new(wire.clone()), Arc::new(SlowSync));
            let around = Surroundings { wire, disk: disk(name), delays, host_bounds: Bounds::default() };
            let observer = Arc::new(Watcher(name, trace.clone()));
            let node = Node::start_inline(config(root, name), Machine::KeyValue, observer, around).await;
            nodes.push(node.unwrap());
        }
        work(&nodes, &trace).await
    })
}

async fn write(node: &Node, trace: &Trace, key: &str) {
    let command = Txn::put(key.to_string(), "value").encode().unwrap();
    let outcome = node.write(command.into(), PATIENCE).await.unwrap();
    trace.note(format!("{key} {outcome:?} {:?}", node.inspect()));
}

/// Two lives with a crash between; returns what happened.
fn story(seed: u64) -> Vec<String> {
    let root = tempfile::tempdir().unwrap();
    let lines = Arc::default();
    live(root.path(), seed, &lines, async |nodes, trace| {
        for number in 0..100 {
            write(&nodes[number % 3], trace, &format!("k{number}")).await;
        }
        // What was applied only now is not purged.
        tokio::time::sleep(Duration::from_secs(3)).await;
    });
    live(root.path(), seed + 1, &lines, async |nodes, trace| {
        for (number, node) in nodes.iter().enumerate() {
            node.barrier(Consistency::Linearizable, PATIENCE).await.unwrap();
            assert_eq!(node.index(), 100 + number as u64, "what was acknowledged outlives a crash");
            write(node, trace, "again").await;
        }
        let entries = nodes[0].log_entries(0, u64::MAX).unwrap();
        assert!(entries.windows(2).all(|pair| pair[0].log_id.index + 1 == pair[1].log_id.index));
        assert!(entries.first().unwrap().log_id.index > 1, "snapshots made the beginning needless");
        trace.note(format!("{entries:?}"));
        for node in nodes {
            node.close_inline().await;
        }
        assert_eq!(nodes[0].write(Bytes::new(), PATIENCE).await.unwrap_err().code, Code::Closed);
    });
    Arc::into_inner(lines).unwrap().into_inner()
}

#[test]
fn a_cluster_without_threads_commits_crashes_and_comes_back_the_same_way_each_time() {
    let (first, second) = (story(7), story(7));
    for (number, (first, second)) in first.iter().zip(&second).enumerate() {
        assert_eq!(first, second, "line {number}");
    }
    assert_eq!(first.len(), second.len());
    assert_ne!(first, story(8), "another seed, another story");
}

#[test]
fn a_consensus_core_whose_disk_failed_once_is_started_again_in_place() {
    let root = tempfile::tempdir().unwrap();
    let failing = Failing::default();
    let disk = |name: &str| -> Arc<dyn Disk> { if name == "a" { Arc::new(failing.clone()) } else { Arc::new(OsDisk) } };
    live_on(&disk, root.path(), 3, &Lines::default(), async |nodes, trace| {
        write(&nodes[0], trace, "before").await;
        failing.0.store(true, Ordering::Relaxed);
        write(&nodes[1], trace, "meanwhile").await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(!failing.0.load(Ordering::Relaxed), "it did fail");
        assert!(nodes[0].status().contains("on fire"), "{}", nodes[0].status());
        write(&nodes[0], trace, "after").await;
        nodes[0].barrier(Consistency::Linearizable, PATIENCE).await.unwrap();
        assert_eq!(nodes[0].index(), 3);
        assert_eq!(nodes[0].log_entries(0, u64::MAX).unwrap(), nodes[2].log_entries(0, u64::MAX).unwrap());
    });
}

#[test]
fn only_a_thread_with_a_chance_of_its_own_takes_inline_nodes_and_no_others() {
    let root = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let start = || {
        let around = Surroundings {
            wire: Arc::new(Memory::default()),
            disk: Arc::new(OsDisk),
            delays: Arc::new(SlowSync),
            host_bounds: Bounds::default(),
        };
        let observer = Arc::new(support::Events::default());
        runtime.block_on(Node::start_inline(config(root.path(), "a"), Machine::Hosted, observer, around))
    };
    assert_eq!(start().err().unwrap().code, Code::Invalid);
    let _chance = enter(Arc::new(Dice(AtomicU64::new(1))));
    drop(start().unwrap());
    let refused = Node::start(config(root.path(), "a"), Arc::new(support::Events::default()));
    assert_eq!(refused.err().unwrap().code, Code::Invalid);
}
