//! Append requests and their answers as bytes: the hot path has a format of its own, in which the bodies of entries are
//! shared, never copied on receipt.
//!
//! ```text
//! request := vote · prev · commit · count u32 · entry*
//! answer  := 0 u8 · matching | 1 u8 · log id (conflict) | 2 u8 · vote (a higher one)
//! vote    := term u64 · node u64 · committed u8
//! log id  := term u64 · node u64 · index u64
//! prev, commit, matching := 0 u8 | 1 u8 · log id
//! entry   := log id · kind u8 (0 blank, 1 batch, 2 membership) · body (u32 length, bytes)
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::Reader;
use crate::command::Batch;
use crate::consensus::types::{Candidate, Entry, LeaderId, LogId, Payload, TypeConfig, Vote};
use crate::error::{Code, Failure};

/// An append request.
pub(super) type Request = AppendEntriesRequest<TypeConfig>;
/// The answer to one.
pub(super) type Answer = StreamAppendResult<TypeConfig>;

const BLANK: u8 = 0;
const BATCH: u8 = 1;
const MEMBERSHIP: u8 = 2;
/// What an entry takes beside its body.
const ENTRY_HEADER_BYTES: usize = 24 + 1 + 4;

fn corrupt(message: impl Into<String>) -> Failure {
    Failure::new(Code::Corrupt, message)
}

/// Bytes of an entry on the wire, near enough: memberships are small.
pub(super) fn weight(entry: &Entry) -> usize {
    ENTRY_HEADER_BYTES + if let EntryPayload::Normal(batch) = &entry.payload { batch.0.len() } else { 0 }
}

/// Encodes `request` as parts to be sent one after the other; batches are shared with the entries. `scratch` keeps its
/// memory from call to call.
pub(super) fn encode_request(request: &Request, scratch: &mut BytesMut) -> Result<Vec<Bytes>, Failure> {
    let mut parts = Vec::with_capacity(1 + 2 * request.entries.len());
    put_vote(scratch, &request.vote);
    put_optional(scratch, request.prev_log_id.as_ref());
    put_optional(scratch, request.leader_commit.as_ref());
    scratch.put_u32_le(request.entries.len() as u32);
    for entry in &request.entries {
        put_log_id(scratch, &entry.log_id);
        let (kind, body) = match &entry.payload {
            EntryPayload::Blank => (BLANK, Bytes::new()),
            EntryPayload::Normal(batch) => (BATCH, batch.0.clone()),
            EntryPayload::Membership(membership) => (MEMBERSHIP, encode(membership)?),
        };
        scratch.put_u8(kind);
        scratch.put_u32_le(body.len() as u32);
        parts.push(scratch.split().freeze());
        parts.push(body);
    }
    if !scratch.is_empty() {
        parts.push(scratch.split().freeze());
    }
    Ok(parts)
}

/// Reverses [`encode_request`]; batches share `data`. Fails with `Corrupt` on anything malformed, and on what no leader
/// sends: a vote that won no election, entries out of order. openraft takes these for granted.
pub(super) fn decode_request(data: Bytes) -> Result<Request, Failure> {
    let mut reader = Reader::new(data);
    let vote = get_vote(&mut reader)?;
    let (prev_log_id, leader_commit) = (get_optional(&mut reader)?, get_optional(&mut reader)?);
    let count = reader.u32()? as usize;
    let mut entries = Vec::with_capacity(count.min(reader.remaining() / ENTRY_HEADER_BYTES));
    for _ in 0..count {
        entries.push(get_entry(&mut reader)?);
    }
    reader.end()?;
    let request = Request { vote, prev_log_id, entries, leader_commit };
    check(&request)?;
    Ok(request)
}

fn check(request: &Request) -> Result<(), Failure> {
    if !request.vote.committed {
        return Err(corrupt("An append request of a node that does not lead."));
    }
    let mut last = request.prev_log_id;
    for entry in &request.entries {
        let next = last.map_or(0, |last| last.index.saturating_add(1));
        if entry.log_id.index != next || last > Some(entry.log_id) {
            return Err(corrupt(format!("An append request with entry {} where {next} was due.", entry.log_id)));
        }
        last = Some(entry.log_id);
    }
    check_leadership(&request.vote, last.as_ref())
}

