//! What the echo's session and its thread share: submissions on their way in, records on their way out.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};
use quorate_engine::machine::Committed;
use quorate_engine::records::RecordQueue;
use quorate_engine::session::Kind;
use quorate_engine::{Code, CommandId, Failure, limits};

use crate::echo_request::Request;

/// Tickets of what is no command count from here.
const OTHER_TICKETS: u64 = 1 << 62;

/// What `submit`, `poll` and the worker share.
pub(crate) struct Shared {
    /// Whether commands are put on the apply queue too.
    pub(crate) mirror: bool,
    /// At most so many are [`Shared::in_flight`].
    in_flight_max: usize,
    pub(crate) events: RecordQueue,
    pub(crate) apply: RecordQueue,
    in_flight: AtomicUsize,
    acknowledged: AtomicU64,
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    closed: bool,
    waiting: bool,
    commands: u64,
    others: u64,
    inbox: Vec<Asked>,
}

/// An accepted submission.
pub(crate) struct Asked {
    pub(crate) ticket: u64,
    pub(crate) body: Bytes,
    pub(crate) request: Request,
    /// When it was accepted.
    pub(crate) at: Instant,
    pub(crate) timeout: Duration,
}

impl Shared {
    pub(crate) fn new(mirror: bool, in_flight_max: usize) -> Shared {
        Shared {
            mirror,
            in_flight_max,
            events: RecordQueue::new(limits::EVENTS_MAX),
            apply: RecordQueue::new(limits::APPLY_WINDOW_COMMANDS),
            in_flight: AtomicUsize::new(0),
            acknowledged: AtomicU64::new(0),
            state: Mutex::default(),
            arrived: Condvar::new(),
        }
    }

    /// Submissions whose answers were not polled.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    /// The host has applied the commands up to `ticket`.
    pub(crate) fn acknowledge(&self, ticket: u64) {
        self.acknowledged.fetch_max(ticket, Ordering::AcqRel);
    }

    /// Takes `asked` in under a ticket of its own. Fails with `Closed`, `Overloaded`.
    pub(crate) fn accept(&self, kind: Kind, mut asked: Asked) -> Result<u64, Failure> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Failure::closed());
        }
        self.refuse_overload(kind, &state)?;
        if kind == Kind::Command {
            state.commands += 1;
            asked.ticket = state.commands;
        } else {
            asked.ticket = OTHER_TICKETS + state.others;
            state.others += 1;
        }
        let ticket = asked.ticket;
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        state.inbox.push(asked);
        self.wake(state);
        Ok(ticket)
    }

    fn refuse_overload(&self, kind: Kind, state: &State) -> Result<(), Failure> {
        let overloaded = |what: &str, limit: usize| Err(Failure::new(Code::Overloaded, format!("{limit} {what}.")));
        if self.in_flight() >= self.in_flight_max {
            return overloaded("submissions wait for their answers; no more are accepted", self.in_flight_max);
        }
        let unapplied = state.commands.saturating_sub(self.acknowledged.load(Ordering::Acquire));
        if self.mirror && kind == Kind::Command && unapplied >= limits::APPLY_WINDOW_COMMANDS as u64 {
            return overloaded("commands wait for the host to apply them", limits::APPLY_WINDOW_COMMANDS);
        }
        Ok(())
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        if waiting {
            self.arrived.notify_all();
        }
    }

    /// Refuses everything from now on; [`Shared::next`] says so.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        self.wake(state);
    }

    /// Takes notice that the host polled these completions: they are in flight no longer.
    pub(crate) fn release(&self, mut records: &[u8]) {
        let mut answered = 0;
        while let Some((prefix, rest)) = records.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*prefix) as usize;
            // All but the CLOSED record, which has a type only, are completions.
            answered += usize::from(length > 1);
            records = rest.get(length..).unwrap_or_default();
        }
        self.in_flight.fetch_sub(answered, Ordering::AcqRel);
    }

    /// Moves what was submitted into `inbox`, waiting for something to come until `until`. False once closed.
    pub(crate) fn next(&self, inbox: &mut Vec<Asked>, until: Option<Instant>) -> bool {
        let mut state = self.state.lock();
        while state.inbox.is_empty() && !state.closed {
            state.waiting = true;
            match until {
                None => self.arrived.wait(&mut state),
                Some(until) => {
                    if self.arrived.wait_until(&mut state, until).timed_out() {
                        break;
                    }
                }
            }
        }
        state.waiting = false;
        std::mem::swap(inbox, &mut state.inbox);
        !state.closed
    }
}

/// The ENTRY that a command with that ticket would have become.
pub(crate) fn committed(asked: &Asked) -> Option<Committed> {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (asked.ticket < OTHER_TICKETS).then(|| Committed {
        id: CommandId { node: 1, incarnation: 1, sequence: asked.ticket },
        local: true,
        index: asked.ticket,
        term: 1,
        time_ms: since_1970.as_millis() as u64,
        seed: asked.ticket,
        body: asked.body.clone(),
    })
}
