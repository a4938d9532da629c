//! A `crash-node` process as its driver sees it: calls in, answers as they are printed, signals.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use quorate_engine::Failure;
use rustix::process::{Pid, Signal, kill_process};

/// How long a driver waits for an answer: longer than the node itself does.
pub const PATIENCE: Duration = Duration::from_secs(8);
/// How long an orderly end may take before the process is killed.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// How long the threads of a paused process may take to stand still.
const HALT_PATIENCE: Duration = Duration::from_secs(1);

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was done; the result's words.
    Ok(String),
    /// It failed with this code (see `quorate_engine::Code`) and message.
    Failed(String, String),
    /// The process died, or said nothing in time.
    Unknown,
}

/// What a node's status says is wrong now; what was wrong before stands in it too, in braces.
pub fn problem(status: &str) -> Option<&str> {
    let (_, rest) = status.split_once(" :problem \"")?;
    Some(rest.split("\" :").next().unwrap_or(rest))
}

impl Answer {
    /// The result, or the failure as a sentence.
    pub fn result(self) -> Result<String, Failure> {
        match self {
            Answer::Ok(result) => Ok(result),
            Answer::Failed(code, message) => Err(Failure::internal(format!("{code}: {message}"))),
            Answer::Unknown => Err(Failure::internal("The process died or did not answer.")),
        }
    }

    /// True when the operation certainly had and will have no effect.
    pub fn had_no_effect(&self) -> bool {
        let none = ["Unavailable", "NotLeader", "Overloaded", "Invalid", "TooLarge"];
        matches!(self, Answer::Failed(code, _) if none.contains(&code.as_str()))
    }
}

/// What a process said by itself.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// The engine's start returned: `Ok`, or the refusal.
    pub started: Option<Result<(), String>>,
    /// Its stdout ended.
    pub ended: bool,
    /// Highest term in which it saw a leader, and that leader's name.
    pub led_by: Option<(u64, String)>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<(u64, HashMap<u64, SyncSender<Answer>>)>,
    said: Mutex<Said>,
    news: Condvar,
}

/// One process. Dropping it kills it.
pub struct Process {
    child: Mutex<Child>,
    pid: Pid,
    stdin: Mutex<Option<ChildStdin>>,
    shared: Arc<Shared>,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with `arguments` and `environment` beside this process's, its stderr added to the file `log`. To be called on a thread that outlives the
    /// process: the process dies with it. Fails with `Io`.
    pub fn start(
        program: &Path,
        arguments: &[String],
        environment: &[(String, String)],
        log: &Path,
    ) -> Result<Arc<Process>, Failure> {
        let failed = |error: std::io::Error| Failure::io(format!("Starting {}", program.display()), &error);
        let stderr = File::options().create(true).append(true).open(log).map_err(failed)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .envs(environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr);
        let mut child = command.spawn().map_err(failed)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let pid = Pid::from_child(&child);
        let shared = Arc::new(Shared::default());
        let process = Process {
            child: Mutex::new(child),
            pid,
            stdin: Mutex::new(stdin),
            shared: shared.clone(),
            log: log.into(),
        };
        let reader = std::thread::Builder::new().name(format!("answers-{}", pid.as_raw_nonzero()));
        reader.spawn(move || shared.read(stdout)).map_err(failed)?;
        Ok(Arc::new(process))
    }

    /// The operating system's number of the process.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// How it ended, by itself or by a signal, if it did.
    pub fn fate(&self) -> String {
        match self.child.lock().try_wait() {
            Ok(Some(status)) => status.to_string(),
            Ok(None) => "it runs".into(),
            Err(error) => error.to_string(),
        }
    }

    /// The file that its stderr goes to.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Sends `request` and waits for its answer, at most `patience`.
    pub fn call(&self, request: &str, patience: Duration) -> Answer {
        let (sender, answer) = sync_channel(1);
        let id = {
            let mut waiting = self.shared.waiting.lock();
            waiting.0 += 1;
            let id = waiting.0;
            waiting.1.insert(id, sender);
            id
        };
        let sent = match self.stdin.lock().as_mut() {
            Some(stdin) => stdin.write_all(format!("{id} {request}\n").as_bytes()).is_ok(),
            None => false,
        };
        let answer = if sent && !self.said().ended { answer.recv_timeout(patience).ok() } else { None };
        self.shared.waiting.lock().1.remove(&id);
        answer.unwrap_or(Answer::Unknown)
    }

    /// What it said by itself so far.
    pub fn said(&self) -> Said {
        self.shared.said.lock().clone()
    }

