//! One, three or five node processes that form a cluster, each with its directory and addresses.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_engine::Failure;

use crate::process::{self, Answer, Process};

/// How long a node may take to open its directory.
pub const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long a node that lost its disk may take to be a voter again.
pub const REJOIN: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// What the nodes are told beside names and addresses.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Heartbeat and shortest election timeout, in milliseconds.
    pub times_ms: (u64, u64),
    /// A snapshot after so many commands.
    pub snapshot: u64,
    /// Log entries kept before a snapshot.
    pub keep: u64,
    /// Size of the log at which files are used again, in bytes.
    pub log_bytes: u64,
}

impl Default for Tuning {
    /// Small: snapshots, purges and file changes several times a second.
    fn default() -> Tuning {
        Tuning { times_ms: (50, 250), snapshot: 300, keep: 4, log_bytes: 2 << 20 }
    }
}

/// One place in a cluster.
pub struct Member {
    /// Its name.
    pub name: String,
    /// The address that the others are told.
    pub address: String,
    /// Where it listens itself.
    pub listen: String,
    /// Its data directory.
    pub dir: PathBuf,
    /// Its process, while it runs.
    pub process: Option<Arc<Process>>,
    /// How much longer each command takes to be applied, in microseconds.
    pub slow_us: u64,
    /// What its environment has beside this process's.
    pub environment: Vec<(String, String)>,
}

/// The members, and how to start them.
pub struct Cluster {
    /// The members, by position.
    pub members: Vec<Member>,
    program: PathBuf,
    logs: PathBuf,
    tuning: Tuning,
}

impl Cluster {
    /// A cluster with a member a directory, `names` and `dirs` side by side; logs of the processes go to `logs`. Nothing
    /// runs yet. Fails with `Io`.
    pub fn new(
        program: &Path,
        names: &[&str],
        dirs: &[PathBuf],
        logs: &Path,
        tuning: Tuning,
    ) -> Result<Cluster, Failure> {
        let listens = free_addresses(names.len())?;
        let members = names.iter().zip(dirs).zip(listens);
        let members = members.map(|((name, dir), listen)| Member {
            name: name.to_string(),
            address: listen.clone(),
            listen,
            dir: dir.clone(),
            process: None,
            slow_us: 0,
            environment: Vec::new(),
        });
        Ok(Cluster { members: members.collect(), program: program.into(), logs: logs.into(), tuning })
    }

    /// Starts the process of the member at `at`; its node then opens its directory. Fails with `Io`.
    pub fn spawn(&mut self, at: usize) -> Result<Arc<Process>, Failure> {
        let log = self.log(at);
        let process = Process::start(&self.program, &self.arguments(at), &self.members[at].environment, &log)?;
        self.members[at].process = Some(process.clone());
        Ok(process)
    }

    /// [`Cluster::spawn`] for each of `all`, then waits until every node has opened its directory. Fails with the
    /// first refusal.
    pub fn start(&mut self, all: &[usize]) -> Result<(), Failure> {
        let started: Vec<_> = all.iter().map(|at| self.spawn(*at)).collect::<Result<_, _>>()?;
        for (at, process) in all.iter().zip(started) {
            let name = &self.members[*at].name;
            process.started(START_PATIENCE).map_err(|failure| Failure::internal(format!("{name}: {failure}")))?;
        }
        Ok(())
    }

    /// The file with the stderr of the member at `at`.
    pub fn log(&self, at: usize) -> PathBuf {
        self.logs.join(format!("{}.log", self.members[at].name))
    }

    /// `kill -9` of the member at `at`, if it runs.
    pub fn kill(&mut self, at: usize) {
        if let Some(process) = self.members[at].process.take() {
            process.kill();
        }
    }

    /// The running process at `at`. Fails with `Closed`.
    pub fn process(&self, at: usize) -> Result<Arc<Process>, Failure> {
        self.members[at].process.clone().ok_or_else(Failure::closed)
    }

    /// Positions of the members that run.
    pub fn running(&self) -> Vec<usize> {
        (0..self.members.len()).filter(|at| self.members[*at].process.is_some()).collect()
    }

    /// The position of the leader that the running node with the newest news knows.
    pub fn leader(&self) -> Option<usize> {
        let processes = self.members.iter().filter_map(|member| member.process.as_ref());
        let (_, name) = processes.filter_map(|process| process.said().led_by).max()?;
        self.members.iter().position(|member| member.name == name)
    }

    /// Every entry whose key begins with `prefix`, as the member at `at` reads it (linearizable), asked again until it
    /// answers. Fails when it does not within `patience`, with what it said last and its status.
    pub fn entries(&self, at: usize, prefix: &str, patience: Duration) -> Result<Vec<(String, String)>, Failure> {
        let process = self.process(at)?;
        let limit = Instant::now() + patience;
        loop {
            match scan(&process, "scan", prefix) {
                Ok(entries) => return Ok(entries),
                Err(failure) if Instant::now() >= limit || process.said().ended => {
                    let name = &self.members[at].name;
                    let status = process.call("status", Duration::from_secs(1)).result();
                    let status = status.unwrap_or_else(|failure| failure.message);
                    return Err(Failure::internal(format!("{name} does not answer: {failure} Its status: {status}")));
                }
                Err(_) => std::thread::sleep(LOOK),
            }
        }
    }

