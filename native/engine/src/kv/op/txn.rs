//! Commands (transactions of guards and writes) and their outcomes.

use bytes::{BufMut, Bytes};

use super::{check_key, flag, malformed};
use crate::codec::{Reader, put_bytes};
use crate::error::Failure;

const VERSION: u8 = 1;
const NO_GUARD: u16 = u16::MAX;

/// What a guard asks of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The key is there.
    Exists,
    /// The key is not there.
    Absent,
    /// The key is there with exactly this value.
    Value(Bytes),
    /// The key was last changed at this revision.
    ModRevision(u64),
    /// The key was created at this revision.
    CreateRevision(u64),
}

/// A condition on one key, tested before any write of the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The key.
    pub key: Bytes,
    /// What must hold.
    pub condition: Condition,
}

/// One change that a command makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Sets the key.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
    },
    /// Removes the key, if it is there.
    Delete {
        /// The key.
        key: Bytes,
    },
}

/// A command: when every guard holds `writes` take effect, otherwise `else_writes`; all or nothing, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// The conditions.
    pub guards: Vec<Guard>,
    /// What happens when all guards hold.
    pub writes: Vec<Write>,
    /// What happens when one does not.
    pub else_writes: Vec<Write>,
}

/// An entry as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Revision that created it (anew, after a delete).
    pub create: u64,
    /// Revision that last changed it.
    pub modified: u64,
    /// The value.
    pub value: Bytes,
}

/// The guard that decided for the else branch, and what it found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedGuard {
    /// Its position among the guards, from 0.
    pub index: u16,
    /// The key's entry at that moment; `None` when it was absent.
    pub found: Option<Entry>,
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnOutcome {
    /// The command's revision.
    pub revision: u64,
    /// The first guard that did not hold; `None` when all did, and `writes` were executed.
    pub failed: Option<FailedGuard>,
    /// One a write executed: whether its key was there before.
    pub results: Vec<bool>,
}

impl Guard {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        check_key(&self.key)?;
        put_bytes(out, &self.key);
        match &self.condition {
            Condition::Exists => out.put_u8(1),
            Condition::Absent => out.put_u8(2),
            Condition::Value(value) => {
                out.put_u8(3);
                put_bytes(out, value);
            }
            Condition::ModRevision(revision) => {
                out.put_u8(4);
                out.put_u64_le(*revision);
            }
            Condition::CreateRevision(revision) => {
                out.put_u8(5);
                out.put_u64_le(*revision);
            }
        }
        Ok(())
    }

    fn decode(reader: &mut Reader) -> Result<Guard, Failure> {
        let key = reader.bytes()?;
        check_key(&key)?;
        let condition = match reader.u8()? {
            1 => Condition::Exists,
            2 => Condition::Absent,
            3 => Condition::Value(reader.bytes()?),
            4 => Condition::ModRevision(reader.u64()?),
            5 => Condition::CreateRevision(reader.u64()?),
            other => return Err(Failure::invalid(format!("there is no guard {other}."))),
        };
        Ok(Guard { key, condition })
    }
}

impl Write {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        match self {
            Write::Put { key, value } => {
                check_key(key)?;
                out.put_u8(1);
                put_bytes(out, key);
                put_bytes(out, value);
            }
            Write::Delete { key } => {
                check_key(key)?;
                out.put_u8(2);
                put_bytes(out, key);
            }
        }
        Ok(())
    }

    fn decode(reader: &mut Reader) -> Result<Write, Failure> {
        let kind = reader.u8()?;
        let key = reader.bytes()?;
        check_key(&key)?;
        match kind {
            1 => Ok(Write::Put { key, value: reader.bytes()? }),
            2 => Ok(Write::Delete { key }),
            other => Err(Failure::invalid(format!("there is no write {other}."))),
        }
    }
}

