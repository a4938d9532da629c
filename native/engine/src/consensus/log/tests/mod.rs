//! Tests of the log store on real files, and on a file system that fails on demand.

mod cache;
mod damage;
mod direct;
mod faults;
mod fuzz;
mod restart;
mod suite;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::OneshotReceiverOf;

use super::{LogOptions, LogStore};
use crate::command::Batch;
use crate::consensus::types::{Candidate, Entry, LeaderId, LogId, Payload, TypeConfig, Vote};

/// Files so small that tests fill many of them.
pub fn small() -> LogOptions {
    LogOptions { file_bytes: 32 << 10, purge_bytes: 128 << 10, prefill_bytes: 96 << 10, ..LogOptions::new("test", 0) }
}

pub fn open(dir: &Path) -> LogStore {
    LogStore::open(dir, small()).unwrap()
}

pub fn id(term: u64, index: u64) -> LogId {
    LogId { leader_id: LeaderId { term, node_id: 1 }, index }
}

pub fn vote(term: u64) -> Vote {
    Vote { leader_id: Candidate { term, node_id: 1 }, committed: false }
}

/// An entry of about `bytes` whose content tells term and index.
pub fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let mut data = format!("{term}/{index}/").into_bytes();
    data.resize(data.len().max(bytes), b'.');
    Entry { log_id: id(term, index), payload: Payload::Normal(Batch(Bytes::from(data))) }
}

pub fn entries(term: u64, indexes: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    indexes.map(|index| entry(term, index, 100)).collect()
}

/// Appends and returns what will tell that it is durable.
pub async fn send(store: &mut LogStore, entries: Vec<Entry>) -> OneshotReceiverOf<TypeConfig, std::io::Result<()>> {
    let (done, durable) = TypeConfig::oneshot();
    store.append(entries, IOFlushed::<TypeConfig>::signal(done)).await.unwrap();
    durable
}

/// Appends and waits until it is durable.
pub async fn append(store: &mut LogStore, entries: Vec<Entry>) {
    soon(send(store, entries).await).await.unwrap().unwrap();
}

/// `what` within ten seconds.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what).await.expect("within ten seconds")
}

pub async fn read(store: &mut LogStore, indexes: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    store.try_get_log_entries(indexes).await.unwrap()
}

/// Purged and last index.
pub async fn ends(store: &mut LogStore) -> (Option<u64>, Option<u64>) {
    let state = store.get_log_state().await.unwrap();
    (state.last_purged_log_id.map(|id| id.index), state.last_log_id.map(|id| id.index))
}
