//! The task `report`: reads the rows of all parts in a directory and writes what a person reads, `report.md` and plots as SVG.

mod plots;
mod read;
mod stats;
mod tables;
mod targets;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use quorate_engine::{Code, Failure};

/// Between these lines of a document stand the tables of the report.
const BEGIN: &str = "<!-- report begins -->";
const END: &str = "<!-- report ends -->";

/// Writes the report of the rows in `directory` into it, and its tables into the document `into`, if there is one. Fails with `Corrupt` when a line was no row (the report is written
/// all the same, and names it), with `Invalid` when there is no row at all, and with `Io`.
pub fn run(directory: &Path, into: Option<&PathBuf>) -> Result<(), Failure> {
    let found = read::all(directory)?;
    if found.rows.is_empty() && found.malformed.is_empty() {
        let message = format!("There are no rows in {}; `make bench` writes them.", directory.display());
        return Err(Failure::invalid(message));
    }
    let pictures = plots::write(&found.rows, directory)?;
    let path = directory.join("report.md");
    std::fs::write(&path, tables::report(&found, &pictures)).map_err(|error| Failure::io(path.display(), &error))?;
    if let Some(document) = into {
        replace(document, &tables::report(&found, &[]))?;
    }
    println!("{}", tables::targets(&found.rows));
    eprintln!("The report is {}, with {} plots beside it.", path.display(), pictures.len());
    match found.malformed.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(Code::Corrupt, found.malformed.join("\n"))),
    }
}

/// Replaces what stands between the two lines of `document` by `report`, its headings one level lower. Fails with `Invalid`
/// when the lines are not there, and with `Io`.
fn replace(document: &Path, report: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::io(document.display(), &error);
    let text = std::fs::read_to_string(document).map_err(failed)?;
    let absent = || Failure::invalid(format!("{} has no lines {BEGIN} and {END}.", document.display()));
    let (before, rest) = text.split_once(BEGIN).ok_or_else(absent)?;
    let (_, after) = rest.split_once(END).ok_or_else(absent)?;
    let lowered = |line: &str| if line.starts_with('#') { format!("#{line}") } else { line.to_string() };
    let report: Vec<String> = report.trim_end().lines().map(lowered).collect();
    std::fs::write(document, format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", report.join("\n"))).map_err(failed)
}