/// No leader owns log entries of a later leadership.
pub(super) fn check_leadership(vote: &Vote, last: Option<&LogId>) -> Result<(), Failure> {
    match last {
        Some(last) if last.leader_id.term > vote.leader_id.term => {
            Err(corrupt(format!("Leader {vote} sends {last}, which is of a later leader.")))
        }
        _ => Ok(()),
    }
}

fn get_entry(reader: &mut Reader) -> Result<Entry, Failure> {
    let log_id = get_log_id(reader)?;
    let (kind, body) = (reader.u8()?, reader.bytes()?);
    let payload: Payload = match kind {
        BLANK if body.is_empty() => EntryPayload::Blank,
        BATCH => EntryPayload::Normal(Batch(body)),
        MEMBERSHIP => EntryPayload::Membership(decode(&body)?),
        other => return Err(corrupt(format!("An entry of kind {other} with {} bytes.", body.len()))),
    };
    Ok(Entry { log_id, payload })
}

/// Encodes an answer.
pub(super) fn encode_answer(answer: &Answer) -> Bytes {
    let mut out = BytesMut::with_capacity(32);
    match answer {
        Ok(matching) => {
            out.put_u8(0);
            put_optional(&mut out, matching.as_ref());
        }
        Err(StreamAppendError::Conflict(log_id)) => {
            out.put_u8(1);
            put_log_id(&mut out, log_id);
        }
        Err(StreamAppendError::HigherVote(vote)) => {
            out.put_u8(2);
            put_vote(&mut out, vote);
        }
    }
    out.freeze()
}

/// Reverses [`encode_answer`]. Fails with `Corrupt` on anything malformed.
pub(super) fn decode_answer(data: Bytes) -> Result<Answer, Failure> {
    let mut reader = Reader::new(data);
    let answer = match reader.u8()? {
        0 => Ok(get_optional(&mut reader)?),
        1 => Err(StreamAppendError::Conflict(get_log_id(&mut reader)?)),
        2 => Err(StreamAppendError::HigherVote(get_vote(&mut reader)?)),
        other => return Err(corrupt(format!("An append answer of kind {other}."))),
    };
    reader.end()?;
    Ok(answer)
}

/// Encodes a message that is rare enough for a general format.
pub(super) fn encode<T: Serialize>(message: &T) -> Result<Bytes, Failure> {
    let encoded = postcard::to_stdvec(message);
    encoded.map(Bytes::from).map_err(|error| Failure::internal(format!("A message could not be encoded: {error}.")))
}

/// Reverses [`encode`]. Fails with `Corrupt` on anything malformed.
pub(super) fn decode<T: DeserializeOwned>(data: &[u8]) -> Result<T, Failure> {
    match postcard::take_from_bytes(data) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(corrupt(format!("A message with {} bytes too many.", rest.len()))),
        Err(error) => Err(corrupt(format!("A damaged message: {error}."))),
    }
}

fn put_vote(out: &mut BytesMut, vote: &Vote) {
    out.put_u64_le(vote.leader_id.term);
    out.put_u64_le(vote.leader_id.node_id);
    out.put_u8(vote.committed as u8);
}

fn get_vote(reader: &mut Reader) -> Result<Vote, Failure> {
    let leader_id = Candidate { term: reader.u64()?, node_id: reader.u64()? };
    Ok(Vote { leader_id, committed: get_flag(reader)? })
}

fn get_flag(reader: &mut Reader) -> Result<bool, Failure> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(corrupt(format!("A flag of {other}."))),
    }
}

fn put_log_id(out: &mut BytesMut, log_id: &LogId) {
    out.put_u64_le(log_id.leader_id.term);
    out.put_u64_le(log_id.leader_id.node_id);
    out.put_u64_le(log_id.index);
}

fn get_log_id(reader: &mut Reader) -> Result<LogId, Failure> {
    let leader_id = LeaderId { term: reader.u64()?, node_id: reader.u64()? };
    Ok(LogId { leader_id, index: reader.u64()? })
}

fn put_optional(out: &mut BytesMut, log_id: Option<&LogId>) {
    out.put_u8(log_id.is_some() as u8);
    log_id.into_iter().for_each(|log_id| put_log_id(out, log_id));
}

