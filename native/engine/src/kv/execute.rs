//! Runs one command against the overlay.

use bytes::Bytes;
use sled::IVec;

use super::op::{Condition, Entry, FailedGuard, Guard, Txn, TxnOutcome, Write};
use super::overlay::Overlay;
use super::record::Record;
use crate::error::Failure;
use crate::machine::{Committed, Outcome};

/// The outcome of `command`; a refusal is one. `Err` means that the store failed.
pub(super) fn execute(overlay: &mut Overlay, command: &Committed) -> Result<Outcome, Failure> {
    let txn = match Txn::decode(command.body.clone()) {
        Ok(txn) => txn,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let failed = first_failed(overlay, &txn.guards)?;
    let writes = if failed.is_none() { &txn.writes } else { &txn.else_writes };
    let mut results = Vec::with_capacity(writes.len());
    for write in writes {
        results.push(match write {
            Write::Put { key, value } => overlay.put(key, value, command.index)?,
            Write::Delete { key } => overlay.delete(key, command.index)?,
        });
    }
    Ok(Ok(Bytes::from(TxnOutcome { revision: command.index, failed, results }.encode())))
}

fn first_failed(overlay: &mut Overlay, guards: &[Guard]) -> Result<Option<FailedGuard>, Failure> {
    for (index, guard) in guards.iter().enumerate() {
        let stored = overlay.get(&guard.key)?;
        let record = stored.as_deref().map(Record::parse).transpose()?;
        if !holds(&guard.condition, record) {
            let found = stored.as_ref().map(entry).transpose()?;
            return Ok(Some(FailedGuard { index: index as u16, found }));
        }
    }
    Ok(None)
}

fn holds(condition: &Condition, record: Option<Record>) -> bool {
    match condition {
        Condition::Exists => record.is_some(),
        Condition::Absent => record.is_none(),
        Condition::Value(value) => record.is_some_and(|record| record.value == value),
        Condition::ModRevision(revision) => record.is_some_and(|record| record.modified == *revision),
        Condition::CreateRevision(revision) => record.is_some_and(|record| record.create == *revision),
    }
}

/// A stored entry as clients see it. Fails with `Corrupt` when it is damaged.
pub(super) fn entry(stored: &IVec) -> Result<Entry, Failure> {
    let Record { create, modified, value } = Record::parse(stored)?;
    Ok(Entry { create, modified, value: Bytes::copy_from_slice(value) })
}
