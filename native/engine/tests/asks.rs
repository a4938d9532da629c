//! Hosts that ask each other, through their sessions.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use parking_lot::Mutex;
use quorate_engine::NodeConfig;
use quorate_engine::codec::{Reader, put_bytes};
use quorate_engine::config::TransportKind;
use quorate_engine::error::{Code, Failure};
use quorate_engine::limits::{ASK_ANSWER_BYTES_MAX, ASK_QUESTION_BYTES_MAX, ASKS_MAX};
use quorate_engine::node;
use quorate_engine::session::{Kind, Op, Polled, Queue, Session};
use support::{LONG, eventually, free_address};
use tempfile::TempDir;

const SHORT: Duration = Duration::from_millis(400);

/// A host: answers questions on a thread of its own, and keeps completions.
struct Host {
    session: Arc<dyn Session>,
    answers: Arc<Mutex<BTreeMap<u64, Result<Bytes, Failure>>>>,
    asked: Arc<Mutex<Vec<(u64, String, Bytes)>>>,
    quiet: Arc<AtomicBool>,
    /// Where datagrams go, when the transport is the hosts'.
    network: Network,
    thread: Option<JoinHandle<()>>,
}

type Network = Arc<Mutex<BTreeMap<String, Arc<dyn Session>>>>;

impl Host {
    fn start(config: NodeConfig) -> Host {
        let session = node::start(config).unwrap();
        let (answers, asked, quiet) = <(Arc<Mutex<_>>, Arc<Mutex<_>>, Arc<AtomicBool>)>::default();
        let network = Network::default();
        let thread = std::thread::spawn({
            let (session, answers, asked, quiet) = (session.clone(), answers.clone(), asked.clone(), quiet.clone());
            let network = network.clone();
            move || serve(session.as_ref(), &answers, &asked, &quiet, &network)
        });
        Host { session, answers, asked, quiet, network, thread: Some(thread) }
    }

    fn begin(&self, server: &str, question: &[u8], timeout: Duration) -> Result<u64, Failure> {
        let mut body = Vec::new();
        put_bytes(&mut body, server.as_bytes());
        body.extend_from_slice(question);
        self.session.submit(Kind::Ask, body.into(), timeout)
    }

    fn wait(&self, ticket: u64) -> Result<Bytes, Failure> {
        eventually("an answer", || self.answers.lock().contains_key(&ticket));
        self.answers.lock().remove(&ticket).unwrap()
    }

    fn ask(&self, server: &str, question: &[u8], timeout: Duration) -> Result<Bytes, Failure> {
        self.wait(self.begin(server, question, timeout)?)
    }

    fn reach(&self, server: &str) {
        eventually(&format!("{server} in reach"), || self.ask(server, b"hello", LONG).is_ok());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.session.close();
        self.thread.take().unwrap().join().unwrap();
    }
}

type Answers = Mutex<BTreeMap<u64, Result<Bytes, Failure>>>;

type Questions = Mutex<Vec<(u64, String, Bytes)>>;

