//! Requests that are not commands (reads, barriers, membership changes, snapshots): each gets a ticket and exactly one answer.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::{Code, Failure};
use crate::limits::READS_MAX;
use crate::machine::Outcome;
use crate::node::pending::{Due, Reply};

/// Tickets of requests begin here, so that they never meet those of commands.
pub const FIRST_TICKET: u64 = 1 << 62;

/// What a request that is late may still do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: it only reads.
    None,
    /// It may still take effect.
    Possible,
}

struct Request {
    deadline: Instant,
    reply: Reply,
    effect: Effect,
}

struct State {
    next: u64,
    open: BTreeMap<u64, Request>,
    closed: bool,
}

/// The open requests of one node.
pub struct Requests(Mutex<State>);

impl Default for Requests {
    fn default() -> Requests {
        Requests(Mutex::new(State { next: FIRST_TICKET, open: BTreeMap::new(), closed: false }))
    }
}

impl Requests {
    /// Registers a request. Fails with `Closed` or `Overloaded`; then nothing is registered.
    pub fn open(&self, timeout: Duration, reply: Reply, effect: Effect) -> Result<u64, Failure> {
        let mut state = self.0.lock();
        if state.closed {
            return Err(Failure::closed());
        }
        if state.open.len() >= READS_MAX {
            let message = format!("{READS_MAX} requests wait for their answer; take fewer at a time.");
            return Err(Failure::new(Code::Overloaded, message));
        }
        let ticket = state.next;
        state.next += 1;
        state.open.insert(ticket, Request { deadline: Instant::now() + timeout, reply, effect });
        Ok(ticket)
    }

    /// When `ticket` is due at the latest; `None` once answered.
    pub fn deadline(&self, ticket: u64) -> Option<Instant> {
        self.0.lock().open.get(&ticket).map(|request| request.deadline)
    }

    /// Takes `ticket` out with its answer; `None` when it was answered before.
    pub fn finish(&self, ticket: u64, outcome: Outcome) -> Option<Due> {
        let request = self.0.lock().open.remove(&ticket)?;
        Some((ticket, request.reply, outcome))
    }

    /// Takes out what is past its deadline: `Unavailable`, or `Timeout` when it may still take effect.
    pub fn expire(&self, now: Instant) -> Vec<Due> {
        let mut state = self.0.lock();
        let late = state.open.iter().filter(|(_, request)| request.deadline <= now).map(|(ticket, _)| *ticket);
        let late: Vec<u64> = late.collect();
        let taken = late.into_iter().filter_map(|ticket| Some((ticket, state.open.remove(&ticket)?)));
        taken.map(|(ticket, request)| (ticket, request.reply, Err(overdue(request.effect)))).collect()
    }

    /// Refuses everything from now on and takes out what is left, each with `Closed`.
    pub fn close(&self) -> Vec<Due> {
        let mut state = self.0.lock();
        state.closed = true;
        std::mem::take(&mut state.open)
            .into_iter()
            .map(|(ticket, request)| (ticket, request.reply, Err(Failure::closed())))
            .collect()
    }

    /// Requests without an answer.
    pub fn len(&self) -> usize {
        self.0.lock().open.len()
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn overdue(effect: Effect) -> Failure {
    match effect {
        Effect::None => Failure::new(Code::Unavailable, "No quorum answered in time; the request has no effect."),
        Effect::Possible => Failure::new(Code::Timeout, "There was no answer in time; it may still take effect."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_late_says_whether_it_may_still_take_effect() {
        let requests = Requests::default();
        let (now, soon) = (Instant::now(), Duration::from_secs(1));
        let read = requests.open(soon, Reply::Observer, Effect::None).unwrap();
        let change = requests.open(soon, Reply::Observer, Effect::Possible).unwrap();
        let patient = requests.open(soon * 100, Reply::Observer, Effect::None).unwrap();
        assert!(requests.expire(now).is_empty());
        let mut due: Vec<_> = requests.expire(now + soon * 2).into_iter().map(|(one, _, out)| (one, out)).collect();
        due.sort_by_key(|(ticket, _)| *ticket);
        let codes = due.into_iter().map(|(ticket, outcome)| (ticket, outcome.unwrap_err().code)).collect::<Vec<_>>();
        assert_eq!(codes, [(read, Code::Unavailable), (change, Code::Timeout)]);
        assert!(requests.finish(read, Ok(Default::default())).is_none());
        assert_eq!(requests.close()[0].0, patient);
        assert_eq!(requests.open(soon, Reply::Observer, Effect::None).unwrap_err().code, Code::Closed);
    }
}
