//! One of the three processes: a node that answers questions on stdin until that ends, and then itself ends.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use quorate_engine::machine::Outcome;
use quorate_engine::node::{LeaderEvent, Machine, Node, Observer};
use quorate_engine::{Code, Failure, NodeConfig};

use crate::ask::{Answer, Question};
use crate::load;
use crate::machine::Counter;
use crate::options::{MachineName, NodeOptions};
use crate::report::Latency;

/// How long the node may take to become leader.
const LEAD_PATIENCE: Duration = Duration::from_secs(30);
/// One attempt at it.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(3);
/// How long closing may take once nobody asks any more; then the process ends anyway.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);
/// Questions that wait for their turn; one is asked at a time.
const QUESTIONS_MAX: usize = 16;

/// Serves until stdin ends: whoever started this process is then done with it, or gone. Fails as [`Node::start`] does, or
/// with `Io`.
pub fn run(options: NodeOptions) -> Result<(), Failure> {
    let name = options.name.clone();
    let config = NodeConfig::new(&name, options.servers, &options.dir);
    let machine = match options.machine {
        MachineName::Counter => Machine::Own(Box::new(Counter::default())),
        MachineName::Kv => Machine::KeyValue,
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
        Question::Load(writers, seconds, bytes) => {
            let commands = load::commands(machine, bytes)?;
            let outcomes = load::run(node.clone(), commands, writers, Duration::from_secs(seconds))?;
            let answer =
                Answer::default().with("ops", outcomes.latencies.len()).with("seconds", outcomes.elapsed.as_secs_f64());
            Ok(Latency::of(&outcomes.latencies).tell(answer))
        }
    }
}

fn lead(node: &Node, name: &str) -> Result<Answer, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| Failure::io("Starting a runtime", &error))?;
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
