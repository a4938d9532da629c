//! Is a history of one register linearizable? The search of Wing and Gong with Lowe's cache of visited configurations.
//!
//! An operation takes effect at one moment between its call and its return. One whose outcome is unknown takes effect at any
//! moment after its call, or never, which is the same as at the very end. The search tries the operations that may come
//! next, in the order of their calls, and backs up when an operation returned that has no place.

use std::collections::{HashMap, HashSet};

/// A value; [`ABSENT`] stands for none.
pub type Value = u32;
/// The value of a key that is not there.
pub const ABSENT: Value = 0;
/// Configurations that one search may visit before it gives up.
const CONFIGURATIONS_MAX: usize = 4_000_000;
/// The moment at which operations of unknown outcome return.
const NEVER: u64 = u64::MAX;

/// What an operation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Read this.
    Read(Value),
    /// Wrote this.
    Write(Value),
    /// Wrote the second if the first was there; whether it was, when that is known.
    Cas(Value, Value, Option<bool>),
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// When it was called.
    pub call: u64,
    /// When it returned; `None` when its outcome is unknown.
    pub done: Option<u64>,
    /// What it did.
    pub act: Act,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains everything.
    Linearizable,
    /// There is none. The operation (its position) that returned without a place in the longest order found.
    Violation(usize),
    /// The search was given up.
    TooHard,
}

/// The state after `act` in `state`; `None` when `act` cannot have happened there.
fn step(state: Value, act: Act) -> Option<Value> {
    match act {
        Act::Read(value) => (value == state).then_some(state),
        Act::Write(value) => Some(value),
        Act::Cas(expected, value, Some(true)) => (expected == state).then_some(value),
        Act::Cas(expected, _, Some(false)) => (expected != state).then_some(state),
        Act::Cas(expected, value, None) => Some(if expected == state { value } else { state }),
    }
}

/// Calls and returns in the order of time, as a list from which operations are lifted and put back.
struct Events {
    /// Operation of each event, and whether it is the call. The list's head is the number behind the last event.
    event: Vec<(usize, bool)>,
    next: Vec<usize>,
    previous: Vec<usize>,
    place: Vec<(usize, usize)>,
}

impl Events {
    fn new(operations: &[Operation]) -> Events {
        let mut times: Vec<(u64, bool, usize)> = Vec::new();
        for (at, operation) in operations.iter().enumerate() {
            times.push((operation.call, false, at));
            times.push((operation.done.unwrap_or(NEVER), true, at));
        }
        // Of a call and a return at the same moment the call comes first: then they overlap.
        times.sort_unstable();
        let (count, mut place) = (times.len(), vec![(0, 0); operations.len()]);
        for (position, (_, returned, at)) in times.iter().enumerate() {
            if *returned { place[*at].1 = position } else { place[*at].0 = position }
        }
        Events {
            event: times.iter().map(|(_, returned, at)| (*at, !returned)).collect(),
            next: (0..=count).map(|at| if at == count { 0 } else { at + 1 }).collect(),
            previous: (0..=count).map(|at| if at == 0 { count } else { at - 1 }).collect(),
            place,
        }
    }

    fn head(&self) -> usize {
        self.event.len()
    }

    fn remove(&mut self, event: usize) {
        let (previous, next) = (self.previous[event], self.next[event]);
        self.next[previous] = next;
        self.previous[next] = previous;
    }

    fn insert(&mut self, event: usize) {
        let (previous, next) = (self.previous[event], self.next[event]);
        self.next[previous] = event;
        self.previous[next] = event;
    }

    fn lift(&mut self, operation: usize) {
        let (call, done) = self.place[operation];
        self.remove(call);
        self.remove(done);
    }

    /// Undoes the last [`Events::lift`].
    fn put_back(&mut self, operation: usize) {
        let (call, done) = self.place[operation];
        self.insert(done);
        self.insert(call);
    }
}

/// Decides about the history of one register that begins absent.
pub fn check(operations: &[Operation]) -> Verdict {
    let mut events = Events::new(operations);
    let mut taken = vec![0u64; operations.len().div_ceil(64)];
    let mut visited: HashSet<(Vec<u64>, Value)> = HashSet::new();
    let mut order: Vec<(usize, Value)> = Vec::new();
    let (mut state, mut deepest, mut stuck) = (ABSENT, 0, 0);
    let mut at = events.next[events.head()];
    while at != events.head() {
        let (operation, is_call) = events.event[at];
        if is_call {
            taken[operation / 64] |= 1 << (operation % 64);
            let fits = step(state, operations[operation].act).filter(|next| visited.insert((taken.clone(), *next)));
            if let Some(next) = fits {
                order.push((operation, state));
                state = next;
                events.lift(operation);
                at = events.next[events.head()];
            } else {
                taken[operation / 64] &= !(1 << (operation % 64));
                at = events.next[at];
            }
            if visited.len() > CONFIGURATIONS_MAX {
                return Verdict::TooHard;
            }
            continue;
        }
        if order.len() >= deepest {
            (deepest, stuck) = (order.len(), operation);
        }
        let Some((last, before)) = order.pop() else { return Verdict::Violation(stuck) };
        state = before;
        taken[last / 64] &= !(1 << (last % 64));
        events.put_back(last);
        at = events.next[events.place[last].0];
    }
    Verdict::Linearizable
}

