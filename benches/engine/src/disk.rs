//! What lies under a directory: a figure with fsync means nothing on a file system in memory.

use std::path::Path;

/// The type of the file system that holds `path`, as the kernel names it; `unknown` where there is no /proc.
pub fn file_system(path: &Path) -> String {
    let (Ok(path), Ok(mounts)) = (path.canonicalize(), std::fs::read_to_string("/proc/self/mountinfo")) else {
        return "unknown".into();
    };
    of(&path, &mounts).unwrap_or("unknown").to_string()
}

/// Warns when syncs of `path` reach no disk.
pub fn warn_of_memory(path: &Path) {
    let kind = file_system(path);
    if matches!(kind.as_str(), "tmpfs" | "ramfs" | "devtmpfs") {
        eprintln!("{} is on {kind}: nothing reaches a disk there. Take --dir on a disk.", path.display());
    }
}

/// mountinfo(5): the fifth field is where it is mounted, the first after a lone hyphen its type.
fn of<'a>(path: &Path, mounts: &'a str) -> Option<&'a str> {
    let mounted = mounts.lines().filter_map(|line| {
        let place = line.split(' ').nth(4)?;
        let kind = line.split(" - ").nth(1)?.split(' ').next()?;
        path.starts_with(place).then_some((place.len(), kind))
    });
    // Of two mounts in one place the later one shows.
    mounted.max_by_key(|(length, _)| *length).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_counts() {
        let mounts = "21 1 254:0 / / rw - ext4 /dev/vda rw\n30 21 0:5 / /tmp rw,nosuid shared:1 - tmpfs tmpfs rw\n";
        assert_eq!(of(Path::new("/tmp/x"), mounts), Some("tmpfs"));
        assert_eq!(of(Path::new("/tmpfoo"), mounts), Some("ext4"));
    }
}