impl Txn {
    /// An unconditional put.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Txn {
        let write = Write::Put { key: key.into(), value: value.into() };
        Txn { writes: vec![write], ..Txn::default() }
    }

    /// An unconditional delete.
    pub fn delete(key: impl Into<Bytes>) -> Txn {
        Txn { writes: vec![Write::Delete { key: key.into() }], ..Txn::default() }
    }

    /// A put that takes effect only when `condition` holds for the same key: compare-and-set.
    pub fn put_if(key: impl Into<Bytes>, condition: Condition, value: impl Into<Bytes>) -> Txn {
        let key = key.into();
        Txn { guards: vec![Guard { key: key.clone(), condition }], ..Txn::put(key, value) }
    }

    /// The command's bytes. Fails with `Invalid` when a key is empty or too long, or when there are more than 65,535
    /// guards or writes.
    pub fn encode(&self) -> Result<Vec<u8>, Failure> {
        let mut out = vec![VERSION];
        put_list(&mut out, &self.guards, Guard::encode)?;
        put_list(&mut out, &self.writes, Write::encode)?;
        put_list(&mut out, &self.else_writes, Write::encode)?;
        Ok(out)
    }

    /// Takes a command's bytes apart; keys and values share their memory. Fails with `Invalid` on anything malformed.
    pub fn decode(command: Bytes) -> Result<Txn, Failure> {
        decode_txn(Reader::new(command)).map_err(|reason| malformed("command", &reason))
    }
}

fn decode_txn(mut reader: Reader) -> Result<Txn, Failure> {
    let version = reader.u8()?;
    if version != VERSION {
        return Err(Failure::invalid(format!("there is no command format {version}.")));
    }
    let guards = take_list(&mut reader, Guard::decode)?;
    let writes = take_list(&mut reader, Write::decode)?;
    let else_writes = take_list(&mut reader, Write::decode)?;
    reader.end()?;
    Ok(Txn { guards, writes, else_writes })
}

fn put_list<T>(
    out: &mut Vec<u8>,
    items: &[T],
    put: impl Fn(&T, &mut Vec<u8>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let count = u16::try_from(items.len())
        .map_err(|_| Failure::invalid(format!("{} guards or writes in one command; at most 65535.", items.len())))?;
    out.put_u16_le(count);
    items.iter().try_for_each(|item| put(item, out))
}

fn take_list<T>(reader: &mut Reader, take: impl Fn(&mut Reader) -> Result<T, Failure>) -> Result<Vec<T>, Failure> {
    // No item is shorter than five bytes, so a mere claim does not allocate.
    let count = reader.u16()? as usize;
    let mut items = Vec::with_capacity(count.min(reader.remaining() / 5));
    for _ in 0..count {
        items.push(take(reader)?);
    }
    Ok(items)
}

impl Entry {
    pub(super) fn encode_found(found: Option<&Entry>, out: &mut Vec<u8>) {
        out.put_u8(found.is_some().into());
        if let Some(entry) = found {
            out.put_u64_le(entry.create);
            out.put_u64_le(entry.modified);
            put_bytes(out, &entry.value);
        }
    }

    pub(super) fn decode_found(reader: &mut Reader) -> Result<Option<Entry>, Failure> {
        if !flag(reader.u8()?)? {
            return Ok(None);
        }
        Ok(Some(Entry { create: reader.u64()?, modified: reader.u64()?, value: reader.bytes()? }))
    }
}

impl TxnOutcome {
    /// True when every guard held.
    pub fn succeeded(&self) -> bool {
        self.failed.is_none()
    }

    /// The outcome's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let found = self.failed.as_ref().and_then(|failed| failed.found.as_ref());
        let mut out = Vec::with_capacity(32 + self.results.len() * 2 + found.map_or(0, |entry| entry.value.len()));
        out.put_u8(self.succeeded().into());
        out.put_u64_le(self.revision);
        out.put_u16_le(self.failed.as_ref().map_or(NO_GUARD, |failed| failed.index));
        if self.failed.is_some() {
            Entry::encode_found(found, &mut out);
        }
        out.put_u16_le(self.results.len() as u16);
        self.results.iter().for_each(|existed| out.put_slice(&[1, (*existed).into()]));
        out
    }

    /// Takes an outcome's bytes apart. Fails with `Invalid` on anything malformed.
    pub fn decode(outcome: Bytes) -> Result<TxnOutcome, Failure> {
        decode_outcome(Reader::new(outcome)).map_err(|reason| malformed("outcome", &reason))
    }
}

