//! A submission takes effect once, however often it has to be sent, and is answered once, whatever happens.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_engine::error::{Code, Failure};
use quorate_engine::machine::{Applied, Committed, Frozen, Note, Notes, StateMachine};
use quorate_engine::node::Node;
use quorate_engine::node::Reply;
use support::{Cluster, Events, LONG, block_on, eventually};

/// Counts commands; holds nothing durable.
struct Counter(Arc<AtomicU64>);

struct View(u64);

impl Frozen for View {
    fn write_to(self: Box<Self>, out: &mut dyn io::Write) -> Result<(), Failure> {
        out.write_all(&self.0.to_le_bytes()).map_err(|error| Failure::io("Writing a count", &error))
    }
}

impl StateMachine for Counter {
    fn load_notes(&mut self) -> Result<Notes, Failure> {
        Ok(Vec::new())
    }

    fn apply(&mut self, commands: &[Committed], _notes: &[Note]) -> Result<Applied, Failure> {
        let count =
            |_: &Committed| Ok(Bytes::copy_from_slice(&(self.0.fetch_add(1, Ordering::SeqCst) + 1).to_le_bytes()));
        Ok(Applied::Now(commands.iter().map(count).collect()))
    }

    fn freeze(&mut self) -> Result<Box<dyn Frozen>, Failure> {
        Ok(Box::new(View(self.0.load(Ordering::SeqCst))))
    }

