//! What survives a power cut, and where to wait for it: durable names of directories, threads that may wait for the disk.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use futures_util::future::{BoxFuture, FutureExt, ready};

use crate::disk::Disk;
use crate::error::Failure;
use crate::surroundings::is_inline;

/// Makes `dir` and what is missing above it, and makes their names durable up to two levels above `dir`, whoever made
/// those: a log whose directory is gone after a power cut is lost. Fails with the operating system's error.
pub fn make_dir(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    disk.create_dir(dir)?;
    for above in dir.ancestors().skip(1).take(3) {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match disk.sync_dir(above) {
            // Where this node may not even look it made nothing.
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Begins `work` at once where it may wait for the disk: on a thread for such work, or right here when this thread is
/// inline. Fails as `work` does, and with `Internal` when it panics.
pub fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> BoxFuture<'static, Result<T, Failure>> {
    if is_inline() {
        let done = catch_unwind(AssertUnwindSafe(work));
        return ready(done.unwrap_or_else(|_| Err(Failure::internal("Work on the disk panicked.")))).boxed();
    }
    let working = tokio::task::spawn_blocking(work);
    async move {
        match working.await {
            Ok(result) => result,
            Err(error) => Err(Failure::internal(format!("Work on the disk ended early: {error}"))),
        }
    }
    .boxed()
}
