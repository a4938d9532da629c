//! Starting, using and closing a node from Rust.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::runtime::EnterGuard;
use tokio::sync::oneshot;

use crate::config::{MachineKind, NodeConfig};
use crate::error::Failure;
use crate::machine::Outcome;
use crate::node::applier;
use crate::node::asking;
use crate::node::asks;
use crate::node::core::Core;
use crate::node::inspect::{self, Inspection, LogEntry};
use crate::node::launch::{self, Machine, Workers};
use crate::node::membership;
use crate::node::messages::Change;
use crate::node::observer::Observer;
use crate::node::pending::{Fate, Reply};
use crate::node::read_queue::Then;
use crate::node::reads;
use crate::node::requests::Effect;
use crate::node::status;
use crate::session::{Consistency, Polled};
use crate::surroundings::{Surroundings, is_inline};
use crate::worker::Worker;

/// How long closing waits for the threads of a node.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// How often it looks.
const JOIN_LOOK: Duration = Duration::from_millis(1);

/// One running member of a cluster. Dropping it closes it.
pub struct Node {
    core: Arc<Core>,
    handle: tokio::runtime::Handle,
    workers: Mutex<Option<Workers>>,
}

impl Node {
    /// Starts a node with the machine that `config` names. Returns when its directory is locked and its port bound;
    /// finding the cluster goes on after that. Fails with `Invalid`, `Locked`, `AddressInUse`, `Corrupt`, `Io`.
    pub fn start(config: NodeConfig, observer: Arc<dyn Observer>) -> Result<Node, Failure> {
        let machine = match config.machine {
            MachineKind::KeyValue => Machine::KeyValue,
            MachineKind::Hosted => Machine::Hosted,
        };
        Node::start_with(config, machine, observer)
    }

    /// As [`Node::start`], with `machine` as the state machine.
    pub fn start_with(config: NodeConfig, machine: Machine, observer: Arc<dyn Observer>) -> Result<Node, Failure> {
        if is_inline() {
            return Err(Failure::invalid("On a thread with a chance of its own only inline nodes can be started."));
        }
        let (core, applier, snapshots) = launch::open(config, machine, observer, None)?;
        let (handle, workers) = launch::launch(&core, applier, snapshots)?;
        Ok(Node { core, handle, workers: Mutex::new(Some(workers)) })
    }

    /// Starts a node that has no threads: all its work is done by tasks of the present runtime, which must run on one thread,
    /// in `surroundings`. With paused time, and random numbers from a seed ([`crate::surroundings::enter`], which this
    /// thread must have called, and which must hold whenever the runtime runs), it does the same each time.
    /// Dropping the runtime without [`Node::close_inline`] is a crash. Otherwise as [`Node::start_with`].
    pub async fn start_inline(
        config: NodeConfig,
        machine: Machine,
        observer: Arc<dyn Observer>,
        surroundings: Surroundings,
    ) -> Result<Node, Failure> {
        if !is_inline() {
            return Err(Failure::invalid("An inline node needs a thread with a chance of its own."));
        }
        let (core, applier, snapshots) = launch::open(config, machine, observer, Some(surroundings))?;
        let (handle, workers) = launch::launch_inline(&core, applier, snapshots).await?;
        Ok(Node { core, handle, workers: Mutex::new(Some(workers)) })
    }

    /// Accepts a command; `reply` gets its outcome, exactly once, at the latest after `timeout`. Returns its sequence
    /// number. Fails with `Closed`, `TooLarge`, `Overloaded`; then nothing was registered.
    pub fn submit(&self, body: Bytes, timeout: Duration, reply: Reply) -> Result<u64, Failure> {
        let _clock = self.clock();
        self.core.pending.submit(body, timeout, reply)
    }

