//! What a seed stands for: a cluster, its clients, and what goes wrong when. A plan is data, so that a failing one can be
//! made smaller.

use std::fmt;

use quorate_linear::rng::Rng;

use crate::chance::Slow;
use crate::network::Weather;

/// Who is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Whoever leads at that moment.
    Leader,
    /// One that does not lead.
    Follower(u64),
    /// Anybody.
    Any(u64),
    /// This host.
    Exactly(usize),
}

/// A partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One against all others.
    Alone(Who),
    /// Nothing reaches one, but what it says is heard.
    Deaf(Who),
    /// One hears, and is not heard.
    Mute(Who),
    /// Two parts; bit i says where host i is.
    Halves(u64),
    /// Two parts that both reach one host.
    Bridge(Who, u64),
    /// Each direction between two hosts by chance.
    Loose(u64),
}

/// Something that goes wrong, or is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The process is killed; `power`: the machine's power goes.
    Crash { who: Who, power: bool, down_ms: u64 },
    /// All (or a majority) at the same moment.
    CrashMany { all: bool, power: bool, down_ms: u64 },
    /// The power goes within the next changes on the disk.
    CutInside { who: Who, changes: u64, down_ms: u64 },
    /// Closed in good order, and started again.
    Close { who: Who, down_ms: u64 },
    /// The process stands still.
    Pause { who: Who, ms: u64 },
    /// A partition.
    Part { shape: Shape, ms: u64 },
    /// Connections between two hosts break.
    Reset { one: Who, other: Who },
    /// Bad weather.
    Storm { weather: Weather, ms: u64 },
    /// No space left.
    Full { who: Who, strict: bool, ms: u64 },
    /// Writes fail with EIO.
    WriteErrors { who: Who, count: u32 },
    /// Syncs fail with EIO; then the power may go.
    SyncErrors { who: Who, count: u32, cut_after_ms: Option<u64> },
    /// Writes take a part of what they are given.
    ShortWrites { who: Who, ms: u64 },
    /// Everything on the disk is slow.
    SlowDisk { who: Who, slow: Slow, ms: u64 },
    /// The machine fails.
    Broken { who: Who, ms: u64 },
    /// The wall clock jumps.
    Jump { who: Who, by_ms: i64 },
    /// Leadership is handed over.
    Transfer { to: Who },
    /// A snapshot is taken.
    Snapshot { who: Who },
    /// A member is taken out, and let in again.
    Remove { who: Who, ms: u64 },
    /// A disk is emptied.
    Wipe { who: Who, down_ms: u64 },
    /// A host that was not there yet is started.
    Grow { host: usize },
    /// The next node that wins an election is cut off at once, and the power of all who voted goes.
    Ambush { ms: u64 },
    /// A closed node's log is damaged where it was durable.
    Damage { who: Who, down_ms: u64, place: u64 },
}

impl Kind {
    /// Its name, for counts.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Crash { power: true, .. } => "power cut",
            Kind::Crash { .. } => "kill",
            Kind::CrashMany { all: true, power: true, .. } => "power cut of all",
            Kind::CrashMany { all: true, .. } => "kill of all",
            Kind::CrashMany { power: true, .. } => "power cut of a majority",
            Kind::CrashMany { .. } => "kill of a majority",
            Kind::CutInside { .. } => "power cut inside a write",
            Kind::Close { .. } => "restart",
            Kind::Pause { .. } => "pause",
            Kind::Part { shape, .. } => match shape {
                Shape::Alone(_) => "partition: alone",
                Shape::Deaf(_) => "partition: deaf",
                Shape::Mute(_) => "partition: mute",
                Shape::Halves(_) => "partition: halves",
                Shape::Bridge(..) => "partition: bridge",
                Shape::Loose(_) => "partition: loose",
            },
            Kind::Reset { .. } => "connections broken",
            Kind::Storm { .. } => "storm",
            Kind::Full { .. } => "disk full",
            Kind::WriteErrors { .. } => "EIO on write",
            Kind::SyncErrors { .. } => "EIO on sync",
            Kind::ShortWrites { .. } => "short writes",
            Kind::SlowDisk { slow, .. } if slow.hung => "disk hangs",
            Kind::SlowDisk { slow, .. } if slow.stuck => "machine stuck",
            Kind::SlowDisk { .. } => "slow disk",
            Kind::Broken { .. } => "machine fails",
            Kind::Jump { .. } => "clock jump",
            Kind::Transfer { .. } => "leadership handed over",
            Kind::Snapshot { .. } => "snapshot asked for",
            Kind::Remove { .. } => "member removed",
            Kind::Wipe { .. } => "disk wiped",
            Kind::Grow { .. } => "member added",
            Kind::Ambush { .. } => "power cut of all voters",
            Kind::Damage { .. } => "log damaged",
        }
    }
}

