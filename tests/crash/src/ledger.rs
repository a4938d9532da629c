//! What was acknowledged, and whether a state has it.
//!
//! Each client writes to [`SLOTS`] keys of its own in turn, with a number that grows by one a write, one write at a time. So of
//! every client the last writes are checked one by one, and the state stays small. A state holds what it must when
//! each key has a value between the last acknowledged one and the last attempted one.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::rng::Rng;

/// Keys of one client.
pub const SLOTS: u64 = 48;
/// What every key begins with.
pub const PREFIX: &str = "w/";

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    acknowledged: u64,
    attempted: u64,
}

#[derive(Default)]
struct Inner {
    keys: BTreeMap<String, Known>,
    next: BTreeMap<u64, u64>,
    cut: bool,
    acknowledged: u64,
}

/// The writes of all clients of one cluster.
#[derive(Default)]
pub struct Ledger(Mutex<Inner>);

/// A write to be made.
#[derive(Clone, Debug)]
pub struct Write {
    /// Its key.
    pub key: String,
    /// Its number, unique for the client.
    pub number: u64,
    /// Its value.
    pub value: String,
}

impl Ledger {
    /// The next write of `client`, noted as attempted, its value of `bytes` bytes of filler.
    pub fn attempt(&self, client: u64, bytes: u64) -> Write {
        let mut inner = self.0.lock();
        let next = inner.next.entry(client).or_insert(0);
        *next += 1;
        let number = *next;
        let key = format!("{PREFIX}{client:03}/{:02}", number % SLOTS);
        inner.keys.entry(key.clone()).or_default().attempted = number;
        drop(inner);
        let value = value(&key, number, bytes);
        Write { key, number, value }
    }

    /// Notes that `write` was acknowledged; after [`Ledger::cut`] it no longer counts.
    pub fn acknowledge(&self, write: &Write) {
        let mut inner = self.0.lock();
        if !inner.cut {
            inner.acknowledged += 1;
            let known = inner.keys.entry(write.key.clone()).or_default();
            known.acknowledged = known.acknowledged.max(write.number);
        }
    }

    /// From now on acknowledgements do not count: a sync that races a power cut may succeed falsely.
    pub fn cut(&self) {
        self.0.lock().cut = true;
    }

    /// Acknowledgements count again.
    pub fn resume(&self) {
        self.0.lock().cut = false;
    }

    /// Acknowledged writes so far.
    pub fn acknowledged(&self) -> u64 {
        self.0.lock().acknowledged
    }

    /// Checks a state that a linearizable read gave: what is wrong with it, in sentences, and how many keys were
    /// checked. What it holds must stay from now on, acknowledged or not.
    pub fn check(&self, entries: &[(String, String)]) -> (u64, Vec<String>) {
        let found: BTreeMap<&str, &str> = entries.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let mut wrong = Vec::new();
        let mut inner = self.0.lock();
        for (key, known) in &mut inner.keys {
            match judge(key, *known, found.get(key.as_str()).copied()) {
                Ok(number) => known.acknowledged = known.acknowledged.max(number),
                Err(sentence) => wrong.push(sentence),
            }
        }
        let invented = found.keys().filter(|key| !inner.keys.contains_key(**key));
        wrong.extend(invented.map(|key| format!("{key} is there and was never written.")));
        (inner.keys.len() as u64, wrong)
    }
}

fn judge(key: &str, known: Known, found: Option<&str>) -> Result<u64, String> {
    let Known { acknowledged, attempted } = known;
    let Some(found) = found else {
        let lost = format!("{key}: write {acknowledged} was acknowledged, and the key is absent.");
        return if acknowledged == 0 { Ok(0) } else { Err(lost) };
    };
    let Some(number) = whole(key, found) else {
        return Err(format!("{key} has a value that nobody wrote: {:.60}", found));
    };
    if number < acknowledged {
        return Err(format!("{key}: write {acknowledged} was acknowledged, and the key has write {number}."));
    }
    if number > attempted {
        return Err(format!("{key}: write {attempted} was the last, and the key has write {number}."));
    }
    Ok(number)
}

/// The value of write `number` to `key`: the number, the length, and filler that depends on both.
pub fn value(key: &str, number: u64, bytes: u64) -> String {
    let seed = key.bytes().fold(number, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    let mut rng = Rng::new(seed);
    let mut value = format!("{number}.{bytes}.");
    for _ in 0..bytes / 16 {
        value.push_str(&format!("{:016x}", rng.next_u64()));
    }
    value
}

/// The number of the write that made `found`; `None` when no write to `key` did.
pub fn whole(key: &str, found: &str) -> Option<u64> {
    let mut parts = found.splitn(3, '.');
    let (number, bytes) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    (bytes <= found.len() as u64 + 16 && value(key, number, bytes) == found).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(writes: &[&Write]) -> Vec<(String, String)> {
        writes.iter().map(|write| (write.key.clone(), write.value.clone())).collect()
    }

    #[test]
    fn a_state_with_everything_acknowledged_is_right_and_any_other_is_not() {
        let ledger = Ledger::default();
        let writes: Vec<Write> = (0..3).map(|_| ledger.attempt(1, 64)).collect();
        ledger.acknowledge(&writes[0]);
        ledger.acknowledge(&writes[1]);
        assert_eq!(ledger.check(&written(&[&writes[0], &writes[1]])).1, Vec::<String>::new());
        assert_eq!(ledger.check(&written(&[&writes[0]])).1.len(), 1, "a lost write");
        let mut broken = written(&[&writes[0], &writes[1]]);
        broken[1].1.replace_range(10..11, "~");
        assert!(ledger.check(&broken).1[0].contains("nobody wrote"));
        let alien = ("w/999/01".to_string(), "1.0.".to_string());
        let mut more = written(&[&writes[0], &writes[1]]);
        more.push(alien);
        assert!(ledger.check(&more).1[0].contains("never written"));
    }

    #[test]
    fn an_older_value_under_an_acknowledged_one_is_a_loss_and_a_seen_one_must_stay() {
        let ledger = Ledger::default();
        let first = ledger.attempt(1, 16);
        (1..SLOTS).for_each(|_| drop(ledger.attempt(1, 0)));
        let second = ledger.attempt(1, 16);
        assert_eq!(first.key, second.key);
        ledger.acknowledge(&first);
        ledger.cut();
        ledger.acknowledge(&second);
        ledger.resume();
        assert_eq!(ledger.acknowledged(), 1, "after the cut it does not count");
        assert!(ledger.check(&written(&[&first])).1.is_empty());
        assert!(ledger.check(&written(&[&second])).1.is_empty());
        assert!(ledger.check(&written(&[&first])).1[0].contains("has write 1"), "it was read already");
    }
}