fn serve(session: &dyn Session, answers: &Answers, asked: &Questions, quiet: &AtomicBool, network: &Network) {
    let mut out = vec![0; 1 << 16];
    loop {
        match session.poll(Queue::Events, &mut out, 0, Duration::from_millis(100)) {
            Polled::Closed => return,
            Polled::NeedsBytes(bytes) => out = vec![0; bytes],
            Polled::Bytes(bytes) => {
                let mut records = Reader::new(Bytes::copy_from_slice(&out[..bytes]));
                while records.remaining() > 0 {
                    let mut record = Reader::new(records.bytes().unwrap());
                    match record.u8().unwrap() {
                        1 => {
                            let (ticket, status) = (record.u64().unwrap(), record.u8().unwrap());
                            let payload = record.take(record.remaining()).unwrap();
                            let text = || String::from_utf8_lossy(&payload).into_owned();
                            let outcome = match Code::of(status) {
                                Some(code) => Err(Failure::new(code, text())),
                                None => Ok(payload.clone()),
                            };
                            assert!(answers.lock().insert(ticket, outcome).is_none(), "{ticket} was answered twice");
                        }
                        7 => {
                            let (ticket, len) = (record.u64().unwrap(), record.u16().unwrap());
                            let from = String::from_utf8(record.take(len.into()).unwrap().to_vec()).unwrap();
                            let question = record.take(record.remaining()).unwrap();
                            asked.lock().push((ticket, from.clone(), question.clone()));
                            if !quiet.load(Ordering::SeqCst) {
                                // Whoever asked may be gone already.
                                let _ = session.control(Op::Answered, answer(ticket, &from, &question));
                            }
                        }
                        6 => {
                            let len = record.u16().unwrap();
                            let to = String::from_utf8(record.take(len.into()).unwrap().to_vec()).unwrap();
                            let target = network.lock().get(&to).cloned();
                            if let Some(target) = target {
                                // It may be closed.
                                let _ = target.control(Op::Deliver, record.take(record.remaining()).unwrap());
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}

/// "refuse WHY" is refused; "large N" is answered with N bytes; anything else with itself and who asked.
fn answer(ticket: u64, from: &str, question: &Bytes) -> Bytes {
    let text = String::from_utf8_lossy(question);
    let (ok, payload) = match text.split_once(' ') {
        Some(("refuse", why)) => (0, why.as_bytes().to_vec()),
        Some(("large", bytes)) => (1, vec![7; bytes.parse().unwrap()]),
        _ => (1, [from.as_bytes(), b": ", question].concat()),
    };
    let mut body = Vec::new();
    body.put_u64_le(ticket);
    body.put_u8(ok);
    body.extend_from_slice(&payload);
    body.into()
}

fn hosts(names: &[&str]) -> (TempDir, BTreeMap<String, Host>) {
    let directory = tempfile::tempdir().unwrap();
    let servers: BTreeMap<_, _> = names.iter().map(|name| (name.to_string(), free_address())).collect();
    let start = |name: &&str| {
        let mut config = NodeConfig::new(*name, servers.clone(), directory.path().join(name));
        (config.heartbeat_ms, config.election_timeout_ms) = (50, 300);
        (name.to_string(), Host::start(config))
    };
    let hosts = names.iter().map(start).collect();
    (directory, hosts)
}

#[test]
fn hosts_ask_each_other_and_themselves_and_get_answers_or_refusals() {
    let (_directory, hosts) = hosts(&["a", "b", "c"]);
    hosts["a"].reach("b");
    assert_eq!(hosts["a"].ask("b", b"why?", LONG).unwrap(), "a: why?");
    assert_eq!(hosts["a"].ask("a", b"who am I?", LONG).unwrap(), "a: who am I?");
    let refused = hosts["a"].ask("b", b"refuse not today", LONG).unwrap_err();
    assert_eq!(refused, Failure::new(Code::StateMachine, "not today"));
    let unknown = hosts["a"].ask("z", b"why?", LONG).unwrap_err();
    assert_eq!(unknown.code, Code::Unavailable);
    assert!(unknown.message.contains("no member \"z\""), "{unknown}");
}

#[test]
fn a_host_that_keeps_silent_costs_the_deadline_and_its_late_answer_is_harmless() {
    let (_directory, hosts) = hosts(&["a", "b"]);
    hosts["a"].reach("b");
    hosts["b"].quiet.store(true, Ordering::SeqCst);
    for server in ["a", "b"] {
        hosts[server].quiet.store(true, Ordering::SeqCst);
        assert_eq!(hosts["a"].ask(server, b"why?", SHORT).unwrap_err().code, Code::Timeout);
        let (ticket, from, question) = hosts[server].asked.lock().pop().unwrap();
        assert_eq!((from.as_str(), &question[..]), ("a", &b"why?"[..]));
        let late = || hosts[server].session.control(Op::Answered, answer(ticket, &from, &question));
        eventually("the end of the question", || late().is_err());
        assert_eq!(late().unwrap_err().code, Code::Invalid);
        hosts[server].quiet.store(false, Ordering::SeqCst);
    }
    assert_eq!(hosts["a"].ask("b", b"again", LONG).unwrap(), "a: again");
}

#[test]
fn a_member_that_is_down_is_unavailable_and_a_question_at_close_gets_its_answer() {
    let (_directory, mut hosts) = hosts(&["a", "b", "c"]);
    hosts["a"].reach("b");
    drop(hosts.remove("c"));
    let down = hosts["a"].ask("c", b"why?", SHORT).unwrap_err();
    assert!(matches!(down.code, Code::Unavailable | Code::Timeout), "{down:?}");
    hosts["b"].quiet.store(true, Ordering::SeqCst);
    let ticket = hosts["a"].begin("b", b"why?", LONG).unwrap();
    eventually("the question", || hosts["b"].asked.lock().iter().any(|(_, _, question)| question == "why?"));
    hosts["a"].session.close();
    assert_eq!(hosts["a"].wait(ticket).unwrap_err().code, Code::Closed);
    assert_eq!(hosts["a"].begin("b", b"why?", LONG).unwrap_err().code, Code::Closed);
}

#[test]
fn sizes_are_bounded_on_both_ways_and_the_largest_answer_arrives() {
    let (_directory, hosts) = hosts(&["a", "b"]);
    hosts["a"].reach("b");
    let too_long = vec![b'x'; ASK_QUESTION_BYTES_MAX + 1];
    assert_eq!(hosts["a"].begin("b", &too_long, LONG).unwrap_err().code, Code::TooLarge);
    let longest = hosts["a"].ask("b", &too_long[1..], LONG).unwrap();
    assert_eq!(longest.len(), ASK_QUESTION_BYTES_MAX + 3);
    for server in ["a", "b"] {
        let most = hosts["a"].ask(server, format!("large {ASK_ANSWER_BYTES_MAX}").as_bytes(), LONG).unwrap();
        assert_eq!(most.len(), ASK_ANSWER_BYTES_MAX);
        let more = hosts["a"].ask(server, format!("large {}", ASK_ANSWER_BYTES_MAX + 1).as_bytes(), LONG);
        assert_eq!(more.unwrap_err().code, Code::TooLarge);
    }
}

#[test]
fn open_questions_are_bounded_and_the_places_come_back() {
    let (_directory, hosts) = hosts(&["a"]);
    hosts["a"].reach("a");
    hosts["a"].quiet.store(true, Ordering::SeqCst);
    let open: Vec<u64> = (0..ASKS_MAX).map(|_| hosts["a"].begin("a", b"why?", SHORT).unwrap()).collect();
    assert_eq!(hosts["a"].begin("a", b"why?", SHORT).unwrap_err().code, Code::Overloaded);
    open.iter().for_each(|ticket| assert_eq!(hosts["a"].wait(*ticket).unwrap_err().code, Code::Timeout));
    hosts["a"].quiet.store(false, Ordering::SeqCst);
    hosts["a"].reach("a");
}

#[test]
fn sessions_carry_each_others_datagrams_and_refuse_rubbish() {
    let directory = tempfile::tempdir().unwrap();
    let servers: BTreeMap<_, _> = ["a", "b"].map(|name| (name.to_string(), name.to_string())).into();
    let start = |name: &str| {
        let mut config = NodeConfig::new(name, servers.clone(), directory.path().join(name));
        (config.heartbeat_ms, config.election_timeout_ms) = (50, 300);
        config.transport = TransportKind::Host;
        Host::start(config)
    };
    let (a, b) = (start("a"), start("b"));
    a.network.lock().insert("b".into(), b.session.clone());
    b.network.lock().insert("a".into(), a.session.clone());
    a.reach("b");
    b.reach("a");
    let large = a.ask("b", b"large 5000000", LONG).unwrap();
    assert_eq!(large.len(), 5_000_000);
    for rubbish in [&b""[..], b"rubbish", &[0; 100_000]] {
        let refused = a.session.control(Op::Deliver, Bytes::copy_from_slice(rubbish)).unwrap_err();
        assert_eq!(refused.code, Code::Invalid);
    }
    let metrics = String::from_utf8(a.session.control(Op::Metrics, Bytes::new()).unwrap()).unwrap();
    assert!(metrics.contains("quorate_datagrams_rubbish_total 3"), "{metrics}");
    a.network.lock().clear();
    b.network.lock().clear();
    assert!(matches!(a.ask("b", b"why?", SHORT).unwrap_err().code, Code::Timeout | Code::Unavailable));
}

#[test]
fn a_node_with_a_transport_of_its_own_takes_no_datagrams() {
    let (_directory, hosts) = hosts(&["a"]);
    assert_eq!(hosts["a"].session.control(Op::Deliver, Bytes::new()).unwrap_err().code, Code::Invalid);
}
