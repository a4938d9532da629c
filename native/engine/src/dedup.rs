//! The session table: how every replica knows that a command already took effect.
//!
//! As in the Raft dissertation §6.3, but without registering sessions: a session *is* one incarnation of a member node.
//! Each replica keeps, per member, the newest incarnation seen and which of its sequence numbers took effect. Commands
//! carry the sender's low-water mark, below which nothing is awaited any more, so what is kept per node is bounded by its
//! in-flight window. The table changes only by log entries and is part of every snapshot, so all replicas judge alike.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::command::CommandId;
use crate::limits::{FORMER_MEMBERS_MAX, MEMBERS_MAX};

/// What a replica does with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// First seen: apply it.
    New,
    /// It took effect before: drop it.
    Repeated,
    /// Its sender gave it up, was restarted, or is no member: drop it, it never takes effect.
    Stale,
}

/// Sequence numbers of one incarnation that took effect, at and above the low-water mark.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Which life of the node this is about.
    pub incarnation: u64,
    /// Below this nothing is awaited; it never falls.
    pub low: u64,
    /// Log index at which the node left the cluster, while it is no member.
    left_at: Option<u64>,
    /// Inclusive ranges that took effect, ascending, disjoint, not adjacent, none below `low`.
    ranges: Vec<(u64, u64)>,
}

/// All windows, by raft id of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionTable {
    windows: BTreeMap<u64, Window>,
}

impl SessionTable {
    /// Judges a command and, when it is new, records it.
    pub fn admit(&mut self, id: &CommandId, low_water: u64) -> Verdict {
        let window = self.windows.entry(id.node).or_default();
        if id.incarnation < window.incarnation {
            return Verdict::Stale;
        }
        if id.incarnation > window.incarnation {
            *window = Window { incarnation: id.incarnation, ..Window::default() };
        }
        window.raise(low_water);
        window.admit(id.sequence)
    }

    /// Judges a command of a node that is no member: it has no effect, unless it had one while the node still was. It is recorded all
    /// the same, because the node is told so: no later copy may take effect, should the node be let in again.
    pub fn refuse(&mut self, id: &CommandId, low_water: u64) -> Verdict {
        if !self.windows.contains_key(&id.node) && self.windows.len() >= MEMBERS_MAX + FORMER_MEMBERS_MAX {
            return Verdict::Stale;
        }
        match self.admit(id, low_water) {
            Verdict::New => Verdict::Stale,
            judged => judged,
        }
    }

    /// Notes who is a member as of the log index `index`. Nodes that left are remembered for a while, because copies of
    /// their commands may still be on the way when they come back; only of the [`FORMER_MEMBERS_MAX`] that left last.
    /// Returns whose window changed or went.
    pub fn enter_members(&mut self, index: u64, is_member: impl Fn(u64) -> bool) -> Vec<u64> {
        let mut changed = Vec::new();
        let mut former = Vec::new();
        for (node, window) in &mut self.windows {
            let left_at = (!is_member(*node)).then_some(window.left_at.unwrap_or(index));
            former.extend(left_at.map(|left_at| (left_at, *node)));
            if window.left_at != left_at {
                window.left_at = left_at;
                changed.push(*node);
            }
        }
        former.sort_unstable();
        let excess = former.len().saturating_sub(FORMER_MEMBERS_MAX);
        for (_, node) in former.drain(..excess) {
            self.windows.remove(&node);
            changed.push(node);
        }
        changed
    }

    /// The window of `node`, if it ever submitted anything.
    pub fn window(&self, node: u64) -> Option<&Window> {
        self.windows.get(&node)
    }

    /// Sets a window as it was stored.
    pub fn restore(&mut self, node: u64, window: Window) {
        self.windows.insert(node, window);
    }

    /// All windows, ascending by node.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Window)> {
        self.windows.iter().map(|(node, window)| (*node, window))
    }
}

impl Window {
    fn raise(&mut self, low_water: u64) {
        if low_water <= self.low {
            return;
        }
        self.low = low_water;
        self.ranges.retain_mut(|(first, last)| {
            *first = (*first).max(low_water);
            first <= last
        });
    }

    fn admit(&mut self, sequence: u64) -> Verdict {
        if sequence < self.low {
            return Verdict::Stale;
        }
        // Almost always the successor of the newest: one comparison.
        if let Some((_, last)) = self.ranges.last_mut()
            && *last + 1 == sequence
        {
            *last = sequence;
            return Verdict::New;
        }
        let at = self.ranges.partition_point(|(first, _)| *first <= sequence);
        if at > 0 && self.ranges[at - 1].1 >= sequence {
            return Verdict::Repeated;
        }
        self.insert(at, sequence);
        Verdict::New
    }

