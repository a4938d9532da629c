//! What this node answers to others: introductions, forwarded commands, read indexes, membership changes. Consensus
//! messages go on to [`crate::consensus::network`].

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver;
use tokio::time::Instant;

use crate::command::Batch;
use crate::consensus::network::is_consensus_call;
use crate::error::{Code, Failure};
use crate::limits::BATCH_COMMANDS_MAX;
use crate::node::asking;
use crate::node::bootstrap;
use crate::node::core::{Core, Running};
use crate::node::forming;
use crate::node::membership;
use crate::node::messages::{
    ABOUT, ACCEPT, ASK, About, CHANGE, Change, FORWARD, INVITE, Invite, JOIN, PREPARE, READ_INDEX, Stage, decode,
    encode,
};
use crate::node::reads;
use crate::node::view::Leader;
use crate::transport::{Identity, Peer, Service};

/// An append stream to a node whose consensus core does not run ends after this long and not at once: the leader opens the
/// next as soon as one ends.
const NOT_RUNNING_PAUSE: Duration = Duration::from_millis(250);
/// How long a change that another node asked for may take here.
const CHANGE_PATIENCE: Duration = Duration::from_secs(60);

/// Answers other nodes. Holds the core weakly: the transport's tasks must not keep a closed node alive.
pub struct NodeService {
    core: Weak<Core>,
}

impl NodeService {
    /// For the node behind `core`.
    pub fn new(core: Weak<Core>) -> NodeService {
        NodeService { core }
    }

    fn core(&self) -> Result<Arc<Core>, Failure> {
        self.core.upgrade().ok_or_else(Failure::closed)
    }

    fn running(&self) -> Result<Running, Failure> {
        let core = self.core()?;
        core.running.read().clone().ok_or_else(|| core.not_ready())
    }
}

impl Service for NodeService {
    fn identity(&self) -> Identity {
        self.core.upgrade().map_or_else(nobody, |core| identity(&core))
    }

    fn call(&self, from: Peer, kind: u8, body: Bytes) -> BoxFuture<'static, Result<Bytes, Failure>> {
        let (core, running) = (self.core(), self.running());
        Box::pin(async move {
            if is_consensus_call(kind) {
                return running?.inbound.call(from, kind, body).await;
            }
            answer(core?, &from, kind, body).await
        })
    }

    fn append_stream(&self, from: Peer, input: BoxStream<'static, Bytes>) -> BoxStream<'static, Bytes> {
        match self.running() {
            Ok(running) => {
                let core = self.core.clone();
                let noted = input.inspect(move |_| {
                    if let Some(core) = core.upgrade() {
                        core.arrivals.note();
                    }
                });
                running.inbound.append_stream(from, noted.boxed())
            }
            Err(_) => Box::pin(stream::once(tokio::time::sleep(NOT_RUNNING_PAUSE)).filter_map(|()| async { None })),
        }
    }

    fn snapshot(
        &self,
        from: Peer,
        head: Bytes,
        chunks: BoxStream<'static, Result<Bytes, Failure>>,
    ) -> BoxFuture<'static, Result<Bytes, Failure>> {
        let running = self.running();
        Box::pin(async move { running?.inbound.snapshot(from, head, chunks).await })
    }
}

/// How this node introduces itself.
pub fn identity(core: &Core) -> Identity {
    let known = core.identity.read().clone();
    Identity {
        cluster: known.cluster,
        group: 0,
        node: known.node,
        name: core.config.name.clone(),
        address: core.config.address().to_string(),
    }
}

/// The introduction of a node that is gone: no cluster, so nothing but introductions is served.
pub fn nobody() -> Identity {
    Identity { cluster: None, group: 0, node: 0, name: String::new(), address: String::new() }
}

async fn answer(core: Arc<Core>, from: &Peer, kind: u8, body: Bytes) -> Result<Bytes, Failure> {
    match kind {
        ABOUT => encode(&about(&core)),
        PREPARE => {
            let request = decode(&body)?;
            on_disk(move || encode(&forming::prepare(&core, &request)?)).await
        }
        ACCEPT => {
            let request = decode(&body)?;
            on_disk(move || encode(&forming::accept(&core, &request)?)).await
        }
        JOIN | CHANGE => {
            let change: Change = decode(&body)?;
            let deadline = Instant::now() + CHANGE_PATIENCE;
            // A newcomer does not know who leads; members ask the leader itself and look again when it is not.
            let changed = match kind {
                JOIN => membership::change(&core, change, deadline).await,
                _ if leads(&core) => membership::change_here(&core, change, deadline).await,
                _ => Err(Failure::not_leader()),
            };
            changed.map(|()| Bytes::new())
        }
        INVITE => {
            let invite = decode(&body)?;
            on_disk(move || encode(&accept_invitation(&core, &invite)?)).await
        }
        FORWARD => take_forwarded(&core, body).await,
        READ_INDEX if leads(&core) => {
            let policy = if body.first() == Some(&1) { ReadPolicy::LeaseRead } else { ReadPolicy::ReadIndex };
            let index = reads::confirm(&core, policy).await?;
            Ok(Bytes::copy_from_slice(&index.to_le_bytes()))
        }
        READ_INDEX => Err(Failure::not_leader()),
        ASK => asking::receive(&core, &from.name, body).await,
        _ => Err(Failure::invalid(format!("There is no call of kind {kind}."))),
    }
}

fn leads(core: &Core) -> bool {
    core.leadership.borrow().leader == Some(Leader::Me)
}

async fn on_disk(work: impl FnOnce() -> Result<Bytes, Failure> + Send + 'static) -> Result<Bytes, Failure> {
    crate::durable::blocking(work).await
}

async fn take_forwarded(core: &Arc<Core>, body: Bytes) -> Result<Bytes, Failure> {
    if !leads(core) {
        return Err(Failure::not_leader());
    }
    let commands = Batch(body).decode()?.commands;
    if commands.len() > BATCH_COMMANDS_MAX {
        return Err(Failure::invalid(format!("{} commands were forwarded at once.", commands.len())));
    }
    let proposed = core.forwarded.push(commands)?;
    core.pending.wake.notify_one();
    match proposed.await {
        Ok(outcome) => outcome.map(|()| Bytes::new()),
        Err(_) => {
            Err(Failure::new(Code::Unavailable, "The leader lost its office before the commands were committed."))
        }
    }
}

/// This node about itself.
pub fn about(core: &Core) -> About {
    let known = core.identity.read().clone();
    let members: Vec<_> = match &*core.running.read() {
        Some(running) => {
            let metrics = running.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.nodes().map(|(id, member)| (*id, member.clone())).collect()
        }
        None => Vec::new(),
    };
    let stage = match (known.cluster, members.is_empty()) {
        (None, _) => Stage::Empty,
        (Some(_), true) => Stage::Joining,
        (Some(_), false) => Stage::Member,
    };
    About {
        name: core.config.name.clone(),
        node: known.node,
        cluster: known.cluster,
        stage,
        servers: core.config.servers.clone().into_iter().collect(),
        members,
    }
}

fn accept_invitation(core: &Core, invite: &Invite) -> Result<u64, Failure> {
    if invite.name != core.config.name {
        return Err(Failure::new(Code::Refused, format!("This server is named {:?}.", core.config.name)));
    }
    let known = core.identity.read().clone();
    match known.cluster {
        None => bootstrap::adopt(core, invite.cluster)?,
        Some(cluster) if cluster == invite.cluster => {}
        Some(_) => return Err(Failure::new(Code::Refused, "This server belongs to another cluster.")),
    }
    Ok(core.identity.read().node)
}