    fn install(&mut self, _index: u64, payload: &mut dyn Read, _notes: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Failure> {
        let mut count = [0; 8];
        payload.read_exact(&mut count).map_err(|error| Failure::io("Reading a count", &error))?;
        self.0.store(u64::from_le_bytes(count), Ordering::SeqCst);
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

fn start(cluster: &mut Cluster, name: &str) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let machine = quorate_engine::node::Machine::Own(Box::new(Counter(count.clone())));
    let node = Node::start_with(cluster.config(name), machine, Arc::new(Events::default())).unwrap();
    cluster.nodes.insert(name.into(), node);
    count
}

#[test]
fn every_write_counts_once_while_the_leadership_wanders() {
    const WRITES: u64 = 6_000;
    let mut cluster = Cluster::new(&["a", "b", "c"]);
    let counts = ["a", "b", "c"].map(|name| start(&mut cluster, name));
    cluster.settle();
    let answered = Arc::new(AtomicUsize::new(0));
    let good = Arc::new(AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for name in ["a", "b", "c"] {
            let (node, answered, good) = (cluster.node(name), answered.clone(), good.clone());
            scope.spawn(move || {
                for number in 0..WRITES / 3 {
                    let (answered, good) = (answered.clone(), good.clone());
                    let reply = Reply::Call(Box::new(move |outcome| {
                        answered.fetch_add(1, Ordering::SeqCst);
                        good.fetch_add(usize::from(outcome.is_ok()), Ordering::SeqCst);
                    }));
                    node.submit(Bytes::from_static(b"+1"), LONG, reply).unwrap();
                    if number % 20 == 0 {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
            });
        }
        for target in ["b", "c", "a", "b", "a", "c"] {
            // A transfer may meet an election; what matters is that leadership moves.
            drop(block_on(cluster.node("a").transfer_leader(target, Duration::from_secs(2))));
        }
    });
    eventually("all answers", || answered.load(Ordering::SeqCst) as u64 == WRITES);
    assert_eq!(good.load(Ordering::SeqCst) as u64, WRITES);
    for (name, count) in ["a", "b", "c"].iter().zip(&counts) {
        eventually(&format!("{name} counting to the end"), || count.load(Ordering::SeqCst) >= WRITES);
        assert_eq!(count.load(Ordering::SeqCst), WRITES, "on {name}");
        assert_eq!(cluster.node(name).index(), WRITES);
    }
}

#[test]
fn closing_answers_each_of_thousands_in_flight_once() {
    const WRITES: usize = 20_000;
    let mut cluster = Cluster::new(&["a"]);
    start(&mut cluster, "a");
    cluster.leader();
    let answers: Arc<Vec<AtomicUsize>> = Arc::new((0..WRITES).map(|_| AtomicUsize::new(0)).collect());
    for number in 0..WRITES {
        let answers = answers.clone();
        let reply = Reply::Call(Box::new(move |_| {
            answers[number].fetch_add(1, Ordering::SeqCst);
        }));
        cluster.node("a").submit(Bytes::from_static(b"+1"), LONG, reply).unwrap();
    }
    cluster.stop("a");
    assert!(answers.iter().all(|count| count.load(Ordering::SeqCst) == 1));
}

#[test]
fn a_machine_without_a_disk_is_rebuilt_from_snapshot_and_log() {
    let mut cluster = Cluster::new(&["a"]);
    start(&mut cluster, "a");
    for _ in 0..10 {
        block_on(cluster.node("a").write(Bytes::from_static(b"+1"), LONG)).unwrap();
    }
    block_on(cluster.node("a").snapshot(LONG)).unwrap();
    for _ in 0..5 {
        block_on(cluster.node("a").write(Bytes::from_static(b"+1"), LONG)).unwrap();
    }
    cluster.stop("a");
    let count = start(&mut cluster, "a");
    eventually("the rebuild", || count.load(Ordering::SeqCst) == 15);
    assert_eq!(block_on(cluster.node("a").write(Bytes::from_static(b"+1"), LONG)).unwrap()[..], 16u64.to_le_bytes());
}

#[test]
fn a_callback_that_panics_hurts_nobody_else() {
    let mut cluster = Cluster::new(&["a"]);
    start(&mut cluster, "a");
    cluster.leader();
    let node = cluster.node("a");
    node.submit(Bytes::new(), LONG, Reply::Call(Box::new(|_| panic!("on purpose")))).unwrap();
    assert_eq!(block_on(node.write(Bytes::new(), LONG)).unwrap()[..], 2u64.to_le_bytes());
    // The one whose time is over is answered by another thread.
    cluster.stop("a");
    let lonely = {
        let mut config = cluster.config("a");
        config.servers.insert("b".into(), support::free_address());
        config.data_dir = cluster.data_dir("lonely");
        Node::start(config, Arc::new(Events::default())).unwrap()
    };
    let short = Duration::from_millis(50);
    lonely.submit(Bytes::new(), short, Reply::Call(Box::new(|_| panic!("on purpose")))).unwrap();
    std::thread::sleep(short * 2);
    assert_eq!(block_on(lonely.write(Bytes::new(), short)).unwrap_err().code, Code::Unavailable);
}

/// Hangs in its first command, or panics in it.
struct Broken {
    panics: bool,
    /// Set when it was given its first command.
    reached: Arc<AtomicBool>,
}

impl StateMachine for Broken {
    fn load_notes(&mut self) -> Result<Notes, Failure> {
        Ok(Vec::new())
    }

    fn apply(&mut self, commands: &[Committed], _notes: &[Note]) -> Result<Applied, Failure> {
        if !commands.is_empty() {
            self.reached.store(true, Ordering::SeqCst);
            assert!(!self.panics, "on purpose");
            std::thread::sleep(LONG);
        }
        Ok(Applied::Now(commands.iter().map(|_| Ok(Bytes::new())).collect()))
    }

    fn freeze(&mut self) -> Result<Box<dyn Frozen>, Failure> {
        Err(Failure::invalid("Nothing to freeze."))
    }

    fn install(&mut self, _: u64, _: &mut dyn Read, _: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Failure> {
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

fn start_broken(cluster: &Cluster, panics: bool) -> (Node, Arc<AtomicBool>) {
    let reached = Arc::new(AtomicBool::new(false));
    let machine = quorate_engine::node::Machine::Own(Box::new(Broken { panics, reached: reached.clone() }));
    (Node::start_with(cluster.config("a"), machine, Arc::new(Events::default())).unwrap(), reached)
}

#[test]
fn a_machine_that_hangs_does_not_hang_who_closes_the_node() {
    let cluster = Cluster::new(&["a"]);
    let (node, reached) = start_broken(&cluster, false);
    let stuck = node.write(Bytes::new(), LONG);
    eventually("the machine hanging", || reached.load(Ordering::SeqCst));
    let began = Instant::now();
    node.close();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(block_on(stuck).unwrap_err().code, Code::Closed);
    // The hanging thread may still write: nobody else gets the directory.
    let again = Node::start(cluster.config("a"), Arc::new(Events::default()));
    assert_eq!(again.err().unwrap().code, Code::Locked);
}

#[test]
fn a_machine_that_panics_is_left_alone_and_every_command_still_answered() {
    let cluster = Cluster::new(&["a"]);
    let (node, _) = start_broken(&cluster, true);
    let short = Duration::from_millis(1_500);
    assert_eq!(block_on(node.write(Bytes::new(), short)).unwrap_err().code, Code::Timeout);
    assert!(node.status().contains("The state machine panicked"), "{}", node.status());
    assert_eq!(block_on(node.write(Bytes::new(), short)).unwrap_err().code, Code::Timeout);
    node.close();
}
