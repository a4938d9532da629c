//! The echo's thread: takes what was submitted, answers it in bursts, keeps what is to be answered later.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use quorate_engine::machine::Outcome;
use quorate_engine::{Code, Failure, records};

use crate::echo_request::Request;
use crate::echo_shared::{Asked, Shared, committed};

pub(crate) struct Worker {
    shared: Arc<Shared>,
    /// Answers by the time when they are due, and their ticket.
    later: BTreeMap<(Instant, u64), Outcome>,
    answers: Vec<u8>,
    entries: Vec<u8>,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>) -> Worker {
        Worker { shared, later: BTreeMap::new(), answers: Vec::new(), entries: Vec::new() }
    }

    /// Works until the echo is closed; then everybody who waits gets `Closed`, and both queues end.
    pub(crate) fn run(&mut self) {
        let mut inbox = Vec::new();
        loop {
            let due = self.later.keys().next().map(|(at, _)| *at);
            if !self.shared.next(&mut inbox, due) {
                break;
            }
            inbox.drain(..).for_each(|asked| self.answer(asked));
            self.answer_what_is_due(Instant::now());
            self.deliver();
        }
        for asked in inbox {
            records::completion(&mut self.answers, asked.ticket, &Err(Failure::closed()));
        }
        for ((_, ticket), _) in std::mem::take(&mut self.later) {
            records::completion(&mut self.answers, ticket, &Err(Failure::closed()));
        }
        self.deliver();
        self.close_queues();
    }

    fn answer(&mut self, asked: Asked) {
        if self.shared.mirror
            && let Some(command) = committed(&asked)
        {
            records::entry(&mut self.entries, &command);
        }
        let outcome = match asked.request {
            Request::Fail(code) => Err(Failure::new(code, "The echo was asked to fail.")),
            Request::Large(bytes) => Ok(Bytes::from(vec![b'x'; bytes])),
            Request::Delay(delay) => return self.put_off(asked, delay),
            Request::Log(text) => {
                tracing::info!("{text}");
                Ok(asked.body)
            }
            Request::Plain | Request::Panic => Ok(asked.body),
        };
        records::completion(&mut self.answers, asked.ticket, &outcome);
    }

    fn put_off(&mut self, asked: Asked, delay: std::time::Duration) {
        let (wait, outcome) = if delay <= asked.timeout {
            (delay, Ok(asked.body))
        } else {
            (asked.timeout, Err(Failure::new(Code::Timeout, "The answer was put off beyond the timeout.")))
        };
        // A wait beyond the clock's end is one until the close, which answers whatever is left.
        let due = asked.at.checked_add(wait).unwrap_or_else(|| asked.at + std::time::Duration::from_secs(1 << 32));
        self.later.insert((due, asked.ticket), outcome);
    }

    fn answer_what_is_due(&mut self, now: Instant) {
        while let Some(first) = self.later.first_entry() {
            if first.key().0 > now {
                break;
            }
            let ((_, ticket), outcome) = first.remove_entry();
            records::completion(&mut self.answers, ticket, &outcome);
        }
    }

    fn deliver(&mut self) {
        if !self.entries.is_empty() {
            self.shared.apply.push(&self.entries);
            self.entries.clear();
        }
        if !self.answers.is_empty() {
            self.shared.events.push(&self.answers);
            self.answers.clear();
        }
    }

    fn close_queues(&self) {
        let mut last = Vec::new();
        records::apply_closed(&mut last);
        self.shared.apply.close(&last);
        last.clear();
        records::events_closed(&mut last);
        self.shared.events.close(&last);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quorate_engine::codec::Reader;
    use quorate_engine::limits;
    use quorate_engine::session::{Kind, Op, Polled, Queue, Session};

    use super::*;
    use crate::echo::{Echo, EchoConfig};

    const LONG: Duration = Duration::from_secs(20);

    fn echo(in_flight: usize, mirror: bool) -> Arc<Echo> {
        Echo::start(EchoConfig { name: "e".into(), mirror, in_flight }).expect("an echo")
    }

    fn ask(echo: &Echo, body: &str) -> Result<u64, Code> {
        echo.submit(Kind::Command, Bytes::copy_from_slice(body.as_bytes()), LONG).map_err(|failure| failure.code)
    }

    /// Ticket, status and payload of the completions until `count` came or the queue closed.
    fn answers(echo: &Echo, count: usize) -> Vec<(u64, u8, String)> {
        let mut found = Vec::new();
        let mut out = vec![0; 1 << 16];
        while found.len() < count {
            let bytes = match echo.poll(Queue::Events, &mut out, 0, LONG) {
                Polled::Bytes(bytes) => bytes,
                Polled::NeedsBytes(bytes) => {
                    out.resize(bytes, 0);
                    continue;
                }
                Polled::Closed => break,
            };
            let mut reader = Reader::new(Bytes::copy_from_slice(&out[..bytes]));
            while let Ok(record) = reader.bytes() {
                let mut one = Reader::new(record);
                if one.u8() == Ok(1) {
                    let (ticket, status) = (one.u64().expect("a ticket"), one.u8().expect("a status"));
                    let payload = one.take(one.remaining()).expect("the rest");
                    found.push((ticket, status, String::from_utf8_lossy(&payload).into_owned()));
                }
            }
        }
        found
    }

    #[test]
    fn bodies_come_back_in_order() {
        let echo = echo(100, false);
        let tickets: Vec<_> = (0..50).map(|n| ask(&echo, &format!("body {n}"))).collect();
        let found = answers(&echo, 50);
        for (n, ticket) in tickets.into_iter().enumerate() {
            assert_eq!(found[n], (ticket.expect("accepted"), 0, format!("body {n}")));
        }
    }

    #[test]
    fn special_bodies_do_what_they_say() {
        let echo = echo(100, false);
        ask(&echo, "!echo fail 8").expect("accepted");
        ask(&echo, "!echo large 70000").expect("accepted");
        let found = answers(&echo, 2);
        assert_eq!((found[0].0, found[0].1), (1, 8));
        assert_eq!(found[1], (2, 0, "x".repeat(70_000)));
        assert_eq!(ask(&echo, "!echo what"), Err(Code::Invalid));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ask(&echo, "!echo panic")));
        assert!(panicked.is_err());
        assert_eq!(ask(&echo, "after"), Ok(3), "a panic registers nothing and breaks nothing");
        assert_eq!(answers(&echo, 1), [(3, 0, "after".into())]);
    }

    #[test]
    fn a_delayed_answer_lets_others_pass_and_a_short_timeout_wins() {
        let echo = echo(100, false);
        ask(&echo, "!echo delay 60").expect("accepted");
        echo.submit(Kind::Command, Bytes::from("!echo delay 50000"), Duration::from_millis(20)).expect("accepted");
        ask(&echo, "at once").expect("accepted");
        let order: Vec<_> = answers(&echo, 3).into_iter().map(|(ticket, status, _)| (ticket, status)).collect();
        assert_eq!(order, [(3, 0), (2, Code::Timeout as u8), (1, 0)]);
    }

    #[test]
    fn the_window_refuses_what_is_too_much_and_opens_when_answers_are_polled() {
        let echo = echo(2, false);
        assert_eq!([ask(&echo, "1"), ask(&echo, "2"), ask(&echo, "3")], [Ok(1), Ok(2), Err(Code::Overloaded)]);
        assert_eq!(answers(&echo, 2).len(), 2);
        assert_eq!(ask(&echo, "4"), Ok(3));
        let large = vec![0; limits::ENTRY_BYTES_MAX + 1];
        let refused = echo.submit(Kind::Command, Bytes::from(large), LONG);
        assert_eq!(refused.map_err(|failure| failure.code), Err(Code::TooLarge));
    }

    #[test]
    fn close_answers_everybody_once_and_refuses_the_rest() {
        let echo = echo(1000, true);
        (0..10).for_each(|_| assert!(ask(&echo, "!echo delay 60000").is_ok()));
        echo.close();
        echo.close();
        assert_eq!(ask(&echo, "late"), Err(Code::Closed));
        let found = answers(&echo, usize::MAX);
        let mut tickets: Vec<_> = found.iter().map(|(ticket, ..)| *ticket).collect();
        // Delayed answers and those not yet looked at are closed one after the other: each once, in no order.
        tickets.sort_unstable();
        assert_eq!(tickets, (1..=10).collect::<Vec<_>>());
        assert!(found.iter().all(|(_, status, _)| *status == Code::Closed as u8));
        assert_eq!(echo.poll(Queue::Events, &mut [0; 64], 0, LONG), Polled::Closed);
    }

    #[test]
    fn a_mirror_fills_the_apply_queue_up_to_its_window() {
        let echo = echo(limits::IN_FLIGHT_MAX, true);
        let window = limits::APPLY_WINDOW_COMMANDS as u64;
        (1..=window).for_each(|n| assert_eq!(ask(&echo, "b"), Ok(n)));
        assert_eq!(ask(&echo, "b"), Err(Code::Overloaded));
        let mut out = [0; 512];
        let Polled::Bytes(bytes) = echo.poll(Queue::Apply, &mut out, 0, LONG) else { panic!("no entries") };
        let mut first = Reader::new(Bytes::copy_from_slice(&out[4..bytes]));
        assert_eq!((first.u8(), first.u64()), (Ok(1), Ok(1)));
        echo.poll(Queue::Apply, &mut out, 5, LONG);
        assert_eq!(ask(&echo, "b"), Ok(window + 1));
    }

    #[test]
    fn control_tells_who_it_is() {
        let echo = echo(2, false);
        assert_eq!(echo.control(Op::Identity, Bytes::new()).map(|answer| answer[16..].to_vec()), Ok(b"e".to_vec()));
        let status = echo.control(Op::Status, Bytes::new()).expect("a status");
        assert_eq!(status, b"{:engine :echo, :in-flight 0}");
        assert!(echo.control(Op::Watch, Bytes::new()).is_err());
    }
}
