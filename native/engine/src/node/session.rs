//! A node as a [`Session`]: its events and committed commands as records for a host to poll.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes};
use parking_lot::Mutex;

use crate::codec::Reader;
use crate::config::NodeConfig;
use crate::error::{Code, Failure};
use crate::hosted::host_failure;
use crate::kv::{KvReader, WatchSink};
use crate::limits::{DATAGRAMS_BYTES_MAX, DATAGRAMS_MAX, EVENTS_BYTES_MAX, EVENTS_MAX, LEADER_EVENTS_MAX};
use crate::machine::Outcome;
use crate::node::messages::Change;
use crate::node::metrics;
use crate::node::observer::{LeaderEvent, Observer};
use crate::node::pending::{Fate, Reply};
use crate::node::read_queue::Then;
use crate::node::reads;
use crate::node::requests::Effect;
use crate::node::start::Node;
use crate::node::status;
use crate::records::{self, RecordQueue};
use crate::session::{Consistency, Kind, Op, Polled, Queue, Session};

/// Longest timeout that a submission may have.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// The events of a node, encoded for the host.
struct Events {
    server: String,
    queue: RecordQueue,
    /// A watch event found no room since the last poll.
    refused: AtomicBool,
    /// Leader events that found no room yet, in order.
    late: Mutex<VecDeque<Vec<u8>>>,
}

impl Events {
    fn new(server: String) -> Events {
        let queue = RecordQueue::with_aside(EVENTS_MAX, DATAGRAMS_MAX, DATAGRAMS_BYTES_MAX);
        Events { server, queue, refused: AtomicBool::new(false), late: Mutex::default() }
    }

    /// Answers are always taken, so a host that does not poll them must not cause any more of them.
    fn check_room(&self) -> Result<(), Failure> {
        let (records, bytes) = self.queue.size();
        if records < EVENTS_MAX && bytes < EVENTS_BYTES_MAX {
            return Ok(());
        }
        let message = format!("{records} events ({bytes} bytes) wait to be polled; nothing is accepted before that.");
        Err(Failure::new(Code::Overloaded, message))
    }

    /// Leader events stay in order, and none is lost unless a host that does not poll leaves too many behind.
    fn offer_leader(&self, encoded: Vec<u8>) {
        let mut late = self.late.lock();
        if late.is_empty() && self.queue.offer(&encoded) {
            return;
        }
        if late.len() >= LEADER_EVENTS_MAX {
            tracing::warn!("{LEADER_EVENTS_MAX} leader events wait to be polled; the oldest is dropped.");
            late.pop_front();
        }
        late.push_back(encoded);
    }

    fn poll(&self, out: &mut [u8], wait: Duration) -> Polled {
        let mut late = self.late.lock();
        while let Some(first) = late.front()
            && self.queue.offer(first)
        {
            late.pop_front();
        }
        drop(late);
        self.queue.poll(out, wait)
    }
}

impl Observer for Events {
    fn completed(&self, outcomes: Vec<(u64, Outcome)>) {
        let mut encoded = Vec::new();
        for (ticket, outcome) in &outcomes {
            records::completion(&mut encoded, *ticket, outcome);
        }
        self.queue.push(encoded);
    }

    fn leader(&self, event: &LeaderEvent) {
        let mut encoded = Vec::new();
        records::leader(&mut encoded, &status::leader_event(&self.server, event));
        self.offer_leader(encoded);
    }

    fn datagram(&self, to: &str, datagram: &[u8]) -> bool {
        let mut encoded = Vec::with_capacity(datagram.len() + to.len() + 16);
        records::datagram(&mut encoded, to, datagram);
        self.queue.offer_aside(encoded)
    }

    fn asked(&self, ticket: u64, from: &str, question: Bytes) -> Result<(), Failure> {
        self.check_room()?;
        let mut encoded = Vec::with_capacity(question.len() + from.len() + 32);
        records::ask(&mut encoded, ticket, from, &question);
        if self.queue.offer(encoded) {
            return Ok(());
        }
        Err(Failure::new(Code::Unavailable, "Too many events wait for this server's host."))
    }
}

