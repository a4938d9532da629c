//! `simulation run --seeds N [--from S] [--threads T] [--seconds LIMIT] [--go-on]`, `simulation seed N [--log] [--shrink]`,
//! `simulation mutants [--only N] [--seeds MAX] [--seconds LIMIT]`.

use std::process::ExitCode;
use std::time::Duration;
use std::{fs, io};

use quorate_simulation::plan::{Focus, Plan};
use quorate_simulation::runner::{self, Order};
use quorate_simulation::{mutants, shrink, tally};

/// Smaller plans that are tried after a failure.
const TRIES: u64 = 150;
/// Seeds of each focus that are run with nothing planted before defects are hunted.
const CONTROL: u64 = 20;
/// Lines of the event log that are shown.
const TAIL: usize = 60;

const USAGE: &str = "usage: run --seeds N [--from S] [--threads T] [--seconds LIMIT] [--go-on] | seed N [--log] [--shrink] \
                     | mutants [--only N] [--seeds MAX] [--seconds LIMIT]";

fn main() -> ExitCode {
    if let Some(level) = std::env::var("QUORATE_LOG").ok().and_then(|level| level.parse::<tracing::Level>().ok()) {
        tracing_subscriber::fmt().with_max_level(level).without_time().init();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some("run") => run(&arguments),
        Some("seed") => seed(&arguments),
        Some("mutants") => hunt(&arguments),
        _ => Err(io::Error::other(USAGE)),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The number after `name`.
fn number(arguments: &[String], name: &str) -> io::Result<Option<u64>> {
    let Some(at) = arguments.iter().position(|argument| argument == name) else { return Ok(None) };
    let number = arguments.get(at + 1).and_then(|number| number.parse().ok());
    number.map(Some).ok_or_else(|| io::Error::other(format!("{name} needs a number")))
}

fn flag(arguments: &[String], name: &str) -> bool {
    arguments.iter().any(|argument| argument == name)
}

fn run(arguments: &[String]) -> io::Result<bool> {
    let order = Order {
        from: number(arguments, "--from")?.unwrap_or(1),
        seeds: number(arguments, "--seeds")?.unwrap_or(1_000),
        threads: number(arguments, "--threads")?.unwrap_or(2) as usize,
        limit: number(arguments, "--seconds")?.map(Duration::from_secs),
        go_on: flag(arguments, "--go-on"),
        print: true,
    };
    let sum = runner::run(order)?;
    sum.print(sum.took);
    sum.print_faults();
    tally::append("run", order.from, &sum)?;
    if let Some((seed, _)) = sum.failed.first()
        && !order.go_on
    {
        explain(*seed)?;
    }
    Ok(sum.failed.is_empty())
}

/// Shows the smallest plan of `seed` that fails.
fn explain(seed: u64) -> io::Result<()> {
    let (plan, base) = (Plan::new(seed), runner::base());
    let report = runner::run_one(&plan, &base, "again")?;
    if report.violation.is_none() {
        println!("Seed {seed} did not fail again: something in it does not depend on the seed alone.");
        return Ok(());
    }
    let smallest = shrink::shrink(&plan, report, &base, TRIES)?;
    println!("The shortest plan of seed {seed} that still fails ({} tried):\n{}", smallest.tried, smallest.plan);
    print_tail(&smallest.report.log, TAIL);
    println!("As a value: {:?}", smallest.plan);
    println!("The files are in {}.", base.display());
    Ok(())
}

fn print_tail(log: &str, lines: usize) {
    let all: Vec<&str> = log.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().for_each(|line| println!("{line}"));
}

fn seed(arguments: &[String]) -> io::Result<bool> {
    let seed = arguments.get(1).and_then(|seed| seed.parse().ok()).ok_or_else(|| io::Error::other("which seed?"))?;
    let (plan, base) = (Plan::new(seed), runner::base());
    print!("{plan}");
    let report = runner::run_one(&plan, &base, "seed")?;
    if flag(arguments, "--log") {
        print!("{}", report.log);
    }
    if flag(arguments, "--shrink") {
        explain(seed)?;
    }
    let mut sum = runner::Sum::default();
    sum.add(seed, &report);
    sum.print(Duration::from_millis(1));
    match &report.violation {
        Some(violation) => println!("{violation}"),
        None => fs::remove_dir_all(&base)?,
    }
    Ok(report.violation.is_none())
}

/// Hunts planted defects and prints a table. True when all were caught.
fn hunt(arguments: &[String]) -> io::Result<bool> {
    let only = number(arguments, "--only")?;
    let budget = number(arguments, "--seeds")?.unwrap_or(2_000);
    let limit = Duration::from_secs(number(arguments, "--seconds")?.unwrap_or(1_200));
    let threads = number(arguments, "--threads")?.unwrap_or(2) as usize;
    let mut all = true;
    // First that nothing is caught where nothing is planted.
    for focus in Focus::ALL {
        let none = mutants::Mutant { number: 0, name: "nothing", focus };
        if let Some(caught) = mutants::hunt(&none, CONTROL, threads, limit)? {
            println!("Seed {} of {focus:?} fails with nothing planted: {}", caught.seed, caught.violation);
            return Ok(false);
        }
    }
    println!("| defect | caught by | after |\n|---|---|---|");
    for mutant in mutants::ALL.iter().filter(|mutant| only.is_none_or(|only| only == u64::from(mutant.number))) {
        let caught = mutants::hunt(mutant, budget, threads, limit)?;
        all &= caught.is_some();
        match caught {
            Some(caught) => {
                let what: String = caught.violation.chars().take(110).collect();
                println!("| {} {} | {what} | {} seeds |", mutant.number, mutant.name, caught.after);
            }
            None => println!(
                "| {} {} | **not caught** | {budget} seeds, {} s |",
                mutant.number,
                mutant.name,
                limit.as_secs()
            ),
        }
    }
    Ok(all)
}
