//! Wall clocks that jump, by libfaketime. Monotonic time stays as it is: what jumps on a real machine is the wall clock.

use std::fs;
use std::path::{Path, PathBuf};

use quorate_engine::Failure;

use crate::rng::Rng;

/// How far a clock is off at most, in seconds either way.
const OFF_SECONDS_MAX: u64 = 200_000;

/// The clock of one process.
pub struct Clock(PathBuf);

/// Where libfaketime is. Fails with the reason why there are no clocks here.
pub fn library() -> Result<PathBuf, String> {
    let places = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let found = places.map(|place| place.path().join("faketime/libfaketime.so.1")).find(|path| path.exists());
    found.ok_or_else(|| "clocks do not jump: libfaketime is not installed (Debian: faketime)".into())
}

impl Clock {
    /// A right clock, ruled by the file at `path`. Fails with `Io`.
    pub fn new(path: &Path) -> Result<Clock, Failure> {
        let clock = Clock(path.to_path_buf());
        clock.set(0)?;
        Ok(clock)
    }

    /// What the environment of a process needs to go by this clock.
    pub fn environment(&self, library: &Path) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let pairs = [
            ("LD_PRELOAD", text(library)),
            ("FAKETIME_TIMESTAMP_FILE", text(&self.0)),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("DONT_FAKE_MONOTONIC", "1".into()),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }

    /// Makes the clock jump, forwards or backwards, far or not so far. Fails with `Io`.
    pub fn jump(&self, rng: &mut Rng) -> Result<(), Failure> {
        let most = rng.pick(&[1, 10, 1_000, OFF_SECONDS_MAX]).copied().unwrap_or(1);
        let off = rng.below(2 * most + 1) as i64 - most as i64;
        self.set(off)
    }

    fn set(&self, off: i64) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::io("Setting a clock", &error);
        // A clock is read at any moment: the file is replaced whole.
        let beside = self.0.with_extension("new");
        fs::write(&beside, format!("{off:+}\n")).map_err(failed)?;
        fs::rename(&beside, &self.0).map_err(failed)
    }
}
