//! What other nodes' consensus messages do here.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::{AbortHandle, BoxFuture, abortable, ready};
use futures_util::stream::BoxStream;
use openraft::Raft;
use openraft::raft::{
    AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::storage::RaftStateMachine;
use parking_lot::Mutex;

use crate::consensus::Snapshot;
use crate::consensus::types::{LogId, SnapshotMeta, TypeConfig, Vote};
use crate::error::{Code, Failure};
use crate::snapshot::SnapshotFile;
use crate::spin;
use crate::transport::Peer;

use super::codec::{Answer, Request, check_leadership, decode, decode_request, encode, encode_answer};
use super::receive::{SnapshotSink, receive};
use super::{APPEND, PRE_VOTE, TRANSFER, VOTE};

/// Answers consensus messages with a running core, whatever its state machine.
pub struct RaftInbound {
    core: Arc<dyn Core>,
    sink: Arc<dyn SnapshotSink>,
    receiving: Mutex<Option<AbortHandle>>,
}

impl RaftInbound {
    /// Answers with `raft`; incoming snapshots are written to `sink`.
    pub fn new<M>(raft: Raft<TypeConfig, M>, sink: Arc<dyn SnapshotSink>) -> RaftInbound
    where
        M: RaftStateMachine<TypeConfig, SnapshotData = SnapshotFile>,
    {
        RaftInbound { core: Arc::new(raft), sink, receiving: Mutex::new(None) }
    }

    /// Answers a call of a kind that [`super::is_consensus_call`] accepts. Fails with `Corrupt` on a malformed body, with
    /// `Invalid` on an unknown kind, with `Unavailable` when the core has stopped.
    pub fn call(&self, _from: Peer, kind: u8, body: Bytes) -> BoxFuture<'static, Result<Bytes, Failure>> {
        let core = self.core.clone();
        Box::pin(async move {
            match kind {
                VOTE => encode(&core.vote(decode(&body)?).await?),
                PRE_VOTE => encode(&core.pre_vote(decode(&body)?).await?),
                TRANSFER => encode(&core.transfer_leader(decode(&body)?).await?),
                APPEND => encode(&core.append(decode_request(body)?).await?),
                _ => Err(Failure::invalid(format!("There is no consensus call of kind {kind}."))),
            }
        })
    }

    /// Answers a stream of append requests, in order. Ends after a malformed request, after any answer but a plain
    /// match, and when the core stops.
    pub fn append_stream(&self, from: Peer, input: BoxStream<'static, Bytes>) -> BoxStream<'static, Bytes> {
        let requests = input.map(decode_request).scan((), move |(), request| {
            if let Err(failure) = &request {
                tracing::warn!("Append stream of node \"{}\" closed. {failure}", from.name);
            }
            ready(request.ok())
        });
        let answers = self.core.stream_append(requests.boxed());
        answers
            .map(|answer| {
                spin::expect();
                encode_answer(&answer)
            })
            .boxed()
    }

    /// Takes in a snapshot, writes it to the disk and installs it. A newer one from whomever takes the place of one
    /// that is still being received. Fails with what the sink and the network fail with, with `Corrupt` on one that no
    /// leader could have sent, with `Unavailable` when the core has stopped.
    pub fn snapshot(
        &self,
        from: Peer,
        head: Bytes,
        chunks: BoxStream<'static, Result<Bytes, Failure>>,
    ) -> BoxFuture<'static, Result<Bytes, Failure>> {
        let (work, handle) = abortable(take_in(self.core.clone(), self.sink.clone(), head, chunks));
        if let Some(former) = self.receiving.lock().replace(handle) {
            former.abort();
        }
        Box::pin(async move {
            let replaced = || Failure::new(Code::Unavailable, "Another snapshot took the place of this one.");
            let outcome = work.await.unwrap_or_else(|_| Err(replaced()));
            if let Err(failure) = &outcome {
                tracing::warn!("A snapshot from node \"{}\" was not installed. {failure}", from.name);
            }
            outcome
        })
    }
}

