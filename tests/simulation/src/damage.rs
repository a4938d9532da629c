//! Damage to what was durable.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use quorate_engine::offline::Offline;

/// Bytes of a log file that are never damaged: its header, without which it is no log file.
const HEADER: u64 = 64;

/// Flips one bit in the newest log file below `data` where its damage can be told from a torn write, chosen by `place`. Returns what
/// was done, or `None` when there is no such place. Fails as the file system does.
pub fn wound(data: &Path, place: u64) -> io::Result<Option<String>> {
    // A log that is not whole, after errors of its disk, is hurt enough.
    let Ok(log) = Offline::open(data).and_then(|offline| offline.log()) else { return Ok(None) };
    let (Some((file, end)), Some((newest, _))) = (log.vouched(), log.end()) else { return Ok(None) };
    let Some(room) = end.checked_sub(HEADER).filter(|room| *room > 0 && file == newest) else { return Ok(None) };
    let at = HEADER + place % room;
    let flipped = fs::read(newest)?[at as usize] ^ (1 << (place >> 32 & 7));
    OpenOptions::new().write(true).open(newest)?.write_all_at(&[flipped], at)?;
    let name = newest.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Some(format!("has a bit flipped in {name} at {at} of {end}")))
}
