//! Writing past the page cache: what a file holds is what was written, wherever that began and ended.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::consensus::log::direct::{BLOCK, CHUNK, DirectFileSystem, DirectWriter, open_direct};
use crate::consensus::log::env::{FileSystem, Handle, Permission, WriteExt};

/// A place or a number of bytes, often at the edge of a block.
fn some(random: &mut Random, most: usize) -> usize {
    let any = random.below(most as u64) as usize;
    match random.below(3) {
        0 => any,
        1 => any / BLOCK * BLOCK,
        _ => (any / BLOCK * BLOCK + random.below(3) as usize).saturating_sub(1),
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A writer to a new file of `len` bytes that are not zero, and what the file holds.
fn writer(path: &Path, len: usize, block: usize) -> (DirectWriter, Vec<u8>) {
    let held: Vec<u8> = (0..len).map(|at| (at % 251) as u8 | 1).collect();
    fs::write(path, &held).unwrap();
    let handle = DirectFileSystem.open(path, Permission::ReadWrite).unwrap();
    (DirectWriter::new(&handle, block).unwrap(), held)
}

fn put(writer: &mut DirectWriter, held: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    writer.write_all(bytes).unwrap();
    let end = at + bytes.len();
    if held.len() < end {
        held.resize(end, 0);
    }
    held[at..end].copy_from_slice(bytes);
}

/// As a log is written: one after the other, now and then from elsewhere, cut, made longer. Only what lies in the last block behind the
/// end of a write may be lost: it becomes zero.
fn wander(path: &Path, seed: u64, block: usize) -> DirectWriter {
    let mut random = Random(seed);
    let (mut writer, mut held) = writer(path, some(&mut random, 30 * BLOCK), block);
    let mut at = 0;
    for turn in 0..400u32 {
        match random.below(12) {
            0 => {
                at = some(&mut random, held.len() + 1).min(held.len());
                writer.seek(SeekFrom::Start(at as u64)).unwrap();
            }
            1 => {
                at = some(&mut random, held.len() + 1).min(held.len());
                WriteExt::truncate(&mut writer, at).unwrap();
                held.truncate(at);
            }
            2 => {
                let more = some(&mut random, 8 * BLOCK) + 1;
                writer.allocate(held.len(), more).unwrap();
                held.resize(held.len() + more, 0);
            }
            _ => {
                let bytes = vec![turn as u8 | 1; some(&mut random, 3 * BLOCK)];
                put(&mut writer, &mut held, at, &bytes);
                at += bytes.len();
            }
        }
        let found = fs::read(path).unwrap();
        assert_eq!(found.len(), held.len(), "turn {turn} of {seed}");
        assert_eq!(found[..at], held[..at], "turn {turn} of {seed}, before {at}");
        let rest = at.next_multiple_of(BLOCK).min(held.len());
        assert_eq!(found[rest..], held[rest..], "turn {turn} of {seed}, behind {rest}");
        held.copy_from_slice(&found);
    }
    writer
}

#[test]
fn a_file_holds_what_was_written_and_has_the_length_that_it_would_have() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    for seed in 1..20 {
        wander(&path, seed * 0x9e37_79b9, BLOCK);
    }
}

#[test]
fn the_inside_of_a_file_is_written_directly_where_that_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let (mut writer, mut held) = writer(&path, 4 * CHUNK, BLOCK);
    let could = writer.direct.is_some();
    for (at, len) in [(0, 100), (100, 2 * BLOCK), (100 + 2 * BLOCK, 2 * CHUNK + 7)] {
        assert_eq!(writer.fitting(len) > 0, could);
        put(&mut writer, &mut held, at, &vec![7; len]);
        assert_eq!(writer.kept, could.then_some(at + len), "the block that it ends in is known");
    }
    let end = 107 + 2 * BLOCK + 2 * CHUNK;
    assert_eq!(fs::read(&path).unwrap()[..end], held[..end]);
    // Over the end: the whole blocks inside, the rest through the page cache.
    let last = held.len() - 10;
    writer.seek(SeekFrom::Start(last as u64)).unwrap();
    assert_eq!(writer.fitting(20), if could { 10 } else { 0 });
    put(&mut writer, &mut held, last, &[9; 20]);
    assert_eq!(fs::read(&path).unwrap()[last..], held[last..]);
    // What others read meanwhile is what was written.
    let handle = Arc::new(DirectFileSystem.open(&path, Permission::ReadOnly).unwrap());
    assert_eq!(handle.file_size().unwrap(), held.len());
    let mut reader = DirectFileSystem.new_reader(handle).unwrap();
    let mut bytes = vec![0; end];
    reader.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, held[..end]);
}

/// A file that is used again may get its former name back when the power goes, and must then hold what it held.
#[test]
fn the_first_write_after_a_change_of_place_leaves_what_is_around_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let (mut writer, mut held) = writer(&path, 4 * BLOCK, BLOCK);
    for (at, len) in [(0, 69), (BLOCK + 5, 10), (2 * BLOCK - 5, 10)] {
        writer.seek(SeekFrom::Start(at as u64)).unwrap();
        put(&mut writer, &mut held, at, &vec![200; len]);
        assert_eq!(fs::read(&path).unwrap(), held, "{len} bytes at {at}");
    }
}

#[test]
fn where_direct_writes_are_refused_the_page_cache_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, vec![0; BLOCK]).unwrap();
    let refused = open_direct(&path).is_none_or(|file| file.write_at(&[1; 8], 8).is_err());
    // Blocks of 8 bytes are what no disk takes.
    let writer = wander(&path, 77, 8);
    assert_eq!(writer.direct.is_none(), refused);
}
