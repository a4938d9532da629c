//! How far the store was durable, in a file of its own: sled opens an older state, or an empty one, without a word when
//! the rest of its file is damaged.
//!
//! ```text
//! file := "QKVD" · batches u64 · crc32 u32 of what precedes
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::BufMut;

const NAME: &str = "durable";
const MAGIC: &[u8; 4] = b"QKVD";
const BYTES: usize = 16;

/// The file; it is overwritten in place, within one sector.
pub(super) struct DurableMark {
    file: File,
    batches: u64,
}

impl DurableMark {
    /// Opens the mark in `dir` or makes one that claims nothing; one that is damaged claims nothing either.
    pub fn open(dir: &Path) -> io::Result<DurableMark> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(dir.join(NAME))?;
        let mut found = Vec::with_capacity(BYTES);
        (&mut file).take(BYTES as u64).read_to_end(&mut found)?;
        let mut batches = [0; 8];
        if found.len() == BYTES && found == encode(u64::from_le_bytes(word(&found))) {
            batches = word(&found);
        }
        Ok(DurableMark { file, batches: u64::from_le_bytes(batches) })
    }

    /// So many batches were durable.
    pub fn batches(&self) -> u64 {
        self.batches
    }

    /// Claims durably that the first `batches` batches are durable.
    pub fn advance(&mut self, batches: u64) -> io::Result<()> {
        if batches == self.batches {
            return Ok(());
        }
        self.file.write_all_at(&encode(batches), 0)?;
        self.file.sync_data()?;
        self.batches = batches;
        Ok(())
    }
}

fn word(found: &[u8]) -> [u8; 8] {
    let mut word = [0; 8];
    word.copy_from_slice(&found[4..12]);
    word
}

fn encode(batches: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(BYTES);
    out.put_slice(MAGIC);
    out.put_u64_le(batches);
    out.put_u32_le(crc32fast::hash(&out));
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_remembered_and_a_damaged_one_claims_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(DurableMark::open(dir.path()).unwrap().batches(), 0);
        DurableMark::open(dir.path()).unwrap().advance(7).unwrap();
        DurableMark::open(dir.path()).unwrap().advance(300).unwrap();
        assert_eq!(DurableMark::open(dir.path()).unwrap().batches(), 300);
        let whole = std::fs::read(dir.path().join(NAME)).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(dir.path().join(NAME), &damaged).unwrap();
            assert_eq!(DurableMark::open(dir.path()).unwrap().batches(), 0, "byte {at}");
        }
        std::fs::write(dir.path().join(NAME), &whole[..9]).unwrap();
        assert_eq!(DurableMark::open(dir.path()).unwrap().batches(), 0);
    }
}
