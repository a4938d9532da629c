//! A seed is a run: the same events, byte for byte, each time.

#![allow(clippy::unwrap_used)]

use quorate_simulation::plan::{Focus, Plan};
use quorate_simulation::runner;

fn log(plan: &Plan, name: &str) -> String {
    let base = runner::base();
    let report = runner::run_one(plan, &base, name).unwrap();
    // The directory is part of what a node says when it refuses; it is the same here.
    report.log
}

/// Where they differ first, for whoever has to find out why.
fn first_difference(one: &str, other: &str) -> String {
    let pair = one.lines().zip(other.lines()).find(|(one, other)| one != other);
    format!("{pair:?} ({} and {} lines)", one.lines().count(), other.lines().count())
}

#[test]
fn the_same_seed_gives_the_same_events_byte_for_byte() {
    let focused = Focus::ALL.iter().map(|focus| Plan::focused(7, *focus));
    let hosted = (1..).map(Plan::new).filter(|plan| plan.hosting.is_some()).take(3);
    let plans: Vec<Plan> = (1..=6).map(Plan::new).chain(focused).chain(hosted).collect();
    let mut logs = Vec::new();
    for plan in &plans {
        let first = log(plan, "same");
        // On another thread too: nothing may depend on where a seed is run.
        let again = std::thread::scope(|scope| scope.spawn(|| log(plan, "same")).join().unwrap());
        assert!(first == again, "seed {}: {}", plan.seed, first_difference(&first, &again));
        assert!(first.lines().count() > 50, "seed {} did next to nothing:\n{first}", plan.seed);
        logs.push(first);
    }
    logs.sort();
    logs.dedup();
    assert_eq!(logs.len(), plans.len(), "different plans, the same events");
}
