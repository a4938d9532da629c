//! Warnings that anybody on the network can provoke must not fill the log.

use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

/// Lines that may be written at once.
const BURST: u32 = 5;
/// After this time another line may be written.
const REFILL: Duration = Duration::from_secs(1);

/// Writes warnings, a few at once and then about one a second; says how many it kept back.
#[derive(Debug)]
pub(super) struct Warnings(Mutex<State>);

#[derive(Debug)]
struct State {
    tokens: u32,
    refilled: Instant,
    kept_back: u64,
}

impl Warnings {
    pub(super) fn new() -> Warnings {
        Warnings(Mutex::new(State { tokens: BURST, refilled: Instant::now(), kept_back: 0 }))
    }

    /// Logs `message`, or counts it as kept back.
    pub(super) fn warn(&self, message: impl std::fmt::Display) {
        match self.admit(Instant::now()) {
            None => {}
            Some(0) => tracing::warn!("{message}"),
            Some(kept_back) => {
                tracing::warn!("{message} ({kept_back} warnings like this were kept back.)")
            }
        }
    }

    /// `None` to keep the line back, else how many were kept back before it.
    fn admit(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        let earned = now.duration_since(state.refilled).as_nanos() / REFILL.as_nanos();
        if earned > 0 {
            state.tokens = BURST.min(state.tokens.saturating_add(earned.min(BURST as u128) as u32));
            state.refilled = now;
        }
        if state.tokens == 0 {
            state.kept_back += 1;
            return None;
        }
        state.tokens -= 1;
        Some(std::mem::take(&mut state.kept_back))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_gives_a_few_lines_and_then_one_a_second_with_the_count_of_the_others() {
        let warnings = Warnings::new();
        let start = Instant::now();
        let written = (0..1000).filter(|_| warnings.admit(start).is_some()).count();
        assert_eq!(written, BURST as usize);
        assert_eq!(warnings.admit(start + REFILL), Some(995));
        assert_eq!(warnings.admit(start + REFILL), None);
        let later = start + REFILL * 100;
        assert_eq!((0..1000).filter(|_| warnings.admit(later).is_some()).count(), BURST as usize);
    }
}
