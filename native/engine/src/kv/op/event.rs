//! What a watch delivers.

use bytes::{BufMut, Bytes};

use super::malformed;
use crate::codec::{Reader, put_bytes};
use crate::error::Failure;

/// One event of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A key was set.
    Put {
        /// The revision of the change.
        revision: u64,
        /// The key.
        key: Bytes,
        /// The revision that created the key; equal to `revision` when this change did.
        create: u64,
        /// The new value.
        value: Bytes,
    },
    /// A key was removed.
    Delete {
        /// The revision of the change.
        revision: u64,
        /// The key.
        key: Bytes,
    },
    /// Changes before `oldest` are lost to this watch: read the keys. The watch goes on with revision `oldest`.
    Compacted {
        /// The first revision whose changes this watch still delivers.
        oldest: u64,
    },
    /// Every change up to `revision` has been delivered.
    Progress {
        /// The revision.
        revision: u64,
    },
}

impl Event {
    /// The event's bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Event::Put { revision, key, create, value } => Event::put_bytes(*revision, key, *create, value),
            Event::Delete { revision, key } => Event::delete_bytes(*revision, key),
            Event::Compacted { oldest } => number(3, *oldest),
            Event::Progress { revision } => number(4, *revision),
        }
    }

    /// The bytes of a [`Event::Put`], from borrowed parts.
    pub fn put_bytes(revision: u64, key: &[u8], create: u64, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(25 + key.len() + value.len());
        out.put_u8(1);
        out.put_u64_le(revision);
        put_bytes(&mut out, key);
        out.put_u64_le(create);
        put_bytes(&mut out, value);
        out
    }

    /// The bytes of a [`Event::Delete`], from borrowed parts.
    pub fn delete_bytes(revision: u64, key: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(13 + key.len());
        out.put_u8(2);
        out.put_u64_le(revision);
        put_bytes(&mut out, key);
        out
    }

    /// Takes an event's bytes apart. Fails with `Invalid` on anything malformed.
    pub fn decode(bytes: Bytes) -> Result<Event, Failure> {
        decode_event(Reader::new(bytes)).map_err(|reason| malformed("event", &reason))
    }
}

fn number(kind: u8, number: u64) -> Vec<u8> {
    let mut out = vec![kind];
    out.put_u64_le(number);
    out
}

fn decode_event(mut reader: Reader) -> Result<Event, Failure> {
    let (kind, revision) = (reader.u8()?, reader.u64()?);
    let event = match kind {
        1 => Event::Put { revision, key: reader.bytes()?, create: reader.u64()?, value: reader.bytes()? },
        2 => Event::Delete { revision, key: reader.bytes()? },
        3 => Event::Compacted { oldest: revision },
        4 => Event::Progress { revision },
        other => return Err(Failure::invalid(format!("there is no event {other}."))),
    };
    reader.end()?;
    Ok(event)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn events_come_back_as_they_went_and_truncations_do_not() {
        let (key, value) = (Bytes::from_static(b"key"), Bytes::from_static(b"value"));
        let events = [
            Event::Put { revision: 9, key: key.clone(), create: 8, value },
            Event::Delete { revision: 9, key },
            Event::Compacted { oldest: 7 },
            Event::Progress { revision: 6 },
        ];
        for event in events {
            let whole = event.encode();
            (0..whole.len()).for_each(|len| assert!(Event::decode(Bytes::copy_from_slice(&whole[..len])).is_err()));
            assert_eq!(Event::decode(whole.into()).unwrap(), event);
        }
    }
}