    fn arguments(&self, at: usize) -> Vec<String> {
        let member = &self.members[at];
        let servers: Vec<String> = self.members.iter().map(|one| format!("{}@{}", one.name, one.address)).collect();
        let Tuning { times_ms: (heartbeat, election), snapshot, keep, log_bytes } = &self.tuning;
        vec![
            format!("name={}", member.name),
            format!("servers={}", servers.join(",")),
            format!("dir={}", member.dir.display()),
            format!("listen={}", member.listen),
            format!("heartbeat={heartbeat}"),
            format!("election={election}"),
            format!("snapshot={snapshot}"),
            format!("keep={keep}"),
            format!("log-bytes={log_bytes}"),
            "join-only=false".into(),
            format!("slow-us={}", member.slow_us),
        ]
    }
}

/// Everything below `prefix`, by `operation` (`scan` or `peek`), page by page. Fails with what the node failed with.
pub fn scan(process: &Process, operation: &str, prefix: &str) -> Result<Vec<(String, String)>, Failure> {
    let mut entries: Vec<(String, String)> = Vec::new();
    loop {
        let after = entries.last().map_or("-", |(key, _)| key.as_str());
        let page = process.call(&format!("{operation} {prefix} {after}"), process::PATIENCE).result()?;
        let mut words = page.split(' ');
        let more = words.next() == Some("1");
        let found = words.filter_map(|word| word.split_once('='));
        entries.extend(found.map(|(key, value)| (key.to_string(), value.to_string())));
        if !more {
            return Ok(entries);
        }
    }
}

/// Waits until `holds`, at most `patience`; gives whether it did.
pub fn eventually(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let limit = Instant::now() + patience;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= limit {
            return false;
        }
        std::thread::sleep(LOOK);
    }
}

/// Writes until one write is acknowledged by the process: then there is a leader with a quorum. Fails after `patience`.
pub fn wait_for_writes(process: &Process, patience: Duration) -> Result<(), Failure> {
    let mut last = Answer::Unknown;
    let took = eventually(patience, || {
        last = process.call("put ready yes", process::PATIENCE);
        matches!(last, Answer::Ok(_)) || process.said().ended
    });
    match last {
        Answer::Ok(_) if took => Ok(()),
        other => Err(Failure::internal(format!("No write is acknowledged: {other:?}"))),
    }
}

/// Waits until the node has a vote under its present id, and the member that it replaces is gone. Fails after `patience`,
/// with its status.
pub fn wait_for_vote(process: &Process, patience: Duration) -> Result<(), Failure> {
    let mut status = Answer::Unknown;
    let votes = eventually(patience, || {
        status = process.call("status", process::PATIENCE);
        matches!(&status, Answer::Ok(status) if is_voter(status))
    });
    if votes { Ok(()) } else { Err(Failure::internal(format!("A node has no vote after {patience:?}: {status:?}"))) }
}

fn is_voter(status: &str) -> bool {
    let id = status.split_once(":id \"").and_then(|(_, rest)| rest.split('"').next()).unwrap_or_default();
    let members = status.split_once(":members [").map_or("", |(_, rest)| rest);
    let members: Vec<&str> = members.split(']').next().unwrap_or_default().split('}').collect();
    let Some(mine) = members.iter().find(|member| member.contains(&format!(":id \"{id}\""))) else { return false };
    let name = mine.split(" :id").next().unwrap_or_default().trim();
    // While the former member of the name is there the change is half done, and either's quorum counts.
    let namesakes = members.iter().filter(|member| member.trim().starts_with(name)).count();
    mine.contains(":voter true") && namesakes == 1
}

/// So many different addresses on loopback that nobody listens on. Fails with `Io`.
pub fn free_addresses(count: usize) -> Result<Vec<String>, Failure> {
    let failed = |error: std::io::Error| Failure::io("Finding free ports", &error);
    let listeners: Vec<_> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>().map_err(failed)?;
    listeners.iter().map(|one| one.local_addr().map(|address| address.to_string()).map_err(failed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vote_counts_once_the_former_member_is_gone() {
        let status =
            |members: &str| format!("{{:name \"b\" :id \"2\" :role :follower :members [{members}] :problem nil}}");
        let member = |id: u32, voter: bool| format!("{{:name \"b\" :id \"{id}\" :address \"x\" :voter {voter}}}");
        assert!(is_voter(&status(&member(2, true))));
        assert!(!is_voter(&status(&member(2, false))));
        assert!(!is_voter(&status(&member(1, true))));
        assert!(!is_voter(&status(&format!("{} {}", member(2, true), member(1, true)))));
        assert!(!is_voter("{:id \"2\" :members []}"));
    }
}
