//! Of the part `growth`: what others cost that stand still. A follower is stopped (SIGSTOP) under full load, or the host of one
//! node's state machine never acknowledges anything; no process may grow with what the others go on to write.

use std::time::{Duration, Instant};

use quorate_engine::Failure;

use super::growth::{LOOK, Sample, grown, timeline};
use super::{ENGINE, KIB, MIB};
use crate::ask::Question;
use crate::cluster::{Cluster, NAMES, Plan, SLACK};
use crate::disk;
use crate::load::WARM_UP;
use crate::options::Part;
use crate::row::{Row, Sink, rounded};

/// Bytes of a command, and commands in flight.
const BYTES: usize = KIB;
const WRITERS: usize = 1024;
/// How long a stopped follower may take until it has what it missed.
const CATCH_UP: Duration = Duration::from_secs(60);
/// What the row of a stopped follower is called.
const STOPPED: &str = "follower stopped";

/// Whose host never acknowledges, and on which node the load is: on one whose own machine works.
const STUCK: [(&str, &str, &str); 2] =
    [("host of a follower stuck", NAMES[2], NAMES[0]), ("host of the leader stuck", NAMES[0], NAMES[1])];

/// Measures what is wanted. Fails when a node or a command fails, or when the memory of any node grows all along.
pub fn run(part: &Part, sink: &mut Sink) -> Result<(), Failure> {
    if part.wants(STOPPED) {
        stopped(part, sink)?;
    }
    STUCK.into_iter().filter(|(variant, ..)| part.wants(variant)).try_for_each(|one| stuck(part, sink, one))
}

fn stopped(part: &Part, sink: &mut Sink) -> Result<(), Failure> {
    let dir = disk::temporary(&part.dir)?;
    let mut cluster = Cluster::start(Plan::default(), dir.path(), &NAMES)?;
    cluster.lead()?;
    let seconds = part.of(4, 30, 120);
    cluster.begin(NAMES[0], Question::Load(WRITERS, seconds, BYTES))?;
    // Its connections are open and full when it stops.
    std::thread::sleep(WARM_UP);
    cluster.signal(NAMES[2], "STOP")?;
    let samples = watch(&cluster, Duration::from_secs(seconds));
    cluster.signal(NAMES[2], "CONT")?;
    let began = Instant::now();
    let answer = cluster.finish(NAMES[0], SLACK)?;
    cluster.ready(NAMES[2], CATCH_UP)?;
    let row = row(STOPPED, answer.number("ops")?, answer.number("seconds")?, &samples);
    sink.write(row.more("caught_up_s", rounded(began.elapsed().as_secs_f64(), 1e3)))?;
    bounded(cluster, &samples)
}

fn stuck(part: &Part, sink: &mut Sink, (variant, who, load): (&str, &'static str, &str)) -> Result<(), Failure> {
    let dir = disk::temporary(&part.dir)?;
    let mut cluster = Cluster::start(Plan { stuck: Some(who), ..Plan::default() }, dir.path(), &NAMES)?;
    cluster.lead()?;
    // Less than the minute after which a leader whose host is stuck hands its office over.
    let seconds = part.of(4, 20, 40);
    cluster.begin(load, Question::Load(WRITERS, seconds, BYTES))?;
    let samples = watch(&cluster, Duration::from_secs(seconds) + WARM_UP);
    let answer = cluster.finish(load, SLACK)?;
    sink.write(row(variant, answer.number("ops")?, answer.number("seconds")?, &samples))?;
    bounded(cluster, &samples)
}

fn watch(cluster: &Cluster, time: Duration) -> Vec<Sample> {
    let (began, mut samples) = (Instant::now(), Vec::new());
    while began.elapsed() < time {
        samples.push(Sample { at: began.elapsed().as_secs_f64(), memory: cluster.memory(), disk: cluster.disk() });
        std::thread::sleep(LOOK);
    }
    samples
}

fn told(samples: &[Sample]) -> Option<String> {
    grown("memory", samples, |sample| &sample.memory)
}

fn row(variant: &str, ops: u64, seconds: f64, samples: &[Sample]) -> Row {
    let most = samples.iter().flat_map(|sample| &sample.memory).max().map_or(0, |bytes| bytes / MIB);
    let row = Row::new(ENGINE, variant).n(WRITERS).bytes(BYTES).round(1).rate(ops, seconds).more("memory_mib", most);
    row.more("bounded", told(samples).is_none()).more("timeline", timeline(samples))
}

fn bounded(cluster: Cluster, samples: &[Sample]) -> Result<(), Failure> {
    cluster.end()?;
    told(samples).map_or(Ok(()), |sentence| Err(Failure::internal(sentence)))
}
