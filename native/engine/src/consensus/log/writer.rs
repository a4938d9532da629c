//! The worker that owns all writing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use raft_engine::{Command, LogBatch};

use super::env::FileSystem;
use super::files::Ledger;
use super::guard::Seen;
use super::marks::{self, Marks};
use super::plants::{self, Plants};
use super::reader::Engine;
use super::record::Record;
use super::state::{Operation, Shared};
use crate::error::{Code, Failure};
use crate::limits::LOG_BATCH_BYTES;
use crate::planted::{self, Defect};
use crate::surroundings::{Pace, Stage, is_inline};
use crate::worker::apart;

/// How long the writer waits for an operation before it writes the committed position alone.
const LINGER: Duration = Duration::from_millis(20);

/// See the module.
pub(super) struct Writer<F: FileSystem> {
    engine: Arc<Engine<F>>,
    group: u64,
    seen: Arc<Seen>,
    pub shared: Arc<Shared>,
    /// As of the last batch written.
    marks: Marks,
    /// First and last entry in raft-engine's index, which may go on beyond the tail.
    span: Option<(u64, u64)>,
    ledger: Ledger,
    batch: LogBatch,
    plants: Plants,
}

/// What a batch is made of, besides its marks.
#[derive(Default)]
struct Contents {
    entries: u64,
    highest: Option<u64>,
    purges: bool,
}

impl<F: FileSystem> Writer<F> {
    /// A writer that goes on after `marks`.
    pub fn new(
        engine: Arc<Engine<F>>,
        group: u64,
        seen: Arc<Seen>,
        shared: Arc<Shared>,
        marks: Marks,
        ledger: Ledger,
    ) -> Writer<F> {
        let span = engine.first_index(group).zip(engine.last_index(group));
        Writer {
            engine,
            group,
            seen,
            shared,
            marks,
            span,
            ledger,
            batch: LogBatch::default(),
            plants: Plants::default(),
        }
    }

    /// Writes the marks alone and syncs: from then on what was found at open is durable too, which the page cache of a
    /// process that was killed is not.
    pub fn settle(&mut self) -> Result<(), Failure> {
        self.write_caught(&[], true)
    }

    /// Writes until the store closes.
    pub async fn run(mut self, pace: Pace) {
        loop {
            let mut operations = self.shared.take(LOG_BATCH_BYTES, LINGER).await;
            if planted::is(Defect::VoteReordered) {
                operations = self.plants.keep_votes_back(operations);
            }
            pace.pass(Stage::LogWrite).await;
            let closing = {
                let state = self.shared.state.lock();
                state.closing && state.queue.is_empty() && operations.is_empty()
            };
            let outcome = self.turn(&operations);
            pace.pass(Stage::LogSynced).await;
            self.shared.state.lock().finished(operations.len() as u64);
            operations.into_iter().for_each(|operation| operation.complete(&outcome));
            if closing {
                return;
            }
        }
    }

    fn turn(&mut self, operations: &[Operation]) -> Result<(), Failure> {
        let (failure, committed_is_new) = {
            let state = self.shared.state.lock();
            (state.failure.clone(), state.committed_is_new)
        };
        let outcome = match failure {
            Some(failure) => Err(failure),
            None if operations.is_empty() && !committed_is_new => Ok(()),
            None => self.write_caught(operations, !operations.is_empty() && !plants::unsynced(operations)),
        };
        if let Err(failure) = &outcome {
            self.shared.fail(failure);
        }
        outcome
    }

    fn write_caught(&mut self, operations: &[Operation], sync: bool) -> Result<(), Failure> {
        catch_unwind(AssertUnwindSafe(|| self.write(operations, sync))).unwrap_or_else(|panic| {
            let why = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            Err(Failure::new(Code::Io, format!("Writing the log in {} failed: {why}", self.engine.path())))
        })
    }

