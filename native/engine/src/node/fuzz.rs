//! Damaged messages between nodes, damaged bookkeeping, and damaged submissions of a host.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes};
use quorate_fuzz::{Allowance, Rng, fuzz};

use crate::codec::put_bytes;
use crate::command::{Command, CommandId};
use crate::config::{NodeConfig, TransportKind};
use crate::consensus::types::Member;
use crate::kv::op::{Read, Txn};
use crate::node::books::Books;
use crate::node::forming::Acceptor;
use crate::node::messages::{About, Accept, Ballot, Change, Invite, Prepare, Promise, Stage, decode, encode};
use crate::session::{Kind, Op, Queue};

/// What serde sets aside for a claimed count ends at a mebibyte a level.
const ALLOWED: Allowance = Allowance { fixed: 4 << 20, per_byte: 64 };

#[test]
fn fuzz_messages_between_nodes() {
    let pair = || vec![("a".to_string(), "127.0.0.1:1".to_string()), ("b".to_string(), "127.0.0.1:2".to_string())];
    let member = Member { name: "a".into(), address: "127.0.0.1:1".into() };
    let ballot = Ballot { round: 3, proposer: 9 };
    let about = About {
        name: "a".into(),
        node: 7,
        cluster: Some([7; 16]),
        stage: Stage::Member,
        servers: pair(),
        members: vec![(1, member.clone())],
    };
    let samples = [
        encode(&about).unwrap().to_vec(),
        encode(&Prepare { ballot, servers: pair() }).unwrap().to_vec(),
        encode(&Accept { ballot, cluster: [7; 16], servers: pair() }).unwrap().to_vec(),
        encode(&Promise { agreed: true, promised: ballot, accepted: Some((ballot, [7; 16])) }).unwrap().to_vec(),
        encode(&Invite { cluster: [7; 16], name: "a".into() }).unwrap().to_vec(),
        encode(&Change::Join { id: 7, member }).unwrap().to_vec(),
    ];
    fuzz("messages between nodes", &samples, &[], ALLOWED, |input| {
        drop(decode::<About>(&input));
        drop(decode::<Prepare>(&input));
        drop(decode::<Accept>(&input));
        drop(decode::<Promise>(&input));
        drop(decode::<Invite>(&input));
        drop(decode::<Change>(&input));
        drop(decode::<Acceptor>(&input));
    });
}

#[test]
fn fuzz_bookkeeping() {
    let mut books = Books::default();
    for sequence in [1, 2, 5, 9] {
        let id = CommandId { node: 7, incarnation: 2, sequence };
        books.admit(&Command { id, low_water: 1, body: Bytes::new() });
    }
    let notes = books.to_notes().unwrap();
    let samples: Vec<Vec<u8>> = notes.iter().map(|(_, value)| value.clone()).collect();
    fuzz("bookkeeping", &samples, &[], ALLOWED, |input| {
        for (key, _) in &notes {
            let Ok(mut books) = Books::from_notes(&[(key.clone(), input.clone())]) else { continue };
            // Whatever was believed must be fit for use.
            for (incarnation, sequence) in [(2, 3), (2, u64::MAX), (u64::MAX, 1), (0, 0)] {
                let id = CommandId { node: 7, incarnation, sequence };
                books.admit(&Command { id, low_water: sequence / 2, body: Bytes::new() });
            }
            drop(books.to_notes());
        }
    });
}

fn submissions() -> Vec<(Kind, Vec<u8>)> {
    let mut add = vec![4];
    put_bytes(&mut add, b"b");
    put_bytes(&mut add, b"127.0.0.1:1");
    let mut ask = Vec::new();
    put_bytes(&mut ask, b"a");
    ask.extend_from_slice(b"question");
    let read = [&[2][..], &Read::Get { key: Bytes::from_static(b"k") }.encode()].concat();
    vec![
        (Kind::Command, Txn::put("k", "v").encode().unwrap()),
        (Kind::Read, read),
        (Kind::Barrier, vec![2]),
        (Kind::Membership, add),
        (Kind::Ask, ask),
    ]
}

fn controls() -> Vec<(Op, Vec<u8>)> {
    let numbers = |count: u64| (1..=count).flat_map(u64::to_le_bytes).collect::<Vec<u8>>();
    let mut watch = numbers(1);
    watch.put_u8(1);
    put_bytes(&mut watch, b"key");
    let finished = [&numbers(1)[..], b"\x01message"].concat();
    vec![
        (Op::Outcome, numbers(3)),
        (Op::SnapshotDone, finished.clone()),
        (Op::InstallDone, finished.clone()),
        (Op::Watch, watch),
        (Op::Unwatch, numbers(1)),
        (Op::Answered, finished),
        (Op::Deliver, b"datagram".to_vec()),
    ]
}

/// A running node survives whatever a host gives it, and is as good as before.
#[test]
fn fuzz_what_a_host_submits() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = NodeConfig::new("a", [("a".to_string(), String::new())].into(), dir.path());
    (config.heartbeat_ms, config.election_timeout_ms, config.log_bytes) = (10, 50, 1 << 20);
    // Members with addresses by chance are let in: nothing may be resolved or dialled.
    config.transport = TransportKind::Host;
    let session = crate::node::start(config).unwrap();
    let (submissions, controls) = (submissions(), controls());
    let samples: Vec<Vec<u8>> =
        submissions.iter().map(|(_, body)| body).chain(controls.iter().map(|(_, body)| body)).cloned().collect();
    let (mut rng, mut out) = (Rng::new(1), vec![0; 1 << 20]);
    let wait = Duration::from_secs(5);
    // The tables of what is in flight double now and then.
    fuzz("what a host submits", &samples, &[], Allowance { fixed: 16 << 20, per_byte: 64 }, |input| {
        let body = Bytes::from(input);
        let (kind, _) = submissions[rng.below(submissions.len() as u64) as usize];
        let (op, _) = controls[rng.below(controls.len() as u64) as usize];
        drop(session.submit(kind, body.clone(), wait));
        drop(session.control(op, body.clone()));
        if let Some(first) = body.first() {
            let _ = (Kind::try_from(*first), Op::try_from(*first), Queue::try_from(*first));
        }
        session.poll(Queue::Events, &mut out, 0, Duration::ZERO);
    });
    let patience = Duration::from_secs(60);
    let ticket = session.submit(Kind::Barrier, Bytes::from_static(&[0]), patience).unwrap();
    let (asked, mut answered) = (Instant::now(), false);
    while !answered && asked.elapsed() < patience {
        let polled = session.poll(Queue::Events, &mut out, 0, Duration::from_millis(20));
        let crate::session::Polled::Bytes(len) = polled else { continue };
        answered = out[..len]
            .windows(10)
            .any(|window| window[0] == 1 && window[1..9] == ticket.to_le_bytes() && window[9] == 0);
    }
    assert!(
        answered,
        "the node answers no more: {}",
        String::from_utf8_lossy(&session.control(Op::Status, Bytes::new()).unwrap())
    );
    session.close();
}
