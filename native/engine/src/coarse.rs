//! A clock that costs little to look at: the kernel's time of its last tick. An exact look costs as much as the rest of a submission.

use std::sync::OnceLock;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use crate::surroundings::is_inline;

/// Longest time between two ticks of a kernel (`HZ=100`).
pub const TICK_MAX: Duration = Duration::from_millis(10);

/// The end of `timeout` from now, up to two ticks late; early only where the kernel missed ticks.
pub fn deadline(timeout: Duration) -> Instant {
    if is_inline() {
        // Simulated time has no ticks.
        return Instant::now() + timeout;
    }
    ticks() + TICK_MAX + timeout
}

/// The last tick; up to a tick late, for it is measured from one exact look, which was later than its tick.
fn ticks() -> Instant {
    static BEGAN: OnceLock<(Instant, Duration)> = OnceLock::new();
    let tick = clock_gettime(ClockId::MonotonicCoarse);
    let tick = Duration::new(tick.tv_sec as u64, tick.tv_nsec as u32);
    let (began, first) = BEGAN.get_or_init(|| (std::time::Instant::now().into(), tick));
    *began + tick.saturating_sub(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_not_early_and_hardly_late() {
        let timeout = Duration::from_secs(1);
        let right = (0..2_000).filter(|_| {
            std::thread::sleep(Duration::from_micros(10));
            let before = Instant::now();
            let deadline = deadline(timeout);
            deadline >= before + timeout && deadline <= Instant::now() + timeout + TICK_MAX * 2
        });
        // The rest for a machine that is held up itself.
        assert!(right.count() > 1_900);
    }
}
