//! Damage to what was durable.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of a log file that are never damaged: its header, without which it is no log file.
const HEADER: u64 = 64;
/// The newest part of the log, in bytes, whose damage looks like a torn end.
const END: u64 = 4_096;

/// Flips one bit in the oldest three quarters of what the newest log file below `data` holds, chosen by `place`. Returns what was
/// done, or `None` when there is too little. Fails as the file system does.
pub fn wound(data: &Path, place: u64) -> io::Result<Option<String>> {
    let log = data.join("group-0/log");
    if !log.is_dir() {
        return Ok(None);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(&log)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "raftlog") {
            files.push(path);
        }
    }
    files.sort();
    let Some(newest) = files.last() else { return Ok(None) };
    let content = fs::read(newest)?;
    let used = content.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1);
    let Some(room) = used.checked_sub(HEADER + END).filter(|room| *room > 0) else { return Ok(None) };
    let at = HEADER + place % (room * 3 / 4 + 1);
    let flipped = content[at as usize] ^ (1 << (place >> 32 & 7));
    OpenOptions::new().write(true).open(newest)?.write_all_at(&[flipped], at)?;
    let name = newest.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Some(format!("has a bit flipped in {name} at {at} of {used}")))
}
