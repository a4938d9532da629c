//! The machinery is tested too: for each defect that can be planted in the engine, seeds until something is caught.

use std::time::Duration;

use crate::plan::{Focus, Plan};
#[cfg(feature = "planted")]
use crate::runner;

/// A defect, and the kind of plans that should find it.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// Its number in `quorate_engine::planted`.
    pub number: u8,
    /// What it is.
    pub name: &'static str,
    /// What the plans that look for it have more of than others.
    pub focus: Focus,
}

/// All of them. Of ordinary seeds too two in five have a focus, so what finds a mutant here would find it there.
pub const ALL: [Mutant; 20] = [
    Mutant { number: 1, name: "acknowledged before it is synced", focus: Focus::PowerCuts },
    Mutant { number: 2, name: "vote not durable", focus: Focus::Elections },
    Mutant { number: 3, name: "vote and append reordered", focus: Focus::Elections },
    Mutant { number: 4, name: "purge point not durable", focus: Focus::Snapshots },
    Mutant { number: 5, name: "hole after a half-done truncate", focus: Focus::Deposed },
    Mutant { number: 6, name: "a retry takes effect twice", focus: Focus::Deposed },
    Mutant { number: 7, name: "stale read on a deposed leader", focus: Focus::Deposed },
    Mutant { number: 8, name: "snapshot with old membership", focus: Focus::Members },
    Mutant { number: 9, name: "commit without quorum", focus: Focus::Deposed },
    Mutant { number: 10, name: "older snapshot over newer state", focus: Focus::Snapshots },
    Mutant { number: 11, name: "purge before the snapshot is durable", focus: Focus::PowerCuts },
    Mutant { number: 12, name: "a wiped node votes under its old id", focus: Focus::Wipes },
    Mutant { number: 13, name: "ENOSPC swallowed", focus: Focus::Disks },
    Mutant { number: 14, name: "failed sync tried again and believed", focus: Focus::Disks },
    Mutant { number: 15, name: "damage taken for a torn end", focus: Focus::Damage },
    Mutant { number: 16, name: "directory not synced after a rename", focus: Focus::PowerCuts },
    Mutant { number: 17, name: "lease read after a pause", focus: Focus::Deposed },
    Mutant { number: 18, name: "snapshot without sessions", focus: Focus::Snapshots },
    Mutant { number: 19, name: "applied out of order", focus: Focus::PowerCuts },
    Mutant { number: 20, name: "two completions for one id", focus: Focus::PowerCuts },
];

/// What caught a mutant.
#[derive(Clone, Debug)]
pub struct Caught {
    /// The seed.
    pub seed: u64,
    /// After how many seeds.
    pub after: u64,
    /// What does not hold.
    pub violation: String,
}

/// The plan of `seed` for looking for `mutant`: every second one is an ordinary plan.
pub fn plan(mutant: &Mutant, seed: u64) -> Plan {
    if seed.is_multiple_of(2) { Plan::new(seed) } else { Plan::focused(seed, mutant.focus) }
}

/// Runs at most `budget` seeds with `mutant` planted, for at most `limit`. Fails as the file system does, and without the
/// feature.
#[cfg(feature = "planted")]
pub fn hunt(mutant: &Mutant, budget: u64, threads: usize, limit: Duration) -> std::io::Result<Option<Caught>> {
    use std::sync::atomic::{AtomicU64, Ordering};

    use parking_lot::Mutex;

    quorate_engine::planted::plant(mutant.number);
    let (next, caught) = (AtomicU64::new(1), Mutex::new(None::<Caught>));
    let (base, begun) = (runner::base(), std::time::Instant::now());
    let work = |thread: usize| -> std::io::Result<()> {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > budget || caught.lock().is_some() || begun.elapsed() > limit {
                return Ok(());
            }
            let report = runner::run_one(&plan(mutant, seed), &base, &format!("{thread}-mutant"))?;
            if let Some(violation) = report.violation {
                let mut caught = caught.lock();
                if caught.as_ref().is_none_or(|first| seed < first.seed) {
                    *caught = Some(Caught { seed, after: seed, violation: violation.to_string() });
                }
            }
        }
    };
    let outcomes: Vec<std::io::Result<()>> = std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..threads.max(1)).map(|number| scope.spawn(move || work(number))).collect();
        let lost = |_| Err(std::io::Error::other("a thread of the hunt died"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(lost)).collect()
    });
    quorate_engine::planted::plant(0);
    if base.exists() {
        std::fs::remove_dir_all(&base)?;
    }
    outcomes.into_iter().collect::<std::io::Result<Vec<()>>>()?;
    Ok(caught.into_inner())
}

/// Without the feature there is nothing to hunt.
#[cfg(not(feature = "planted"))]
pub fn hunt(_: &Mutant, _: u64, _: usize, _: Duration) -> std::io::Result<Option<Caught>> {
    Err(std::io::Error::other("Build with `--features planted`: a normal build has no defects planted."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_there_once() {
        assert!(ALL.iter().map(|mutant| mutant.number).eq(1..=20));
        assert_eq!(plan(&ALL[0], 2), Plan::new(2));
        assert_ne!(plan(&ALL[0], 3), Plan::new(3));
    }
}
