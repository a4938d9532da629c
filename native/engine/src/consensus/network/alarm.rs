//! A timer that is asked for anew with each event and seldom moved.
//!
//! Arming one of tokio's timers for a moment before all others wakes the runtime's own driver by a system call, and every timer
//! costs a lock and a place in the wheel. An append stream would pay both for each request. So one timer stays armed for the
//! earliest moment that was ever asked for, and is moved when it rings too early: at most once in the shortest wait.

use std::pin::Pin;

use tokio::time::{Instant, Sleep, sleep_until};

/// See the module.
#[derive(Default)]
pub(super) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    /// False once it rang: a timer that rang must not be polled again.
    armed: bool,
}

impl Alarm {
    /// Waits until `moment`; for ever when there is none. May be dropped and called again with another.
    pub async fn at(&mut self, moment: Option<Instant>) {
        let Some(moment) = moment else { return std::future::pending().await };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(moment)));
        if !self.armed || sleep.deadline() > moment {
            sleep.as_mut().reset(moment);
            self.armed = true;
        }
        while Instant::now() < moment {
            sleep.as_mut().await;
            sleep.as_mut().reset(moment);
        }
        self.armed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Duration, timeout};

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn it_rings_when_it_was_asked_to_last_however_it_was_armed_before() {
        let (mut alarm, start) = (Alarm::default(), Instant::now());
        let soon = Some(start + 10 * MS);
        assert!(timeout(2 * MS, alarm.at(soon)).await.is_err(), "given up before");
        assert!(timeout(2 * MS, alarm.at(Some(start + 100 * MS))).await.is_err());
        alarm.at(Some(start + 6 * MS)).await;
        assert_eq!(start.elapsed(), 6 * MS, "earlier than it was armed");
        alarm.at(Some(start + 50 * MS)).await;
        assert_eq!(start.elapsed(), 50 * MS, "after it rang");
        assert!(timeout(2 * MS, alarm.at(Some(start + 60 * MS))).await.is_err());
        alarm.at(Some(start + 90 * MS)).await;
        assert_eq!(start.elapsed(), 90 * MS, "later than it was armed");
        alarm.at(Some(start)).await;
        assert_eq!(start.elapsed(), 90 * MS, "a moment that has passed");
        assert!(timeout(1_000 * MS, alarm.at(None)).await.is_err(), "no moment, no ring");
    }

    #[tokio::test(start_paused = true)]
    async fn moments_that_only_move_on_do_not_move_the_timer() {
        let (mut alarm, start) = (Alarm::default(), Instant::now());
        for step in 0..5 {
            assert!(timeout(MS, alarm.at(Some(start + (10 + step) * MS))).await.is_err());
        }
        assert_eq!(alarm.sleep.as_ref().map(|sleep| sleep.deadline()), Some(start + 10 * MS));
    }
}
