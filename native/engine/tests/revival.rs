//! A state machine that fails, and is opened anew in place from an older state of its own.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_engine::error::{Code, Failure};
use quorate_engine::kv::op::{GetAnswer, Read, Txn};
use quorate_engine::machine::{Applied, Committed, Frozen, Note, Notes, Outcome, Reviver, StateMachine};
use quorate_engine::node::{LeaderEvent, Machine, Node, Observer, Reply};
use quorate_engine::session::Consistency;
use support::{Cluster, LONG, eventually};

struct Silent;

impl Observer for Silent {
    fn completed(&self, _outcomes: Vec<(u64, Outcome)>) {}
    fn leader(&self, _event: &LeaderEvent) {}
}

/// What a machine keeps: the indexes that it applied, and the bookkeeping.
#[derive(Clone, Default)]
struct State {
    applied: Vec<u64>,
    notes: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Default)]
struct Medium {
    present: State,
    /// What is left when the machine is opened anew.
    durable: State,
    /// Applying fails, and opening does so often.
    broken: bool,
    openings_to_fail: u32,
    opened: u32,
}

#[derive(Clone, Default)]
struct Frail(Arc<Mutex<Medium>>);

fn broken() -> Failure {
    Failure::new(Code::Io, "the medium is gone")
}

impl StateMachine for Frail {
    fn load_notes(&mut self) -> Result<Notes, Failure> {
        Ok(self.0.lock().present.notes.clone().into_iter().collect())
    }

    fn apply(&mut self, commands: &[Committed], notes: &[Note]) -> Result<Applied, Failure> {
        let mut medium = self.0.lock();
        if medium.broken {
            return Err(broken());
        }
        for (key, value) in notes {
            match value {
                Some(value) => drop(medium.present.notes.insert(key.clone(), value.clone())),
                None => drop(medium.present.notes.remove(key)),
            }
        }
        medium.present.applied.extend(commands.iter().map(|command| command.index));
        Ok(Applied::Now(commands.iter().map(|command| Ok(command.body.clone())).collect()))
    }

    fn freeze(&mut self) -> Result<Box<dyn Frozen>, Failure> {
        let applied = self.0.lock().present.applied.clone();
        Ok(Box::new(View(applied)))
    }

