use quorate_engine::transport::wire::{Duplex, Wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

use super::*;
use crate::disk::Power;

/// Two nodes, one runtime, a clock that the test moves.
struct Bench {
    network: Network,
    runtime: Runtime,
    wires: [SimWire; 2],
    now: u64,
}

impl Bench {
    fn new(seed: u64) -> Bench {
        let names = [("a:1".to_string(), 0), ("b:1".to_string(), 1)].into();
        let network = Network::new(Rng::new(seed), names);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let wires = [0, 1].map(|node| SimWire { network: network.clone(), node, power: Power::new() });
        Bench { network, runtime, wires, now: 0 }
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now += 1;
            self.network.deliver(self.now);
            self.runtime.block_on(tokio::task::yield_now());
        }
    }

    /// A connection from a to b, as both see it.
    fn connected(&mut self) -> (Duplex, Duplex) {
        let mut listener = self.runtime.block_on(self.wires[1].listen("b:1")).unwrap();
        let attempt = self.runtime.spawn(self.wires[0].connect("b:1"));
        self.pass(50);
        let there = self.runtime.block_on(listener.accept()).unwrap();
        let here = self.runtime.block_on(attempt).unwrap().unwrap();
        std::mem::forget(listener);
        (here, there)
    }

    fn write(&self, duplex: &mut Duplex, bytes: &[u8]) -> std::io::Result<()> {
        self.runtime.block_on(duplex.writer.write_all(bytes))
    }

    /// What can be read without waiting.
    fn read(&self, duplex: &mut Duplex) -> std::io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; 1 << 20];
        let read = self.runtime.block_on(async {
            tokio::select! {
                biased;
                read = duplex.reader.read(&mut buffer) => Some(read),
                () = std::future::ready(()) => None,
            }
        });
        let Some(read) = read.transpose()? else { return Ok(None) };
        buffer.truncate(read);
        Ok(Some(buffer))
    }
}

#[test]
fn bytes_arrive_in_order_and_only_when_they_are_due() {
    let mut bench = Bench::new(1);
    let (mut here, mut there) = bench.connected();
    bench.network.set_weather(Weather { delay_ms: 10, jitter_ms: 20, lost: 100, doubled: 100 });
    for piece in [b"one ", b"two ", b"for "] {
        bench.write(&mut here, piece).unwrap();
    }
    bench.pass(9);
    assert_eq!(bench.read(&mut there).unwrap(), None);
    bench.pass(21);
    assert_eq!(bench.read(&mut there).unwrap(), Some(b"one two for ".to_vec()));
    drop(here);
    bench.pass(31);
    assert_eq!(bench.read(&mut there).unwrap(), Some(Vec::new()), "the end");
    assert!(bench.write(&mut there, b"x").is_err(), "nobody reads any more");
}

#[test]
fn a_partition_holds_up_one_direction_and_loses_nothing() {
    let mut bench = Bench::new(2);
    let (mut here, mut there) = bench.connected();
    bench.network.block(|blocked| blocked.block(0, 1));
    bench.write(&mut here, b"held").unwrap();
    bench.write(&mut there, b"free").unwrap();
    bench.pass(100);
    assert_eq!(bench.read(&mut there).unwrap(), None);
    assert_eq!(bench.read(&mut here).unwrap(), Some(b"free".to_vec()));
    bench.network.block(Blocked::clear);
    bench.pass(1);
    assert_eq!(bench.read(&mut there).unwrap(), Some(b"held".to_vec()));
}

#[test]
fn a_sender_waits_when_nobody_reads() {
    let mut bench = Bench::new(3);
    let (mut here, mut there) = bench.connected();
    let sender =
        bench.runtime.spawn(async move { here.writer.write_all(&vec![7; 3 * pipe::WINDOW]).await.map(|()| here) });
    bench.pass(10);
    assert!(!sender.is_finished());
    let mut received = 0;
    while received < 3 * pipe::WINDOW {
        bench.pass(1);
        received += bench.read(&mut there).unwrap().map_or(0, |bytes| bytes.len());
        assert!(bench.now < 1_000, "{received}");
    }
    bench.pass(1);
    assert!(sender.is_finished());
}

#[test]
fn a_killed_node_breaks_its_connections_and_refuses_new_ones() {
    let mut bench = Bench::new(4);
    let (mut here, there) = bench.connected();
    bench.network.kill(1, false);
    drop(there);
    bench.pass(2);
    assert!(bench.read(&mut here).is_err());
    assert!(bench.write(&mut here, b"x").is_err());
    let refused = bench.runtime.spawn(bench.wires[0].connect("b:1"));
    bench.pass(2);
    assert_eq!(
        bench.runtime.block_on(refused).unwrap().map(drop).unwrap_err().kind(),
        std::io::ErrorKind::ConnectionRefused
    );
    let nowhere = bench.runtime.spawn(bench.wires[0].connect("c:1"));
    bench.pass(2);
    assert!(bench.runtime.block_on(nowhere).unwrap().is_err());
}

#[test]
fn without_power_nothing_leaves_and_a_reset_breaks_both_sides() {
    let mut bench = Bench::new(5);
    let (mut here, mut there) = bench.connected();
    bench.wires[0].power.set(false);
    bench.write(&mut here, b"lost").unwrap();
    bench.pass(5);
    assert_eq!(bench.read(&mut there).unwrap(), None);
    bench.wires[0].power.set(true);
    bench.network.reset(0, 1);
    assert!(bench.read(&mut here).is_err() && bench.read(&mut there).is_err());
    assert!(bench.write(&mut here, b"x").is_err());
}

#[test]
fn a_connection_attempt_behind_a_partition_ends() {
    let mut bench = Bench::new(6);
    let _open = bench.connected();
    bench.network.block(|blocked| blocked.block(1, 0));
    let attempt = bench.runtime.spawn(bench.wires[0].connect("b:1"));
    bench.pass(1_000);
    assert!(!attempt.is_finished());
    bench.pass(1_100);
    let outcome = bench.runtime.block_on(attempt).unwrap();
    assert_eq!(outcome.map(drop).unwrap_err().kind(), std::io::ErrorKind::TimedOut);
}

#[test]
fn datagrams_are_lost_doubled_and_overtaken() {
    let network = Network::new(Rng::new(7), [("b".to_string(), 1)].into());
    network.set_weather(Weather { delay_ms: 1, jitter_ms: 30, lost: 20, doubled: 20 });
    (0..100).for_each(|number: u8| assert!(network.send_datagram(0, "b", &[number])));
    assert!(!network.send_datagram(0, "c", &[0]));
    let mut arrived = Vec::new();
    for time_ms in 1..=40 {
        network.deliver(time_ms);
        arrived.extend(network.arrivals().into_iter().map(|datagram| datagram.bytes[0]));
    }
    let traffic = network.traffic();
    assert_eq!(arrived.len() as u64, 100 - traffic.lost + traffic.doubled);
    assert!(traffic.lost > 5 && traffic.doubled > 5);
    assert!(!arrived.is_sorted());
    network.block(|blocked| blocked.block(0, 1));
    assert!(network.send_datagram(0, "b", &[1]));
    network.deliver(100);
    assert!(network.arrivals().is_empty());
}
