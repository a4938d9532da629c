//! The state machine of most runs: registers and lists in memory, rebuilt from snapshot and log after a crash. What it applies
//! it reports to the judge.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_engine::machine::{Applied, Committed, Frozen, Note, Notes, StateMachine};
use quorate_engine::{Code, Failure};

use crate::command::{Answer, Ask, Deed, hash};
use crate::invariants::same_everywhere::Step;
use crate::world::Shared;

/// Registers and lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// The last command applied.
    pub index: u64,
    values: BTreeMap<u32, u32>,
    lists: BTreeMap<u32, Vec<u32>>,
    /// Of the whole state: the sum of the hashes of its parts.
    hash: u64,
}

fn part(kind: u8, key: u32, place: u32, value: u32) -> u64 {
    let mut bytes = [kind; 13];
    bytes[1..5].copy_from_slice(&key.to_le_bytes());
    bytes[5..9].copy_from_slice(&place.to_le_bytes());
    bytes[9..].copy_from_slice(&value.to_le_bytes());
    hash(&bytes)
}

impl Registers {
    /// What a register holds; 0 for nothing.
    pub fn get(&self, key: u32) -> u32 {
        self.values.get(&key).copied().unwrap_or(0)
    }

    /// What a list holds.
    pub fn list(&self, key: u32) -> Vec<u32> {
        self.lists.get(&key).cloned().unwrap_or_default()
    }

    /// Hash of the whole state.
    pub fn state(&self) -> u64 {
        self.hash
    }

    fn put(&mut self, key: u32, value: u32) {
        if let Some(old) = self.values.insert(key, value) {
            self.hash = self.hash.wrapping_sub(part(0, key, 0, old));
        }
        self.hash = self.hash.wrapping_add(part(0, key, 0, value));
    }

    fn append(&mut self, key: u32, value: u32) {
        let list = self.lists.entry(key).or_default();
        list.push(value);
        self.hash = self.hash.wrapping_add(part(1, key, list.len() as u32, value));
    }

    /// Does `deed`; false when a comparison failed.
    pub fn act(&mut self, deed: Deed) -> bool {
        match deed {
            Deed::Put { key, value } => self.put(key, value),
            Deed::Cas { key, expected, value } if self.get(key) == expected => self.put(key, value),
            Deed::Cas { .. } => return false,
            Deed::Append { key, value } => self.append(key, value),
        }
        true
    }

    /// Writes all of it to `out`. Fails as `out` does.
    pub fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.index.to_le_bytes())?;
        out.write_all(&(self.values.len() as u32).to_le_bytes())?;
        for (key, value) in &self.values {
            out.write_all(&key.to_le_bytes())?;
            out.write_all(&value.to_le_bytes())?;
        }
        out.write_all(&(self.lists.len() as u32).to_le_bytes())?;
        for (key, list) in &self.lists {
            out.write_all(&key.to_le_bytes())?;
            out.write_all(&(list.len() as u32).to_le_bytes())?;
            list.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))?;
        }
        Ok(())
    }

    /// What [`Registers::write_to`] wrote. Fails as `input` does, and when that ends too early.
    pub fn read_from(input: &mut dyn Read) -> io::Result<Registers> {
        let mut index = [0; 8];
        input.read_exact(&mut index)?;
        let mut number = || {
            let mut bytes = [0; 4];
            input.read_exact(&mut bytes).map(|()| u32::from_le_bytes(bytes))
        };
        let mut registers = Registers { index: u64::from_le_bytes(index), ..Registers::default() };
        for _ in 0..number()? {
            registers.put(number()?, number()?);
        }
        for _ in 0..number()? {
            let key = number()?;
            for _ in 0..number()? {
                registers.append(key, number()?);
            }
        }
        Ok(registers)
    }
}

/// The machine of one life of one node.
pub struct RegisterMachine {
    node: usize,
    registers: Arc<Mutex<Registers>>,
    shared: Shared,
    broken: Arc<AtomicBool>,
}

