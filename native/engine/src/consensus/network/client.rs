//! What openraft uses to talk to one node.

use bytes::BytesMut;
use futures_util::Stream as Requests;
use futures_util::stream;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Timeout};
use openraft::network::{Backoff, RPCOption, RPCTypes, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Duration, timeout};

use crate::consensus::Snapshot;
use crate::consensus::types::{TypeConfig, Vote};
use crate::error::{Code, Failure};
use crate::snapshot::SnapshotFile;
use crate::transport::Peers;

use super::appends::{Appends, BACKOFF};
use super::codec::{Answer, Request, decode, encode, encode_request};
use super::errors::unreachable;
use super::pipeline::Pipeline;
use super::{APPEND, PRE_VOTE, TRANSFER, VOTE};

/// A follower that answers nothing on an append stream for so many heartbeat intervals is given up.
const PATIENCE_HEARTBEATS: u32 = 10;
/// But not sooner: a disk may well take this long for one write.
const PATIENCE_MIN: Duration = Duration::from_secs(1);
/// A receiver that takes no chunk of a snapshot, or gives no sign of life, for this long is given up.
const SNAPSHOT_STALL: Duration = Duration::from_secs(10);

type RpcResult<T> = Result<T, RPCError<TypeConfig>>;

/// Talks to one node for one purpose of openraft's.
pub struct Client {
    peers: Peers,
    me: u64,
    target: u64,
    address: String,
    appends: Appends,
}

/// openraft passes the heartbeat interval with append streams.
fn patience(option: &RPCOption) -> Duration {
    (option.hard_ttl() * PATIENCE_HEARTBEATS).max(PATIENCE_MIN)
}

impl Client {
    pub(super) fn new(peers: Peers, me: u64, target: u64, address: String) -> Client {
        Client { peers, me, target, address, appends: Appends::default() }
    }

    fn error(&self, failure: &Failure, action: RPCTypes, within: Duration) -> RPCError<TypeConfig> {
        match failure.code {
            Code::Timeout => RPCError::Timeout(Timeout { action, id: self.me, target: self.target, timeout: within }),
            _ => unreachable(failure),
        }
    }

    async fn ask<Q, A>(&self, kind: u8, action: RPCTypes, request: &Q, option: &RPCOption) -> RpcResult<A>
    where
        Q: Serialize,
        A: DeserializeOwned,
    {
        let within = option.soft_ttl();
        let call = async {
            let body = encode(request)?;
            decode(&self.peers.call(&self.address, Some(self.target), kind, body, within).await?)
        };
        let answer: Result<A, Failure> = call.await;
        answer.map_err(|failure| self.error(&failure, action, within))
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
        option: &RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, Failure> {
        let head = encode(&(vote, snapshot.meta))?;
        let stall = SNAPSHOT_STALL.min(option.hard_ttl());
        let sending = self.peers.send_snapshot(&self.address, self.target, head, snapshot.snapshot, stall);
        match timeout(option.hard_ttl(), sending).await {
            Ok(answer) => decode(&answer?),
            Err(_) => {
                let message = format!("A snapshot was not through after {} ms.", option.hard_ttl().as_millis());
                Err(Failure::new(Code::Timeout, message))
            }
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        request: Request,
        option: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<TypeConfig>> {
        let within = option.soft_ttl();
        let call = async {
            let body = encode_request(&request, &mut BytesMut::new())?.concat();
            decode(&self.peers.call(&self.address, Some(self.target), APPEND, body.into(), within).await?)
        };
        let answer: Result<_, Failure> = call.await;
        answer.map_err(|failure| self.error(&failure, RPCTypes::AppendEntries, within))
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, RpcResult<BoxStream<'s, RpcResult<Answer>>>>
    where
        S: Requests<Item = Request> + Send + Unpin + 'static,
    {
        Box::pin(async move {
            let patience = patience(&option);
            let opened = self.appends.open(&self.peers, &self.address, self.target, patience).await;
            opened.map_err(|failure| unreachable(&failure))?;
            let pipeline = Pipeline::new(&mut self.appends, &self.address, input, patience);
            let answers =
                stream::unfold(pipeline, |mut pipeline| async move { Some((pipeline.next().await?, pipeline)) });
            let answers: BoxStream<'s, RpcResult<Answer>> = Box::pin(answers);
            Ok(answers)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<VoteResponse<TypeConfig>> {
        self.ask(VOTE, RPCTypes::Vote, &request, &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<VoteResponse<TypeConfig>> {
        self.ask(PRE_VOTE, RPCTypes::Vote, &request, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let answer = tokio::select! {
            biased;
            closed = cancel => return Err(StreamingError::Closed(closed)),
            answer = self.send_snapshot(vote, snapshot, &option) => answer,
        };
        answer.map_err(|failure| self.error(&failure, RPCTypes::InstallSnapshot, option.hard_ttl()).into())
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<TransferLeaderResponse<TypeConfig>> {
        self.ask(TRANSFER, RPCTypes::TransferLeader, &request, &option).await
    }

    fn backoff(&self) -> Option<Backoff> {
        let (first, longest) = BACKOFF;
        Some(Backoff::new(std::iter::successors(Some(first), move |last| Some((*last * 2).min(longest)))))
    }
}
