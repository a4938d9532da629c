//! What openraft uses to talk to one node.

use bytes::BytesMut;
use futures_util::Stream as Requests;
use futures_util::stream;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
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

use super::codec::{Answer, Request, decode, encode, encode_request};
use super::hold::Hold;
use super::pipeline::Pipeline;
use super::stream::{Opening, Stream};
use super::{APPEND, PRE_VOTE, TRANSFER, VOTE};

/// A follower that answers nothing on an append stream for so many heartbeat intervals is given up.
const PATIENCE_HEARTBEATS: u32 = 10;
/// But not sooner: a disk may well take this long for one write.
const PATIENCE_MIN: Duration = Duration::from_secs(1);
/// A receiver that takes no chunk of a snapshot, or gives no sign of life, for this long is given up.
const SNAPSHOT_STALL: Duration = Duration::from_secs(10);
/// First and longest pause after a node could not be reached.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

type RpcResult<T> = Result<T, RPCError<TypeConfig>>;

/// Talks to one node for one purpose of openraft's. Its append stream is opened at first use and kept.
pub struct Client {
    pub(super) address: String,
    pub(super) stream: Option<Stream>,
    pub(super) hold: Hold,
    peers: Peers,
    me: u64,
    target: u64,
    opening: Option<Opening>,
    /// Attempts in a row that brought no stream, or one on which nothing was answered.
    pub(super) useless_openings: u32,
}

/// A node that cannot be reached, or does not answer: openraft pauses before it tries again.
pub(super) fn unreachable(failure: &Failure) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(failure))
}

/// A connection that broke: openraft tries again at once, which tells whether the node can be reached.
pub(super) fn broken(failure: &Failure) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(failure))
}

/// openraft passes the heartbeat interval with append streams.
fn patience(option: &RPCOption) -> Duration {
    (option.hard_ttl() * PATIENCE_HEARTBEATS).max(PATIENCE_MIN)
}

impl Client {
    pub(super) fn new(peers: Peers, me: u64, target: u64, address: String) -> Client {
        Client { address, stream: None, hold: Hold::default(), peers, me, target, opening: None, useless_openings: 0 }
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

    /// Makes sure that there is a stream, at the first call or after the last one broke.
    async fn open(&mut self, patience: Duration) -> Result<(), Failure> {
        if self.stream.as_mut().is_some_and(|stream| stream.renew(patience)) {
            return Ok(());
        }
        if self.stream.take().is_some_and(|stream| stream.useful) {
            self.useless_openings = 0;
        }
        let (first, longest) = BACKOFF;
        let pause = match self.useless_openings {
            0 => Duration::ZERO,
            failures => (first * 2_u32.saturating_pow(failures - 1)).min(longest),
        };
        let open = || Opening::new(&self.peers, &self.address, self.target, patience, pause);
        let opened = self.opening.get_or_insert_with(open).done().await;
        self.opening = None;
        // One more, until the peer answers something on it.
        self.useless_openings = self.useless_openings.saturating_add(1).min(8);
        self.stream = Some(opened?);
        Ok(())
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
            self.open(patience).await.map_err(|failure| unreachable(&failure))?;
            let pipeline = Pipeline::new(self, input, patience);
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
