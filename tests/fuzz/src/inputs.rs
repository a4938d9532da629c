//! Inputs: a function of samples and seed.

use quorate_linear::rng::Rng;

/// Largest input, in bytes; samples that are larger stay as large as they are.
const BYTES_MAX: usize = 64 << 10;
/// Damages to one sample, at most.
const DAMAGES_MAX: u64 = 6;
/// Bytes of an input of noise, at most.
const NOISE_MAX: u64 = 256;

/// A place among `len`; 0 when there is none.
fn index(rng: &mut Rng, len: usize) -> usize {
    rng.below(len as u64) as usize
}

/// Makes inputs out of samples of what is right.
pub struct Inputs<'a> {
    samples: &'a [Vec<u8>],
    words: &'a [&'a str],
}

impl<'a> Inputs<'a> {
    /// From `samples`; `words` are strewn in too.
    pub fn new(samples: &'a [Vec<u8>], words: &'a [&'a str]) -> Inputs<'a> {
        Inputs { samples, words }
    }

    /// The input of `seed`.
    pub fn of(&self, seed: u64) -> Vec<u8> {
        let mut rng = Rng::new(seed);
        if self.samples.is_empty() || rng.below(20) == 0 {
            return noise(&mut rng);
        }
        let mut input = self.sample(&mut rng).to_vec();
        for _ in 0..=rng.below(DAMAGES_MAX) {
            self.damage(&mut input, &mut rng);
        }
        let most = BYTES_MAX.max(self.samples.iter().map(Vec::len).max().unwrap_or(0));
        input.truncate(most);
        input
    }

    fn sample(&self, rng: &mut Rng) -> &'a [u8] {
        &self.samples[index(rng, self.samples.len())]
    }

    fn damage(&self, input: &mut Vec<u8>, rng: &mut Rng) {
        let at = index(rng, input.len() + 1);
        match rng.below(10) {
            0 | 1 => flip(input, at, rng),
            2 => overwrite(input, at, &[rng.next_u64() as u8]),
            3 | 4 => {
                let claimed = claim(input.len(), rng);
                overwrite(input, at, &claimed);
            }
            5 => input.truncate(at),
            6 => drop(input.drain(at..range_end(input, at, rng))),
            7 => {
                let doubled = input[at..range_end(input, at, rng)].to_vec();
                insert(input, at, &doubled);
            }
            8 => {
                let other = self.sample(rng);
                let from = index(rng, other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ if self.words.is_empty() => insert(input, at, &noise(rng)),
            _ => insert(input, at, self.words[index(rng, self.words.len())].as_bytes()),
        }
    }
}

fn noise(rng: &mut Rng) -> Vec<u8> {
    (0..rng.below(NOISE_MAX)).map(|_| rng.next_u64() as u8).collect()
}

fn flip(input: &mut [u8], at: usize, rng: &mut Rng) {
    if let Some(byte) = input.get_mut(at) {
        *byte ^= 1 << rng.below(8);
    }
}

fn overwrite(input: &mut [u8], at: usize, with: &[u8]) {
    let room = input.len().saturating_sub(at).min(with.len());
    input[at..at + room].copy_from_slice(&with[..room]);
}

fn insert(input: &mut Vec<u8>, at: usize, what: &[u8]) {
    drop(input.splice(at..at, what.iter().copied()));
}

fn range_end(input: &[u8], at: usize, rng: &mut Rng) -> usize {
    at + index(rng, input.len() - at + 1)
}

/// A number that might be taken for a length or a count, in one to eight bytes.
fn claim(len: usize, rng: &mut Rng) -> Vec<u8> {
    let numbers = [
        0,
        1,
        0x7f,
        0x80,
        0xff,
        0x7fff,
        0xffff,
        0x7fff_ffff,
        0xffff_ffff,
        1 << 40,
        i64::MAX as u64,
        u64::MAX,
        len as u64,
    ];
    let number = numbers[index(rng, numbers.len())].wrapping_add(rng.below(3)).wrapping_sub(1);
    let width = [1, 2, 4, 8][index(rng, 4)];
    number.to_le_bytes()[..width].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_input_and_others_give_others() {
        let samples = vec![vec![1; 100], vec![2; 50]];
        let inputs = Inputs::new(&samples, &["word"]);
        let all = |from: u64| (from..from + 300).map(|seed| inputs.of(seed)).collect::<Vec<_>>();
        assert_eq!(all(1), all(1));
        assert_ne!(all(1), all(1001));
        assert!(all(1).iter().any(|input| input.windows(4).any(|window| window == b"word")));
        assert!(all(1).iter().any(|input| input.windows(4).any(|window| window == [0xff; 4])), "no claimed length");
        assert!(all(1).iter().any(|input| input.len() < 50) && all(1).iter().any(|input| input.len() > 100));
    }
}
