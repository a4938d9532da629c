//! What is done to a file.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::rng::Rng;

/// One damage.
pub(super) struct Wound {
    /// Which file, relative to the data directory.
    pub file: PathBuf,
    /// What was done to it.
    pub what: &'static str,
    /// Whether it is the log file that was written last.
    pub newest_log: bool,
}

impl Wound {
    /// In which part of the directory what was done.
    pub fn kind(&self) -> String {
        let parts: Vec<_> = self.file.iter().map(|part| part.to_string_lossy()).collect();
        let place = if parts.len() > 2 { parts[1].to_string() } else { parts[0].to_string() };
        format!("{place} {}", self.what)
    }
}

/// Damages one file below `data`: each part of the directory is as likely, each file of it too.
pub(super) fn hurt(data: &Path, rng: &mut Rng) -> io::Result<Wound> {
    let mut parts: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for file in files(data)? {
        let part = file.strip_prefix(data).unwrap_or(&file).iter().take(2).collect::<PathBuf>();
        let part = if part.starts_with("group-0") { part } else { PathBuf::new() };
        parts.entry(part).or_default().push(file);
    }
    let parts: Vec<Vec<PathBuf>> = parts.into_values().collect();
    let part = rng.pick(&parts).cloned().unwrap_or_default();
    let file = rng.pick(&part).cloned().ok_or_else(|| io::Error::other("there is no file"))?;
    let newest = files(&data.join("group-0/log"))?.into_iter().filter(|path| is_log(path)).max();
    let newest_log = Some(&file) == newest.as_ref();
    let what = wound(&file, rng)?;
    Ok(Wound { file: file.strip_prefix(data).unwrap_or(&file).to_path_buf(), what, newest_log })
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "raftlog")
}

fn wound(file: &Path, rng: &mut Rng) -> io::Result<&'static str> {
    let mut content = fs::read(file)?;
    let len = content.len() as u64;
    let what = match rng.below(if len == 0 { 1 } else { 5 }) {
        0 => "removed",
        1 => "cut",
        2 => "one bit flipped",
        3 => "bytes overwritten",
        _ => "sector zeroed",
    };
    let at = rng.below(len) as usize;
    match what {
        "removed" => return fs::remove_file(file).map(|()| what),
        "cut" => content.truncate(at),
        "one bit flipped" => content[at] ^= 1 << rng.below(8),
        "bytes overwritten" => {
            let end = content.len().min(at + 1 + rng.below(64) as usize);
            content[at..end].fill_with(|| rng.next_u64() as u8);
        }
        _ => {
            let sector = at / 512 * 512;
            let end = content.len().min(sector + 512);
            content[sector..end].fill(0);
        }
    }
    fs::write(file, content).map(|()| what)
}

fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Makes `to` a copy of `from`.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    match fs::remove_dir_all(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    for file in files(from)? {
        let target = to.join(file.strip_prefix(from).unwrap_or(&file));
        target.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::copy(&file, &target)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_damage_changes_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        let mut seen = BTreeSet::new();
        for seed in 0..60 {
            let content: Vec<u8> = (0..3_000).map(|at| (at % 251 + 1) as u8).collect();
            fs::write(&file, &content).unwrap();
            seen.insert(wound(&file, &mut Rng::new(seed)).unwrap());
            assert_ne!(fs::read(&file).unwrap_or_default(), content);
        }
        assert_eq!(seen.len(), 5, "{seen:?}");
    }
}
