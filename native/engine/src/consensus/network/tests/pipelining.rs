//! `stream_append`: order, pipelining, holding back, giving up, going on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};
use openraft::errors::RPCError;
use openraft::network::{RPCOption, RaftNetworkV2};
use openraft::raft::StreamAppendError;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::SOON;
use super::scripted::{Follower, log_id, matching, request};
use crate::consensus::network::codec::{Answer, Request};

type Seen = Arc<Mutex<Vec<(usize, u64)>>>;

fn option() -> RPCOption {
    RPCOption::new(Duration::from_millis(100))
}

/// Answers everything, and notes the shape of what it got: number of entries and commit index.
fn noting(seen: Seen) -> impl Fn(usize, BoxStream<'static, Request>) -> BoxStream<'static, Answer> {
    move |_, requests| {
        let seen = seen.clone();
        requests
            .map(move |request| {
                seen.lock().push((request.entries.len(), request.leader_commit.unwrap().index));
                matching(&request)
            })
            .boxed()
    }
}

#[tokio::test]
async fn many_requests_are_under_way_at_a_time_and_answers_come_in_their_order() {
    // The follower answers nothing before it has ten: without pipelining nobody would ever be answered.
    let follower = Follower::start(|_, requests| {
        requests.chunks(10).flat_map(|ten| stream::iter(ten.iter().map(matching).collect::<Vec<_>>())).boxed()
    })
    .await;
    let mut client = follower.client().await;
    let requests = stream::iter((1..=200).map(|index| request(index, index + 1, 0)));
    let answers = client.stream_append(requests, option()).await.unwrap().collect::<Vec<_>>();
    let answers = timeout(SOON, answers).await.unwrap();
    let indexes: Vec<u64> = answers.into_iter().map(|answer| answer.unwrap().unwrap().unwrap().index).collect();
    assert_eq!(indexes, (1..=200).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_request_without_entries_rides_on_the_next_one_and_its_commit_index_is_not_lost() {
    let seen = Seen::default();
    let follower = Follower::start(noting(seen.clone())).await;
    let mut client = follower.client().await;
    let requests = stream::iter([request(1, 2, 0), request(2, 2, 1), request(2, 3, 1), request(3, 3, 2)]);
    let open = Box::pin(requests.chain(stream::pending()));
    let mut answers = client.stream_append(open, option()).await.unwrap();
    for index in [1, 2, 2] {
        let answer = timeout(SOON, answers.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(answer, Ok(Some(log_id(index))));
    }
    assert_eq!(*seen.lock(), [(1, 0), (1, 1), (0, 2)], "the second rode on the third, the last came by itself");
}

#[tokio::test]
async fn one_connection_serves_stream_after_stream() {
    let seen = Seen::default();
    let follower = Follower::start(noting(seen.clone())).await;
    let mut client = follower.client().await;
    for round in 1..=50 {
        let heartbeat = Box::pin(stream::once(async move { request(round, round, round) }));
        let answers = client.stream_append(heartbeat, option()).await.unwrap();
        let answers: Vec<_> = timeout(SOON, answers.collect()).await.unwrap();
        assert_eq!(answers, [Ok(Ok(Some(log_id(round - 1))))]);
    }
    assert_eq!(follower.streams.load(Ordering::SeqCst), 1);
    assert!(follower.peers.stats()[0].round_trip_us.is_some());
}

#[tokio::test]
async fn a_follower_that_answers_nothing_is_given_up_in_time() {
    let follower = Follower::start(|_, requests| requests.filter_map(|_| async { None }).boxed()).await;
    let mut client = follower.client().await;
    let begun = Instant::now();
    let requests = Box::pin(stream::iter([request(1, 2, 0)]).chain(stream::pending()));
    let mut answers = client.stream_append(requests, option()).await.unwrap();
    let answer = timeout(SOON, answers.next()).await.unwrap().unwrap();
    assert!(matches!(answer, Err(RPCError::Unreachable(_))), "{answer:?}");
    assert!(answers.next().await.is_none());
    assert!(begun.elapsed() >= Duration::from_secs(1), "patience was too short");
    drop(answers);
    let stats = follower.peers.stats().remove(0);
    assert!(!stats.connected && stats.last_error.unwrap().contains("answered nothing"));
}

#[tokio::test]
async fn an_idle_stream_is_not_given_up() {
    let follower = Follower::start(|_, requests| requests.map(|request| matching(&request)).boxed()).await;
    let mut client = follower.client().await;
    let late = stream::once(async {
        sleep(Duration::from_millis(1500)).await;
        request(2, 3, 0)
    });
    let requests = Box::pin(stream::iter([request(1, 2, 0)]).chain(late));
    let answers: Vec<_> = client.stream_append(requests, option()).await.unwrap().collect().await;
    assert_eq!(answers, [Ok(Ok(Some(log_id(1)))), Ok(Ok(Some(log_id(2))))]);
}

#[tokio::test]
async fn after_a_conflict_the_stream_ends_and_the_next_one_goes_over_a_new_connection() {
    let follower = Follower::start(|number, requests| match number {
        0 => requests.take(1).map(|_| Err(StreamAppendError::Conflict(log_id(4)))).boxed(),
        _ => requests.map(|request| matching(&request)).boxed(),
    })
    .await;
    let mut client = follower.client().await;
    let both = || stream::iter([request(5, 6, 0), request(6, 7, 0)]);
    let answers: Vec<_> = client.stream_append(both(), option()).await.unwrap().collect().await;
    assert_eq!(answers, [Ok(Err(StreamAppendError::Conflict(log_id(4))))]);
    let answers: Vec<_> = client.stream_append(both(), option()).await.unwrap().collect().await;
    assert_eq!(answers, [Ok(Ok(Some(log_id(5)))), Ok(Ok(Some(log_id(6))))]);
    assert_eq!(follower.streams.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_answer_that_comes_too_late_for_its_stream_is_not_taken_for_the_next_ones() {
    let follower = Follower::start(|_, requests| {
        requests
            .then(|request| async move {
                if request.entries.len() == 1 {
                    sleep(Duration::from_millis(200)).await;
                }
                matching(&request)
            })
            .boxed()
    })
    .await;
    let mut client = follower.client().await;
    let slow = Box::pin(stream::iter([request(1, 2, 0)]));
    let mut answers = client.stream_append(slow, option()).await.unwrap();
    assert!(timeout(Duration::from_millis(50), answers.next()).await.is_err());
    drop(answers);
    let quick = Box::pin(stream::iter([request(7, 9, 0)]));
    let answers: Vec<_> = client.stream_append(quick, option()).await.unwrap().collect().await;
    assert_eq!(answers, [Ok(Ok(Some(log_id(8))))]);
    assert_eq!(follower.streams.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_follower_that_restarts_is_found_again_and_one_that_is_gone_is_unreachable() {
    let follower = Follower::start(|_, requests| requests.map(|request| matching(&request)).boxed()).await;
    let mut client = follower.client().await;
    let one = || Box::pin(stream::iter([request(1, 2, 0)]));
    assert_eq!(client.stream_append(one(), option()).await.unwrap().count().await, 1);
    follower.transport.close().await;
    let outcome = async {
        loop {
            match client.stream_append(one(), option()).await {
                Err(RPCError::Unreachable(_)) => return,
                Err(other) => panic!("{other}"),
                Ok(answers) => drop(answers.collect::<Vec<_>>().await),
            }
        }
    };
    timeout(SOON, outcome).await.unwrap();
    assert!(client.backoff().unwrap().take(20).all(|pause| pause <= Duration::from_millis(500)));
    assert_eq!(client.backoff().unwrap().next(), Some(Duration::from_millis(50)));
}
