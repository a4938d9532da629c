//! The task `report`: reads the rows of all parts in a directory and writes what a person reads, `report.md` and plots as SVG.

mod plots;
mod read;
mod stats;
mod tables;
mod targets;

#[cfg(test)]
mod tests;

use std::path::Path;

use quorate_engine::{Code, Failure};

/// Writes the report of the rows in `directory` into it. Fails with `Corrupt` when a line was no row (the report is written
/// all the same, and names it), with `Invalid` when there is no row at all, and with `Io`.
pub fn run(directory: &Path) -> Result<(), Failure> {
    let found = read::all(directory)?;
    if found.rows.is_empty() && found.malformed.is_empty() {
        let message = format!("There are no rows in {}; `make bench` writes them.", directory.display());
        return Err(Failure::invalid(message));
    }
    let pictures = plots::write(&found.rows, directory)?;
    let path = directory.join("report.md");
    std::fs::write(&path, tables::report(&found, &pictures)).map_err(|error| Failure::io(path.display(), &error))?;
    println!("{}", tables::targets(&found.rows));
    eprintln!("The report is {}, with {} plots beside it.", path.display(), pictures.len());
    match found.malformed.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(Code::Corrupt, found.malformed.join("\n"))),
    }
}
