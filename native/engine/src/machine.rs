//! What a state machine owes the engine, and what it gets.
//!
//! The engine calls a machine from one thread only (`node::applier`), in log order, each command once. Beside the
//! commands it hands over *bookkeeping*: small key-value pairs (applied position, membership, session table) that a
//! durable machine must store atomically with the effects of the same call, and give back at the next start.

use std::io;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt, ready};

use crate::command::CommandId;
use crate::error::Failure;

/// One committed command, unique, in log order.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Its identity.
    pub id: CommandId,
    /// True when this very process submitted it: somebody here waits for the result.
    pub local: bool,
    /// The index that users see: counts commands from 1, the same on every node.
    pub index: u64,
    /// Raft term of the entry that carried it.
    pub term: u64,
    /// The leader's wall-clock time for its batch, in milliseconds since 1970.
    pub time_ms: u64,
    /// The leader's random number for its batch.
    pub seed: u64,
    /// The caller's bytes.
    pub body: Bytes,
}

/// Told when a machine fails between two calls; called from any thread, must not block.
pub type Alarm = Box<dyn Fn() + Send + Sync>;

/// A bookkeeping key and its new value (`None` removes it).
pub type Note = (Vec<u8>, Option<Vec<u8>>);

/// All bookkeeping of a machine, keys and values.
pub type Notes = Vec<(Vec<u8>, Vec<u8>)>;

/// The outcome of one command in the machine's own encoding, or why the machine refused it. A refusal is an outcome
/// like any other: deterministic, the same on every replica.
pub type Outcome = Result<Bytes, Failure>;

/// How a machine answers [`StateMachine::apply`].
#[derive(Debug)]
pub enum Applied {
    /// Done: one outcome a command, in order.
    Now(Vec<Outcome>),
    /// Taken: the host applies later and acknowledges by index (see [`crate::hosted`]).
    Later,
    /// Not all are taken, there is no room for more: the same call again, once the machine [settled](StateMachine::settled).
    Full,
}

/// A consistent view of the machine's state at one index, which may be written out while the machine goes on.
pub trait Frozen: Send {
    /// Ends when the state can be written; fails when it never can. Awaited once, before [`Frozen::write_to`].
    fn ready(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        ready(Ok(())).boxed()
    }

    /// Writes the whole state to `out`. Called once, on a thread of its own; may take long.
    fn write_to(self: Box<Self>, out: &mut dyn io::Write) -> Result<(), Failure>;
}

/// A replicated state machine. `Err` from any method means the *machine* is broken (its disk, its host), never that
/// a command was refused: the node then stops applying, says so in its status and goes on voting.
pub trait StateMachine: Send + 'static {
    /// The bookkeeping that is stored with the present state; empty for a machine without state.
    fn load_notes(&mut self) -> Result<Notes, Failure>;

    /// Applies `commands` (perhaps none) and stores `notes`, all or nothing.
    fn apply(&mut self, commands: &[Committed], notes: &[Note]) -> Result<Applied, Failure>;

    /// A view of the state as of now. Cheap: it must not hold up applies.
    fn freeze(&mut self) -> Result<Box<dyn Frozen>, Failure>;

    /// Replaces the whole state by what [`Frozen::write_to`] wrote elsewhere, and the bookkeeping by `notes`, so
    /// that a crash leaves either the old state, the new one, or a machine that knows that it is empty. `index` is the
    /// user-visible index of the snapshot. Durable on return when [`StateMachine::checkpoint`] is what makes it so.
    fn install(&mut self, index: u64, payload: &mut dyn io::Read, notes: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Failure>;

    /// Ends when what the last call of [`StateMachine::apply`] or [`StateMachine::install`] left to others is done: a host makes room,
    /// or installs. Awaited after each such call that went well, on the applying thread, whose only timers are [`crate::worker`]'s.
    /// Fails as the call would have.
    fn settled(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        ready(Ok(())).boxed()
    }

    /// Has `alarm` called when the machine fails by itself, between two calls; the next call, even [`StateMachine::apply`] of nothing,
    /// then says why. For machines that fail only when they are called there is nothing to do.
    fn on_failure(&mut self, alarm: Alarm) {
        drop(alarm);
    }

    /// How to open this machine anew, in the same place, should it fail. `None` when the failed call can simply be repeated.
    fn reviver(&self) -> Option<Box<dyn Reviver>> {
        None
    }

    /// Makes everything applied so far survive a power cut, or does nothing when the machine holds nothing durable
    /// and is rebuilt from snapshot and log.
    fn checkpoint(&mut self) -> Result<(), Failure>;
}

/// Opens a machine anew that failed (its disk was full, say) and was dropped.
pub trait Reviver: Send {
    /// The machine as its disk has it, which may be less far than it was: [`StateMachine::load_notes`] tells, and the engine gives
    /// it again what it lacks. Whoever reads sees nothing before it is as far as it was. Fails as opening it does.
    fn revive(&mut self) -> Result<Box<dyn StateMachine>, Failure>;
}
