//! Damage: files of a closed node are cut, flipped, overwritten or removed, and the node is started.
//!
//! It must heal and give every value, or refuse with a sentence, within a bound: never a wrong value, a hole, a panic or a
//! standstill. The writes of the prepared node were made one after the other, so its state after each is known. One
//! thing cannot be told from a torn write: the newest log file losing its end. Then an older state is accepted,
//! if it is exactly the one after some write. In a cluster it is not: the others have what is missing.

mod wound;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use quorate_engine::Failure;
use quorate_engine::offline::Offline;

use crate::cluster::{Cluster, REJOIN, Tuning, eventually, scan, wait_for_vote, wait_for_writes};
use crate::ledger::{value, whole};
use crate::process::{Answer, Process, problem};
use crate::rng::Rng;
use crate::workdir::WorkDir;
use wound::{Wound, copy, hurt};

/// How long a damaged node may take to heal or to refuse.
const BOUND: Duration = Duration::from_secs(25);
/// Keys of the prepared node.
const KEYS: u64 = 40;
/// Writes of the prepared node: enough for several log files and snapshots.
const WRITES: u64 = 1_500;
/// Writes that a healed node must take.
const FURTHER: u64 = 5;
/// Prefix of its keys.
const PREFIX: &str = "d/";

/// What a run is told.
pub struct Plan {
    /// The `crash-node` program.
    pub program: PathBuf,
    /// Where data and logs go.
    pub base: PathBuf,
    /// Damages to a single node.
    pub alone: u64,
    /// Damages to one of three.
    pub among_three: u64,
    /// Where the random numbers begin.
    pub seed: u64,
    /// Ends the run early.
    pub stop: Arc<AtomicBool>,
}

/// What became of the damaged nodes.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// It had everything, by kind of file and damage.
    pub healed: BTreeMap<String, u64>,
    /// It had everything up to some write: the end of the newest log file was damaged.
    pub shortened: u64,
    /// It refused, by kind of file and damage.
    pub refused: BTreeMap<String, u64>,
    /// Refusals that did not say which file, in their words.
    pub unnamed: BTreeSet<String>,
    /// What must not be, in sentences.
    pub wrong: Vec<String>,
}

impl Report {
    /// What healed and what was refused, by kind.
    pub fn kinds(&self) -> String {
        let list = |counts: &BTreeMap<String, u64>| {
            counts.iter().map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
        };
        format!("healed: {}\nrefused: {}", list(&self.healed), list(&self.refused))
    }

    /// How many damages were done.
    pub fn trials(&self) -> u64 {
        let known = self.healed.values().chain(self.refused.values()).sum::<u64>();
        known + self.shortened + self.wrong.len() as u64
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let healed: u64 = self.healed.values().sum();
        let refused: u64 = self.refused.values().sum();
        write!(f, "{} damages: {healed} healed, {} shortened, {refused} refused, ", self.trials(), self.shortened)?;
        write!(f, "{} wrong", self.wrong.len())
    }
}

enum Fate {
    Refused(String),
    Serves(Vec<(String, String)>),
    Wrong(String),
}

/// Runs `plan`, printing progress with `say`. Fails when the machinery itself does.
pub fn run(plan: &Plan, say: &dyn Fn(String)) -> Result<Report, Failure> {
    let work = WorkDir::new(&plan.base)?;
    let mut report = Report::default();
    let rng = Rng::new(plan.seed);
    let ran = alone(plan, work.path(), &rng.split(1), &mut report, say)
        .and_then(|()| among_three(plan, work.path(), &rng.split(2), &mut report, say));
    if let Err(failure) = ran {
        work.keep();
        return Err(Failure::internal(format!("{failure} See {}.", work.path().display())));
    }
    if !report.wrong.is_empty() {
        work.keep();
        report.wrong.iter().take(20).for_each(|sentence| say(format!("seed {}: {sentence}", plan.seed)));
    }
    report.unnamed.iter().for_each(|sentence| say(format!("refused without the file's name: {sentence}")));
    Ok(report)
}

fn tuning() -> Tuning {
    Tuning { snapshot: 300, keep: 60, log_bytes: 1 << 20, ..Tuning::default() }
}

fn key(number: u64) -> String {
    format!("{PREFIX}{:02}", number % KEYS)
}

/// Writes the numbers from `from` on, up to and with `to`, one after the other. Fails when one is not acknowledged.
fn write(process: &Process, from: u64, to: u64) -> Result<(), Failure> {
    for number in from..=to {
        let (key, bytes) = (key(number), 100 + number % 1_500);
        let limit = Instant::now() + BOUND;
        // Repeating the same write changes nothing.
        while !matches!(process.call(&format!("put {key} {}", value(&key, number, bytes)), BOUND), Answer::Ok(_)) {
            if Instant::now() > limit || process.said().ended {
                return Err(Failure::internal(format!("Write {number} is not acknowledged.")));
            }
        }
    }
    Ok(())
}

