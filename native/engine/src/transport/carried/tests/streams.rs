//! Two wires and a carrier between them, on a real runtime.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Duration, timeout};

use super::super::datagram::{Packet, encode};
use super::super::{Carried, Listener, Wire};
use super::Dice;
use crate::error::Code;
use crate::limits::{CARRIED_BACKLOG, CARRIED_DATAGRAM_BYTES_MAX};

const SOON: Duration = Duration::from_secs(20);

type Slot = Arc<Mutex<Option<Carried>>>;

/// Two servers; what one sends reaches the other at once, unless it is cut off or the dice are against it.
struct Pair {
    a: Carried,
    b: Carried,
    cut: Arc<AtomicBool>,
}

fn wire(name: &str, other: Slot, cut: Arc<AtomicBool>, lost: u64) -> Carried {
    let dice = Mutex::new(Dice(41));
    let carrier = move |_: &str, datagram: &[u8]| {
        if cut.load(Ordering::SeqCst) || dice.lock().percent(lost) {
            return false;
        }
        let Some(other) = other.lock().clone() else { return false };
        other.deliver(Bytes::copy_from_slice(datagram)).unwrap();
        true
    };
    Carried::new(name, Box::new(carrier))
}

fn pair(lost: u64) -> Pair {
    let (to_a, to_b, cut) = (Slot::default(), Slot::default(), Arc::new(AtomicBool::new(false)));
    let a = wire("a", to_b.clone(), cut.clone(), lost);
    let b = wire("b", to_a.clone(), cut.clone(), lost);
    *to_a.lock() = Some(a.clone());
    *to_b.lock() = Some(b.clone());
    for one in [a.clone(), b.clone()] {
        tokio::spawn(async move { one.run().await });
    }
    Pair { a, b, cut }
}

async fn listener(wire: &Carried) -> Box<dyn Listener> {
    wire.listen("b").await.unwrap()
}

#[tokio::test]
async fn a_connection_opens_carries_both_ways_and_ends() {
    let pair = pair(20);
    let mut listener = listener(&pair.b).await;
    let (near, far) = tokio::join!(timeout(SOON, pair.a.connect("b")), timeout(SOON, listener.accept()));
    let (mut near, mut far) = (near.unwrap().unwrap(), far.unwrap().unwrap());
    assert_eq!((near.remote.as_str(), far.remote.as_str()), ("b", "a"));
    let sent: Vec<u8> = (0..500_000u32).flat_map(u32::to_le_bytes).collect();
    let (writing, expected) = (sent.clone(), sent.clone());
    let there = tokio::spawn(async move {
        near.writer.write_all(&writing).await.unwrap();
        near.writer.flush().await.unwrap();
        drop(near.writer);
        let mut back = Vec::new();
        near.reader.read_to_end(&mut back).await.unwrap();
        back
    });
    let mut received = Vec::new();
    timeout(SOON, far.reader.read_to_end(&mut received)).await.unwrap().unwrap();
    assert!(received == expected);
    far.writer.write_all(b"got it").await.unwrap();
    far.writer.flush().await.unwrap();
    drop(far);
    assert_eq!(timeout(SOON, there).await.unwrap().unwrap(), b"got it");
    let ended = async {
        while pair.a.stats().connections + pair.b.stats().connections > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(30), ended).await.expect("the connection stays for ever");
    assert!(pair.a.stats().dropped > 0);
}

#[tokio::test]
async fn who_does_not_listen_refuses_and_who_is_away_is_given_up() {
    let pair = pair(0);
    let refused = timeout(SOON, pair.a.connect("b")).await.unwrap().err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::ConnectionReset);
    pair.cut.store(true, Ordering::SeqCst);
    assert!(timeout(Duration::from_millis(300), pair.a.connect("b")).await.is_err());
    assert_eq!(pair.a.stats().connections, 0);
    pair.a.close();
    assert_eq!(pair.a.connect("b").await.err().unwrap().kind(), ErrorKind::NotConnected);
}

#[tokio::test]
async fn a_peer_that_closes_or_forgot_everything_resets_what_it_had() {
    let pair = pair(0);
    let mut listener = listener(&pair.b).await;
    for forgets in [false, true] {
        let (near, far) = tokio::join!(pair.a.connect("b"), listener.accept());
        let (mut near, far) = (near.unwrap(), far.unwrap());
        if forgets {
            // As after a restart: the datagrams reach a server that knows nothing of them.
            pair.cut.store(true, Ordering::SeqCst);
            pair.b.close();
            pair.cut.store(false, Ordering::SeqCst);
            near.writer.write_all(b"hello?").await.unwrap();
            near.writer.flush().await.unwrap();
        } else {
            drop(far.writer);
            drop(far.reader);
            near.writer.write_all(b"unwanted").await.unwrap();
            near.writer.flush().await.unwrap();
        }
        let end = timeout(SOON, near.reader.read(&mut [0; 8])).await.unwrap();
        match forgets {
            false => assert_eq!(end.unwrap(), 0),
            true => assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset),
        }
    }
}

#[tokio::test]
async fn rubbish_is_refused_and_counted_and_hurts_no_connection() {
    let pair = pair(0);
    let mut listener = listener(&pair.b).await;
    let (near, far) = tokio::join!(pair.a.connect("b"), listener.accept());
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    let mut dice = Dice(43);
    let mut rubbish: Vec<Vec<u8>> = (0..200).map(|len| (0..len).map(|_| dice.next() as u8).collect()).collect();
    rubbish.push(vec![1; CARRIED_DATAGRAM_BYTES_MAX + 1]);
    rubbish.push(encode("a", "elsewhere", 1, &Packet::Reset));
    rubbish.push(encode("b", "b", 1, &Packet::Reset));
    let count = rubbish.len() as u64;
    for one in rubbish {
        assert_eq!(pair.b.deliver(one.into()).unwrap_err().code, Code::Invalid);
    }
    assert_eq!(pair.b.stats().rubbish, count);
    // Strangers' packets of connections that there are not.
    for number in 0..100 {
        let ack = super::super::datagram::Ack { next: u64::MAX, window: u32::MAX };
        let early = vec![(5, 3), (u64::MAX, 0)];
        pair.b.deliver(encode("a", "b", number, &Packet::Ack { ack, early }).into()).unwrap();
    }
    near.writer.write_all(b"fine").await.unwrap();
    near.writer.flush().await.unwrap();
    let mut four = [0; 4];
    timeout(SOON, far.reader.read_exact(&mut four)).await.unwrap().unwrap();
    assert_eq!(&four, b"fine");
}

#[tokio::test]
async fn connections_that_nobody_takes_are_bounded() {
    let (cut, other) = (Arc::new(AtomicBool::new(true)), Slot::default());
    let b = wire("b", other, cut, 0);
    let _listener = listener(&b).await;
    for number in 0..10 * CARRIED_BACKLOG as u64 {
        b.deliver(encode("a", "b", number, &Packet::Open { window: 1 }).into()).unwrap();
    }
    assert_eq!(b.stats().connections, CARRIED_BACKLOG);
}
