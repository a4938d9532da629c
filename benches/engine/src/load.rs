//! The closed loop: so many commands in flight, each completion submits the next, for a time or until so many are done. No
//! task, channel or thread a command: what is measured is the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use quorate_engine::kv::op::Txn;
use quorate_engine::machine::Outcome;
use quorate_engine::node::{Node, Reply};
use quorate_engine::{Code, Failure};

use crate::latency::histogram;
use crate::options::MachineName;

/// Before measuring begins: connections are up, files are filled, the batches have found their size.
pub const WARM_UP: Duration = Duration::from_secs(1);
/// How long a command may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long [`fill`] may take.
const FILL_PATIENCE: Duration = Duration::from_secs(900);
/// Keys that the puts of the key-value store go round.
pub const KEYS: usize = 10_000;

const WARMING: u8 = 0;
const MEASURING: u8 = 1;
const ENDED: u8 = 2;

/// What a run came to.
pub struct Outcomes {
    /// Latency of each command that was completed while measuring, in nanoseconds.
    pub latencies: Histogram<u64>,
    /// How long was measured.
    pub elapsed: Duration,
}

struct Measured {
    latencies: Histogram<u64>,
    failure: Option<Failure>,
}

/// What is submitted.
enum Commands {
    /// These, in turn, without end.
    Round(Vec<Bytes>),
    /// Commands for the machine with these numbers, each with this value.
    Numbered(MachineName, std::ops::Range<u64>, Bytes),
}

impl Commands {
    /// The command of the `turn`, from 0; `None` when there are no more.
    fn of(&self, turn: usize) -> Result<Option<Bytes>, Failure> {
        match self {
            Commands::Round(commands) => Ok(Some(commands[turn % commands.len()].clone())),
            Commands::Numbered(_, range, _) if turn as u64 >= range.end - range.start => Ok(None),
            Commands::Numbered(MachineName::Counter | MachineName::Stuck, _, value) => Ok(Some(value.clone())),
            Commands::Numbered(MachineName::Kv, range, value) => {
                Ok(Some(Txn::put(key(range.start + turn as u64), value.clone()).encode()?.into()))
            }
        }
    }
}

/// The key of that number.
pub fn key(number: u64) -> String {
    format!("key-{number:09}")
}

struct Load {
    node: Arc<Node>,
    commands: Commands,
    turn: AtomicUsize,
    phase: AtomicU8,
    in_flight: AtomicUsize,
    measured: Mutex<Measured>,
}

/// Commands for `machine`: of `bytes` bytes, or puts of a value of so many. Fails with `Invalid`.
pub fn commands(machine: MachineName, bytes: usize) -> Result<Vec<Bytes>, Failure> {
    let value = Bytes::from(vec![b'x'; bytes]);
    match machine {
        MachineName::Counter | MachineName::Stuck => Ok(vec![value]),
        MachineName::Kv => {
            let put = |number| Ok(Txn::put(key(number), value.clone()).encode()?.into());
            (0..KEYS as u64).map(put).collect()
        }
    }
}

/// Keeps `writers` commands in flight on `node` for `time` after a warm-up, and waits for the last of them. Fails with the
/// first failure of a command.
pub fn run(node: Arc<Node>, commands: Vec<Bytes>, writers: usize, time: Duration) -> Result<Outcomes, Failure> {
    let load = Load::new(node, Commands::Round(commands), writers, WARMING)?;
    (0..writers).for_each(|_| load.submit(Instant::now()));
    std::thread::sleep(WARM_UP);
    let started = Instant::now();
    load.phase.store(MEASURING, Ordering::SeqCst);
    std::thread::sleep(time);
    load.phase.store(ENDED, Ordering::SeqCst);
    let elapsed = started.elapsed();
    load.drain(PATIENCE)?;
    load.outcomes(elapsed)
}

/// Submits the commands numbered from `from`, `count` of them, with values of `bytes` bytes, `writers` at a time, and waits
/// until each is done. Fails with the first failure of a command, or `Timeout`.
pub fn fill(
    node: Arc<Node>,
    machine: MachineName,
    (from, count): (u64, u64),
    bytes: usize,
    writers: usize,
) -> Result<Outcomes, Failure> {
    let commands = Commands::Numbered(machine, from..from + count, Bytes::from(vec![b'x'; bytes]));
    let load = Load::new(node, commands, writers, MEASURING)?;
    let started = Instant::now();
    (0..writers).for_each(|_| load.submit(Instant::now()));
    load.drain(FILL_PATIENCE)?;
    load.outcomes(started.elapsed())
}

