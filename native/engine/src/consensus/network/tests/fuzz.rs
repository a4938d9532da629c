//! Damaged consensus messages.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::raft::{StreamAppendError, VoteRequest, VoteResponse};
use quorate_fuzz::{Allowance, fuzz};

use crate::command::{Batch, Command, CommandId};
use crate::consensus::network::codec::{
    Answer, Request, decode, decode_answer, decode_request, encode, encode_answer, encode_request,
};
use crate::consensus::network::split::split;
use crate::consensus::types::{
    Candidate, Entry, LeaderId, LogId, Member, Membership, SnapshotMeta, StoredMembership, TypeConfig, Vote,
};

/// Parsed entries are larger than their bytes. What serde sets aside for a claimed count ends at a mebibyte a level.
const ALLOWED: Allowance = Allowance { fixed: 4 << 20, per_byte: 64 };

fn log_id(index: u64) -> LogId {
    LogId { leader_id: LeaderId { term: 2, node_id: 9 }, index }
}

fn vote() -> Vote {
    Vote { leader_id: Candidate { term: 3, node_id: 9 }, committed: true }
}

fn membership() -> Membership {
    let member = |id: u64| (id, Member { name: format!("server{id}"), address: format!("127.0.0.1:{id}") });
    let members: BTreeMap<u64, Member> = (1..=5).map(member).collect();
    Membership::new(vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([3, 4, 5])], members).unwrap()
}

fn request() -> Request {
    let id = CommandId { node: 9, incarnation: 1, sequence: 4 };
    let batch = Batch::encode(1, 2, &[Command { id, low_water: 1, body: Bytes::from_static(b"body") }]);
    let payloads = [EntryPayload::Blank, EntryPayload::Membership(membership()), EntryPayload::Normal(batch)];
    let entries = payloads.into_iter().zip(7..).map(|(payload, index)| Entry { log_id: log_id(index), payload });
    Request { vote: vote(), prev_log_id: Some(log_id(6)), entries: entries.collect(), leader_commit: Some(log_id(4)) }
}

#[test]
fn fuzz_append_requests() {
    let whole = encode_request(&request(), &mut BytesMut::new()).unwrap().concat();
    let empty = Request { entries: vec![], ..request() };
    let samples = [whole, encode_request(&empty, &mut BytesMut::new()).unwrap().concat()];
    fuzz("append requests", &samples, &[], ALLOWED, |input| {
        let Ok(request) = decode_request(input.into()) else { return };
        for entry in &request.entries {
            if let EntryPayload::Normal(batch) = &entry.payload {
                drop(batch.decode());
            }
        }
        drop(format!("{request:?}"));
        drop(split(request));
    });
}

#[test]
fn fuzz_append_answers() {
    let answers: [Answer; 4] = [
        Ok(None),
        Ok(Some(log_id(2))),
        Err(StreamAppendError::Conflict(log_id(4))),
        Err(StreamAppendError::HigherVote(vote())),
    ];
    fuzz("append answers", &answers.map(|answer| encode_answer(&answer).to_vec()), &[], ALLOWED, |input| {
        drop(decode_answer(input.into()));
    });
}

#[test]
fn fuzz_rare_messages() {
    let stored = StoredMembership::new(Some(log_id(3)), membership());
    let meta = SnapshotMeta { last_log_id: Some(log_id(9)), last_membership: stored };
    let request = VoteRequest::<TypeConfig>::new(vote(), Some(log_id(9)));
    let answer = VoteResponse::<TypeConfig>::new(vote(), Some(log_id(9)), true);
    let samples = [
        encode(&membership()).unwrap().to_vec(),
        encode(&(vote(), meta)).unwrap().to_vec(),
        encode(&request).unwrap().to_vec(),
        encode(&answer).unwrap().to_vec(),
    ];
    fuzz("rare messages", &samples, &[], ALLOWED, |input| {
        drop(decode::<Membership>(&input));
        drop(decode::<(Vote, SnapshotMeta)>(&input));
        drop(decode::<VoteRequest<TypeConfig>>(&input));
        drop(decode::<VoteResponse<TypeConfig>>(&input));
    });
}
