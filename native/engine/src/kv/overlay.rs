//! The effects of one `apply` call before they are in sled: each command sees those before it.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;

use sled::{Batch, Db, IVec};

use super::history::Change;
use super::record::{DATA, Digest, Record, fingerprint};
use super::store::sled_failure;
use crate::error::Failure;

/// One key that a command looked at.
struct Slot {
    before: Option<IVec>,
    now: Option<IVec>,
    changed: bool,
}

/// A write-back layer over sled for the length of one `apply` call.
pub(super) struct Overlay<'a> {
    db: &'a Db,
    slots: HashMap<IVec, Slot>,
    changes: Vec<Change>,
    key_scratch: Vec<u8>,
    value_scratch: Vec<u8>,
}

/// What an `apply` call amounts to.
pub(super) struct Effects {
    /// For sled.
    pub batch: Batch,
    /// Each changed key (with its space byte) and what was stored there before.
    pub before: Vec<(IVec, Option<IVec>)>,
    /// Every change in order, for watches.
    pub changes: Vec<Change>,
}

impl<'a> Overlay<'a> {
    pub fn new(db: &'a Db, commands: usize) -> Overlay<'a> {
        let (slots, changes) = (HashMap::with_capacity(commands), Vec::with_capacity(commands));
        Overlay { db, slots, changes, key_scratch: Vec::new(), value_scratch: Vec::new() }
    }

    /// The stored entry of a user's key, as the commands so far have left it.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<IVec>, Failure> {
        Ok(self.slot(key)?.1.now.clone())
    }

    /// Sets a key; returns whether it was there.
    pub fn put(&mut self, key: &[u8], value: &[u8], revision: u64) -> Result<bool, Failure> {
        let mut scratch = std::mem::take(&mut self.value_scratch);
        let (full, slot) = self.slot(key)?;
        let old = slot.now.as_deref().map(Record::parse).transpose()?;
        let create = old.map_or(revision, |old| old.create);
        let stored = Record { create, modified: revision, value }.store(&mut scratch);
        let existed = slot.now.replace(stored.clone()).is_some();
        slot.changed = true;
        self.value_scratch = scratch;
        self.changes.push(Change { revision, key: full, stored: Some(stored) });
        Ok(existed)
    }

    /// Removes a key; returns whether it was there.
    pub fn delete(&mut self, key: &[u8], revision: u64) -> Result<bool, Failure> {
        let (full, slot) = self.slot(key)?;
        let existed = slot.now.take().is_some();
        if existed {
            slot.changed = true;
            self.changes.push(Change { revision, key: full, stored: None });
        }
        Ok(existed)
    }

    fn slot(&mut self, key: &[u8]) -> Result<(IVec, &mut Slot), Failure> {
        self.key_scratch.clear();
        self.key_scratch.push(DATA);
        self.key_scratch.extend_from_slice(key);
        let full = IVec::from(self.key_scratch.as_slice());
        let slot = match self.slots.entry(full.clone()) {
            Place::Occupied(found) => found.into_mut(),
            Place::Vacant(place) => {
                let before = self.db.get(&full).map_err(|error| sled_failure("Reading an entry", &error))?;
                place.insert(Slot { now: before.clone(), before, changed: false })
            }
        };
        Ok((full, slot))
    }

    /// The sum of all effects; `digest` is brought up to date with them.
    pub fn finish(self, digest: &mut Digest) -> Effects {
        let mut effects =
            Effects { batch: Batch::default(), before: Vec::with_capacity(self.slots.len()), changes: self.changes };
        for (key, Slot { before, now, changed }) in self.slots {
            if !changed || (before.is_none() && now.is_none()) {
                continue;
            }
            if let Some(before) = &before {
                digest.remove(fingerprint(&key, before));
            }
            match now {
                Some(now) => {
                    digest.add(fingerprint(&key, &now));
                    effects.batch.insert(key.clone(), now);
                }
                None => effects.batch.remove(key.clone()),
            }
            effects.before.push((key, before));
        }
        effects
    }
}
