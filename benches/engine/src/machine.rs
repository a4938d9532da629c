//! The cheapest state machine: it counts. What is measured with it is the engine.

use std::io;

use bytes::Bytes;
use quorate_engine::Failure;
use quorate_engine::machine::{Applied, Committed, Frozen, Note, StateMachine};

/// Counts commands, whatever their bytes; each gets an empty outcome. Rebuilt from snapshot and log at start.
#[derive(Default)]
pub struct Counter(u64);

impl StateMachine for Counter {
    fn load_notes(&mut self) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Failure> {
        Ok(Vec::new())
    }

    fn apply(&mut self, commands: &[Committed], _notes: &[Note]) -> Result<Applied, Failure> {
        self.0 += commands.len() as u64;
        Ok(Applied::Now(commands.iter().map(|_| Ok(Bytes::new())).collect()))
    }

    fn freeze(&mut self) -> Result<Box<dyn Frozen>, Failure> {
        Ok(Box::new(View(self.0)))
    }

    fn install(
        &mut self,
        _index: u64,
        payload: &mut dyn io::Read,
        _notes: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<(), Failure> {
        let mut count = [0; 8];
        payload.read_exact(&mut count).map_err(|error| Failure::io("Reading the count from a snapshot", &error))?;
        self.0 = u64::from_le_bytes(count);
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

struct View(u64);

impl Frozen for View {
    fn write_to(self: Box<Self>, out: &mut dyn io::Write) -> Result<(), Failure> {
        out.write_all(&self.0.to_le_bytes()).map_err(|error| Failure::io("Writing the count to a snapshot", &error))
    }
}
