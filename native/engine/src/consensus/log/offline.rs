//! Reading a log that no node has open, without changing a byte of it: raft-engine itself cuts torn ends off, removes
//! files and makes new ones when it opens a directory.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use protobuf::Message;
use raft_proto::eraftpb;

use super::env::DefaultFileSystem;
use super::files::append_seq;
use super::marks::Marks;
use super::scan::{self, BATCH_HEADER, COMMAND, COMPACT, ENTRIES, FILE_HEADER, Items, KEY_VALUE};
use super::state::corrupt;
use super::{guard, record};
use crate::consensus::types::{Entry, LogId, Payload, Vote};
use crate::error::{Code, Failure};

const REWRITTEN: &str = "rewrite";

/// Where an entry lies.
#[derive(Clone, Copy)]
struct Place {
    file: usize,
    offset: u64,
    len: usize,
}

/// A log as its files have it.
pub struct OfflineLog {
    dir: PathBuf,
    files: Vec<PathBuf>,
    bytes: u64,
    batches: u64,
    /// Where the newest file's whole batches end.
    end: u64,
    /// Number, file and offset of the batches that none behind them knows as durable.
    unvouched: VecDeque<(u64, usize, u64)>,
    marks: Marks,
    /// Index of the first of `places`.
    first: u64,
    places: VecDeque<Place>,
}

impl OfflineLog {
    /// Reads every file of the log of `group` in `dir` to its end and checks every checksum, that no batch is missing, and
    /// that the entries that should be there are. A torn end of the newest file is no damage. Nobody may have the log open.
    /// Fails with `Corrupt`, naming file and offset where there is one, and with `Io`.
    pub fn read(dir: &Path, group: u64) -> Result<OfflineLog, Failure> {
        refuse_rewritten(dir)?;
        let found = scan::list(dir)?;
        scan::verify(&DefaultFileSystem, &found.live, group, u64::MAX)?;
        let mut log = OfflineLog {
            dir: dir.to_path_buf(),
            files: found.live,
            bytes: 0,
            batches: 0,
            end: 0,
            unvouched: VecDeque::new(),
            marks: Marks::default(),
            first: 0,
            places: VecDeque::new(),
        };
        for file in 0..log.files.len() {
            log.replay(file, group)?;
        }
        log.check_range(found.missing.as_deref())?;
        Ok(log)
    }

    /// Number of files, and of bytes and batches in them.
    pub fn extent(&self) -> (usize, u64, u64) {
        (self.files.len(), self.bytes, self.batches)
    }

    /// The newest file, and where in it the log ends, in bytes. What follows is older than the file, or a torn write.
    pub fn end(&self) -> Option<(&Path, u64)> {
        self.files.last().map(|path| (path.as_path(), self.end))
    }

    /// A file, and the offset in it from which on damage cannot be told from a torn write: no batch behind knows what is there
    /// as durable. Damage to anything older is always found.
    pub fn vouched(&self) -> Option<(&Path, u64)> {
        let file = |(_, file, offset): &(u64, usize, u64)| (self.files[*file].as_path(), *offset);
        self.unvouched.front().map(file).or(self.end())
    }

    /// Indexes of the entries: the first, and one past the last.
    pub fn range(&self) -> (u64, u64) {
        self.marks.range()
    }

    /// The vote.
    pub fn vote(&self) -> Option<Vote> {
        self.marks.vote
    }

    /// The last log id; when every entry was purged, that of the last one purged.
    pub fn last(&self) -> Option<LogId> {
        self.marks.tail
    }

    /// Up to where the log was known to be committed.
    pub fn committed(&self) -> Option<LogId> {
        self.marks.committed
    }

    /// Up to where entries were removed, because a snapshot has them.
    pub fn purged(&self) -> Option<LogId> {
        self.marks.purged
    }

    /// The entry at `index`, with the file and the offset in bytes where it lies. Fails with `Invalid` when the log does not
    /// hold it, with `Corrupt` and with `Io`.
    pub fn entry(&self, index: u64) -> Result<(Entry, &Path, u64), Failure> {
        let (first, end) = self.range();
        let place = index.checked_sub(self.first).and_then(|at| self.places.get(at as usize));
        let Some(place) = place.filter(|_| (first..end).contains(&index)) else {
            return Err(Failure::invalid(format!("The log does not hold entry {index}.")));
        };
        let path = &self.files[place.file];
        let failed = |error: std::io::Error| Failure::io(format!("Reading {}", path.display()), &error);
        let mut data = vec![0; place.len];
        File::open(path).and_then(|file| file.read_exact_at(&mut data, place.offset)).map_err(failed)?;
        let malformed = |why: String| {
            corrupt(format!("{}: entry {index} at offset {} is malformed: {why}.", path.display(), place.offset))
        };
        let record = eraftpb::Entry::parse_from_bytes(&data).map_err(|error| malformed(error.to_string()))?;
        let entry = record::decode(record).map_err(|failure| malformed(failure.message))?;
        if entry.log_id.index != index {
            return Err(malformed(format!("it says that it is entry {}", entry.log_id.index)));
        }
        Ok((entry, path, place.offset))
    }

