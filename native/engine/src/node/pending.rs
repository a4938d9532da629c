//! What this node has accepted and not yet answered: the submission window.
//!
//! Sequence numbers are consecutive, so the window is a ring from `base` (the oldest unanswered, which is also the
//! low-water mark that commands carry) on, as in TCP: `next_send` runs ahead of it and is set back when a leader is
//! lost, and replicas drop what they then see twice. Every accepted submission leaves the window exactly once,
//! with its answer: applied, timed out, or closed.

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::coarse;
use crate::command::{BatchBuilder, CommandId};
use crate::error::{Code, Failure};
use crate::limits::{ENTRY_BYTES_MAX, IN_FLIGHT_BYTES_MAX, IN_FLIGHT_MAX};
use crate::machine::Outcome;

/// Slots between the oldest unanswered submission and the newest; answered ones in between count too.
const SPAN_MAX: usize = 4 * IN_FLIGHT_MAX;

/// Slots that one look at the window frees.
const FREED_AT_ONCE: usize = 64;

/// Stands for the index of a command that a snapshot brought or buried; user-visible ones begin at 1.
const INDEX_UNKNOWN: u64 = 0;

/// Who gets an outcome.
pub enum Reply {
    /// The node's observer, by ticket.
    Observer,
    /// A closure, called once on an engine thread: it must not block.
    Call(Box<dyn FnOnce(Outcome) + Send>),
}

/// What became of a submission, as [`Pending::outcome`] tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Too old to know, hidden by a snapshot, or never submitted.
    Unknown,
    /// Not applied here yet; it may still be.
    Pending,
    /// It took effect at this user-visible index.
    Applied(u64),
    /// It will never take effect: the cluster has moved past it.
    Discarded,
}

struct Slot {
    body: Bytes,
    deadline: Instant,
    reply: Reply,
    sent_at: Option<Instant>,
}

struct Window {
    base: u64,
    slots: VecDeque<Option<Slot>>,
    next_send: u64,
    count: usize,
    bytes: usize,
    earliest: Option<Instant>,
    closed: bool,
    /// `(sequence, index)` of what took effect, at `sequence % SPAN_MAX`; grows on demand.
    applied: Vec<(u64, u64)>,
    /// Handed to a hosted machine: `(index, sequence)`, ascending.
    handed: VecDeque<(u64, u64)>,
    /// Up to where the host has applied.
    acknowledged: u64,
}

/// The submission window of one node. Shared by callers, the proposer and the applying thread; locks are short.
pub struct Pending {
    identity: OnceLock<(u64, u64)>,
    window: Mutex<Window>,
    /// Wakes the proposer.
    pub wake: Notify,
}

/// An answer that left the window and is to be delivered outside its lock.
pub type Due = (u64, Reply, Outcome);

impl Default for Pending {
    fn default() -> Pending {
        let window = Window {
            base: 1,
            slots: VecDeque::new(),
            next_send: 1,
            count: 0,
            bytes: 0,
            earliest: None,
            closed: false,
            applied: Vec::new(),
            handed: VecDeque::new(),
            acknowledged: 0,
        };
        Pending { identity: OnceLock::new(), window: Mutex::new(window), wake: Notify::new() }
    }
}

impl Pending {
    /// Sets which node and incarnation the commands are of; needed before [`Pending::take`] gives any. The first call counts.
    pub fn identify(&self, node: u64, incarnation: u64) {
        let _ = self.identity.set((node, incarnation));
        self.wake.notify_one();
    }

    /// Node id and incarnation, once known.
    pub fn identity(&self) -> Option<(u64, u64)> {
        self.identity.get().copied()
    }

    /// Accepts a command or refuses it (`TooLarge`, `Overloaded`, `Closed`), at once. Returns its sequence number.
    pub fn submit(&self, body: Bytes, timeout: Duration, reply: Reply) -> Result<u64, Failure> {
        if body.len() > ENTRY_BYTES_MAX {
            let message = format!("The entry has {} bytes; the limit is {ENTRY_BYTES_MAX}.", body.len());
            return Err(Failure::new(Code::TooLarge, message));
        }
        let deadline = coarse::deadline(timeout);
        let mut window = self.window.lock();
        window.check_room(body.len())?;
        window.earliest = Some(window.earliest.map_or(deadline, |earliest| earliest.min(deadline)));
        window.count += 1;
        window.bytes += body.len();
        let sequence = window.base + window.slots.len() as u64;
        window.slots.push_back(Some(Slot { body, deadline, reply, sent_at: None }));
        let wake = window.next_send == sequence;
        drop(window);
        if wake {
            self.wake.notify_one();
        }
        Ok(sequence)
    }

