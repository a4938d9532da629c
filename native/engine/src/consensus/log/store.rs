//! Opening and closing a log store.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fs2::FileExt;
use parking_lot::Mutex;
use raft_engine::{Config, ReadableSize, RecoveryMode};
use tokio::sync::mpsc;

use super::direct::DirectFileSystem;
use super::env::FileSystem;
use super::files::{Ledger, append_seq};
use super::guard::{Guard, Seen};
use super::marks::{self, Marks};
use super::on_disk::OnDisk;
use super::options::{LogOptions, LogStats};
use super::reader::{self, Engine, Request};
use super::state::{Shared, corrupt};
use super::writer::Writer;
use super::{scan, state};
use crate::consensus::types::{Entry, LogId, Vote};
use crate::disk::{Disk, OsDisk};
use crate::durable::{blocking, make_dir};
use crate::error::{Code, Failure};
use crate::limits::{LOG_READ_BYTES, LOG_READS_MAX};
use crate::surroundings::{Pace, is_inline};
use crate::worker::{Worker, apart};

/// Threads that read the log's files at open.
const RECOVERY_THREADS: usize = 2;

/// A Raft log on disk; see the module for how it works. Cloning shares the log. The last clone that goes closes it.
#[derive(Clone)]
pub struct LogStore {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub dir: PathBuf,
    /// How long the workers wait awake at a time.
    window: Duration,
    pub shared: Arc<Shared>,
    pub requests: Mutex<Option<mpsc::Sender<Request>>>,
    seen: Arc<Seen>,
    workers: Mutex<Vec<Worker>>,
    /// Reads files past the reader, for [`LogStore::read_now`]; gone once closed.
    files: Mutex<Option<ReadFiles>>,
}

/// Reads the entries `first..end`, some from the first on, or none when they are not there.
type ReadFiles = Arc<dyn Fn(u64, u64) -> Result<Option<Vec<Entry>>, Failure> + Send + Sync>;

/// What a log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The newest vote.
    pub vote: Option<Vote>,
    /// Index of the first entry, when there is one.
    pub first: u64,
    /// The last entry; the purged one when there is none.
    pub last: Option<LogId>,
    /// The last entry that was purged.
    pub purged: Option<LogId>,
}

/// What opening comes to.
struct Opened<F: FileSystem> {
    engine: Arc<Engine<F>>,
    writer: Writer<F>,
    marks: Marks,
    seen: Arc<Seen>,
}

impl LogStore {
    /// Opens the log in `dir`, which is made when it is not there. A torn end, of a write that was never acknowledged, is
    /// cut off. Blocks for as long as reading the log's newest end takes. Fails with `Locked` when another store has
    /// it open, with `Corrupt` when anything acknowledged is damaged or missing (naming file and offset where known),
    /// and with `Io`.
    pub fn open(dir: &Path, options: LogOptions) -> Result<LogStore, Failure> {
        LogStore::open_on(dir, options, Arc::new(DirectFileSystem))
    }

