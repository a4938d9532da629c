//! openraft's own storage suite over the real log store, the real applying thread and both kinds of machine.

use std::sync::Arc;
use std::time::Duration;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use parking_lot::Mutex;
use tempfile::TempDir;

use super::*;
use crate::consensus::log::{LogOptions, LogStore};
use crate::hosted::{self, Bounds, Host};
use crate::kv::KvMachine;
use crate::machine::{Outcome, StateMachine};
use crate::node::applier::Applier;
use crate::node::apply_queue::ApplyQueue;
use crate::node::pending::Pending;
use crate::node::problems::Problems;
use crate::node::shared::Progress;
use crate::node::{LeaderEvent, Observer};
use crate::surroundings::Pace;
use crate::watch;
use crate::worker::Worker;

struct Nobody;

impl Observer for Nobody {
    fn completed(&self, outcomes: Vec<(u64, Outcome)>) {
        panic!("nobody submitted anything: {outcomes:?}");
    }

    fn leader(&self, _event: &LeaderEvent) {}
}

/// Keeps what belongs to one store alive, and ends it.
struct Guard {
    _directory: TempDir,
    shared: Arc<Shared>,
    log: LogStore,
    thread: Option<Worker>,
    host: Option<Arc<Host>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(host) = &self.host {
            host.close();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        self.log.close();
    }
}

fn build(
    machine: Box<dyn StateMachine>,
    host: Option<Arc<Host>>,
    directory: TempDir,
) -> (Guard, LogStore, MachineAdapter) {
    let snapshots = SnapshotDir::open(&directory.path().join("snapshots")).unwrap();
    let log = LogStore::open(&directory.path().join("log"), LogOptions::new("suite", 0)).unwrap();
    let shared = Arc::new(Shared {
        queue: Arc::new(ApplyQueue::default()),
        pending: Arc::new(Pending::default()),
        observer: Arc::new(Nobody),
        progress: watch::channel(Progress::default()).0,
        problems: Arc::new(Problems::default()),
        log: Mutex::new(Some(log.clone())),
        covering: Default::default(),
        pace: Pace::default(),
        handed: Mutex::default(),
    });
    let thread = Applier::open(machine, None, shared.clone()).unwrap().spawn("suite", Duration::ZERO).unwrap();
    let adapter = MachineAdapter::new(shared.clone(), snapshots);
    (Guard { _directory: directory, shared, log: log.clone(), thread: Some(thread), host }, log, adapter)
}

struct KeyValue;

impl StoreBuilder<TypeConfig, LogStore, MachineAdapter, Guard> for KeyValue {
    async fn build(&self) -> Result<(Guard, LogStore, MachineAdapter), StorageError<TypeConfig>> {
        let directory = tempfile::tempdir().unwrap();
        let (machine, _) = KvMachine::open(&directory.path().join("state")).unwrap();
        Ok(build(Box::new(machine), None, directory))
    }
}

struct Hosted;

impl StoreBuilder<TypeConfig, LogStore, MachineAdapter, Guard> for Hosted {
    async fn build(&self) -> Result<(Guard, LogStore, MachineAdapter), StorageError<TypeConfig>> {
        let directory = tempfile::tempdir().unwrap();
        let (machine, host) =
            hosted::pair(directory.path().join("exchange"), Duration::from_secs(60), Bounds::default()).unwrap();
        serve_files(host.clone());
        Ok(build(Box::new(machine), Some(host), directory))
    }
}

/// A host that writes an empty state when asked for one, and takes any.
fn serve_files(host: Arc<Host>) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let crate::session::Polled::Bytes(bytes) = host.poll(&mut buffer, std::time::Duration::from_secs(5)) else {
                return;
            };
            let mut rest = &buffer[..bytes];
            while rest.len() >= 4 {
                let length = u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize;
                let (record, after) = rest[4..].split_at(length);
                rest = after;
                if record[0] == 2 || record[0] == 3 {
                    let ticket = u64::from_le_bytes(record[1..9].try_into().unwrap());
                    if record[0] == 2 {
                        std::fs::write(std::str::from_utf8(&record[17..]).unwrap(), b"").unwrap();
                    }
                    host.finished(ticket, Ok(())).unwrap();
                }
            }
        }
    });
}

#[test]
fn the_key_value_machine_passes_openrafts_suite() {
    runtime().block_on(Suite::test_all(KeyValue)).unwrap();
}

#[test]
fn a_hosted_machine_passes_openrafts_suite() {
    runtime().block_on(Suite::test_all(Hosted)).unwrap();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