async fn take_in(
    core: Arc<dyn Core>,
    sink: Arc<dyn SnapshotSink>,
    head: Bytes,
    chunks: BoxStream<'static, Result<Bytes, Failure>>,
) -> Result<Bytes, Failure> {
    let (vote, announced): (Vote, SnapshotMeta) = decode(&head)?;
    check_snapshot(&vote, &announced, core.committed().await?)?;
    let (meta, snapshot) = receive(sink, chunks).await?;
    if meta != announced {
        return Err(Failure::new(Code::Corrupt, "The snapshot's file covers something else than was announced."));
    }
    check_snapshot(&vote, &meta, core.committed().await?)?;
    encode(&core.install(vote, Snapshot { meta, snapshot }).await?)
}

/// openraft panics on snapshots that no node of a working cluster can send; they are refused here.
fn check_snapshot(vote: &Vote, meta: &SnapshotMeta, committed: Option<LogId>) -> Result<(), Failure> {
    if !vote.committed {
        return Err(Failure::new(Code::Corrupt, "A snapshot of a node that does not lead."));
    }
    check_leadership(vote, meta.last_log_id.as_ref())?;
    match (meta.last_log_id, committed) {
        (Some(last), Some(committed)) if last > committed && last.index <= committed.index => {
            let message = format!("A snapshot up to {last}, while {committed} is committed: it is of another history.");
            Err(Failure::new(Code::Corrupt, message))
        }
        _ => Ok(()),
    }
}

/// What is asked of a core, without the type of its state machine.
trait Core: Send + Sync {
    fn stream_append(&self, requests: BoxStream<'static, Request>) -> BoxStream<'static, Answer>;
    fn append(&self, request: Request) -> Asked<'_, AppendEntriesResponse<TypeConfig>>;
    fn vote(&self, request: VoteRequest<TypeConfig>) -> Asked<'_, VoteResponse<TypeConfig>>;
    fn pre_vote(&self, request: VoteRequest<TypeConfig>) -> Asked<'_, VoteResponse<TypeConfig>>;
    fn transfer_leader(
        &self,
        request: TransferLeaderRequest<TypeConfig>,
    ) -> Asked<'_, TransferLeaderResponse<TypeConfig>>;
    fn committed(&self) -> Asked<'_, Option<LogId>>;
    fn install(&self, vote: Vote, snapshot: Snapshot) -> Asked<'_, SnapshotResponse<TypeConfig>>;
}

type Asked<'a, T> = BoxFuture<'a, Result<T, Failure>>;

fn stopped(reason: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Unavailable, format!("The consensus core of this node has stopped: {reason}."))
}

impl<M> Core for Raft<TypeConfig, M>
where
    M: RaftStateMachine<TypeConfig, SnapshotData = SnapshotFile>,
{
    fn stream_append(&self, requests: BoxStream<'static, Request>) -> BoxStream<'static, Answer> {
        Raft::stream_append(self, requests).scan((), |(), answer| ready(answer.ok())).boxed()
    }

    fn append(&self, request: Request) -> Asked<'_, AppendEntriesResponse<TypeConfig>> {
        Box::pin(async move { Raft::append_entries(self, request).await.map_err(stopped) })
    }

    fn vote(&self, request: VoteRequest<TypeConfig>) -> Asked<'_, VoteResponse<TypeConfig>> {
        Box::pin(async move { Raft::vote(self, request).await.map_err(stopped) })
    }

    fn pre_vote(&self, request: VoteRequest<TypeConfig>) -> Asked<'_, VoteResponse<TypeConfig>> {
        Box::pin(async move { Raft::pre_vote(self, request).await.map_err(stopped) })
    }

    fn transfer_leader(
        &self,
        request: TransferLeaderRequest<TypeConfig>,
    ) -> Asked<'_, TransferLeaderResponse<TypeConfig>> {
        Box::pin(async move { self.handle_transfer_leader(request).await.map_err(stopped) })
    }

    fn committed(&self) -> Asked<'_, Option<LogId>> {
        Box::pin(async move { self.with_raft_state(|state| state.local_committed().copied()).await.map_err(stopped) })
    }

    fn install(&self, vote: Vote, snapshot: Snapshot) -> Asked<'_, SnapshotResponse<TypeConfig>> {
        Box::pin(async move { self.install_full_snapshot(vote, snapshot).await.map_err(stopped) })
    }
}