impl Load {
    fn new(node: Arc<Node>, commands: Commands, writers: usize, phase: u8) -> Result<Arc<Load>, Failure> {
        Ok(Arc::new(Load {
            node,
            commands,
            turn: AtomicUsize::new(0),
            phase: AtomicU8::new(phase),
            in_flight: AtomicUsize::new(writers),
            measured: Mutex::new(Measured { latencies: histogram()?, failure: None }),
        }))
    }

    fn outcomes(&self, elapsed: Duration) -> Result<Outcomes, Failure> {
        let mut measured = self.measured.lock();
        match measured.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(Outcomes { latencies: std::mem::replace(&mut measured.latencies, histogram()?), elapsed }),
        }
    }

    fn submit(self: &Arc<Load>, started: Instant) {
        let command = match self.commands.of(self.turn.fetch_add(1, Ordering::Relaxed)) {
            Ok(Some(command)) => command,
            Ok(None) => return self.end(None),
            Err(failure) => return self.end(Some(failure)),
        };
        let load = self.clone();
        let reply = Reply::Call(Box::new(move |outcome| load.completed(started, outcome)));
        if let Err(failure) = self.node.submit(command, PATIENCE, reply) {
            self.end(Some(failure));
        }
    }

    fn completed(self: &Arc<Load>, started: Instant, outcome: Outcome) {
        let phase = self.phase.load(Ordering::Relaxed);
        match outcome {
            Err(failure) => self.end(Some(failure)),
            Ok(_) if phase == ENDED => self.end(None),
            Ok(_) => {
                // One look at the clock an operation, as in the peers' loads.
                let now = Instant::now();
                if phase == MEASURING {
                    let took = now.duration_since(started);
                    self.measured.lock().latencies.saturating_record(took.as_nanos() as u64);
                }
                self.submit(now);
            }
        }
    }

    /// One writer less. A failure ends its writer; the first is kept.
    fn end(&self, failure: Option<Failure>) {
        if let Some(failure) = failure {
            self.measured.lock().failure.get_or_insert(failure);
        }
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
    }

    fn drain(&self, patience: Duration) -> Result<(), Failure> {
        let limit = Instant::now() + patience + Duration::from_secs(5);
        while self.in_flight.load(Ordering::SeqCst) > 0 {
            if Instant::now() > limit {
                return Err(Failure::new(Code::Timeout, "Commands got no answer, not even that their time ran out."));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use quorate_engine::NodeConfig;
    use quorate_engine::node::{LeaderEvent, Machine, Observer};

    use super::*;
    use crate::machine::Counter;

    struct Nobody;

    impl Observer for Nobody {
        fn completed(&self, _outcomes: Vec<(u64, Outcome)>) {}
        fn leader(&self, _event: &LeaderEvent) {}
    }

    #[test]
    fn every_command_that_was_measured_was_applied_and_a_closed_node_is_a_failure() {
        let directory = tempfile::tempdir().unwrap();
        let config = NodeConfig::new("a", [("a".to_string(), String::new())].into(), directory.path());
        let machine = Machine::Own(Box::new(Counter::default()));
        let node = Arc::new(Node::start_with(config, machine, Arc::new(Nobody)).unwrap());
        let commands = commands(MachineName::Counter, 16).unwrap();
        let outcomes = run(node.clone(), commands.clone(), 8, Duration::from_millis(300)).unwrap();
        assert!(outcomes.latencies.len() > 8);
        assert!(outcomes.elapsed >= Duration::from_millis(300));
        assert!(node.index() >= outcomes.latencies.len());
        let before = node.index();
        let filled = fill(node.clone(), MachineName::Counter, (5, 1_000), 16, 8).unwrap();
        assert_eq!((filled.latencies.len(), node.index() - before), (1_000, 1_000));
        node.close();
        assert_eq!(run(node, commands, 8, Duration::ZERO).err().unwrap().code, Code::Closed);
    }
}
