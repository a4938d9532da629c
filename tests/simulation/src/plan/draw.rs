//! Drawing a plan's parts.

use quorate_linear::rng::Rng;

use super::Plan;
use super::kinds::{Fault, Kind, Shape, Who};
use crate::chance::Slow;
use crate::network::Weather;
use crate::process::Hosting;

pub(super) fn slow(rng: &mut Rng) -> Slow {
    match rng.below(4) {
        0 => Slow::default(),
        1 => Slow { log_ms: rng.below(4), ..Slow::default() },
        _ => Slow {
            log_ms: rng.below(8),
            read_ms: rng.below(10),
            apply_ms: rng.below(10),
            snapshot_ms: rng.below(100),
            ..Slow::default()
        },
    }
}

pub(super) fn weather(rng: &mut Rng) -> Weather {
    Weather {
        delay_ms: rng.below(4),
        jitter_ms: *rng.pick(&[0, 2, 10, 30]).unwrap_or(&0),
        lost: *rng.pick(&[0, 0, 1, 5]).unwrap_or(&0),
        doubled: *rng.pick(&[0, 0, 2, 10]).unwrap_or(&0),
    }
}

/// One seed of four has its machines in host processes.
pub(super) fn hosting(rng: &mut Rng) -> Option<Hosting> {
    if !rng.chance(25) {
        return None;
    }
    Some(Hosting {
        window: *rng.pick(&[1, 4, 16, 8_192]).unwrap_or(&16),
        most: *rng.pick(&[1, 3, 20, 1_000]).unwrap_or(&20),
        pauses: *rng.pick(&[0, 2, 10]).unwrap_or(&2),
        pause_ms: *rng.pick(&[50, 500, 3_000]).unwrap_or(&500),
        snapshot_ms: *rng.pick(&[0, 20, 200, 1_500]).unwrap_or(&20),
        refused: *rng.pick(&[0, 10, 40]).unwrap_or(&10),
        forgotten: *rng.pick(&[0, 0, 20]).unwrap_or(&0),
        timeout_ms: *rng.pick(&[100, 1_000, 5_000]).unwrap_or(&1_000),
    })
}

fn storm(rng: &mut Rng) -> Weather {
    Weather { delay_ms: rng.below(20), jitter_ms: rng.range(10, 200), lost: rng.below(30), doubled: rng.below(30) }
}

fn who(rng: &mut Rng) -> Who {
    match rng.below(5) {
        0 | 1 => Who::Leader,
        2 => Who::Follower(rng.below(100)),
        _ => Who::Any(rng.below(100)),
    }
}

fn shape(rng: &mut Rng) -> Shape {
    match rng.below(6) {
        0 => Shape::Alone(who(rng)),
        1 => Shape::Deaf(who(rng)),
        2 => Shape::Mute(who(rng)),
        3 => Shape::Halves(rng.next_u64()),
        4 => Shape::Bridge(who(rng), rng.next_u64()),
        _ => Shape::Loose(rng.next_u64()),
    }
}

/// How many kinds [`kind`] knows that any seed may have.
const KINDS: u64 = 22;

/// Each seed has a mix of its own: of most kinds nothing, of some much, so that rare combinations meet.
pub(super) fn mix(rng: &mut Rng) -> Vec<u64> {
    let mix: Vec<u64> = (0..KINDS).filter(|_| rng.chance(30)).collect();
    if mix.is_empty() || rng.chance(10) { (0..KINDS).collect() } else { mix }
}

