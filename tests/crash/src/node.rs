//! One node as a process, with the key-value machine: requests on stdin, answers on stdout, the engine's log on stderr.
//!
//! ```text
//! request := id operation argument*            one line; words have no spaces
//! answer  := id "ok" result | id "fail" code message
//! first   := "0 up" | "0 refused" code message      the engine's start returned
//! event   := "0 leader" term name                    (name "-": none)
//! ```
//!
//! | operation | result |
//! |---|---|
//! | `put key value` | nothing |
//! | `cas key expected value` (expected `-`: absent) | `1`, or `0` and what was there (`-`: nothing) |
//! | `get key`, `lease key`, `local key` | `value`, or `-` |
//! | `scan prefix after` (after `-`: from the start), linearizable; `peek prefix after`: this node's own state | `1` when there is more, else `0`; then `key=value` words |
//! | `status`, `snapshot`, `transfer name`, `remove name` | the status map; nothing |
//!
//! With `slow-us=` above 0 each command takes so many microseconds longer to be applied, and there are no reads.
//!
//! The process ends when stdin does, and is killed when the thread that started it ends.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use quorate_engine::kv::KvMachine;
use quorate_engine::kv::op::{Condition, GetAnswer, Read, ScanAnswer, Txn, TxnOutcome};
use quorate_engine::machine::{Applied, Committed, Frozen, Note, Notes, Outcome, StateMachine};
use quorate_engine::node::{LeaderEvent, Machine, Node, Observer, Reply};
use quorate_engine::session::Consistency;
use quorate_engine::{Failure, NodeConfig};

/// How long an operation may take before it is answered with a failure.
pub const PATIENCE: Duration = Duration::from_secs(4);
/// Exit status of a process whose node refused to start.
pub const REFUSED: u8 = 3;
/// Answers that wait to be printed; far more than the operations that a driver has under way.
const ANSWERS_MAX: usize = 65_536;
/// Entries of one scan's answer.
const SCAN_ENTRIES: u32 = 500;

/// Runs the process until stdin ends.
pub fn main(arguments: impl Iterator<Item = String>) -> ExitCode {
    // The thread that started this process is the driver's own; a paused orphan would stay for ever.
    let kill = Some(rustix::process::Signal::KILL);
    if let Err(error) = rustix::process::set_parent_process_death_signal(kill) {
        eprintln!("The process would outlive its driver: {error}");
        return ExitCode::FAILURE;
    }
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let (say, lines) = sync_channel(ANSWERS_MAX);
    let printer = std::thread::spawn(move || print(&lines));
    let ended = match configure(arguments).and_then(|(config, slow)| serve(config, slow, &say)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tell(&say, format!("0 refused {:?} {}", failure.code, one_line(&failure.message)));
            ExitCode::from(REFUSED)
        }
    };
    drop(say);
    // The observer of a node that does not end keeps a sender: what matters was printed or never will be.
    for _ in 0..100 {
        if printer.is_finished() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    ended
}

fn configure(arguments: impl Iterator<Item = String>) -> Result<(NodeConfig, Duration), Failure> {
    let mut words: BTreeMap<String, String> = BTreeMap::new();
    for argument in arguments {
        let pair = argument.split_once('=').map(|(name, value)| (name.to_string(), value.to_string()));
        words.extend(Some(pair.ok_or_else(|| Failure::invalid(format!("{argument:?} is not NAME=VALUE.")))?));
    }
    let mut text = |name: &str| words.remove(name).ok_or_else(|| Failure::invalid(format!("{name}= is missing.")));
    let servers = text("servers")?;
    let servers = servers.split(',').filter_map(|one| one.split_once('@'));
    let servers = servers.map(|(name, address)| (name.to_string(), address.to_string())).collect();
    let mut config = NodeConfig::new(text("name")?, servers, text("dir")?);
    config.listen = Some(text("listen")?);
    config.heartbeat_ms = number(&text("heartbeat")?)?;
    config.election_timeout_ms = number(&text("election")?)?;
    config.snapshot_commands = number(&text("snapshot")?)?;
    config.log_keep_entries = number(&text("keep")?)?;
    config.log_bytes = number(&text("log-bytes")?)?;
    config.join_only = text("join-only")? == "true";
    Ok((config, Duration::from_micros(number(&text("slow-us")?)?)))
}

fn number(text: &str) -> Result<u64, Failure> {
    text.parse().map_err(|_| Failure::invalid(format!("{text:?} is no number.")))
}

fn serve(config: NodeConfig, slow: Duration, say: &SyncSender<String>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build();
    let runtime = runtime.map_err(|error| Failure::io("Starting a runtime", &error))?;
    let machine = if slow.is_zero() {
        Machine::KeyValue
    } else {
        let (machine, _) = KvMachine::open(&config.data_dir.join("group-0/state"))?;
        Machine::Own(Box::new(Slow { machine, each: slow }))
    };
    let node = Arc::new(Node::start_with(config, machine, Arc::new(Printer(say.clone())))?);
    tell(say, "0 up".into());
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let Some((id, request)) = line.split_once(' ') else { continue };
        let words: Vec<&str> = request.split(' ').collect();
        begin(&node, runtime.handle(), id.to_string(), &words, say.clone());
    }
    node.close();
    Ok(())
}

