//! The parts of the benchmark that need no JVM, each into its own file of rows.

mod durability;
mod engine;
mod floor;
mod growth;
mod reads;
mod recovery;
mod stalled;

use quorate_engine::Failure;

use crate::disk;
use crate::options::{PARTS, Part};
use crate::row::Sink;

/// The system that most rows are of.
const ENGINE: &str = "quorate engine";
/// The system of the floor's rows.
const MACHINE: &str = "machine";

const KIB: usize = 1 << 10;
const MIB: u64 = 1 << 20;

/// Runs a part; what was measured before a failure is in its file. Fails when a node, a command or the machinery fails.
pub fn run(part: &Part) -> Result<(), Failure> {
    disk::warn_of_memory(&part.dir);
    let run = match part.name.as_str() {
        "floor" => floor::run,
        "engine" => engine::run,
        "durability" => durability::run,
        "reads" => reads::run,
        "recovery" => recovery::run,
        "growth" => growth::run,
        other => return Err(Failure::invalid(format!("There is no part {other:?}."))),
    };
    let name = PARTS.iter().find(|name| **name == part.name).unwrap_or(&"");
    run(part, &mut Sink::open(&part.out, name, part.keep)?)
}

/// `list`, beginning elsewhere each round, so that no member always comes first or after the same other.
fn rotated<T: Clone>(list: &[T], round: usize) -> Vec<T> {
    let mut list = list.to_vec();
    let by = (round - 1) % list.len().max(1);
    list.rotate_left(by);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_begins_elsewhere() {
        assert_eq!(rotated(&[1, 2, 3], 1), [1, 2, 3]);
        assert_eq!(rotated(&[1, 2, 3], 3), [3, 1, 2]);
        assert_eq!(rotated(&[1, 2, 3], 4), [1, 2, 3]);
        assert!(rotated::<u8>(&[], 1).is_empty());
    }
}
