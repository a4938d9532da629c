//! The few facts that are not entries: vote, first, tail, committed, purged. Written with every batch, as one key.
//!
//! ```text
//! marks  := format u8 (1) · seq u64 · synced u64 · first u64 · vote · tail · committed · purged
//! vote   := 0 u8 | 1 u8 · term u64 · node u64 · committed u8
//! others := 0 u8 | 1 u8 · term u64 · node u64 · index u64
//! ```
//!
//! `seq` numbers the batches; `synced` is the newest batch known to be durable when this one was written. They tell a
//! torn tail from damage: a broken batch that a later batch knows as durable was not torn, it was destroyed.

use bytes::{BufMut, Bytes};

use crate::codec::Reader;
use crate::consensus::types::{Candidate, LeaderId, LogId, Vote};
use crate::error::{Code, Failure};

/// The key under which the marks are stored.
pub(super) const KEY: &[u8] = b"marks";

const FORMAT: u8 = 1;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    pub seq: u64,
    pub synced: u64,
    /// Index of the first entry, when there are entries.
    pub first: u64,
    pub vote: Option<Vote>,
    /// Last log id; equal to `purged` when every entry was purged.
    pub tail: Option<LogId>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
}

impl Marks {
    /// Indexes of the entries that the log holds, as first and one past the last.
    pub fn range(&self) -> (u64, u64) {
        match self.tail {
            Some(tail) if tail.index >= self.first => (self.first, tail.index + 1),
            _ => (self.first, self.first),
        }
    }

    /// True when the log holds no entry.
    pub fn is_empty(&self) -> bool {
        let (first, end) = self.range();
        first == end
    }

    /// Entries with indexes from `first` to that of `tail` were appended.
    pub fn append(&mut self, first: u64, tail: LogId) {
        if self.is_empty() {
            self.first = first;
        }
        self.tail = Some(tail);
    }

    /// Entries after `after`, which may lie beyond the tail, were removed.
    pub fn truncate(&mut self, after: Option<LogId>) {
        if after.map(|id| id.index) < self.tail.map(|id| id.index) {
            self.tail = after.or(self.purged);
        }
    }

    /// Entries up to `upto` were removed; it may lie beyond the tail.
    pub fn purge(&mut self, upto: LogId) {
        if self.purged.is_some_and(|purged| purged.index >= upto.index) {
            return;
        }
        self.purged = Some(upto);
        if self.tail.is_none_or(|tail| tail.index <= upto.index) {
            self.tail = Some(upto);
        }
        self.first = self.first.max(upto.index + 1);
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        out.put_u8(FORMAT);
        out.put_u64_le(self.seq);
        out.put_u64_le(self.synced);
        out.put_u64_le(self.first);
        match &self.vote {
            None => out.put_u8(0),
            Some(vote) => {
                out.put_u8(1);
                out.put_u64_le(vote.leader_id.term);
                out.put_u64_le(vote.leader_id.node_id);
                out.put_u8(vote.committed.into());
            }
        }
        [self.tail, self.committed, self.purged].into_iter().for_each(|id| put_log_id(&mut out, id));
        out
    }

    /// Fails with `Corrupt` on anything malformed, and when a newer version of Quorate wrote it.
    pub fn decode(data: &[u8]) -> Result<Marks, Failure> {
        let mut reader = Reader::new(Bytes::copy_from_slice(data));
        let format = reader.u8()?;
        if format != FORMAT {
            return Err(Failure::new(
                Code::Corrupt,
                format!("The log has format {format}; this version of Quorate knows format {FORMAT}."),
            ));
        }
        let (seq, synced, first) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let vote = take_vote(&mut reader)?;
        let (tail, committed, purged) =
            (take_log_id(&mut reader)?, take_log_id(&mut reader)?, take_log_id(&mut reader)?);
        reader.end()?;
        Ok(Marks { seq, synced, first, vote, tail, committed, purged })
    }
}

fn put_log_id(out: &mut Vec<u8>, id: Option<LogId>) {
    let Some(id) = id else { return out.put_u8(0) };
    out.put_u8(1);
    out.put_u64_le(id.leader_id.term);
    out.put_u64_le(id.leader_id.node_id);
    out.put_u64_le(id.index);
}

fn take_log_id(reader: &mut Reader) -> Result<Option<LogId>, Failure> {
    if reader.u8()? == 0 {
        return Ok(None);
    }
    let leader_id = LeaderId { term: reader.u64()?, node_id: reader.u64()? };
    Ok(Some(LogId { leader_id, index: reader.u64()? }))
}

fn take_vote(reader: &mut Reader) -> Result<Option<Vote>, Failure> {
    if reader.u8()? == 0 {
        return Ok(None);
    }
    let leader_id = Candidate { term: reader.u64()?, node_id: reader.u64()? };
    Ok(Some(Vote { leader_id, committed: reader.u8()? != 0 }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        LogId { leader_id: LeaderId { term, node_id: 3 }, index }
    }

    #[test]
    fn marks_come_back_as_they_went_and_no_truncation_passes() {
        let marks = Marks {
            seq: 9,
            synced: 8,
            first: 5,
            vote: Some(Vote { leader_id: Candidate { term: 4, node_id: 2 }, committed: true }),
            tail: Some(id(4, 17)),
            committed: None,
            purged: Some(id(3, 4)),
        };
        let data = marks.encode();
        assert_eq!(Marks::decode(&data).unwrap(), marks);
        for len in 0..data.len() {
            assert!(Marks::decode(&data[..len]).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let mut data = Marks::default().encode();
        data[0] = 2;
        assert!(Marks::decode(&data).unwrap_err().message.contains("format 2"));
    }

    #[test]
    fn the_range_follows_appends_truncations_and_purges() {
        let mut marks = Marks::default();
        assert_eq!(marks.range(), (0, 0));
        marks.append(1, id(1, 10));
        assert_eq!(marks.range(), (1, 11));
        marks.truncate(Some(id(1, 11)));
        assert_eq!(marks.range(), (1, 11), "there is nothing after it");
        marks.truncate(Some(id(1, 7)));
        marks.purge(id(1, 3));
        assert_eq!(marks.range(), (4, 8));
        marks.purge(id(2, 100));
        assert!(marks.is_empty());
        assert_eq!(marks.tail, Some(id(2, 100)));
        marks.append(101, id(2, 101));
        assert_eq!(marks.range(), (101, 102));
        marks.truncate(None);
        assert_eq!(marks.tail, Some(id(2, 100)));
    }
}
