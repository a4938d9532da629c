//! Waiting longer after each failure, never in step with others (exponential backoff with jitter).

use tokio::time::Duration;

use crate::surroundings::random_u64;

const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(1);

/// How long to wait after so many failures in a row (at least one): doubles from 20 ms to 1 s, of which between half and
/// all is taken at random.
pub(super) fn backoff(failures: u32) -> Duration {
    let whole = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST);
    // Without randomness the whole wait is taken: slower, never wrong.
    let part = random_u64().map_or(1.0, |number| f64::from(number as u32) / f64::from(u32::MAX));
    whole.mul_f64(0.5 + part / 2.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_second_and_differ() {
        let longest = |failures| (0..100).map(|_| backoff(failures)).max().unwrap();
        let shortest = |failures| (0..100).map(|_| backoff(failures)).min().unwrap();
        assert!(shortest(1) >= FIRST / 2 && longest(1) <= FIRST);
        assert!(longest(2) > FIRST && longest(2) <= FIRST * 2);
        assert!(longest(1_000_000) <= LONGEST && shortest(1_000_000) >= LONGEST / 2);
        assert_ne!(longest(9), shortest(9));
    }
}