    /// Waits until the engine's start returned. Fails with the refusal, or when the process ended or is late.
    pub fn started(&self, patience: Duration) -> Result<(), Failure> {
        let limit = Instant::now() + patience;
        let mut said = self.shared.said.lock();
        while said.started.is_none() && !said.ended {
            if self.shared.news.wait_until(&mut said, limit).timed_out() {
                return Err(Failure::internal(format!("The node said nothing in {patience:?}.")));
            }
        }
        match &said.started {
            Some(Ok(())) => Ok(()),
            Some(Err(refusal)) => Err(Failure::internal(refusal.clone())),
            None => Err(Failure::internal("The process ended before its node started.")),
        }
    }

    /// `kill -9`, and waits for the end. Does nothing to a process that ended.
    pub fn kill(&self) {
        let mut child = self.child.lock();
        // A process that has ended cannot be killed, which is as good.
        drop(child.kill());
        drop(child.wait());
    }

    /// `kill -STOP`: the process stands still, its connections stay. Fails with `Io`.
    pub fn pause(&self) -> Result<(), Failure> {
        self.signal(Signal::STOP)
    }

    /// [`Process::pause`], and waits until no thread runs any more. One inside a system call may stay there, and goes no
    /// further than its end. Fails with `Io`, and when a thread still runs after a second.
    pub fn halt(&self) -> Result<(), Failure> {
        self.pause()?;
        let limit = Instant::now() + HALT_PATIENCE;
        while !self.stands_still() {
            if Instant::now() > limit {
                return Err(Failure::internal("A paused process goes on."));
            }
            std::hint::spin_loop();
        }
        Ok(())
    }

    fn stands_still(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten().flatten();
        let stats = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
        // The state follows the name, which is in parentheses: stopped, or waiting for a disk.
        let states =
            stats.map(|stat| stat.rsplit_once(") ").map_or(' ', |(_, rest)| rest.chars().next().unwrap_or(' ')));
        states.into_iter().all(|state| "TtDZX".contains(state))
    }

    /// `kill -CONT`. Fails with `Io`.
    pub fn resume(&self) -> Result<(), Failure> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), Failure> {
        // Under the lock nobody reaps the process, so its number is still its own.
        let mut child = self.child.lock();
        if !matches!(child.try_wait(), Ok(None)) {
            return Ok(());
        }
        kill_process(self.pid, signal).map_err(|error| Failure::io("Sending a signal", &error.into()))
    }

    /// Asks it to end and waits. Gives its exit status; `None` when it had to be killed.
    pub fn end(&self) -> Option<i32> {
        self.stdin.lock().take();
        let limit = Instant::now() + END_PATIENCE;
        while Instant::now() < limit {
            if let Ok(Some(status)) = self.child.lock().try_wait() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.kill();
        None
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Shared {
    fn read(&self, stdout: Option<ChildStdout>) {
        let lines = stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines());
        lines.map_while(Result::ok).for_each(|line| self.take(&line));
        self.said.lock().ended = true;
        self.news.notify_all();
        // Whoever still waits gets `Unknown`.
        self.waiting.lock().1.clear();
    }

    fn take(&self, line: &str) {
        let mut words = line.splitn(3, ' ');
        let (id, kind, rest) = (words.next(), words.next(), words.next().unwrap_or_default());
        let id = id.and_then(|id| id.parse::<u64>().ok()).unwrap_or(0);
        let answer = match kind {
            Some("ok") => Answer::Ok(rest.to_string()),
            Some("fail") => {
                let (code, message) = rest.split_once(' ').unwrap_or((rest, ""));
                Answer::Failed(code.to_string(), message.to_string())
            }
            Some(other) => return self.note(other, rest),
            None => return,
        };
        if let Some(sender) = self.waiting.lock().1.remove(&id) {
            // Who gave up waiting has the right to.
            drop(sender.try_send(answer));
        }
    }

    fn note(&self, kind: &str, rest: &str) {
        let mut said = self.said.lock();
        match kind {
            "up" => said.started = Some(Ok(())),
            "refused" => said.started = Some(Err(rest.to_string())),
            "leader" => {
                let (term, name) = rest.split_once(' ').unwrap_or(("0", "-"));
                let term = term.parse().unwrap_or(0);
                if name != "-" && said.led_by.as_ref().is_none_or(|(known, _)| term > *known) {
                    said.led_by = Some((term, name.to_string()));
                }
            }
            _ => {}
        }
        self.news.notify_all();
    }
}
