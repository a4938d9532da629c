//! What the design promised, beside what was measured: met, or missed by how much.

use super::stats::{Group, Ratio, Spread, groups, ratio};
use crate::row::Row;

const ENGINE: &str = "quorate engine";
const CLOJURE: &str = "quorate clojure";
/// Peers with more than "ahead" for a target: so many times as fast, from so many in flight on.
const FACTORS: [(&str, f64, u64); 2] = [("SOFAJRaft", 3.0, 64), ("hashicorp/raft", 4.0, 64)];
/// Peers that are expected; others that were measured come as well.
const PEERS: [&str; 5] = ["Aeron Cluster", "MicroRaft", "SOFAJRaft", "hashicorp/raft", "Apache Ratis"];
const FLUREE: &str = "fluree/raft";
/// Resident memory of a node, in MiB.
const NODE_MIB: f64 = 512.0;
/// Entries of a restart.
const RESTARTED: f64 = 1_000_000.0;

/// One line of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// What is promised of what.
    pub what: String,
    /// The figure that is promised.
    pub wanted: String,
    /// The figure that was measured, with its spread, or why there is none.
    pub seen: String,
    /// Met, missed by how much, or not measured.
    pub verdict: String,
}

/// Which side of the wanted figure is right.
#[derive(Clone, Copy)]
enum Side {
    AtLeast,
    AtMost,
}

/// All targets, whether they were measured or not.
pub fn all(rows: &[Row]) -> Vec<Target> {
    let mut targets = Vec::new();
    peers(rows, &mut targets);
    fluree(rows, &mut targets);
    one_at_a_time(rows, &mut targets);
    through_clojure(rows, &mut targets);
    pauses(rows, &mut targets);
    recovery(rows, &mut targets);
    growth(rows, &mut targets);
    targets
}

fn target(what: String, side: Side, wanted: f64, unit: &str, seen: Option<(f64, String)>) -> Target {
    let sign = match side {
        Side::AtLeast => "≥",
        Side::AtMost => "≤",
    };
    let (seen, verdict) = match seen {
        Some((figure, text)) => (text, verdict(side, wanted, figure)),
        None => ("–".into(), "not measured".into()),
    };
    Target { what, wanted: format!("{sign} {wanted}{unit}"), seen, verdict }
}

fn verdict(side: Side, wanted: f64, seen: f64) -> String {
    let short = match side {
        Side::AtLeast => wanted - seen,
        Side::AtMost => seen - wanted,
    };
    match short <= 0.0 {
        true => "met".into(),
        false if wanted == 0.0 => format!("**missed by {short}**"),
        false => format!("**missed by {:.0} %**", (short / wanted * 100.0).max(1.0)),
    }
}

fn rate(row: &Row) -> Option<f64> {
    row.ops_per_s
}

/// The least ratio of a system's rate to another's over all N from `from` on, as figure and text.
fn least(rows: &[Row], part: &str, above: (&str, &str), below: (&str, &str), from: u64) -> Option<(f64, String)> {
    let groups = groups(rows, part);
    let named = |group: &&Group, (system, variant): (&str, &str)| {
        group.head().system == system && (variant.is_empty() || group.head().variant == variant)
    };
    let ratios = groups.iter().filter(|group| named(group, below)).filter_map(|lower| {
        let n = lower.head().n.filter(|n| *n >= from)?;
        let upper = groups.iter().find(|group| named(group, above) && group.head().n == Some(n))?;
        Some((n, ratio(upper, lower, rate)?))
    });
    let (n, ratio) = ratios.min_by(|one, other| one.1.of_medians.total_cmp(&other.1.of_medians))?;
    Some((ratio.of_medians, format!("{} at N = {n}", times(&ratio))))
}

/// A ratio for a person.
pub fn times(ratio: &Ratio) -> String {
    format!("{:.2} × ({:.2}–{:.2})", ratio.of_medians, ratio.least, ratio.most)
}

fn peers(rows: &[Row], targets: &mut Vec<Target>) {
    let mut peers: Vec<&str> = PEERS.to_vec();
    let measured = rows.iter().filter(|row| row.part == "peers" && row.ops_per_s.is_some());
    for system in measured.map(|row| row.system.as_str()) {
        if !peers.contains(&system) && ![ENGINE, CLOJURE, FLUREE].contains(&system) {
            peers.push(system);
        }
    }
    // In its part the engine has one variant only; the Clojure path's fair row has byte arrays.
    for (name, system, variant) in [("Engine", ENGINE, ""), ("Clojure, byte arrays", CLOJURE, "bytes")] {
        for peer in &peers {
            let seen = least(rows, "peers", (system, variant), (peer, ""), 1);
            targets.push(target(format!("{name} ÷ {peer}, every N"), Side::AtLeast, 1.0, " ×", seen));
        }
        for (peer, factor, from) in FACTORS {
            let seen = least(rows, "peers", (system, variant), (peer, ""), from);
            targets.push(target(format!("{name} ÷ {peer}, N ≥ {from}"), Side::AtLeast, factor, " ×", seen));
        }
    }
}

