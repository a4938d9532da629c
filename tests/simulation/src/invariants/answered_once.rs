//! Every accepted id is answered exactly once, as long as its node lives.

use std::collections::BTreeMap;

use super::{Holds, Violation};

const NAME: &str = "answered_once";

/// A command as its node knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    /// Which node took it.
    pub node: usize,
    /// In which of its lives.
    pub life: u64,
    /// Under which sequence number.
    pub sequence: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open { until: u64 },
    Answered,
}

/// What was accepted, and what became of it.
#[derive(Debug, Default)]
pub struct AnsweredOnce {
    tickets: BTreeMap<Ticket, State>,
}

impl AnsweredOnce {
    /// A node accepted a command and promised an answer by `until` (ms).
    pub fn accepted(&mut self, ticket: Ticket, until: u64) -> Holds {
        match self.tickets.insert(ticket, State::Open { until }) {
            Some(_) => Err(Violation::new(NAME, format!("{ticket:?} was given out twice"))),
            None => Ok(()),
        }
    }

    /// An answer came.
    pub fn answered(&mut self, ticket: Ticket) -> Holds {
        match self.tickets.insert(ticket, State::Answered) {
            Some(State::Open { .. }) => Ok(()),
            Some(State::Answered) => Err(Violation::new(NAME, format!("{ticket:?} was answered a second time"))),
            None => Err(Violation::new(NAME, format!("{ticket:?} was answered and never accepted"))),
        }
    }

    /// A node closed in good order: nothing of it may be open.
    pub fn closed(&mut self, node: usize, life: u64) -> Holds {
        let open = self.of(node, life).find(|(_, state)| **state != State::Answered).map(|(ticket, _)| *ticket);
        match open {
            Some(ticket) => Err(Violation::new(NAME, format!("{ticket:?} was not answered when its node closed"))),
            None => Ok(()),
        }
    }

    /// A node crashed: who waited there will never be answered.
    pub fn crashed(&mut self, node: usize, life: u64) {
        self.tickets.retain(|ticket, state| (ticket.node, ticket.life) != (node, life) || *state == State::Answered);
    }

    /// It is `now` (ms): nothing may be overdue.
    pub fn at_end(&self, now: u64) -> Holds {
        let late = self.tickets.iter().find(|(_, state)| matches!(state, State::Open { until } if *until < now));
        match late {
            Some((ticket, state)) => {
                Err(Violation::new(NAME, format!("{ticket:?} is not answered: {state:?} at {now}")))
            }
            None => Ok(()),
        }
    }

    fn of(&self, node: usize, life: u64) -> impl Iterator<Item = (&Ticket, &State)> {
        let first = Ticket { node, life, sequence: 0 };
        let end = Ticket { node, life: life + 1, sequence: 0 };
        self.tickets.range(first..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(sequence: u64) -> Ticket {
        Ticket { node: 1, life: 2, sequence }
    }

    #[test]
    fn second_missing_and_unasked_answers_are_found() {
        let mut answered = AnsweredOnce::default();
        assert_eq!(answered.accepted(ticket(1), 100), Ok(()));
        assert!(answered.accepted(ticket(1), 100).is_err(), "the same number again");
        assert_eq!(answered.answered(ticket(1)), Ok(()));
        assert!(answered.answered(ticket(1)).is_err(), "twice");
        assert!(answered.answered(ticket(7)).is_err(), "never accepted");
        let mut answered = AnsweredOnce::default();
        answered.accepted(ticket(2), 100).unwrap();
        assert_eq!(answered.at_end(100), Ok(()));
        assert!(answered.at_end(101).is_err(), "overdue");
        assert!(answered.closed(1, 2).is_err(), "left open at close");
        answered.crashed(1, 2);
        assert_eq!((answered.closed(1, 2), answered.at_end(1_000)), (Ok(()), Ok(())));
    }
}