/// Starts an operation; its answer is printed when it is there.
fn begin(node: &Arc<Node>, runtime: &tokio::runtime::Handle, id: String, words: &[&str], say: SyncSender<String>) {
    match *words {
        ["put", key, value] => {
            write(node, Txn::put(key.to_string(), value.to_string()), say, id, |_| String::new());
        }
        ["cas", key, expected, value] => {
            let found = Bytes::from(expected.to_string());
            let expected = if expected == "-" { Condition::Absent } else { Condition::Value(found) };
            let txn = Txn::put_if(key.to_string(), expected, value.to_string());
            write(node, txn, say, id, |outcome| match outcome.failed {
                None => "1".into(),
                Some(failed) => format!("0 {}", failed.found.map_or("-".into(), |entry| text(&entry.value))),
            });
        }
        ["status"] => answer(&say, &id, Ok(node.status())),
        _ => {
            let work = slow(node.clone(), words.iter().map(|word| word.to_string()).collect());
            runtime.spawn(async move { answer(&say, &id, work.await) });
        }
    }
}

fn write(node: &Node, txn: Txn, say: SyncSender<String>, id: String, result: fn(TxnOutcome) -> String) {
    let (refused_to, refused_id) = (say.clone(), id.clone());
    let reply = Reply::Call(Box::new(move |outcome: Outcome| {
        answer(&say, &id, outcome.and_then(TxnOutcome::decode).map(result));
    }));
    let submitted = txn.encode().and_then(|body| node.submit(body.into(), PATIENCE, reply));
    if let Err(failure) = submitted {
        answer(&refused_to, &refused_id, Err(failure));
    }
}

async fn slow(node: Arc<Node>, words: Vec<String>) -> Result<String, Failure> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["get", key] => get(&node, Consistency::Linearizable, key).await,
        ["lease", key] => get(&node, Consistency::Lease, key).await,
        ["local", key] => get(&node, Consistency::Local, key).await,
        ["scan", prefix, after] => scan(&node, Consistency::Linearizable, prefix, after).await,
        ["peek", prefix, after] => scan(&node, Consistency::Local, prefix, after).await,
        ["snapshot"] => node.snapshot(PATIENCE).await.map(|_| String::new()),
        ["remove", name] => node.remove_member(name, PATIENCE).await.map(|_| String::new()),
        ["transfer", name] => node.transfer_leader(name, PATIENCE).await.map(|_| String::new()),
        other => Err(Failure::invalid(format!("{other:?} is no operation."))),
    }
}

async fn get(node: &Node, how: Consistency, key: &str) -> Result<String, Failure> {
    let read = Read::Get { key: Bytes::from(key.to_string()) }.encode();
    let found = GetAnswer::decode(node.read(how, read.into(), PATIENCE).await?)?.found;
    Ok(found.map_or("-".to_string(), |entry| text(&entry.value)))
}

async fn scan(node: &Node, how: Consistency, prefix: &str, after: &str) -> Result<String, Failure> {
    let after = (after != "-").then(|| Bytes::from(after.to_string()));
    let prefix = Bytes::from(prefix.to_string());
    let read = Read::Scan { prefix, after, limit: SCAN_ENTRIES, keys_only: false }.encode();
    let answer = ScanAnswer::decode(node.read(how, read.into(), PATIENCE).await?)?;
    let mut line = u8::from(answer.more).to_string();
    for found in answer.entries {
        line.extend([" ", &text(&found.key), "=", &text(&found.entry.value)]);
    }
    Ok(line)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn answer(say: &SyncSender<String>, id: &str, outcome: Result<String, Failure>) {
    tell(
        say,
        match outcome {
            Ok(result) => format!("{id} ok {result}"),
            Err(failure) => format!("{id} fail {:?} {}", failure.code, one_line(&failure.message)),
        },
    );
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

/// Once nobody prints any more, nobody reads either.
fn tell(say: &SyncSender<String>, line: String) {
    drop(say.send(line));
}

fn print(lines: &Receiver<String>) {
    let mut out = std::io::stdout().lock();
    for line in lines {
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

/// A store that takes its time.
struct Slow {
    machine: KvMachine,
    each: Duration,
}

impl StateMachine for Slow {
    fn load_notes(&mut self) -> Result<Notes, Failure> {
        self.machine.load_notes()
    }

    fn apply(&mut self, commands: &[Committed], notes: &[Note]) -> Result<Applied, Failure> {
        std::thread::sleep(self.each * commands.len() as u32);
        self.machine.apply(commands, notes)
    }

    fn freeze(&mut self) -> Result<Box<dyn Frozen>, Failure> {
        self.machine.freeze()
    }

    fn install(&mut self, index: u64, payload: &mut dyn io::Read, notes: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Failure> {
        self.machine.install(index, payload, notes)
    }

    fn checkpoint(&mut self) -> Result<(), Failure> {
        self.machine.checkpoint()
    }
}

struct Printer(SyncSender<String>);

impl Observer for Printer {
    fn completed(&self, _outcomes: Vec<(u64, Outcome)>) {}

    fn leader(&self, event: &LeaderEvent) {
        let name = event.new_leader.as_deref().unwrap_or("-");
        tell(&self.0, format!("0 leader {} {name}", event.term));
    }
}
