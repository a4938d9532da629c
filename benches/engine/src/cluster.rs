//! Processes of this very program, one a node, asked over their stdin and stdout, and gone when the cluster is dropped.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use quorate_engine::{Code, Failure};

use crate::ask::{Answer, Question};
use crate::disk;
use crate::options::{MachineName, Tuning};
use crate::process::Process;

/// Names of the three that most measurements have; the first leads and drives the load.
pub const NAMES: [&str; 3] = ["a", "b", "c"];
/// All names that there are.
pub const ALL: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];

/// The system calls that a node made, by name.
pub type Counted = (&'static str, Vec<(String, u64)>);

/// How long starting, electing and telling facts may take.
const PATIENCE: Duration = Duration::from_secs(40);
/// What a load may take beyond its time: the last commands, and a machine that is busy with other things.
pub const SLACK: Duration = Duration::from_secs(60);

/// What kind of cluster.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The state machine.
    pub machine: MachineName,
    /// Count the syncs of each process with strace.
    pub strace: bool,
    /// What differs from the defaults of a node.
    pub tuning: Tuning,
    /// The node whose state machine is in a host that never acknowledges.
    pub stuck: Option<&'static str>,
}

impl Plan {
    /// The state machine of the node `name`.
    pub fn machine_of(&self, name: &str) -> MachineName {
        if self.stuck == Some(name) { MachineName::Stuck } else { self.machine }
    }
}

/// The processes that run.
pub struct Cluster {
    plan: Plan,
    dir: PathBuf,
    addresses: BTreeMap<&'static str, String>,
    running: Vec<Process>,
}

impl Cluster {
    /// Starts a process for each of `names` with its data in a directory of that name in `dir`, and waits until each has a
    /// vote. Fails with `Io`, `Timeout`, or what a node fails with.
    pub fn start(plan: Plan, dir: &Path, names: &[&'static str]) -> Result<Cluster, Failure> {
        let addresses = free_addresses().map_err(|error| Failure::io("Finding free ports", &error))?;
        let mut cluster = Cluster { plan, dir: dir.to_path_buf(), addresses, running: Vec::new() };
        for name in names {
            cluster.spawn(name, names)?;
        }
        for name in names {
            cluster.member(name)?.started(PATIENCE)?;
        }
        cluster.all_vote()?;
        Ok(cluster)
    }

    /// Starts the process `name` among the servers `among` (again), and returns at once. Fails with `Io`.
    pub fn spawn(&mut self, name: &'static str, among: &[&'static str]) -> Result<(), Failure> {
        let servers = among.iter().filter_map(|name| Some(format!("{name}={}", self.addresses.get(name)?)));
        let servers = servers.collect::<Vec<_>>().join(",");
        self.running.push(Process::spawn(name, &servers, &self.plan, &self.dir)?);
        Ok(())
    }

