//! What the files of a store were when it was closed in good order.
//!
//! Reading every record to see that all are whole takes a second for a million of them. Where the files are, byte by byte, what
//! they were when sled was closed after its last write, that need not be done: nothing was lost and nothing decayed.
//!
//! ```text
//! file := "QKVS" · bytes u64 · sum u32 · crc32 u32 of what precedes
//! ```

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::BufMut;
use fs2::FileExt;

use crate::limits::SEALED_BYTES_MAX;

pub(super) const NAME: &str = "sealed";
const MAGIC: &[u8; 4] = b"QKVS";
const BUFFER_BYTES: usize = 256 << 10;
/// sled's last background write may take so long after it was closed.
const QUIET: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(5);

/// Seals the closed store in `dir`, unless it is larger than [`SEALED_BYTES_MAX`] or another has it open already. Nothing is
/// synced: what a power cut leaves is checked like anything else.
pub(super) fn write(dir: &Path) -> io::Result<()> {
    let database = File::open(dir.join("db"))?;
    let begun = Instant::now();
    while database.try_lock_exclusive().is_err() {
        if begun.elapsed() > QUIET {
            return Ok(());
        }
        std::thread::sleep(POLL);
    }
    let files = files(dir)?;
    if bytes(&files)? > SEALED_BYTES_MAX {
        return Ok(());
    }
    fs::write(dir.join(NAME), encode(&files)?)
}

/// Whether the store in `dir` is what it was when it was sealed. Then it is not sealed any more: what is written next need not be whole.
pub(super) fn take(dir: &Path) -> bool {
    let Ok(found) = fs::read(dir.join(NAME)) else { return false };
    let same =
        files(dir).is_ok_and(|files| starts_alike(&found, &files) && encode(&files).is_ok_and(|now| now == found));
    same && fs::remove_file(dir.join(NAME)).is_ok()
}

/// Most stores that differ do so in length: then nothing has to be read.
fn starts_alike(found: &[u8], files: &[PathBuf]) -> bool {
    bytes(files).is_ok_and(|bytes| found.get(4..12) == Some(&bytes.to_le_bytes()[..]))
}

/// sled's own files, in the order of their names.
fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = vec![dir.join("conf"), dir.join("db")];
    for item in fs::read_dir(dir)? {
        let item = item?;
        if item.file_name().to_string_lossy().starts_with("snap.") {
            files.push(item.path());
        }
    }
    for item in fs::read_dir(dir.join("blobs"))? {
        files.push(item?.path());
    }
    files.sort();
    Ok(files)
}

fn bytes(files: &[PathBuf]) -> io::Result<u64> {
    files.iter().map(|path| Ok(path.metadata()?.len())).sum()
}

fn encode(files: &[PathBuf]) -> io::Result<Vec<u8>> {
    let (mut sum, mut buffer) = (crc32fast::Hasher::new(), vec![0; BUFFER_BYTES]);
    for path in files {
        let mut file = File::open(path)?;
        sum.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        sum.update(&file.metadata()?.len().to_le_bytes());
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            sum.update(&buffer[..read]);
        }
    }
    let mut out = Vec::new();
    out.put_slice(MAGIC);
    out.put_u64_le(bytes(files)?);
    out.put_u32_le(sum.finalize());
    out.put_u32_le(crc32fast::hash(&out));
    Ok(out)
}
