//! Reads and watches, from any thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::execute::entry;
use super::op::{CountAnswer, Entry, GetAnswer, Read, ScanAnswer, ScanEntry};
use super::panics::panic_message;
use super::record::{DATA, Record, end_of_prefix, key_in};
use super::shared::{Shared, View};
use super::walk::Walk;
use crate::error::{Code, Failure};
use crate::limits::{COUNTS_MAX, SCAN_BYTES_MAX, SCAN_ENTRIES_MAX};

/// Reads the key-value store and watches it. Cheap to clone; outlives its machine, then every call fails with `Closed`, or, when
/// the machine had failed and may be opened again, with `StateMachine`.
#[derive(Clone)]
pub struct KvReader {
    pub(super) shared: Arc<Shared>,
}

impl KvReader {
    pub(super) fn new(shared: Arc<Shared>) -> KvReader {
        KvReader { shared }
    }

    /// The revision up to which this node has applied.
    pub fn revision(&self) -> u64 {
        self.shared.visible.read().revision
    }

    /// Number of entries in the store.
    pub fn entries(&self) -> u64 {
        self.shared.visible.read().entries
    }

    /// Answers a read operation (see [`super::op`]) from what this node has applied. Each answer is the store at exactly
    /// the revision that it begins with. A get or a scan holds up applies while it runs, which its caps keep short;
    /// a count does not. Blocks on the disk: not for a thread that must not.
    ///
    /// Fails with `Invalid` when the operation is malformed, `Overloaded` when [`COUNTS_MAX`] counts are running,
    /// `Unavailable` while a snapshot is being installed, `Corrupt` or `Io` when sled fails, `StateMachine` when the
    /// machine is broken, `Closed` after it was dropped.
    pub fn read(&self, operation: &[u8]) -> Result<Vec<u8>, Failure> {
        let read = Read::decode(operation)?;
        let answer = catch_unwind(AssertUnwindSafe(|| match &read {
            Read::Get { key } => self.get(key),
            Read::Scan { prefix, after, limit, keys_only } => self.scan(prefix, after.as_deref(), *limit, *keys_only),
            Read::Count { prefix } => self.count(prefix),
        }));
        answer.unwrap_or_else(|panic| {
            Err(Failure::new(Code::Corrupt, format!("Reading the store panicked: {}", panic_message(panic.as_ref()))))
        })
    }

    fn get(&self, key: &[u8]) -> Result<Vec<u8>, Failure> {
        let key = key_in(DATA, key);
        let visible = self.shared.visible.read();
        let revision = visible.revision;
        let stored = visible.view()?.get(&key)?;
        drop(visible);
        Ok(GetAnswer { revision, found: stored.as_ref().map(entry).transpose()? }.encode())
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: u32, keys_only: bool) -> Result<Vec<u8>, Failure> {
        let limit = match limit as usize {
            0 => SCAN_ENTRIES_MAX,
            limit => limit.min(SCAN_ENTRIES_MAX),
        };
        let prefix = key_in(DATA, prefix);
        let end = end_of_prefix(&prefix);
        let mut from = prefix;
        if let Some(after) = after {
            let mut next = key_in(DATA, after);
            next.push(0);
            from = from.max(next);
        }
        let visible = self.shared.visible.read();
        let (entries, more) = scan_range(&visible.view()?, &from, &end, limit, keys_only)?;
        Ok(ScanAnswer { revision: visible.revision, more, entries }.encode())
    }

    fn count(&self, prefix: &[u8]) -> Result<Vec<u8>, Failure> {
        let visible = self.shared.visible.read();
        let view = visible.view()?;
        let revision = visible.revision;
        if prefix.is_empty() {
            return Ok(CountAnswer { revision, count: visible.entries }.encode());
        }
        let _turn = Turn::take(&self.shared.counts)?;
        let from = key_in(DATA, prefix);
        let end = end_of_prefix(&from);
        let mut walk = Walk::begin(&self.shared, view.db, from, end);
        drop(visible);
        let mut count = 0;
        while let Some(chunk) = walk.next_chunk()? {
            count += chunk.len() as u64;
        }
        Ok(CountAnswer { revision, count }.encode())
    }
}

fn scan_range(
    view: &View,
    from: &[u8],
    end: &[u8],
    limit: usize,
    keys_only: bool,
) -> Result<(Vec<ScanEntry>, bool), Failure> {
    let (mut entries, mut bytes) = (Vec::new(), 0);
    for item in view.range(from, end) {
        let (key, stored) = item?;
        let Record { create, modified, value } = Record::parse(&stored)?;
        let value = if keys_only { &[] } else { value };
        bytes += key.len() + value.len();
        if entries.len() == limit || (bytes > SCAN_BYTES_MAX && !entries.is_empty()) {
            return Ok((entries, true));
        }
        let entry = Entry { create, modified, value: Bytes::copy_from_slice(value) };
        entries.push(ScanEntry { key: Bytes::copy_from_slice(&key[1..]), entry });
    }
    Ok((entries, false))
}

/// One of the counts that may run at a time.
struct Turn<'a>(&'a AtomicUsize);

impl<'a> Turn<'a> {
    fn take(running: &'a AtomicUsize) -> Result<Turn<'a>, Failure> {
        let more = |now: usize| (now < COUNTS_MAX).then_some(now + 1);
        match running.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) {
            Ok(_) => Ok(Turn(running)),
            Err(_) => Err(Failure::new(Code::Overloaded, format!("{COUNTS_MAX} counts are running; try again."))),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