    /// Starts the process `name` and waits until it is ready: it has applied all that was committed before. Returns how long
    /// that took from before the process was there. Fails as [`Cluster::ask`].
    pub fn time_to_ready(
        &mut self,
        name: &'static str,
        among: &[&'static str],
        patience: Duration,
    ) -> Result<Duration, Failure> {
        let began = Instant::now();
        self.spawn(name, among)?;
        self.ready(name, patience)?;
        Ok(began.elapsed())
    }

    /// Waits until the process `name`, started by [`Cluster::spawn`], is ready.
    pub fn ready(&mut self, name: &str, patience: Duration) -> Result<Answer, Failure> {
        self.member(name)?.started(patience)?;
        self.ask(name, Question::Ready, patience)
    }

    /// Waits until each process has a vote.
    pub fn all_vote(&mut self) -> Result<(), Failure> {
        let all = self.running.len().to_string();
        self.wait("a vote for each", |facts| facts.text("voters") == all).map(drop)
    }

    /// Ends the process `name` the orderly way. Fails with `Internal` when it does not end well.
    pub fn close(&mut self, name: &str) -> Result<(), Failure> {
        self.take(name)?.end()
    }

    /// Ends the process `name` by SIGKILL, and waits until it is gone. Fails with `Io`.
    pub fn kill(&mut self, name: &str) -> Result<(), Failure> {
        self.take(name)?.kill()
    }

    fn take(&mut self, name: &str) -> Result<Process, Failure> {
        let at = self.running.iter().position(|one| one.name == name);
        at.map(|at| self.running.remove(at)).ok_or_else(|| absent(name))
    }

    fn member(&mut self, name: &str) -> Result<&mut Process, Failure> {
        self.running.iter_mut().find(|one| one.name == name).ok_or_else(|| absent(name))
    }

    /// Asks the process `name` and waits for its answer. Fails with `Timeout`, `Io`, or what the node fails with.
    pub fn ask(&mut self, name: &str, question: Question, patience: Duration) -> Result<Answer, Failure> {
        self.begin(name, question)?;
        self.finish(name, patience)
    }

    /// Asks the process `name`; [`Cluster::finish`] waits for the answer. Fails with `Io`.
    pub fn begin(&mut self, name: &str, question: Question) -> Result<(), Failure> {
        self.member(name)?.ask(question)
    }

    /// Waits for the answer of the process `name`.
    pub fn finish(&mut self, name: &str, patience: Duration) -> Result<Answer, Failure> {
        self.member(name)?.answer(patience)
    }

    /// Has the first process lead, and asks all for their facts.
    pub fn lead(&mut self) -> Result<Vec<Answer>, Failure> {
        self.ask(NAMES[0], Question::Lead, PATIENCE)?;
        self.wait("agreement on the leader", |facts| facts.text("leader") == NAMES[0])
    }

    /// Waits until all have applied equally many commands, and gives their facts.
    pub fn settle(&mut self) -> Result<Vec<Answer>, Failure> {
        let index: u64 = self.ask(NAMES[0], Question::Facts, PATIENCE)?.number("index")?;
        self.wait("the same index on all", move |facts| facts.number::<u64>("index") == Ok(index))
    }

    fn wait(&mut self, what: &str, holds: impl Fn(&Answer) -> bool) -> Result<Vec<Answer>, Failure> {
        let limit = Instant::now() + PATIENCE;
        loop {
            let mut facts = Vec::new();
            for member in &mut self.running {
                member.ask(Question::Facts)?;
                facts.push(member.answer(PATIENCE)?);
            }
            if facts.iter().all(&holds) {
                return Ok(facts);
            }
            if Instant::now() > limit {
                return Err(Failure::new(Code::Timeout, format!("Waited {PATIENCE:?} in vain for {what}.")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends the process `name` a signal, `STOP` or `CONT`. Fails with `Io`, `Internal`.
    pub fn signal(&mut self, name: &str, signal: &str) -> Result<(), Failure> {
        self.member(name)?.signal(signal)
    }

    /// Resident memory of each process, in bytes, by name; 0 where there is no /proc.
    pub fn memory(&self) -> Vec<u64> {
        self.running.iter().map(Process::resident).collect()
    }

    /// What the data of each process takes on the disk, in bytes.
    pub fn disk(&self) -> Vec<u64> {
        self.running.iter().map(|one| disk::taken(&self.dir.join(one.name))).collect()
    }

    /// Tells a person which processes there are, for `perf record -p`.
    pub fn introduce(&self) {
        self.running.iter().for_each(|one| eprintln!("{} is process {}.", one.name, one.pid()));
    }

    /// Ends the processes and gives, where strace ran, the counted calls of each. Fails with `Internal` when one ended badly.
    pub fn end(mut self) -> Result<Vec<Counted>, Failure> {
        let mut members = std::mem::take(&mut self.running);
        // All inputs first, so that they close together.
        members.iter_mut().for_each(Process::release);
        let mut counted = Vec::new();
        for member in members {
            let (name, table) = (member.name, member.table());
            member.end()?;
            counted.extend(table.calls().map(|calls| (name, calls)));
        }
        Ok(counted)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.running.iter_mut().for_each(Process::release);
    }
}

fn absent(name: &str) -> Failure {
    Failure::invalid(format!("There is no process {name}."))
}

fn free_addresses() -> std::io::Result<BTreeMap<&'static str, String>> {
    // All at once, so that they differ.
    let listeners = ALL.iter().map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    let named = ALL.iter().zip(&listeners);
    named.map(|(name, listener)| Ok((*name, listener.local_addr()?.to_string()))).collect()
}
