//! openraft's types and what it runs on: the type configuration, the log store, the network.
//! (`node` drives openraft's handle; `node::adapter` is its view of the state machine.)

pub mod log;
pub mod network;
pub mod runtime;
pub mod types;

/// A snapshot as openraft passes it around: what it covers, and the file.
pub type Snapshot = openraft::type_config::alias::SnapshotOf<types::TypeConfig, crate::snapshot::SnapshotFile>;