/// What happens when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When, in ms.
    pub at: u64,
    /// What.
    pub kind: Kind,
}

/// One machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostShape {
    /// When its node is started first, in ms.
    pub start_ms: u64,
    /// Thousandths of a ms that its clock advances in one ms.
    pub drift: u64,
    /// How slow it usually is.
    pub slow: Slow,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where everything random comes from.
    pub seed: u64,
    /// How many hosts found the cluster; further ones join.
    pub founders: usize,
    /// The hosts.
    pub hosts: Vec<HostShape>,
    /// Whether nodes talk by datagrams.
    pub datagrams: bool,
    /// Interval of heartbeats, in ms.
    pub heartbeat_ms: u64,
    /// Election timeout, in ms.
    pub election_ms: u64,
    /// Commands between snapshots.
    pub snapshot_commands: u64,
    /// Entries kept before a snapshot.
    pub keep_entries: u64,
    /// Size of the log from which on its files are used again, in bytes.
    pub log_bytes: u64,
    /// The longest step, in ms.
    pub tick_ms: u64,
    /// When faults stop, in ms.
    pub duration_ms: u64,
    /// Clients.
    pub clients: usize,
    /// Registers.
    pub registers: u32,
    /// Longest pause between two operations of a client, in ms.
    pub think_ms: u64,
    /// Commands are up to so many bytes longer than they must be.
    pub padding: u64,
    /// How long a client waits, in ms.
    pub patience_ms: u64,
    /// What a power cut keeps for certain, in a hundred.
    pub survive: u64,
    /// The network when nothing special happens.
    pub weather: Weather,
    /// What goes wrong, by time.
    pub faults: Vec<Fault>,
}

impl Plan {
    /// Name of host `index`.
    pub fn name(&self, index: usize) -> String {
        format!("s{index}")
    }

    /// Address of host `index`.
    pub fn address(&self, index: usize) -> String {
        match self.datagrams {
            true => self.name(index),
            false => format!("127.0.0.1:{}", 7_000 + index),
        }
    }

    /// The plan of a seed.
    pub fn new(seed: u64) -> Plan {
        let rng = &mut Rng::new(seed).split(7);
        let focus = if rng.chance(60) { None } else { rng.pick(&Focus::ALL).copied() };
        Plan::build(seed, focus, rng)
    }

    /// A plan of a seed that has much of one thing.
    pub fn focused(seed: u64, focus: Focus) -> Plan {
        Plan::build(seed, Some(focus), &mut Rng::new(seed).split(8))
    }

    /// A plan of three hosts with some clients, fast disks, a good network, and no faults: to be changed by hand.
    pub fn calm(seed: u64) -> Plan {
        Plan {
            seed,
            founders: 3,
            hosts: (0..3).map(|host| HostShape { start_ms: 50 * host, drift: 1_000, slow: Slow::default() }).collect(),
            datagrams: false,
            heartbeat_ms: 50,
            election_ms: 300,
            snapshot_commands: 20,
            keep_entries: 0,
            log_bytes: 64 << 10,
            tick_ms: 5,
            duration_ms: 6_000,
            clients: 6,
            registers: 3,
            think_ms: 5,
            padding: 500,
            patience_ms: 2_000,
            survive: 0,
            weather: Weather { delay_ms: 1, jitter_ms: 3, lost: 0, doubled: 0 },
            faults: Vec::new(),
        }
    }

