//! The file format.
//!
//! ```text
//! file   := magic 8 bytes · version u32 · length u32 · header (postcard) · crc32 of all before it · chunk* · end
//! header := SnapshotMeta · index u64 · notes
//! chunk  := length u32 · crc32 of number u64, length u32 and bytes · bytes
//! end    := 0 u32 · crc32 of number u64, 0 u32 and the total · total length of the chunks' bytes u64
//! ```
//!
//! Numbers are little-endian. A checksum covers the chunk's number, so that chunks cannot change places.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use super::{OpenSnapshot, SnapshotFile};
use crate::consensus::types::SnapshotMeta;
use crate::error::{Code, Failure};
use crate::limits::SNAPSHOT_CHUNK_BYTES;

const MAGIC: &[u8; 8] = b"quorsnap";
const VERSION: u32 = 1;
const FIXED: usize = MAGIC.len() + 4 + 4;
const CHUNK_HEAD: usize = 8;
const END: usize = CHUNK_HEAD + 8;
const CHECKSUM: usize = 4;

#[derive(Serialize, Deserialize)]
struct Header {
    meta: SnapshotMeta,
    index: u64,
    notes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The beginning of a file. Fails with `Internal` when it cannot be encoded.
pub(super) fn encode_header(meta: &SnapshotMeta, index: u64, notes: &[(Vec<u8>, Vec<u8>)]) -> Result<Vec<u8>, Failure> {
    let header = Header { meta: meta.clone(), index, notes: notes.to_vec() };
    let encoded = postcard::to_stdvec(&header)
        .map_err(|error| Failure::internal(format!("The head of a snapshot cannot be encoded: {error}")))?;
    let mut out = Vec::with_capacity(FIXED + encoded.len() + CHECKSUM);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(encoded.len() as u32).to_le_bytes());
    out.extend_from_slice(&encoded);
    out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
    Ok(out)
}

/// Chunk `number`.
pub(super) fn encode_chunk(number: u64, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(CHUNK_HEAD + data.len());
    out.extend_from_slice(&(data.len() as u32).to_le_bytes());
    out.extend_from_slice(&checksum(number, data.len() as u32, data).to_le_bytes());
    out.extend_from_slice(data);
    out
}

/// The end of a file of `chunks` chunks with `total` bytes in them.
pub(super) fn encode_end(chunks: u64, total: u64) -> Vec<u8> {
    let total = total.to_le_bytes();
    let mut out = Vec::with_capacity(END);
    out.extend_from_slice(&0_u32.to_le_bytes());
    out.extend_from_slice(&checksum(chunks, 0, &total).to_le_bytes());
    out.extend_from_slice(&total);
    out
}

fn checksum(number: u64, len: u32, data: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(&len.to_le_bytes());
    hasher.update(data);
    hasher.finalize()
}

/// Reads the beginning of `file`. Fails with `Corrupt`, with `Refused` when a newer version wrote it, and with `Io`.
pub(super) fn open(file: SnapshotFile) -> Result<OpenSnapshot, Failure> {
    let (header, _) = read_header(&file)?;
    Ok(OpenSnapshot { meta: header.meta, index: header.index, notes: header.notes, file })
}

/// Reads all of `file` and checks every checksum. Fails as [`open`] does.
pub(super) fn verify(file: &SnapshotFile) -> Result<(), Failure> {
    let mut payload = payload(file)?;
    while payload.next_chunk()? {}
    Ok(())
}

/// The payload of `file`, from its beginning.
pub(super) fn payload(file: &SnapshotFile) -> Result<Payload, Failure> {
    let (_, offset) = read_header(file)?;
    Ok(Payload { file: file.clone(), offset, number: 0, total: 0, chunk: Vec::new(), read: 0, ended: false })
}

