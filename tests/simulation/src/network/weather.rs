//! How well the network works at present.

use std::collections::BTreeSet;

use quorate_linear::rng::Rng;

/// Delays and losses. Streams lose nothing, as TCP's do not; datagrams do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// Shortest way, in ms.
    pub delay_ms: u64,
    /// Up to so much longer, in ms.
    pub jitter_ms: u64,
    /// Datagrams lost, in a hundred.
    pub lost: u64,
    /// Datagrams that come twice, in a hundred.
    pub doubled: u64,
}

impl Weather {
    /// Everything arrives at once.
    pub const CALM: Weather = Weather { delay_ms: 0, jitter_ms: 0, lost: 0, doubled: 0 };

    /// How long something takes, in ms.
    pub fn delay(&self, rng: &mut Rng) -> u64 {
        self.delay_ms + rng.below(self.jitter_ms + 1)
    }
}

/// Which ways are blocked: from one node to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocked(BTreeSet<(usize, usize)>);

impl Blocked {
    /// Blocks one direction.
    pub fn block(&mut self, from: usize, to: usize) {
        self.0.insert((from, to));
    }

    /// Opens every way.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// True when nothing gets from `from` to `to`.
    pub fn is(&self, from: usize, to: usize) -> bool {
        !self.0.is_empty() && self.0.contains(&(from, to))
    }

    /// True when nothing is blocked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
