//! The key-value state machine on sled.
//!
//! [`KvMachine`] applies, [`KvReader`] reads and watches. The way of a command: `execute` runs it against an `overlay`,
//! whose effects become one batch of the `store`; `undo` records what walks (snapshots, counts) still have to see;
//! `hub` tells the watches. Only this module names sled.

pub mod op;

mod execute;
mod history;
mod hub;
mod install;
mod interest;
mod machine;
mod mark;
mod overlay;
mod panics;
mod reader;
mod record;
mod recover;
mod shared;
mod snapshot;
mod store;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod undo;
mod watching;

pub use hub::WatchSink;
pub use machine::KvMachine;
pub use reader::KvReader;
