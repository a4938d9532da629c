//! Disks that fail, and how many syncs many appends take.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use super::*;
use crate::consensus::log::env::{DefaultFileSystem, FileSystem, Handle, Permission, WriteExt};
use crate::error::Code;

/// What fails next; 0 for nothing.
#[derive(Default)]
struct Plan {
    sync: AtomicU32,
    write: AtomicU32,
    slow_sync_ms: AtomicU32,
    /// What was written and not synced: file and place.
    dirty: Mutex<Vec<(PathBuf, Range<u64>)>>,
    /// What a failed sync left in memory as if it were on the disk: no later sync writes it.
    lost: Mutex<Vec<(PathBuf, Range<u64>)>>,
}

#[derive(Clone, Default)]
struct Failing(Arc<Plan>);

struct FailingHandle(Arc<<DefaultFileSystem as FileSystem>::Handle>, Arc<Plan>, PathBuf);
struct FailingWriter(<DefaultFileSystem as FileSystem>::Writer, Arc<Plan>, PathBuf);
struct PlainReader(<DefaultFileSystem as FileSystem>::Reader);

impl FileSystem for Failing {
    type Handle = FailingHandle;
    type Reader = PlainReader;
    type Writer = FailingWriter;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<FailingHandle> {
        let path = path.as_ref();
        Ok(FailingHandle(Arc::new(DefaultFileSystem.create(path)?), self.0.clone(), path.into()))
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<FailingHandle> {
        let path = path.as_ref();
        Ok(FailingHandle(Arc::new(DefaultFileSystem.open(path, permission)?), self.0.clone(), path.into()))
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        DefaultFileSystem.delete(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        DefaultFileSystem.rename(from, to)
    }

    fn new_reader(&self, handle: Arc<FailingHandle>) -> io::Result<PlainReader> {
        Ok(PlainReader(DefaultFileSystem.new_reader(handle.0.clone())?))
    }

    fn new_writer(&self, handle: Arc<FailingHandle>) -> io::Result<FailingWriter> {
        Ok(FailingWriter(DefaultFileSystem.new_writer(handle.0.clone())?, self.0.clone(), handle.2.clone()))
    }
}

impl Handle for FailingHandle {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        self.0.truncate(offset)
    }

    fn file_size(&self) -> io::Result<usize> {
        self.0.file_size()
    }

    fn sync(&self) -> io::Result<()> {
        std::thread::sleep(Duration::from_millis(self.1.slow_sync_ms.load(Ordering::SeqCst).into()));
        let own: Vec<_> = self.1.dirty.lock().extract_if(.., |(path, _)| *path == self.2).collect();
        if self.1.sync.load(Ordering::SeqCst) > 0 {
            self.1.sync.fetch_sub(1, Ordering::SeqCst);
            self.1.lost.lock().extend(own);
            return Err(io::Error::other("the disk is on fire"));
        }
        self.0.sync()
    }
}

impl Write for FailingWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.1.write.load(Ordering::SeqCst) > 0 {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "nospace"));
        }
        let from = self.0.stream_position()?;
        let written = self.0.write(data)?;
        let place = from..from + written as u64;
        let covered = |lost: &Range<u64>| place.start <= lost.start && lost.end <= place.end;
        self.1.lost.lock().retain(|(path, lost)| *path != self.2 || !covered(lost));
        self.1.dirty.lock().push((self.2.clone(), place));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Seek for FailingWriter {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.0.seek(position)
    }
}

impl WriteExt for FailingWriter {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        self.0.truncate(offset)
    }

    fn allocate(&mut self, offset: usize, size: usize) -> io::Result<()> {
        self.0.allocate(offset, size)
    }
}

impl Read for PlainReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out)
    }
}

impl Seek for PlainReader {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.0.seek(position)
    }
}

fn open_failing(dir: &Path) -> (LogStore, Failing) {
    let disk = Failing::default();
    (LogStore::open_on(dir, small(), Arc::new(disk.clone())).unwrap(), disk)
}

/// The log files, the oldest first, and their lengths.
fn log_lengths(dir: &Path) -> Vec<(std::path::PathBuf, u64)> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "raftlog")).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), path.metadata().unwrap().len())).collect()
}

async fn refused(store: &mut LogStore, index: u64) -> String {
    let (done, durable) = TypeConfig::oneshot();
    let appended = store.append(entries(1, index..=index), IOFlushed::<TypeConfig>::signal(done)).await;
    match appended {
        Err(error) => error.to_string(),
        Ok(()) => soon(durable).await.unwrap().unwrap_err().to_string(),
    }
}

#[tokio::test]
async fn many_appends_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, disk) = open_failing(dir.path());
    let before = store.stats();
    disk.0.slow_sync_ms.store(20, Ordering::SeqCst);
    let mut waiting = Vec::new();
    for index in 0..300 {
        waiting.push(send(&mut store, vec![entry(1, index, 10)]).await);
    }
    for durable in waiting {
        soon(durable).await.unwrap().unwrap();
    }
    let after = store.stats();
    assert_eq!(after.entries - before.entries, 300);
    assert!(after.syncs - before.syncs <= 10, "{} syncs", after.syncs - before.syncs);
    assert!(after.sync_last_us >= 20_000 && after.sync_max_us >= after.sync_mean_us, "{after:?}");
}

