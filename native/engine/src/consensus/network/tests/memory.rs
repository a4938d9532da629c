//! A log and a machine in memory, and snapshots in a directory: as little as openraft needs to run.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::RangeBounds;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, IOFlushed, LogState, RaftLogReader, RaftLogStorage, RaftStateMachine};
use openraft::{EntryPayload, RaftSnapshotBuilder};
use parking_lot::Mutex;

use crate::consensus::Snapshot;
use crate::consensus::network::{SnapshotReceiver, SnapshotSink};
use crate::consensus::types::*;
use crate::error::{Code, Failure};
use crate::snapshot::SnapshotFile;

#[derive(Default)]
struct Log {
    entries: BTreeMap<u64, Entry>,
    vote: Option<Vote>,
    purged: Option<LogId>,
}

#[derive(Clone, Default)]
pub struct MemoryLog(Arc<Mutex<Log>>);

impl RaftLogReader<TypeConfig> for MemoryLog {
    async fn try_get_log_entries<R>(&mut self, range: R) -> Result<Vec<Entry>, io::Error>
    where
        R: RangeBounds<u64> + Clone + Debug + Send,
    {
        Ok(self.0.lock().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.0.lock().vote)
    }
}

impl RaftLogStorage<TypeConfig> for MemoryLog {
    type LogReader = MemoryLog;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let log = self.0.lock();
        let last_log_id = log.entries.values().last().map(|entry| entry.log_id).or(log.purged);
        Ok(LogState { last_purged_log_id: log.purged, last_log_id })
    }

    async fn get_log_reader(&mut self) -> MemoryLog {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.0.lock().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        self.0.lock().entries.extend(entries.into_iter().map(|entry| (entry.log_id.index, entry)));
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.0.lock().entries.retain(|index, _| last.is_some_and(|last| *index <= last.index));
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let mut log = self.0.lock();
        log.entries.retain(|index, _| *index > upto.index);
        log.purged = Some(upto);
        Ok(())
    }
}

/// The machine's state: everything that was ever written, one after the other.
#[derive(Default)]
pub struct State {
    pub data: Vec<u8>,
    applied: Option<LogId>,
    membership: StoredMembership,
}

/// Snapshot files in a directory: `length of meta u32 · meta · data`.
#[derive(Clone)]
pub struct Directory {
    path: PathBuf,
    count: Arc<AtomicUsize>,
    latest: Arc<Mutex<Option<(SnapshotMeta, SnapshotFile)>>>,
}

impl Directory {
    pub fn new(path: PathBuf) -> Directory {
        Directory { path, count: Arc::default(), latest: Arc::default() }
    }

    /// How many files were ever begun here.
    pub fn begun(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// How many files lie here now.
    pub fn files(&self) -> usize {
        self.path.read_dir().unwrap().count()
    }

    fn create(&self) -> (PathBuf, File) {
        let path = self.path.join(self.count.fetch_add(1, Ordering::SeqCst).to_string());
        let file = File::create(&path).unwrap();
        (path, file)
    }

    pub fn write(&self, meta: &SnapshotMeta, data: &[u8]) -> SnapshotFile {
        let (path, mut file) = self.create();
        let meta = postcard::to_stdvec(meta).unwrap();
        file.write_all(&(meta.len() as u32).to_le_bytes()).unwrap();
        file.write_all(&meta).unwrap();
        file.write_all(data).unwrap();
        open(path)
    }
}

fn open(path: PathBuf) -> SnapshotFile {
    let file = Arc::new(File::open(&path).unwrap());
    let len = file.metadata().unwrap().len();
    SnapshotFile { path, file, len }
}

fn read(file: &SnapshotFile) -> (SnapshotMeta, Vec<u8>) {
    let mut all = Vec::new();
    File::open(&file.path).unwrap().read_to_end(&mut all).unwrap();
    let (len, rest) = all.split_first_chunk::<4>().unwrap();
    let (meta, data) = rest.split_at(u32::from_le_bytes(*len) as usize);
    (postcard::from_bytes(meta).unwrap(), data.to_vec())
}

struct Receiver(PathBuf, Option<File>);

impl Drop for Receiver {
    fn drop(&mut self) {
        if self.1.is_some() {
            std::fs::remove_file(&self.0).unwrap();
        }
    }
}

impl SnapshotReceiver for Receiver {
    fn write_chunk(&mut self, chunk: &[u8]) -> Result<(), Failure> {
        self.1.as_mut().unwrap().write_all(chunk).map_err(|error| Failure::io("writing", &error))
    }

    fn finish(mut self: Box<Self>) -> Result<(SnapshotMeta, SnapshotFile), Failure> {
        self.1.take().unwrap().sync_all().map_err(|error| Failure::io("syncing", &error))?;
        let file = open(self.0.clone());
        if file.len < 4 {
            return Err(Failure::new(Code::Corrupt, "too short"));
        }
        Ok((read(&file).0, file))
    }
}

impl SnapshotSink for Directory {
    fn begin(&self) -> Result<Box<dyn SnapshotReceiver>, Failure> {
        let (path, file) = self.create();
        Ok(Box::new(Receiver(path, Some(file))))
    }
}

pub struct MemoryMachine {
    pub state: Arc<Mutex<State>>,
    pub directory: Directory,
}

pub struct Builder(Arc<Mutex<State>>, Directory);

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let state = self.0.lock();
        let meta = SnapshotMeta { last_log_id: state.applied, last_membership: state.membership.clone() };
        let snapshot = self.1.write(&meta, &state.data);
        *self.1.latest.lock() = Some((meta.clone(), snapshot.clone()));
        Ok(Snapshot { meta, snapshot })
    }
}

impl RaftStateMachine<TypeConfig> for MemoryMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let state = self.state.lock();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let mut state = self.state.lock();
            state.applied = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(batch) => state.data.extend_from_slice(&batch.0),
                EntryPayload::Membership(membership) => {
                    state.membership = StoredMembership::new(Some(entry.log_id), membership);
                }
            }
            drop(state);
            if let Some(responder) = responder {
                responder.send(Done);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder(self.state.clone(), self.directory.clone())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotFile) -> Result<(), io::Error> {
        let (_, data) = read(&snapshot);
        *self.state.lock() = State { data, applied: meta.last_log_id, membership: meta.last_membership.clone() };
        *self.directory.latest.lock() = Some((meta.clone(), snapshot));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.directory.latest.lock().clone().map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}
