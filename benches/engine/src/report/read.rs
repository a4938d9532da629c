//! All rows of a directory, and which lines were none.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use quorate_engine::Failure;

use crate::row::Row;

/// What the files of a directory hold.
#[derive(Default)]
pub struct Found {
    /// The rows, file after file in the order of their names, as they stand.
    pub rows: Vec<Row>,
    /// A sentence for each line that is no row, with its file and number.
    pub malformed: Vec<String>,
    /// Parts whose file is older than that of the machine's facts: they were not measured by the latest run.
    pub earlier: Vec<String>,
}

/// Reads every `*.jsonl` in `directory`. Fails with `Io`.
pub fn all(directory: &Path) -> Result<Found, Failure> {
    let failed = |error: std::io::Error| Failure::io(directory.display(), &error);
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        files.push(entry.map_err(failed)?.path());
    }
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    let began = written(&directory.join("machine.jsonl"));
    let mut found = Found::default();
    for path in files {
        let before = found.rows.len();
        read(&path, &mut found)?;
        if let (Some(row), true) = (found.rows.get(before), written(&path) < began) {
            let part = row.part.clone();
            found.earlier.push(part);
        }
    }
    Ok(found)
}

fn written(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|data| data.modified()).ok()
}

fn read(path: &Path, found: &mut Found) -> Result<(), Failure> {
    let bytes = std::fs::read(path).map_err(|error| Failure::io(path.display(), &error))?;
    for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match serde_json::from_slice(line) {
            Ok(row) => found.rows.push(row),
            Err(why) => found.malformed.push(format!("{}, line {}: {why}", path.display(), at + 1)),
        }
    }
    Ok(())
}