#[tokio::test]
async fn after_one_failed_sync_nothing_is_ever_acknowledged_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, disk) = open_failing(dir.path());
    append(&mut store, entries(1, 0..=3)).await;
    assert_eq!(store.health(), None);
    disk.0.sync.store(1, Ordering::SeqCst);
    assert!(refused(&mut store, 4).await.contains("on fire"));
    // The disk is well again; this store does not believe it.
    assert!(refused(&mut store, 5).await.contains("on fire"));
    assert!(store.save_vote(&vote(9)).await.unwrap_err().to_string().contains("on fire"));
    assert_eq!(store.health().unwrap().code, Code::Io);
    store.close();

    let mut store = open(dir.path());
    assert_eq!(store.read_vote().await.unwrap(), None);
    assert_eq!(read(&mut store, 0..=3).await, entries(1, 0..=3));
    let (_, last) = ends(&mut store).await;
    append(&mut store, entries(1, last.unwrap() + 1..=last.unwrap() + 1)).await;
}

/// The kernel takes pages for clean after a sync that failed; only what is written again reaches the disk with the next.
#[tokio::test]
async fn what_a_failed_sync_left_in_memory_is_written_again_before_it_is_vouched_for() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, disk) = open_failing(dir.path());
    append(&mut store, entries(1, 0..=3)).await;
    disk.0.sync.store(1, Ordering::SeqCst);
    refused(&mut store, 4).await;
    store.close();
    assert!(!disk.0.lost.lock().is_empty());

    let mut store = LogStore::open_on(dir.path(), small(), Arc::new(disk.clone())).unwrap();
    assert!(disk.0.lost.lock().is_empty(), "{:?}", disk.0.lost.lock());
    assert_eq!(read(&mut store, 0..=3).await, entries(1, 0..=3));
}

#[tokio::test]
async fn everything_in_the_failed_batch_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, disk) = open_failing(dir.path());
    disk.0.slow_sync_ms.store(200, Ordering::SeqCst);
    let first = send(&mut store, entries(1, 0..=0)).await;
    // The writer is in its sync by now; what follows goes into the next batch.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut waiting = Vec::new();
    for index in 1..20 {
        waiting.push(send(&mut store, entries(1, index..=index)).await);
    }
    soon(first).await.unwrap().unwrap();
    disk.0.sync.store(1, Ordering::SeqCst);
    for durable in waiting {
        assert!(soon(durable).await.unwrap().is_err());
    }
}

#[tokio::test]
async fn a_full_disk_is_reported_and_reopening_goes_on_when_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, disk) = open_failing(dir.path());
    append(&mut store, entries(1, 0..=3)).await;
    disk.0.write.store(1, Ordering::SeqCst);
    let why = refused(&mut store, 4).await;
    assert!(why.contains("nospace"), "{why}");
    disk.0.write.store(0, Ordering::SeqCst);
    assert!(refused(&mut store, 5).await.contains("nospace"), "only reopening helps");
    assert_eq!(store.health().unwrap().code, Code::Io);
    store.close();

    let mut store = open(dir.path());
    assert_eq!(ends(&mut store).await, (None, Some(3)));
    append(&mut store, entries(2, 4..=5)).await;
    assert_eq!(read(&mut store, 0..=9).await, [entries(1, 0..=3), entries(2, 4..=5)].concat());
}

/// raft-engine goes on in a file whose header is missing, in its first format, which has no signatures: the next start found
/// damage at offset 0 and refused. A full disk left such a file when the log changed files.
#[tokio::test]
async fn a_newest_file_without_a_header_is_begun_anew() {
    for header in [&b""[..], b"RAFT-LOG", &[0; 200]] {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        append(&mut store, entries(1, 0..=3)).await;
        store.close();
        std::fs::write(dir.path().join("0000000000000002.raftlog"), header).unwrap();
        for life in 1..=3 {
            let mut store = open(dir.path());
            let next = 4 * life;
            append(&mut store, (next..next + 4).map(|index| entry(1, index, 20 << 10)).collect()).await;
            assert_eq!(read(&mut store, 0..=3).await, entries(1, 0..=3));
            assert_eq!(ends(&mut store).await, (None, Some(next + 3)));
            store.close();
        }
    }
}

/// The sync that closes a file fails, and the power takes what it should have made durable: the committed position, which is
/// written alone and not synced. Entries of many lengths, for some of which that position is the last that the file has room for.
#[tokio::test]
async fn what_the_sync_at_the_end_of_a_file_lost_is_a_torn_end() {
    let mut rotations = 0;
    for missing in (0..1_000).step_by(50) {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, disk) = open_failing(dir.path());
        append(&mut store, vec![entry(1, 0, (32 << 10) - missing)]).await;
        store.save_committed(Some(id(1, 0))).await.unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
        let before = log_lengths(dir.path());
        disk.0.sync.store(1, Ordering::SeqCst);
        refused(&mut store, 1).await;
        store.close();
        let after = log_lengths(dir.path());
        if after.len() > before.len() {
            rotations += 1;
            let (closed, len) = &after[after.len() - 2];
            std::fs::OpenOptions::new().write(true).open(closed).unwrap().set_len(len - 10).unwrap();
            let mut store = open(dir.path());
            assert_eq!(ends(&mut store).await, (None, Some(0)));
            append(&mut store, entries(1, 1..=1)).await;
            store.close();
            assert_eq!(ends(&mut open(dir.path())).await, (None, Some(1)));
        }
    }
    assert!(rotations > 0);
}

#[tokio::test]
async fn a_disk_that_fails_at_open_fails_the_open() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Failing::default();
    disk.0.sync.store(100, Ordering::SeqCst);
    let failure = LogStore::open_on(dir.path(), small(), Arc::new(disk)).err().unwrap();
    assert_eq!(failure.code, Code::Io);
    open(dir.path());
}
