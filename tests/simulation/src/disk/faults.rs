//! What is wrong with a disk at present.

use std::io;

/// Errors that a disk gives, and how often still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// No space is left.
    pub full: Option<Full>,
    /// So many writes fail with EIO.
    pub write_errors: u32,
    /// So many syncs fail with EIO.
    pub sync_errors: u32,
    /// So many writes in a hundred take only a part of what they are given.
    pub short_writes: u64,
    /// After so many more changes the power is gone.
    pub cut_after: Option<u64>,
}

/// What a full disk still takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Nothing.
    Strict,
    /// Writes within what files have already.
    GrowingOnly,
}

/// What a disk did wrong so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Harm {
    /// Operations that failed with ENOSPC.
    pub no_space: u64,
    /// Writes that failed with EIO.
    pub write_errors: u64,
    /// Syncs that failed with EIO.
    pub sync_errors: u64,
    /// Writes that took a part.
    pub short_writes: u64,
    /// Power cuts carried out.
    pub cuts: u64,
    /// Sectors that a power cut set back.
    pub sectors_lost: u64,
    /// Files that a power cut left torn.
    pub torn: u64,
    /// Names that a power cut undid.
    pub names_lost: u64,
}

impl Harm {
    /// Both together.
    pub fn plus(&self, other: &Harm) -> Harm {
        Harm {
            no_space: self.no_space + other.no_space,
            write_errors: self.write_errors + other.write_errors,
            sync_errors: self.sync_errors + other.sync_errors,
            short_writes: self.short_writes + other.short_writes,
            cuts: self.cuts + other.cuts,
            sectors_lost: self.sectors_lost + other.sectors_lost,
            torn: self.torn + other.torn,
            names_lost: self.names_lost + other.names_lost,
        }
    }
}

/// ENOSPC.
pub fn no_space() -> io::Error {
    io::Error::from_raw_os_error(28)
}

/// EIO.
pub fn broken() -> io::Error {
    io::Error::from_raw_os_error(5)
}
