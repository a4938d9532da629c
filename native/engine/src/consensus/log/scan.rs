//! Reads the log's newest files before raft-engine does, to tell a torn end from damage.
//!
//! raft-engine cuts the newest file off at the first broken batch, whatever follows, and looks at the checksums of
//! entries only when they are read. A torn write and a flipped bit look the same there, and cutting at the latter
//! forgets acknowledged entries. Here every batch is checked, with raft-engine's own format (version 2):
//!
//! ```text
//! file   := magic · version u64 · alignment u64 · batch*                          numbers big-endian
//! batch  := length u56, compression u8 · footer offset u64 · [entries · crc32] · items · crc32 ^ file number
//! items  := count · (group · type u8 · ...)*                                      LEB128; crc32 little-endian
//! ```
//!
//! A broken batch in any file but the newest is damage: files are closed and synced before the next has a batch. In the
//! newest, it is damage when a whole batch behind it knows it as durable (see [`super::marks`]), and torn otherwise. A newest
//! file without a batch does not count: it was begun when that sync of the one before it had failed, or the power went.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::env::{FileSystem, Handle, Permission};
use super::files::{append_name, append_seq};
use super::guard::{explained, read_file, read_into};
use super::marks::{self, Marks};
use super::state::corrupt;
use crate::error::Failure;
use crate::planted::{self, Defect};

const MAGIC: &[u8] = b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5";
const VERSION: u64 = 2;
const NO_ALIGNMENT: u64 = 0;
pub(super) const FILE_HEADER: usize = MAGIC.len() + 8 + 8;
pub(super) const BATCH_HEADER: usize = 16;
const CHECKSUM: usize = 4;

pub(super) const ENTRIES: u8 = 1;
pub(super) const COMMAND: u8 = 2;
pub(super) const KEY_VALUE: u8 = 3;
pub(super) const COMPACT: u8 = 2;
const PUT: u8 = 1;

/// Files of which is remembered what they hold: the newest may be taken away, and of the two then newest the ends count.
const EXAMINED_MAX: usize = 3;

/// One whole batch.
pub(super) struct Batch {
    pub len: usize,
    /// Where its items begin; they end before the checksum.
    pub footer: usize,
    pub marks: Marks,
}

/// What a file holds, up to its end or its first broken batch.
#[derive(Default)]
struct Found {
    first_seq: Option<u64>,
    last_seq: Option<u64>,
    /// Where each whole batch begins, by its number.
    starts: Vec<(u64, usize)>,
    /// Where the last of them ends.
    end: usize,
    /// The newest batch that any of them knows as durable.
    synced: u64,
    /// Where the log ended with the first of them, and the furthest that it did.
    tails: Option<(u64, u64)>,
    broken_at: Option<usize>,
    /// The newest batch known to be durable by any whole batch behind the broken one.
    synced_behind: Option<u64>,
}

impl Found {
    fn has_no_batch(&self) -> bool {
        self.first_seq.is_none() && self.synced_behind.is_none()
    }

    /// Where the whole batches after the one numbered `synced` are.
    fn after(&self, synced: u64) -> Range<usize> {
        let from = self.starts.iter().find(|(seq, _)| *seq > synced);
        from.map_or(self.end, |(_, at)| *at)..self.end
    }
}

/// One of the newest files, as it was read.
pub(super) struct Examined {
    path: PathBuf,
    headless: bool,
    found: Found,
}

/// The log files of a directory, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Those that count.
    pub live: Vec<PathBuf>,
    /// What a killed process had given back and not yet used again or removed: there is a gap behind it.
    pub stale: Vec<PathBuf>,
    /// The newest file that is missing in the gap.
    pub missing: Option<PathBuf>,
}

/// Lists the log files in `dir`. Fails with `Io`.
pub(super) fn list(dir: &Path) -> Result<Files, Failure> {
    let failed = |error: std::io::Error| Failure::io(format!("Listing {}", dir.display()), &error);
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if let Some(seq) = append_seq(&path) {
            all.push((seq, path));
        }
    }
    all.sort();
    let gap = all.windows(2).rposition(|pair| pair[1].0 != pair[0].0 + 1);
    let live = all.split_off(gap.map_or(0, |before| before + 1));
    let missing = gap.and_then(|_| live.first()).map(|(seq, _)| dir.join(append_name(seq - 1)));
    let paths = |files: Vec<(u64, PathBuf)>| files.into_iter().map(|(_, path)| path).collect();
    Ok(Files { live: paths(live), stale: paths(all), missing })
}

