//! Inputs: a function of samples and seed.

/// Largest input, in bytes; samples that are larger stay as large as they are.
const BYTES_MAX: usize = 64 << 10;
/// Damages to one sample, at most.
const DAMAGES_MAX: u64 = 6;
/// Bytes of an input of noise, at most.
const NOISE_MAX: u64 = 256;

/// Random numbers from a seed, the same on every machine (SplitMix64).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator whose numbers depend on `seed` alone.
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 when `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.next_u64() % end }
    }

    fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }
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
        &self.samples[rng.index(self.samples.len())]
    }

    fn damage(&self, input: &mut Vec<u8>, rng: &mut Rng) {
        let at = rng.index(input.len() + 1);
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
                let from = rng.index(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ if self.words.is_empty() => insert(input, at, &noise(rng)),
            _ => insert(input, at, self.words[rng.index(self.words.len())].as_bytes()),
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
    at + rng.index(input.len() - at + 1)
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
    let number = numbers[rng.index(numbers.len())].wrapping_add(rng.below(3)).wrapping_sub(1);
    let width = [1, 2, 4, 8][rng.index(4)];
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