/// Leaves out what cannot matter: writes of unknown outcome whose value nobody ever met. They may stand at the end; only a
/// comparison that failed against an unknown value could have met them unseen.
pub fn relevant(operations: &[Operation]) -> Vec<Operation> {
    if operations.iter().any(|operation| matches!(operation.act, Act::Cas(_, _, Some(false)))) {
        return operations.to_vec();
    }
    let mut met: HashMap<Value, u64> = HashMap::new();
    for operation in operations {
        match operation.act {
            Act::Read(value) | Act::Cas(value, _, _) => *met.entry(value).or_default() += 1,
            Act::Write(_) => {}
        }
    }
    let matters = |operation: &&Operation| match (operation.done, operation.act) {
        (None, Act::Write(value) | Act::Cas(_, value, _)) => met.contains_key(&value),
        (None, Act::Read(_)) => false,
        (Some(_), _) => true,
    };
    operations.iter().filter(matters).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn op(call: u64, done: u64, act: Act) -> Operation {
        Operation { call, done: (done != NEVER).then_some(done), act }
    }

    fn wrong(operations: &[Operation]) -> bool {
        matches!(check(operations), Verdict::Violation(_))
    }

    #[test]
    fn right_histories_are_accepted() {
        use Act::*;
        assert_eq!(check(&[]), Verdict::Linearizable);
        let overlapping = [op(0, 10, Write(1)), op(1, 3, Read(ABSENT)), op(4, 6, Read(1)), op(5, 7, Read(1))];
        assert_eq!(check(&overlapping), Verdict::Linearizable);
        let lost_and_found = [op(0, NEVER, Write(1)), op(1, 2, Read(ABSENT)), op(9, 12, Read(1))];
        assert_eq!(check(&lost_and_found), Verdict::Linearizable);
        let race = [op(0, 9, Cas(ABSENT, 1, Some(true))), op(0, 9, Cas(ABSENT, 2, Some(false))), op(10, 11, Read(1))];
        assert_eq!(check(&race), Verdict::Linearizable);
    }

    #[test]
    fn planted_wrong_histories_are_found() {
        use Act::*;
        let stale = [op(0, 1, Write(1)), op(2, 3, Write(2)), op(4, 5, Read(1))];
        assert_eq!(check(&stale), Verdict::Violation(2));
        assert!(wrong(&[op(0, 1, Write(1)), op(2, 3, Read(ABSENT))]), "a lost write");
        assert!(wrong(&[op(0, 9, Write(1)), op(1, 2, Read(1)), op(3, 4, Read(ABSENT))]), "time runs backwards");
        assert!(wrong(&[op(0, 1, Read(7))]), "a value from nowhere");
        let both = [op(0, 9, Cas(ABSENT, 1, Some(true))), op(0, 9, Cas(ABSENT, 2, Some(true)))];
        assert!(wrong(&both), "two winners");
        assert!(wrong(&[op(0, 1, Write(1)), op(2, 3, Cas(1, 2, Some(false)))]), "it should have won");
        assert!(wrong(&[op(5, NEVER, Write(1)), op(1, 2, Read(1))]), "read before it was written");
        let twice = [op(0, 1, Write(1)), op(2, 3, Write(2)), op(4, 5, Read(2)), op(6, 7, Read(1))];
        assert!(wrong(&twice), "a write that took effect twice");
    }

    /// Tries every order.
    fn by_force(operations: &[Operation], left: &mut Vec<usize>, state: Value) -> bool {
        let left_before = left.clone();
        let due = |at: usize| operations[at].done.unwrap_or(NEVER);
        left_before.is_empty()
            || left_before.iter().enumerate().any(|(position, &at)| {
                let first = left_before.iter().all(|other| due(*other) >= operations[at].call);
                let Some(next) = step(state, operations[at].act).filter(|_| first) else { return false };
                left.remove(position);
                let found = by_force(operations, left, next);
                left.insert(position, at);
                found
            })
    }

    #[test]
    fn the_search_agrees_with_trying_every_order() {
        let (mut rng, mut verdicts) = (Rng::new(11), [0, 0]);
        for round in 0..20_000 {
            let operations: Vec<Operation> = (0..rng.range(2, 7))
                .map(|_| {
                    let call = rng.below(12);
                    let done = if rng.chance(15) { NEVER } else { call + 1 + rng.below(8) };
                    let (one, two) = (rng.below(3) as Value, 1 + rng.below(4) as Value);
                    let known = (done != NEVER).then_some(round % 2 == 0 || rng.chance(50));
                    let act = match rng.below(3) {
                        0 if done != NEVER => Act::Read(one),
                        1 => Act::Cas(one, two, known),
                        _ => Act::Write(two),
                    };
                    op(call, done, act)
                })
                .collect();
            let truth = by_force(&operations, &mut (0..operations.len()).collect(), ABSENT);
            assert_eq!(check(&operations) == Verdict::Linearizable, truth, "{operations:?}");
            let fewer = relevant(&operations);
            assert_eq!(check(&fewer) == Verdict::Linearizable, truth, "{operations:?}");
            verdicts[usize::from(truth)] += 1;
        }
        assert!(verdicts.iter().all(|count| *count > 2_000), "{verdicts:?}");
    }
}
