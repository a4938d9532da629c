//! What every run did, kept as JSON lines, so that counts over many runs are sums and no guesses.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use quorate_engine::Failure;
use serde::Serialize;

/// A file that lines are added to.
pub struct Tally(PathBuf);

impl Tally {
    /// The tally at `path`, made with the first line.
    pub fn new(path: &Path) -> Tally {
        Tally(path.to_path_buf())
    }

    /// Adds `line`. Fails with `Io`.
    pub fn add(&self, line: &impl Serialize) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::io(format!("Writing {}", self.0.display()), &error);
        let mut text = serde_json::to_string(line).map_err(|error| Failure::internal(error.to_string()))?;
        text.push('\n');
        let mut file = File::options().create(true).append(true).open(&self.0).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)
    }
}
