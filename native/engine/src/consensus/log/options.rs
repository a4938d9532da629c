//! What a log store can be told, and what it tells.

use std::time::Duration;

use crate::config::LOG_BYTES;

/// How a log store is laid out on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Names the threads, for a person who looks at a thread dump.
    pub name: String,
    /// The Raft group whose log this is.
    pub group: u64,
    /// Size at which a log file is closed and the next one begun, in bytes. A batch is never split, so a file may be
    /// larger by one batch.
    pub file_bytes: u64,
    /// Below this size of all log files nothing is given back to be reused, in bytes; also, times 1.5, how much is
    /// kept for reuse.
    pub purge_bytes: u64,
    /// Zero-filled files made ready at open, in bytes: writing into them needs no change of the file system's own
    /// records, which makes fdatasync cheaper.
    pub prefill_bytes: u64,
    /// How much of the log's newest end is read and checked against its checksums at open, in bytes. What is older is
    /// checked when it is read.
    pub verify_bytes: u64,
    /// How long the threads wait awake for more, at a time.
    pub spin: Duration,
}

impl LogOptions {
    /// The usual layout: files of 16 MiB, reuse from 128 MiB on, 48 MiB ready at open, 256 MiB verified at open.
    pub fn new(name: impl Into<String>, group: u64) -> LogOptions {
        LogOptions::sized(name, group, LOG_BYTES)
    }

    /// The usual layout in other dimensions: reuse from `bytes` on.
    pub fn sized(name: impl Into<String>, group: u64, bytes: u64) -> LogOptions {
        LogOptions {
            name: name.into(),
            group,
            file_bytes: bytes / 8,
            purge_bytes: bytes,
            prefill_bytes: bytes / 8 * 3,
            verify_bytes: bytes * 2,
            spin: Duration::ZERO,
        }
    }
}

/// What a log store has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Syncs of log files, those of a change of files included.
    pub syncs: u64,
    /// Batches written: what one write and one sync carried.
    pub batches: u64,
    /// Entries made durable.
    pub entries: u64,
    /// Bytes written to the log files.
    pub bytes: u64,
    /// Duration of the last sync, in microseconds.
    pub sync_last_us: u64,
    /// Mean duration of a sync, in microseconds.
    pub sync_mean_us: u64,
    /// Longest sync, in microseconds.
    pub sync_max_us: u64,
}
