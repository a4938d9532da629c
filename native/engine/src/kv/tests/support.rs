//! The model, random commands, and short ways to drive a machine.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;

use crate::command::CommandId;
use crate::kv::op::{
    Condition, CountAnswer, Entry, FailedGuard, GetAnswer, Guard, Read, ScanAnswer, ScanEntry, Txn, TxnOutcome, Write,
};
use crate::kv::{KvMachine, KvReader};
use crate::machine::{Applied, Committed, Note, Outcome, StateMachine};

/// xorshift64*: seeded, so that a failure can be repeated.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// What the store must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model(pub BTreeMap<Bytes, Entry>);

impl Model {
    pub fn apply(&mut self, txn: &Txn, revision: u64) -> TxnOutcome {
        let failed = txn.guards.iter().position(|guard| !self.holds(guard)).map(|index| {
            let found = self.0.get(&txn.guards[index].key).cloned();
            FailedGuard { index: index as u16, found }
        });
        let writes = if failed.is_none() { &txn.writes } else { &txn.else_writes };
        let results = writes.iter().map(|write| self.write(write, revision)).collect();
        TxnOutcome { revision, failed, results }
    }

    fn holds(&self, guard: &Guard) -> bool {
        let found = self.0.get(&guard.key);
        match &guard.condition {
            Condition::Exists => found.is_some(),
            Condition::Absent => found.is_none(),
            Condition::Value(value) => found.is_some_and(|entry| entry.value == value),
            Condition::ModRevision(revision) => found.is_some_and(|entry| entry.modified == *revision),
            Condition::CreateRevision(revision) => found.is_some_and(|entry| entry.create == *revision),
        }
    }

    fn write(&mut self, write: &Write, revision: u64) -> bool {
        match write {
            Write::Delete { key } => self.0.remove(key).is_some(),
            Write::Put { key, value } => {
                let create = self.0.get(key).map_or(revision, |entry| entry.create);
                let entry = Entry { create, modified: revision, value: value.clone() };
                self.0.insert(key.clone(), entry).is_some()
            }
        }
    }

    pub fn entries(&self, prefix: &[u8]) -> Vec<ScanEntry> {
        let under = self.0.iter().filter(|(key, _)| key.starts_with(prefix));
        under.map(|(key, entry)| ScanEntry { key: key.clone(), entry: entry.clone() }).collect()
    }
}

pub fn random_key(rng: &mut Rng, keys: usize) -> Bytes {
    let number = rng.below(keys);
    let prefix = [&b"a"[..], b"b/", b"b/\xff\xff", b"\xff", b"long-enough-to-be-stored-out-of-line/"][number % 5];
    [prefix, number.to_string().as_bytes()].concat().into()
}

fn random_value(rng: &mut Rng) -> Bytes {
    let len = if rng.one_in(50) { rng.below(3_000) } else { rng.below(40) };
    vec![rng.below(4) as u8; len].into()
}

fn random_write(rng: &mut Rng, keys: usize) -> Write {
    let key = random_key(rng, keys);
    if rng.one_in(3) { Write::Delete { key } } else { Write::Put { key, value: random_value(rng) } }
}

fn random_guard(rng: &mut Rng, model: &Model, keys: usize) -> Guard {
    let key = random_key(rng, keys);
    let found = model.0.get(&key).filter(|_| !rng.one_in(4)).cloned();
    let found = found.unwrap_or(Entry { create: 1, modified: 1, value: random_value(rng) });
    let condition = match rng.below(5) {
        0 => Condition::Exists,
        1 => Condition::Absent,
        2 => Condition::Value(found.value),
        3 => Condition::ModRevision(found.modified),
        _ => Condition::CreateRevision(found.create),
    };
    Guard { key, condition }
}

pub fn random_txn(rng: &mut Rng, model: &Model, keys: usize) -> Txn {
    let guards = (0..rng.below(3)).map(|_| random_guard(rng, model, keys)).collect();
    let writes = (0..1 + rng.below(3)).map(|_| random_write(rng, keys)).collect();
    let else_writes = (0..rng.below(3)).map(|_| random_write(rng, keys)).collect();
    Txn { guards, writes, else_writes }
}

