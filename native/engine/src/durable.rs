//! What survives a power cut, and where to wait for it: durable names of directories, threads that may wait for the disk.

use crate::error::Failure;
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Makes `dir` and what is missing above it, and makes their names durable up to two levels above `dir`, whoever made
/// those: a log whose directory is gone after a power cut is lost. Fails with the operating system's error.
pub fn make_dir(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for above in dir.ancestors().skip(1).take(3) {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match sync_dir(above) {
            // Where this node may not even look it made nothing.
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Makes the names in `dir` durable. Fails with the operating system's error.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Runs `work` on a thread where it may wait for the disk.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Failure::internal(format!("Work on the disk ended early: {error}"))),
    }
}
