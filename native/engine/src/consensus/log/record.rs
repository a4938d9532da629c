//! Entries as raft-engine keeps them: its protobuf entry, with the batch's own bytes in `data`.
//!
//! `index` and `term` have fields of their own; `context` holds `kind u8 · node u64` (1 batch, 2 blank, 3 membership),
//! `data` the batch as it is, nothing, or the membership in postcard.

use bytes::{BufMut, Bytes, BytesMut};
use raft_proto::eraftpb;

use crate::codec::Reader;
use crate::command::Batch;
use crate::consensus::types::{Entry, LeaderId, LogId, Payload};
use crate::error::{Code, Failure};

const BATCH: u8 = 1;
const BLANK: u8 = 2;
const MEMBERSHIP: u8 = 3;

/// Tells raft-engine what an entry is.
pub(super) struct Record;

impl raft_engine::MessageExt for Record {
    type Entry = eraftpb::Entry;

    fn index(entry: &eraftpb::Entry) -> u64 {
        entry.index
    }
}

/// `entry` in raft-engine's form; a batch's bytes are shared. Fails with `Internal` when a membership cannot be encoded.
pub(super) fn encode(entry: &Entry) -> Result<eraftpb::Entry, Failure> {
    let (kind, data) = match &entry.payload {
        Payload::Normal(batch) => (BATCH, batch.0.clone()),
        Payload::Blank => (BLANK, Bytes::new()),
        Payload::Membership(membership) => {
            let data = postcard::to_stdvec(membership)
                .map_err(|error| Failure::internal(format!("A membership cannot be encoded: {error}")))?;
            (MEMBERSHIP, Bytes::from(data))
        }
    };
    let mut context = BytesMut::with_capacity(9);
    context.put_u8(kind);
    context.put_u64_le(entry.log_id.leader_id.node_id);
    Ok(eraftpb::Entry {
        term: entry.log_id.leader_id.term,
        index: entry.log_id.index,
        data,
        context: context.freeze(),
        ..Default::default()
    })
}

/// The entry that `record` holds. Fails with `Corrupt`.
pub(super) fn decode(record: eraftpb::Entry) -> Result<Entry, Failure> {
    let mut context = Reader::new(record.context.clone());
    let (kind, node_id) = (context.u8()?, context.u64()?);
    let payload = match kind {
        BATCH => Payload::Normal(Batch(record.data.clone())),
        BLANK => Payload::Blank,
        MEMBERSHIP => Payload::Membership(postcard::from_bytes(&record.data).map_err(|error| {
            Failure::new(Code::Corrupt, format!("The membership in entry {} is malformed: {error}", record.index))
        })?),
        other => {
            let what = format!("Entry {} has the unknown kind {other}.", record.index);
            return Err(Failure::new(Code::Corrupt, what));
        }
    };
    let log_id = LogId { leader_id: LeaderId { term: record.term, node_id }, index: record.index };
    Ok(Entry { log_id, payload })
}

/// About how much memory and frame `entry` takes, in bytes.
pub(super) fn size(entry: &Entry) -> usize {
    const OVERHEAD: usize = 64;
    const MEMBER: usize = 256;
    OVERHEAD
        + match &entry.payload {
            Payload::Normal(batch) => batch.0.len(),
            Payload::Blank => 0,
            Payload::Membership(membership) => MEMBER * membership.nodes().count(),
        }
}
