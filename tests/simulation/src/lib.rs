//! The engine on simulated time, network and disk, in one thread, from one seed.
//!
//! A [`plan`] says what happens; [`driver`] carries it out on [`host`]s, each a runtime with paused time, a
//! [`disk`] that loses what was not synced, and a place on a simulated [`network`]; [`clients`] write and read, and
//! the [`invariants`] judge what comes of it.
#![forbid(unsafe_code)]

mod agenda;
pub mod chance;
pub mod clients;
pub mod command;
pub mod damage;
pub mod disk;
pub mod driver;
mod faults;
pub mod host;
pub mod invariants;
mod looking;
pub mod machine;
pub mod mutants;
pub mod network;
pub mod panics;
pub mod plan;
pub mod process;
mod recovery;
pub mod runner;
pub mod shrink;
pub mod tally;
pub mod world;
