//! How long a follower waits from one append of its leader to the next: what tells whether a leader's heartbeats stood still.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Upper bounds of the gaps that are counted, in milliseconds; longer ones are counted last.
const BOUNDS_MS: [u64; 12] = [10, 25, 50, 75, 100, 150, 200, 250, 300, 400, 500, 1000];

/// Counts of gaps by their length. Cheap: noted for each request.
pub struct Arrivals {
    began: Instant,
    /// When the last one came, in microseconds after `began`, plus one; 0 before the first.
    last: AtomicU64,
    counts: [AtomicU64; BOUNDS_MS.len() + 1],
    sum_us: AtomicU64,
    max_us: AtomicU64,
}

impl Default for Arrivals {
    fn default() -> Arrivals {
        Arrivals {
            began: Instant::now(),
            last: AtomicU64::new(0),
            counts: Default::default(),
            sum_us: AtomicU64::new(0),
            max_us: AtomicU64::new(0),
        }
    }
}

impl Arrivals {
    /// An append of the leader came. The gap that holds a change of leader counts too.
    pub fn note(&self) {
        let now = self.began.elapsed().as_micros() as u64 + 1;
        match self.last.swap(now, Ordering::Relaxed) {
            0 => {}
            last => self.count(Duration::from_micros(now.saturating_sub(last))),
        }
    }

    fn count(&self, gap: Duration) {
        let slot = BOUNDS_MS.iter().position(|bound| gap <= Duration::from_millis(*bound));
        self.counts[slot.unwrap_or(BOUNDS_MS.len())].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(gap.as_micros() as u64, Ordering::Relaxed);
        self.max_us.fetch_max(gap.as_micros() as u64, Ordering::Relaxed);
    }

    /// As a histogram in Prometheus' text format, in seconds, with the longest gap beside it.
    pub fn tell(&self, out: &mut String) {
        let name = "quorate_append_gap_seconds";
        let mut total = 0;
        // Writing to a String cannot fail.
        let _ = write!(out, "# HELP {name} From one append of the leader to the next.\n# TYPE {name} histogram\n");
        let bounds = BOUNDS_MS.iter().map(|ms| format!("{}", *ms as f64 / 1e3)).chain(["+Inf".into()]);
        for (bound, count) in bounds.zip(&self.counts) {
            total += count.load(Ordering::Relaxed);
            let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {total}");
        }
        let sum = self.sum_us.load(Ordering::Relaxed) as f64 / 1e6;
        let max = self.max_us.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = write!(out, "{name}_sum {sum}\n{name}_count {total}\n");
        let longest = "quorate_append_gap_max_seconds";
        let _ = write!(out, "# HELP {longest} The longest of these.\n# TYPE {longest} gauge\n{longest} {max}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn gaps_are_counted_by_their_length() {
        let arrivals = Arrivals::default();
        arrivals.note();
        for ms in [5, 60, 60, 700, 2000] {
            tokio::time::advance(Duration::from_millis(ms)).await;
            arrivals.note();
        }
        let mut told = String::new();
        arrivals.tell(&mut told);
        for line in
            ["{le=\"0.01\"} 1", "{le=\"0.075\"} 3", "{le=\"1\"} 4", "{le=\"+Inf\"} 5", "_count 5", "_max_seconds 2\n"]
        {
            assert!(told.contains(line), "{line} is not in {told}");
        }
    }
}
