//! `quorate verify DIR` and `quorate log DIR [--from N] [--to N]`: the data directory of a node that does not run, checked and
//! read without changing anything in it.
#![forbid(unsafe_code)]

mod describe;

use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use quorate_engine::Failure;
use quorate_engine::offline::Offline;

const USAGE: &str = "\
quorate verify DIR                     checks everything in a node's data directory
quorate log DIR [--from N] [--to N]    prints the entries of its log, from log index N to log index N

The node must not run. Nothing is changed in DIR; `verify` copies the key-value store to a temporary directory (TMPDIR).
Exit status: 0 all is well, 1 something is wrong, 2 it could not be found out (in use, no such directory, no such option).";

/// All is well; something is wrong; it could not be found out.
const SOUND: u8 = 0;
const WRONG: u8 = 1;
const UNKNOWN: u8 = 2;

enum Task {
    Help,
    Verify(PathBuf),
    Log(PathBuf, u64, u64),
}

fn main() -> ExitCode {
    // sled tells of damage by panicking, which is caught and reported as damage.
    std::panic::set_hook(Box::new(|panic| eprintln!("While reading: {panic}")));
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut out = BufWriter::new(io::stdout().lock());
    let done = read(&words).and_then(|task| run(task, &mut out));
    let flushed = out.flush().map_err(|error| printing(&error));
    ExitCode::from(match done.and_then(|status| flushed.map(|()| status)) {
        Ok(status) => status,
        // Whoever read the output had enough of it.
        Err(Trouble::Unread) => SOUND,
        Err(Trouble::Failed(failure)) => {
            eprintln!("{failure}");
            UNKNOWN
        }
    })
}

enum Trouble {
    Unread,
    Failed(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        Trouble::Failed(failure)
    }
}

fn printing(error: &io::Error) -> Trouble {
    match error.kind() {
        ErrorKind::BrokenPipe => Trouble::Unread,
        _ => Trouble::Failed(Failure::io("Printing", error)),
    }
}

fn read(words: &[String]) -> Result<Task, Trouble> {
    let wrong = |what: String| Trouble::Failed(Failure::invalid(format!("{what}\n\n{USAGE}")));
    let (mut dir, mut from, mut to) = (None, 0, u64::MAX);
    let mut rest = words.iter();
    let Some(task) = rest.next() else { return Err(wrong("Say what to do.".into())) };
    if matches!(task.as_str(), "help" | "--help" | "-h") {
        return Ok(Task::Help);
    }
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--from" | "--to" if task == "log" => {
                let number = rest.next().and_then(|number| number.parse().ok());
                let number = number.ok_or_else(|| wrong(format!("{word} needs a log index.")))?;
                *(if word == "--from" { &mut from } else { &mut to }) = number;
            }
            option if option.starts_with("--") => return Err(wrong(format!("There is no option {option} here."))),
            path if dir.is_none() => dir = Some(PathBuf::from(path)),
            other => return Err(wrong(format!("{other:?} is one word too many."))),
        }
    }
    match (task.as_str(), dir) {
        ("verify", Some(dir)) => Ok(Task::Verify(dir)),
        ("log", Some(dir)) => Ok(Task::Log(dir, from, to)),
        ("verify" | "log", None) => Err(wrong("Which directory?".into())),
        (other, _) => Err(wrong(format!("There is no {other:?}."))),
    }
}

fn run(task: Task, out: &mut impl Write) -> Result<u8, Trouble> {
    match task {
        Task::Help => writeln!(out, "{USAGE}").map(|()| SOUND).map_err(|error| printing(&error)),
        Task::Verify(dir) => verify(&dir, out),
        Task::Log(dir, from, to) => log(&dir, from, to, out),
    }
}

fn verify(dir: &Path, out: &mut impl Write) -> Result<u8, Trouble> {
    let offline = Offline::open(dir)?;
    let scratch = tempfile::tempdir().map_err(|error| Failure::io("Making a temporary directory", &error))?;
    let mut status = SOUND;
    for part in offline.verify(scratch.path()) {
        let line = match &part.found {
            Ok(found) => format!("ok     {:<9} {found}", part.name),
            Err(failure) => {
                status = WRONG;
                format!("WRONG  {:<9} {failure}", part.name)
            }
        };
        writeln!(out, "{line}").map_err(|error| printing(&error))?;
    }
    Ok(status)
}

fn log(dir: &Path, from: u64, to: u64, out: &mut impl Write) -> Result<u8, Trouble> {
    let offline = Offline::open(dir)?;
    let log = match offline.log() {
        Ok(log) => log,
        Err(failure) => {
            eprintln!("{failure}");
            return Ok(WRONG);
        }
    };
    let (first, end) = log.range();
    for index in from.max(first)..to.saturating_add(1).min(end) {
        let described = log.entry(index).and_then(|(entry, ..)| describe::entry(&entry, offline.has_store()));
        match described {
            Ok(lines) => out.write_all(lines.as_bytes()).map_err(|error| printing(&error))?,
            Err(failure) => {
                eprintln!("{failure}");
                return Ok(WRONG);
            }
        }
    }
    Ok(SOUND)
}