fn fluree(rows: &[Row], targets: &mut Vec<Target>) {
    let at = |n: u64| -> Vec<Row> { rows.iter().filter(|row| row.n == Some(n)).cloned().collect() };
    for (n, factor) in [(64, 20.0), (1024, 100.0)] {
        let seen = least(&at(n), "peers", (CLOJURE, "edn"), (FLUREE, ""), n);
        targets.push(target(format!("Clojure, EDN ÷ {FLUREE}, N = {n}"), Side::AtLeast, factor, " ×", seen));
    }
}

/// The row of one round of the machine's own floor.
fn floor<'a>(groups: &'a [Group<'a>], variant: &str) -> Option<&'a Group<'a>> {
    groups.iter().find(|group| {
        let head = group.head();
        head.system == "machine" && head.variant == variant && head.bytes == Some(128)
    })
}

fn one_at_a_time(rows: &[Row], targets: &mut Vec<Target>) {
    let engine = groups(rows, "engine");
    let one = engine.iter().find(|group| {
        let head = group.head();
        (head.system.as_str(), head.variant.as_str(), head.n, head.bytes) == (ENGINE, "counter", Some(1), Some(128))
    });
    let what = "One operation ÷ (one fdatasync + one round trip), p50";
    let seen =
        one.and_then(|one| over_floor(one, floor(&engine, "fdatasync")?, floor(&engine, "loopback round trip")?));
    targets.push(target(what.into(), Side::AtMost, 1.25, " ×", seen));
    let floors = groups(rows, "floor");
    let together = "fdatasync, three processes at once";
    let seen = one.and_then(|one| over_floor(one, floor(&floors, together)?, floor(&floors, "loopback round trip")?));
    let what = "The same, three nodes' fdatasyncs sharing the disk";
    let seen = seen.map_or("–".into(), |(_, text)| text);
    targets.push(Target {
        what: what.into(),
        wanted: "–".into(),
        seen,
        verdict: "no target: what the disk allows".into(),
    });
}

fn over_floor(one: &Group, sync: &Group, trip: &Group) -> Option<(f64, String)> {
    let p50 = |group: &Group| group.spread(|row| row.p50_us);
    let (one, sync, trip) = (p50(one)?, p50(sync)?, p50(trip)?);
    let ratio = one.median / (sync.median + trip.median);
    let text = format!("{ratio:.2} × ({:.0} µs; {:.0} µs + {:.0} µs)", one.median, sync.median, trip.median);
    Some((ratio, text))
}

fn through_clojure(rows: &[Row], targets: &mut Vec<Target>) {
    let what = "Through Clojure ÷ engine alone, byte arrays, every N";
    let seen = least(rows, "clojure", (CLOJURE, "bytes"), (ENGINE, ""), 1);
    targets.push(target(what.into(), Side::AtLeast, 0.9, " ×", seen));
}

fn pauses(rows: &[Row], targets: &mut Vec<Target>) {
    let figure = |variant: &str, name: &str| {
        let groups = groups(rows, "pauses");
        let all = groups.iter().filter(|group| group.head().variant == variant);
        Spread::of(all.filter_map(|group| group.spread(|row| row.extra(name))).map(|spread| spread.most))
            .map(|spread| spread.most)
    };
    for variant in ["state in the JVM", "state in the engine"] {
        let seen = figure(variant, "elections").map(|seen| (seen, seen.to_string()));
        targets.push(target(format!("Elections during full collections, {variant}"), Side::AtMost, 0.0, "", seen));
        let seen = figure(variant, "gap_p99_ms").map(|seen| (seen, format!("{seen:.1} ms")));
        targets.push(target(format!("Heartbeat gaps meanwhile, p99, {variant}"), Side::AtMost, 100.0, " ms", seen));
    }
}

fn recovery(rows: &[Row], targets: &mut Vec<Target>) {
    let groups = groups(rows, "recovery");
    let seconds = |group: &Group| {
        let seen = group.spread(|row| row.seconds)?;
        Some((seen.median, format!("{:.2} s ({:.2}–{:.2})", seen.median, seen.least, seen.most)))
    };
    let restarts: Vec<&Group> =
        groups.iter().filter(|group| group.head().extra("commands") == Some(RESTARTED)).collect();
    if restarts.is_empty() {
        targets.push(target("Restart with 1,000,000 entries".into(), Side::AtMost, 2.0, " s", None));
    }
    for group in restarts {
        let what = format!("1,000,000 entries: {}", group.head().variant);
        targets.push(target(what, Side::AtMost, 2.0, " s", seconds(group)));
    }
    let killed = groups.iter().find(|group| group.head().variant == "leader killed, next write").and_then(seconds);
    targets.push(target("Leader killed → next write acknowledged".into(), Side::AtMost, 1.0, " s", killed));
}

/// Resident memory of the largest node; of rows whose whole sense it is that something stands still, whatever their number.
fn growth(rows: &[Row], targets: &mut Vec<Target>) {
    let groups = groups(rows, "growth");
    let most = |variant: &str| {
        let group = groups.iter().find(|group| group.head().variant == variant)?;
        let seen = group.spread(|row| row.extra("memory_mib"))?;
        Some((seen.most, format!("{:.0} MiB", seen.most)))
    };
    for variant in [
        "1000000 keys",
        "log in fast motion",
        "follower stopped",
        "host of a follower stuck",
        "host of the leader stuck",
    ] {
        let what = format!("Memory of a node, {variant}");
        targets.push(target(what, Side::AtMost, NODE_MIB, " MiB", most(variant)));
    }
}
