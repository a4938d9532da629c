//! What can go wrong, or be asked for.

use crate::chance::Slow;
use crate::network::Weather;

/// Who is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Whoever leads at that moment.
    Leader,
    /// One that does not lead.
    Follower(u64),
    /// Anybody.
    Any(u64),
    /// This host.
    Exactly(usize),
}

/// A partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One against all others.
    Alone(Who),
    /// Nothing reaches one, but what it says is heard.
    Deaf(Who),
    /// One hears, and is not heard.
    Mute(Who),
    /// Two parts; bit i says where host i is.
    Halves(u64),
    /// Two parts that both reach one host.
    Bridge(Who, u64),
    /// Each direction between two hosts by chance.
    Loose(u64),
}

/// Something that goes wrong, or is asked for: to or of `who`, for `ms`; a node that ends is started again after `down_ms`.
#[allow(missing_docs)] // the other fields are told of with each
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The process is killed; `power`: the machine's power goes.
    Crash { who: Who, power: bool, down_ms: u64 },
    /// All (or a majority) at the same moment.
    CrashMany { all: bool, power: bool, down_ms: u64 },
    /// The power goes within the next changes on the disk.
    CutInside { who: Who, changes: u64, down_ms: u64 },
    /// Closed in good order, and started again.
    Close { who: Who, down_ms: u64 },
    /// The process stands still.
    Pause { who: Who, ms: u64 },
    /// A partition.
    Part { shape: Shape, ms: u64 },
    /// The leader is cut off for a while, or (`at_once`) until another is elected; soon after it is back, it or another is killed.
    Depose { ms: u64, then_ms: u64, deposed: bool, at_once: bool, other: Who },
    /// Connections between two hosts break.
    Reset { one: Who, other: Who },
    /// Bad weather.
    Storm { weather: Weather, ms: u64 },
    /// No space left.
    Full { who: Who, strict: bool, ms: u64 },
    /// Writes fail with EIO.
    WriteErrors { who: Who, count: u32 },
    /// Syncs fail with EIO; then the power may go.
    SyncErrors { who: Who, count: u32, cut_after_ms: Option<u64> },
    /// Writes take a part of what they are given.
    ShortWrites { who: Who, ms: u64 },
    /// Everything on the disk is slow.
    SlowDisk { who: Who, slow: Slow, ms: u64 },
    /// The machine fails.
    Broken { who: Who, ms: u64 },
    /// The wall clock jumps.
    Jump { who: Who, by_ms: i64 },
    /// Leadership is handed over.
    Transfer { to: Who },
    /// A snapshot is taken.
    Snapshot { who: Who },
    /// A member is taken out, and let in again.
    Remove { who: Who, ms: u64 },
    /// A disk is emptied.
    Wipe { who: Who, down_ms: u64 },
    /// A host that was not there yet is started.
    Grow { host: usize },
    /// The next node that wins an election is cut off at once, and the power of all who voted goes.
    Ambush { ms: u64 },
    /// A closed node's log is damaged where it was durable.
    Damage { who: Who, down_ms: u64, place: u64 },
}

impl Kind {
    /// Its name, for counts.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Crash { power: true, .. } => "power cut",
            Kind::Crash { .. } => "kill",
            Kind::CrashMany { all: true, power: true, .. } => "power cut of all",
            Kind::CrashMany { all: true, .. } => "kill of all",
            Kind::CrashMany { power: true, .. } => "power cut of a majority",
            Kind::CrashMany { .. } => "kill of a majority",
            Kind::CutInside { .. } => "power cut inside a write",
            Kind::Close { .. } => "restart",
            Kind::Pause { .. } => "pause",
            Kind::Part { shape, .. } => match shape {
                Shape::Alone(_) => "partition: alone",
                Shape::Deaf(_) => "partition: deaf",
                Shape::Mute(_) => "partition: mute",
                Shape::Halves(_) => "partition: halves",
                Shape::Bridge(..) => "partition: bridge",
                Shape::Loose(_) => "partition: loose",
            },
            Kind::Depose { .. } => "leader cut off, then a kill",
            Kind::Reset { .. } => "connections broken",
            Kind::Storm { .. } => "storm",
            Kind::Full { .. } => "disk full",
            Kind::WriteErrors { .. } => "EIO on write",
            Kind::SyncErrors { .. } => "EIO on sync",
            Kind::ShortWrites { .. } => "short writes",
            Kind::SlowDisk { slow, .. } if slow.hung => "disk hangs",
            Kind::SlowDisk { slow, .. } if slow.stuck => "machine stuck",
            Kind::SlowDisk { .. } => "slow disk",
            Kind::Broken { .. } => "machine fails",
            Kind::Jump { .. } => "clock jump",
            Kind::Transfer { .. } => "leadership handed over",
            Kind::Snapshot { .. } => "snapshot asked for",
            Kind::Remove { .. } => "member removed",
            Kind::Wipe { .. } => "disk wiped",
            Kind::Grow { .. } => "member added",
            Kind::Ambush { .. } => "power cut of all voters",
            Kind::Damage { .. } => "log damaged",
        }
    }
}

/// What happens when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When, in ms.
    pub at: u64,
    /// What.
    pub kind: Kind,
}