    /// [`LogStore::open`] with every access to log files going through `file_system`. The directory itself is listed
    /// and synced through the operating system, which is what raft-engine does too.
    pub fn open_on<F: FileSystem + 'static>(
        dir: &Path,
        options: LogOptions,
        file_system: Arc<F>,
    ) -> Result<LogStore, Failure> {
        LogStore::open_all(dir, options, file_system, &OsDisk, Pace::default())
    }

    /// [`LogStore::open`] on `disk`, as slow as `pace` says. Where this thread is inline, the store has no threads, but
    /// workers in the present runtime.
    pub fn open_inline(dir: &Path, options: LogOptions, disk: Arc<dyn Disk>, pace: Pace) -> Result<LogStore, Failure> {
        LogStore::open_all(dir, options, Arc::new(OnDisk(disk.clone())), disk.as_ref(), pace)
    }

    fn open_all<F: FileSystem + 'static>(
        dir: &Path,
        options: LogOptions,
        file_system: Arc<F>,
        disk: &dyn Disk,
        pace: Pace,
    ) -> Result<LogStore, Failure> {
        // With one thread for it raft-engine does everything in the same order each time.
        let threads = if is_inline() { 1 } else { RECOVERY_THREADS };
        let Opened { engine, writer, marks, seen } =
            apart(|| prepare(dir, &options, file_system.clone(), disk, threads))?;
        let (sender, requests) = mpsc::channel(LOG_READS_MAX);
        let inner = Inner {
            dir: dir.to_path_buf(),
            window: options.spin,
            shared: writer.shared.clone(),
            requests: Mutex::new(Some(sender)),
            seen,
            workers: Mutex::new(Vec::new()),
            files: Mutex::new(None),
        };
        let store = LogStore { inner: Arc::new(inner) };
        let group = options.group;
        store.start(&format!("quorate-log-{}", options.name), writer.run(pace.clone()))?;
        apart(|| check_ends(&engine, group, &marks))?;
        let files = engine.clone();
        let files: ReadFiles =
            Arc::new(move |first, end| apart(|| reader::read(&files, group, first, end, LOG_READ_BYTES)));
        *store.inner.files.lock() = Some(files);
        store.start(&format!("quorate-logread-{}", options.name), reader::run(engine, group, requests, pace))?;
        Ok(store)
    }

    fn start(&self, name: &str, work: impl Future<Output = ()> + Send + 'static) -> Result<(), Failure> {
        let worker = Worker::start(name, self.inner.window, work)?;
        self.inner.workers.lock().push(worker);
        Ok(())
    }

    /// Why this store acknowledges nothing any more; `None` while all is well. It stays: only opening the directory
    /// anew, with the cause gone, starts afresh.
    pub fn health(&self) -> Option<Failure> {
        self.inner.shared.state.lock().failure.clone()
    }

    /// What the store has done since it was opened.
    pub fn stats(&self) -> LogStats {
        let (syncs, sync_last_us, sync_mean_us, sync_max_us) = self.inner.seen.syncs();
        let state = self.inner.shared.state.lock();
        let (batches, entries, bytes) = (state.batches, state.entries, state.bytes);
        LogStats { syncs, batches, entries, bytes, sync_last_us, sync_mean_us, sync_max_us }
    }

    /// The vote, and the first and last entry (also one that is not durable yet) and the purged one, as of now.
    pub fn extent(&self) -> Extent {
        let state = self.inner.shared.state.lock();
        let (marks, (first, _)) = (&state.marks, state.marks.range());
        Extent { vote: marks.vote, first, last: marks.tail, purged: marks.purged }
    }

    /// The entries `first..end`, as far as the log holds them, as of one moment. For looking at a log, past all queues:
    /// blocks for as long as the disk takes. Fails with `Corrupt`, `Io`, `Closed`.
    pub fn read_now(&self, first: u64, end: u64) -> Result<Vec<Entry>, Failure> {
        let (mut entries, mut begun) = (Vec::new(), None);
        let mut next = first;
        loop {
            let plan = self.inner.shared.state.lock().plan(next, end, LOG_READ_BYTES);
            if *begun.get_or_insert(plan.epoch) != plan.epoch {
                // Truncated or purged meanwhile.
                (entries, begun, next) = (Vec::new(), None, first);
                continue;
            }
            let some = match plan.cold {
                None => plan.hot,
                Some((first, end)) => {
                    let files = self.inner.files.lock().clone().ok_or_else(Failure::closed)?;
                    let gone = || corrupt(format!("The log entries {first} to {} are gone.", end - 1));
                    files(first, end)?.ok_or_else(gone)?
                }
            };
            let Some(last) = some.last().map(|entry| entry.log_id.index) else { return Ok(entries) };
            entries.extend(some);
            next = last + 1;
            if next >= end {
                return Ok(entries);
            }
        }
    }

    /// Writes what is queued, answers it, and ends the workers; then the directory is unlocked. Everything after it fails
    /// with `Closed`. Blocks for about as long as a sync takes, but not for workers without a thread. May be called again.
    /// Never call it from a callback of the store.
    pub fn close(&self) {
        self.inner.close();
    }

    /// [`LogStore::close`] that waits without blocking.
    pub async fn closed(self) {
        if !is_inline() {
            let closing = blocking(move || {
                self.close();
                Ok(())
            });
            if let Err(failure) = closing.await {
                tracing::error!(target: "quorate::log", "The log did not close cleanly: {failure}");
            }
            return;
        }
        self.inner.end();
        let workers = std::mem::take(&mut *self.inner.workers.lock());
        for worker in workers {
            if let Worker::Task(task) = worker
                && task.await.is_err()
            {
                self.inner.died();
            }
        }
    }
}

