//! What a plan may have much of.

use quorate_linear::rng::Rng;

use super::Plan;

/// What a plan may have much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Focus {
    /// Power cuts, of one, of many, inside writes.
    PowerCuts,
    /// Elections, and power cuts in the midst of them.
    Elections,
    /// Snapshots and purges all the time.
    Snapshots,
    /// Leaders that are cut off or stand still, and believe to lead.
    Deposed,
    /// Changes of the membership.
    Members,
    /// Disks that are emptied.
    Wipes,
    /// Disks that are full, slow, or fail.
    Disks,
    /// Damage to what was durable.
    Damage,
}

impl Focus {
    /// All of them.
    pub const ALL: [Focus; 8] = [
        Focus::PowerCuts,
        Focus::Elections,
        Focus::Snapshots,
        Focus::Deposed,
        Focus::Members,
        Focus::Wipes,
        Focus::Disks,
        Focus::Damage,
    ];

    /// The kinds of `kind` that it consists of.
    pub(super) fn kinds(self) -> &'static [u64] {
        match self {
            Focus::PowerCuts => &[1, 2, 2, 3, 4, 4, 5, 19],
            Focus::Elections => &[0, 1, 4, 18, 22, 22, 23, 25, 25, 25],
            Focus::Snapshots => &[0, 1, 5, 8, 19, 21, 3, 26, 26, 26],
            Focus::Deposed => &[0, 1, 6, 6, 9, 23, 23, 23, 26, 26],
            Focus::Members => &[0, 1, 5, 5, 8, 19, 20, 20, 21, 18],
            Focus::Wipes => &[0, 1, 7, 21, 21, 23],
            Focus::Disks => &[1, 11, 12, 13, 13, 14, 15, 11],
            Focus::Damage => &[1, 2, 24, 24, 23],
        }
    }

    /// Changes what else belongs to it.
    pub(super) fn shape(self, plan: &mut Plan, rng: &mut Rng) {
        plan.think_ms = *rng.pick(&[0, 5, 20]).unwrap_or(&0);
        plan.clients = rng.range(4, 12) as usize;
        match self {
            Focus::PowerCuts | Focus::Damage => plan.survive = 0,
            Focus::Elections => plan.weather.jitter_ms = rng.below(40),
            Focus::Snapshots | Focus::Members | Focus::Wipes => {
                plan.snapshot_commands = rng.range(5, 25);
                plan.keep_entries = rng.below(3);
                plan.padding = 500;
            }
            Focus::Deposed => {
                plan.patience_ms = plan.election_ms * 6 + 500;
                (plan.snapshot_commands, plan.keep_entries) = (300, 100);
            }
            Focus::Disks => plan.padding = 2_000,
        }
    }
}
