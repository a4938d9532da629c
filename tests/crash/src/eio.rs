//! A node's disk reports I/O errors for a while, at one place of its data: the others go on, the node says what is wrong, and when the
//! disk is well it comes back by itself.
//!
//! strace makes the system calls of the running process fail with EIO, those on the files of one place: the log (appends and votes),
//! the store (sled and its journal), a snapshot. The data itself reaches the page cache, as on a disk that fails.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use quorate_engine::Failure;
use serde::Serialize;

use crate::cluster::{Cluster, Tuning, wait_for_writes};
pub use crate::comeback::Plan;
use crate::comeback::{self, BACK, Findings};
use crate::ledger::Ledger;
use crate::load::Load;
use crate::process::{self, Process};
use crate::rng::Rng;

/// The node whose disk fails.
const FAILING: usize = 0;
/// How long the disk fails after the node has said so, in milliseconds.
const MORE_MS: (u64, u64) = (500, 4_000);
/// How long strace may take to attach or to let go.
const STRACE: Duration = Duration::from_secs(10);
/// How long the others may take to acknowledge a write.
const OTHERS: Duration = Duration::from_secs(10);
/// Log files that may be begun while the disk fails.
const FILES_AHEAD: u64 = 64;
/// Calls that write, and that make durable.
const WRITES: &str = "write,pwrite64,writev,pwritev,fdatasync,sync_file_range";
const CLIENTS: u64 = 6;

/// Where the disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// Appends and votes.
    Log,
    /// sled and the journal over it.
    Store,
    /// Snapshot files; of what the running node writes only they are synced whole.
    Snapshot,
}

/// Every place.
pub const PLACES: [Place; 3] = [Place::Log, Place::Store, Place::Snapshot];

/// What was done and found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// How often the disk failed.
    pub cycles: u64,
    /// How often the node led at that moment.
    pub as_leader: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// The longest time until the node was whole again, in milliseconds.
    pub longest_return_ms: u64,
    /// Where the disk failed and what the node said then, each once.
    pub said: Vec<(Place, String)>,
    /// What must not be, in sentences.
    pub wrong: Vec<String>,
}

impl Findings for Report {
    fn wrong(&mut self) -> &mut Vec<String> {
        &mut self.wrong
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { cycles, as_leader, acknowledged, longest_return_ms, wrong, .. } = self;
        write!(f, "{cycles} times failing ({as_leader} as leader), {acknowledged} writes acknowledged, ")?;
        write!(f, "back after {longest_return_ms} ms at most, {} wrong", wrong.len())
    }
}

/// Why no disk can fail here; `None` when one can.
pub fn missing() -> Option<String> {
    let mut sleep = match Command::new("sleep").arg("60").spawn() {
        Ok(sleep) => sleep,
        Err(error) => return Some(format!("sleep does not start: {error}")),
    };
    let attached = Strace::attach(sleep.id(), &[], "fsync");
    let why = attached.err().map(|failure| failure.message);
    // It may have ended already.
    drop(sleep.kill());
    drop(sleep.wait());
    why
}

/// Has the disk fail at one place after the other, as [`comeback::run`] says. Fails when the machinery itself does.
pub fn run(plan: &Plan, say: &dyn Fn(String)) -> Result<Report, Failure> {
    comeback::run(plan, "eio", Trial::new, say)
}

/// A cluster, and what was written to it.
struct Trial {
    cluster: Cluster,
    ledger: Arc<Ledger>,
    report: Report,
}

impl Trial {
    fn new(plan: &Plan, dir: &Path) -> Result<Trial, Failure> {
        let names = ["a", "b", "c"];
        let dirs = names.map(|name| dir.join(name));
        let mut cluster = Cluster::new(&plan.program, &names, &dirs, dir, Tuning::default())?;
        cluster.start(&[0, 1, 2])?;
        Ok(Trial { cluster, ledger: Arc::default(), report: Report::default() })
    }

    fn fail(&self, place: Place, process: &Process) -> Result<Strace, Failure> {
        let group = self.cluster.members[FAILING].dir.join("group-0");
        match place {
            Place::Log => Strace::attach(process.pid(), &log_files(&group.join("log"))?, WRITES),
            Place::Store => {
                let files = ["db", "layer-0", "layer-1"].map(|name| group.join("state").join(name));
                Strace::attach(process.pid(), &files, WRITES)
            }
            Place::Snapshot => Strace::attach(process.pid(), &[], "fsync"),
        }
    }
}

