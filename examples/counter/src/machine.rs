//! The state machine: a number that commands add to.
//!
//! It holds nothing durable. At start the engine gives it the newest snapshot and then the log after it, so it needs no
//! file of its own; [`StateMachine::checkpoint`] has nothing to do.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use quorate_engine::Failure;
use quorate_engine::machine::{Applied, Committed, Frozen, Note, Outcome, StateMachine};

/// The command "add `amount`", as it travels and is logged. What the bytes mean is the machine's own affair.
pub fn add(amount: i64) -> Bytes {
    Bytes::copy_from_slice(&amount.to_le_bytes())
}

/// Reads the outcome of [`add`]: the count after it. Fails with `Internal` when these bytes are none.
pub fn count_of(outcome: &[u8]) -> Result<i64, Failure> {
    number(outcome).ok_or_else(|| Failure::internal("A count must have eight bytes."))
}

fn number(bytes: &[u8]) -> Option<i64> {
    Some(i64::from_le_bytes(bytes.try_into().ok()?))
}

/// The replicated counter. Whoever holds the other end of the `Arc` reads what this node has applied.
pub struct Counter(pub Arc<AtomicI64>);

impl Counter {
    fn apply_one(&self, command: &Committed) -> Outcome {
        // A refusal is an outcome too: it must be the same on every node, so it may depend on the command and state only.
        let amount = number(&command.body).ok_or_else(|| Failure::invalid("A command must have eight bytes."))?;
        let count = self.0.load(Ordering::SeqCst).checked_add(amount);
        let count = count.ok_or_else(|| Failure::invalid("The counter would overflow."))?;
        self.0.store(count, Ordering::SeqCst);
        Ok(Bytes::copy_from_slice(&count.to_le_bytes()))
    }
}

impl StateMachine for Counter {
    fn load_notes(&mut self) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Failure> {
        Ok(Vec::new())
    }

    fn apply(&mut self, commands: &[Committed], _notes: &[Note]) -> Result<Applied, Failure> {
        Ok(Applied::Now(commands.iter().map(|command| self.apply_one(command)).collect()))
    }

    fn freeze(&mut self) -> Result<Box<dyn Frozen>, Failure> {
        Ok(Box::new(View(self.0.load(Ordering::SeqCst))))
    }

    fn install(
        &mut self,
        _index: u64,
        payload: &mut dyn io::Read,
        _notes: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<(), Failure> {
        let mut count = [0; 8];
        payload.read_exact(&mut count).map_err(|error| Failure::io("Reading the count from a snapshot", &error))?;
        self.0.store(i64::from_le_bytes(count), Ordering::SeqCst);
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

/// The count at the moment of a snapshot; it is written out while the counter goes on.
struct View(i64);

impl Frozen for View {
    fn write_to(self: Box<Self>, out: &mut dyn io::Write) -> Result<(), Failure> {
        out.write_all(&self.0.to_le_bytes()).map_err(|error| Failure::io("Writing the count to a snapshot", &error))
    }
}
