//! The store as a stream of bytes: a consistent view written out, and read back in.
//!
//! ```text
//! payload := "QKV1" · revision u64 · record* · 0 u8 · entries (count u64, sum u64)
//! record  := 1 u8 · key bytes · create u64 · mod u64 · value bytes
//! ```
//!
//! Records come in the order of their keys, so equal states make equal payloads. The digest at the end is the one that
//! the machine kept while it applied: the writer refuses to end a payload that does not match it, and so does the reader.

use std::io;
use std::sync::Arc;

use bytes::BufMut;

use super::database::Database;
use super::merged::Stored;
use super::record::{DATA, DATA_END, Digest, Meta, Record, fingerprint};
use super::shared::Shared;
use super::walk::Walk;
use crate::codec::put_bytes;
use crate::error::{Code, Failure};
use crate::limits::{ENTRY_BYTES_MAX, KEY_BYTES_MAX};
use crate::machine::Frozen;

const MAGIC: &[u8; 4] = b"QKV1";

/// The store as it was at [`KvFrozen::begin`]. Dropping it ends the recording of changes.
pub(super) struct KvFrozen {
    walk: Walk,
    meta: Meta,
}

impl KvFrozen {
    /// No batch may be applied during this call.
    pub fn begin(shared: &Arc<Shared>, db: &Arc<Database>, meta: Meta) -> Box<KvFrozen> {
        Box::new(KvFrozen { walk: Walk::begin(shared, db, vec![DATA], vec![DATA_END]), meta })
    }
}

impl Frozen for KvFrozen {
    fn write_to(mut self: Box<Self>, out: &mut dyn io::Write) -> Result<(), Failure> {
        let mut buffer = Vec::new();
        buffer.put_slice(MAGIC);
        buffer.put_u64_le(self.meta.revision);
        let mut digest = Digest::default();
        while let Some(chunk) = self.walk.next_chunk()? {
            put_chunk(&mut buffer, &chunk, &mut digest)?;
            out.write_all(&buffer).map_err(|error| Failure::io("Writing a snapshot", &error))?;
            buffer.clear();
        }
        if digest != self.meta.entries {
            return Err(mismatch("The store does not match its digest", digest, self.meta.entries));
        }
        buffer.put_u8(0);
        buffer.put_u64_le(digest.count);
        buffer.put_u64_le(digest.sum);
        out.write_all(&buffer).map_err(|error| Failure::io("Writing a snapshot", &error))
    }
}

fn put_chunk(buffer: &mut Vec<u8>, chunk: &[Stored], digest: &mut Digest) -> Result<(), Failure> {
    for (key, stored) in chunk {
        digest.add(fingerprint(key, stored));
        let Record { create, modified, value } = Record::parse(stored)?;
        buffer.put_u8(1);
        put_bytes(buffer, &key[1..]);
        buffer.put_u64_le(create);
        buffer.put_u64_le(modified);
        put_bytes(buffer, value);
    }
    Ok(())
}

fn mismatch(what: &str, found: Digest, expected: Digest) -> Failure {
    let (found, expected) = (found.count, expected.count);
    Failure::new(Code::Corrupt, format!("{what} ({found} entries, {expected} expected)."))
}

/// An entry read from a payload.
pub(super) struct Loaded {
    pub key: Vec<u8>,
    pub create: u64,
    pub modified: u64,
    pub value: Vec<u8>,
}

/// Reads a payload. Allocates no more than the limits of keys and values allow.
pub(super) struct PayloadReader<'a> {
    input: io::BufReader<&'a mut dyn io::Read>,
    /// The revision that the state is of.
    pub revision: u64,
}

impl<'a> PayloadReader<'a> {
    /// Reads the head. Fails with `Corrupt` when it is none, `Io` when reading fails.
    pub fn begin(input: &'a mut dyn io::Read) -> Result<PayloadReader<'a>, Failure> {
        let mut reader = PayloadReader { input: io::BufReader::new(input), revision: 0 };
        if reader.array::<4>()? != *MAGIC {
            return Err(Failure::new(
                Code::Corrupt,
                "This is no snapshot of a key-value store, or one of another version.",
            ));
        }
        reader.revision = reader.number()?;
        Ok(reader)
    }

    /// The next entry; `None` at the end, when the payload's own digest equals `loaded` and nothing follows.
    pub fn next(&mut self, loaded: Digest) -> Result<Option<Loaded>, Failure> {
        match self.array::<1>()? {
            [1] => {
                let key = self.bytes(KEY_BYTES_MAX)?;
                let (create, modified) = (self.number()?, self.number()?);
                Ok(Some(Loaded { key, create, modified, value: self.bytes(ENTRY_BYTES_MAX)? }))
            }
            [0] => self.end(loaded).map(|()| None),
            [other] => {
                Err(Failure::new(Code::Corrupt, format!("The snapshot holds a record of unknown kind {other}.")))
            }
        }
    }

    fn end(&mut self, loaded: Digest) -> Result<(), Failure> {
        let expected = Digest { count: self.number()?, sum: self.number()? };
        if loaded != expected {
            return Err(mismatch("The snapshot does not match its digest", loaded, expected));
        }
        match io::Read::read(&mut self.input, &mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Failure::new(Code::Corrupt, "The snapshot goes on after its end.")),
            Err(error) => Err(Failure::io("Reading a snapshot", &error)),
        }
    }

    fn bytes(&mut self, max: usize) -> Result<Vec<u8>, Failure> {
        let len = u32::from_le_bytes(self.array()?) as usize;
        if len > max {
            return Err(Failure::new(
                Code::Corrupt,
                format!("The snapshot holds a field of {len} bytes; at most {max}."),
            ));
        }
        let mut bytes = vec![0; len];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u64, Failure> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let mut array = [0; N];
        self.fill(&mut array)?;
        Ok(array)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Failure> {
        io::Read::read_exact(&mut self.input, bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Failure::new(Code::Corrupt, "The snapshot is cut off."),
            _ => Failure::io("Reading a snapshot", &error),
        })
    }
}