    /// Deadlines of an inline node are of its own runtime's clock, wherever it is called from.
    fn clock(&self) -> Option<EnterGuard<'_>> {
        self.core.surroundings.is_some().then(|| self.handle.enter())
    }

    /// As [`Node::submit`], with the outcome as a future.
    pub fn write(&self, body: Bytes, timeout: Duration) -> BoxFuture<'static, Outcome> {
        let (reply, answer) = oneshot::channel();
        // The receiver may be dropped by a caller who lost interest.
        let submitted = self.submit(body, timeout, Reply::Call(Box::new(move |outcome| drop(reply.send(outcome)))));
        Box::pin(async move {
            submitted?;
            answer.await.map_err(|_| Failure::closed())?
        })
    }

    /// Waits until this node has applied everything committed before the call, and gives the applied index.
    /// Fails with `Unavailable` when no quorum confirms it within `timeout`.
    pub fn barrier(&self, consistency: Consistency, timeout: Duration) -> BoxFuture<'static, Result<u64, Failure>> {
        let answer =
            self.request(timeout, Effect::None, |core, ticket| reads::submit(core, ticket, consistency, Then::Index));
        Box::pin(async move {
            let index = answer.await?;
            let index: [u8; 8] =
                index[..].try_into().map_err(|_| Failure::internal("An index must have eight bytes."))?;
            Ok(u64::from_le_bytes(index))
        })
    }

    /// Reads `operation` (see [`crate::kv::op`]) from the key-value store.
    pub fn read(&self, consistency: Consistency, operation: Bytes, timeout: Duration) -> BoxFuture<'static, Outcome> {
        self.request(timeout, Effect::None, |core, ticket| {
            reads::submit(core, ticket, consistency, Then::Read(operation))
        })
    }

    fn request(
        &self,
        timeout: Duration,
        effect: Effect,
        begin: impl FnOnce(&Arc<Core>, u64),
    ) -> BoxFuture<'static, Outcome> {
        let (reply, answer) = oneshot::channel();
        let reply = Reply::Call(Box::new(move |outcome| drop(reply.send(outcome))));
        let opened = self.open_request(timeout, reply, effect);
        if let Ok(ticket) = &opened {
            begin(&self.core, *ticket);
        }
        Box::pin(async move {
            opened?;
            answer.await.map_err(|_| Failure::closed())?
        })
    }

    /// Registers a request of another kind than a command, which some task answers by its ticket.
    pub(crate) fn open_request(&self, timeout: Duration, reply: Reply, effect: Effect) -> Result<u64, Failure> {
        let _clock = self.clock();
        self.core.requests.open(timeout, reply, effect)
    }

    /// Lets the node at `address` in under `name`, with a vote when `voter`. Fails with `Membership`, `Refused`, `Unavailable`.
    pub fn add_member(&self, name: &str, address: &str, voter: bool, timeout: Duration) -> BoxFuture<'static, Outcome> {
        self.change(Change::Add { name: name.into(), address: address.into(), voter }, timeout)
    }

    /// Takes the member `name` out. Fails with `Membership`, `Unavailable`.
    pub fn remove_member(&self, name: &str, timeout: Duration) -> BoxFuture<'static, Outcome> {
        self.change(Change::Remove { name: name.into() }, timeout)
    }

    /// Makes the member `name` the leader. Fails with `Membership`, `Unavailable`, `Timeout`.
    pub fn transfer_leader(&self, name: &str, timeout: Duration) -> BoxFuture<'static, Outcome> {
        self.change(Change::Transfer { name: name.into() }, timeout)
    }

    fn change(&self, change: Change, timeout: Duration) -> BoxFuture<'static, Outcome> {
        self.request(timeout, Effect::Possible, |core, ticket| self.begin_change(core, ticket, change))
    }

    /// Carries `change` out and answers `ticket`.
    pub(crate) fn begin_change(&self, core: &Arc<Core>, ticket: u64, change: Change) {
        let core = core.clone();
        self.handle.spawn(async move {
            let Some(deadline) = core.requests.deadline(ticket) else { return };
            let outcome = membership::change(&core, change, deadline).await;
            core.answer(ticket, outcome.map(|()| Bytes::new()));
        });
    }

    /// Takes a snapshot now and gives its index when it is durable. Fails with `Io`, `StateMachine`, `Unavailable`.
    pub fn snapshot(&self, timeout: Duration) -> BoxFuture<'static, Outcome> {
        self.request(timeout, Effect::Possible, |core, ticket| self.begin_snapshot(core, ticket))
    }

    /// Takes a snapshot and answers `ticket`.
    pub(crate) fn begin_snapshot(&self, core: &Arc<Core>, ticket: u64) {
        let core = core.clone();
        self.handle.spawn(async move {
            let outcome = match core.raft() {
                Ok(raft) => core.snapshots.take(&raft).await,
                Err(failure) => Err(failure),
            };
            core.answer(ticket, outcome.map(|index| Bytes::copy_from_slice(&index.to_le_bytes())));
        });
    }

    /// Asks the host of the member `server` and gives its answer. Fails with `Unavailable`, `Timeout`, `StateMachine` (that
    /// host refused), `TooLarge`, `Overloaded`.
    pub fn ask(&self, server: &str, question: Bytes, timeout: Duration) -> BoxFuture<'static, Outcome> {
        let (reply, answer) = oneshot::channel();
        let reply = Reply::Call(Box::new(move |outcome| drop(reply.send(outcome))));
        let opened = self.begin_ask(server.to_string(), question, timeout, reply);
        Box::pin(async move {
            opened?;
            answer.await.map_err(|_| Failure::closed())?
        })
    }

    /// Asks the host of `server`; `reply` gets the answer. Returns the ticket. Fails with `TooLarge`, `Overloaded`, `Closed`.
    pub(crate) fn begin_ask(
        &self,
        server: String,
        question: Bytes,
        timeout: Duration,
        reply: Reply,
    ) -> Result<u64, Failure> {
        asks::check(&question)?;
        let place = self.core.asks.begin()?;
        let ticket = self.open_request(timeout, reply, Effect::Possible)?;
        let core = self.core.clone();
        self.handle.spawn(async move {
            let Some(deadline) = core.requests.deadline(ticket) else { return };
            let outcome = asking::ask(&core, &server, question, deadline).await;
            drop(place);
            core.answer(ticket, outcome);
        });
        Ok(ticket)
    }

    /// Answers the question `ticket` of [`Observer::asked`]; an error is a refusal. Fails with `Invalid` when nobody waits
    /// (any more), with `TooLarge` beyond [`crate::limits::ASK_ANSWER_BYTES_MAX`].
    pub fn answer(&self, ticket: u64, outcome: Outcome) -> Result<(), Failure> {
        self.core.asks.answered(ticket, outcome)
    }

    /// Takes in a datagram that another node's [`Observer::datagram`] was given; on any thread, never waits. Fails with
    /// `Invalid` for what is none for this node (it is dropped and counted), or when the transport is not the host's.
    pub fn deliver(&self, datagram: Bytes) -> Result<(), Failure> {
        let _clock = self.clock();
        match &self.core.carried {
            Some(carried) => carried.deliver(datagram),
            None => Err(Failure::invalid("The transport of this node is not the host's.")),
        }
    }

    /// The host of a hosted machine polls its records and says how far it has applied, see [`Session::poll`]. Without a host
    /// there is nothing, and it is closed.
    ///
    /// [`Session::poll`]: crate::session::Session::poll
    pub fn poll_host(&self, out: &mut [u8], acknowledged: u64, wait: Duration) -> Polled {
        let Some(host) = &self.core.host else { return Polled::Closed };
        let _clock = self.clock();
        host.acknowledge(acknowledged);
        let moved = self.core.host_applied.send_if_modified(|applied| {
            let moved = acknowledged > *applied;
            *applied = acknowledged.max(*applied);
            moved
        });
        if moved {
            self.core.pending.acknowledge(acknowledged);
        }
        host.poll(out, wait)
    }

    /// The host of a hosted machine finished the snapshot or the installation `ticket`; an error says why it could not. Fails with
    /// `Invalid` when nobody waits for it (any more).
    pub fn host_finished(&self, ticket: u64, outcome: Result<(), Failure>) -> Result<(), Failure> {
        let host = self.core.host.as_ref();
        let host = host.ok_or_else(|| Failure::invalid("This node's machine is not hosted."))?;
        host.finished(ticket, outcome)
    }

    /// What became of the command with this sequence number of `incarnation`.
    pub fn outcome(&self, incarnation: u64, sequence: u64) -> Fate {
        match self.core.pending.identity() {
            Some((_, mine)) if mine == incarnation => {
                let low = self.core.applier.progress.borrow().own_low;
                self.core.pending.outcome(sequence, low)
            }
            _ => Fate::Unknown,
        }
    }

    /// The status as an EDN map.
    pub fn status(&self) -> String {
        let _clock = self.clock();
        status::status(&self.core)
    }

    /// Name of the present leader, as this node knows it.
    pub fn leader(&self) -> Option<String> {
        self.core.leadership.borrow().leader_name().map(str::to_string)
    }

    /// The user-visible index that this node has applied.
    pub fn index(&self) -> u64 {
        self.core.applier.progress.borrow().index
    }

    /// The consensus state: term, vote, positions, members.
    pub fn inspect(&self) -> Inspection {
        inspect::inspect(&self.core)
    }

    /// The entries of the log from index `first` to `last`, as far as it holds them, whether committed or not. Blocks for as
    /// long as reading the disk takes. Fails with `Unavailable` while the log is not open, `Corrupt`, `Io`.
    pub fn log_entries(&self, first: u64, last: u64) -> Result<Vec<LogEntry>, Failure> {
        inspect::log_entries(&self.core, first, last)
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Closes the node: everything pending is answered with `Closed`, the threads end, the directory is unlocked.
    /// Returns when that is done, or after about five seconds when a disk or a state machine hangs. May be called again.
    /// Not to be called from a callback: it waits for the thread that calls those. Of an inline node it only begins the
    /// end, which [`Node::close_inline`] waits for.
    pub fn close(&self) {
        self.begin_close();
        // Held to the end: who closes at the same time returns when it is done, too.
        let mut running = self.workers.lock();
        if running.as_ref().is_none_or(|workers| matches!(workers.main, Worker::Task(_))) {
            return;
        }
        let Some(workers) = running.take() else { return };
        let deadline = Instant::now() + CLOSE_PATIENCE;
        let mut ended = join(workers.main, "The node's own thread", deadline);
        ended &= join(workers.applier, "The applying thread", deadline);
        ended &= workers.reader.is_none_or(|reader| join(reader, "The reading thread", deadline));
        if ended {
            self.core.data.lock().unlock();
        }
    }

    /// [`Node::close`] of an inline node: ends it in good order, in its own runtime.
    pub async fn close_inline(&self) {
        self.begin_close();
        let Some(workers) = self.workers.lock().take() else { return };
        let all = [Some(workers.main), Some(workers.applier), workers.reader];
        let mut ended = true;
        for worker in all.into_iter().flatten() {
            if let Worker::Task(task) = worker {
                ended &= matches!(tokio::time::timeout(CLOSE_PATIENCE, task).await, Ok(Ok(())));
            }
        }
        match ended {
            true => self.core.data.lock().unlock(),
            false => tracing::error!("A worker does not end; the data directory stays locked as long as it runs."),
        }
    }

    fn begin_close(&self) {
        let _clock = self.clock();
        self.core.closing.store(true, Ordering::Release);
        self.core.close_bell.notify_one();
        let mut due = self.core.pending.close();
        due.extend(self.core.requests.close());
        applier::deliver(due, self.core.observer.as_ref());
        self.core.applier.queue.close();
        self.core.reads.close();
        self.core.asks.close();
        if let Some(host) = &self.core.host {
            host.close();
        }
    }
}

/// Waits for the thread of `worker` until `deadline`; true when it ended. A state machine that hangs must not hang who closes
/// the node, but as long as it may write, nobody else gets the directory.
fn join(worker: Worker, what: &str, deadline: Instant) -> bool {
    while !worker.is_finished() {
        if Instant::now() >= deadline {
            tracing::error!("{what} does not end; the data directory stays locked as long as this process lives.");
            return false;
        }
        std::thread::sleep(JOIN_LOOK);
    }
    if worker.join().is_err() {
        tracing::error!("{what} panicked.");
    }
    true
}

impl Drop for Node {
    fn drop(&mut self) {
        self.close();
    }
}
