//! One of the three processes: a node that answers questions on stdin until that ends, and then itself ends.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use quorate_engine::machine::Outcome;
use quorate_engine::node::{LeaderEvent, Machine, Node, Observer};
use quorate_engine::session::Consistency;
use quorate_engine::{Code, Failure, NodeConfig};
use tokio::runtime::Runtime;

use crate::ask::{Answer, Question};
use crate::latency::Latency;
use crate::load::{self, Outcomes};
use crate::machine::Counter;
use crate::options::{MachineName, NodeOptions};
use crate::outage;
use crate::reads;

/// How long the node may take to become leader.
const LEAD_PATIENCE: Duration = Duration::from_secs(30);
/// How long a node may take until it is ready; one attempt; and until the next.
const READY_PATIENCE: Duration = Duration::from_secs(300);
const READY_ATTEMPT: Duration = Duration::from_secs(2);
const READY_LOOK: Duration = Duration::from_millis(1);
/// How long a snapshot may take.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of a command while the leader dies.
const OUTAGE_BYTES: usize = 128;
/// One attempt to become leader.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(3);
/// How long closing may take once nobody asks any more; then the process ends anyway.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);
/// Questions that wait for their turn; one is asked at a time.
const QUESTIONS_MAX: usize = 16;

/// Serves until stdin ends: whoever started this process is then done with it, or gone. Fails as [`Node::start`] does, or
/// with `Io`.
pub fn run(options: NodeOptions) -> Result<(), Failure> {
    let name = options.name.clone();
    let config = options.tuning.applied(NodeConfig::new(&name, options.servers, &options.dir));
    let machine = match options.machine {
        MachineName::Counter => Machine::Own(Box::new(Counter::default())),
        MachineName::Kv => Machine::KeyValue,
        // Nobody polls it.
        MachineName::Stuck => Machine::Hosted,
    };
    let node = Arc::new(Node::start_with(config, machine, Arc::new(Nobody))?);
    say(&Ok(Answer::default().with("pid", std::process::id())))?;
    for line in questions()? {
        say(&Question::read(&line).and_then(|question| answer(&node, &name, options.machine, question)))?;
    }
    node.close();
    Ok(())
}

/// The lines of stdin, read on a thread of its own: it must see the end of stdin in the middle of a run, too, and then ends
/// the process if nothing else does.
fn questions() -> Result<Receiver<String>, Failure> {
    let (sender, receiver) = sync_channel(QUESTIONS_MAX);
    let read = move || {
        let lines = std::io::stdin().lock().lines().map_while(Result::ok);
        lines.map(|line| sender.send(line)).take_while(Result::is_ok).for_each(drop);
        drop(sender);
        std::thread::sleep(CLOSE_PATIENCE);
        // Whoever read stderr may be gone as well, and `eprintln` would panic.
        drop(writeln!(std::io::stderr(), "The node did not close in {CLOSE_PATIENCE:?}."));
        std::process::exit(1);
    };
    let thread = std::thread::Builder::new().name("questions".into()).spawn(read);
    thread.map(|_| receiver).map_err(|error| Failure::io("Starting a thread", &error))
}

fn answer(node: &Arc<Node>, name: &str, machine: MachineName, question: Question) -> Result<Answer, Failure> {
    match question {
        Question::Lead => lead(node, name),
        Question::Facts => Ok(facts(node)),
        Question::Ready => ready(node),
        Question::Snapshot => {
            let index = runtime()?.block_on(node.snapshot(SNAPSHOT_PATIENCE))?;
            Ok(Answer::default().with("bytes", index.len()))
        }
        Question::Load(writers, seconds, bytes) => {
            let commands = load::commands(machine, bytes)?;
            measured(load::run(node.clone(), commands, writers, Duration::from_secs(seconds))?)
        }
        Question::Fill(from, count, bytes, writers) => {
            measured(load::fill(node.clone(), machine, (from, count), bytes, writers)?)
        }
        Question::Read(freshness, readers, seconds) => {
            measured(reads::run(node, freshness.0, readers, Duration::from_secs(seconds))?)
        }
        Question::Outage(seconds) => {
            let command = load::commands(machine, OUTAGE_BYTES)?.swap_remove(0);
            outage::run(node, command, Duration::from_secs(seconds))
        }
    }
}

fn measured(outcomes: Outcomes) -> Result<Answer, Failure> {
    let answer =
        Answer::default().with("ops", outcomes.latencies.len()).with("seconds", outcomes.elapsed.as_secs_f64());
    Ok(Latency::of(&outcomes.latencies).tell(answer))
}

/// A runtime for one thing to wait for.
fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().build().map_err(|error| Failure::io("Starting a runtime", &error))
}

/// Waits until the node answers as a member in good order does: it has applied everything that was committed before.
fn ready(node: &Node) -> Result<Answer, Failure> {
    let (runtime, limit) = (runtime()?, Instant::now() + READY_PATIENCE);
    loop {
        match runtime.block_on(node.barrier(Consistency::Linearizable, READY_ATTEMPT)) {
            Ok(index) => return Ok(Answer::default().with("index", index)),
            Err(failure) if Instant::now() > limit => return Err(failure),
            Err(_) => std::thread::sleep(READY_LOOK),
        }
    }
}

fn lead(node: &Node, name: &str) -> Result<Answer, Failure> {
    let runtime = runtime()?;
    let limit = Instant::now() + LEAD_PATIENCE;
    while node.leader().as_deref() != Some(name) {
        // A transfer may meet an election; then it is tried again.
        let moved = runtime.block_on(node.transfer_leader(name, TRANSFER_PATIENCE));
        if let Err(failure) = moved
            && Instant::now() > limit
        {
            return Err(Failure::new(Code::Timeout, format!("{name} does not become leader: {failure}")));
        }
    }
    Ok(facts(node))
}

fn facts(node: &Node) -> Answer {
    let status = node.status();
    Answer::default()
        .with("leader", node.leader().as_deref().unwrap_or("-"))
        .with("index", node.index())
        .with("entries", number_after(&status, ":committed-index "))
        .with("snapshot", number_after(&status, ":snapshot-index "))
        .with("voters", status.matches(":voter true").count())
        .with("term", number_after(&status, ":term "))
        .with("syncs", number_after(&status, ":fsync {:count "))
}

/// The number in the status after `mark`; 0 where there is none yet.
fn number_after(status: &str, mark: &str) -> u64 {
    let digits = status.split_once(mark).map_or("", |(_, rest)| rest);
    let end = digits.find(|character: char| !character.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().unwrap_or(0)
}

fn say(answer: &Result<Answer, Failure>) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let said = writeln!(out, "{}", Answer::line(answer)).and_then(|()| out.flush());
    said.map_err(|error| Failure::io("Answering", &error))
}

struct Nobody;

impl Observer for Nobody {
    fn completed(&self, _outcomes: Vec<(u64, Outcome)>) {}
    fn leader(&self, _event: &LeaderEvent) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_in_a_status() {
        let status = "{:term 12 :fsync {:count 345 :entries 7}}";
        assert_eq!(number_after(status, ":term "), 12);
        assert_eq!(number_after(status, ":fsync {:count "), 345);
        assert_eq!(number_after(status, ":absent "), 0);
    }
}
