//! What lies under a directory: a figure with fsync means nothing on a file system in memory.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use quorate_engine::Failure;
use tempfile::TempDir;

/// What `st_blocks` counts in, whatever the file system's own blocks.
const BLOCK_BYTES: u64 = 512;

/// The type of the file system that holds `path`, as the kernel names it; `unknown` where there is no /proc.
pub fn file_system(path: &Path) -> String {
    let (Ok(path), Ok(mounts)) = (path.canonicalize(), std::fs::read_to_string("/proc/self/mountinfo")) else {
        return "unknown".into();
    };
    field(&path, &mounts, 0).unwrap_or("unknown").to_string()
}

/// The device that holds `path`, as the kernel names it; `unknown` where there is no /proc.
pub fn device(path: &Path) -> String {
    let (Ok(path), Ok(mounts)) = (path.canonicalize(), std::fs::read_to_string("/proc/self/mountinfo")) else {
        return "unknown".into();
    };
    field(&path, &mounts, 1).unwrap_or("unknown").to_string()
}

/// Bytes that a directory takes on its disk, with all that is in it. What vanishes meanwhile counts nothing.
pub fn taken(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => taken(&entry.path()),
        Ok(data) => data.blocks() * BLOCK_BYTES,
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

/// A directory in `parent` that is removed when the value is dropped. Fails with `Io`.
pub fn temporary(parent: &Path) -> Result<TempDir, Failure> {
    let failed = |error| Failure::io(format!("Making a directory in {}", parent.display()), &error);
    tempfile::Builder::new().prefix("quorate-bench-").tempdir_in(parent).map_err(failed)
}

/// Warns when syncs of `path` reach no disk.
pub fn warn_of_memory(path: &Path) {
    let kind = file_system(path);
    if matches!(kind.as_str(), "tmpfs" | "ramfs" | "devtmpfs") {
        eprintln!("{} is on {kind}: nothing reaches a disk there. Take --dir on a disk.", path.display());
    }
}

/// mountinfo(5): the fifth field is where it is mounted; after a lone hyphen come its type and its device.
fn field<'a>(path: &Path, mounts: &'a str, which: usize) -> Option<&'a str> {
    let mounted = mounts.lines().filter_map(|line| {
        let place = line.split(' ').nth(4)?;
        let found = line.split(" - ").nth(1)?.split(' ').nth(which)?;
        path.starts_with(place).then_some((place.len(), found))
    });
    // Of two mounts in one place the later one shows.
    mounted.max_by_key(|(length, _)| *length).map(|(_, found)| found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_counts() {
        let mounts = "21 1 254:0 / / rw - ext4 /dev/vda rw\n30 21 0:5 / /tmp rw,nosuid shared:1 - tmpfs tmpfs rw\n";
        assert_eq!(field(Path::new("/tmp/x"), mounts, 0), Some("tmpfs"));
        assert_eq!(field(Path::new("/tmpfoo"), mounts, 0), Some("ext4"));
        assert_eq!(field(Path::new("/tmpfoo"), mounts, 1), Some("/dev/vda"));
    }

    #[test]
    fn what_a_directory_takes_is_counted_to_its_depths() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("deep")).unwrap();
        std::fs::write(dir.path().join("deep/file"), vec![1; 100_000]).unwrap();
        std::fs::File::open(dir.path().join("deep/file")).unwrap().sync_all().unwrap();
        assert!((100_000..200_000).contains(&taken(dir.path())), "{}", taken(dir.path()));
        assert_eq!(taken(&dir.path().join("none")), 0);
    }
}