    fn insert(&mut self, at: usize, sequence: u64) {
        let joins_left = at > 0 && self.ranges[at - 1].1 + 1 == sequence;
        let joins_right = at < self.ranges.len() && self.ranges[at].0 == sequence + 1;
        match (joins_left, joins_right) {
            (true, true) => {
                self.ranges[at - 1].1 = self.ranges[at].1;
                self.ranges.remove(at);
            }
            (true, false) => self.ranges[at - 1].1 = sequence,
            (false, true) => self.ranges[at].0 = sequence,
            (false, false) => self.ranges.insert(at, (sequence, sequence)),
        }
    }

    /// True when `sequence` is known to have taken effect.
    pub fn contains(&self, sequence: u64) -> bool {
        let at = self.ranges.partition_point(|(first, _)| *first <= sequence);
        at > 0 && self.ranges[at - 1].1 >= sequence
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn id(incarnation: u64, sequence: u64) -> CommandId {
        CommandId { node: 1, incarnation, sequence }
    }

    #[test]
    fn a_repetition_never_takes_effect() {
        let mut table = SessionTable::default();
        assert_eq!(table.admit(&id(1, 1), 1), Verdict::New);
        assert_eq!(table.admit(&id(1, 1), 1), Verdict::Repeated);
        assert_eq!(table.admit(&id(1, 3), 1), Verdict::New);
        assert_eq!(table.admit(&id(1, 2), 1), Verdict::New);
        assert_eq!(table.admit(&id(1, 2), 1), Verdict::Repeated);
    }

    #[test]
    fn what_the_sender_gave_up_is_stale() {
        let mut table = SessionTable::default();
        assert_eq!(table.admit(&id(1, 9), 8), Verdict::New);
        assert_eq!(table.admit(&id(1, 7), 1), Verdict::Stale);
        assert_eq!(table.admit(&id(1, 8), 1), Verdict::New);
    }

    #[test]
    fn a_restarted_node_begins_afresh_and_its_former_life_is_over() {
        let mut table = SessionTable::default();
        assert_eq!(table.admit(&id(1, 1), 1), Verdict::New);
        assert_eq!(table.admit(&id(2, 1), 1), Verdict::New);
        assert_eq!(table.admit(&id(1, 2), 1), Verdict::Stale);
    }

    #[test]
    fn a_member_that_left_and_came_back_is_not_applied_twice() {
        let mut table = SessionTable::default();
        assert_eq!(table.admit(&id(1, 1), 1), Verdict::New);
        assert_eq!(table.enter_members(10, |_| false), vec![1]);
        assert_eq!(table.enter_members(11, |_| false), Vec::<u64>::new());
        assert_eq!(table.enter_members(12, |_| true), vec![1]);
        assert_eq!(table.admit(&id(1, 1), 1), Verdict::Repeated);
    }

    #[test]
    fn of_former_members_the_last_to_leave_are_remembered() {
        let mut table = SessionTable::default();
        let all = FORMER_MEMBERS_MAX as u64 + 3;
        for node in 1..=all {
            table.admit(&CommandId { node, incarnation: 1, sequence: 1 }, 1);
        }
        for gone in 1..=all {
            table.enter_members(100 + gone, |node| node > gone);
        }
        assert_eq!(table.iter().map(|(node, _)| node).collect::<Vec<_>>(), (4..=all).collect::<Vec<_>>());
    }

    #[test]
    fn agrees_with_a_set_under_random_orders() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move |bound: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % bound
        };
        let (mut table, mut seen, mut low) = (SessionTable::default(), BTreeSet::new(), 0);
        for _ in 0..50_000 {
            let sequence = low + next(64);
            let low_water = if next(10) == 0 { low + next(8) } else { 0 };
            low = low.max(low_water);
            let want = match (sequence < low, seen.contains(&sequence)) {
                (true, _) => Verdict::Stale,
                (false, true) => Verdict::Repeated,
                (false, false) => Verdict::New,
            };
            assert_eq!(table.admit(&id(1, sequence), low_water), want);
            seen.insert(sequence);
            let window = table.window(1).unwrap();
            assert!(window.ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            assert!(window.ranges.len() <= 64);
        }
    }
}
