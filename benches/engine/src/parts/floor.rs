//! The part `floor`: what no system can beat on this machine.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use quorate_engine::Failure;

use super::{KIB, MACHINE};
use crate::ask::Answer;
use crate::disk;
use crate::floor::{copies, round_trips, syncs, takes_direct};
use crate::latency::Latency;
use crate::options::Part;
use crate::row::{Row, Sink, rounded};

/// Bytes that are synced at once: entries of the sizes that the engine is measured with, and batches of 128-byte entries.
const SYNCED: [(&str, usize, bool); 7] = [
    ("fdatasync", 128, false),
    ("fdatasync", KIB, false),
    ("fdatasync", 16 * KIB, false),
    ("fdatasync of a batch", 256 * 128, false),
    ("fdatasync of a batch", 1024 * 128, false),
    ("fdatasync past the page cache", 128, true),
    ("fdatasync of a batch past the page cache", 256 * 128, true),
];
/// The same in several processes at once.
const TOGETHER: [(&str, usize, bool); 3] = [
    ("fdatasync, three processes at once", 128, false),
    ("fdatasync of a batch, three processes at once", 256 * 128, false),
    ("fdatasync of a batch past the page cache, three processes at once", 256 * 128, true),
];
/// Bytes that go there and back.
const SENT: [usize; 3] = [128, KIB, 16 * KIB];
/// Blocks that are copied: one that stays in a core's own cache, and one that does not.
const COPIED: [usize; 2] = [16 * KIB, 64 << 20];
/// Processes that sync at once, as three nodes on one disk do.
const PROCESSES: usize = 3;

/// Measures every floor, in rounds. Fails with `Io`.
pub fn run(part: &Part, sink: &mut Sink) -> Result<(), Failure> {
    let seconds = part.of(1, 2, 5);
    let time = Duration::from_secs(seconds);
    let possible = takes_direct(&part.dir)?;
    let wanted = |variant: &str, direct: bool| (possible || !direct) && part.wants(variant);
    for round in part.rounds(3) {
        let row = |variant: &str, bytes| Row::new(MACHINE, variant).bytes(bytes).round(round).seconds(seconds as f64);
        for (variant, bytes, direct) in SYNCED.into_iter().filter(|(variant, _, direct)| wanted(variant, *direct)) {
            sink.write(row(variant, bytes).latency(&syncs(&part.dir, bytes, time, direct)?))?;
        }
        for (variant, bytes, direct) in TOGETHER.into_iter().filter(|(variant, _, direct)| wanted(variant, *direct)) {
            for latency in syncs_together(&part.dir, bytes, seconds, direct)? {
                sink.write(row(variant, bytes).latency(&latency))?;
            }
        }
        for bytes in SENT.into_iter().filter(|_| part.wants("loopback round trip")) {
            sink.write(row("loopback round trip", bytes).latency(&round_trips(bytes, time)?))?;
        }
        for bytes in COPIED.into_iter().filter(|_| part.wants("memcpy")) {
            let gigabytes = copies(bytes, time / 4) / 1e9;
            sink.write(row("memcpy", bytes).seconds(seconds as f64 / 4.0).more("gb_per_s", rounded(gigabytes, 10.0)))?;
        }
    }
    Ok(())
}

/// Syncs files in several processes at the same time; the latency in each.
fn syncs_together(dir: &Path, bytes: usize, seconds: u64, direct: bool) -> Result<Vec<Latency>, Failure> {
    let failed = |error: std::io::Error| Failure::io("Syncing in several processes", &error);
    let dir = disk::temporary(dir)?;
    let program = std::env::current_exe().map_err(failed)?;
    let mut running = Vec::new();
    for _ in 0..PROCESSES {
        let mut command = Command::new(&program);
        command.args(["syncs", "--bytes", &bytes.to_string(), "--seconds", &seconds.to_string(), "--dir"]);
        command.arg(dir.path()).args(direct.then_some("--direct"));
        running.push(command.stdout(Stdio::piped()).spawn().map_err(failed)?);
    }
    // All are waited for, whatever one of them says: none is left behind.
    let ended: Vec<_> = running.into_iter().map(std::process::Child::wait_with_output).collect();
    let read = |output: std::io::Result<std::process::Output>| {
        Latency::read(&Answer::read(String::from_utf8_lossy(&output.map_err(failed)?.stdout).trim())?)
    };
    ended.into_iter().map(read).collect()
}
