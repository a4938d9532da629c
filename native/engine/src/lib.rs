//! Quorate's engine: replicated, durable state without a JVM.
//!
//! A [`node::Node`] is one member of a cluster. It owns a log on disk, a state machine, a transport and the consensus
//! core (openraft), and answers submissions with the result of its *own* application of the entry. The way of an entry
//! through the modules:
//!
//! `node::proposer` batches commands → `consensus` replicates the batch → `consensus::log` makes it durable →
//! `node::applier` drops repetitions ([`dedup`]) and hands the rest to the [`machine::StateMachine`] → `node::pending`
//! answers whoever waits on this node.
//!
//! Only `consensus` and `node` name openraft, only `consensus::log` names raft-engine, only `kv` names sled. Nothing here
//! knows of a JVM: the bridge drives a [`session::Session`].
#![deny(unsafe_code)]

// Tests in this crate and those in `tests` share their helpers.
#[cfg(test)]
extern crate self as quorate_engine;

pub mod coarse;
pub mod codec;
pub mod command;
pub mod config;
pub mod consensus;
pub mod datadir;
pub mod dedup;
pub mod disk;
pub mod durable;
pub mod error;
pub mod hosted;
pub mod kv;
pub mod limits;
pub mod machine;
pub mod node;
pub mod offline;
pub mod planted;
pub mod records;
pub mod session;
pub mod snapshot;
pub mod spin;
pub mod surroundings;
pub mod transport;
pub mod watch;
pub mod worker;

pub use command::{Command, CommandId};
pub use config::NodeConfig;
pub use error::{Code, Failure};
