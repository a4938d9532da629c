//! Brings submitted commands to the leader: proposes them here when this node leads, forwards them otherwise.
//!
//! Natural batching, as in Aeron Cluster: one Raft entry carries what queued up while the entries before it were on
//! their way; there is no timer, and a command alone goes alone. Whatever may have been lost is sent again, and replicas
//! drop what they see twice.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use openraft::impls::ProgressResponder;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::command::BatchBuilder;
use crate::error::{Code, Failure};
use crate::limits::{BATCH_BYTES_MAX, BATCH_COMMANDS_MAX, PROPOSALS_IN_FLIGHT_MAX};
use crate::node::adapter::RaftNode;
use crate::node::core::Core;
use crate::node::messages::FORWARD;
use crate::node::view::{Leader, View};
use crate::spin;
use crate::surroundings::{random_u64, wall_ms};

/// Before something is sent again that was refused.
const RESEND: Duration = Duration::from_millis(20);
/// What was sent and not answered for so many election timeouts is sent again.
const STALE_ELECTIONS: u32 = 4;

/// One batch on its way; resolves to what is to be sent again, if anything.
type Flight = BoxFuture<'static, Option<u64>>;

struct Proposer {
    core: Arc<Core>,
    raft: RaftNode,
    flights: FuturesUnordered<Flight>,
    seed: u64,
}

/// Runs until the node closes; `raft` is the consensus core that is proposed to.
pub async fn run(core: Arc<Core>, raft: RaftNode) {
    // Where there are no random numbers, the time will do.
    let seed = random_u64().unwrap_or_else(|_| wall_ms()) | 1;
    let mut proposer = Proposer { core, raft, flights: FuturesUnordered::new(), seed };
    let mut leadership = proposer.core.leadership.subscribe();
    let mut known = View::default();
    let mut tick = tokio::time::interval(Duration::from_millis(proposer.core.config.heartbeat_ms));
    loop {
        let view = leadership.borrow_and_update().clone();
        if (view.term, view.leader_id()) != (known.term, known.leader_id()) {
            // What was on its way to the former leader may be lost.
            proposer.flights.clear();
            proposer.core.pending.rewind(0);
            known = view;
        }
        proposer.send(&known).await;
        tokio::select! {
            biased;
            changed = leadership.changed() => if changed.is_err() { return },
            // A leader's own proposals are in its log: they commit or fail, and a stale one is no reason to log it twice.
            _ = tick.tick(), if known.leader != Some(Leader::Me) => {
                let age = Duration::from_millis(proposer.core.config.election_timeout_ms) * STALE_ELECTIONS;
                proposer.core.pending.rewind_stale(Instant::now(), age);
            }
            // Before new submissions, however many: what has landed makes room for them, and any turn sends them.
            Some(again) = proposer.flights.next(), if !proposer.flights.is_empty() => {
                if let Some(sequence) = again {
                    proposer.core.pending.rewind(sequence);
                }
            }
            _ = proposer.core.pending.wake.notified() => {}
        }
    }
}

impl Proposer {
    async fn send(&mut self, view: &View) {
        match &view.leader {
            Some(Leader::Me) => self.propose().await,
            Some(Leader::Other { id, address, .. }) => {
                self.core.forwarded.refuse_all(&Failure::not_leader());
                if self.core.config.forward {
                    self.forward(*id, address);
                } else {
                    self.core.refuse_unsent(&Failure::not_leader());
                }
            }
            None => self.core.forwarded.refuse_all(&Failure::not_leader()),
        }
    }

    async fn propose(&mut self) {
        while self.flights.len() < PROPOSALS_IN_FLIGHT_MAX {
            let mut batch = BatchBuilder::default();
            let first = self.core.pending.take(BATCH_COMMANDS_MAX, BATCH_BYTES_MAX, Instant::now(), &mut batch);
            let replies = self.add_forwarded(&mut batch);
            if batch.is_empty() {
                return;
            }
            let batch = batch.finish(wall_ms(), self.next_seed());
            let (responder, answer) = ProgressResponder::complete_only();
            let accepted = self.raft.write(batch).responder(responder).await;
            self.flights.push(Box::pin(async move {
                let outcome = match accepted {
                    // tokio's cooperative budget starves receivers when very many are ready at once.
                    Ok(_) => match tokio::task::unconstrained(answer).await {
                        Ok(Ok(_)) => Ok(()),
                        Ok(Err(_)) => Err(Failure::not_leader()),
                        Err(_) => Err(Failure::new(Code::Unavailable, "The proposal was dropped.")),
                    },
                    Err(error) => Err(Failure::new(Code::Unavailable, format!("The consensus core stopped: {error}"))),
                };
                let again = if outcome.is_err() { first } else { None };
                if again.is_some() {
                    tokio::time::sleep(RESEND).await;
                }
                replies.into_iter().for_each(|reply: oneshot::Sender<_>| drop(reply.send(outcome.clone())));
                again
            }));
        }
    }

    /// Adds what other nodes forwarded, as far as it fits. Returns who is told of the proposal.
    fn add_forwarded(&self, batch: &mut BatchBuilder) -> Vec<oneshot::Sender<Result<(), Failure>>> {
        let mut replies = Vec::new();
        loop {
            // A group that is larger than a batch by itself still goes, alone.
            let alone = batch.is_empty();
            let room_commands = if alone { usize::MAX } else { BATCH_COMMANDS_MAX.saturating_sub(batch.len()) };
            let room_bytes = if alone { usize::MAX } else { BATCH_BYTES_MAX.saturating_sub(batch.body_bytes()) };
            let Some(group) = self.core.forwarded.pop(room_commands, room_bytes) else { return replies };
            batch.reserve(group.commands.len(), group.commands.iter().map(|command| command.body.len()).sum());
            group.commands.iter().for_each(|command| batch.push(&command.id, command.low_water, &command.body));
            replies.push(group.reply);
        }
    }

    fn forward(&mut self, leader: u64, address: &str) {
        while self.flights.len() < PROPOSALS_IN_FLIGHT_MAX {
            let mut batch = BatchBuilder::default();
            let taken = self.core.pending.take(BATCH_COMMANDS_MAX, BATCH_BYTES_MAX, Instant::now(), &mut batch);
            let Some(first) = taken else { return };
            spin::expect();
            let body = batch.finish(0, 0).0;
            let timeout = Duration::from_millis(self.core.config.election_timeout_ms) * STALE_ELECTIONS;
            let (peers, address) = (self.core.peers.clone(), address.to_string());
            self.flights.push(Box::pin(async move {
                match peers.call(&address, Some(leader), FORWARD, body, timeout).await {
                    Ok(_) => None,
                    Err(_) => {
                        tokio::time::sleep(RESEND).await;
                        Some(first)
                    }
                }
            }));
        }
    }

    /// A xorshift step: the seed only has to differ from batch to batch, replicas read it from the log.
    fn next_seed(&mut self) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }
}
