//! The worker that reads old entries from the files; see the parent module for why it is one of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use raft_engine::Error;
use tokio::sync::{mpsc, oneshot};

use super::env::FileSystem;
use super::guard::Guard;
use super::record::{self, Record};
use super::state::corrupt;
use crate::consensus::types::Entry;
use crate::error::Failure;
use crate::surroundings::{Pace, Stage, is_inline};
use crate::worker::apart;

/// Entries `first..end`, as many as have at most `bytes`, at least one.
pub(super) struct Request {
    pub first: u64,
    pub end: u64,
    pub bytes: usize,
    pub reply: oneshot::Sender<Result<Option<Vec<Entry>>, Failure>>,
}

pub(super) type Engine<F> = raft_engine::Engine<Guard<F>>;

/// Answers requests until their senders are gone.
pub(super) async fn run<F: FileSystem>(
    engine: Arc<Engine<F>>,
    group: u64,
    mut requests: mpsc::Receiver<Request>,
    pace: Pace,
) {
    while let Some(request) = requests.recv().await {
        pace.pass(Stage::LogRead).await;
        let read = || read(&engine, group, request.first, request.end, request.bytes);
        let entries = if is_inline() { apart(read) } else { read() };
        // The caller may have given up.
        drop(request.reply.send(entries));
    }
}

/// Reads entries; `None` when they are not there (purged meanwhile). Fails with `Corrupt` or `Io`. Must be called on
/// one thread a store.
pub(super) fn read<F: FileSystem>(
    engine: &Engine<F>,
    group: u64,
    first: u64,
    end: u64,
    bytes: usize,
) -> Result<Option<Vec<Entry>>, Failure> {
    let mut records = Vec::new();
    let fetched = catch_unwind(AssertUnwindSafe(|| {
        engine.fetch_entries_to::<Record>(group, first, end, Some(bytes), &mut records)
    }));
    match fetched {
        Ok(Ok(_)) => {
            let entries: Result<Vec<Entry>, Failure> = records.into_iter().map(record::decode).collect();
            entries.map(Some)
        }
        Ok(Err(Error::EntryCompacted | Error::EntryNotFound)) => Ok(None),
        Ok(Err(Error::Io(error))) => {
            Err(Failure::io(format!("Reading log entries {first} to {} in {}", end - 1, engine.path()), &error))
        }
        Ok(Err(error)) => Err(damaged(engine.path(), first, end, &error.to_string())),
        Err(_) => Err(damaged(engine.path(), first, end, "entry and index differ")),
    }
}

fn damaged(dir: &str, first: u64, end: u64, why: &str) -> Failure {
    corrupt(format!("The log in {dir} is damaged among the entries {first} to {}: {why}.", end - 1))
}
