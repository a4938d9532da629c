//! Defects on purpose, one at a time, to test the machinery that is to find such defects. Without the cargo feature
//! `planted` nothing of this is compiled in: [`is`] is constantly false.

/// A defect that can be switched on; `tests/README.md` has the table of what catches each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Defect {
    /// Entries are acknowledged before they are synced.
    AckBeforeSync = 1,
    /// A vote is answered before it is synced.
    VoteNotDurable = 2,
    /// Entries reach the disk, and are acknowledged, before the vote under which they came.
    VoteReordered = 3,
    /// The position up to which the log was purged is not stored.
    PurgedNotDurable = 4,
    /// A truncation removes entries in the middle and leaves those behind them.
    HoleAfterTruncate = 5,
    /// A command that was sent again takes effect again.
    RetryAppliedTwice = 6,
    /// A deposed leader answers linearizable reads from what it has.
    StaleRead = 7,
    /// A snapshot carries the membership before the newest one.
    SnapshotOldMembership = 8,
    /// An entry commits without a quorum.
    CommitWithoutQuorum = 9,
    /// An older snapshot replaces newer state.
    OlderSnapshotInstalled = 10,
    /// The log is purged before the snapshot is durable.
    PurgeBeforeSnapshot = 11,
    /// A node whose disk was wiped votes under its old id.
    WipedKeepsId = 12,
    /// A full disk is taken for a success.
    FullDiskSwallowed = 13,
    /// A sync that failed is tried again and believed.
    SyncErrorRetried = 14,
    /// Damage in the middle of the log is taken for a torn end.
    DamageTakenForTear = 15,
    /// The directory is not synced after a rename.
    RenameNotSynced = 16,
    /// A leader that stood still answers a read on a lease that ran out meanwhile.
    LeaseAfterPause = 17,
    /// A snapshot lacks the table of sessions.
    SnapshotWithoutSessions = 18,
    /// Entries are applied out of order.
    ApplyOutOfOrder = 19,
    /// A command is completed twice.
    CompletedTwice = 20,
}

#[cfg(feature = "planted")]
static SWITCHED_ON: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Switches the defect with this number on, for the whole process; 0 switches off.
#[cfg(feature = "planted")]
pub fn plant(number: u8) {
    SWITCHED_ON.store(number, std::sync::atomic::Ordering::Relaxed);
}

/// True when `defect` is switched on.
#[cfg(feature = "planted")]
pub fn is(defect: Defect) -> bool {
    SWITCHED_ON.load(std::sync::atomic::Ordering::Relaxed) == defect as u8
}

/// True when `defect` is switched on, which it never is in a normal build.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn is(_defect: Defect) -> bool {
    false
}
