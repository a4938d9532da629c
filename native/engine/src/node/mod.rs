//! One member of a cluster, from bootstrap to close.
//!
//! [`Node::start`] checks the configuration, locks the directory, opens the state, binds the port, and returns; finding a
//! cluster and everything after it happens on the node's own thread (`run`). Nothing here ever ends the process.

pub mod adapter;
pub mod applier;
pub mod apply_queue;
mod arrivals;
mod asking;
pub mod asks;
pub mod books;
mod bootstrap;
mod conflict;
pub mod core;
#[cfg(test)]
mod core_panics;
mod elections;
pub(crate) mod forming;
mod forwarded;
mod freezing;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod fuzz;
pub mod inspect;
mod launch;
pub mod leadership;
mod membership;
mod messages;
mod metrics;
pub mod observer;
pub mod pending;
pub mod problems;
mod proposer;
mod read_queue;
mod reads;
pub mod requests;
mod run;
mod service;
mod session;
mod shared;
pub mod snapshots;
mod start;
mod status;
mod until_closed;
pub mod view;

pub use self::inspect::{EntryKind, Inspection, LogEntry};
pub use self::launch::Machine;
pub use self::observer::{LeaderEvent, Observer, Role};
pub use self::pending::{Fate, Reply};
pub use self::session::start;
pub use self::start::Node;
