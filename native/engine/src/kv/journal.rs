//! The layer that is being written to sled, in a file of its own, durable before sled sees the first of it.
//!
//! sled takes a layer key by key: as one batch it would hold up every read, and keep in memory all that it replaces until the end. So a
//! crash may leave half a layer in sled. The journal makes it whole: what it holds are values, not changes, so writing them again
//! does no harm. Two files take turns; one is written over only when sled has what it holds durably.
//!
//! ```text
//! file := "QKVL" · number u64 · own record bytes · slots u32 · (key bytes · present u8 · [stored bytes])* · crc32 u32 of what precedes
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use sled::IVec;

use super::layers::{Change, Layer};
use super::record::Meta;
use crate::error::{Code, Failure};
use crate::limits::{ENTRY_BYTES_MAX, KEY_BYTES_MAX};

const NAMES: [&str; 2] = ["layer-0", "layer-1"];
const MAGIC: &[u8; 4] = b"QKVL";
const HEAD_BYTES: usize = 12;
const BUFFER_BYTES: usize = 64 << 10;
/// A field is an entry with its head, or a note, of which the largest is the membership.
const FIELD_BYTES_MAX: usize = ENTRY_BYTES_MAX + KEY_BYTES_MAX;

pub(super) struct Journal {
    files: [File; 2],
}

/// What a whole file holds.
pub(super) struct Journaled {
    pub meta: Meta,
    pub changes: Vec<Change>,
}

impl Journal {
    /// Opens the files in `dir`, or makes them.
    pub fn open(dir: &Path) -> io::Result<Journal> {
        let open = |name| OpenOptions::new().read(true).write(true).create(true).truncate(false).open(dir.join(name));
        Ok(Journal { files: [open(NAMES[0])?, open(NAMES[1])?] })
    }

    /// Makes `layer`, the one of this `number`, durable. What sled has of the layer two before must be durable.
    pub fn write(&mut self, number: u64, layer: &Layer) -> io::Result<()> {
        let file = self.file(number);
        file.seek(SeekFrom::Start(0))?;
        let mut out = Summed { inner: BufWriter::with_capacity(BUFFER_BYTES, file), hash: crc32fast::Hasher::new() };
        out.write_all(MAGIC)?;
        out.write_all(&number.to_le_bytes())?;
        put(&mut out, &layer.meta.store())?;
        out.write_all(&(layer.slots.len() as u32).to_le_bytes())?;
        for (key, stored) in &layer.slots {
            put(&mut out, key)?;
            out.write_all(&[u8::from(stored.is_some())])?;
            if let Some(stored) = stored {
                put(&mut out, stored)?;
            }
        }
        let sum = out.hash.finalize();
        out.inner.write_all(&sum.to_le_bytes())?;
        out.inner.into_inner().map_err(io::IntoInnerError::into_error)?.sync_data()
    }

    /// The layer of this `number`, if it is there and whole. Fails with `Io`.
    pub fn read(&mut self, number: u64) -> Result<Option<Journaled>, Failure> {
        match read(self.file(number), number) {
            Ok(found) => Ok(Some(found)),
            // Damaged, torn, another one, or none.
            Err(failure) if failure.code == Code::Corrupt => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Forgets a layer of this `number`: one that sled does not come to any more.
    pub fn forget(&mut self, number: u64) -> io::Result<()> {
        let file = self.file(number);
        let mut head = [0; HEAD_BYTES];
        file.seek(SeekFrom::Start(0))?;
        match file.read_exact(&mut head) {
            Ok(()) if u64::from_le_bytes(tail(&head)) >= number => file.set_len(0),
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn file(&mut self, number: u64) -> &mut File {
        &mut self.files[(number % 2) as usize]
    }
}

fn tail(head: &[u8; HEAD_BYTES]) -> [u8; 8] {
    let mut number = [0; 8];
    number.copy_from_slice(&head[MAGIC.len()..]);
    number
}

fn read(file: &mut File, number: u64) -> Result<Journaled, Failure> {
    file.seek(SeekFrom::Start(0)).map_err(|error| failure(&error))?;
    let mut input = Summing { inner: BufReader::with_capacity(BUFFER_BYTES, file), hash: crc32fast::Hasher::new() };
    let head = input.array::<HEAD_BYTES>()?;
    if head[..MAGIC.len()] != *MAGIC || u64::from_le_bytes(tail(&head)) != number {
        return Err(damaged());
    }
    let meta = Meta::parse(&input.bytes()?)?;
    let slots = u32::from_le_bytes(input.array()?);
    let mut changes = Vec::new();
    for _ in 0..slots {
        let key = IVec::from(input.bytes()?);
        let stored = match input.array()? {
            [0] => None,
            [1] => Some(IVec::from(input.bytes()?)),
            _ => return Err(damaged()),
        };
        changes.push((key, stored));
    }
    let sum = input.hash.clone().finalize();
    if u32::from_le_bytes(input.array()?) != sum {
        return Err(damaged());
    }
    Ok(Journaled { meta, changes })
}

fn damaged() -> Failure {
    Failure::new(Code::Corrupt, "The journal holds no whole layer.")
}

fn failure(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged(),
        _ => Failure::io("Reading the journal", error),
    }
}

fn put(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(&(bytes.len() as u32).to_le_bytes())?;
    out.write_all(bytes)
}

/// Sums up what it passes on.
struct Summed<W> {
    inner: W,
    hash: crc32fast::Hasher,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Sums up what it reads. Allocates no more than the largest field, whatever a damaged file says.
struct Summing<R> {
    inner: R,
    hash: crc32fast::Hasher,
}

impl<R: Read> Summing<R> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let mut array = [0; N];
        self.fill(&mut array)?;
        Ok(array)
    }

    fn bytes(&mut self) -> Result<Vec<u8>, Failure> {
        let len = u32::from_le_bytes(self.array()?) as usize;
        if len > FIELD_BYTES_MAX {
            return Err(damaged());
        }
        let mut bytes = vec![0; len];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Failure> {
        self.inner.read_exact(bytes).map_err(|error| failure(&error))?;
        self.hash.update(bytes);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::kv::layers::Layers;

    fn layer() -> std::sync::Arc<Layer> {
        let mut layers = Layers::default();
        let changes = [("a", Some("1")), ("b", None), ("c", Some(""))];
        let changes = changes.map(|(key, stored)| (IVec::from(key), stored.map(IVec::from)));
        layers.enter(changes, Meta { revision: 9, ..Meta::default() });
        layers.seal().unwrap()
    }

    #[test]
    fn a_layer_comes_back_whole_under_its_number_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        assert!(journal.read(1).unwrap().is_none());
        journal.write(7, &layer()).unwrap();
        let found = journal.read(7).unwrap().unwrap();
        assert_eq!(found.meta.revision, 9);
        assert!(found.changes.iter().map(|(key, stored)| (key, stored)).eq(&layer().slots));
        assert!(journal.read(5).unwrap().is_none() && journal.read(8).unwrap().is_none());
        let path = dir.path().join(NAMES[1]);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 4;
            std::fs::write(&path, &damaged).unwrap();
            assert!(journal.read(7).unwrap().is_none(), "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(journal.read(7).unwrap().is_none(), "cut at {at}");
        }
        std::fs::write(&path, [&whole[..], b"what a longer one left"].concat()).unwrap();
        assert!(journal.read(7).unwrap().is_some());
        journal.forget(9).unwrap();
        assert!(journal.read(7).unwrap().is_some());
        journal.forget(5).unwrap();
        assert!(journal.read(7).unwrap().is_none());
    }
}
