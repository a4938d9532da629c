//! The part `engine`: three processes, load in the leader's, sizes and numbers in flight in interleaved rounds.

use std::time::Duration;

use quorate_engine::Failure;

use super::{ENGINE, KIB, MACHINE, rotated};
use crate::cluster::{Cluster, NAMES, Plan};
use crate::disk;
use crate::facts::load_average;
use crate::floor::{round_trips, syncs};
use crate::options::{MachineName, Part};
use crate::row::{Row, Sink, rounded};
use crate::writers::{Run, measure};

/// Commands in flight.
const IN_FLIGHT: [usize; 6] = [1, 16, 64, 256, 1024, 4096];
/// Bytes of a command for the machine that counts.
const SIZES: [usize; 3] = [128, KIB, 16 * KIB];
/// Bytes of a value for the key-value store.
const VALUE_BYTES: usize = 128;
/// Bytes of the floor that one command at a time is compared with.
const FLOOR_BYTES: usize = 128;
/// How long each of the two floors is measured in each round.
const FLOOR_TIME: Duration = Duration::from_millis(700);

/// Measures the machine that counts with every size, and the key-value store with one, on fresh data each round. Fails
/// when a node or a command fails.
pub fn run(part: &Part, sink: &mut Sink) -> Result<(), Failure> {
    let kinds = [(MachineName::Counter, &SIZES[..]), (MachineName::Kv, &[VALUE_BYTES][..])];
    for round in part.rounds(3) {
        floor(part, sink, round)?;
        for (machine, sizes) in kinds {
            let runs = sizes.iter().flat_map(|bytes| rotated(&IN_FLIGHT, round).into_iter().map(|n| (n, *bytes)));
            let wanted = |(n, bytes): &(usize, usize)| part.wants(&format!("{},n={n},{bytes}", machine.text()));
            let runs: Vec<(usize, usize)> = runs.filter(wanted).collect();
            if !runs.is_empty() {
                one_round(part, sink, round, machine, &runs)?;
            }
        }
    }
    Ok(())
}

/// What one command at a time cannot beat, next to it in time: disks have moods.
fn floor(part: &Part, sink: &mut Sink, round: usize) -> Result<(), Failure> {
    let row = |variant| Row::new(MACHINE, variant).bytes(FLOOR_BYTES).round(round).seconds(FLOOR_TIME.as_secs_f64());
    sink.write(row("fdatasync").latency(&syncs(&part.dir, FLOOR_BYTES, FLOOR_TIME, false)?))?;
    sink.write(row("loopback round trip").latency(&round_trips(FLOOR_BYTES, FLOOR_TIME)?))
}

/// Runs of these numbers in flight and sizes, on a cluster of their own.
fn one_round(
    part: &Part,
    sink: &mut Sink,
    round: usize,
    machine: MachineName,
    runs: &[(usize, usize)],
) -> Result<(), Failure> {
    let dir = disk::temporary(&part.dir)?;
    let mut cluster = Cluster::start(Plan { machine, ..Plan::default() }, dir.path(), &NAMES)?;
    for (n, bytes) in runs {
        let run = measure(&mut cluster, *n, part.of(1, 2, 5), *bytes)?;
        sink.write(row(&run, machine.text(), *n, *bytes).round(round))?;
    }
    cluster.end().map(drop)
}

/// The row of a run.
fn row(run: &Run, variant: &str, n: usize, bytes: usize) -> Row {
    let syncs: u64 = run.syncs.iter().map(|(_, syncs)| syncs).sum();
    Row::new(ENGINE, variant)
        .n(n)
        .bytes(bytes)
        .rate(run.ops, run.seconds)
        .latency(&run.latency)
        .more("log_syncs_per_command", rounded(syncs as f64 / run.commands.max(1) as f64, 1e4))
        .more("load_average", load_average())
}
