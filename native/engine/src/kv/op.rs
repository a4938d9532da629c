//! The key-value store's operations as bytes: the contract between a client (Clojure's `quorate.kv`, Rust) and the machine.
//!
//! All numbers are little-endian; `bytes` is a `u32` length and the bytes. A *revision* is the user-visible index of the
//! command that made a change, so revisions grow, have gaps, and are the same on every node.
//!
//! ```text
//! command  := 1 u8 · guards u16 · guard* · writes u16 · write* · else_writes u16 · write*
//! guard    := key bytes · kind u8 (1 exists, 2 absent, 3 value equals: bytes, 4 mod revision equals: u64,
//!                                  5 create revision equals: u64)
//! write    := 1 u8 · key bytes · value bytes            (put)
//!           | 2 u8 · key bytes                          (delete)
//! outcome  := succeeded u8 · revision u64 · failed_guard u16 (0xffff: none) ·
//!             [when a guard failed: found u8 · (create u64 · mod u64 · value bytes, when found)] ·
//!             results u16 · (1 u8 existed u8)*          one a write executed: whether the key was there before
//!
//! read     := 1 u8 · key bytes                                                            (get)
//!           | 2 u8 · prefix bytes · after u8 (0|1) · [key bytes] · limit u32 · keys_only u8   (scan)
//!           | 3 u8 · prefix bytes                                                         (count)
//! answer   := revision u64 · ...
//!   get    … found u8 · (create u64 · mod u64 · value bytes, when found)
//!   scan   … more u8 · n u32 · (key bytes · create u64 · mod u64 · value bytes)*
//!   count  … n u64
//!
//! event    := 1 u8 · revision u64 · key bytes · create u64 · value bytes    (put)
//!           | 2 u8 · revision u64 · key bytes                              (delete)
//!           | 3 u8 · oldest u64    (compacted: changes before `oldest` are gone; read the keys, watch from there)
//!           | 4 u8 · revision u64  (progress: every change up to `revision` has been delivered)
//! ```
//!
//! What the grammar leaves open:
//! - Keys have 1 to [`KEY_BYTES_MAX`] bytes; a prefix may be empty (every key).
//! - A command that is malformed, or names a key outside these bounds, is refused whole with `Invalid` and changes nothing.
//! - A guard on a value or a revision does not hold for an absent key. The first guard that does not hold decides.
//! - Writes take effect in order, so a later write of a command sees the earlier ones; each that changed something is an
//!   event of its own, all with the command's revision.
//! - A scan answers at most `limit` entries (0: as many as the caps allow), capped by
//!   [`SCAN_ENTRIES_MAX`](crate::limits::SCAN_ENTRIES_MAX) and [`SCAN_BYTES_MAX`](crate::limits::SCAN_BYTES_MAX), in
//!   the order of the keys' bytes, only keys greater than `after`; with `keys_only` every value is empty. `more` says
//!   that further keys match: ask again with `after` set to the last key of the answer.
//! - A watch that gets a *compacted* event goes on by itself with the changes of revision `oldest` and later.

mod event;
mod query;
mod txn;

pub use event::Event;
pub use query::{CountAnswer, GetAnswer, Read, ScanAnswer, ScanEntry};
pub use txn::{Condition, Entry, FailedGuard, Guard, Txn, TxnOutcome, Write};

use crate::error::Failure;
use crate::limits::KEY_BYTES_MAX;

/// Fails with `Invalid` unless `key` may be the key of an entry.
pub fn check_key(key: &[u8]) -> Result<(), Failure> {
    if key.is_empty() {
        return Err(Failure::invalid("A key must not be empty."));
    }
    check_prefix(key)
}

/// Fails with `Invalid` when `prefix` is longer than a key can be.
pub fn check_prefix(prefix: &[u8]) -> Result<(), Failure> {
    if prefix.len() > KEY_BYTES_MAX {
        return Err(Failure::invalid(format!("A key of {} bytes is too long; at most {KEY_BYTES_MAX}.", prefix.len())));
    }
    Ok(())
}

fn malformed(what: &str, reason: &Failure) -> Failure {
    Failure::invalid(format!("Malformed {what}: {reason}"))
}

fn flag(byte: u8) -> Result<bool, Failure> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Failure::invalid(format!("{other} is neither 0 nor 1."))),
    }
}
