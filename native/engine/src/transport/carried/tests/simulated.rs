//! Two ends of a connection on a virtual clock.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use tokio::io::ReadBuf;

use super::super::connection::State;
use super::super::datagram::{Packet, decode, encode};
use super::super::receiving::WINDOW_FIRST;
use super::Dice;
use crate::limits::{CARRIED_DATAGRAM_BYTES_MAX, CARRIED_WINDOW_BYTES};

#[derive(Clone, Copy)]
struct Weather {
    lost: u64,
    doubled: u64,
    delay_ms: u64,
}

const CALM: Weather = Weather { lost: 0, doubled: 0, delay_ms: 1 };
const STORM: Weather = Weather { lost: 15, doubled: 10, delay_ms: 40 };

/// Two ends, the datagrams between them, and a clock.
struct World {
    ends: [State; 2],
    /// By arrival: which end, and the datagram.
    under_way: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    weather: Weather,
    dice: Dice,
    now: Instant,
    sent: u64,
}

impl World {
    fn new(weather: Weather, seed: u64) -> World {
        let now = Instant::now();
        let ends = [State::new(Some(WINDOW_FIRST), now), State::new(Some(WINDOW_FIRST), now)];
        World { ends, under_way: BTreeMap::new(), weather, dice: Dice(seed), now, sent: 0 }
    }

    fn send(&mut self, end: usize) {
        for packet in self.ends[end].packets(self.now) {
            self.sent += 1;
            let datagram = encode("a", "b", 1, &packet);
            assert!(datagram.len() <= CARRIED_DATAGRAM_BYTES_MAX);
            for _ in 0..1 + u64::from(self.dice.percent(self.weather.doubled)) {
                if self.dice.percent(self.weather.lost) {
                    continue;
                }
                let delay = Duration::from_millis(1 + self.dice.next() % self.weather.delay_ms);
                let order = self.dice.next();
                self.under_way.insert((self.now + delay, order), (1 - end, datagram.clone()));
            }
        }
    }

    /// Goes on to whatever happens next.
    fn step(&mut self) {
        (0..2).for_each(|end| self.send(end));
        let arrival = self.under_way.keys().next().map(|(at, _)| *at);
        let due = self.ends.iter().filter_map(State::deadline).chain(arrival).min();
        // At least a little later: two ends that have nothing to do would otherwise stand still.
        self.now = due.unwrap_or(self.now).max(self.now + Duration::from_micros(100));
        while let Some(first) = self.under_way.first_entry()
            && first.key().0 <= self.now
        {
            let (end, datagram) = first.remove();
            let packet = decode(datagram.into()).unwrap().packet;
            self.ends[end].take(packet, self.now);
        }
        for end in &self.ends {
            let (sending, receiving) = end.held();
            assert!(sending <= CARRIED_WINDOW_BYTES && receiving <= CARRIED_WINDOW_BYTES, "{sending} {receiving}");
        }
    }

    fn write(&mut self, end: usize, bytes: &[u8]) -> usize {
        match self.ends[end].poll_write(&Context::from_waker(std::task::Waker::noop()), bytes) {
            Poll::Ready(written) => written.unwrap(),
            Poll::Pending => 0,
        }
    }

    /// Reads up to `most` bytes; `None` at the end of the stream.
    fn read(&mut self, end: usize, most: usize) -> Option<Vec<u8>> {
        let mut out = vec![0; most];
        let mut buffer = ReadBuf::new(&mut out);
        match self.ends[end].poll_read(&Context::from_waker(std::task::Waker::noop()), &mut buffer, self.now) {
            Poll::Ready(read) => {
                read.unwrap();
                let bytes = buffer.filled().to_vec();
                (!bytes.is_empty()).then_some(bytes)
            }
            Poll::Pending => Some(Vec::new()),
        }
    }
}

fn stream(seed: u64, len: usize) -> Vec<u8> {
    let mut dice = Dice(seed);
    (0..len).map(|_| dice.next() as u8).collect()
}

