//! Damaged log files: whatever they hold, opening ends with a log or a refusal.

use std::fs;

use quorate_fuzz::{Allowance, fuzz};
use raft_proto::eraftpb;

use super::restart::{copy_files, paths};
use super::*;
use crate::consensus::log::marks::Marks;
use crate::consensus::log::record;
use crate::consensus::types::Membership;

#[test]
fn fuzz_marks_and_entries() {
    let marks = Marks { tail: Some(id(1, 9)), purged: Some(id(1, 3)), vote: Some(vote(4)), ..Marks::default() };
    let members = Entry { log_id: id(1, 4), payload: Payload::Membership(Membership::default()) };
    let samples: Vec<Vec<u8>> = [entry(1, 3, 30), members]
        .iter()
        .map(|entry| record::encode(entry).unwrap())
        .map(|record| [&record.context[..], &record.data[..]].concat())
        .chain([marks.encode()])
        .collect();
    fuzz("marks and entries", &samples, &[], Allowance { fixed: 4 << 20, per_byte: 64 }, |input| {
        drop(Marks::decode(&input));
        let (context, data) = input.split_at(input.len().min(9));
        let (context, data) = (Bytes::copy_from_slice(context), Bytes::copy_from_slice(data));
        drop(record::decode(eraftpb::Entry { term: 1, index: 7, context, data, ..Default::default() }));
    });
}

#[test]
fn fuzz_log_files() {
    let whole = tempfile::tempdir().unwrap();
    let written = async {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        store.save_vote(&vote(5)).await.unwrap();
        for index in 0..60 {
            append(&mut store, vec![entry(1, index, 1000)]).await;
        }
        copy_files(dir.path(), whole.path());
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(written);
    let files = paths(whole.path(), ".raftlog");
    let samples: Vec<Vec<u8>> = files.iter().map(|path| fs::read(path).unwrap()).collect();
    let mut turn = 0;
    // All of the directory is read: the damaged file and its neighbours, and what the log keeps of them.
    let allowed = Allowance { fixed: 32 << 20, per_byte: 64 };
    fuzz("log files", &samples, &[], allowed, |input| {
        let dir = tempfile::tempdir().unwrap();
        copy_files(whole.path(), dir.path());
        turn = (turn + 1) % files.len();
        fs::write(dir.path().join(files[turn].file_name().unwrap()), &input).unwrap();
        match LogStore::open(dir.path(), small()) {
            Ok(store) => store.close(),
            Err(failure) => assert!(failure.message.contains(&*dir.path().to_string_lossy()), "{failure}"),
        }
    });
}