/// The events of one watch, under the id that the host knows.
struct Watch {
    events: Arc<Events>,
    id: u64,
}

impl WatchSink for Watch {
    fn event(&self, event: Vec<u8>) -> bool {
        let mut encoded = Vec::with_capacity(event.len() + 16);
        records::watch(&mut encoded, self.id, &event);
        let taken = self.events.queue.offer(encoded);
        if !taken {
            self.events.refused.store(true, Ordering::Release);
        }
        taken
    }
}

/// A node and its two queues.
struct NodeSession {
    node: Node,
    events: Arc<Events>,
    next_watch: AtomicU64,
    /// The host's watch ids, each with the store's.
    watches: Mutex<HashMap<u64, u64>>,
}

/// Starts a node for a host. Fails as [`Node::start`].
pub fn start(config: NodeConfig) -> Result<Arc<dyn Session>, Failure> {
    let events = Arc::new(Events::new(config.name.clone()));
    let node = Node::start(config, events.clone())?;
    Ok(Arc::new(NodeSession { node, events, next_watch: AtomicU64::new(1), watches: Mutex::default() }))
}

impl Session for NodeSession {
    fn submit(&self, kind: Kind, body: Bytes, timeout: Duration) -> Result<u64, Failure> {
        if timeout.is_zero() || timeout > TIMEOUT_MAX {
            let most = TIMEOUT_MAX.as_millis();
            return Err(Failure::invalid(format!("The timeout must be 1 to {most} ms, not {}.", timeout.as_millis())));
        }
        self.events.check_room()?;
        match kind {
            Kind::Command => self.node.submit(body, timeout, Reply::Observer),
            Kind::Read => self.read(body, timeout),
            Kind::Barrier => self.barrier(body, timeout),
            Kind::Membership => self.membership(body, timeout),
            Kind::Ask => self.ask(body, timeout),
            Kind::Snapshot => {
                let ticket = self.node.open_request(timeout, Reply::Observer, Effect::Possible)?;
                self.node.begin_snapshot(self.node.core(), ticket);
                Ok(ticket)
            }
        }
    }

    fn poll(&self, queue: Queue, out: &mut [u8], acknowledged: u64, wait: Duration) -> Polled {
        match queue {
            Queue::Events => self.poll_events(out, wait),
            Queue::Apply => self.node.poll_host(out, acknowledged, wait),
        }
    }

    fn control(&self, op: Op, body: Bytes) -> Result<Vec<u8>, Failure> {
        match op {
            Op::Status => Ok(self.node.status().into_bytes()),
            Op::Metrics => Ok(metrics::text(self.node.core()).into_bytes()),
            Op::Outcome => self.outcome(body),
            Op::SnapshotDone | Op::InstallDone => self.host_finished(body),
            Op::Watch => self.watch(body),
            Op::Unwatch => self.unwatch(body),
            Op::Identity => self.identity(),
            Op::Answered => self.answered(body),
            Op::Deliver => self.node.deliver(body).map(|()| Vec::new()),
        }
    }

    fn close(&self) {
        self.node.close();
        let mut last = Vec::new();
        records::events_closed(&mut last);
        self.events.queue.close(last);
    }
}

impl NodeSession {
    fn poll_events(&self, out: &mut [u8], wait: Duration) -> Polled {
        let polled = self.events.poll(out, wait);
        if self.events.refused.swap(false, Ordering::AcqRel)
            && let Some(kv) = &self.node.core().reader
        {
            kv.settle_watches();
        }
        polled
    }

