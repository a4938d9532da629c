//! One `stream_append`: requests go out as they come, answers come back in the order of the requests.
//!
//! A single task polls the request stream and the socket. A request without entries may be held back for a moment (see
//! [`super::hold`]); when it then rides on the next one, it has no answer of its own: the answer to that one says that
//! the follower's log matches beyond it, which openraft takes as the answer to both. No answer is ever made up, since
//! answers prolong the leader's lease.

use std::collections::VecDeque;

use futures_util::{Stream as Requests, StreamExt};
use openraft::errors::RPCError;
use tokio::time::{Duration, Instant};

use crate::consensus::types::TypeConfig;
use crate::error::{Code, Failure};
use crate::planted::{self, Defect};

use super::alarm::Alarm;
use super::appends::Appends;
use super::codec::{Answer, Request};
use super::errors::{broken, unreachable};
use super::split::split;
use super::stream::Stream;

/// How long a request without entries waits for one with entries to ride on.
const HOLD: Duration = Duration::from_millis(1);

type Item = Result<Answer, RPCError<TypeConfig>>;

struct Held {
    request: Request,
    until: Instant,
}

enum Event {
    Request(Option<Request>),
    Due,
    Turned(Result<Option<Answer>, Failure>),
    Stalled,
}

/// The state of one `stream_append`.
pub(super) struct Pipeline<'a, S> {
    appends: &'a mut Appends,
    address: &'a str,
    input: Option<S>,
    patience: Duration,
    /// Requests that are next to be sent.
    ready: VecDeque<Request>,
    held: Option<Held>,
    alarm: Alarm,
    begun: bool,
    /// Answers that nobody gave, see [`Defect::CommitWithoutQuorum`].
    forged: VecDeque<Answer>,
}

impl<'a, S: Requests<Item = Request> + Unpin> Pipeline<'a, S> {
    /// Over the open stream of `appends`, to `address`; gives the peer up when nothing moves for `patience`.
    pub(super) fn new(appends: &'a mut Appends, address: &'a str, input: S, patience: Duration) -> Pipeline<'a, S> {
        let (ready, forged) = (VecDeque::new(), VecDeque::new());
        Pipeline {
            appends,
            address,
            input: Some(input),
            patience,
            ready,
            held: None,
            alarm: Alarm::default(),
            begun: false,
            forged,
        }
    }

    /// The next answer. `None` after the last one, and after an answer or an error that ends the stream.
    pub(super) async fn next(&mut self) -> Option<Item> {
        loop {
            if let Err(failure) = self.send_ready() {
                return Some(self.fail(&failure, unreachable));
            }
            if let Some(answer) = self.forged.pop_front() {
                return Some(Ok(answer));
            }
            let stream = self.appends.stream.as_mut()?;
            if self.input.is_none() && self.held.is_none() && self.ready.is_empty() && stream.pending() == 0 {
                return None;
            }
            match event(stream, self.input.as_mut(), self.held.as_ref(), &mut self.alarm, self.patience).await {
                Event::Turned(Ok(None)) => {}
                Event::Turned(Ok(Some(answer))) => return Some(self.answered(answer)),
                Event::Turned(Err(failure)) => return Some(self.fail(&failure, broken)),
                Event::Stalled => return Some(self.stalled()),
                Event::Due => self.release(),
                Event::Request(Some(request)) => self.take(request),
                Event::Request(None) => {
                    self.input = None;
                    self.release();
                }
            }
        }
    }

    fn send_ready(&mut self) -> Result<(), Failure> {
        let Some(stream) = self.appends.stream.as_mut() else { return Ok(()) };
        while stream.room()
            && let Some(request) = self.ready.pop_front()
        {
            stream.push(&request)?;
            if let Some(last) = request.entries.last()
                && planted::is(Defect::CommitWithoutQuorum)
            {
                stream.disown();
                self.forged.push_back(Ok(Some(last.log_id)));
            }
        }
        Ok(())
    }

    /// The first request of a stream is never held: it may be a heartbeat or a probe, for which somebody waits.
    fn take(&mut self, request: Request) {
        if !request.entries.is_empty() {
            if self.held.take().is_some() {
                self.appends.hold.rode();
            }
        } else if let Some(held) = &mut self.held {
            held.request = request; // the same, but with a later commit index
            return;
        } else if self.begun && self.appends.hold.worthwhile() {
            self.held = Some(Held { request, until: Instant::now() + HOLD });
            return;
        }
        self.begun = true;
        self.ready = split(request);
    }

    fn release(&mut self) {
        if let Some(held) = self.held.take() {
            self.appends.hold.expired();
            self.ready.push_back(held.request);
        }
    }

    /// After any answer but a plain match the follower ends the stream.
    fn answered(&mut self, answer: Answer) -> Item {
        self.appends.answered();
        if answer.is_err() {
            self.appends.stream = None;
        }
        Ok(answer)
    }

    fn stalled(&mut self) -> Item {
        let message = format!("{} answered nothing for {} ms.", self.address, self.patience.as_millis());
        self.fail(&Failure::new(Code::Timeout, message), unreachable)
    }

    fn fail(&mut self, failure: &Failure, error: fn(&Failure) -> RPCError<TypeConfig>) -> Item {
        if let Some(stream) = self.appends.stream.take() {
            stream.failed(failure);
        }
        Err(error(failure))
    }
}

/// Waits for the next thing to happen. Answers come first: they free what waits for them.
async fn event<S: Requests<Item = Request> + Unpin>(
    stream: &mut Stream,
    input: Option<&mut S>,
    held: Option<&Held>,
    alarm: &mut Alarm,
    patience: Duration,
) -> Event {
    let (room, stalls) = (stream.room(), stream.stalls_at(patience));
    let due = held.map(|held| held.until).filter(|_| room);
    let first = due.into_iter().chain(stalls).min();
    tokio::select! {
        biased;
        turned = stream.turn() => Event::Turned(turned),
        request = next(input), if room => Event::Request(request),
        () = alarm.at(first) => if first == due { Event::Due } else { Event::Stalled },
    }
}

async fn next<S: Requests + Unpin>(input: Option<&mut S>) -> Option<S::Item> {
    match input {
        Some(input) => input.next().await,
        None => std::future::pending().await,
    }
}
