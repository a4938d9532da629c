//! Three processes of this very program, asked over their stdin and stdout, and gone when the cluster is dropped.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use quorate_engine::{Code, Failure};

use crate::ask::{Answer, Question};
use crate::options::{MachineName, Writers};
use crate::strace;

/// Names of the processes; the first leads and drives the load.
pub const NAMES: [&str; 3] = ["a", "b", "c"];

/// How long starting, electing and telling facts may take.
/// The system calls that a node made, by name.
pub type Counted = (&'static str, Vec<(String, u64)>);

const PATIENCE: Duration = Duration::from_secs(40);
/// How long a process may take to end before it is killed: longer than it gives itself.
const END_PATIENCE: Duration = Duration::from_secs(15);
/// Lines of a process that wait to be read.
const ANSWERS_MAX: usize = 16;

struct Member {
    name: &'static str,
    process: Child,
    input: Option<ChildStdin>,
    answers: Receiver<String>,
    table: PathBuf,
}

/// The three processes.
pub struct Cluster(Vec<Member>);

impl Cluster {
    /// Starts the processes with their data in `dir` and waits until each has a vote. Fails with `Io`, `Timeout`, or what a
    /// node fails with.
    pub fn start(options: &Writers, dir: &Path) -> Result<Cluster, Failure> {
        let addresses = free_addresses().map_err(|error| Failure::io("Finding free ports", &error))?;
        let servers = NAMES.iter().zip(&addresses).map(|(name, address)| format!("{name}={address}"));
        let servers = servers.collect::<Vec<_>>().join(",");
        let mut cluster = Cluster(Vec::new());
        for name in NAMES {
            cluster.0.push(spawn(name, &servers, options.machine, dir, options.strace)?);
        }
        for member in &cluster.0 {
            let ready = member.answer(PATIENCE)?;
            eprintln!("{} is process {}.", member.name, ready.text("pid"));
        }
        cluster.wait("a vote for each", |facts| facts.text("voters") == "3")?;
        Ok(cluster)
    }

    /// Asks the process `name` and waits for its answer. Fails with `Timeout`, `Io`, or what the node fails with.
    pub fn ask(&mut self, name: &str, question: Question, patience: Duration) -> Result<Answer, Failure> {
        let member = self.0.iter_mut().find(|member| member.name == name);
        member.ok_or_else(|| Failure::invalid(format!("There is no process {name}.")))?.ask(question, patience)
    }

    /// Has the first process lead, and asks all three for their facts.
    pub fn lead(&mut self) -> Result<Vec<Answer>, Failure> {
        self.ask(NAMES[0], Question::Lead, PATIENCE)?;
        self.wait("agreement on the leader", |facts| facts.text("leader") == NAMES[0])
    }

    /// Waits until all three have applied equally many commands, and gives their facts.
    pub fn settle(&mut self) -> Result<Vec<Answer>, Failure> {
        let index: u64 = self.ask(NAMES[0], Question::Facts, PATIENCE)?.number("index")?;
        self.wait("the same index on all three", move |facts| facts.number::<u64>("index") == Ok(index))
    }

    fn wait(&mut self, what: &str, holds: impl Fn(&Answer) -> bool) -> Result<Vec<Answer>, Failure> {
        let limit = Instant::now() + PATIENCE;
        loop {
            let facts: Vec<Answer> =
                self.0.iter_mut().map(|member| member.ask(Question::Facts, PATIENCE)).collect::<Result<_, _>>()?;
            if facts.iter().all(&holds) {
                return Ok(facts);
            }
            if Instant::now() > limit {
                return Err(Failure::new(Code::Timeout, format!("Waited {PATIENCE:?} in vain for {what}.")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the processes and gives, where strace ran, the counted calls of each. Fails with `Io` when one ended badly.
    pub fn end(mut self) -> Result<Vec<Counted>, Failure> {
        let members = std::mem::take(&mut self.0);
        let mut counted = Vec::new();
        // All inputs first, so that they close together.
        let ends: Vec<_> = members.into_iter().map(Member::release).collect();
        for mut end in ends {
            if !end.wait() {
                return Err(Failure::internal(format!("The process of {} did not end well.", end.0.name)));
            }
            if let Ok(table) = std::fs::read_to_string(&end.0.table) {
                counted.push((end.0.name, strace::counts(&table)));
            }
        }
        Ok(counted)
    }
}

impl Member {
    fn ask(&mut self, question: Question, patience: Duration) -> Result<Answer, Failure> {
        let name = self.name;
        let input = self.input.as_mut().ok_or_else(Failure::closed)?;
        writeln!(input, "{}", question.line()).map_err(|error| Failure::io(format!("Asking {name}"), &error))?;
        self.answer(patience)
    }

    fn answer(&self, patience: Duration) -> Result<Answer, Failure> {
        let line = self.answers.recv_timeout(patience);
        let line = line.map_err(|why| Failure::new(Code::Timeout, format!("{} gives no answer: {why}.", self.name)))?;
        Answer::read(&line)
    }

    /// Closes the input, at which the process ends by itself.
    fn release(mut self) -> Ending {
        self.input = None;
        Ending(self)
    }
}

/// A process that was told to end. Dropping it makes sure.
struct Ending(Member);

impl Ending {
    /// Waits for the end; true when it came in time and the process was content.
    fn wait(&mut self) -> bool {
        let limit = Instant::now() + END_PATIENCE;
        while Instant::now() < limit {
            match self.0.process.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                Ok(Some(status)) => return status.success(),
                Err(_) => break,
            }
        }
        false
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Ok(None) = self.0.process.try_wait() {
            // Killing what has just ended is no error that matters.
            drop(self.0.process.kill());
            drop(self.0.process.wait());
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let ends: Vec<_> = std::mem::take(&mut self.0).into_iter().map(Member::release).collect();
        for mut end in ends {
            end.wait();
        }
    }
}

fn spawn(name: &'static str, servers: &str, machine: MachineName, dir: &Path, traced: bool) -> Result<Member, Failure> {
    let failed = |error: std::io::Error| Failure::io(format!("Starting the process of {name}"), &error);
    let program = std::env::current_exe().map_err(failed)?;
    let table = dir.join(format!("{name}.strace"));
    let mut command = if traced { strace::command(&program, &table) } else { Command::new(program) };
    command
        .args(["node", "--name", name, "--servers", servers, "--machine", machine.text(), "--dir"])
        .arg(dir.join(name));
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let (input, output) = (process.stdin.take(), process.stdout.take());
    let (sender, answers) = sync_channel(ANSWERS_MAX);
    let read = move || {
        let lines = output.into_iter().flat_map(|output| BufReader::new(output).lines());
        // Ends with the process, or when nobody listens any more.
        lines.map_while(Result::ok).try_for_each(|line| sender.send(line)).unwrap_or_default();
    };
    std::thread::Builder::new().name(format!("answers-{name}")).spawn(read).map_err(failed)?;
    Ok(Member { name, process, input, answers, table })
}

fn free_addresses() -> std::io::Result<Vec<String>> {
    // All at once, so that they differ.
    let listeners = NAMES.iter().map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.to_string())).collect()
}