    /// Writes the next unsent commands to `batch`, at most `count` of them and, but for the first, `bytes` of bodies. Returns the
    /// sequence number of the first; `None` when there is none to send.
    pub fn take(&self, count: usize, bytes: usize, now: Instant, batch: &mut BatchBuilder) -> Option<u64> {
        let (node, incarnation) = self.identity()?;
        let mut window = self.window.lock();
        let low_water = window.base;
        let from = window.next_send.max(low_water);
        let (end, taken, size) = window.fitting(from, count, bytes);
        window.next_send = end;
        batch.reserve(taken, size);
        let mut first = None;
        for sequence in from..end {
            if let Some(slot) = window.slot(sequence) {
                slot.sent_at = Some(now);
                batch.push(&CommandId { node, incarnation, sequence }, low_water, &slot.body);
                first.get_or_insert(sequence);
            }
        }
        first
    }

    /// True when something waits to be sent.
    pub fn has_unsent(&self) -> bool {
        let window = self.window.lock();
        window.next_send.max(window.base) < window.base + window.slots.len() as u64
    }

    /// Sends `sequence` and everything after it again.
    pub fn rewind(&self, sequence: u64) {
        let mut window = self.window.lock();
        window.next_send = window.next_send.min(sequence);
        drop(window);
        self.wake.notify_one();
    }

    /// Sends everything unanswered again, when the oldest was sent longer than `age` ago. True when it did.
    pub fn rewind_stale(&self, now: Instant, age: Duration) -> bool {
        let mut window = self.window.lock();
        let base = window.base;
        let stale = window.slot(base).and_then(|slot| slot.sent_at).is_some_and(|at| now.duration_since(at) >= age);
        if stale {
            window.next_send = base;
            drop(window);
            self.wake.notify_one();
        }
        stale
    }

    /// Takes the answers of `outcomes` (sequence, index, outcome) out of the window. Those that were answered already
    /// (timed out) are skipped, but their fate is kept.
    pub fn resolve(&self, outcomes: impl Iterator<Item = (u64, u64, Outcome)>) -> Vec<Due> {
        let mut due = Vec::new();
        let mut window = self.window.lock();
        for (sequence, index, outcome) in outcomes {
            window.note_applied(sequence, index);
            if let Some(slot) = window.remove(sequence) {
                due.push((sequence, slot.reply, outcome));
            }
        }
        due
    }

    /// Takes out `sequences`, each with `failure`; those answered already are skipped.
    pub fn discard(&self, sequences: impl Iterator<Item = u64>, failure: &Failure) -> Vec<Due> {
        let mut window = self.window.lock();
        let slots =
            sequences.filter_map(|sequence| Some((sequence, window.remove(sequence)?.reply, Err(failure.clone()))));
        slots.collect()
    }

    /// A snapshot came in place of commands. Takes out those that it holds (`took_effect`), each with `failure`; what became
    /// of those below `low` that were answered before is not known any more.
    pub fn skip(&self, low: u64, took_effect: impl Fn(u64) -> bool, failure: &Failure) -> Vec<Due> {
        let mut due = Vec::new();
        let mut window = self.window.lock();
        let end = window.base + window.slots.len() as u64;
        for sequence in end.saturating_sub(SPAN_MAX as u64).max(1)..end {
            let held = took_effect(sequence);
            if (held || sequence < low) && window.applied_index(sequence).is_none() {
                window.note_applied(sequence, INDEX_UNKNOWN);
            }
            if held && let Some(slot) = window.remove(sequence) {
                due.push((sequence, slot.reply, Err(failure.clone())));
            }
        }
        due
    }

    /// Takes out what was never sent anywhere, each with `failure`. What was sent once is not sent again, but may still
    /// take effect: it stays.
    pub fn refuse_unsent(&self, failure: &Failure) -> Vec<Due> {
        let mut due = Vec::new();
        let mut window = self.window.lock();
        let from = window.next_send.max(window.base);
        let end = window.base + window.slots.len() as u64;
        window.next_send = end;
        for sequence in from..end {
            if window.slot(sequence).is_some_and(|slot| slot.sent_at.is_none())
                && let Some(slot) = window.remove(sequence)
            {
                due.push((sequence, slot.reply, Err(failure.clone())));
            }
        }
        due
    }

    /// Notes that commands went to a hosted machine, which answers by itself when it applies `index`. It may have done so already.
    pub fn hand_over(&self, handed: impl Iterator<Item = (u64, u64)>) {
        let mut window = self.window.lock();
        for (sequence, index) in handed {
            window.note_applied(sequence, index);
            if index <= window.acknowledged {
                window.remove(sequence);
            } else {
                window.handed.push_back((index, sequence));
            }
        }
    }

    /// The host has applied up to `index`: its answers are out, the slots are free.
    pub fn acknowledge(&self, index: u64) {
        let mut freed = Vec::with_capacity(FREED_AT_ONCE);
        loop {
            let mut window = self.window.lock();
            window.acknowledged = window.acknowledged.max(index);
            while freed.len() < FREED_AT_ONCE && window.handed.front().is_some_and(|(handed, _)| *handed <= index) {
                if let Some((_, sequence)) = window.handed.pop_front() {
                    freed.extend(window.remove(sequence));
                }
            }
            drop(window);
            // Memory is given back with no lock held, for others submit meanwhile.
            if freed.is_empty() {
                return;
            }
            freed.clear();
        }
    }