impl comeback::Trial for Trial {
    type Report = Report;

    fn report(&mut self) -> &mut Report {
        self.report.acknowledged = self.ledger.acknowledged();
        &mut self.report
    }

    fn cycle(&mut self, number: u64, rng: &mut Rng) -> Result<(), Failure> {
        let place = PLACES[number as usize % PLACES.len()];
        self.fail_at(place, rng).map_err(|failure| Failure::new(failure.code, format!("{place:?}: {failure}")))
    }
}

impl Trial {
    fn fail_at(&mut self, place: Place, rng: &mut Rng) -> Result<(), Failure> {
        let all: Vec<_> = (0..3).map(|at| self.cluster.process(at)).collect::<Result<_, _>>()?;
        all.iter().try_for_each(|process| wait_for_writes(process, BACK))?;
        if rng.chance(50) {
            // Whether it takes the office is its affair.
            drop(all[FAILING].call("transfer a", process::PATIENCE));
        }
        self.report.as_leader += u64::from(self.cluster.leader() == Some(FAILING));
        let load = Load::start(&self.ledger, &all, CLIENTS, rng)?;
        let strace = self.fail(place, &all[FAILING])?;
        let said = comeback::says(&all[FAILING], "Input/output error");
        wait_for_writes(&all[1], OTHERS)?;
        std::thread::sleep(Duration::from_millis(rng.range(MORE_MS.0, MORE_MS.1)));
        drop(strace);
        drop(load);
        let said = (place, said?);
        if !self.report.said.contains(&said) {
            self.report.said.push(said);
        }
        let (took, wrong) = comeback::whole_again(&self.cluster, &self.ledger, FAILING)?;
        self.report.longest_return_ms = self.report.longest_return_ms.max(took.as_millis() as u64);
        self.report.wrong.extend(wrong);
        self.report.cycles += 1;
        Ok(())
    }
}

/// The processes go before their directories.
impl Drop for Trial {
    fn drop(&mut self) {
        (0..3).for_each(|at| self.cluster.kill(at));
    }
}

/// The log's files, and those that will follow.
fn log_files(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let listing = |error| Failure::io(format!("Listing {}", dir.display()), &error);
    let mut files = Vec::new();
    let mut newest = 0;
    for item in std::fs::read_dir(dir).map_err(listing)? {
        let path = item.map_err(listing)?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if let Some(number) = number.filter(|_| path.extension().is_some_and(|end| end == "raftlog")) {
            newest = newest.max(number);
            files.push(path);
        }
    }
    files.extend((1..=FILES_AHEAD).map(|more| dir.join(format!("{:016}.raftlog", newest + more))));
    Ok(files)
}

/// Makes calls of a process fail, until it is dropped.
struct Strace(Child);

impl Strace {
    /// Has `calls` on `files` (on any, when there are none) fail in the process `pid`. Fails when strace is not there or may not.
    fn attach(pid: u32, files: &[PathBuf], calls: &str) -> Result<Strace, Failure> {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-p", &pid.to_string()]);
        command.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:error=EIO")]);
        for file in files {
            command.arg("-P").arg(file);
        }
        let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
        let child = child.map_err(|error| Failure::io("Starting strace (Debian's package of that name)", &error))?;
        let mut strace = Strace(child);
        let mut ended = false;
        let attached = crate::cluster::eventually(STRACE, || {
            ended = matches!(strace.0.try_wait(), Ok(Some(_)) | Err(_));
            ended || is_traced(pid)
        });
        if ended || !attached {
            return Err(Failure::internal(format!("strace could not attach to process {pid}: {}", strace.complaint())));
        }
        Ok(strace)
    }

    fn complaint(&mut self) -> String {
        let mut said = String::new();
        drop(self.0.kill());
        if let Some(mut stderr) = self.0.stderr.take() {
            // What cannot be read is not needed.
            drop(std::io::Read::read_to_string(&mut stderr, &mut said));
        }
        said.trim().to_string()
    }
}

fn is_traced(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|tracer| tracer.trim() != "0"))
}

impl Drop for Strace {
    /// A tracer that is interrupted lets every thread go on; one that is killed might leave a call half changed.
    fn drop(&mut self) {
        let interrupted = Command::new("kill").args(["-s", "INT", &self.0.id().to_string()]).status();
        if interrupted.is_err() || !crate::cluster::eventually(STRACE, || matches!(self.0.try_wait(), Ok(Some(_)))) {
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }
}