fn decode_outcome(mut reader: Reader) -> Result<TxnOutcome, Failure> {
    let succeeded = flag(reader.u8()?)?;
    let (revision, index) = (reader.u64()?, reader.u16()?);
    if succeeded != (index == NO_GUARD) {
        return Err(Failure::invalid("success and a failed guard contradict each other."));
    }
    let failed = match succeeded {
        true => None,
        false => Some(FailedGuard { index, found: Entry::decode_found(&mut reader)? }),
    };
    let results = take_list(&mut reader, |reader| match reader.u8()? {
        1 => flag(reader.u8()?),
        other => Err(Failure::invalid(format!("there is no result {other}."))),
    })?;
    reader.end()?;
    Ok(TxnOutcome { revision, failed, results })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::limits::KEY_BYTES_MAX;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn everything() -> Txn {
        let guard = |condition| Guard { key: bytes("guarded"), condition };
        Txn {
            guards: vec![
                guard(Condition::Exists),
                guard(Condition::Absent),
                guard(Condition::Value(bytes("v"))),
                guard(Condition::ModRevision(4)),
                guard(Condition::CreateRevision(5)),
            ],
            writes: vec![Write::Put { key: bytes("a"), value: bytes("") }, Write::Delete { key: bytes("b") }],
            else_writes: vec![Write::Put { key: bytes("c"), value: Bytes::from(vec![0xff; 300]) }],
        }
    }

    #[test]
    fn commands_and_outcomes_come_back_as_they_went() {
        assert_eq!(Txn::decode(everything().encode().unwrap().into()).unwrap(), everything());
        let found = Some(Entry { create: 1, modified: 2, value: bytes("value") });
        for failed in [None, Some(FailedGuard { index: 3, found }), Some(FailedGuard { index: 0, found: None })] {
            let outcome = TxnOutcome { revision: 9, failed, results: vec![true, false] };
            assert_eq!(TxnOutcome::decode(outcome.encode().into()).unwrap(), outcome);
        }
    }

    #[test]
    fn the_bytes_of_a_put_are_those_of_the_contract() {
        let put = Txn::put(bytes("k"), bytes("vv")).encode().unwrap();
        assert_eq!(put, b"\x01\0\0\x01\0\x01\x01\0\0\0k\x02\0\0\0vv\0\0");
        let outcome = TxnOutcome { revision: 7, failed: None, results: vec![true] };
        assert_eq!(outcome.encode(), b"\x01\x07\0\0\0\0\0\0\0\xff\xff\x01\0\x01\x01");
    }

    #[test]
    fn every_truncation_and_every_surplus_is_invalid() {
        let mut whole = everything().encode().unwrap();
        for len in 0..whole.len() {
            let cut = Txn::decode(Bytes::copy_from_slice(&whole[..len]));
            assert_eq!(cut.unwrap_err().code, Code::Invalid, "cut at {len}");
        }
        whole.push(0);
        assert_eq!(Txn::decode(whole.into()).unwrap_err().code, Code::Invalid);
    }

    #[test]
    fn keys_have_bounds() {
        assert!(Txn::put(bytes(""), bytes("v")).encode().is_err());
        assert!(Txn::put(vec![0; KEY_BYTES_MAX], bytes("v")).encode().is_ok());
        assert!(Txn::put(vec![0; KEY_BYTES_MAX + 1], bytes("v")).encode().is_err());
    }
}
