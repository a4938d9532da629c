//! What the parts of a running node share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::NodeConfig;
use crate::consensus::network::RaftInbound;
use crate::datadir::DataDir;
use crate::error::Failure;
use crate::hosted::Host;
use crate::kv::KvReader;
use crate::machine::Outcome;
use crate::node::adapter::RaftNode;
use crate::node::applier;
use crate::node::arrivals::Arrivals;
use crate::node::asks::Asks;
use crate::node::forwarded::ForwardQueue;
use crate::node::messages::ClusterId;
use crate::node::observer::Observer;
use crate::node::pending::Pending;
use crate::node::problems::Problems;
use crate::node::read_queue::ReadQueue;
use crate::node::requests::Requests;
use crate::node::shared::Shared;
use crate::node::snapshots::Snapshots;
use crate::node::view::View;
use crate::surroundings::Surroundings;
use crate::transport::Peers;
use crate::transport::carried::Carried;
use crate::transport::wire::Wire;
use crate::watch;

/// Who this node is, as far as it knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The cluster, once it has one.
    pub cluster: Option<ClusterId>,
    /// Its raft id; before it has a cluster, the fresh id that it would join with.
    pub node: u64,
    /// Which start this is.
    pub incarnation: u64,
}

/// A running consensus core and its inbound side.
#[derive(Clone)]
pub struct Running {
    /// The core.
    pub raft: RaftNode,
    /// Answers other nodes' consensus messages.
    pub inbound: Arc<RaftInbound>,
}

/// Shared by all parts of one node; all locks in it are short.
pub struct Core {
    /// As it was started.
    pub config: NodeConfig,
    /// What the node has instead of threads, network and disk of the operating system, if anything.
    pub surroundings: Option<Surroundings>,
    /// The locked data directory.
    pub data: Mutex<DataDir>,
    /// Who this node is.
    pub identity: RwLock<Identity>,
    /// When the leader's appends came.
    pub arrivals: Arrivals,
    /// Submitted commands.
    pub pending: Arc<Pending>,
    /// Other requests.
    pub requests: Requests,
    /// Shared with the applying thread.
    pub applier: Arc<Shared>,
    /// Who is told of events.
    pub observer: Arc<dyn Observer>,
    /// Who leads.
    pub leadership: watch::Sender<View>,
    /// Commands forwarded to this node.
    pub forwarded: ForwardQueue,
    /// Reads that wait for their barrier.
    pub reads: ReadQueue,
    /// Takes snapshots.
    pub snapshots: Snapshots,
    /// How connections come about.
    pub wire: Arc<dyn Wire>,
    /// Connections to other nodes.
    pub peers: Peers,
    /// Connections for questions between hosts: a large answer holds up no vote.
    pub askers: Peers,
    /// Questions between hosts.
    pub asks: Asks,
    /// The host's transport, when it carries what nodes say to each other.
    pub carried: Option<Carried>,
    /// The consensus core, once it runs.
    pub running: RwLock<Option<Running>>,
    /// One membership change at a time.
    pub changing: Arc<tokio::sync::Mutex<()>>,
    /// What is wrong.
    pub problems: Arc<Problems>,
    /// What this node waits for before it has a cluster.
    pub waiting_for: Mutex<Option<String>>,
    /// Why the leader or role changed last, and when.
    pub last_election: Mutex<Option<(&'static str, u64, Instant)>>,
    /// The key-value store's reading side, when that is the machine.
    pub reader: Option<KvReader>,
    /// The host's side, when the machine is hosted.
    pub host: Option<Arc<Host>>,
    /// Index up to which a hosted machine has applied.
    pub host_applied: watch::Sender<u64>,
    /// Set at close.
    pub closing: AtomicBool,
    /// Rung at close.
    pub close_bell: Notify,
}

impl Core {
    /// The consensus core; `Unavailable` before the node has found its cluster.
    pub fn raft(&self) -> Result<RaftNode, Failure> {
        match &*self.running.read() {
            Some(running) => Ok(running.raft.clone()),
            None => Err(self.not_ready()),
        }
    }

    /// Why nothing can be asked of this node yet.
    pub fn not_ready(&self) -> Failure {
        let waiting = self.waiting_for.lock().clone().unwrap_or_else(|| "The node is starting.".into());
        Failure::new(crate::error::Code::Unavailable, waiting)
    }

    /// Says what the node waits for; logged when it changes.
    pub fn wait_for(&self, sentence: impl Into<String>) {
        let sentence = sentence.into();
        let mut waiting = self.waiting_for.lock();
        if waiting.as_ref() != Some(&sentence) {
            tracing::info!("{sentence}");
            *waiting = Some(sentence);
        }
    }

    /// Answers a request, unless it was answered before.
    pub fn answer(&self, ticket: u64, outcome: Outcome) {
        if let Some(due) = self.requests.finish(ticket, outcome) {
            applier::deliver(vec![due], self.observer.as_ref());
        }
    }

    /// Refuses every command that was not sent anywhere yet.
    pub fn refuse_unsent(&self, failure: &Failure) {
        let due = self.pending.refuse_unsent(failure);
        applier::deliver(due, self.observer.as_ref());
    }

    /// True once the node is closing.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}