    /// Takes every entry apart, its commands too, and checks that terms never fall and that the last entry is the one that
    /// is noted. Returns how many commands there are. Fails with `Corrupt` and `Io`.
    pub fn check_entries(&self) -> Result<u64, Failure> {
        let (first, end) = self.range();
        let (mut before, mut commands) = (self.purged(), 0);
        for index in first..end {
            let (entry, path, offset) = self.entry(index)?;
            let place = || format!("{}: entry {index} at offset {offset}", path.display());
            if before.is_some_and(|before| before.leader_id.term > entry.log_id.leader_id.term) {
                return Err(corrupt(format!("{} has an older term than the one before it.", place())));
            }
            if let Payload::Normal(batch) = &entry.payload {
                let decoded = batch.decode().map_err(|failure| corrupt(format!("{}: {failure}", place())))?;
                commands += decoded.commands.len() as u64;
            }
            before = Some(entry.log_id);
        }
        if first < end && before != self.last() {
            let (dir, last) = (self.dir.display(), self.last());
            return Err(corrupt(format!("The log in {dir} should end with {last:?}; found {before:?}.")));
        }
        Ok(commands)
    }

    fn replay(&mut self, file: usize, group: u64) -> Result<(), Failure> {
        let path = self.files[file].clone();
        let failed = |error: std::io::Error| Failure::io(format!("Reading {}", path.display()), &error);
        let data = guard::read_file(&DefaultFileSystem, &path, u64::MAX).map_err(failed)?;
        let seq = append_seq(&path).unwrap_or(0);
        let mut at = FILE_HEADER;
        while let Some(batch) = scan::batch(&data, at, seq, group) {
            if self.batches > 0 && batch.marks.seq != self.marks.seq + 1 {
                let (found, before) = (batch.marks.seq, self.marks.seq);
                return Err(corrupt(format!(
                    "{}: batch {found} at offset {at} follows batch {before}; one is missing.",
                    path.display()
                )));
            }
            let items = &data[at + batch.footer..at + batch.len];
            let entries = (at + BATCH_HEADER) as u64;
            self.take(items, file, entries, group).ok_or_else(|| scan::damaged(&path, at))?;
            self.marks = batch.marks;
            self.unvouched.push_back((self.marks.seq, file, at as u64));
            while self.unvouched.front().is_some_and(|(seq, ..)| *seq <= self.marks.synced) {
                self.unvouched.pop_front();
            }
            self.batches += 1;
            at += batch.len;
        }
        self.bytes += data.len() as u64;
        self.end = at.min(data.len()) as u64;
        Ok(())
    }

    /// Follows the items of one batch, whose entries begin at offset `entries`; `None` when they make no sense.
    fn take(&mut self, items: &[u8], file: usize, entries: u64, group: u64) -> Option<()> {
        let mut items = Items(items);
        let mut done = 0;
        for _ in 0..items.varint()? {
            let ours = items.varint()? == group;
            match items.byte()? {
                ENTRIES => {
                    let count = items.varint()?;
                    let first = if count > 0 { items.varint()? } else { 0 };
                    for number in 0..count {
                        let end = items.varint()?;
                        let len = usize::try_from(end.checked_sub(done)?).ok()?;
                        let place = Place { file, offset: entries + done, len };
                        if ours {
                            self.put(first + number, place)?;
                        }
                        done = end;
                    }
                }
                COMMAND => {
                    let upto = if items.byte()? == COMPACT { items.varint()? } else { u64::MAX };
                    while ours && self.first < upto && self.places.pop_front().is_some() {
                        self.first += 1;
                    }
                }
                KEY_VALUE => drop(items.key_value()?),
                _ => return None,
            }
        }
        Some(())
    }

    /// Entry `index` lies at `place`; what was at and behind it is overwritten. `None` when it leaves a hole.
    fn put(&mut self, index: u64, place: Place) -> Option<()> {
        if self.places.is_empty() || index < self.first {
            self.places.clear();
            self.first = index;
        }
        let at = (index - self.first) as usize;
        (at <= self.places.len()).then(|| {
            self.places.truncate(at);
            self.places.push_back(place);
        })
    }

    fn check_range(&self, missing: Option<&Path>) -> Result<(), Failure> {
        let (first, end) = self.range();
        let held = (self.first, self.first + self.places.len() as u64);
        if first == end || (held.0 <= first && held.1 >= end) {
            return Ok(());
        }
        let missing = missing.map_or(String::new(), |path| format!(" {} is missing.", path.display()));
        let there = if held.0 == held.1 { "none".into() } else { format!("{} to {}", held.0, held.1 - 1) };
        Err(corrupt(format!(
            "The log in {} should hold the entries {first} to {}, but it holds {there}.{missing}",
            self.dir.display(),
            end - 1
        )))
    }
}

/// The store sees to it that raft-engine never rewrites anything; what another program made it rewrite is not read here.
fn refuse_rewritten(dir: &Path) -> Result<(), Failure> {
    let failed = |path: &Path, error: std::io::Error| Failure::io(format!("Reading {}", path.display()), &error);
    for entry in fs::read_dir(dir).map_err(|error| failed(dir, error))? {
        let path = entry.map_err(|error| failed(dir, error))?.path();
        if path.extension().is_some_and(|extension| extension == REWRITTEN) {
            let data = fs::read(&path).map_err(|error| failed(&path, error))?;
            if data.iter().skip(FILE_HEADER).any(|byte| *byte != 0) {
                let what = format!("{} holds rewritten entries, which Quorate never makes.", path.display());
                return Err(Failure::new(Code::Refused, what));
            }
        }
    }
    Ok(())
}
