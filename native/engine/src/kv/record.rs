//! How keys, entries and the machine's own record lie in sled.
//!
//! ```text
//! 'd' key    := create u64 · mod u64 · value         an entry
//! 'm'        := version u8 · phase u8 · batches u64 · revision u64 · entries (count u64, sum u64) · notes (count u64, sum u64)
//! 'n' key    := bytes                                the engine's bookkeeping
//! ```
//!
//! The two [`Digest`]s make damage visible that sled itself does not report: it neither syncs its file nor its blob files
//! to disk by itself, and passes over a lost blob in silence. They are written in the batch that changes the
//! records, so after a crash the records either match them or are not to be trusted.

use bytes::{Buf, BufMut};
use sled::IVec;

use crate::error::{Code, Failure};

pub(super) const DATA: u8 = b'd';
pub(super) const DATA_END: u8 = DATA + 1;
pub(super) const NOTE: u8 = b'n';
pub(super) const NOTE_END: u8 = NOTE + 1;
pub(super) const META: &[u8] = b"m";

const META_VERSION: u8 = 1;
const META_BYTES: usize = 2 + 6 * 8;
const HEADER_BYTES: usize = 16;

/// A stored entry, borrowed.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    pub create: u64,
    pub modified: u64,
    pub value: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads a stored entry. Fails with `Corrupt` when it is too short to be one.
    pub fn parse(mut stored: &'a [u8]) -> Result<Record<'a>, Failure> {
        if stored.len() < HEADER_BYTES {
            return Err(Failure::new(Code::Corrupt, format!("A stored entry has only {} bytes.", stored.len())));
        }
        Ok(Record { create: stored.get_u64_le(), modified: stored.get_u64_le(), value: stored })
    }

    /// The entry as it is stored; `scratch` is reused memory.
    pub fn store(&self, scratch: &mut Vec<u8>) -> IVec {
        scratch.clear();
        scratch.put_u64_le(self.create);
        scratch.put_u64_le(self.modified);
        scratch.put_slice(self.value);
        IVec::from(scratch.as_slice())
    }
}

/// The sled key of a user's key (`space` [`DATA`]) or a note ([`NOTE`]).
pub(super) fn key_in(space: u8, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(1 + key.len());
    full.push(space);
    full.extend_from_slice(key);
    full
}

/// The least key that is greater than every key that begins with `start`; `start` begins with a space byte below 255.
pub(super) fn end_of_prefix(start: &[u8]) -> Vec<u8> {
    let mut end = start.to_vec();
    while end.last() == Some(&u8::MAX) {
        end.pop();
    }
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// The least key greater than `key`.
pub(super) fn just_after(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

/// Number and order-free sum of the fingerprints of a set of records. Removing a record undoes adding it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Digest {
    pub count: u64,
    pub sum: u64,
}

impl Digest {
    pub fn add(&mut self, fingerprint: u64) {
        self.count = self.count.wrapping_add(1);
        self.sum = self.sum.wrapping_add(fingerprint);
    }

    pub fn remove(&mut self, fingerprint: u64) {
        self.count = self.count.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(fingerprint);
    }
}

/// 64 bits that depend on every byte of a record (multiply and fold, as the wyhash family does). Stored on disk and in
/// snapshots, so it must never change.
pub(super) fn fingerprint(key: &[u8], stored: &[u8]) -> u64 {
    let hash = absorb(absorb(0x9e37_79b9_7f4a_7c15 ^ key.len() as u64, key), stored);
    fold(hash ^ stored.len() as u64)
}

fn absorb(mut hash: u64, data: &[u8]) -> u64 {
    let mut words = data.chunks_exact(8);
    for word in &mut words {
        let mut eight = [0; 8];
        eight.copy_from_slice(word);
        hash = fold(hash ^ u64::from_le_bytes(eight));
    }
    let mut tail = [0; 8];
    tail[..words.remainder().len()].copy_from_slice(words.remainder());
    fold(hash ^ u64::from_le_bytes(tail))
}

fn fold(hash: u64) -> u64 {
    let product = u128::from(hash ^ 0xa076_1d64_78bd_642f) * 0xe703_7ed1_a0b4_28db;
    (product as u64) ^ ((product >> 64) as u64) ^ hash.rotate_left(29)
}

/// Whether the records are whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// They are one consistent state.
    #[default]
    Ready = 0,
    /// A snapshot is being loaded; they are nothing.
    Installing = 1,
}