    /// Takes out what is past its deadline: `Unavailable` when it was never sent anywhere, `Timeout` when it may have been.
    pub fn expire(&self, now: Instant) -> Vec<Due> {
        let mut window = self.window.lock();
        if window.earliest.is_none_or(|earliest| earliest > now) {
            return Vec::new();
        }
        let (mut due, mut earliest) = (Vec::new(), None::<Instant>);
        let late: Vec<u64> = window
            .enumerate()
            .filter_map(|(sequence, slot)| {
                if slot.deadline <= now {
                    return Some(sequence);
                }
                earliest = Some(earliest.map_or(slot.deadline, |first| first.min(slot.deadline)));
                None
            })
            .collect();
        window.earliest = earliest;
        for sequence in late {
            if let Some(slot) = window.remove(sequence) {
                let failure = overdue(slot.sent_at.is_some());
                due.push((sequence, slot.reply, Err(failure)));
            }
        }
        due
    }

    /// Refuses everything from now on and takes out what is left, each with `Closed`.
    pub fn close(&self) -> Vec<Due> {
        let mut window = self.window.lock();
        window.closed = true;
        let base = window.base;
        window.count = 0;
        window.bytes = 0;
        window.handed.clear();
        let left = window.slots.drain(..).enumerate();
        left.filter_map(|(offset, slot)| slot.map(|slot| (base + offset as u64, slot.reply, Err(Failure::closed()))))
            .collect()
    }

    /// What became of `sequence`; `cluster_low` is this node's low-water mark as the applied log knows it.
    pub fn outcome(&self, sequence: u64, cluster_low: u64) -> Fate {
        let mut window = self.window.lock();
        let end = window.base + window.slots.len() as u64;
        if sequence == 0 || sequence >= end {
            return Fate::Unknown;
        }
        match window.applied_index(sequence) {
            Some(INDEX_UNKNOWN) => return Fate::Unknown,
            Some(index) => return Fate::Applied(index),
            None => {}
        }
        if window.slot(sequence).is_some() {
            return Fate::Pending;
        }
        if sequence + SPAN_MAX as u64 <= end {
            return Fate::Unknown;
        }
        if sequence < cluster_low { Fate::Discarded } else { Fate::Pending }
    }

    /// Submissions without an answer, and their bytes.
    pub fn in_flight(&self) -> (usize, usize) {
        let window = self.window.lock();
        (window.count, window.bytes)
    }
}

fn overdue(sent: bool) -> Failure {
    if sent {
        return Failure::new(Code::Timeout, "Command timed out.");
    }
    Failure::new(Code::Unavailable, "No leader was found in time; the command was not sent and has no effect.")
}

impl Window {
    fn check_room(&self, bytes: usize) -> Result<(), Failure> {
        if self.closed {
            return Err(Failure::closed());
        }
        if self.count >= IN_FLIGHT_MAX || self.bytes + bytes > IN_FLIGHT_BYTES_MAX || self.slots.len() >= SPAN_MAX {
            let message = format!(
                "{} submissions ({} bytes) wait for their outcome; take fewer at a time.",
                self.count, self.bytes
            );
            return Err(Failure::new(Code::Overloaded, message));
        }
        Ok(())
    }

    fn slot(&mut self, sequence: u64) -> Option<&mut Slot> {
        let offset = sequence.checked_sub(self.base)? as usize;
        self.slots.get_mut(offset)?.as_mut()
    }

    /// The end of the commands from `from` on that a batch of `count` commands and `bytes` of bodies takes, their number and the bytes of
    /// their bodies.
    fn fitting(&self, from: u64, count: usize, bytes: usize) -> (u64, usize, usize) {
        let (mut end, mut taken, mut size) = (from, 0, 0);
        for slot in self.slots.range((from - self.base) as usize..) {
            if let Some(slot) = slot {
                if taken == count || (taken > 0 && size + slot.body.len() > bytes) {
                    break;
                }
                taken += 1;
                size += slot.body.len();
            }
            end += 1;
        }
        (end, taken, size)
    }

    fn enumerate(&self) -> impl Iterator<Item = (u64, &Slot)> {
        let base = self.base;
        self.slots.iter().enumerate().filter_map(move |(offset, slot)| Some((base + offset as u64, slot.as_ref()?)))
    }

    fn remove(&mut self, sequence: u64) -> Option<Slot> {
        let offset = sequence.checked_sub(self.base)? as usize;
        let slot = self.slots.get_mut(offset)?.take()?;
        self.count -= 1;
        self.bytes -= slot.body.len();
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.base += 1;
        }
        Some(slot)
    }

    fn note_applied(&mut self, sequence: u64, index: u64) {
        let at = sequence as usize % SPAN_MAX;
        if self.applied.len() <= at {
            let len = (at + 1).next_power_of_two().min(SPAN_MAX);
            self.applied.resize(len, (0, 0));
        }
        self.applied[at] = (sequence, index);
    }

    fn applied_index(&self, sequence: u64) -> Option<u64> {
        let (stored, index) = self.applied.get(sequence as usize % SPAN_MAX)?;
        (*stored == sequence).then_some(*index)
    }
}

#[cfg(test)]
mod tests;