    fn install(&mut self, _: u64, payload: &mut dyn io::Read, notes: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Failure> {
        let mut data = Vec::new();
        payload.read_to_end(&mut data).map_err(|error| Failure::io("Reading", &error))?;
        let numbers = data.chunks_exact(8).map(|eight| u64::from_le_bytes(eight.try_into().unwrap()));
        self.0.lock().present = State { applied: numbers.collect(), notes: notes.iter().cloned().collect() };
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn reviver(&self) -> Option<Box<dyn Reviver>> {
        Some(Box::new(self.clone()))
    }
}

struct View(Vec<u64>);

impl Frozen for View {
    fn write_to(self: Box<Self>, out: &mut dyn io::Write) -> Result<(), Failure> {
        let data: Vec<u8> = self.0.iter().flat_map(|index| index.to_le_bytes()).collect();
        out.write_all(&data).map_err(|error| Failure::io("Writing", &error))
    }
}

impl Reviver for Frail {
    fn revive(&mut self) -> Result<Box<dyn StateMachine>, Failure> {
        let mut medium = self.0.lock();
        if medium.openings_to_fail > 0 {
            medium.openings_to_fail -= 1;
            return Err(broken());
        }
        medium.broken = false;
        medium.opened += 1;
        medium.present = medium.durable.clone();
        drop(medium);
        Ok(Box::new(self.clone()))
    }
}

fn submit(node: &Node, body: String) -> std::sync::mpsc::Receiver<Outcome> {
    let (say, hear) = std::sync::mpsc::channel();
    let reply = Reply::Call(Box::new(move |outcome| drop(say.send(outcome))));
    node.submit(Bytes::from(body), LONG, reply).unwrap();
    hear
}

/// `snapshots`: whether one is taken between what stays and what is lost, so that what is missing comes from there first.
fn fails_and_comes_back(snapshot: bool) {
    let mut cluster = Cluster::new(&["solo"]);
    cluster.tune = |config| config.log_keep_entries = 1;
    let machine = Frail::default();
    let medium = machine.0.clone();
    let node = Node::start_with(cluster.config("solo"), Machine::Own(Box::new(machine)), Arc::new(Silent)).unwrap();
    let write = |number: u64| submit(&node, number.to_string()).recv_timeout(LONG).unwrap();
    for number in 1..=30 {
        assert_eq!(write(number).unwrap(), number.to_string());
        if number == 10 {
            let mut medium = medium.lock();
            medium.durable = medium.present.clone();
        }
    }
    if snapshot {
        support::block_on(node.snapshot(LONG)).unwrap();
    }
    {
        let mut medium = medium.lock();
        (medium.broken, medium.openings_to_fail) = (true, 2);
    }
    let waiting: Vec<_> = (31..=40).map(|number| submit(&node, number.to_string())).collect();
    eventually("the report", || node.status().contains(":problem \"the medium is gone\""));
    for (number, answer) in (31..=40).zip(&waiting) {
        assert_eq!(answer.recv_timeout(LONG).unwrap().unwrap(), number.to_string());
    }
    assert_eq!(write(41).unwrap(), "41");
    assert!(node.status().contains(":problem nil"), "{}", node.status());
    assert_eq!(medium.lock().present.applied, (1..=41).collect::<Vec<u64>>(), "each once and in order");
    assert_eq!(medium.lock().opened, 1);
    std::thread::sleep(Duration::from_millis(50));
    assert!(waiting.iter().all(|answer| answer.try_recv().is_err()), "an id was answered twice");
    node.close();
}

#[test]
fn a_failed_machine_is_opened_anew_and_given_again_what_it_lost_out_of_the_log() {
    fails_and_comes_back(false);
}

#[test]
fn a_failed_machine_gets_a_newer_snapshot_before_the_log() {
    fails_and_comes_back(true);
}

/// The key-value store answers before its own disk has anything; when that fails later, it comes back without further work.
#[test]
fn a_key_value_store_whose_writing_fails_behind_the_answers_comes_back_by_itself() {
    let cluster = Cluster::new(&["solo"]);
    let config = cluster.config("solo");
    let state = config.data_dir.join("group-0/state");
    std::fs::create_dir_all(&state).unwrap();
    let journals = ["layer-0", "layer-1"].map(|name| state.join(name));
    journals.iter().for_each(|path| std::os::unix::fs::symlink("/dev/full", path).unwrap());
    let node = Node::start_with(config, Machine::KeyValue, Arc::new(Silent)).unwrap();
    let put = |key: &'static str| {
        let (say, hear) = std::sync::mpsc::channel();
        let command = Txn::put(key, "v").encode().unwrap();
        node.submit(command.into(), LONG, Reply::Call(Box::new(move |outcome| drop(say.send(outcome))))).unwrap();
        hear.recv_timeout(LONG).unwrap().unwrap();
    };
    put("k");
    eventually("the report", || node.status().contains(":problem \"Writing a layer's journal"));
    journals.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    eventually("the end of it", || node.status().contains(":problem nil"));
    let read = Read::Get { key: "k".into() }.encode();
    let answer = support::block_on(node.read(Consistency::Linearizable, read.into(), LONG)).unwrap();
    assert_eq!(GetAnswer::decode(answer).unwrap().found.unwrap().value, "v");
    put("more");
    node.close();
}

/// sled waits for ever to close after a blob file could not be written, with a lock that every sled of the process needs for a
/// batch. The node gives that store up and builds the state anew, from a snapshot, which comes in batches.
#[test]
fn a_key_value_store_that_sled_cannot_close_any_more_is_built_anew() {
    let cluster = Cluster::new(&["solo"]);
    let config = cluster.config("solo");
    let group = config.data_dir.join("group-0");
    let node = Node::start_with(config, Machine::KeyValue, Arc::new(Silent)).unwrap();
    let put = |key: &str, bytes: usize| {
        let (say, hear) = std::sync::mpsc::channel();
        let command = Txn::put(key.to_string(), vec![b'v'; bytes]).encode().unwrap();
        node.submit(command.into(), LONG, Reply::Call(Box::new(move |outcome| drop(say.send(outcome))))).unwrap();
        hear.recv_timeout(LONG).unwrap().unwrap();
    };
    put("small", 1);
    support::block_on(node.snapshot(LONG)).unwrap();
    std::fs::remove_dir_all(group.join("state/blobs")).unwrap();
    put("large", 900_000);
    eventually("the report", || !node.status().contains(":problem nil"));
    eventually("the end of it", || node.status().contains(":problem nil"));
    put("more", 900_000);
    for (key, bytes) in [("small", 1), ("large", 900_000), ("more", 900_000)] {
        let read = Read::Get { key: key.into() }.encode();
        let answer = support::block_on(node.read(Consistency::Linearizable, read.into(), LONG)).unwrap();
        assert_eq!(GetAnswer::decode(answer).unwrap().found.unwrap().value.len(), bytes);
    }
    let names = std::fs::read_dir(&group).unwrap().map(|item| item.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.starts_with("state.corrupt-")).count(), 1);
    node.close();
}