    fn build(seed: u64, focus: Option<Focus>, rng: &mut Rng) -> Plan {
        let founders = *rng.pick(&[3, 3, 3, 3, 4, 5, 5]).unwrap_or(&3);
        let spares = if rng.chance(25) { rng.range(1, 3) as usize } else { 0 };
        let heartbeat_ms = *rng.pick(&[20, 30, 50, 80]).unwrap_or(&50);
        let duration_ms = rng.range(4_000, 10_000);
        let drifting = rng.chance(50);
        let slow = slow(rng);
        let hosts = (0..founders + spares).map(|host| HostShape {
            start_ms: if host < founders { rng.below(300) } else { 0 },
            drift: if drifting { rng.range(900, 1_101) } else { 1_000 },
            slow: if rng.chance(70) { slow } else { Slow::default() },
        });
        let hosts: Vec<HostShape> = hosts.collect();
        let mut plan = Plan {
            seed,
            founders,
            hosts,
            datagrams: rng.chance(25),
            heartbeat_ms,
            election_ms: heartbeat_ms * rng.range(3, 8),
            snapshot_commands: *rng.pick(&[10, 20, 50, 100, 300]).unwrap_or(&50),
            keep_entries: *rng.pick(&[0, 1, 4, 20, 100]).unwrap_or(&4),
            log_bytes: *rng.pick(&[64 << 10, 64 << 10, 128 << 10, 512 << 10]).unwrap_or(&(64 << 10)),
            tick_ms: rng.range(2, 11),
            duration_ms,
            clients: rng.range(2, 9) as usize,
            registers: rng.range(2, 6) as u32,
            think_ms: *rng.pick(&[0, 10, 50, 200]).unwrap_or(&10),
            padding: *rng.pick(&[0, 100, 1_000, 4_000]).unwrap_or(&0),
            patience_ms: rng.range(500, 4_000),
            survive: *rng.pick(&[0, 0, 0, 30, 80]).unwrap_or(&0),
            weather: weather(rng),
            faults: Vec::new(),
        };
        if let Some(focus) = focus {
            focus.shape(&mut plan, rng);
        }
        let mix = focus.map_or_else(|| mix(rng), |focus| focus.kinds().to_vec());
        plan.faults = faults(&plan, &mix, rng);
        plan
    }
}

