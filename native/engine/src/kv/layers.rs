//! What was applied and is not in sled yet: two layers that lie over it.
//!
//! Applying fills the *fresh* layer. The writer ([`super::behind`]) seals it, so that the next one fills, writes all of it to sled,
//! and takes it away once it is there. Data only ever moves down, so who looks from the top finds every key.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use sled::IVec;

use super::record::{Meta, just_after};
use crate::limits::{UNWRITTEN_BYTES_MAX, UNWRITTEN_KEYS_MAX};

/// What keys will hold in sled; `None` where a key is to be removed.
pub(super) type Slots = BTreeMap<IVec, Option<IVec>>;

/// A key (with its space byte) and what it will hold.
pub(super) type Change = (IVec, Option<IVec>);

/// What a slot costs besides its bytes.
const OVERHEAD_BYTES: usize = 96;

/// The sum of some consecutive calls, the last value of each key.
#[derive(Debug, Default)]
pub(super) struct Layer {
    pub slots: Slots,
    /// The machine's own record as of the last of the calls: it belongs to exactly these slots.
    pub meta: Meta,
    calls: u64,
    bytes: usize,
}

impl Layer {
    fn set(&mut self, (key, stored): Change) {
        let len = key.len();
        self.bytes += slot_bytes(len, &stored);
        if let Some(former) = self.slots.insert(key, stored) {
            self.bytes -= slot_bytes(len, &former);
        }
    }

    fn fill(&self) -> Fill {
        let reached =
            |share: usize| self.slots.len() >= UNWRITTEN_KEYS_MAX / share || self.bytes >= UNWRITTEN_BYTES_MAX / share;
        match self.calls {
            0 => Fill::Empty,
            _ if reached(1) => Fill::Full,
            _ if reached(2) => Fill::Half,
            _ => Fill::Some,
        }
    }
}

fn slot_bytes(key: usize, stored: &Option<IVec>) -> usize {
    OVERHEAD_BYTES + key + stored.as_ref().map_or(0, |stored| stored.len())
}

/// How full the fresh layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    Empty,
    Some,
    /// It should not wait any more.
    Half,
    /// Nothing more may be applied before it is sealed.
    Full,
}

/// Both layers.
#[derive(Debug, Default)]
pub(super) struct Layers {
    fresh: Layer,
    sealed: Option<Arc<Layer>>,
}

impl Layers {
    pub fn fill(&self) -> Fill {
        self.fresh.fill()
    }

    /// What `key` will hold in sled; `None` when the layers do not say, so that sled does.
    pub fn find(&self, key: &[u8]) -> Option<Option<IVec>> {
        let sealed = || self.sealed.as_ref().and_then(|sealed| sealed.slots.get(key));
        self.fresh.slots.get(key).or_else(sealed).cloned()
    }

    /// Takes in what one call changed, and the own record after it.
    pub fn enter(&mut self, changes: impl IntoIterator<Item = Change>, meta: Meta) {
        changes.into_iter().for_each(|change| self.fresh.set(change));
        self.fresh.meta = meta;
        self.fresh.calls += 1;
    }

    /// The layer to write to sled, if there is something; what is applied from now on is not in it.
    pub fn seal(&mut self) -> Option<Arc<Layer>> {
        if self.sealed.is_none() && self.fresh.calls > 0 {
            self.sealed = Some(Arc::new(std::mem::take(&mut self.fresh)));
        }
        self.sealed.clone()
    }

    /// `layer` is in sled: it need not lie over it any more.
    pub fn settle(&mut self, layer: &Arc<Layer>) {
        if self.sealed.as_ref().is_some_and(|sealed| Arc::ptr_eq(sealed, layer)) {
            self.sealed = None;
        }
    }

    /// The slots of each layer, the newest first.
    pub fn slots(&self) -> impl Iterator<Item = &Slots> {
        std::iter::once(&self.fresh.slots).chain(self.sealed.as_ref().map(|sealed| &sealed.slots))
    }

