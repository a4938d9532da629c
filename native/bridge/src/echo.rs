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
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes};
use parking_lot::Mutex;
use quorate_engine::session::{Kind, Op, Polled, Queue, Session};
use quorate_engine::{Code, Failure, limits};

use crate::echo_request::Request;
use crate::echo_shared::{Asked, Shared};
use crate::echo_worker::Worker;

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
    name: String,
    shared: Arc<Shared>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

impl Echo {
    /// Starts an echo with its thread. Fails with `Internal` when the thread cannot be started.
    pub fn start(config: EchoConfig) -> Result<Arc<Echo>, Failure> {
        let shared = Arc::new(Shared::new(config.mirror, config.in_flight));
        let mut worker = Worker::new(shared.clone());
        let thread = std::thread::Builder::new()
            .name(format!("echo-{}", config.name))
            .spawn(move || worker.run())
            .map_err(|error| Failure::internal(format!("The echo's thread cannot be started: {error}")))?;
        Ok(Arc::new(Echo { name: config.name, shared, worker: Mutex::new(Some(thread)) }))
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
            self.shared.acknowledge(acknowledged);
            return self.shared.apply.poll(out, wait);
        }
        let polled = self.shared.events.poll(out, wait);
        if let Polled::Bytes(bytes) = polled {
            self.shared.release(&out[..bytes]);
        }
        polled
    }

    fn control(&self, op: Op, _body: Bytes) -> Result<Vec<u8>, Failure> {
        let in_flight = self.shared.in_flight();
        match op {
            Op::Status => Ok(format!("{{:engine :echo, :in-flight {in_flight}}}").into_bytes()),
            Op::Metrics => Ok(format!("quorate_in_flight {in_flight}\n").into_bytes()),
            Op::Identity => {
                let mut answer = Vec::new();
                answer.put_u64_le(1);
                answer.put_u64_le(1);
                answer.put_slice(self.name.as_bytes());
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
