//! A log that does not hold the last entry of the state.
//!
//! Entries are applied, and snapshots installed, as soon as they are known to be committed: they may be durable in the state
//! before they are in this node's log, from which entries of a leader that was deposed then are not gone yet either. When the
//! power goes at that moment, or the log cannot be written any more, the log ends before the state does, or goes on with entries
//! that were never committed. Neither is a loss: the state says what was.

use openraft::storage::{RaftLogReader, RaftLogStorage};

use crate::consensus::log::LogStore;
use crate::consensus::types::LogId;
use crate::error::{Code, Failure};

/// `applied`, the last entry of the state, when the log holds no such entry though it was not purged of it. Fails with `Corrupt`
/// when the log holds another one as committed, with `Io`.
pub async fn beyond(log: &mut LogStore, applied: Option<LogId>) -> Result<Option<LogId>, Failure> {
    let extent = log.extent();
    let Some(applied) = applied.filter(|applied| extent.purged.is_none_or(|purged| purged.index < applied.index))
    else {
        return Ok(None);
    };
    let reading = |error| Failure::io("Reading the log", &error);
    let held = log.try_get_log_entries(applied.index..=applied.index).await.map_err(reading)?;
    let held = held.first().map(|entry| entry.log_id);
    if held == Some(applied) {
        return Ok(None);
    }
    let committed = log.read_committed().await.map_err(reading)?;
    match held {
        Some(held) if committed.is_some_and(|committed| committed.index >= held.index) => {
            Err(contradiction(held, applied))
        }
        _ => Ok(Some(applied)),
    }
}

/// Lets the log begin after `applied`, which a durable snapshot must cover. Fails with `Io`.
pub async fn drop_entries(log: &mut LogStore, applied: LogId) -> Result<(), Failure> {
    let extent = log.extent();
    if let Some(last) = extent.last.filter(|last| last.index >= applied.index) {
        tracing::warn!(
            "The log's entries to {} were never committed: the state has another one at {}. They are dropped.",
            last.index,
            applied.index
        );
    }
    let writing = |error| Failure::io("Writing the log", &error);
    log.truncate_after(extent.purged).await.map_err(writing)?;
    log.purge(applied).await.map_err(writing)
}

fn contradiction(held: LogId, applied: LogId) -> Failure {
    let message = format!(
        "The log holds as committed the entry {} of term {}, and the state the one of term {}: they are not of the same \
         node. Empty the data directory; the node then joins its cluster again and gets everything from there.",
        held.index, held.leader_id.term, applied.leader_id.term
    );
    Failure::new(Code::Corrupt, message)
}
