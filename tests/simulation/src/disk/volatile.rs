//! What of one file would not survive a power cut: for every sector that was written since the last sync, what it was and
//! every version since; and every length since.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use quorate_linear::rng::Rng;

/// What the disk writes as a whole, in bytes.
pub const SECTOR: u64 = 512;

type Sector = [u8; SECTOR as usize];

/// The versions of one sector: the durable one first, the present one last.
#[derive(Debug)]
struct Versions {
    all: Vec<Sector>,
    /// A sync of it failed: the kernel believes it to be clean, so no later sync writes it.
    forgotten: bool,
}

/// The unsynced part of one file.
#[derive(Debug)]
pub struct Volatile {
    sectors: BTreeMap<u64, Versions>,
    /// The durable length first, the present one last.
    lengths: Vec<u64>,
}

/// What a power cut took of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Sectors that went back to an older version.
    pub sectors: u64,
    /// Files of which some unsynced sectors survived and others did not.
    pub torn: u64,
}

impl Volatile {
    /// A file whose present content of `len` bytes is durable.
    pub fn durable(len: u64) -> Volatile {
        Volatile { sectors: BTreeMap::new(), lengths: vec![len] }
    }

    /// The present length in bytes.
    pub fn len(&self) -> u64 {
        self.lengths.last().copied().unwrap_or(0)
    }

    /// Writes `bytes` at `offset` of `file`, keeping what was there. Fails as the file does.
    pub fn write(&mut self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let sectors = offset / SECTOR..(offset + bytes.len() as u64).div_ceil(SECTOR);
        for sector in sectors.clone() {
            self.keep(file, sector)?;
        }
        file.write_all_at(bytes, offset)?;
        for sector in sectors {
            self.add_version(file, sector)?;
        }
        let end = offset + bytes.len() as u64;
        if end > self.len() {
            self.lengths.push(end);
        }
        Ok(())
    }

    /// Cuts or extends `file`. Fails as the file does.
    pub fn set_len(&mut self, file: &File, len: u64) -> io::Result<()> {
        let present = self.len();
        for sector in len / SECTOR..present.div_ceil(SECTOR) {
            self.keep(file, sector)?;
        }
        file.set_len(len)?;
        for sector in len / SECTOR..present.div_ceil(SECTOR) {
            self.add_version(file, sector)?;
        }
        if len != present {
            self.lengths.push(len);
        }
        Ok(())
    }

    /// The present content is durable, but for what an earlier failed sync made the kernel forget.
    pub fn synced(&mut self) {
        self.sectors.retain(|_, versions| versions.forgotten);
        self.lengths = vec![self.len()];
    }

    /// A sync failed: nothing became durable, and no later sync will make it so unless it is written again.
    pub fn sync_failed(&mut self) {
        self.sectors.values_mut().for_each(|versions| versions.forgotten = true);
    }

    /// True when everything is durable.
    pub fn is_durable(&self) -> bool {
        self.sectors.is_empty() && self.lengths.len() == 1
    }

    /// The power goes: each unsynced sector ends as one of its versions, the length as one of its. `survive` is how many in a
    /// hundred keep their newest version without being asked. Fails as the file does.
    pub fn cut(&mut self, file: &File, rng: &mut Rng, survive: u64) -> io::Result<Lost> {
        let (mut reverted, mut kept) = (0, 0);
        let len = if rng.chance(survive) { self.len() } else { rng.pick(&self.lengths).copied().unwrap_or(0) };
        file.set_len(len.max(self.len()))?;
        for (sector, versions) in &self.sectors {
            let newest = versions.all.len() - 1;
            let chosen = if rng.chance(survive) { newest } else { rng.below(newest as u64 + 1) as usize };
            if chosen == newest {
                kept += 1;
                continue;
            }
            reverted += 1;
            file.write_all_at(&versions.all[chosen][..], sector * SECTOR)?;
        }
        file.set_len(len)?;
        *self = Volatile::durable(len);
        Ok(Lost { sectors: reverted, torn: u64::from(reverted > 0 && kept > 0) })
    }

    /// Remembers the durable version of `sector`, unless one is kept already.
    fn keep(&mut self, file: &File, sector: u64) -> io::Result<()> {
        if let Entry::Vacant(vacant) = self.sectors.entry(sector) {
            vacant.insert(Versions { all: vec![read_sector(file, sector)?], forgotten: false });
        }
        Ok(())
    }

    fn add_version(&mut self, file: &File, sector: u64) -> io::Result<()> {
        let present = read_sector(file, sector)?;
        if let Some(versions) = self.sectors.get_mut(&sector) {
            versions.all.push(present);
            versions.forgotten = false;
        }
        Ok(())
    }
}

/// A sector of `file`, with zeroes for what lies behind its end.
fn read_sector(file: &File, sector: u64) -> io::Result<Sector> {
    let mut bytes: Sector = [0; SECTOR as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], sector * SECTOR + filled as u64)? {
            0 => break,
            more => filled += more,
        }
    }
    Ok(bytes)
}
