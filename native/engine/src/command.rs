//! Commands and the batches of them that Raft entries carry.
//!
//! A batch is what was queued while its predecessor was being proposed (natural batching, as Aeron Cluster does it):
//! one command alone when there is one. It is encoded once, and the same shared bytes go to the log, to every follower
//! and to the state machine.
//!
//! ```text
//! batch   := time_ms u64 · seed u64 · count u32 · command*
//! command := node u64 · incarnation u64 · sequence u64 · low_water u64 · body (u32 length, bytes)
//! ```

use std::fmt;

use bytes::{BufMut, Bytes};
use serde::{Deserialize, Serialize};

use crate::codec::{Reader, put_bytes};
use crate::error::Failure;

/// Identifies one submission for ever: which node took it, in which of its lives, and the how-manieth it was.
/// The id rides in the log, so a repetition of it is recognised by every replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CommandId {
    /// Raft id of the node that took the submission.
    pub node: u64,
    /// Which start of that node: grows with every start, kept in its data directory.
    pub incarnation: u64,
    /// Counts the node's submissions in this incarnation, from 1.
    pub sequence: u64,
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{}.{}", self.node, self.incarnation, self.sequence)
    }
}

/// One command as it travels and as it is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its identity, see [`CommandId`].
    pub id: CommandId,
    /// The lowest sequence number of the same incarnation whose outcome its node still waits for. What lies
    /// below is settled there, so replicas may forget it and discard late repetitions.
    pub low_water: u64,
    /// The caller's own bytes, never looked into by consensus.
    pub body: Bytes,
}

/// A batch of commands in its encoded form. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch(pub Bytes);

/// A batch taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Wall-clock time of the leader when it made the batch, in milliseconds since 1970.
    pub time_ms: u64,
    /// A random number that the leader drew for the batch, so that machines can be random and yet equal.
    pub seed: u64,
    /// The commands in log order.
    pub commands: Vec<Command>,
}

const BATCH_HEADER_BYTES: usize = 8 + 8 + 4;
const COMMAND_HEADER_BYTES: usize = 8 * 4 + 4;

impl Command {
    fn decode(reader: &mut Reader) -> Result<Command, Failure> {
        let id = CommandId { node: reader.u64()?, incarnation: reader.u64()?, sequence: reader.u64()? };
        Ok(Command { id, low_water: reader.u64()?, body: reader.bytes()? })
    }
}

/// A batch being put together: commands are written where they will stay, so that none is copied or shared before.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    encoded: Vec<u8>,
    count: u32,
    body_bytes: usize,
}

impl BatchBuilder {
    /// Makes room for `count` more commands with bodies of `body_bytes` bytes in all.
    pub fn reserve(&mut self, count: usize, body_bytes: usize) {
        let header = if self.encoded.is_empty() { BATCH_HEADER_BYTES } else { 0 };
        self.encoded.reserve_exact(header + count * COMMAND_HEADER_BYTES + body_bytes);
    }

    /// Adds a command.
    pub fn push(&mut self, id: &CommandId, low_water: u64, body: &[u8]) {
        if self.encoded.is_empty() {
            self.encoded.put_bytes(0, BATCH_HEADER_BYTES);
        }
        self.encoded.put_u64_le(id.node);
        self.encoded.put_u64_le(id.incarnation);
        self.encoded.put_u64_le(id.sequence);
        self.encoded.put_u64_le(low_water);
        put_bytes(&mut self.encoded, body);
        self.count += 1;
        self.body_bytes += body.len();
    }

    /// Commands that are in it.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of their bodies.
    pub fn body_bytes(&self) -> usize {
        self.body_bytes
    }

    /// The batch, with the leader's `time_ms` and `seed`.
    pub fn finish(mut self, time_ms: u64, seed: u64) -> Batch {
        self.encoded.resize(self.encoded.len().max(BATCH_HEADER_BYTES), 0);
        let mut header = &mut self.encoded[..BATCH_HEADER_BYTES];
        header.put_u64_le(time_ms);
        header.put_u64_le(seed);
        header.put_u32_le(self.count);
        Batch(Bytes::from(self.encoded))
    }
}

impl Batch {
    /// Encodes `commands` with the leader's `time_ms` and `seed`.
    pub fn encode(time_ms: u64, seed: u64, commands: &[Command]) -> Batch {
        let mut batch = BatchBuilder::default();
        batch.reserve(commands.len(), commands.iter().map(|command| command.body.len()).sum());
        commands.iter().for_each(|command| batch.push(&command.id, command.low_water, &command.body));
        batch.finish(time_ms, seed)
    }

    /// Takes the batch apart; bodies share the batch's memory. Fails with `Corrupt` on anything malformed.
    pub fn decode(&self) -> Result<Decoded, Failure> {
        let mut reader = Reader::new(self.0.clone());
        let (time_ms, seed, count) = (reader.u64()?, reader.u64()?, reader.u32()? as usize);
        let mut commands = Vec::with_capacity(count.min(reader.remaining() / COMMAND_HEADER_BYTES));
        for _ in 0..count {
            commands.push(Command::decode(&mut reader)?);
        }
        reader.end()?;
        Ok(Decoded { time_ms, seed, commands })
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} bytes)", self.0.len())
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(sequence: u64, body: &'static [u8]) -> Command {
        Command { id: CommandId { node: 7, incarnation: 2, sequence }, low_water: 1, body: Bytes::from_static(body) }
    }

    #[test]
    fn a_batch_comes_back_as_it_went() {
        let commands = vec![command(1, b""), command(2, b"two"), command(3, &[0xff; 300])];
        let decoded = Batch::encode(11, 12, &commands).decode().unwrap();
        assert_eq!(decoded, Decoded { time_ms: 11, seed: 12, commands });
    }

    #[test]
    fn every_truncation_is_an_error_and_none_a_panic() {
        let whole = Batch::encode(1, 2, &[command(1, b"abc"), command(2, b"de")]);
        for len in 0..whole.0.len() {
            assert!(Batch(whole.0.slice(..len)).decode().is_err(), "cut at {len}");
        }
    }

    #[test]
    fn a_claimed_count_does_not_allocate() {
        let mut raw = Batch::encode(1, 2, &[]).0.to_vec();
        raw[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Batch(Bytes::from(raw)).decode().is_err());
    }
}
