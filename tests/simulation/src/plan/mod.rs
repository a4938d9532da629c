//! What a seed stands for: a cluster, its clients, and what goes wrong when. A plan is data, so that a failing one can be
//! made smaller.

mod draw;
mod focus;
mod kinds;

use std::fmt;

use quorate_linear::rng::Rng;

use crate::chance::Slow;
use crate::network::Weather;
use crate::process::Hosting;

pub use focus::Focus;
pub use kinds::{Fault, Kind, Shape, Who};

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
    /// How host processes behave that have the state machine, if any have.
    pub hosting: Option<Hosting>,
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
            hosting: None,
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
        let slow = draw::slow(rng);
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
            // Drawn apart: the rest of a seed's plan is what it was before there were hosts.
            hosting: draw::hosting(&mut Rng::new(seed).split(9)),
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
            weather: draw::weather(rng),
            faults: Vec::new(),
        };
        if let Some(focus) = focus {
            focus.shape(&mut plan, rng);
        }
        let mix = focus.map_or_else(|| draw::mix(rng), |focus| focus.kinds().to_vec());
        plan.faults = draw::faults(&plan, &mix, rng);
        plan
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
        if let Some(hosting) = &self.hosting {
            writeln!(f, "  {hosting:?}")?;
        }
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
        let hosted = (0..2_000).filter(|seed| Plan::new(*seed).hosting.is_some()).count();
        assert!((400..600).contains(&hosted), "one of four: {hosted}");
        for seed in 0..200 {
            let plan = Plan::new(seed);
            assert_eq!(plan.hosting, Plan::focused(seed, Focus::Disks).hosting);
            assert!(plan.hosts.len() >= 3 && plan.hosts.len() <= 7);
            assert!(plan.faults.is_sorted_by_key(|fault| fault.at));
            assert!(plan.faults.iter().all(|fault| fault.at < plan.duration_ms));
        }
    }
}
