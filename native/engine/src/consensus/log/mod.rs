//! The durable half of consensus: log entries, vote, committed and purged positions, on raft-engine (TiKV's log store).
//!
//! One operating-system thread a store owns all writing: it takes everything that is queued, writes it as *one*
//! raft-engine batch, makes that durable with one fdatasync, and then answers everybody (group commit without a
//! timer). Every batch also carries the `marks`: vote, tail, committed, purged. raft-engine forgets the end of a log
//! only when it is overwritten, so the tail mark is what bounds reading, and because the marks travel in every batch
//! no old file is ever kept alive by them.
//!
//! Reading old entries has a thread of its own, for two reasons: nothing that runs consensus may wait for a disk, and
//! raft-engine caches the last block it read per *thread*, keyed by file number and offset, so two stores that were read
//! by one thread could be given each other's entries.
//!
//! ```text
//! append ─► cache + queue ─► writer thread ─► raft-engine ─► fdatasync ─► callbacks
//! read   ─► cache, or ─► reader thread ─► raft-engine
//! ```
//!
//! Only this module names raft-engine; [`mod@env`] is its file-system interface, for a simulated disk.

mod direct;
mod files;
mod guard;
mod marks;
mod offline;
mod on_disk;
mod options;
mod plants;
mod reader;
mod record;
mod scan;
mod state;
mod store;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
pub(crate) mod traits;
mod writer;

/// The file system that raft-engine writes through: what a simulated disk implements for [`LogStore::open_on`].
pub mod env {
    pub use raft_engine::env::{DefaultFileSystem, FileSystem, Handle, Permission, WriteExt};
}

pub use offline::OfflineLog;
pub use options::{LogOptions, LogStats};
pub use store::{Extent, LogStore};