    fn read(&self, body: Bytes, timeout: Duration) -> Result<u64, Failure> {
        if self.node.core().reader.is_none() {
            return Err(Failure::invalid("This node has no key-value store to read from."));
        }
        let mut reader = Reader::new(body);
        let consistency = Consistency::try_from(reader.u8()?)?;
        let operation = reader.take(reader.remaining())?;
        let ticket = self.node.open_request(timeout, Reply::Observer, Effect::None)?;
        reads::submit(self.node.core(), ticket, consistency, Then::Read(operation));
        Ok(ticket)
    }

    fn barrier(&self, body: Bytes, timeout: Duration) -> Result<u64, Failure> {
        let consistency = Consistency::try_from(Reader::new(body).u8()?)?;
        let ticket = self.node.open_request(timeout, Reply::Observer, Effect::None)?;
        reads::submit(self.node.core(), ticket, consistency, Then::Index);
        Ok(ticket)
    }

    fn membership(&self, body: Bytes, timeout: Duration) -> Result<u64, Failure> {
        let mut reader = Reader::new(body);
        let (operation, name, address) = (reader.u8()?, reader.text()?, reader.text()?);
        reader.end()?;
        let change = match operation {
            1 | 4 => Change::Add { name, address, voter: operation == 1 },
            2 => Change::Remove { name },
            3 => Change::Transfer { name },
            other => return Err(Failure::invalid(format!("There is no membership operation {other}."))),
        };
        let ticket = self.node.open_request(timeout, Reply::Observer, Effect::Possible)?;
        self.node.begin_change(self.node.core(), ticket, change);
        Ok(ticket)
    }

    fn ask(&self, body: Bytes, timeout: Duration) -> Result<u64, Failure> {
        let mut reader = Reader::new(body);
        let server = reader.text()?;
        let question = reader.take(reader.remaining())?;
        self.node.begin_ask(server, question, timeout, Reply::Observer)
    }

    fn answered(&self, body: Bytes) -> Result<Vec<u8>, Failure> {
        let mut reader = Reader::new(body);
        let (ticket, ok) = (reader.u64()?, reader.u8()? == 1);
        let payload = reader.take(reader.remaining())?;
        let outcome = if ok { Ok(payload) } else { Err(host_failure(&String::from_utf8_lossy(&payload))) };
        self.node.answer(ticket, outcome)?;
        Ok(Vec::new())
    }

    fn outcome(&self, body: Bytes) -> Result<Vec<u8>, Failure> {
        let mut reader = Reader::new(body);
        let (node, incarnation, sequence) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let mine = self.node.core().pending.identity().is_some_and(|(me, _)| me == node);
        let fate = if mine { self.node.outcome(incarnation, sequence) } else { Fate::Unknown };
        let mut out = Vec::new();
        match fate {
            Fate::Unknown => out.put_u8(0),
            Fate::Pending => out.put_u8(1),
            Fate::Applied(index) => {
                out.put_u8(2);
                out.put_u64_le(index);
            }
            Fate::Discarded => out.put_u8(3),
        }
        Ok(out)
    }

    fn host_finished(&self, body: Bytes) -> Result<Vec<u8>, Failure> {
        let mut reader = Reader::new(body);
        let (ticket, ok) = (reader.u64()?, reader.u8()? == 1);
        let message = String::from_utf8_lossy(&reader.take(reader.remaining())?).into_owned();
        self.node.host_finished(ticket, if ok { Ok(()) } else { Err(host_failure(&message)) })?;
        Ok(Vec::new())
    }

    /// The store whose keys can be watched. Fails with `Invalid` when the machine is another.
    fn kv(&self) -> Result<&KvReader, Failure> {
        let reader = self.node.core().reader.as_ref();
        reader.ok_or_else(|| Failure::invalid("This node has no key-value store to watch."))
    }

    fn watch(&self, body: Bytes) -> Result<Vec<u8>, Failure> {
        let kv = self.kv()?;
        let mut reader = Reader::new(body);
        let (from, exact, key) = (reader.u64()?, reader.u8()? == 1, reader.bytes()?);
        reader.end()?;
        let id = self.next_watch.fetch_add(1, Ordering::Relaxed);
        let inner = kv.watch(from, exact, &key, Arc::new(Watch { events: self.events.clone(), id }))?;
        self.watches.lock().insert(id, inner);
        Ok(id.to_le_bytes().to_vec())
    }