impl Inner {
    fn end(&self) {
        self.shared.state.lock().closing = true;
        self.shared.room.close();
        self.shared.work.notify_one();
        self.requests.lock().take();
        self.files.lock().take();
    }

    fn close(&self) {
        self.end();
        for worker in self.workers.lock().drain(..) {
            if worker.join().is_err() {
                self.died();
            }
        }
    }

    fn died(&self) {
        tracing::error!(target: "quorate::log", "A worker of the log in {} died.", self.dir.display());
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

/// Checks and opens what lies in `dir`; on a thread of its own, because raft-engine keeps a cache a thread.
fn prepare<F: FileSystem + 'static>(
    dir: &Path,
    options: &LogOptions,
    file_system: Arc<F>,
    disk: &dyn Disk,
    threads: usize,
) -> Result<Opened<F>, Failure> {
    make_dir(disk, dir).map_err(|error| Failure::io(format!("Making the log directory {}", dir.display()), &error))?;
    check_unlocked(dir)?;
    let mut files = scan::list(dir)?;
    let (mut examined, bounds) = scan::verify(file_system.as_ref(), &files.live, options.group, options.verify_bytes)?;
    scan::remove_empty(file_system.as_ref(), &mut files.live, &mut examined)?;
    scan::write_again(file_system.as_ref(), &examined)?;
    let seen = Arc::new(Seen::default());
    let guard = Guard { inner: file_system.clone(), seen: seen.clone() };
    let engine = open_engine(dir, options, guard, threads)?;
    let marks = load_marks(&engine, dir, options.group, files.missing.as_deref())?;
    remove_stale(file_system.as_ref(), &files.stale);
    let ledger = make_ledger(&files.live, &bounds, &marks, engine.last_index(options.group), options);
    let shared = Arc::new(Shared::new(marks.clone()));
    let mut writer = Writer::new(engine.clone(), options.group, seen.clone(), shared, marks.clone(), ledger);
    writer.settle()?;
    seen.failure().map_or(Ok(()), Err)?;
    disk.sync_dir(dir).map_err(|error| Failure::io(format!("Syncing {}", dir.display()), &error))?;
    Ok(Opened { engine, writer, marks, seen })
}

/// raft-engine locks the directory itself; this is for a clear answer, before anything is read.
fn check_unlocked(dir: &Path) -> Result<(), Failure> {
    let path = dir.join("LOCK");
    let lock = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let lock = lock.map_err(|error| Failure::io(format!("Opening {}", path.display()), &error))?;
    lock.try_lock_exclusive()
        .map_err(|_| Failure::new(Code::Locked, format!("The log in {} is open already.", dir.display())))
}

fn open_engine<F: FileSystem>(
    dir: &Path,
    options: &LogOptions,
    guard: Guard<F>,
    threads: usize,
) -> Result<Arc<Engine<F>>, Failure> {
    let path = dir
        .to_str()
        .ok_or_else(|| Failure::invalid(format!("The directory {} has a name that is not UTF-8.", dir.display())))?;
    let config = Config {
        dir: path.to_string(),
        recovery_mode: RecoveryMode::TolerateTailCorruption,
        recovery_threads: threads,
        batch_compression_threshold: ReadableSize(0),
        target_file_size: ReadableSize(options.file_bytes),
        purge_threshold: ReadableSize(options.purge_bytes.max(options.file_bytes)),
        enable_log_recycle: true,
        prefill_for_recycle: options.prefill_bytes > 0,
        // raft-engine makes half as many again as it is told.
        prefill_limit: (options.prefill_bytes > 0).then_some(ReadableSize(options.prefill_bytes * 2 / 3)),
        ..Config::default()
    };
    let opened = catch_unwind(AssertUnwindSafe(|| Engine::open_with_file_system(config, Arc::new(guard))));
    match opened {
        Ok(Ok(engine)) => Ok(Arc::new(engine)),
        Ok(Err(raft_engine::Error::Io(error))) => Err(Failure::io(format!("Opening the log in {path}"), &error)),
        Ok(Err(error @ raft_engine::Error::Other(_))) => {
            Err(Failure::new(Code::Io, format!("Opening the log in {path}: {error}")))
        }
        Ok(Err(error)) => Err(corrupt(format!("The log in {path} is damaged: {error}."))),
        Err(_) => Err(corrupt(format!("The log in {path} is damaged: entries are missing in the middle."))),
    }
}

/// The marks, checked against the entries that are there.
fn load_marks<F: FileSystem>(
    engine: &Engine<F>,
    dir: &Path,
    group: u64,
    missing: Option<&Path>,
) -> Result<Marks, Failure> {
    let span = engine.first_index(group).zip(engine.last_index(group));
    let dir = dir.display();
    let Some(data) = engine.get(group, marks::KEY) else {
        return match span {
            None => Ok(Marks::default()),
            Some(_) => Err(corrupt(format!("The log in {dir} has entries, but no record of what they are."))),
        };
    };
    let marks = Marks::decode(&data)?;
    let (first, end) = marks.range();
    let whole = marks.is_empty() || span.is_some_and(|(from, to)| from <= first && to + 1 >= end);
    if whole {
        return Ok(marks);
    }
    let there = span.map_or("none".to_string(), |(from, to)| format!("{from} to {to}"));
    let missing = missing.map_or(String::new(), |path| format!(" {} is missing.", path.display()));
    Err(corrupt(format!(
        "The log in {dir} should hold the entries {first} to {}, but it holds {there}.{missing}",
        end - 1
    )))
}

/// Reads the first and the last entry: they must be there and be what the marks say.
fn check_ends<F: FileSystem>(engine: &Engine<F>, group: u64, marks: &Marks) -> Result<(), Failure> {
    let Some(tail) = marks.tail.filter(|_| !marks.is_empty()) else { return Ok(()) };
    for index in [marks.first, tail.index] {
        let entry = reader::read(engine, group, index, index + 1, 0)?.and_then(|mut entries| entries.pop());
        let found = entry.map(|entry| entry.log_id);
        if found.is_none() || (index == tail.index && found != Some(tail)) {
            let dir = engine.path();
            return Err(state::corrupt(format!("The log in {dir} should end with {tail}; found {found:?}.")));
        }
    }
    Ok(())
}

/// Removes files before a gap: with the marks checked they are known to hold nothing that counts.
fn remove_stale<F: FileSystem>(file_system: &F, stale: &[PathBuf]) {
    for path in stale {
        if let Err(error) = file_system.delete(path) {
            tracing::warn!(target: "quorate::log", "{} cannot be removed: {error}", path.display());
        }
    }
}

/// What each of the `live` files holds at most: `bounds`, unless raft-engine has entries up to `last` that lie beyond the tail and
/// were not overwritten yet.
fn make_ledger(live: &[PathBuf], bounds: &[u64], marks: &Marks, last: Option<u64>, options: &LogOptions) -> Ledger {
    let first = live.first().and_then(|path| append_seq(path)).unwrap_or(1);
    let tail = marks.tail.map(|tail| tail.index);
    let most = tail.max(last);
    let highest = |bound: &u64| if most > tail { most } else { most.map(|most| most.min(*bound)) };
    let highest = if live.is_empty() { vec![most] } else { bounds.iter().take(live.len()).map(highest).collect() };
    Ledger::new(first, highest, options.file_bytes, options.purge_bytes)
}
