//! Directories of a run, and what a run that was killed left behind: mounts, loop devices, files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quorate_engine::Failure;

/// A directory `BASE/run-PID-…`, removed at the end unless it is to be kept.
pub struct WorkDir {
    path: PathBuf,
    keep: AtomicBool,
}

impl WorkDir {
    /// Makes a fresh one under `base`, after clearing what runs of processes that are gone left there. Fails with `Io`.
    pub fn new(base: &Path) -> Result<WorkDir, Failure> {
        let failed = |error: std::io::Error| Failure::io(format!("Making a directory in {}", base.display()), &error);
        fs::create_dir_all(base).map_err(failed)?;
        let base = base.canonicalize().map_err(failed)?;
        clear_left_overs(&base);
        let prefix = format!("run-{}-", std::process::id());
        let path = tempfile::Builder::new().prefix(&prefix).tempdir_in(&base).map_err(failed)?.keep();
        Ok(WorkDir { path, keep: AtomicBool::new(false) })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it there at the end: a person will want to look.
    pub fn keep(&self) {
        self.keep.store(true, Ordering::Relaxed);
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        clear_mounts(&self.path);
        if !self.keep.load(Ordering::Relaxed)
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            eprintln!("{} cannot be removed: {error}", self.path.display());
        }
    }
}

/// Runs `program` to its end. Fails with what it said on stderr.
pub fn run(program: &str, arguments: &[&str]) -> Result<String, Failure> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| Failure::io(format!("Running {program}"), &error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_string());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ");
    Err(Failure::internal(format!("{program} {}: {said}", arguments.join(" "))))
}

/// A flag that ^C and TERM set; a run looks at it between steps and then ends the orderly way. Fails with `Io`.
pub fn stop_flag() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let registered = signal_hook::flag::register(signal, flag.clone());
        registered.map_err(|error| Failure::io("Listening for signals", &error))?;
    }
    Ok(flag)
}

fn clear_left_overs(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("run-").and_then(|rest| rest.split('-').next());
        let gone = pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists());
        // What has no mounts and was kept stays: only a run that was killed leaves mounts.
        if gone && clear_mounts(&entry.path()) > 0 {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

/// Unmounts everything below `dir`, the newest first, and detaches the loop devices; gives how many mounts there were.
fn clear_mounts(dir: &Path) -> usize {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let below = |line: &&str| {
        let point = line.split(' ').nth(1).unwrap_or_default();
        Path::new(point).starts_with(dir)
    };
    let found: Vec<&str> = mounts.lines().filter(below).collect();
    for line in found.iter().rev() {
        let mut words = line.split(' ');
        let (device, point) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        report(run("umount", &["--lazy", point]));
        if device.starts_with("/dev/loop") {
            report(run("losetup", &["--detach", device]));
        }
    }
    found.len()
}

fn report(done: Result<String, Failure>) {
    if let Err(failure) = done {
        eprintln!("Clearing up: {failure}");
    }
}