/// Faults of the kinds in `mix`, by time.
pub(super) fn faults(plan: &Plan, mix: &[u64], rng: &mut Rng) -> Vec<Fault> {
    let count = rng.range(3, 16);
    let mut faults: Vec<Fault> = (0..count)
        .filter_map(|_| {
            let at = rng.range(600, plan.duration_ms - 500);
            let kind = kind(plan, rng.pick(mix).copied()?, rng);
            Some(Fault { at, kind })
        })
        .collect();
    for host in plan.founders..plan.hosts.len() {
        faults.push(Fault { at: rng.range(1_000, plan.duration_ms - 1_000), kind: Kind::Grow { host } });
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}

fn kind(plan: &Plan, number: u64, rng: &mut Rng) -> Kind {
    let ms = *rng.pick(&[200, 500, 1_000, 2_000]).unwrap_or(&500) + rng.below(200);
    let longest = *rng.pick(&[50, 500, 2_000]).unwrap_or(&500);
    let down_ms = rng.range(1, longest);
    match number {
        0 => Kind::Crash { who: who(rng), power: false, down_ms },
        1 => Kind::Crash { who: who(rng), power: true, down_ms },
        2 => Kind::CrashMany { all: true, power: true, down_ms },
        3 => Kind::CrashMany { all: rng.chance(30), power: rng.chance(70), down_ms },
        4 => Kind::CutInside { who: who(rng), changes: rng.below(60), down_ms },
        5 => Kind::Close { who: who(rng), down_ms },
        6 => Kind::Pause { who: who(rng), ms: plan.election_ms * rng.range(1, 5) },
        7 | 8 => Kind::Part { shape: shape(rng), ms },
        9 => Kind::Reset { one: who(rng), other: Who::Any(rng.below(100)) },
        10 => Kind::Storm { weather: storm(rng), ms },
        11 => Kind::Full { who: who(rng), strict: rng.chance(50), ms },
        12 => Kind::WriteErrors { who: who(rng), count: rng.range(1, 4) as u32 },
        13 => Kind::SyncErrors {
            who: who(rng),
            count: rng.range(1, 3) as u32,
            cut_after_ms: rng.chance(60).then(|| rng.range(1, 300)),
        },
        14 => Kind::ShortWrites { who: who(rng), ms },
        15 => Kind::SlowDisk { who: who(rng), slow: bad_disk(rng), ms },
        16 => Kind::Broken { who: who(rng), ms },
        17 => Kind::Jump { who: who(rng), by_ms: rng.range(0, 7_200_000) as i64 - 3_600_000 },
        18 => Kind::Transfer { to: who(rng) },
        19 => Kind::Snapshot { who: who(rng) },
        20 => Kind::Remove { who: who(rng), ms },
        21 if rng.chance(75) => Kind::Wipe { who: who(rng), down_ms },
        22 => Kind::CrashMany { all: rng.chance(50), power: true, down_ms: 1 + rng.below(20) },
        23 => Kind::Part { shape: cut_off(rng), ms: plan.election_ms * rng.range(2, 7) },
        26 => Kind::Depose {
            ms: plan.election_ms * rng.range(2, 6),
            then_ms: rng.below(100),
            deposed: rng.chance(70),
            at_once: rng.chance(60),
            other: who(rng),
        },
        25 => Kind::Ambush { ms: plan.election_ms * rng.range(3, 8) },
        _ => Kind::Damage { who: who(rng), down_ms, place: rng.next_u64() },
    }
}

/// Partitions that take the leader away from the others.
fn cut_off(rng: &mut Rng) -> Shape {
    match rng.below(4) {
        0 => Shape::Deaf(Who::Leader),
        1 => Shape::Mute(Who::Leader),
        2 => Shape::Bridge(Who::Any(rng.below(100)), rng.next_u64()),
        _ => Shape::Alone(Who::Leader),
    }
}

fn bad_disk(rng: &mut Rng) -> Slow {
    match rng.below(4) {
        0 => Slow { stuck: true, ..Slow::default() },
        1 => Slow { hung: true, ..Slow::default() },
        _ => Slow {
            log_ms: rng.range(10, 150),
            read_ms: rng.below(50),
            apply_ms: rng.below(100),
            snapshot_ms: rng.below(500),
            ..Slow::default()
        },
    }
}