/// Checks the newest `budget` bytes (whole files, at least two) of the log in `files`, and the heads of all. Returns what was
/// found in the newest [`EXAMINED_MAX`], the newest first, and for each of `files` an index that no entry in it is beyond, as far
/// as it was not overwritten; `u64::MAX` where that is not known. Fails with `Corrupt` or `Io`.
pub(super) fn verify<F: FileSystem>(
    file_system: &F,
    files: &[PathBuf],
    group: u64,
    budget: u64,
) -> Result<(Vec<Examined>, Vec<u64>), Failure> {
    let (mut all, mut bytes, mut data) = (Vec::<Examined>::new(), 0, Vec::new());
    let mut newest = 0;
    for (age, path) in files.iter().rev().enumerate() {
        let failed = |error: std::io::Error| Failure::io(format!("Reading {}", path.display()), &error);
        if age >= 2 && bytes >= budget {
            let head = read_file(file_system, path, FILE_HEADER as u64).map_err(failed)?;
            file_header(&head).then_some(()).ok_or_else(|| damaged(path, 0))?;
            continue;
        }
        // Into the same memory each time: pages that are there need not be made.
        read_into(file_system, path, u64::MAX, &mut data).map_err(failed)?;
        bytes += data.len() as u64;
        let found = examine(&data, append_seq(path).unwrap_or(0), group);
        if let Some(offset) = found.broken_at.filter(|_| age > newest || foreign_header(&data)) {
            return Err(damaged(path, offset));
        }
        if age == 0 && found.has_no_batch() {
            newest = 1;
        }
        if let Some(newer) = all.last() {
            judge(&newer.path, &newer.found, found.last_seq)?;
        }
        all.push(Examined { path: path.clone(), headless: !file_header(&data), found });
    }
    // Of what came before the oldest nothing is known, unless it is the first file of all.
    if let Some(oldest) = all.last() {
        judge(&oldest.path, &oldest.found, None)?;
    }
    let bounds = bounds(files.len(), &all);
    all.truncate(EXAMINED_MAX);
    Ok((all, bounds))
}

/// Of each of `files` log files, the oldest first, the furthest that the log went in it. What `examined` does not hold, the newest
/// first, is older, and what was beyond the log's end with the oldest batch of `examined` has been overwritten.
fn bounds(files: usize, examined: &[Examined]) -> Vec<u64> {
    let older = examined.last().and_then(|oldest| oldest.found.tails).map_or(u64::MAX, |(first, _)| first);
    let newer = examined.iter().rev().map(|file| file.found.tails.map_or(u64::MAX, |(_, most)| most));
    std::iter::repeat_n(older, files - examined.len()).chain(newer).collect()
}

/// Removes the newest of `files` when it has no whole header: the disk was full, or the power went, when it was begun,
/// and there is nothing in it. raft-engine would go on in it, in an older format without signatures. Also when it has no batch
/// and the file before it has a torn end, which raft-engine cuts off from the newest file only. Fails with `Io`.
pub(super) fn remove_empty<F: FileSystem>(
    file_system: &F,
    files: &mut Vec<PathBuf>,
    examined: &mut Vec<Examined>,
) -> Result<(), Failure> {
    let Some(newest) = examined.first() else { return Ok(()) };
    let torn = examined.get(1).is_some_and(|before| before.found.broken_at.is_some());
    if newest.headless || newest.found.has_no_batch() && torn {
        let failed = |error: std::io::Error| Failure::io(format!("Removing {}", newest.path.display()), &error);
        file_system.delete(&newest.path).map_err(failed)?;
        files.pop();
        examined.remove(0);
    }
    Ok(())
}

/// Writes the batches again that no later one knows as durable, as they are, and syncs the newest two files. After a sync that
/// failed, the page cache holds what the disk does not, and no later sync writes it: read back, it would be vouched for and lost
/// at the next power cut. What a batch knows as durable was synced before that batch was written, and without a failure, for
/// nothing is written after one. Fails with `Io`.
pub(super) fn write_again<F: FileSystem>(file_system: &F, examined: &[Examined]) -> Result<(), Failure> {
    let synced = examined.iter().map(|file| file.found.synced).max().unwrap_or(0);
    for (age, file) in examined.iter().enumerate() {
        let batches = file.found.after(synced);
        if age < 2 || !batches.is_empty() {
            write_file_again(file_system, &file.path, batches)
                .map_err(|error| Failure::io(format!("Writing {} again", file.path.display()), &explained(error)))?;
        }
    }
    Ok(())
}

fn write_file_again<F: FileSystem>(file_system: &F, path: &Path, part: Range<usize>) -> std::io::Result<()> {
    let handle = Arc::new(file_system.open(path, Permission::ReadWrite)?);
    let mut data = vec![0; part.len()];
    let mut reader = file_system.new_reader(handle.clone())?;
    reader.seek(SeekFrom::Start(part.start as u64))?;
    reader.read_exact(&mut data)?;
    let mut writer = file_system.new_writer(handle.clone())?;
    writer.seek(SeekFrom::Start(part.start as u64))?;
    writer.write_all(&data)?;
    handle.sync()
}

