//! Three nodes in one process. In earnest each would be a process on a machine of its own, with the same `servers`.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use quorate_engine::machine::Outcome;
use quorate_engine::node::{LeaderEvent, Machine, Node, Observer};
use quorate_engine::session::Consistency;
use quorate_engine::{Code, Failure, NodeConfig};

use crate::machine::{Counter, add, count_of};

/// The names of the three nodes.
pub const NAMES: [&str; 3] = ["a", "b", "c"];

/// How long anything may take; far longer than an election.
const PATIENCE: Duration = Duration::from_secs(30);

/// One running node and the counter that it keeps.
struct Member {
    node: Node,
    count: Arc<AtomicI64>,
}

/// The running nodes, by name, and where all three listen.
pub struct Cluster {
    directory: PathBuf,
    servers: BTreeMap<String, String>,
    running: BTreeMap<&'static str, Member>,
    runtime: tokio::runtime::Runtime,
}

impl Cluster {
    /// Nothing runs yet; the data of each node goes to a directory of its name in `directory`. The addresses are free ports
    /// of loopback, chosen the first time and kept beside the data, since the members of a cluster know each other by them.
    /// Fails with `Io` or `Invalid`.
    pub fn new(directory: &Path) -> Result<Cluster, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.map_err(|error| Failure::io("Starting a runtime", &error))?;
        std::fs::create_dir_all(directory).map_err(|error| Failure::io(directory.display(), &error))?;
        let servers = servers(&directory.join("addresses"))?;
        Ok(Cluster { directory: directory.to_path_buf(), servers, running: BTreeMap::new(), runtime })
    }

    /// Starts the node `name`; returns at once, the nodes then find each other. Fails as [`Node::start_with`] does.
    pub fn start(&mut self, name: &'static str) -> Result<(), Failure> {
        let count = Arc::new(AtomicI64::new(0));
        let config = NodeConfig::new(name, self.servers.clone(), self.directory.join(name));
        let machine = Machine::Own(Box::new(Counter(count.clone())));
        let node = Node::start_with(config, machine, Arc::new(Printer(name)))?;
        self.running.insert(name, Member { node, count });
        Ok(())
    }

    /// Closes the node `name`: its threads end, its directory is unlocked.
    pub fn close(&mut self, name: &str) {
        if let Some(member) = self.running.remove(name) {
            member.node.close();
        }
    }

    /// Adds `amount` through the node `name`, whoever leads. Returns the count after it, as `name` itself applied it. Fails
    /// with `Timeout` when no outcome came in time; then it may still take effect.
    pub fn add(&self, name: &str, amount: i64) -> Result<i64, Failure> {
        let outcome: Outcome = self.runtime.block_on(self.member(name)?.node.write(add(amount), PATIENCE));
        count_of(&outcome?)
    }

    /// A linearizable read on the node `name`: a barrier first (it has then applied all that was committed before the
    /// call), then its own memory. Fails with `Unavailable` when no quorum answers.
    pub fn read(&self, name: &str) -> Result<i64, Failure> {
        let member = self.member(name)?;
        self.runtime.block_on(member.node.barrier(Consistency::Linearizable, PATIENCE))?;
        Ok(member.count.load(Ordering::SeqCst))
    }

    /// How many commands the node `name` has applied since the cluster was founded. Fails with `Invalid` when it does not run.
    pub fn index(&self, name: &str) -> Result<u64, Failure> {
        Ok(self.member(name)?.node.index())
    }

    /// Waits until all running nodes agree on a leader that runs. Fails with `Timeout`.
    pub fn leader(&self) -> Result<&'static str, Failure> {
        eventually("agreement on a leader", || {
            let mut leaders: Vec<_> = self.running.values().map(|member| member.node.leader()).collect();
            leaders.dedup();
            let [Some(leader)] = leaders.as_slice() else { return None };
            self.running.keys().copied().find(|name| name == leader)
        })
    }

    /// Waits until all three have their vote: only then can any one of them be missed. Fails with `Timeout`.
    pub fn all_vote(&self) -> Result<(), Failure> {
        eventually("a vote for each node", || {
            let votes = |member: &Member| member.node.status().matches(":voter true").count();
            self.running.values().all(|member| votes(member) == NAMES.len()).then_some(())
        })
    }

    fn member(&self, name: &str) -> Result<&Member, Failure> {
        self.running.get(name).ok_or_else(|| Failure::invalid(format!("The node {name:?} does not run.")))
    }
}

/// Prints who leads. An observer also gets the outcomes of commands that were submitted with `Reply::Observer`; here there
/// are none.
struct Printer(&'static str);

impl Observer for Printer {
    fn completed(&self, _outcomes: Vec<(u64, Outcome)>) {}

    fn leader(&self, event: &LeaderEvent) {
        if let Some(leader) = &event.new_leader {
            println!("    {}: {leader} leads in term {}", self.0, event.term);
        }
    }
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, Failure> {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if let Some(found) = look() {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(Failure::new(Code::Timeout, format!("Waited {PATIENCE:?} in vain for {what}.")))
}

fn servers(file: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let failed = |error| Failure::io(file.display(), &error);
    if !file.exists() {
        std::fs::write(file, free_addresses().map_err(failed)?.join("\n")).map_err(failed)?;
    }
    let addresses = std::fs::read_to_string(file).map_err(failed)?;
    Ok(NAMES.iter().zip(addresses.lines()).map(|(name, address)| (name.to_string(), address.to_string())).collect())
}

fn free_addresses() -> std::io::Result<Vec<String>> {
    // All at once, so that they differ.
    let listeners = NAMES.iter().map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.to_string())).collect()
}
