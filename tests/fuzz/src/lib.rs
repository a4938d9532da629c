//! Hostile input from a seed, for whatever reads bytes that somebody else wrote: it must not panic, and must not allocate more than its
//! input warrants. A run takes about [`SECONDS`] a reader in `make test`; QUORATE_FUZZ_SECONDS and QUORATE_FUZZ_SEED say otherwise.
//!
//! Inputs are samples of what is right, damaged in a few places: bits, bytes, numbers that claim lengths, parts cut out, doubled, or taken
//! from another sample, words of a dictionary; and now and then nothing but noise.

mod inputs;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

pub use inputs::Inputs;
pub use quorate_linear::rng::Rng;

/// How long one reader is tried when the environment does not say, in seconds.
pub const SECONDS: u64 = 1;
/// Inputs that are tried at the least, however slow the machine is.
const ROUNDS_MIN: u64 = 20;
/// Bytes of an input that a failure shows.
const SHOWN: usize = 2048;

/// What reading may allocate at a time: so much, and so much more for each byte of the input.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Bytes whatever the input is.
    pub fixed: u64,
    /// Bytes a byte of the input.
    pub per_byte: u64,
}

/// Tries `read` on damaged `samples`. Panics with the seed and the input when `read` panics or holds more memory than `allowed`;
/// what it returns is of no interest. Counts what the calling thread allocates only. Returns how many inputs there were.
pub fn fuzz(name: &str, samples: &[Vec<u8>], words: &[&str], allowed: Allowance, mut read: impl FnMut(Vec<u8>)) -> u64 {
    let (first, until) = (number("QUORATE_FUZZ_SEED").unwrap_or(1), deadline());
    let inputs = Inputs::new(samples, words);
    let mut rounds = 0;
    while rounds < ROUNDS_MIN || Instant::now() < until {
        let seed = first.wrapping_add(rounds);
        attempt(name, seed, inputs.of(seed), allowed, &mut read);
        rounds += 1;
    }
    println!("{name}: {rounds} inputs from seed {first} on");
    rounds
}

fn attempt(name: &str, seed: u64, input: Vec<u8>, allowed: Allowance, read: &mut impl FnMut(Vec<u8>)) {
    let shown = input.clone();
    let mut outcome = Ok(());
    let held = allocation_counter::measure(|| outcome = catch_unwind(AssertUnwindSafe(|| read(input))));
    if let Err(panic) = outcome {
        eprintln!("{name}: seed {seed} panics. {}", show(&shown));
        resume_unwind(panic);
    }
    let limit = allowed.fixed + allowed.per_byte * shown.len() as u64;
    let most = held.bytes_max;
    assert!(most <= limit, "{name}: seed {seed} holds {most} bytes, {limit} are allowed. {}", show(&shown));
}

fn show(input: &[u8]) -> String {
    let start = &input[..input.len().min(SHOWN)];
    format!("The input, {} bytes: {}", input.len(), start.escape_ascii())
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(number("QUORATE_FUZZ_SECONDS").unwrap_or(SECONDS))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: Allowance = Allowance { fixed: 1 << 10, per_byte: 4 };

    fn samples() -> Vec<Vec<u8>> {
        vec![b"\x03\0\0\0abc".to_vec(), b"\x05\0\0\0defgh".to_vec()]
    }

    /// A reader of a length and as many bytes; `checked` says whether it believes the length.
    fn read(input: &[u8], checked: bool) -> Option<Vec<u8>> {
        let (len, rest) = input.split_first_chunk::<4>()?;
        let len = u32::from_le_bytes(*len) as usize;
        if checked && len > rest.len() {
            return None;
        }
        let mut out = Vec::with_capacity(len.min(1 << 24));
        out.extend_from_slice(&rest[..len.min(rest.len())]);
        Some(out)
    }

    #[test]
    fn a_careful_reader_passes() {
        let rounds = fuzz("careful", &samples(), &[], ALLOWED, |input| drop(read(&input, true)));
        assert!(rounds >= ROUNDS_MIN);
    }

    #[test]
    #[should_panic(expected = "are allowed")]
    fn a_reader_that_allocates_what_it_is_told_is_found_out() {
        fuzz("believing", &samples(), &[], ALLOWED, |input| drop(read(&input, false)));
    }

    #[test]
    #[should_panic(expected = "out of range")]
    fn a_reader_that_panics_is_found_out() {
        fuzz("panicking", &samples(), &[], ALLOWED, |input| drop(input[..4].to_vec()));
    }
}
