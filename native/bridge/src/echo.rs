//! A session that answers every submission with its own body: what is left of a node when all but the boundary to the
//! host is taken away. It exists to test that boundary, and to measure it.
//!
//! Answers come from one thread of its own, in the order of submission. A body that begins with `!echo ` asks for
//! something else:
//!
//! | body | what happens |
//! |---|---|
//! | `!echo panic` | `submit` panics, nothing is registered |
//! | `!echo fail CODE` | the answer is a failure of that code (a number) |
//! | `!echo delay MS` | the answer comes so many milliseconds later, out of order; `Timeout` when the timeout is shorter |
//! | `!echo large BYTES` | the answer has so many bytes, all `x` |
//! | `!echo log TEXT` | the text is logged at info, then echoed like any body |
//!
//! With `mirror`, commands are also put on the apply queue as ENTRY records, with indexes from 1.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use bytes::{BufMut, Bytes};
use parking_lot::{Condvar, Mutex, MutexGuard};
use quorate_engine::machine::Committed;
use quorate_engine::records::RecordQueue;
use quorate_engine::session::{Kind, Op, Polled, Queue, Session};
use quorate_engine::{Code, CommandId, Failure, limits};

use crate::echo_request::Request;
use crate::echo_worker::Worker;

/// Tickets of what is no command count from here.
const OTHER_TICKETS: u64 = 1 << 62;

/// The echo's configuration.
#[derive(Clone, Debug)]
pub struct EchoConfig {
    /// What [`Op::Identity`] and [`Op::Status`] tell.
    pub name: String,
    /// Whether commands are put on the apply queue too.
    pub mirror: bool,
    /// Submissions accepted and not yet polled, in number; beyond it they are refused with `Overloaded`.
    pub in_flight: usize,
}

/// See the module.
pub struct Echo {
    shared: Arc<Shared>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

/// What `submit`, `poll` and the worker share.
pub(crate) struct Shared {
    pub(crate) config: EchoConfig,
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

impl Echo {
    /// Starts an echo with its thread. Fails with `Internal` when the thread cannot be started.
    pub fn start(config: EchoConfig) -> Result<Arc<Echo>, Failure> {
        let shared = Arc::new(Shared {
            events: RecordQueue::new(limits::EVENTS_MAX),
            apply: RecordQueue::new(limits::APPLY_WINDOW_COMMANDS),
            in_flight: AtomicUsize::new(0),
            acknowledged: AtomicU64::new(0),
            state: Mutex::default(),
            arrived: Condvar::new(),
            config,
        });
        let mut worker = Worker::new(shared.clone());
        let thread = std::thread::Builder::new()
            .name(format!("echo-{}", shared.config.name))
            .spawn(move || worker.run())
            .map_err(|error| Failure::internal(format!("The echo's thread cannot be started: {error}")))?;
        Ok(Arc::new(Echo { shared, worker: Mutex::new(Some(thread)) }))
    }
}

impl Session for Echo {
    fn submit(&self, kind: Kind, body: Bytes, timeout: Duration) -> Result<u64, Failure> {
        if body.len() > limits::ENTRY_BYTES_MAX {
            return Err(Failure::new(
                Code::TooLarge,
                format!("The body has {} bytes; at most {} are accepted.", body.len(), limits::ENTRY_BYTES_MAX),
            ));
        }
        let request = Request::parse(&body)?;
        if request == Request::Panic {
            panic!("The echo was asked to panic.");
        }
        self.shared.accept(kind, Asked { ticket: 0, body, request, at: Instant::now(), timeout })
    }

    fn poll(&self, queue: Queue, out: &mut [u8], acknowledged: u64, wait: Duration) -> Polled {
        if queue == Queue::Apply {
            self.shared.acknowledged.fetch_max(acknowledged, Ordering::AcqRel);
            return self.shared.apply.poll(out, wait);
        }
        let polled = self.shared.events.poll(out, wait);
        if let Polled::Bytes(bytes) = polled {
            self.shared.release(&out[..bytes]);
        }
        polled
    }

    fn control(&self, op: Op, _body: Bytes) -> Result<Vec<u8>, Failure> {
        let in_flight = self.shared.in_flight.load(Ordering::Acquire);
        match op {
            Op::Status => Ok(format!("{{:engine :echo, :in-flight {in_flight}}}").into_bytes()),
            Op::Metrics => Ok(format!("quorate_in_flight {in_flight}\n").into_bytes()),
            Op::Identity => {
                let mut answer = Vec::new();
                answer.put_u64_le(1);
                answer.put_u64_le(1);
                answer.put_slice(self.shared.config.name.as_bytes());
                Ok(answer)
            }
            other => Err(Failure::invalid(format!("The echo does not answer {other:?}."))),
        }
    }

    fn close(&self) {
        self.shared.close();
        let mut worker = self.worker.lock();
        if let Some(thread) = worker.take()
            && thread.join().is_err()
        {
            tracing::error!("The echo's thread had panicked.");
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn accept(&self, kind: Kind, mut asked: Asked) -> Result<u64, Failure> {
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
        if self.in_flight.load(Ordering::Acquire) >= self.config.in_flight {
            return overloaded("submissions wait for their answers; no more are accepted", self.config.in_flight);
        }
        let unapplied = state.commands.saturating_sub(self.acknowledged.load(Ordering::Acquire));
        if self.config.mirror && kind == Kind::Command && unapplied >= limits::APPLY_WINDOW_COMMANDS as u64 {
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

    fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        self.wake(state);
    }

    /// Takes notice that the host polled these completions: they are in flight no longer.
    fn release(&self, mut records: &[u8]) {
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
