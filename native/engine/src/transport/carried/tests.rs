//! Connections over links that lose, double, delay and reorder: first on a virtual clock, then for real.

mod fuzz;
mod simulated;
mod streams;

/// A small generator of pseudo-random numbers (xorshift), so that a failing run can be repeated.
pub(super) struct Dice(pub u64);

impl Dice {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}
