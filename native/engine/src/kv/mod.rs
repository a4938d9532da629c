//! The key-value state machine on sled.
//!
//! [`KvMachine`] applies, [`KvReader`] reads and watches. The way of a command: `execute` runs it against an `overlay`,
//! whose effects go into the `layers` in memory, which `behind` writes to the `store`, under the `journal`; reads see them `merged` over
//! sled. `undo` records what a `walk` (a snapshot, a count) still has to see; `hub` tells the watches. Only this module names sled.

pub mod op;

mod behind;
mod database;
mod execute;
mod history;
mod hub;
mod install;
mod interest;
mod journal;
mod layers;
mod machine;
mod mark;
mod merged;
mod overlay;
mod panics;
mod reader;
mod record;
mod recover;
mod seal;
mod shared;
mod snapshot;
mod store;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod undo;
mod walk;
mod watching;

pub use hub::WatchSink;
pub use machine::KvMachine;
pub use reader::KvReader;
