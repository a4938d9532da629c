//! The part `recovery`: how long until a node that was away, is new, or must take over does its work. Measured from before the
//! process is started until it answers a linearizable barrier, having applied all that was committed before.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quorate_engine::Failure;

use super::{ENGINE, KIB, MIB};
use crate::ask::Question;
use crate::cluster::{Cluster, NAMES, Plan, SLACK};
use crate::disk;
use crate::options::{MachineName, Part, Tuning};
use crate::row::{Row, Sink};

/// Bytes of a command.
const BYTES: usize = 128;
/// Commands in flight while there is something to recover from being made.
const WRITERS: usize = 256;
/// Bytes of a value, and puts in flight, for a large state.
const LARGE_BYTES: usize = 16 * KIB;
const LARGE_WRITERS: usize = 64;
/// How long filling, and recovering, may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long commands are written while the leader dies, and when it is killed.
const OUTAGE_SECONDS: u64 = 4;
const KILLED_AFTER: Duration = Duration::from_millis(800);

/// Log kept whole: what is missed comes from the log.
const WHOLE_LOG: Tuning =
    Tuning { no_snapshots: true, snapshot_commands: None, log_keep_entries: None, log_bytes: Some(1 << 30) };
/// As little log as may be: what is missed comes as a snapshot.
const SHORT_LOG: Tuning =
    Tuning { no_snapshots: false, snapshot_commands: Some(10_000), log_keep_entries: Some(0), log_bytes: None };

/// Measures every kind of recovery that is wanted. Fails when a node or a command fails, or is not ready in time.
pub fn run(part: &Part, sink: &mut Sink) -> Result<(), Failure> {
    let entries = part.of(100_000, 1_000_000, 1_000_000);
    let (counter, kv) = (MachineName::Counter, MachineName::Kv);
    restart(part, sink, "restart, log only", (counter, WHOLE_LOG), entries)?;
    restart(part, sink, "restart, snapshot", (counter, Tuning::default()), entries)?;
    restart(part, sink, "restart, key-value store", (kv, Tuning::default()), entries)?;
    let missed = part.of(20_000, 100_000, 100_000);
    lagging(part, sink, "follower that missed entries, by log", WHOLE_LOG, missed)?;
    lagging(part, sink, "follower that missed entries, by snapshot", SHORT_LOG, missed)?;
    newcomer(part, sink)?;
    leader_killed(part, sink)
}

/// A follower restarts in a cluster that lives; then all three at once.
fn restart(
    part: &Part,
    sink: &mut Sink,
    variant: &str,
    (machine, tuning): (MachineName, Tuning),
    entries: u64,
) -> Result<(), Failure> {
    if !part.wants(variant) {
        return Ok(());
    }
    let dir = disk::temporary(&part.dir)?;
    let mut cluster = Cluster::start(Plan { machine, tuning, ..Plan::default() }, dir.path(), &NAMES)?;
    fill(&mut cluster, (0, entries), BYTES, WRITERS)?;
    let facts = cluster.settle()?;
    let raft_entries: u64 = facts[0].number("entries")?;
    let row = |what: &str, round: usize, time: Duration| {
        let row = Row::new(ENGINE, &format!("{variant}, {what}")).bytes(BYTES).round(round);
        row.seconds(time.as_secs_f64()).more("commands", entries).more("raft_entries", raft_entries)
    };
    for round in part.rounds(3) {
        cluster.close(NAMES[2])?;
        let time = cluster.time_to_ready(NAMES[2], &NAMES, PATIENCE)?;
        sink.write(row("one of three", round, time))?;
        for name in NAMES {
            cluster.close(name)?;
        }
        let began = Instant::now();
        NAMES.iter().try_for_each(|name| cluster.spawn(name, &NAMES))?;
        cluster.ready(NAMES[0], PATIENCE)?;
        sink.write(row("all three", round, began.elapsed()))?;
        for name in &NAMES[1..] {
            cluster.ready(name, PATIENCE)?;
        }
    }
    cluster.end().map(drop)
}

