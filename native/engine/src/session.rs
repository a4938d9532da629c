//! What a host (the JNI bridge, or any other) drives: submissions in, records out.
//!
//! A host never waits inside the engine and the engine never calls the host. The host submits, and takes records from
//! two queues with [`Session::poll`]: [`Queue::Events`] (outcomes, leader changes, watch events) and [`Queue::Apply`]
//! (committed commands for a state machine that lives in the host). Both are streams of length-prefixed little-endian
//! records, so that one poll carries as many as fit:
//!
//! ```text
//! record      := length u32 (of what follows) · type u8 · fields
//!
//! Queue::Events
//!   COMPLETION 1 := ticket u64 · status u8 (0, or a Code) · payload (the result, or the message in UTF-8)
//!   LEADER     2 := EDN map in UTF-8
//!   LOG        3 := level u8 (1 error … 5 trace) · target (u16 length, UTF-8) · message in UTF-8
//!   WATCH      4 := watch u64 · event (see kv::op)
//!   CLOSED     5 := nothing; the last record of the queue
//!   DATAGRAM   6 := server (u16 length, UTF-8) · datagram: carry it to that server, where it goes into Op::Deliver.
//!                   Only with a transport of the host's (NodeConfig::transport). May be lost, doubled, late
//!   ASK        7 := ticket u64 · from (u16 length, UTF-8) · question: the host of the server `from` asks this one;
//!                   answer with Op::Answered
//!
//! Queue::Apply
//!   ENTRY      1 := index u64 · term u64 · time_ms u64 · seed u64 · local u8 · node u64 · incarnation u64 · sequence u64 · body
//!   SNAPSHOT   2 := ticket u64 · index u64 · path in UTF-8: write the state as of `index` there, then Op::SnapshotDone
//!   INSTALL    3 := ticket u64 · index u64 · path in UTF-8: replace the state by that file, then Op::InstallDone
//!   CLOSED     4 := nothing; the last record of the queue
//! ```
//!
//! The ticket of a command is the `sequence` of its id; other requests have tickets from 2^62 on.

use std::time::Duration;

use bytes::Bytes;

use crate::error::Failure;

/// What a submission asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Replicate the body as a command. Completes with the machine's outcome; a machine in the host answers by itself
    /// when it applies the entry, and only failures come as completions.
    Command = 1,
    /// Read from the engine's key-value store: `consistency u8 · read operation` (see `kv::op`).
    Read = 2,
    /// Wait until this node has applied everything committed before the call: `consistency u8`. Completes with the
    /// applied index as `u64`.
    Barrier = 3,
    /// Change the membership: `operation u8 · name (u32 length, UTF-8) · address (u32 length, UTF-8)`, operation 1 add,
    /// 2 remove, 3 transfer leadership, 4 add as learner. Completes with an empty payload.
    Membership = 4,
    /// Take a snapshot now: empty body. Completes with the snapshot's index as `u64` when it is durable.
    Snapshot = 5,
    /// Ask the host of another member, or this one: `server (u32 length, UTF-8) · question`. The question has at most
    /// [`crate::limits::ASK_QUESTION_BYTES_MAX`] bytes. Completes with what that host answered; fails with
    /// `Unavailable` (no such member, not reached, its host takes no questions), `Timeout`, `StateMachine` (the host
    /// refused: its message), `TooLarge` (the answer), and at once with `Overloaded` when
    /// [`crate::limits::ASKS_MAX`] are open.
    Ask = 6,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Consistency {
    /// ReadIndex (Raft dissertation §6.4): sees every write acknowledged before the read began. The default.
    Linearizable = 0,
    /// The leader's lease: no round trip, right as long as clocks drift less than the lease's margin.
    Lease = 1,
    /// Whatever this node has applied.
    Local = 2,
}

/// The two streams of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Queue {
    /// Outcomes and other events.
    Events = 1,
    /// Committed commands for a state machine in the host.
    Apply = 2,
}