/// Judges a file by what the one before it ended with.
fn judge(path: &Path, file: &Found, before: Option<u64>) -> Result<(), Failure> {
    if let (Some(before), Some(first)) = (before, file.first_seq)
        && first != before + 1
    {
        return Err(corrupt(format!(
            "{} begins with batch {first}, but batch {} should follow there.",
            path.display(),
            before + 1
        )));
    }
    let Some(offset) = file.broken_at else { return Ok(()) };
    let broken = file.last_seq.or(before).map_or(1, |seq| seq + 1);
    match file.synced_behind {
        Some(synced) if synced >= broken && !planted::is(Defect::DamageTakenForTear) => Err(damaged(path, offset)),
        _ => {
            tracing::info!(
                target: "quorate::log",
                "{} ends with a torn write at offset {offset}; it was never acknowledged and is cut off.",
                path.display()
            );
            Ok(())
        }
    }
}

pub(super) fn damaged(path: &Path, offset: usize) -> Failure {
    corrupt(format!("{} is damaged at offset {offset}.", path.display()))
}

fn examine(data: &[u8], seq: u64, group: u64) -> Found {
    let mut found = Found::default();
    let mut at = 0;
    if file_header(data) {
        at = FILE_HEADER;
        while let Some(batch) = batch(data, at, seq, group) {
            found.first_seq = found.first_seq.or(Some(batch.marks.seq));
            found.last_seq = Some(batch.marks.seq);
            found.starts.push((batch.marks.seq, at));
            found.synced = found.synced.max(batch.marks.synced);
            if let Some(tail) = batch.marks.tail {
                let (first, most) = found.tails.unwrap_or((tail.index, 0));
                found.tails = Some((first, most.max(tail.index)));
            }
            at += batch.len;
            found.end = at;
        }
    }
    if at == data.len() && at > 0 {
        return found;
    }
    found.broken_at = Some(at);
    found.synced_behind = synced_behind(data, at, seq, group);
    found
}

fn file_header(data: &[u8]) -> bool {
    data.starts_with(MAGIC)
        && number(data, MAGIC.len()) == Some(VERSION)
        && number(data, MAGIC.len() + 8) == Some(NO_ALIGNMENT)
}

/// raft-engine would take it for its own, and with a wrong alignment end the process.
fn foreign_header(data: &[u8]) -> bool {
    data.starts_with(MAGIC) && !file_header(data)
}

fn synced_behind(data: &[u8], from: usize, seq: u64, group: u64) -> Option<u64> {
    let mut newest = None;
    let mut at = from + 1;
    while at + BATCH_HEADER <= data.len() {
        match batch(data, at, seq, group) {
            Some(batch) => {
                newest = newest.max(Some(batch.marks.synced));
                at += batch.len;
            }
            None => at += 1,
        }
    }
    newest
}

/// The batch at `at`, when it is whole.
pub(super) fn batch(data: &[u8], at: usize, seq: u64, group: u64) -> Option<Batch> {
    let head = number(data, at)?;
    let (len, compression) = ((head >> 8) as usize, head as u8);
    if compression != 0 || len <= BATCH_HEADER + CHECKSUM || len > data.len() - at {
        return None;
    }
    let footer = usize::try_from(number(data, at + 8)?).ok()?;
    if footer < BATCH_HEADER || footer + CHECKSUM >= len {
        return None;
    }
    let items = checked(&data[at + footer..at + len], seq as u32)?;
    if footer > BATCH_HEADER {
        checked(&data[at + BATCH_HEADER..at + footer], 0)?;
    }
    Some(Batch { len, footer, marks: find_marks(items, group)? })
}

/// `data` without the checksum at its end, when that is right.
fn checked(data: &[u8], signature: u32) -> Option<&[u8]> {
    let (content, checksum) = data.split_at_checked(data.len().checked_sub(CHECKSUM)?)?;
    let stored = u32::from_le_bytes(checksum.try_into().ok()?) ^ signature;
    (!content.is_empty() && crc32fast::hash(content) == stored).then_some(content)
}

fn number(data: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(data.get(at..at + 8)?.try_into().ok()?))
}

fn find_marks(items: &[u8], group: u64) -> Option<Marks> {
    let mut rest = Items(items);
    let mut found = None;
    for _ in 0..rest.varint()? {
        let of = rest.varint()?;
        match rest.byte()? {
            ENTRIES => rest.skip_entries()?,
            COMMAND => rest.skip_command()?,
            KEY_VALUE => {
                let (key, value) = rest.key_value()?;
                if of == group && key == marks::KEY {
                    found = Some(Marks::decode(value?).ok()?);
                }
            }
            _ => return None,
        }
    }
    found
}

/// Walks through the items of a batch.
pub(super) struct Items<'a>(pub &'a [u8]);

impl<'a> Items<'a> {
    pub fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    pub fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.varint()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn skip_entries(&mut self) -> Option<()> {
        let count = self.varint()?;
        if count > 0 {
            self.varint()?;
        }
        for _ in 0..count {
            self.varint()?;
        }
        Some(())
    }

    fn skip_command(&mut self) -> Option<()> {
        if self.byte()? == COMPACT {
            self.varint()?;
        }
        Some(())
    }

    pub fn key_value(&mut self) -> Option<(&'a [u8], Option<&'a [u8]>)> {
        let kind = self.byte()?;
        let key = self.bytes()?;
        Some((key, if kind == PUT { Some(self.bytes()?) } else { None }))
    }
}