pub fn committed(index: u64, body: impl Into<Bytes>) -> Committed {
    let id = CommandId { node: 1, incarnation: 1, sequence: index };
    Committed { id, local: true, index, term: 1, time_ms: 0, seed: 0, body: body.into() }
}

pub fn open(dir: &Path) -> (KvMachine, KvReader) {
    let (machine, reader) = KvMachine::open(dir).unwrap();
    assert_eq!(machine.was_reset(), None);
    (machine, reader)
}

pub fn apply_noting(machine: &mut KvMachine, commands: &[Committed], notes: &[Note]) -> Vec<Outcome> {
    match machine.apply(commands, notes).unwrap() {
        Applied::Now(outcomes) => outcomes,
        Applied::Later | Applied::Full => panic!("The key-value machine applies at once."),
    }
}

/// Applies `txns` as one call, from revision `first` on.
pub fn apply(machine: &mut KvMachine, first: u64, txns: &[Txn]) -> Vec<TxnOutcome> {
    let commands: Vec<Committed> =
        txns.iter().zip(first..).map(|(txn, index)| committed(index, txn.encode().unwrap())).collect();
    let outcomes = apply_noting(machine, &commands, &[]);
    outcomes.into_iter().map(|outcome| TxnOutcome::decode(outcome.unwrap()).unwrap()).collect()
}

pub fn put(machine: &mut KvMachine, revision: u64, key: &'static str, value: &'static str) -> TxnOutcome {
    apply(machine, revision, &[Txn::put(key, value)]).remove(0)
}

pub fn note(key: &str, value: Option<&str>) -> Note {
    (key.into(), value.map(|value| value.into()))
}

pub fn get(reader: &KvReader, key: &[u8]) -> GetAnswer {
    let read = Read::Get { key: Bytes::copy_from_slice(key) };
    GetAnswer::decode(reader.read(&read.encode()).unwrap().into()).unwrap()
}

pub fn count(reader: &KvReader, prefix: &[u8]) -> CountAnswer {
    let read = Read::Count { prefix: Bytes::copy_from_slice(prefix) };
    CountAnswer::decode(reader.read(&read.encode()).unwrap().into()).unwrap()
}

pub fn scan(reader: &KvReader, prefix: &[u8], after: Option<Bytes>, limit: u32) -> ScanAnswer {
    let read = Read::Scan { prefix: Bytes::copy_from_slice(prefix), after, limit, keys_only: false };
    ScanAnswer::decode(reader.read(&read.encode()).unwrap().into()).unwrap()
}

/// Everything under `prefix`, `limit` entries a scan.
pub fn scan_all(reader: &KvReader, prefix: &[u8], limit: u32) -> Vec<ScanEntry> {
    let mut all: Vec<ScanEntry> = Vec::new();
    loop {
        let answer = scan(reader, prefix, all.last().map(|last| last.key.clone()), limit);
        all.extend(answer.entries);
        if !answer.more {
            return all;
        }
    }
}

pub fn assert_holds(reader: &KvReader, model: &Model) {
    assert_eq!(scan_all(reader, b"", 0), model.entries(b""));
    assert_eq!(reader.entries(), model.0.len() as u64);
}

/// Copies the files of a store as they are on disk at this moment.
pub fn copy_store(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for item in std::fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        let target = to.join(item.file_name());
        if item.file_type().unwrap().is_dir() {
            copy_store(&item.path(), &target);
        } else {
            std::fs::copy(item.path(), target).unwrap();
        }
    }
}

/// sled itself, as soon as a store that was just closed has let go of its lock: a thread of sled's holds it a moment longer.
pub fn raw(dir: &Path) -> sled::Db {
    for _ in 0..500 {
        match sled::open(dir) {
            Err(sled::Error::Io(error)) if error.to_string().contains("lock") => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            opened => return opened.unwrap(),
        }
    }
    panic!("the lock of {} stays", dir.display());
}