    /// Writes `operations` and the marks as one batch.
    fn write(&mut self, operations: &[Operation], sync: bool) -> Result<(), Failure> {
        let contents = self.fill(operations)?;
        self.marks.seq += 1;
        self.adopt_committed(operations.len() as u64);
        if planted::is(Defect::PurgedNotDurable) {
            self.marks.purged = None;
        }
        self.batch.put(self.group, marks::KEY.to_vec(), self.marks.encode()).map_err(|error| self.failed(&error))?;
        let bytes = self.engine.write(&mut self.batch, sync).map_err(|error| self.failed(&error))?;
        if let Some(failure) = self.seen.failure() {
            return Err(failure);
        }
        if sync {
            self.marks.synced = self.marks.seq;
        }
        self.count(&contents, bytes);
        let new_file = self.ledger.wrote(self.seen.current(), contents.highest);
        if sync && (contents.purges || new_file) {
            self.drop_files()?;
        }
        Ok(())
    }

    fn fill(&mut self, operations: &[Operation]) -> Result<Contents, Failure> {
        let mut contents = Contents::default();
        if let Some(vote) = self.plants.vote_of_before(!operations.is_empty()) {
            self.marks.vote = Some(vote);
        }
        for operation in operations {
            match operation {
                Operation::Append { records, tail, .. } => {
                    let Some(first) = records.first() else { continue };
                    self.make_way(first.index, tail.index);
                    self.batch.add_entries::<Record>(self.group, records).map_err(|error| self.failed(&error))?;
                    self.marks.append(first.index, *tail);
                    if let Some(last) = self.plants.leave_behind(&mut self.batch, self.group, tail.index) {
                        self.marks.append(first.index, last);
                    }
                    contents.entries += records.len() as u64;
                    contents.highest = contents.highest.max(Some(tail.index));
                }
                Operation::Truncate { after } => {
                    if planted::is(Defect::HoleAfterTruncate) {
                        let first = after.map_or(0, |after| after.index + 1);
                        self.plants.keep_behind(&self.engine, self.group, first, self.marks.tail);
                    }
                    self.marks.truncate(*after);
                }
                Operation::Purge { upto } => {
                    self.marks.purge(*upto);
                    self.compact(upto.index + 1);
                    contents.purges = true;
                }
                Operation::Vote { vote, .. } => self.marks.vote = Some(*vote),
            }
        }
        Ok(contents)
    }

    /// raft-engine takes entries that overwrite or extend what it has; anything else there is dropped first.
    fn make_way(&mut self, first: u64, last: u64) {
        match self.span {
            Some((from, to)) if first < from || first > to + 1 => {
                self.compact(to + 1);
                self.span = Some((first, last));
            }
            Some((from, _)) => self.span = Some((from, last)),
            None => self.span = Some((first, last)),
        }
    }

    fn compact(&mut self, first: u64) {
        self.batch.add_command(self.group, Command::Compact { index: first });
        self.span = self.span.filter(|span| span.1 >= first).map(|(from, to)| (from.max(first), to));
    }

    /// Notes the newest committed position in a batch of `operations`, unless it lies beyond them.
    fn adopt_committed(&mut self, operations: u64) {
        let mut state = self.shared.state.lock();
        if let Some(committed) = state.committed_by(operations, self.marks.tail) {
            self.marks.committed = committed;
            state.committed_is_new = false;
        }
    }

    fn count(&self, contents: &Contents, bytes: usize) {
        let mut state = self.shared.state.lock();
        state.batches += 1;
        state.entries += contents.entries;
        state.bytes += bytes as u64;
    }

    /// Gives files back for reuse. The purged position that allows it is durable.
    fn drop_files(&mut self) -> Result<(), Failure> {
        let Some(purged) = self.marks.purged else { return Ok(()) };
        let count = self.ledger.droppable(purged.index);
        if count == 0 {
            return Ok(());
        }
        self.purge_files()?;
        self.ledger.dropped(count);
        self.seen.failure().map_or(Ok(()), Err)
    }

    /// raft-engine may read here, which on one thread for several stores would mix them up.
    fn purge_files(&self) -> Result<(), Failure> {
        let purge = || self.engine.purge_expired_files().map(drop).map_err(|error| self.failed(&error));
        if is_inline() { apart(purge) } else { purge() }
    }

    fn failed(&self, error: &raft_engine::Error) -> Failure {
        match error {
            raft_engine::Error::Io(error) => Failure::io(format!("Writing the log in {}", self.engine.path()), error),
            other => Failure::new(Code::Io, format!("Writing the log in {}: {other}", self.engine.path())),
        }
    }
}
