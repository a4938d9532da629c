//! Damaged datagrams, half of them with a right checksum, into a node with open connections.

use bytes::Bytes;
use futures_util::FutureExt;
use quorate_fuzz::{Allowance, fuzz};

use super::super::datagram::{Ack, Packet, encode};
use super::super::{Carried, Wire};
use crate::limits::{CARRIED_CONNECTIONS_MAX, CARRIED_WINDOW_BYTES};

fn samples() -> Vec<Vec<u8>> {
    let ack = Ack { next: 7, window: 8 };
    let packets = [
        Packet::Open { window: 1 << 16 },
        Packet::Accept { window: 2 },
        Packet::Data { ack, offset: 0, last: false, bytes: Bytes::from_static(b"bytes") },
        Packet::Data { ack, offset: 5, last: true, bytes: Bytes::from_static(b"more bytes") },
        Packet::Ack { ack, early: vec![(10, 11), (12, 20)] },
        Packet::Ping { ack },
        Packet::Reset,
    ];
    (1..4).flat_map(|number| packets.iter().map(move |packet| encode("b", "a", number, packet))).collect()
}

fn with_right_checksum(mut input: Vec<u8>) -> Vec<u8> {
    if input.len() > 5 {
        let checksum = crc32fast::hash(&input[5..]).to_le_bytes();
        input[1..5].copy_from_slice(&checksum);
    }
    input
}

#[test]
fn fuzz_datagrams() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let carried = Carried::new("a", Box::new(|_: &str, _: &[u8]| true));
    let mut listener = runtime.block_on(carried.listen("a")).unwrap();
    let (mut open, mut turn) = (Vec::new(), 0);
    // One connection's windows, and the tables that grow with the number of connections.
    let allowed = Allowance { fixed: 2 * CARRIED_WINDOW_BYTES as u64, per_byte: 16 };
    fuzz("datagrams", &samples(), &[], allowed, |input| {
        turn += 1;
        let input = if turn % 2 == 0 { input } else { with_right_checksum(input) };
        drop(carried.deliver(input.into()));
        if let Some(Ok(connection)) = listener.accept().now_or_never() {
            open.push(connection);
        }
        // Some are held for a while, so that data meets open connections.
        if open.len() > 8 {
            open.remove(0);
        }
        assert!(carried.stats().connections <= CARRIED_CONNECTIONS_MAX);
    });
}
