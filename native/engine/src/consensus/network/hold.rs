//! Whether it is worth holding back an append request without entries.
//!
//! After each commit openraft sends every follower a request that only carries the new commit index. Under load the next
//! request with entries follows at once and carries it as well, so holding the first back for a moment saves half of
//! all requests. Without load, or when the next command waits for a follower to apply this one, holding back is pure
//! delay. So a hold that came to nothing is paid for with twice as many requests sent at once.

/// Requests that are sent at once after the longest series of holds that came to nothing.
const SKIPPED_MAX: u32 = 1_024;

/// Remembers how the last holds went.
#[derive(Debug, Default)]
pub(super) struct Hold {
    penalty: u32,
    skip: u32,
}

impl Hold {
    /// Whether to hold back the next request without entries.
    pub(super) fn worthwhile(&mut self) -> bool {
        let worthwhile = self.skip == 0;
        self.skip = self.skip.saturating_sub(1);
        worthwhile
    }

    /// The request that was held rides on another.
    pub(super) fn rode(&mut self) {
        self.penalty = 0;
    }

    /// The request that was held had to be sent by itself after all.
    pub(super) fn expired(&mut self) {
        self.penalty = (self.penalty * 2).clamp(1, SKIPPED_MAX);
        self.skip = self.penalty;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn under_load_every_request_is_held() {
        let mut hold = Hold::default();
        for _ in 0..1000 {
            assert!(hold.worthwhile());
            hold.rode();
        }
    }

    #[test]
    fn holds_that_come_to_nothing_become_rare_and_one_success_brings_them_back() {
        let mut hold = Hold::default();
        let mut held = 0;
        for _ in 0..100_000 {
            if hold.worthwhile() {
                held += 1;
                hold.expired();
            }
        }
        assert!((90..=120).contains(&held), "{held} of 100,000 were held");
        while !hold.worthwhile() {}
        hold.rode();
        assert!(hold.worthwhile());
    }
}