/// A follower is killed, misses entries, and comes back.
fn lagging(part: &Part, sink: &mut Sink, variant: &str, tuning: Tuning, missed: u64) -> Result<(), Failure> {
    if !part.wants(variant) {
        return Ok(());
    }
    let dir = disk::temporary(&part.dir)?;
    let plan = Plan { machine: MachineName::Counter, tuning, ..Plan::default() };
    let mut cluster = Cluster::start(plan, dir.path(), &NAMES)?;
    for round in part.rounds(3) {
        cluster.lead()?;
        cluster.kill(NAMES[2])?;
        fill(&mut cluster, (0, missed), BYTES, WRITERS)?;
        let time = cluster.time_to_ready(NAMES[2], &NAMES, PATIENCE)?;
        let row = Row::new(ENGINE, variant).bytes(BYTES).round(round).seconds(time.as_secs_f64());
        sink.write(row.more("missed", missed))?;
    }
    cluster.end().map(drop)
}

/// A node joins whose state must come from another first.
fn newcomer(part: &Part, sink: &mut Sink) -> Result<(), Failure> {
    let variant = "new node, large state";
    if !part.wants(variant) {
        return Ok(());
    }
    let (dir, state) = (disk::temporary(&part.dir)?, part.of(64 * MIB, 1024 * MIB, 1024 * MIB));
    let plan = Plan { machine: MachineName::Kv, ..Plan::default() };
    // One node has the state; that the others are still to come costs nothing here.
    let mut cluster = Cluster::start(plan, dir.path(), &NAMES[..1])?;
    fill(&mut cluster, (0, state / LARGE_BYTES as u64), LARGE_BYTES, LARGE_WRITERS)?;
    let time = cluster.time_to_ready(NAMES[1], &NAMES[..2], PATIENCE)?;
    let row = Row::new(ENGINE, variant).bytes(LARGE_BYTES).round(1).seconds(time.as_secs_f64());
    let rate = state as f64 / MIB as f64 / time.as_secs_f64();
    sink.write(row.more("state_mib", state / MIB).more("mib_per_s", rate.round()))?;
    cluster.end().map(drop)
}

/// The leader is killed while another node writes: from the kill to that node's next acknowledged write.
fn leader_killed(part: &Part, sink: &mut Sink) -> Result<(), Failure> {
    let variant = "leader killed, next write";
    if !part.wants(variant) {
        return Ok(());
    }
    let dir = disk::temporary(&part.dir)?;
    let mut cluster = Cluster::start(Plan::default(), dir.path(), &NAMES)?;
    for round in part.rounds(5) {
        cluster.lead()?;
        cluster.begin(NAMES[1], Question::Outage(OUTAGE_SECONDS))?;
        std::thread::sleep(KILLED_AFTER);
        let killed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
        cluster.kill(NAMES[0])?;
        let answer = cluster.finish(NAMES[1], Duration::from_secs(OUTAGE_SECONDS) + SLACK)?;
        let (gap, ended): (u64, u64) = (answer.number("gap_us")?, answer.number("ended_us")?);
        if ended < killed {
            let message = "The longest wait for a write was over before the leader was killed: nothing was measured.";
            return Err(Failure::internal(message));
        }
        let row = Row::new(ENGINE, variant).bytes(BYTES).round(round).seconds((ended - killed) as f64 / 1e6);
        sink.write(row.more("longest_gap_s", gap as f64 / 1e6))?;
        cluster.spawn(NAMES[0], &NAMES)?;
        cluster.ready(NAMES[0], PATIENCE)?;
    }
    cluster.end().map(drop)
}

/// Writes commands on the first process, which leads.
fn fill(cluster: &mut Cluster, range: (u64, u64), bytes: usize, writers: usize) -> Result<(), Failure> {
    cluster.ask(NAMES[0], Question::Lead, SLACK)?;
    cluster.ask(NAMES[0], Question::Fill(range.0, range.1, bytes, writers), PATIENCE).map(drop)
}
