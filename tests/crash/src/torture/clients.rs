//! Clients that write, compare and set, and read, and note every operation.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use quorate_engine::Failure;

use super::history::{Line, Status};
use crate::process::{self, Answer, Process};
use crate::rng::Rng;

/// How long a set of keys is used: short histories are checked fast, and each still meets several faults.
const KEYS_MS: u64 = 1_500;
/// Pause of a client whose node is away, or failed.
const PAUSE: Duration = Duration::from_millis(5);

/// The processes of the nodes, as they come and go.
pub type Processes = Arc<Vec<RwLock<Option<Arc<Process>>>>>;

/// What the clients of one round share.
struct Shared {
    processes: Processes,
    begin: Instant,
    /// What was last seen of a key, so that comparisons succeed now and then.
    seen: Mutex<HashMap<String, String>>,
    numbers: AtomicU64,
    /// Keys that are in use at a time.
    keys: u64,
    stop: AtomicBool,
}

/// The running clients.
pub struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Vec<Line>>>,
}

impl Clients {
    /// Starts `each` clients for every node, on `keys` keys at a time. Fails with `Io`.
    pub fn start(processes: &Processes, each: usize, keys: u64, rng: &Rng) -> Result<Clients, Failure> {
        let shared = Arc::new(Shared {
            processes: processes.clone(),
            begin: Instant::now(),
            seen: Mutex::default(),
            numbers: AtomicU64::new(1),
            keys,
            stop: AtomicBool::new(false),
        });
        let mut clients = Clients { shared: shared.clone(), threads: Vec::new() };
        for number in 0..processes.len() * each {
            let (shared, rng) = (shared.clone(), rng.split(number as u64));
            let thread = std::thread::Builder::new().name(format!("client-{number}"));
            let thread = thread.spawn(move || shared.run(number % shared.processes.len(), rng));
            clients.threads.push(thread.map_err(|error| Failure::io("Starting a client", &error))?);
        }
        Ok(clients)
    }

    /// Nanoseconds since the round began.
    pub fn now_ns(&self) -> u64 {
        self.shared.now_ns()
    }

    /// Reads every key of the round once more on the node at `at`. Fails when a read does: nothing is broken any more.
    pub fn read_all(&self, at: usize, keys: &[String]) -> Result<Vec<Line>, Failure> {
        let process = self.shared.processes[at].read().clone().ok_or_else(Failure::closed)?;
        let client = self.shared.numbers.fetch_add(1, Ordering::Relaxed);
        let reads = keys.iter().map(|key| {
            let line = self.shared.call(&process, client, Line { op: "get".into(), key: key.clone(), ..empty() });
            let failed = || Failure::internal(format!("{key} cannot be read on node {at} though nothing is broken."));
            if line.status == Status::Ok { Ok(line) } else { Err(failed()) }
        });
        reads.collect()
    }

    /// Stops the clients; gives all their operations. Fails when a client panicked.
    pub fn stop(&mut self) -> Result<Vec<Line>, Failure> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut lines = Vec::new();
        for thread in self.threads.drain(..) {
            lines.extend(thread.join().map_err(|_| Failure::internal("A client panicked."))?);
        }
        Ok(lines)
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn empty() -> Line {
    Line {
        client: 0,
        op: String::new(),
        key: String::new(),
        value: None,
        expected: None,
        out: None,
        call_ns: 0,
        return_ns: 0,
        status: Status::Unknown,
    }
}

impl Shared {
    fn now_ns(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }

    fn run(&self, at: usize, mut rng: Rng) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut client = self.numbers.fetch_add(1, Ordering::Relaxed);
        while !self.stop.load(Ordering::Relaxed) {
            let Some(process) = self.processes[at].read().clone() else {
                std::thread::sleep(PAUSE);
                continue;
            };
            let line = self.call(&process, client, self.next(&mut rng, client, lines.len()));
            match line.status {
                Status::Ok => {}
                Status::Fail => std::thread::sleep(PAUSE),
                // The operation may still be under way: whoever goes on is somebody else.
                Status::Unknown => {
                    client = self.numbers.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(PAUSE);
                }
            }
            lines.push(line);
        }
        lines
    }

    fn next(&self, rng: &mut Rng, client: u64, number: usize) -> Line {
        let set = self.now_ns() / 1_000_000 / KEYS_MS;
        let key = format!("t/{set:05}/{}", rng.below(self.keys));
        let value = Some(format!("{client}.{number}"));
        let line = Line { key, ..empty() };
        match rng.below(100) {
            0..25 => Line { op: "put".into(), value, ..line },
            25..42 => {
                let seen = self.seen.lock().get(&line.key).cloned();
                Line { op: "cas".into(), value, expected: Some(seen.unwrap_or("-".into())), ..line }
            }
            42..52 => Line { op: "lease".into(), ..line },
            _ => Line { op: "get".into(), ..line },
        }
    }

    fn call(&self, process: &Process, client: u64, mut line: Line) -> Line {
        let words = [Some(&line.op), Some(&line.key), line.expected.as_ref(), line.value.as_ref()];
        let words: Vec<&str> = words.into_iter().flatten().map(String::as_str).collect();
        line.client = client;
        line.call_ns = self.now_ns();
        let answer = process.call(&words.join(" "), process::PATIENCE);
        line.return_ns = self.now_ns();
        line.status = match &answer {
            Answer::Ok(_) => Status::Ok,
            failed if failed.had_no_effect() => Status::Fail,
            _ => Status::Unknown,
        };
        if let Answer::Ok(out) = answer {
            let now = if line.op == "put" || out == "1" { line.value.as_ref() } else { Some(&out) };
            let now = now.map(|now| now.strip_prefix("0 ").unwrap_or(now).to_string());
            self.seen.lock().extend(now.map(|now| (line.key.clone(), now)));
            line.out = (line.op != "put").then_some(out);
        }
        line
    }
}
