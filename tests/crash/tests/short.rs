//! Every machinery, for a few seconds, with fresh seeds: what it found before is guarded by tests of the engine.
#![allow(clippy::unwrap_used, clippy::explicit_write)]

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_crash::{damage, disk, eio, full, powercut, soak, torture};

fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_crash-node").into()
}

/// Removed at the end, unless a run keeps something there for a person.
fn base(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("crash").join(name)
}

fn seed() -> u64 {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    println!("seed {seed}");
    seed
}

fn powercuts(level: u32, cycles: u64) {
    let base = base(&format!("level-{level}"));
    if let Some(why) = disk::missing(level).or_else(|| disk::refused(&base, level)) {
        // Not println!, which a passing test keeps to itself.
        writeln!(std::io::stderr(), "skipped: {why}").unwrap();
        return;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let tally = base.join("tally.jsonl");
    let plan = powercut::Plan { program: program(), base: base.clone(), tally, cycles, level, seed: seed(), stop };
    let totals = powercut::run(&plan, &|line| println!("{line}")).unwrap();
    assert_eq!(totals.wrong, Vec::<String>::new());
    assert_eq!(totals.cycles, cycles);
    assert!(totals.acknowledged > 0 && totals.checked > 0, "{totals}");
    let lines = std::fs::read_to_string(base.join("tally.jsonl")).unwrap();
    assert!(lines.lines().count() >= cycles as usize, "{lines}");
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&format!("level-{level}/run-{}", std::process::id())), "left mounted:\n{mounts}");
}

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    powercuts(1, 6);
}

#[test]
fn what_was_acknowledged_survives_a_power_cut_of_a_disk_with_a_volatile_cache() {
    powercuts(2, 6);
}

#[test]
fn a_node_whose_disk_was_full_comes_back_by_itself() {
    let base = base("full");
    if let Some(why) = disk::missing(1).or_else(|| disk::refused(&base, 1)) {
        writeln!(std::io::stderr(), "skipped: {why}").unwrap();
        return;
    }
    let (tally, stop) = (base.join("tally.jsonl"), Arc::new(AtomicBool::new(false)));
    let plan = full::Plan { program: program(), base, tally, cycles: 1, seed: seed(), stop };
    let report = full::run(&plan, &|line| println!("{line}")).unwrap();
    assert_eq!(report.wrong, Vec::<String>::new());
    assert!(report.cycles == 1 && !report.said.is_empty() && report.acknowledged > 0, "{report:?}");
}

#[test]
fn a_node_whose_disk_reports_errors_comes_back_by_itself() {
    if let Some(why) = eio::missing() {
        writeln!(std::io::stderr(), "skipped: {why}").unwrap();
        return;
    }
    let (base, stop) = (base("eio"), Arc::new(AtomicBool::new(false)));
    let tally = base.join("tally.jsonl");
    let plan = eio::Plan { program: program(), base, tally, cycles: 3, seed: seed(), stop };
    let report = eio::run(&plan, &|line| println!("{line}")).unwrap();
    assert_eq!(report.wrong, Vec::<String>::new());
    let places: Vec<_> = report.said.iter().map(|(place, _)| *place).collect();
    assert!(eio::PLACES.iter().all(|place| places.contains(place)) && report.acknowledged > 0, "{report:?}");
}

#[test]
fn memory_and_disk_stay_bounded_under_load() {
    let (base, stop) = (base("soak"), Arc::new(AtomicBool::new(false)));
    let tally = base.join("soak.jsonl");
    let (time, every) = (Duration::from_secs(20), Duration::from_secs(1));
    let plan = soak::Plan { program: program(), base, tally, time, every, stop };
    let report = soak::run(&plan, &|line| println!("{line}")).unwrap();
    assert_eq!(report.wrong, Vec::<String>::new());
    assert!(report.samples.len() >= 10 && report.samples.last().unwrap().acknowledged > 1_000, "{report}");
}

#[test]
fn damaged_nodes_heal_or_refuse() {
    let (base, stop) = (base("damage"), Arc::new(AtomicBool::new(false)));
    let plan = damage::Plan { program: program(), base, alone: 20, among_three: 5, seed: seed(), stop };
    let report = damage::run(&plan, &|line| println!("{line}")).unwrap();
    assert_eq!(report.wrong, Vec::<String>::new());
    assert_eq!(report.trials(), 25);
}

#[test]
fn what_clients_see_among_kills_pauses_and_partitions_is_linearizable() {
    let (base, stop) = (base("torture"), Arc::new(AtomicBool::new(false)));
    let tally = base.join("tally.jsonl");
    let (time, round) = (Duration::from_secs(1), Duration::from_secs(8));
    let (clients, keys, kills_percent) = (torture::CLIENTS, torture::KEYS, 0);
    let (program, seed) = (program(), seed());
    let plan = torture::Plan { program, base, tally, time, round, clients, keys, kills_percent, seed, stop };
    let report = torture::run(&plan, &|line| println!("{line}")).unwrap();
    assert_eq!(report.wrong, Vec::<String>::new());
    assert!(report.operations > report.unknown + report.failed, "{report}");
    assert!(report.connections > 0 && !report.faults.is_empty(), "{report}");
}
