//! A host with a state machine of its own, the list of the commands: it polls a session as a JVM would.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use parking_lot::Mutex;
use quorate_engine::NodeConfig;
use quorate_engine::codec::Reader;
use quorate_engine::config::MachineKind;
use quorate_engine::error::{Code, Failure};
use quorate_engine::node;
use quorate_engine::session::{Kind, Op, Polled, Queue, Session};

use super::{LONG, eventually};

/// What a host does when it is asked for a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshots {
    Write,
    Refuse,
    KeepSilent,
}

#[derive(Default)]
pub struct State {
    pub applied: Vec<Bytes>,
    /// Asked for so far: ticket and index.
    pub asked: Vec<(u64, u64)>,
    pub installed: usize,
    pub answers: std::collections::BTreeMap<u64, Result<Bytes, Failure>>,
}

pub struct Host {
    pub session: Arc<dyn Session>,
    pub state: Arc<Mutex<State>>,
    pub snapshots: Arc<Mutex<Snapshots>>,
    threads: Vec<JoinHandle<()>>,
}

impl Host {
    pub fn start(mut config: NodeConfig) -> Host {
        config.machine = MachineKind::Hosted;
        let session = node::start(config).unwrap();
        let (state, snapshots) = (Arc::<Mutex<State>>::default(), Arc::new(Mutex::new(Snapshots::Write)));
        let applying = {
            let (session, state, snapshots) = (session.clone(), state.clone(), snapshots.clone());
            std::thread::spawn(move || apply(session.as_ref(), &state, &snapshots))
        };
        let hearing = {
            let (session, state) = (session.clone(), state.clone());
            std::thread::spawn(move || hear(session.as_ref(), &state))
        };
        Host { session, state, snapshots, threads: vec![applying, hearing] }
    }

    pub fn wait(&self, ticket: u64) -> Result<Bytes, Failure> {
        eventually("an answer", || self.state.lock().answers.contains_key(&ticket));
        self.state.lock().answers.remove(&ticket).unwrap()
    }

    /// Submits a command and waits until it is applied here.
    pub fn write(&self, body: &str) {
        let before = self.state.lock().applied.iter().filter(|one| *one == body).count();
        self.session.submit(Kind::Command, Bytes::from(body.to_string()), LONG).unwrap();
        eventually("the command's effect", || {
            self.state.lock().applied.iter().filter(|one| *one == body).count() > before
        });
    }

    pub fn snapshot(&self) -> Result<Bytes, Failure> {
        self.wait(self.session.submit(Kind::Snapshot, Bytes::new(), LONG).unwrap())
    }

    pub fn status(&self) -> String {
        String::from_utf8(self.session.control(Op::Status, Bytes::new()).unwrap()).unwrap()
    }

    pub fn done(&self, ticket: u64) -> Result<Vec<u8>, Failure> {
        self.session.control(Op::SnapshotDone, finished(ticket, true, ""))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.session.close();
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

fn finished(ticket: u64, ok: bool, message: &str) -> Bytes {
    let mut body = Vec::new();
    body.put_u64_le(ticket);
    body.put_u8(u8::from(ok));
    body.put_slice(message.as_bytes());
    body.into()
}

/// Calls `take` with every record of `queue`, and polls with the index that it answers.
fn poll(session: &dyn Session, queue: Queue, mut take: impl FnMut(Reader)) {
    let (mut out, acknowledged) = (vec![0; 1 << 16], AtomicU64::new(0));
    loop {
        match session.poll(queue, &mut out, acknowledged.load(Ordering::SeqCst), Duration::from_millis(50)) {
            Polled::Closed => return,
            Polled::NeedsBytes(bytes) => out = vec![0; bytes],
            Polled::Bytes(bytes) => {
                let mut records = Reader::new(Bytes::copy_from_slice(&out[..bytes]));
                while records.remaining() > 0 {
                    let record = records.bytes().unwrap();
                    if queue == Queue::Apply && record[0] == 1 {
                        let index = u64::from_le_bytes(record[1..9].try_into().unwrap());
                        acknowledged.store(index, Ordering::SeqCst);
                    }
                    take(Reader::new(record));
                }
            }
        }
    }
}

fn hear(session: &dyn Session, state: &Mutex<State>) {
    poll(session, Queue::Events, |mut record| {
        if record.u8().unwrap() != 1 {
            return;
        }
        let (ticket, status) = (record.u64().unwrap(), record.u8().unwrap());
        let payload = record.take(record.remaining()).unwrap();
        let outcome = match Code::of(status) {
            Some(code) => Err(Failure::new(code, String::from_utf8_lossy(&payload))),
            None => Ok(payload),
        };
        state.lock().answers.insert(ticket, outcome);
    });
}

fn apply(session: &dyn Session, state: &Mutex<State>, snapshots: &Mutex<Snapshots>) {
    poll(session, Queue::Apply, |mut record| match record.u8().unwrap() {
        1 => {
            let body = record.take(record.remaining()).unwrap().slice(57..);
            state.lock().applied.push(body);
        }
        2 => {
            let (ticket, index) = (record.u64().unwrap(), record.u64().unwrap());
            let path = String::from_utf8(record.take(record.remaining()).unwrap().to_vec()).unwrap();
            state.lock().asked.push((ticket, index));
            let answer = match *snapshots.lock() {
                Snapshots::Write => {
                    std::fs::write(path, state.lock().applied.join(&b'\n')).unwrap();
                    finished(ticket, true, "")
                }
                Snapshots::Refuse => finished(ticket, false, "the user's disk is full"),
                Snapshots::KeepSilent => return,
            };
            // It may have been given up meanwhile.
            let _ = session.control(Op::SnapshotDone, answer);
        }
        3 => {
            let (ticket, _) = (record.u64().unwrap(), record.u64().unwrap());
            let path = String::from_utf8(record.take(record.remaining()).unwrap().to_vec()).unwrap();
            install(&mut state.lock(), Path::new(&path));
            let _ = session.control(Op::InstallDone, finished(ticket, true, ""));
        }
        _ => {}
    });
}

fn install(state: &mut State, path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    state.applied = lines.map(Bytes::copy_from_slice).collect();
    state.installed += 1;
}
