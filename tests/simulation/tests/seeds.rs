//! As many seeds as a minute holds, of those that are known to hold: nothing may be wrong. New ones are for `make sim`.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use quorate_simulation::runner::{self, Order};

/// How long seeds are begun, in s, unless QUORATE_SIMULATION_SECONDS says otherwise.
const SECONDS: u64 = 60;
/// The last seed: on a fast machine too the test runs what was run before.
const LAST: u64 = 400;
/// Fewer seeds than this in that time say that the machine was too busy for the test to mean much; it is no failure.
const FEW: u64 = 20;

#[test]
fn seeds_hold() {
    let seconds = std::env::var("QUORATE_SIMULATION_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let limit = Duration::from_secs(seconds.unwrap_or(SECONDS));
    let order = Order { from: 1, seeds: LAST, threads: 2, limit: Some(limit), go_on: false, print: false };
    let sum = runner::run(order).unwrap();
    sum.print(sum.took);
    sum.print_faults();
    assert!(sum.failed.is_empty(), "{:?}; `simulation seed N --shrink` shows how", sum.failed);
    assert!(sum.seeds > 0 && sum.counts.acknowledged > 0 && sum.faults() > 0);
    if sum.seeds < FEW {
        println!("only {} seeds", sum.seeds);
    }
}
