//! `crash powercut|damage|full|eio|soak|torture [--NAME VALUE]…`: see `tests/README.md`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_crash::options::Options;
use quorate_crash::{damage, disk, eio, full, powercut, soak, torture, workdir};
use quorate_engine::Failure;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match words.first().map(String::as_str) {
        Some("powercut") => powercut_main(&words[1..]),
        Some("torture") => torture_main(&words[1..]),
        Some("soak") => soak_main(&words[1..]),
        Some("full") => full_main(&words[1..]),
        Some("eio") => eio_main(&words[1..]),
        Some("damage") => damage_main(&words[1..]),
        _ => Err(Failure::invalid("Say what: powercut, damage, full, eio, soak or torture.")),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("FAILED: {failure}");
            ExitCode::from(2)
        }
    }
}

/// The program beside this one, the directory for what a run leaves, and the seed: the time unless one is given.
fn common(options: &mut Options) -> Result<(PathBuf, PathBuf, u64), Failure> {
    let me = std::env::current_exe().map_err(|error| Failure::io("Finding this program", &error))?;
    let base = options.text("dir", "target/crash");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seed = options.number("seed", now.as_secs())?;
    println!("seed {seed}");
    Ok((me.with_file_name("crash-node"), PathBuf::from(base), seed))
}

fn powercut_main(words: &[String]) -> Result<bool, Failure> {
    let mut options = Options::read(words)?;
    let (program, base, seed) = common(&mut options)?;
    let (cycles, level) = (options.number("cycles", 100)?, options.number("level", 1)? as u32);
    options.end()?;
    if let Some(why) = disk::missing(level) {
        return Err(Failure::invalid(format!("Power cuts of level {level} are not possible here: {why}.")));
    }
    let (tally, stop) = (base.join("tally.jsonl"), workdir::stop_flag()?);
    let plan = powercut::Plan { program, base, tally, cycles, level, seed, stop };
    let totals = powercut::run(&plan, &|line| println!("{line}"))?;
    println!("{totals}");
    Ok(totals.wrong.is_empty())
}

fn soak_main(words: &[String]) -> Result<bool, Failure> {
    let mut options = Options::read(words)?;
    let (program, base, _) = common(&mut options)?;
    let time = Duration::from_secs(60 * options.number("minutes", 10)?);
    options.end()?;
    let (tally, stop) = (base.join("soak.jsonl"), workdir::stop_flag()?);
    let every = Duration::from_secs(10);
    let report = soak::run(&soak::Plan { program, base, tally, time, every, stop }, &|line| println!("{line}"))?;
    println!("{report}");
    Ok(report.wrong.is_empty())
}

fn full_main(words: &[String]) -> Result<bool, Failure> {
    let mut options = Options::read(words)?;
    let (program, base, seed) = common(&mut options)?;
    let cycles = options.number("cycles", 10)?;
    options.end()?;
    if let Some(why) = disk::missing(1) {
        return Err(Failure::invalid(format!("Disks cannot be filled here: {why}.")));
    }
    let (tally, stop) = (base.join("tally.jsonl"), workdir::stop_flag()?);
    let report = full::run(&full::Plan { program, base, tally, cycles, seed, stop }, &|line| println!("{line}"))?;
    report.said.iter().for_each(|sentence| println!("it said: {sentence}"));
    println!("{report}");
    Ok(report.wrong.is_empty())
}

fn eio_main(words: &[String]) -> Result<bool, Failure> {
    let mut options = Options::read(words)?;
    let (program, base, seed) = common(&mut options)?;
    let cycles = options.number("cycles", 12)?;
    options.end()?;
    if let Some(why) = eio::missing() {
        return Err(Failure::invalid(format!("Disks cannot fail here: {why}.")));
    }
    let (tally, stop) = (base.join("tally.jsonl"), workdir::stop_flag()?);
    let report = eio::run(&eio::Plan { program, base, tally, cycles, seed, stop }, &|line| println!("{line}"))?;
    report.said.iter().for_each(|(place, sentence)| println!("{place:?}: it said: {sentence}"));
    println!("{report}");
    Ok(report.wrong.is_empty())
}

fn torture_main(words: &[String]) -> Result<bool, Failure> {
    let mut options = Options::read(words)?;
    let (program, base, seed) = common(&mut options)?;
    let time = Duration::from_secs(60 * options.number("minutes", 5)?);
    let (clients, keys) = (options.number("clients", torture::CLIENTS)?, options.number("keys", torture::KEYS)?);
    let kills_percent = options.number("kills", 0)?;
    options.end()?;
    let (tally, stop) = (base.join("tally.jsonl"), workdir::stop_flag()?);
    let round = torture::ROUND;
    let plan = torture::Plan { program, base, tally, time, round, clients, keys, kills_percent, seed, stop };
    let report = torture::run(&plan, &|line| println!("{line}"))?;
    println!("{report}");
    Ok(report.wrong.is_empty())
}

fn damage_main(words: &[String]) -> Result<bool, Failure> {
    let mut options = Options::read(words)?;
    let (program, base, seed) = common(&mut options)?;
    let (alone, among_three) = (options.number("alone", 200)?, options.number("among-three", 50)?);
    options.end()?;
    let plan = damage::Plan { program, base, alone, among_three, seed, stop: workdir::stop_flag()? };
    let report = damage::run(&plan, &|line| println!("{line}"))?;
    println!("{}\n{report}", report.kinds());
    Ok(report.wrong.is_empty())
}
