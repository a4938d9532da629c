//! A follower that does as it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use openraft::EntryPayload;
use openraft::network::RaftNetworkFactory;

use super::identity;
use crate::command::Batch;
use crate::consensus::network::codec::{Answer, Request, decode_request, encode_answer};
use crate::consensus::network::{Client, Network};
use crate::consensus::types::{Candidate, Entry, LeaderId, LogId, Member, Vote};
use crate::error::Failure;
use crate::transport::{Identity, Peer, Peers, Service, Transport};

type Script = dyn Fn(usize, BoxStream<'static, Request>) -> BoxStream<'static, Answer> + Send + Sync;

/// Node 1, which answers append streams by a script.
pub struct Scripted {
    script: Box<Script>,
    streams: Arc<AtomicUsize>,
}

impl Service for Scripted {
    fn identity(&self) -> Identity {
        identity(1)
    }

    fn call(&self, _: Peer, _: u8, _: Bytes) -> BoxFuture<'static, Result<Bytes, Failure>> {
        Box::pin(async { Err(Failure::closed()) })
    }

    fn append_stream(&self, _: Peer, input: BoxStream<'static, Bytes>) -> BoxStream<'static, Bytes> {
        let requests = input.map(|frame| decode_request(frame).unwrap()).boxed();
        let number = self.streams.fetch_add(1, Ordering::SeqCst);
        (self.script)(number, requests).map(|answer| encode_answer(&answer)).boxed()
    }

    fn snapshot(
        &self,
        _: Peer,
        _: Bytes,
        _: BoxStream<'static, Result<Bytes, Failure>>,
    ) -> BoxFuture<'static, Result<Bytes, Failure>> {
        Box::pin(std::future::pending())
    }
}

pub struct Follower {
    pub transport: Transport,
    pub peers: Peers,
    /// Append streams that were ever opened.
    pub streams: Arc<AtomicUsize>,
}

impl Follower {
    pub async fn start(
        script: impl Fn(usize, BoxStream<'static, Request>) -> BoxStream<'static, Answer> + Send + Sync + 'static,
    ) -> Follower {
        let streams = Arc::new(AtomicUsize::new(0));
        let service = Scripted { script: Box::new(script), streams: streams.clone() };
        let transport = Transport::listen("127.0.0.1:0", Arc::new(service)).await.unwrap();
        Follower { transport, peers: Peers::new(|| identity(2)), streams }
    }

    pub async fn client(&self) -> Client {
        let member = Member { name: "server1".into(), address: self.transport.address().to_owned() };
        Network::new(self.peers.clone(), 2).new_client(1, &member).await
    }
}

pub fn log_id(index: u64) -> LogId {
    LogId { leader_id: LeaderId { term: 1, node_id: 2 }, index }
}

/// A request with the entries `first..end`; none when they are equal.
pub fn request(first: u64, end: u64, commit: u64) -> Request {
    let entry = |index| Entry {
        log_id: log_id(index),
        payload: EntryPayload::Normal(Batch(Bytes::from(vec![index as u8; 100]))),
    };
    Request {
        vote: Vote { leader_id: Candidate { term: 1, node_id: 2 }, committed: true },
        prev_log_id: Some(log_id(first - 1)),
        entries: (first..end).map(entry).collect(),
        leader_commit: Some(log_id(commit)),
    }
}

/// What a follower whose log matches answers.
pub fn matching(request: &Request) -> Answer {
    Ok(request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id))
}
