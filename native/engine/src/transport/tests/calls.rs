//! Calls: many at a time, late ones, lost ones.

use futures_util::future::join_all;

use super::*;
use crate::limits::{CALLS_SERVED_MAX, FRAME_BYTES_MAX};

async fn pair() -> (Arc<Echo>, Transport, Peers) {
    let echo = Arc::new(Echo::new(identity(1, Some(7))));
    let transport = serve(echo.clone()).await;
    (echo, transport, peers(identity(2, Some(7))))
}

#[tokio::test]
async fn a_slow_call_holds_up_no_other_on_the_same_connection() {
    let (_, transport, peers) = pair().await;
    let slow = peers.call(transport.address(), None, SLEEP, Bytes::from_static(&[100]), SOON);
    let quick = async {
        for _ in 0..100 {
            peers.call(transport.address(), None, ECHO, Bytes::from_static(b"q"), SOON).await.unwrap();
        }
    };
    tokio::select! {
        biased;
        _ = slow => panic!("a hundred quick calls took more than a second, or waited for the slow one"),
        () = quick => {}
    }
}

#[tokio::test]
async fn each_of_many_concurrent_calls_gets_its_own_answer_and_the_server_bounds_how_many_run() {
    let (echo, transport, peers) = pair().await;
    let calls = (0..2000u32).map(|number| {
        let (peers, address) = (peers.clone(), transport.address());
        async move {
            let body = Bytes::from([&[1u8][..], &number.to_le_bytes()].concat());
            assert_eq!(peers.call(address, None, SLEEP, body.clone(), SOON).await, Ok(body));
        }
    });
    join_all(calls).await;
    let most = echo.most.load(Ordering::SeqCst);
    assert!(most > 1 && most <= CALLS_SERVED_MAX, "{most} ran at a time");
}

#[tokio::test]
async fn failures_and_panics_of_the_service_reach_the_caller_and_spare_the_connection() {
    let (_, transport, peers) = pair().await;
    let call = |kind| peers.call(transport.address(), None, kind, Bytes::new(), SOON);
    assert_eq!(call(FAIL).await, Err(Failure::new(Code::Compacted, "gone for good")));
    assert_eq!(call(PANIC).await.unwrap_err().code, Code::Internal);
    assert_eq!(call(99).await.unwrap_err().code, Code::Invalid);
    assert_eq!(call(ECHO).await, Ok(Bytes::new()));
    assert!(peers.stats()[0].last_error.is_none(), "the connection must have stayed");
}

#[tokio::test]
async fn a_call_that_takes_too_long_fails_alone_and_its_late_answer_bothers_nobody() {
    let (_, transport, peers) = pair().await;
    let short = Duration::from_millis(50);
    let late = peers.call(transport.address(), None, SLEEP, Bytes::from_static(&[30]), short).await;
    assert_eq!(late.unwrap_err().code, Code::Timeout);
    sleep(Duration::from_millis(400)).await;
    assert_eq!(peers.call(transport.address(), None, ECHO, Bytes::new(), SOON).await, Ok(Bytes::new()));
    assert!(peers.stats()[0].last_error.is_none());
}

#[tokio::test]
async fn a_body_over_the_limit_fails_alone_whichever_way_it_goes() {
    let (_, transport, peers) = pair().await;
    let call = |len: usize| peers.call(transport.address(), None, ECHO, Bytes::from(vec![0; len]), SOON);
    let waiting = peers.call(transport.address(), None, SLEEP, Bytes::from_static(&[30]), SOON);
    let (waited, too_large) = tokio::join!(waiting, call(FRAME_BYTES_MAX));
    assert_eq!(too_large.unwrap_err().code, Code::TooLarge);
    waited.unwrap();
    assert_eq!(call(FRAME_BYTES_MAX / 8).await.unwrap().len(), FRAME_BYTES_MAX / 8);
}

#[tokio::test]
async fn when_the_server_goes_all_who_wait_learn_it_at_once_and_when_it_returns_calls_work_again() {
    let (echo, transport, peers) = pair().await;
    let address = transport.address().to_owned();
    peers.call(&address, None, ECHO, Bytes::new(), SOON).await.unwrap();
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let (peers, address) = (peers.clone(), address.clone());
            tokio::spawn(async move { peers.call(&address, None, SLEEP, Bytes::from_static(&[250]), SOON).await })
        })
        .collect();
    eventually("ten calls run", || echo.running.load(Ordering::SeqCst) == 10).await;
    transport.close().await;
    for call in waiting {
        assert_eq!(timeout(Duration::from_secs(2), call).await.unwrap().unwrap().unwrap_err().code, Code::Unavailable);
    }
    let down = peers.stats().remove(0);
    assert!(!down.connected && down.last_error.is_some(), "{down:?}");

    let refused = async {
        while !peers
            .call(&address, None, ECHO, Bytes::new(), SOON)
            .await
            .unwrap_err()
            .message
            .contains("Cannot connect")
        {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, refused).await.unwrap();
    let early = peers.call(&address, None, ECHO, Bytes::new(), SOON).await.unwrap_err();
    assert_eq!(early.code, Code::Unavailable);
    assert!(early.message.contains("cannot be reached at the moment"), "{early}");

    let again = Transport::listen(&address, Arc::new(EchoService(echo))).await.unwrap();
    let returned = async {
        while peers.call(&address, None, ECHO, Bytes::new(), SOON).await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, returned).await.unwrap();
    assert!(peers.stats()[0].connected);
    again.close().await;
}

#[tokio::test]
async fn statistics_say_who_is_there_and_how_far_away() {
    let (_, transport, peers) = pair().await;
    assert!(peers.stats().is_empty());
    peers.call(transport.address(), None, ECHO, Bytes::new(), SOON).await.unwrap();
    eventually("a round trip is measured", || peers.stats()[0].round_trip_us.is_some()).await;
    let stats = peers.stats().remove(0);
    assert_eq!((stats.node, stats.name.as_deref(), stats.connected), (Some(1), Some("server1"), true));
    peers.forget(transport.address());
    assert!(peers.stats().is_empty());
}

#[tokio::test]
async fn after_close_nothing_waits_and_nothing_is_called() {
    let (echo, transport, peers) = pair().await;
    let (other, address) = (peers.clone(), transport.address().to_owned());
    let waiting =
        tokio::spawn(async move { other.call(&address, None, SLEEP, Bytes::from_static(&[250]), SOON).await });
    eventually("the call runs", || echo.running.load(Ordering::SeqCst) == 1).await;
    peers.close();
    // The call in flight holds the connection until it is answered or its caller gives up.
    assert_eq!(waiting.await.unwrap(), Ok(Bytes::from_static(&[250])));
    let late = peers.call(transport.address(), None, ECHO, Bytes::new(), SOON).await;
    assert_eq!(late, Err(Failure::closed()));
}

#[tokio::test]
async fn a_host_that_vanished_without_a_word_is_noticed_long_before_its_callers_give_up() {
    let (address, hold) = welcomes_and_then_stops().await;
    let peers = peers(identity(2, Some(7)));
    let failure = peers.call(&address, None, ECHO, Bytes::new(), Duration::from_secs(600));
    let failure = timeout(SOON, failure).await.unwrap().unwrap_err();
    assert_eq!(failure.code, Code::Unavailable);
    assert!(failure.message.contains("no sign of life"), "{failure}");
    hold.abort();
}