/// The machine's own record, rewritten with every batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Meta {
    pub phase: Phase,
    /// How many batches were written so far; only the [`Store`](super::store::Store) counts them.
    pub batches: u64,
    /// Revision of the last command applied.
    pub revision: u64,
    pub entries: Digest,
    pub notes: Digest,
}

impl Meta {
    pub fn store(&self) -> IVec {
        let mut out = Vec::with_capacity(META_BYTES);
        out.put_slice(&[META_VERSION, self.phase as u8]);
        let Meta { batches, revision, entries, notes, .. } = *self;
        [batches, revision, entries.count, entries.sum, notes.count, notes.sum].iter().for_each(|n| out.put_u64_le(*n));
        IVec::from(out)
    }

    /// Fails with `Corrupt` on anything else than what [`Meta::store`] makes.
    pub fn parse(mut stored: &[u8]) -> Result<Meta, Failure> {
        if stored.len() != META_BYTES || stored[0] != META_VERSION || stored[1] > Phase::Installing as u8 {
            return Err(Failure::new(Code::Corrupt, "The store's own record is damaged or of another version."));
        }
        let phase = if stored[1] == Phase::Installing as u8 { Phase::Installing } else { Phase::Ready };
        stored.advance(2);
        let (batches, revision) = (stored.get_u64_le(), stored.get_u64_le());
        let mut digest = || Digest { count: stored.get_u64_le(), sum: stored.get_u64_le() };
        Ok(Meta { phase, batches, revision, entries: digest(), notes: digest() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_forgets_the_order_and_notices_the_rest() {
        let (one, two) = (fingerprint(b"k1", b"v"), fingerprint(b"k2", b"v"));
        let mut digest = Digest::default();
        [two, one].iter().for_each(|print| digest.add(*print));
        digest.remove(two);
        assert_eq!(digest, Digest { count: 1, sum: one });
        let others =
            [fingerprint(b"k1", b"w"), fingerprint(b"k1v", b""), fingerprint(b"k", b"1v"), fingerprint(b"k1", b"v\0")];
        assert!(!others.contains(&one));
    }

    #[test]
    fn a_fingerprint_is_the_same_for_ever() {
        assert_eq!(fingerprint(b"key", b"a value that is longer than one word"), FINGERPRINT_OF_EVER);
    }

    const FINGERPRINT_OF_EVER: u64 = 16_478_398_000_887_666_040;

    #[test]
    fn the_own_record_comes_back_and_damage_is_seen() {
        let digest = |count| Digest { count, sum: u64::MAX - count };
        let meta = Meta { phase: Phase::Installing, batches: 8, revision: 7, entries: digest(3), notes: digest(4) };
        let stored = meta.store();
        assert_eq!(Meta::parse(&stored).unwrap(), meta);
        (0..stored.len()).for_each(|len| assert!(Meta::parse(&stored[..len]).is_err()));
        assert!(Meta::parse(&[9; META_BYTES]).is_err());
    }

    #[test]
    fn the_end_of_a_prefix_is_past_all_its_keys() {
        assert_eq!(end_of_prefix(b"dab"), b"dac");
        assert_eq!(end_of_prefix(b"da\xff\xff"), b"db");
        assert_eq!(end_of_prefix(b"d\xff"), b"e");
        assert_eq!(end_of_prefix(b"d"), b"e");
    }
}