    /// A copy of the first `max` fresh slots of `from..end`, the sealed layer, and the end of the range for which that is all.
    pub fn part(&self, from: &[u8], end: &[u8], max: usize) -> (Slots, Option<Arc<Layer>>, Vec<u8>) {
        let range = (Bound::Included(from), Bound::Excluded(end));
        let copied: Slots = self
            .fresh
            .slots
            .range::<[u8], _>(range)
            .take(max)
            .map(|(key, stored)| (key.clone(), stored.clone()))
            .collect();
        let end = match copied.last_key_value() {
            Some((last, _)) if copied.len() == max => just_after(last),
            _ => end.to_vec(),
        };
        (copied, self.sealed.clone(), end)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn change(key: &str, stored: Option<&str>) -> Change {
        (IVec::from(key), stored.map(IVec::from))
    }

    fn meta(revision: u64) -> Meta {
        Meta { revision, ..Meta::default() }
    }

    #[test]
    fn a_sealed_layer_stays_as_it_was_below_the_fresh_one() {
        let mut layers = Layers::default();
        assert!(layers.seal().is_none());
        layers.enter([change("a", Some("1")), change("b", Some("1"))], meta(1));
        let sealed = layers.seal().unwrap();
        layers.enter([change("a", None), change("c", Some("2"))], meta(2));
        assert_eq!(layers.find(b"a"), Some(None));
        assert_eq!(layers.find(b"b"), Some(Some(IVec::from("1"))));
        assert_eq!(layers.find(b"d"), None);
        assert!(Arc::ptr_eq(&layers.seal().unwrap(), &sealed), "one at a time");
        assert_eq!((sealed.slots.len(), sealed.meta.revision), (2, 1));
        layers.settle(&sealed);
        assert_eq!(layers.find(b"b"), None);
        let next = layers.seal().unwrap();
        assert_eq!((next.slots.len(), next.meta.revision, layers.fill()), (2, 2, Fill::Empty));
        layers.settle(&sealed);
        assert_eq!(layers.find(b"a"), Some(None), "another layer was settled");
    }

    #[test]
    fn a_layer_is_full_by_keys_or_by_bytes_and_repeated_writes_fill_it_once() {
        let mut layers = Layers::default();
        let put = |layers: &mut Layers, n: usize, bytes: usize| {
            layers.enter([(IVec::from(n.to_string().as_str()), Some(IVec::from(vec![0; bytes])))], meta(1));
        };
        assert_eq!(layers.fill(), Fill::Empty);
        (0..UNWRITTEN_KEYS_MAX * 2).for_each(|n| put(&mut layers, n % 100, n % 50));
        assert_eq!(layers.fill(), Fill::Some);
        (0..UNWRITTEN_KEYS_MAX / 2).for_each(|n| put(&mut layers, n, 1));
        assert_eq!(layers.fill(), Fill::Half);
        (0..UNWRITTEN_KEYS_MAX).for_each(|n| put(&mut layers, n, 1));
        assert_eq!(layers.fill(), Fill::Full);
        let mut layers = Layers::default();
        put(&mut layers, 1, UNWRITTEN_BYTES_MAX);
        assert_eq!(layers.fill(), Fill::Full);
        put(&mut layers, 1, 1);
        assert_eq!(layers.fill(), Fill::Some);
    }

    #[test]
    fn a_part_ends_where_it_was_cut() {
        let mut layers = Layers::default();
        layers.enter(["a", "b", "c", "d"].map(|key| change(key, Some(key))), meta(1));
        let (copied, sealed, end) = layers.part(b"b", b"z", 2);
        assert_eq!((copied.len(), sealed.is_none(), end), (2, true, b"c\0".to_vec()));
        let (copied, _, end) = layers.part(b"b", b"d", 9);
        assert_eq!((copied.len(), end), (2, b"d".to_vec()));
    }
}
