//! One process of a cluster, from its start to its end: it never outlives the value that stands for it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use quorate_engine::{Code, Failure};

use crate::ask::{Answer, Question};
use crate::cluster::Plan;
use crate::strace;

/// How long a process may take to end before it is killed: longer than it gives itself.
const END_PATIENCE: Duration = Duration::from_secs(15);
/// Lines of a process that wait to be read.
const ANSWERS_MAX: usize = 16;

/// A node's process. Dropping it ends it, by force if it must be.
pub struct Process {
    /// The node's name.
    pub name: &'static str,
    child: Child,
    input: Option<ChildStdin>,
    answers: Receiver<String>,
    table: PathBuf,
    /// The node's own process id: under strace that is not the child's.
    pid: Option<u32>,
}

/// Where strace leaves its table.
pub struct Table(PathBuf);

impl Table {
    /// The calls that it counted; `None` when strace did not run.
    pub fn calls(&self) -> Option<Vec<(String, u64)>> {
        std::fs::read_to_string(&self.0).ok().map(|table| strace::counts(&table))
    }
}

impl Process {
    /// Starts the node `name` among `servers`, with its data in a directory of its name in `dir`. Fails with `Io`.
    pub fn spawn(name: &'static str, servers: &str, plan: &Plan, dir: &Path) -> Result<Process, Failure> {
        let failed = |error: std::io::Error| Failure::io(format!("Starting the process of {name}"), &error);
        let program = std::env::current_exe().map_err(failed)?;
        let table = dir.join(format!("{name}.strace"));
        let mut command = if plan.strace { strace::command(&program, &table) } else { Command::new(program) };
        command.args(["node", "--name", name, "--servers", servers, "--machine", plan.machine_of(name).text()]);
        command.args(plan.tuning.arguments()).arg("--dir").arg(dir.join(name));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (sender, answers) = sync_channel(ANSWERS_MAX);
        let process = Process { name, child, input, answers, table, pid: None };
        let read = move || {
            let lines = output.into_iter().flat_map(|output| BufReader::new(output).lines());
            // Ends with the process, or when nobody listens any more.
            lines.map_while(Result::ok).try_for_each(|line| sender.send(line)).unwrap_or_default();
        };
        std::thread::Builder::new().name(format!("answers-{name}")).spawn(read).map_err(failed)?;
        Ok(process)
    }

    /// Waits for the first line, which says that the node has opened its data. Fails as [`Process::answer`].
    pub fn started(&mut self, patience: Duration) -> Result<(), Failure> {
        if self.pid.is_none() {
            self.pid = Some(self.answer(patience)?.number("pid")?);
        }
        Ok(())
    }

    /// Asks. Fails with `Io`, `Closed`.
    pub fn ask(&mut self, question: Question) -> Result<(), Failure> {
        let name = self.name;
        let input = self.input.as_mut().ok_or_else(Failure::closed)?;
        writeln!(input, "{}", question.line()).map_err(|error| Failure::io(format!("Asking {name}"), &error))
    }

    /// Waits for an answer. Fails with `Timeout`, or what the node fails with.
    pub fn answer(&mut self, patience: Duration) -> Result<Answer, Failure> {
        let line = self.answers.recv_timeout(patience);
        let line = line.map_err(|why| Failure::new(Code::Timeout, format!("{} gives no answer: {why}.", self.name)))?;
        Answer::read(&line)
    }

    /// The node's process id; 0 before it has started.
    pub fn pid(&self) -> u32 {
        self.pid.unwrap_or(0)
    }

    /// Sends it a signal. Fails with `Io` when there is no `kill`, with `Internal` when that fails.
    pub fn signal(&self, signal: &str) -> Result<(), Failure> {
        let sent = Command::new("kill").args(["-s", signal, &self.pid().to_string()]).status();
        let sent = sent.map_err(|error| Failure::io(format!("Signalling {}", self.name), &error))?;
        let failed = || Failure::internal(format!("{} did not get the signal {signal}.", self.name));
        sent.success().then_some(()).ok_or_else(failed)
    }

    /// Resident memory, in bytes; 0 where there is no /proc.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kilobytes.unwrap_or(0) << 10
    }

    /// Where its calls are counted.
    pub fn table(&self) -> Table {
        Table(self.table.clone())
    }

    /// Closes its input, at which it ends by itself.
    pub fn release(&mut self) {
        self.input = None;
    }

    /// Ends it the orderly way. Fails with `Internal` when it does not end in time and content.
    pub fn end(mut self) -> Result<(), Failure> {
        match self.wait() {
            true => Ok(()),
            false => Err(Failure::internal(format!("The process of {} did not end well.", self.name))),
        }
    }

    /// Ends it by SIGKILL. Fails with `Io`.
    pub fn kill(mut self) -> Result<(), Failure> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.map(drop).map_err(|error| Failure::io(format!("Killing {}", self.name), &error))
    }

    /// Waits for the end; true when it came in time and the process was content.
    fn wait(&mut self) -> bool {
        self.release();
        let limit = Instant::now() + END_PATIENCE;
        while Instant::now() < limit {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                Ok(Some(status)) => return status.success(),
                Err(_) => break,
            }
        }
        false
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) && !self.wait() {
            // Killing what has just ended is no error that matters.
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}