    fn unwatch(&self, body: Bytes) -> Result<Vec<u8>, Failure> {
        let kv = self.kv()?;
        if let Some(inner) = self.watches.lock().remove(&Reader::new(body).u64()?) {
            kv.unwatch(inner);
        }
        Ok(Vec::new())
    }

    fn identity(&self) -> Result<Vec<u8>, Failure> {
        let core = self.node.core();
        let (node, incarnation) = core.pending.identity().ok_or_else(|| core.not_ready())?;
        let mut out = Vec::new();
        out.put_u64_le(node);
        out.put_u64_le(incarnation);
        out.put_slice(core.config.name.as_bytes());
        Ok(out)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::node::observer::Role;

    fn leader_event(term: u64) -> LeaderEvent {
        let (old_leader, new_leader) = (None, Some("a".to_string()));
        LeaderEvent {
            old_leader,
            new_leader,
            old_role: Role::Follower,
            new_role: Role::Leader,
            term,
            cause: "election",
        }
    }

    #[test]
    fn a_host_that_does_not_poll_is_refused_further_submissions_until_it_does() {
        let events = Events::new("a".into());
        let answers = (0..EVENTS_MAX as u64).map(|ticket| (ticket, Ok(Bytes::new())));
        events.completed(answers.collect());
        assert_eq!(events.check_room().unwrap_err().code, Code::Overloaded);
        assert!(matches!(events.poll(&mut [0; 4096], Duration::ZERO), Polled::Bytes(1..)));
        events.check_room().unwrap();
        events.completed(vec![(1, Ok(Bytes::from(vec![0; EVENTS_BYTES_MAX])))]);
        assert_eq!(events.check_room().unwrap_err().code, Code::Overloaded);
    }

    #[test]
    fn leader_events_without_room_come_later_in_order_and_of_too_many_the_newest() {
        let events = Events::new("a".into());
        events.completed((0..EVENTS_MAX as u64).map(|ticket| (ticket, Ok(Bytes::new()))).collect());
        (1..=LEADER_EVENTS_MAX as u64 + 3).for_each(|term| events.leader(&leader_event(term)));
        assert_eq!(events.queue.len(), EVENTS_MAX);
        let mut out = vec![0; 64 << 20];
        assert!(matches!(events.poll(&mut out, Duration::ZERO), Polled::Bytes(1..)));
        let Polled::Bytes(bytes) = events.poll(&mut out, Duration::ZERO) else { panic!("nothing came") };
        let text = String::from_utf8_lossy(&out[..bytes]).into_owned();
        let terms = text.split(":term ").skip(1).map(|rest| rest.split(' ').next().unwrap().parse().unwrap());
        assert_eq!(terms.collect::<Vec<u64>>(), (4..=LEADER_EVENTS_MAX as u64 + 3).collect::<Vec<_>>());
    }

    #[test]
    fn datagrams_that_no_host_polls_are_bounded_and_crowd_nothing_out() {
        let events = Events::new("a".into());
        let datagram = vec![0; 8 << 10];
        let taken = (0..3 * DATAGRAMS_MAX).filter(|_| events.datagram("b", &datagram)).count();
        assert!(taken > 0 && taken * datagram.len() <= DATAGRAMS_BYTES_MAX, "{taken}");
        let tiny = (0..3 * DATAGRAMS_MAX).filter(|_| events.datagram("b", &[])).count();
        assert!(taken + tiny <= DATAGRAMS_MAX, "{taken} {tiny}");
        events.check_room().unwrap();
        events.leader(&leader_event(1));
        events.completed(vec![(1, Ok(Bytes::new()))]);
        assert_eq!(events.queue.len(), 2);
    }
}
