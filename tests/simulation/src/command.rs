//! What clients ask of the registers machine, and its answers.
//!
//! ```text
//! command := id u64 · kind u8 · key u32 · value u32 · expected u32 · padding
//! answer  := index u64 · id u64 · done u8
//! ```

use quorate_engine::codec::Reader;
use quorate_engine::{Code, Failure};

use bytes::Bytes;

/// What a command does to the register or list `key`; `value` is written or appended.
#[allow(missing_docs)] // the fields are told of above
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Writes a register.
    Put { key: u32, value: u32 },
    /// Writes a register if it holds `expected` (0: nothing).
    Cas { key: u32, expected: u32, value: u32 },
    /// Appends to a list.
    Append { key: u32, value: u32 },
}

impl Deed {
    /// The register or list that it is about.
    pub fn key(&self) -> u32 {
        match self {
            Deed::Put { key, .. } | Deed::Cas { key, .. } | Deed::Append { key, .. } => *key,
        }
    }
}

/// A command: its number, which no other has, and its deed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Unique in a run.
    pub id: u64,
    /// What to do.
    pub deed: Deed,
}

impl Ask {
    /// As bytes, `padding` longer than need be.
    pub fn encode(&self, padding: usize) -> Bytes {
        let (kind, key, value, expected) = match self.deed {
            Deed::Put { key, value } => (0u8, key, value, 0),
            Deed::Cas { key, expected, value } => (1, key, value, expected),
            Deed::Append { key, value } => (2, key, value, 0),
        };
        let mut out = Vec::with_capacity(21 + padding);
        out.extend(self.id.to_le_bytes());
        out.push(kind);
        [key, value, expected].into_iter().for_each(|number| out.extend(number.to_le_bytes()));
        out.resize(21 + padding, kind);
        Bytes::from(out)
    }

    /// Back from bytes. Fails with `Corrupt`.
    pub fn decode(body: &Bytes) -> Result<Ask, Failure> {
        let mut reader = Reader::new(body.clone());
        let (id, kind) = (reader.u64()?, reader.u8()?);
        let (key, value, expected) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let deed = match kind {
            0 => Deed::Put { key, value },
            1 => Deed::Cas { key, expected, value },
            2 => Deed::Append { key, value },
            _ => return Err(Failure::new(Code::Corrupt, "an unknown command")),
        };
        Ok(Ask { id, deed })
    }
}

/// The answer to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Where it took effect.
    pub index: u64,
    /// Which command this answers.
    pub id: u64,
    /// False when a comparison failed.
    pub done: bool,
}

impl Answer {
    /// As bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(17);
        out.extend(self.index.to_le_bytes());
        out.extend(self.id.to_le_bytes());
        out.push(self.done.into());
        Bytes::from(out)
    }

    /// Back from bytes. Fails with `Corrupt`.
    pub fn decode(bytes: &Bytes) -> Result<Answer, Failure> {
        let mut reader = Reader::new(bytes.clone());
        Ok(Answer { index: reader.u64()?, id: reader.u64()?, done: reader.u8()? != 0 })
    }
}

/// A hash that is the same in every process (FNV-1a with a final mix).
pub fn hash(bytes: &[u8]) -> u64 {
    let folded = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    (folded ^ (folded >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_answers_come_back_as_they_went() {
        let deeds = [
            Deed::Put { key: 1, value: 2 },
            Deed::Cas { key: 1, expected: 3, value: 4 },
            Deed::Append { key: 9, value: 5 },
        ];
        for deed in deeds {
            let ask = Ask { id: 77, deed };
            assert_eq!(Ask::decode(&ask.encode(100)), Ok(ask));
            assert_eq!(ask.encode(100).len(), 121);
            assert_eq!(deed.key(), ask.deed.key());
        }
        assert!(Ask::decode(&Bytes::from_static(b"short")).is_err());
        let answer = Answer { index: 5, id: 6, done: true };
        assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
        assert_ne!(hash(b"a"), hash(b"b"));
    }
}