impl RegisterMachine {
    /// An empty machine of `node`. As long as `broken` is true, it fails.
    pub fn new(node: usize, shared: Shared, broken: Arc<AtomicBool>) -> (RegisterMachine, Arc<Mutex<Registers>>) {
        let registers = Arc::new(Mutex::new(Registers::default()));
        (RegisterMachine { node, registers: registers.clone(), shared, broken }, registers)
    }

    fn check(&self) -> Result<(), Failure> {
        match self.broken.load(Ordering::Relaxed) {
            true => Err(Failure::new(Code::Io, "The machine fails on purpose.")),
            false => Ok(()),
        }
    }

    fn apply_one(&self, registers: &mut Registers, command: &Committed) -> Result<Bytes, Failure> {
        let ask = Ask::decode(&command.body)?;
        let done = registers.act(ask.deed);
        self.shared.order(self.node, registers.index, command.index);
        registers.index = command.index;
        let context = [command.term, command.time_ms, command.seed].map(u64::to_le_bytes).concat();
        let step = Step { id: command.id, body: hash(&command.body), context: hash(&context), state: registers.hash };
        self.shared.applied(self.node, command.index, step);
        Ok(Answer { index: command.index, id: ask.id, done }.encode())
    }
}

impl StateMachine for RegisterMachine {
    fn load_notes(&mut self) -> Result<Notes, Failure> {
        Ok(Notes::new())
    }

    fn apply(&mut self, commands: &[Committed], _: &[Note]) -> Result<Applied, Failure> {
        self.check()?;
        let mut registers = self.registers.lock();
        let outcomes = commands.iter().map(|command| self.apply_one(&mut registers, command)).collect();
        Ok(Applied::Now(outcomes))
    }

    fn freeze(&mut self) -> Result<Box<dyn Frozen>, Failure> {
        self.check()?;
        Ok(Box::new(FrozenRegisters(self.registers.lock().clone())))
    }

    fn install(&mut self, index: u64, payload: &mut dyn Read, _: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Failure> {
        self.check()?;
        let registers =
            Registers::read_from(payload).map_err(|error| Failure::io("Reading a snapshot's payload", &error))?;
        let before = self.registers.lock().index;
        self.shared.installed(self.node, before, index, &registers);
        *self.registers.lock() = registers;
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

struct FrozenRegisters(Registers);

impl Frozen for FrozenRegisters {
    fn write_to(self: Box<Self>, out: &mut dyn Write) -> Result<(), Failure> {
        self.0.write_to(out).map_err(|error| Failure::io("Writing a snapshot's payload", &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_of_the_state_and_not_of_the_way_to_it() {
        let deeds = |deeds: &[Deed]| {
            let mut registers = Registers::default();
            let done: Vec<bool> = deeds.iter().map(|deed| registers.act(*deed)).collect();
            (registers, done)
        };
        let (one, done) = deeds(&[
            Deed::Put { key: 1, value: 5 },
            Deed::Cas { key: 1, expected: 5, value: 6 },
            Deed::Cas { key: 1, expected: 5, value: 7 },
            Deed::Append { key: 2, value: 8 },
        ]);
        assert_eq!(done, [true, true, false, true]);
        let (other, _) = deeds(&[Deed::Append { key: 2, value: 8 }, Deed::Put { key: 1, value: 6 }]);
        assert_eq!((one.get(1), one.list(2), one.state()), (6, vec![8], other.state()));
        let (differs, _) = deeds(&[Deed::Append { key: 2, value: 8 }, Deed::Put { key: 1, value: 7 }]);
        assert_ne!(one.state(), differs.state());
        let mut bytes = Vec::new();
        one.write_to(&mut bytes).unwrap();
        assert_eq!(Registers::read_from(&mut &bytes[..]).unwrap(), one);
        assert!(Registers::read_from(&mut &bytes[..9]).is_err());
    }
}
