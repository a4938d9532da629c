//! Defects of the log that need to remember something; see [`crate::planted`].

use raft_engine::LogBatch;
use raft_proto::eraftpb;

use super::env::FileSystem;
use super::reader::Engine;
use super::record::Record;
use super::state::Operation;
use crate::consensus::types::{LogId, Vote};
use crate::planted::{self, Defect};
use crate::worker::apart;

/// What the defects of one log remember.
#[derive(Default)]
pub(super) struct Plants {
    /// A vote that is answered and not written, and one that is to be written now.
    late: Option<Vote>,
    ripe: Option<Vote>,
    /// Entries that a truncation should have removed, and the last of them.
    behind: Vec<eraftpb::Entry>,
    last_behind: Option<LogId>,
}

/// True when `operations` are to be left without a sync.
pub(super) fn unsynced(operations: &[Operation]) -> bool {
    let appends = || operations.iter().any(|operation| matches!(operation, Operation::Append { .. }));
    let votes = || operations.iter().any(|operation| matches!(operation, Operation::Vote { .. }));
    (planted::is(Defect::AckBeforeSync) && appends() && !votes())
        || (planted::is(Defect::VoteNotDurable) && votes() && !appends())
}

impl Plants {
    /// Answers votes at once and keeps them back; gives the other operations.
    pub fn keep_votes_back(&mut self, operations: Vec<Operation>) -> Vec<Operation> {
        let (votes, others): (Vec<_>, Vec<_>) =
            operations.into_iter().partition(|operation| matches!(operation, Operation::Vote { .. }));
        for operation in votes {
            if let Operation::Vote { vote, .. } = &operation {
                self.late = Some(*vote);
            }
            operation.complete(&Ok(()));
        }
        others
    }

    /// The vote that is to be written with a batch that comes after one with entries.
    pub fn vote_of_before(&mut self, appends: bool) -> Option<Vote> {
        let ripe = self.ripe.take();
        if appends {
            self.ripe = self.late.take();
        }
        ripe
    }

    /// Keeps the entries `first..=tail` that are being truncated.
    pub fn keep_behind<F: FileSystem>(&mut self, engine: &Engine<F>, group: u64, first: u64, tail: Option<LogId>) {
        let Some(last) = tail.filter(|tail| tail.index >= first) else { return };
        let read = apart(|| {
            let mut records = Vec::new();
            // What is not there any more is not left behind either.
            let found = engine.fetch_entries_to::<Record>(group, first, last.index + 1, None, &mut records);
            Ok(found.map_or(Vec::new(), |_| records))
        });
        self.behind = read.unwrap_or_default();
        self.last_behind = tail;
    }

    /// Puts what lies behind an entry with index `tail` into `batch` again, and says which entry is then the last.
    pub fn leave_behind(&mut self, batch: &mut LogBatch, group: u64, tail: u64) -> Option<LogId> {
        self.behind.retain(|record| record.index > tail);
        let last = self.last_behind.filter(|_| !self.behind.is_empty())?;
        batch.add_entries::<Record>(group, &self.behind).ok().map(|()| last)
    }
}
