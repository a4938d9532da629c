//! openraft's traits on the log store.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use futures_util::Stream;
use futures_util::stream::{self, BoxStream};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use tokio::sync::oneshot;

use super::reader::Request;
use super::record;
use super::state::{Operation, corrupt};
use super::store::LogStore;
use crate::consensus::types::{Entry, LogId, TypeConfig, Vote};
use crate::error::{Code, Failure};
use crate::limits::LOG_READ_BYTES;
use crate::spin;

impl LogStore {
    /// The first of the entries `first..end`, at most about [`LOG_READ_BYTES`] but at least one where there is one, and
    /// the epoch in which they were read.
    async fn read_some(&self, first: u64, end: u64) -> Result<(Vec<Entry>, u64), Failure> {
        let shared = &self.inner.shared;
        loop {
            let plan = {
                let state = shared.state.lock();
                state.usable()?;
                state.plan(first, end, LOG_READ_BYTES)
            };
            let Some(cold) = plan.cold else { return Ok((plan.hot, plan.epoch)) };
            let read = self.read_files(cold).await;
            if shared.state.lock().epoch() != plan.epoch {
                // Truncated or purged meanwhile: what was read may be gone, and what failed may never have been.
                continue;
            }
            let read = read.and_then(|entries| {
                entries.ok_or_else(|| corrupt(format!("The log entries {} to {} are gone.", cold.0, cold.1 - 1)))
            });
            return read.map(|entries| (entries, plan.epoch)).inspect_err(|failure| {
                if failure.code == Code::Corrupt {
                    shared.fail(failure);
                }
            });
        }
    }

    async fn read_files(&self, (first, end): (u64, u64)) -> Result<Option<Vec<Entry>>, Failure> {
        let sender = self.inner.requests.lock().clone().ok_or_else(Failure::closed)?;
        let (reply, answer) = oneshot::channel();
        let request = Request { first, end, bytes: LOG_READ_BYTES, reply };
        sender.send(request).await.map_err(|_| Failure::closed())?;
        drop(sender);
        answer.await.map_err(|_| Failure::closed())?
    }

    /// All entries of `first..end` that the log holds, as of one moment.
    async fn read_all(&self, first: u64, end: u64) -> Result<Vec<Entry>, Failure> {
        'anew: loop {
            let (mut entries, begun) = self.read_some(first, end).await?;
            while let Some(last) = entries.last().map(|entry| entry.log_id.index)
                && last + 1 < end
            {
                let (more, epoch) = self.read_some(last + 1, end).await?;
                if epoch != begun {
                    continue 'anew;
                }
                if more.is_empty() {
                    break;
                }
                entries.extend(more);
            }
            return Ok(entries);
        }
    }
}

fn bounds(range: impl RangeBounds<u64>) -> (u64, u64) {
    let first = match range.start_bound() {
        Bound::Included(first) => *first,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (first, end)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<Entry, io::Error>> + Send
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let held = self.inner.shared.state.lock().marks.range();
        let (first, end) = bounds(range);
        stream_entries(self.clone(), first.max(held.0), end.min(held.1))
    }

    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (first, end) = bounds(range);
        Ok(self.read_all(first, end).await?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.inner.shared.state.lock().marks.vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let (entries, _) = self.read_some(start, end).await?;
        match entries.first().map(|entry| entry.log_id.index) {
            // A follower that got these would have a hole.
            Some(first) if first != start => {
                Err(Failure::new(Code::Compacted, format!("Log entry {start} was purged; {first} is the oldest.")))?
            }
            _ => Ok(entries),
        }
    }
}

/// Entries `first..end` in portions, so that memory holds one of them at a time.
fn stream_entries(store: LogStore, first: u64, end: u64) -> BoxStream<'static, Result<Entry, io::Error>> {
    let portions = stream::try_unfold(first, move |next| {
        let store = store.clone();
        async move {
            if next >= end {
                return Ok(None);
            }
            let (entries, _) = store.read_some(next, end).await?;
            if entries.first().map(|entry| entry.log_id.index) != Some(next) {
                let what = format!("Log entry {next} went away while it was being read.");
                return Err(io::Error::from(Failure::new(Code::Compacted, what)));
            }
            let after = next + entries.len() as u64;
            Ok(Some((stream::iter(entries.into_iter().map(Ok)), after)))
        }
    });
    Box::pin(futures_util::TryStreamExt::try_flatten(portions))
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.inner.shared.state.lock();
        state.usable()?;
        Ok(LogState { last_purged_log_id: state.marks.purged, last_log_id: state.marks.tail })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (done, saved) = oneshot::channel();
        let vote = *vote;
        let submitted = self.inner.shared.submit(|state| {
            state.marks.vote = Some(vote);
            Ok(Operation::Vote { vote, done })
        });
        submitted.await?;
        Ok(saved.await.map_err(|_| Failure::closed())??)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let shared = &self.inner.shared;
        let mut state = shared.state.lock();
        state.usable()?;
        state.marks.committed = committed;
        state.committed_is_new = true;
        let asleep = state.asleep;
        drop(state);
        if asleep {
            shared.work.notify_one();
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.inner.shared.state.lock().marks.committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        #[cfg(test)]
        panics::in_time(&self.inner.dir);
        spin::expect();
        let entries: Vec<Entry> = entries.into_iter().collect();
        let Some(tail) = entries.last().map(|entry| entry.log_id) else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        let records = entries.iter().map(record::encode).collect::<Result<Vec<_>, _>>()?;
        let submitted = self.inner.shared.submit(|state| {
            state.append(entries)?;
            Ok(Operation::Append { records, tail, done: callback })
        });
        Ok(submitted.await?)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let submitted = self.inner.shared.submit(|state| {
            state.truncate(last_log_id);
            Ok(Operation::Truncate { after: last_log_id })
        });
        Ok(submitted.await?)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let submitted = self.inner.shared.submit(|state| {
            state.purge(log_id);
            Ok(Operation::Purge { upto: log_id })
        });
        Ok(submitted.await?)
    }
}

/// The call comes from openraft's core itself, so a panic here is one of the core.
#[cfg(test)]
pub(crate) mod panics {
    use std::path::{Path, PathBuf};

    use parking_lot::Mutex;

    /// The log whose next append panics.
    pub static NEXT: Mutex<Option<PathBuf>> = Mutex::new(None);

    pub fn in_time(dir: &Path) {
        let next = NEXT.lock().take_if(|next| next == dir);
        assert!(next.is_none(), "planted");
    }
}