fn get_optional(reader: &mut Reader) -> Result<Option<LogId>, Failure> {
    if get_flag(reader)? { get_log_id(reader).map(Some) } else { Ok(None) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::consensus::types::{Member, Membership};

    fn log_id(term: u64, index: u64) -> LogId {
        LogId { leader_id: LeaderId { term, node_id: 9 }, index }
    }

    fn vote(term: u64) -> Vote {
        Vote { leader_id: Candidate { term, node_id: 9 }, committed: true }
    }

    fn request() -> Request {
        let member = Member { name: "server1".into(), address: "127.0.0.1:1".into() };
        let membership = Membership::new(vec![BTreeSet::from([1])], BTreeMap::from([(1, member)])).unwrap();
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Membership(membership),
            EntryPayload::Normal(Batch(Bytes::from(vec![5; 10_000]))),
            EntryPayload::Normal(Batch(Bytes::from_static(b"small"))),
        ];
        let entries = payloads.into_iter().zip(7..).map(|(payload, index)| Entry { log_id: log_id(2, index), payload });
        Request {
            vote: vote(3),
            prev_log_id: Some(log_id(1, 6)),
            entries: entries.collect(),
            leader_commit: Some(log_id(1, 4)),
        }
    }

    fn wire(request: &Request) -> Bytes {
        Bytes::from(encode_request(request, &mut BytesMut::new()).unwrap().concat())
    }

    #[test]
    fn requests_come_back_as_they_went() {
        let empty = Request { prev_log_id: None, leader_commit: None, entries: vec![], ..request() };
        for request in [request(), empty] {
            assert_eq!(format!("{:?}", decode_request(wire(&request)).unwrap()), format!("{request:?}"));
        }
    }

    #[test]
    fn batches_are_shared_on_both_ways() {
        let request = request();
        let EntryPayload::Normal(sent) = &request.entries[2].payload else { panic!() };
        let parts = encode_request(&request, &mut BytesMut::new()).unwrap();
        assert!(parts.iter().any(|part| part.as_ptr() == sent.0.as_ptr()));
        let data = wire(&request);
        let received = decode_request(data.clone()).unwrap();
        let EntryPayload::Normal(received) = &received.entries[2].payload else { panic!() };
        assert!(data.as_ptr_range().contains(&received.0.as_ptr()));
    }

    #[test]
    fn every_truncation_and_every_flipped_byte_is_an_error_or_a_request_and_none_a_panic() {
        let mut small = request();
        small.entries.remove(2);
        small.entries.pop();
        let whole = wire(&small);
        for len in 0..whole.len() {
            assert!(decode_request(whole.slice(..len)).is_err(), "cut at {len}");
        }
        for at in 0..whole.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = whole.to_vec();
                damaged[at] ^= flip;
                let _ = decode_request(Bytes::from(damaged));
            }
        }
        assert!(decode_request(Bytes::from([&whole[..], b"!"].concat())).is_err());
    }

    #[test]
    fn a_claimed_count_does_not_allocate() {
        let mut raw = wire(&Request { entries: vec![], ..request() }).to_vec();
        let at = raw.len() - 4;
        raw[at..].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(decode_request(Bytes::from(raw)).is_err());
    }

    #[test]
    fn what_no_leader_sends_is_refused() {
        let mut gap = request();
        gap.entries.remove(1);
        let mut backwards = request();
        backwards.entries[3].log_id.leader_id.term = 1;
        let candidate = Request { vote: Vote { committed: false, ..vote(3) }, ..request() };
        let from_the_future = Request { vote: vote(1), ..request() };
        let not_from_the_start = Request { prev_log_id: None, ..request() };
        for wrong in [gap, backwards, candidate, from_the_future, not_from_the_start] {
            assert_eq!(decode_request(wire(&wrong)).unwrap_err().code, Code::Corrupt, "{wrong:?}");
        }
    }

    #[test]
    fn answers_come_back_as_they_went_and_damaged_ones_do_not_pass() {
        let answers = [
            Ok(None),
            Ok(Some(log_id(1, 2))),
            Err(StreamAppendError::Conflict(log_id(3, 4))),
            Err(StreamAppendError::HigherVote(vote(5))),
        ];
        for answer in answers {
            let data = encode_answer(&answer);
            assert_eq!(decode_answer(data.clone()).unwrap(), answer);
            for len in 0..data.len() {
                assert!(decode_answer(data.slice(..len)).is_err());
            }
            assert!(decode_answer(Bytes::from([&data[..], b"!"].concat())).is_err());
        }
        assert!(decode_answer(Bytes::from_static(&[3])).is_err());
    }
}