fn read_header(file: &SnapshotFile) -> Result<(Header, u64), Failure> {
    let mut fixed = [0; FIXED];
    exact(file, 0, &mut fixed)?;
    if &fixed[..8] != MAGIC {
        return Err(damaged(file, 0, "this is no snapshot"));
    }
    let version = u32_at(&fixed, 8);
    let len = u32_at(&fixed, 12) as usize;
    if (len + FIXED + CHECKSUM) as u64 > file.len {
        return Err(newer(file, version).unwrap_or_else(|| damaged(file, 12, "the head is longer than the file")));
    }
    let mut data = vec![0; FIXED + len + CHECKSUM];
    exact(file, 0, &mut data)?;
    let (content, stored) = data.split_at(FIXED + len);
    if crc32fast::hash(content) != u32_at(stored, 0) {
        return Err(damaged(file, 0, "the head's checksum is wrong"));
    }
    if let Some(failure) = newer(file, version) {
        return Err(failure);
    }
    let header = postcard::from_bytes(&content[FIXED..]).map_err(|error| damaged(file, FIXED as u64, error))?;
    Ok((header, data.len() as u64))
}

fn newer(file: &SnapshotFile, version: u32) -> Option<Failure> {
    // A version far away is damage, not the future.
    (version > VERSION && version < VERSION + 1_000).then(|| {
        let path = file.path.display();
        let message = format!("{path} has format {version}, this version of Quorate knows {VERSION}: use a newer one.");
        Failure::new(Code::Refused, message)
    })
}

fn u32_at(data: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&data[at..at + 4]);
    u32::from_le_bytes(number)
}

fn exact(file: &SnapshotFile, offset: u64, out: &mut [u8]) -> Result<(), Failure> {
    if file.read_at(offset, out)? == out.len() { Ok(()) } else { Err(damaged(file, offset, "the file ends too early")) }
}

fn damaged(file: &SnapshotFile, offset: u64, why: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Corrupt, format!("{} is damaged at offset {offset}: {why}.", file.path.display()))
}

/// Reads the payload of a snapshot; see [`OpenSnapshot::payload`].
#[derive(Debug)]
pub struct Payload {
    file: SnapshotFile,
    offset: u64,
    number: u64,
    total: u64,
    chunk: Vec<u8>,
    read: usize,
    ended: bool,
}

impl Payload {
    /// Takes in the next chunk; false at the end of the file, when that is right too.
    fn next_chunk(&mut self) -> Result<bool, Failure> {
        if self.ended {
            return Ok(false);
        }
        let mut head = [0; CHUNK_HEAD];
        exact(&self.file, self.offset, &mut head)?;
        let (len, stored) = (u32_at(&head, 0), u32_at(&head, 4));
        if len as usize > SNAPSHOT_CHUNK_BYTES {
            return Err(damaged(&self.file, self.offset, "a chunk has an impossible length"));
        }
        self.chunk.resize(if len == 0 { END - CHUNK_HEAD } else { len as usize }, 0);
        self.read = 0;
        exact(&self.file, self.offset + CHUNK_HEAD as u64, &mut self.chunk)?;
        if checksum(self.number, len, &self.chunk) != stored {
            self.chunk.clear();
            return Err(damaged(&self.file, self.offset, "a checksum is wrong"));
        }
        self.offset += (CHUNK_HEAD + self.chunk.len()) as u64;
        if len == 0 {
            return self.end();
        }
        self.number += 1;
        self.total += u64::from(len);
        Ok(true)
    }

    fn end(&mut self) -> Result<bool, Failure> {
        let right = self.chunk == self.total.to_le_bytes() && self.offset == self.file.len;
        self.chunk.clear();
        self.ended = right;
        if right { Ok(false) } else { Err(damaged(&self.file, self.offset, "the end does not fit")) }
    }
}

impl Read for Payload {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.read == self.chunk.len() {
            if out.is_empty() || !self.next_chunk()? {
                return Ok(0);
            }
        }
        let len = out.len().min(self.chunk.len() - self.read);
        out[..len].copy_from_slice(&self.chunk[self.read..self.read + len]);
        self.read += len;
        Ok(len)
    }
}