fn slow(rng: &mut Rng) -> Slow {
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

fn weather(rng: &mut Rng) -> Weather {
    Weather {
        delay_ms: rng.below(4),
        jitter_ms: *rng.pick(&[0, 2, 10, 30]).unwrap_or(&0),
        lost: *rng.pick(&[0, 0, 1, 5]).unwrap_or(&0),
        doubled: *rng.pick(&[0, 0, 2, 10]).unwrap_or(&0),
    }
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

/// What a plan may have much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Focus {
    /// Power cuts, of one, of many, inside writes.
    PowerCuts,
    /// Elections, and power cuts in the midst of them.
    Elections,
    /// Snapshots and purges all the time.
    Snapshots,
    /// Leaders that are cut off or stand still, and believe to lead.
    Deposed,
    /// Changes of the membership.
    Members,
    /// Disks that are emptied.
    Wipes,
    /// Disks that are full, slow, or fail.
    Disks,
    /// Damage to what was durable.
    Damage,
}

impl Focus {
    /// All of them.
    pub const ALL: [Focus; 8] = [
        Focus::PowerCuts,
        Focus::Elections,
        Focus::Snapshots,
        Focus::Deposed,
        Focus::Members,
        Focus::Wipes,
        Focus::Disks,
        Focus::Damage,
    ];

    /// The kinds of [`kind`] that it consists of.
    fn kinds(self) -> &'static [u64] {
        match self {
            Focus::PowerCuts => &[1, 2, 2, 3, 4, 4, 5, 19],
            Focus::Elections => &[0, 1, 4, 18, 22, 22, 23, 25, 25, 25],
            Focus::Snapshots => &[0, 1, 5, 8, 19, 19, 21, 3],
            Focus::Deposed => &[0, 1, 6, 6, 9, 23, 23, 23, 23],
            Focus::Members => &[0, 1, 5, 8, 19, 20, 20, 21, 18],
            Focus::Wipes => &[0, 1, 7, 21, 21, 23],
            Focus::Disks => &[1, 11, 12, 13, 13, 14, 15, 11],
            Focus::Damage => &[1, 2, 24, 24, 23],
        }
    }

    /// Changes what else belongs to it.
    fn shape(self, plan: &mut Plan, rng: &mut Rng) {
        plan.think_ms = *rng.pick(&[0, 5, 20]).unwrap_or(&0);
        plan.clients = rng.range(4, 12) as usize;
        match self {
            Focus::PowerCuts | Focus::Damage => plan.survive = 0,
            Focus::Elections => plan.weather.jitter_ms = rng.below(40),
            Focus::Snapshots | Focus::Members | Focus::Wipes => {
                plan.snapshot_commands = rng.range(5, 25);
                plan.keep_entries = rng.below(3);
                plan.padding = 500;
            }
            Focus::Deposed => plan.patience_ms = plan.election_ms * 6 + 500,
            Focus::Disks => plan.padding = 2_000,
        }
    }
}

/// How many kinds [`kind`] knows that any seed may have.
const KINDS: u64 = 22;

/// Each seed has a mix of its own: of most kinds nothing, of some much, so that rare combinations meet.
fn mix(rng: &mut Rng) -> Vec<u64> {
    let mix: Vec<u64> = (0..KINDS).filter(|_| rng.chance(30)).collect();
    if mix.is_empty() || rng.chance(10) { (0..KINDS).collect() } else { mix }
}

/// Faults of the kinds in `mix`, by time.
fn faults(plan: &Plan, mix: &[u64], rng: &mut Rng) -> Vec<Fault> {
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

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { seed, founders, datagrams, heartbeat_ms, election_ms, snapshot_commands, keep_entries, .. } = self;
        writeln!(
            f,
            "seed {seed}: {founders} founders of {} hosts, {} clients, faults until {} ms",
            self.hosts.len(),
            self.clients,
            self.duration_ms
        )?;
        writeln!(
            f,
            "  heartbeat {heartbeat_ms} ms, election {election_ms} ms, snapshot after {snapshot_commands}, keep {keep_entries}, datagrams {datagrams}, steps up to {} ms, padding {}, survive {} %, {:?}",
            self.tick_ms, self.padding, self.survive, self.weather
        )?;
        for (index, host) in self.hosts.iter().enumerate() {
            writeln!(f, "  host {index}: {host:?}")?;
        }
        self.faults.iter().try_for_each(|fault| writeln!(f, "  {:>6} {:?}", fault.at, fault.kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_seed_has_one_plan_and_all_kinds_come() {
        assert_eq!(Plan::new(5), Plan::new(5));
        assert_ne!(Plan::new(5), Plan::new(6));
        let names: BTreeSet<&str> =
            (0..2_000).flat_map(|seed| Plan::new(seed).faults).map(|fault| fault.kind.name()).collect();
        assert!(names.len() >= 32, "{names:?}");
        for seed in 0..200 {
            let plan = Plan::new(seed);
            assert!(plan.hosts.len() >= 3 && plan.hosts.len() <= 7);
            assert!(plan.faults.is_sorted_by_key(|fault| fault.at));
            assert!(plan.faults.iter().all(|fault| fault.at < plan.duration_ms));
        }
    }
}
