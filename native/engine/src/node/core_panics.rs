//! A panic of openraft's core: reported, what was under way is answered as unknown, the core is started again in place.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::config::NodeConfig;
use crate::consensus::log::traits::panics;
use crate::error::Code;
use crate::kv::op::Txn;
use crate::machine::Outcome;
use crate::node::{LeaderEvent, Node, Observer, Reply};

const PATIENCE: Duration = Duration::from_secs(20);
/// Far longer than the test takes: nothing is answered because its time is over.
const DEADLINE: Duration = Duration::from_secs(600);

struct Silent;

impl Observer for Silent {
    fn completed(&self, _outcomes: Vec<(u64, Outcome)>) {}
    fn leader(&self, _event: &LeaderEvent) {}
}

fn put(node: &Node, key: &str) -> Receiver<Outcome> {
    let (say, hear) = channel();
    let reply = Reply::Call(Box::new(move |outcome| drop(say.send(outcome))));
    node.submit(Txn::put(key.to_string(), "v").encode().unwrap().into(), DEADLINE, reply).unwrap();
    hear
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_panic_of_the_core_is_reported_closes_what_was_under_way_and_the_core_is_started_again() {
    let root = tempfile::tempdir().unwrap();
    let config = NodeConfig::new("solo", [("solo".to_string(), String::new())].into(), root.path());
    let node = Node::start(config, Arc::new(Silent)).unwrap();
    assert!(put(&node, "before").recv_timeout(PATIENCE).unwrap().is_ok());
    *panics::NEXT.lock() = Some(root.path().join("group-0/log"));
    let lost: Vec<_> = (0..20).map(|number| put(&node, &format!("lost-{number}"))).collect();
    let outcomes: Vec<_> = lost.iter().map(|hear| hear.recv_timeout(PATIENCE).unwrap()).collect();
    let codes: Vec<Code> = outcomes.into_iter().filter_map(Result::err).map(|failure| failure.code).collect();
    assert!(codes.contains(&Code::Timeout), "nothing was answered as unknown: {codes:?}");
    assert!(codes.iter().all(|code| matches!(code, Code::Timeout | Code::Unavailable)), "{codes:?}");
    assert!(node.status().contains("panicked"), "{}", node.status());
    let after = put(&node, "after").recv_timeout(PATIENCE).unwrap();
    assert!(after.is_ok(), "{after:?}");
    eventually("the problem's end", || node.status().contains(":problem nil"));
    assert!(lost.iter().all(|hear| hear.try_recv().is_err()), "an id was answered twice");
    node.close();
}