/// The last write that `entries` has, when it is exactly the state after that write.
fn state_after(entries: &[(String, String)]) -> Option<u64> {
    let mut numbers = BTreeSet::new();
    for (key, value) in entries {
        numbers.insert(whole(key, value)?);
    }
    let last = numbers.last().copied().unwrap_or(0);
    let expected: BTreeSet<u64> = (last.saturating_sub(KEYS - 1).max(1)..=last).collect();
    (numbers == expected && entries.len() == numbers.len()).then_some(last)
}

fn alone(plan: &Plan, dir: &Path, rng: &Rng, report: &mut Report, say: &dyn Fn(String)) -> Result<(), Failure> {
    let masters = [prepare(plan, dir, "closed", true)?, prepare(plan, dir, "killed", false)?];
    let data = dir.join("alone");
    for trial in 0..plan.alone {
        if plan.stop.load(Ordering::Relaxed) {
            break;
        }
        let mut rng = rng.split(trial);
        copy(&masters[(trial % 2) as usize], &data).map_err(|error| Failure::io("Copying a directory", &error))?;
        let wound = hurt(&data, &mut rng).map_err(|error| Failure::io("Damaging a file", &error))?;
        let sound = verify(&data)?;
        let mut cluster = Cluster::new(&plan.program, &["s"], std::slice::from_ref(&data), dir, tuning())?;
        let fate = start(&mut cluster, 0)?;
        let (wrong, serves) = (report.wrong.len(), fate.last());
        if sound && let Fate::Refused(why) = &fate {
            report.wrong.push(format!("{}: `quorate verify` finds no fault, and it refuses: {why}", wound.kind()));
        }
        report.judge(&wound, fate, WRITES, wound.newest_log);
        if let Some(last) = serves {
            report.works(&wound, cluster.process(0)?.as_ref(), last);
        }
        if report.wrong.len() > wrong {
            keep_evidence(&data, &dir.join(format!("wrong-{trial}")));
        }
        drop(cluster);
        if trial % 50 == 49 {
            say(format!("alone: {report}"));
        }
    }
    Ok(())
}

/// Whether an offline check finds the directory sound: then a node must start on it.
fn verify(data: &Path) -> Result<bool, Failure> {
    let scratch = tempfile::tempdir().map_err(|error| Failure::io("Making a temporary directory", &error))?;
    let parts = Offline::open(data)?.verify(scratch.path());
    Ok(parts.iter().all(|part| part.found.is_ok()))
}

/// The damaged and tried directory, for a person.
fn keep_evidence(data: &Path, to: &Path) {
    if let Err(error) = copy(data, to) {
        eprintln!("{} could not be kept: {error}", data.display());
    }
}

/// A directory with all writes in it, of a node that was closed or killed.
fn prepare(plan: &Plan, dir: &Path, name: &str, close: bool) -> Result<PathBuf, Failure> {
    let data = dir.join(name);
    let mut cluster = Cluster::new(&plan.program, &["s"], std::slice::from_ref(&data), dir, tuning())?;
    cluster.start(&[0])?;
    let process = cluster.process(0)?;
    wait_for_writes(&process, BOUND)?;
    write(&process, 1, WRITES)?;
    if close && process.end() != Some(0) {
        return Err(Failure::internal("The node did not end well."));
    }
    cluster.kill(0);
    Ok(data)
}

fn among_three(plan: &Plan, dir: &Path, rng: &Rng, report: &mut Report, say: &dyn Fn(String)) -> Result<(), Failure> {
    let names = ["a", "b", "c"];
    let dirs: Vec<PathBuf> = names.iter().map(|name| dir.join(name)).collect();
    let mut cluster = Cluster::new(&plan.program, &names, &dirs, dir, tuning())?;
    if plan.among_three == 0 {
        return Ok(());
    }
    cluster.start(&[0, 1, 2])?;
    let mut written = 600;
    for at in 0..names.len() {
        wait_for_writes(cluster.process(at)?.as_ref(), BOUND)?;
    }
    write(cluster.process(0)?.as_ref(), 1, written)?;
    for trial in 0..plan.among_three {
        if plan.stop.load(Ordering::Relaxed) {
            break;
        }
        let mut rng = rng.split(trial);
        let at = rng.below(names.len() as u64) as usize;
        let other = cluster.process((at + 1) % names.len())?;
        if rng.chance(50) {
            cluster.process(at)?.end();
        }
        cluster.kill(at);
        let wound = hurt(&dirs[at], &mut rng).map_err(|error| Failure::io("Damaging a file", &error))?;
        write(&other, written + 1, written + 20).map_err(|failure| {
            let status = other.call("status", BOUND);
            Failure::internal(format!("{} of {}: {failure} {status:?}", wound.what, wound.file.display()))
        })?;
        written += 20;
        let place = format!("trial {trial}, {}: {} of {}", names[at], wound.what, wound.file.display());
        let fate = start(&mut cluster, at)?;
        let (refused, serves) = (matches!(fate, Fate::Refused(_)), fate.last());
        report.judge(&wound, fate, written, false);
        if let Some(last) = serves {
            report.works(&wound, cluster.process(at)?.as_ref(), last);
            written += FURTHER;
        }
        if refused {
            cluster.kill(at);
            fs::remove_dir_all(&dirs[at]).map_err(|error| Failure::io("Wiping a node", &error))?;
            cluster.start(&[at])?;
        }
        let process = cluster.process(at)?;
        let usable = wait_for_writes(&process, BOUND).and_then(|()| wait_for_vote(&process, REJOIN));
        usable.map_err(|failure| Failure::internal(format!("After {place}: {failure}")))?;
        if !report.wrong.is_empty() {
            break;
        }
        if trial % 10 == 9 {
            say(format!("among three: {report}"));
        }
    }
    Ok(())
}

