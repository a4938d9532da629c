//! The part `reads`: one key of the key-value store, by how fresh the answer must be and where it is asked for.

use std::time::Duration;

use quorate_engine::Failure;
use quorate_engine::session::Consistency;

use super::{ENGINE, rotated};
use crate::ask::{Freshness, Question};
use crate::cluster::{Cluster, NAMES, Plan, SLACK};
use crate::disk;
use crate::latency::Latency;
use crate::load::{KEYS, WARM_UP};
use crate::options::{MachineName, Part};
use crate::row::{Row, Sink};

const VALUE_BYTES: usize = 128;
/// Reads in flight.
const IN_FLIGHT: [usize; 2] = [1, 64];
/// Writers that fill the store before.
const FILLERS: usize = 256;
/// What is read, and on which process: the first leads.
const WAYS: [(&str, Consistency, usize); 4] = [
    ("linearizable, leader", Consistency::Linearizable, 0),
    ("linearizable, follower", Consistency::Linearizable, 1),
    ("lease, leader", Consistency::Lease, 0),
    ("local", Consistency::Local, 1),
];

/// Measures every way in interleaved rounds on one cluster. Fails when a node or a read fails.
pub fn run(part: &Part, sink: &mut Sink) -> Result<(), Failure> {
    let dir = disk::temporary(&part.dir)?;
    let plan = Plan { machine: MachineName::Kv, ..Plan::default() };
    let mut cluster = Cluster::start(plan, dir.path(), &NAMES)?;
    cluster.lead()?;
    cluster.ask(NAMES[0], Question::Fill(0, KEYS as u64, VALUE_BYTES, FILLERS), SLACK)?;
    cluster.settle()?;
    let seconds = part.of(1, 2, 5);
    for round in part.rounds(3) {
        for (variant, consistency, at) in rotated(&WAYS, round).into_iter().filter(|(name, ..)| part.wants(name)) {
            for n in IN_FLIGHT {
                cluster.lead()?;
                let question = Question::Read(Freshness(consistency), n, seconds);
                let answer = cluster.ask(NAMES[at], question, Duration::from_secs(seconds) + WARM_UP + SLACK)?;
                let row = Row::new(ENGINE, variant).n(n).bytes(VALUE_BYTES).round(round);
                let row = row.rate(answer.number("ops")?, answer.number("seconds")?);
                sink.write(row.latency(&Latency::read(&answer)?))?;
            }
        }
    }
    cluster.end().map(drop)
}
