//! What is acknowledged stays, whatever happens to processes and disks: the machinery that tries to refute it.
//!
//! A cluster here is three or five processes of `crash-node` ([`node`]), driven over their stdin and stdout
//! ([`process`], [`cluster`]). On top of it:
//!
//! - [`powercut`]: the power goes while clients write; a [`disk`] keeps what a real one might keep;
//! - [`damage`]: files of a closed node are cut, flipped, removed;
//! - [`full`]: a disk is full for a while; [`eio`]: it reports I/O errors; [`comeback`]: what both ask;
//! - [`soak`]: memory and disk under load for long;
//! - [`torture`]: kills, pauses, partitions and wiped nodes, the history checked by [`linear`].
//!
//! Everything random comes from one seed ([`rng`]); the timing of processes does not.
#![forbid(unsafe_code)]

pub mod cluster;
pub mod comeback;
pub mod damage;
pub mod disk;
pub mod eio;
pub mod full;
pub mod ledger;
pub mod load;
pub mod node;
pub mod options;
pub mod powercut;
pub mod process;
pub mod soak;
pub mod tally;
pub mod torture;
pub mod workdir;

pub use quorate_linear::{linear, rng};
