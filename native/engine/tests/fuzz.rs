//! Damaged commands, operations, answers and events: everything public that reads bytes.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use quorate_engine::command::{Batch, Command, CommandId};
use quorate_engine::kv::op::{
    Condition, CountAnswer, Entry, Event, GetAnswer, Guard, Read, ScanAnswer, ScanEntry, Txn, TxnOutcome, Write,
};
use quorate_fuzz::{Allowance, fuzz};

const ALLOWED: Allowance = Allowance { fixed: 64 << 10, per_byte: 64 };

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[test]
fn fuzz_batches() {
    let command = |sequence, body: &'static str| Command {
        id: CommandId { node: 7, incarnation: 2, sequence },
        low_water: 1,
        body: bytes(body),
    };
    let samples = [
        Batch::encode(1, 2, &[]).0.to_vec(),
        Batch::encode(1, 2, &[command(1, ""), command(2, "two"), command(3, "three")]).0.to_vec(),
    ];
    fuzz("batches", &samples, &[], ALLOWED, |input| drop(Batch(input.into()).decode()));
}

#[test]
fn fuzz_transactions() {
    let put = || Write::Put { key: bytes("k"), value: bytes("value") };
    let guard = |condition| Guard { key: bytes("guarded"), condition };
    let txn = Txn {
        guards: vec![guard(Condition::Absent), guard(Condition::Value(bytes("v"))), guard(Condition::ModRevision(7))],
        writes: vec![put(), Write::Delete { key: bytes("gone") }],
        else_writes: vec![put()],
    };
    let samples = [txn.encode().unwrap(), Txn::delete("k").encode().unwrap()];
    fuzz("transactions", &samples, &[], ALLOWED, |input| drop(Txn::decode(input.into())));
}

#[test]
fn fuzz_reads_answers_and_events() {
    let entry = || Entry { create: 1, modified: 2, value: bytes("value") };
    let scanned = |key| ScanEntry { key: bytes(key), entry: entry() };
    let samples = [
        Read::Get { key: bytes("k") }.encode(),
        Read::Scan { prefix: bytes("k"), after: Some(bytes("ka")), limit: 7, keys_only: true }.encode(),
        Read::Count { prefix: bytes("k") }.encode(),
        GetAnswer { revision: 3, found: Some(entry()) }.encode(),
        ScanAnswer { revision: 3, more: true, entries: vec![scanned("a"), scanned("b")] }.encode(),
        CountAnswer { revision: 3, count: 4 }.encode(),
        Event::put_bytes(5, b"key", 3, b"value"),
        Event::delete_bytes(5, b"key"),
    ];
    fuzz("reads, answers, events", &samples, &[], ALLOWED, |input| {
        drop(Read::decode(&input));
        let input = Bytes::from(input);
        drop(GetAnswer::decode(input.clone()));
        drop(ScanAnswer::decode(input.clone()));
        drop(CountAnswer::decode(input.clone()));
        drop(TxnOutcome::decode(input.clone()));
        drop(Event::decode(input));
    });
}
