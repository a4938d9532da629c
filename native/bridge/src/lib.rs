//! The JNI face of the engine: eight natives of the Java class `quorate.jni.Native`, and what they need.
//!
//! | module | what it does |
//! |---|---|
//! | `natives` | the eight exported functions: arguments checked, failures and panics turned into exceptions |
//! | `throw` | how a [`Failure`](quorate_engine::Failure) becomes a `quorate.jni.QuorateException` |
//! | `buffer` | the memory of a direct `ByteBuffer` |
//! | [`table`] | handles, which are numbers, and the sessions behind them |
//! | [`edn_config`] | the configuration map, with [`edn_shape`] before it |
//! | [`start`] | from a configuration to a running session |
//! | [`echo`] | a session that answers with what it is given, for tests of the boundary alone |
//! | [`log_lines`] | the Rust side's log, on its way to the host's |
//!
//! Only `natives`, `throw` and `buffer` name `jni`, and only they hold `unsafe`. No thread of Rust's ever attaches to the
//! JVM: all calls into it happen on Java's own threads, inside a native.
#![deny(unsafe_code)]

#[cfg(test)]
mod codes;
pub mod echo;
pub mod echo_request;
mod echo_shared;
mod echo_worker;
pub mod edn_config;
pub mod edn_shape;
pub mod log_lines;
pub mod start;
pub mod table;

#[allow(unsafe_code)]
mod buffer;
#[allow(unsafe_code)]
mod natives;
mod throw;
#[cfg(feature = "upcalls")]
#[allow(unsafe_code)]
mod upcalls;

/// The version that both sides must agree on.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
