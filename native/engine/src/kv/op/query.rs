//! Reads and their answers.

use bytes::{BufMut, Bytes};

use super::txn::Entry;
use super::{check_key, check_prefix, flag, malformed};
use crate::codec::{Reader, put_bytes};
use crate::error::Failure;

/// A read of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// One entry. Answered by [`GetAnswer`].
    Get {
        /// The key.
        key: Bytes,
    },
    /// Entries in the order of their keys. Answered by [`ScanAnswer`].
    Scan {
        /// Only keys that begin so; empty for all.
        prefix: Bytes,
        /// Only keys greater than this one: the cursor.
        after: Option<Bytes>,
        /// At most so many; 0 for as many as the caps allow.
        limit: u32,
        /// Leave the values out.
        keys_only: bool,
    },
    /// The number of entries. Answered by [`CountAnswer`].
    Count {
        /// Only keys that begin so; empty for all.
        prefix: Bytes,
    },
}

/// The answer to [`Read::Get`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetAnswer {
    /// The revision up to which the node had applied.
    pub revision: u64,
    /// The entry, if there is one.
    pub found: Option<Entry>,
}

/// One entry of a [`ScanAnswer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanEntry {
    /// The key.
    pub key: Bytes,
    /// The entry; its value is empty in a scan of keys only.
    pub entry: Entry,
}

/// The answer to [`Read::Scan`], all of it at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanAnswer {
    /// The revision up to which the node had applied.
    pub revision: u64,
    /// Further keys match: ask again with `after` set to the last key here.
    pub more: bool,
    /// The entries in the order of their keys.
    pub entries: Vec<ScanEntry>,
}

/// The answer to [`Read::Count`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountAnswer {
    /// The revision at which was counted.
    pub revision: u64,
    /// Number of entries.
    pub count: u64,
}

impl Read {
    /// The read's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Read::Get { key } => {
                out.put_u8(1);
                put_bytes(&mut out, key);
            }
            Read::Scan { prefix, after, limit, keys_only } => {
                out.put_u8(2);
                put_bytes(&mut out, prefix);
                out.put_u8(after.is_some().into());
                if let Some(after) = after {
                    put_bytes(&mut out, after);
                }
                out.put_u32_le(*limit);
                out.put_u8((*keys_only).into());
            }
            Read::Count { prefix } => {
                out.put_u8(3);
                put_bytes(&mut out, prefix);
            }
        }
        out
    }

    /// Takes a read's bytes apart. Fails with `Invalid` on anything malformed and on keys out of bounds.
    pub fn decode(read: &[u8]) -> Result<Read, Failure> {
        decode_read(Reader::new(Bytes::copy_from_slice(read))).map_err(|reason| malformed("read", &reason))
    }
}

fn decode_read(mut reader: Reader) -> Result<Read, Failure> {
    let kind = reader.u8()?;
    let key = reader.bytes()?;
    check_prefix(&key)?;
    let read = match kind {
        1 => {
            check_key(&key)?;
            Read::Get { key }
        }
        2 => {
            let after = if flag(reader.u8()?)? { Some(reader.bytes()?) } else { None };
            Read::Scan { prefix: key, after, limit: reader.u32()?, keys_only: flag(reader.u8()?)? }
        }
        3 => Read::Count { prefix: key },
        other => return Err(Failure::invalid(format!("there is no read {other}."))),
    };
    reader.end()?;
    Ok(read)
}

fn answer<T>(bytes: Bytes, take: impl FnOnce(&mut Reader) -> Result<T, Failure>) -> Result<T, Failure> {
    let mut reader = Reader::new(bytes);
    take(&mut reader).and_then(|taken| reader.end().map(|()| taken)).map_err(|reason| malformed("answer", &reason))
}

impl GetAnswer {
    /// The answer's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + self.found.as_ref().map_or(0, |entry| entry.value.len()));
        out.put_u64_le(self.revision);
        Entry::encode_found(self.found.as_ref(), &mut out);
        out
    }

    /// Takes an answer's bytes apart. Fails with `Invalid` on anything malformed.
    pub fn decode(bytes: Bytes) -> Result<GetAnswer, Failure> {
        answer(bytes, |reader| Ok(GetAnswer { revision: reader.u64()?, found: Entry::decode_found(reader)? }))
    }
}

impl ScanAnswer {
    /// The answer's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        ScanAnswer::encode_head(&mut out, self.revision, self.more, self.entries.len() as u32);
        for ScanEntry { key, entry } in &self.entries {
            put_bytes(&mut out, key);
            out.put_u64_le(entry.create);
            out.put_u64_le(entry.modified);
            put_bytes(&mut out, &entry.value);
        }
        out
    }

    fn encode_head(out: &mut Vec<u8>, revision: u64, more: bool, count: u32) {
        out.put_u64_le(revision);
        out.put_u8(more.into());
        out.put_u32_le(count);
    }

    /// Takes an answer's bytes apart. Fails with `Invalid` on anything malformed.
    pub fn decode(bytes: Bytes) -> Result<ScanAnswer, Failure> {
        answer(bytes, |reader| {
            let (revision, more, count) = (reader.u64()?, flag(reader.u8()?)?, reader.u32()? as usize);
            let mut entries = Vec::with_capacity(count.min(reader.remaining() / 24));
            for _ in 0..count {
                let key = reader.bytes()?;
                let entry = Entry { create: reader.u64()?, modified: reader.u64()?, value: reader.bytes()? };
                entries.push(ScanEntry { key, entry });
            }
            Ok(ScanAnswer { revision, more, entries })
        })
    }
}

impl CountAnswer {
    /// The answer's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        out.put_u64_le(self.revision);
        out.put_u64_le(self.count);
        out
    }

    /// Takes an answer's bytes apart. Fails with `Invalid` on anything malformed.
    pub fn decode(bytes: Bytes) -> Result<CountAnswer, Failure> {
        answer(bytes, |reader| Ok(CountAnswer { revision: reader.u64()?, count: reader.u64()? }))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn reads() -> Vec<Read> {
        let scan = |after, keys_only| Read::Scan { prefix: bytes("p"), after, limit: 10, keys_only };
        vec![
            Read::Get { key: bytes("k") },
            scan(None, true),
            scan(Some(bytes("p1")), false),
            Read::Count { prefix: bytes("") },
        ]
    }

    #[test]
    fn reads_and_answers_come_back_as_they_went() {
        for read in reads() {
            assert_eq!(Read::decode(&read.encode()).unwrap(), read);
        }
        let entry = Entry { create: 1, modified: 2, value: bytes("v") };
        let get = GetAnswer { revision: 3, found: Some(entry.clone()) };
        assert_eq!(GetAnswer::decode(get.encode().into()).unwrap(), get);
        let scan = ScanAnswer { revision: 4, more: true, entries: vec![ScanEntry { key: bytes("k"), entry }] };
        assert_eq!(ScanAnswer::decode(scan.encode().into()).unwrap(), scan);
        let count = CountAnswer { revision: 5, count: 6 };
        assert_eq!(CountAnswer::decode(count.encode().into()).unwrap(), count);
    }

    #[test]
    fn every_truncation_is_an_error() {
        for whole in reads().iter().map(Read::encode) {
            for len in 0..whole.len() {
                assert!(Read::decode(&whole[..len]).is_err(), "cut at {len}");
            }
        }
    }

    #[test]
    fn a_claimed_count_does_not_allocate() {
        let mut out = Vec::new();
        ScanAnswer::encode_head(&mut out, 1, false, u32::MAX);
        assert!(ScanAnswer::decode(out.into()).is_err());
    }
}
