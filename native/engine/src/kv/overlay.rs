//! The effects of one `apply` call before anybody else sees them: each command sees those before it.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;

use sled::IVec;

use super::database::Database;
use super::history::Change;
use super::layers;
use super::record::{DATA, Digest, Record, fingerprint};
use super::shared::Shared;
use crate::error::Failure;

/// One key that a command looked at.
struct Slot {
    before: Option<IVec>,
    now: Option<IVec>,
    changed: bool,
}

/// A layer over everything else for the length of one `apply` call.
pub(super) struct Overlay<'a> {
    shared: &'a Shared,
    db: &'a Database,
    slots: HashMap<IVec, Slot>,
    changes: Vec<Change>,
    key_scratch: Vec<u8>,
    value_scratch: Vec<u8>,
}

/// What an `apply` call amounts to.
pub(super) struct Effects {
    /// Each changed key and what is stored there now.
    pub changed: Vec<layers::Change>,
    /// Each changed key (with its space byte) and what was stored there before.
    pub before: Vec<(IVec, Option<IVec>)>,
    /// Every change in order, for watches.
    pub changes: Vec<Change>,
}

impl<'a> Overlay<'a> {
    pub fn new(shared: &'a Shared, db: &'a Database, commands: usize) -> Overlay<'a> {
        let (slots, changes) = (HashMap::with_capacity(commands), Vec::with_capacity(commands));
        Overlay { shared, db, slots, changes, key_scratch: Vec::new(), value_scratch: Vec::new() }
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
                // What the layers do not hold now is in sled and stays as it is: only this thread changes anything.
                let found = self.shared.visible.read().layers.find(&full);
                let before = match found {
                    Some(stored) => stored,
                    None => self.db.get(&full).map_err(|error| self.db.read_failure("Reading an entry", &error))?,
                };
                place.insert(Slot { now: before.clone(), before, changed: false })
            }
        };
        Ok((full, slot))
    }

    /// The sum of all effects; `digest` is brought up to date with them.
    pub fn finish(self, digest: &mut Digest) -> Effects {
        let slots = self.slots.len();
        let (changed, before) = (Vec::with_capacity(slots), Vec::with_capacity(slots));
        let mut effects = Effects { changed, before, changes: self.changes };
        for (key, Slot { before, now, changed }) in self.slots {
            if !changed || (before.is_none() && now.is_none()) {
                continue;
            }
            if let Some(before) = &before {
                digest.remove(fingerprint(&key, before));
            }
            if let Some(now) = &now {
                digest.add(fingerprint(&key, now));
            }
            effects.changed.push((key.clone(), now));
            effects.before.push((key, before));
        }
        effects
    }
}