/// Sends `len` bytes both ways, reading `most` at a time; returns how long it took on the virtual clock.
fn exchange(mut world: World, len: usize, most: usize) -> Duration {
    let sent = [stream(3, len), stream(5, len)];
    let (mut written, mut received) = ([0, 0], [Vec::new(), Vec::new()]);
    let (mut ended, started) = ([false, false], world.now);
    while ended != [true, true] {
        assert!(world.now < started + Duration::from_secs(600), "{written:?} {ended:?}");
        for end in 0..2 {
            if written[end] < len {
                // Frames of all sizes, flushed one by one.
                let piece = 1 + (world.dice.next() % 100_000) as usize;
                let until = len.min(written[end] + piece);
                written[end] += world.write(end, &sent[end][written[end]..until]);
                world.ends[end].flush();
                if written[end] == len {
                    world.ends[end].drop_writer();
                }
            }
            match world.read(end, most) {
                Some(bytes) => received[1 - end].extend(bytes),
                None => ended[end] = true,
            }
        }
        world.step();
    }
    assert!(received[0] == sent[0] && received[1] == sent[1], "the streams are not what was sent");
    let took = world.now - started;
    // Both sides are done: once nobody reads any more, the connection ends by itself.
    (0..2).for_each(|end| world.ends[end].drop_reader());
    while !world.ends.iter().any(State::has_ended) {
        assert!(world.now < started + took + Duration::from_secs(30), "the connection does not end");
        world.step();
    }
    took
}

#[test]
fn streams_arrive_whole_in_any_weather() {
    for seed in 1..=20 {
        exchange(World::new(STORM, seed), 1 << 20, 1 << 16);
    }
}

#[test]
fn neither_a_calm_link_nor_a_storm_stops_a_large_stream() {
    let calm = exchange(World::new(CALM, 7), 16 << 20, 1 << 20);
    let storm = exchange(World::new(STORM, 7), 16 << 20, 1 << 20);
    println!("16 MiB both ways: {calm:?} in calm, {storm:?} in a storm");
    assert!(calm < Duration::from_secs(5) && storm < Duration::from_secs(120), "{calm:?} {storm:?}");
}

#[test]
fn a_slow_reader_holds_the_sender_up_and_loses_nothing() {
    let slow = Weather { lost: 5, ..CALM };
    exchange(World::new(slow, 11), 3 << 20, 3000);
}

#[test]
fn a_reader_that_does_not_read_leaves_the_connection_alive_and_bounded() {
    let mut world = World::new(Weather { lost: 10, ..CALM }, 13);
    let started = world.now;
    let mut written = 0;
    while world.now < started + Duration::from_secs(60) {
        written += world.write(0, &[1; 5000]);
        world.ends[0].flush();
        world.step();
    }
    assert!(written <= 2 * CARRIED_WINDOW_BYTES, "{written}");
    assert!(written > CARRIED_WINDOW_BYTES && !world.ends[0].has_ended());
    let mut read = 0;
    while read < written {
        assert!(world.now < started + Duration::from_secs(90), "{read} of {written}");
        read += world.read(1, 1 << 16).unwrap().len();
        world.step();
    }
}

#[test]
fn a_silent_peer_ends_the_connection_with_an_error_on_both_sides() {
    let mut world = World::new(Weather { lost: 100, ..CALM }, 17);
    let started = world.now;
    world.write(0, b"anybody there?");
    world.ends[0].flush();
    while !world.ends.iter().all(State::has_ended) {
        assert!(world.now < started + Duration::from_secs(15));
        world.step();
    }
    let context = Context::from_waker(std::task::Waker::noop());
    let now = world.now;
    for end in &mut world.ends {
        let Poll::Ready(Err(error)) = end.poll_write(&context, b"x") else { panic!("it takes bytes") };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let Poll::Ready(Err(error)) = end.poll_read(&context, &mut ReadBuf::new(&mut [0; 8]), now) else {
            panic!("it reads")
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
}

#[test]
fn an_idle_connection_lives_on_a_ping_now_and_then() {
    let mut world = World::new(Weather { lost: 20, ..CALM }, 19);
    let started = world.now;
    while world.now < started + Duration::from_secs(300) {
        world.step();
    }
    assert!(world.ends.iter().all(|end| !end.has_ended()));
    assert!(world.sent < 300 * 6, "{} datagrams in 300 s of silence", world.sent);
}

#[test]
fn what_was_written_before_the_peer_reset_can_still_be_read() {
    let mut world = World::new(CALM, 23);
    world.write(0, b"last words");
    world.ends[0].flush();
    (0..20).for_each(|_| world.step());
    let now = world.now;
    world.ends[1].take(Packet::Reset, now);
    assert_eq!(world.read(1, 100).unwrap(), b"last words");
    let context = Context::from_waker(std::task::Waker::noop());
    let end = world.ends[1].poll_read(&context, &mut ReadBuf::new(&mut [0; 8]), now);
    assert!(matches!(end, Poll::Ready(Err(error)) if error.kind() == ErrorKind::ConnectionReset));
}