/// Synchronous requests that answer at once from memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// Status as an EDN map. Empty body.
    Status = 1,
    /// What became of a command: `node u64 · incarnation u64 · sequence u64` → one byte: 0 unknown id or too old,
    /// 1 pending, 2 took effect (then its index, `u64`), 3 will never take effect.
    Outcome = 2,
    /// The host wrote the snapshot: `ticket u64 · ok u8 · message in UTF-8`. Empty answer.
    SnapshotDone = 3,
    /// The host installed the snapshot: the same body. Empty answer.
    InstallDone = 4,
    /// Start a watch: `from_revision u64 (0: from now) · exact u8 · key or prefix (u32 length, bytes)` → `watch u64`.
    Watch = 5,
    /// End a watch: `watch u64`. Empty answer.
    Unwatch = 6,
    /// Metrics in Prometheus' text format. Empty body.
    Metrics = 7,
    /// The identity of this node: `node u64 · incarnation u64 · name in UTF-8`. Empty body.
    Identity = 8,
    /// The host answers an ASK: `ticket u64 · ok u8 · the answer, or the message of a refusal in UTF-8`. Empty answer.
    /// `Invalid` for a ticket that is not open (any more): harmless. `TooLarge` beyond
    /// [`crate::limits::ASK_ANSWER_BYTES_MAX`]; whoever asked then gets that failure too.
    Answered = 9,
    /// A datagram arrived that another server's DATAGRAM record carried: its bytes. Empty answer; `Invalid` when it is
    /// none (it is dropped and counted) or this node's transport is not the host's.
    Deliver = 10,
}

/// What a poll brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// So many bytes of whole records were written; 0 when the wait ran out.
    Bytes(usize),
    /// The next record alone needs so many bytes: poll again with a buffer of that size.
    NeedsBytes(usize),
    /// The queue is closed and drained; every later poll says so at once.
    Closed,
}

/// A running node, or the echo of one, as a host sees it. All methods may be called from any thread.
pub trait Session: Send + Sync {
    /// Accepts a request or refuses it at once; never waits. Returns its ticket. Every accepted ticket gets exactly one
    /// answer, at the latest `timeout` after this call or at close. Fails with `Closed`, `TooLarge`, `Overloaded`,
    /// `Invalid`; after a failure nothing was registered.
    fn submit(&self, kind: Kind, body: Bytes, timeout: Duration) -> Result<u64, Failure>;

    /// Copies the next whole records of `queue` into `out`, waiting up to `wait` for the first. `acknowledged` (apply
    /// queue only) is the index up to which the host has applied, 0 for none. One thread a queue at a time.
    fn poll(&self, queue: Queue, out: &mut [u8], acknowledged: u64, wait: Duration) -> Polled;

    /// Answers `op` at once from memory. Fails with `Closed` or `Invalid`.
    fn control(&self, op: Op, body: Bytes) -> Result<Vec<u8>, Failure>;

    /// Stops the node: every pending ticket is answered with `Closed`, then both queues end with their CLOSED record.
    /// Returns when the threads have ended and the directory is unlocked, within seconds. May be called again.
    fn close(&self);
}

macro_rules! from_u8 {
    ($type:ty, $what:literal, $($variant:ident),+) => {
        impl TryFrom<u8> for $type {
            type Error = Failure;
            fn try_from(number: u8) -> Result<$type, Failure> {
                $(if number == <$type>::$variant as u8 { return Ok(<$type>::$variant); })+
                Err(Failure::invalid(format!(concat!("There is no ", $what, " {}."), number)))
            }
        }
    };
}

from_u8!(Kind, "kind of submission", Command, Read, Barrier, Membership, Snapshot, Ask);
from_u8!(Consistency, "consistency", Linearizable, Lease, Local);
from_u8!(Queue, "queue", Events, Apply);
from_u8!(
    Op,
    "operation",
    Status,
    Outcome,
    SnapshotDone,
    InstallDone,
    Watch,
    Unwatch,
    Metrics,
    Identity,
    Answered,
    Deliver
);