/// Starts the node and waits until it serves, refuses, or does neither for too long.
fn start(cluster: &mut Cluster, at: usize) -> Result<Fate, Failure> {
    let process = cluster.spawn(at)?;
    let mut fate = None;
    let decided = eventually(BOUND, || {
        let said = process.said();
        fate = match said.started {
            Some(Err(refusal)) => Some(Fate::Refused(refusal)),
            Some(Ok(())) if !said.ended => serves_or_says_why(&process),
            _ if said.ended => Some(Fate::Wrong("The process ended by itself.".into())),
            _ => None,
        };
        fate.is_some()
    });
    let late =
        || Fate::Wrong(format!("It neither serves nor refuses in {BOUND:?}: {:?}", process.call("status", BOUND)));
    Ok(if decided { fate.unwrap_or_else(late) } else { late() })
}

fn serves_or_says_why(process: &Process) -> Option<Fate> {
    let problem = match process.call("status", BOUND) {
        Answer::Ok(status) => problem(&status).map(str::to_string),
        _ => None,
    };
    if let Some(problem) = problem {
        return Some(Fate::Refused(problem));
    }
    scan(process, "scan", PREFIX).ok().map(Fate::Serves)
}

impl Fate {
    /// The write whose state is served, if it is one.
    fn last(&self) -> Option<u64> {
        match self {
            Fate::Serves(entries) => state_after(entries),
            _ => None,
        }
    }
}

impl Report {
    /// A node that serves must also take writes, each once and for good.
    fn works(&mut self, wound: &Wound, process: &Process, last: u64) {
        let wrote = write(process, last + 1, last + FURTHER).and_then(|()| scan(process, "scan", PREFIX));
        let after = wrote.map(|entries| state_after(&entries));
        if after != Ok(Some(last + FURTHER)) {
            let (kind, file) = (wound.kind(), wound.file.display());
            self.wrong.push(format!("{kind} ({file}): after {FURTHER} writes on top of {last} it has {after:?}."));
        }
    }

    fn judge(&mut self, wound: &Wound, fate: Fate, written: u64, may_be_shorter: bool) {
        let named = wound.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match fate {
            Fate::Refused(sentence) => {
                if !sentence.contains(&named) {
                    self.unnamed.insert(format!("{}: {sentence}", wound.kind()));
                }
                *self.refused.entry(wound.kind()).or_default() += 1;
            }
            Fate::Wrong(sentence) => {
                self.wrong.push(format!("{} ({}): {sentence}", wound.kind(), wound.file.display()))
            }
            Fate::Serves(entries) => match state_after(&entries) {
                Some(last) if last == written => *self.healed.entry(wound.kind()).or_default() += 1,
                Some(last) if may_be_shorter && last < written => self.shortened += 1,
                other => self.wrong.push(format!(
                    "{} ({}): it serves the state after write {other:?} of {written}.",
                    wound.kind(),
                    wound.file.display()
                )),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_state_after_some_write_is_a_state() {
        let state = |numbers: std::ops::RangeInclusive<u64>| {
            let entry = |number| (key(number), value(&key(number), number, 64));
            numbers.map(entry).collect::<Vec<_>>()
        };
        assert_eq!(state_after(&state(1..=7)), Some(7));
        assert_eq!(state_after(&state(61..=100)), Some(100));
        assert_eq!(state_after(&state(62..=100)), None, "a key is missing");
        let mut hole = state(61..=100);
        hole[5].1 = value(&hole[5].0, 26, 64);
        assert_eq!(state_after(&hole), None, "an old value in the middle");
        let mut broken = state(61..=100);
        broken[0].1.pop();
        assert_eq!(state_after(&broken), None, "a value that nobody wrote");
    }
}
