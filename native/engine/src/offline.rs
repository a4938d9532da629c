//! Looking into the data directory of a node that does not run, without changing anything in it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::consensus::log::OfflineLog;
use crate::consensus::types::LogId;
use crate::datadir::{self, NodeIdentity};
use crate::error::{Code, Failure};
use crate::kv::KvMachine;
use crate::machine::StateMachine;
use crate::node::books::Books;
use crate::node::forming;
use crate::snapshot;

const GROUP: &str = "group-0";
/// What sled calls its main file: without it there is no key-value store.
const STORE: &str = "db";

/// What was found out about one part of a data directory.
#[derive(Clone, Debug)]
pub struct Part {
    /// Which part.
    pub name: &'static str,
    /// What is there, in one sentence; or what is wrong, where, and the way out.
    pub found: Result<String, Failure>,
}

/// A data directory that no node has, and that none gets as long as this lives.
pub struct Offline {
    dir: PathBuf,
    /// Held, never read.
    _locks: Vec<File>,
}

/// What is needed to judge whether the parts belong together.
#[derive(Default)]
struct Seen {
    identity: Option<NodeIdentity>,
    forming: bool,
    log: Option<OfflineLog>,
    /// The last entry in the newest whole snapshot.
    snapshot: Option<LogId>,
    /// The last entry that the key-value store has applied.
    applied: Option<LogId>,
}

impl Offline {
    /// Takes the directory at `dir`. Makes no file. Fails with `Locked` when a node has it, with `Invalid` when it is no data
    /// directory, and with `Io`.
    pub fn open(dir: &Path) -> Result<Offline, Failure> {
        if !dir.join("node").exists() && !dir.join("forming").exists() && !dir.join(GROUP).exists() {
            return Err(Failure::invalid(format!("{} is not the data directory of a node.", dir.display())));
        }
        let mut locks = Vec::new();
        for place in [dir.to_path_buf(), dir.join(GROUP).join("log")] {
            locks.extend(datadir::hold(&place)?);
        }
        Ok(Offline { dir: dir.to_path_buf(), _locks: locks })
    }

    /// Who the node is. Fails with `Corrupt` and with `Io`.
    pub fn identity(&self) -> Result<Option<NodeIdentity>, Failure> {
        datadir::identity_in(&self.dir)
    }

    /// The log; see [`OfflineLog::read`].
    pub fn log(&self) -> Result<OfflineLog, Failure> {
        OfflineLog::read(&self.dir.join(GROUP).join("log"), 0)
    }

    /// Whether the node has a key-value store.
    pub fn has_store(&self) -> bool {
        self.dir.join(GROUP).join("state").join(STORE).exists()
    }

    /// Checks everything. The key-value store is checked on a copy in the empty directory `scratch`, because it cannot be opened
    /// without being written to. Blocks for as long as reading all of the directory takes.
    pub fn verify(&self, scratch: &Path) -> Vec<Part> {
        let mut seen = Seen::default();
        let mut parts = vec![
            Part { name: "node", found: self.check_identity(&mut seen) },
            Part { name: "forming", found: self.check_forming(&mut seen) },
            Part { name: "log", found: self.check_log(&mut seen) },
        ];
        self.check_snapshots(&mut seen, &mut parts);
        parts.push(Part { name: "state", found: self.check_state(scratch, &mut seen) });
        if let Some(log) = &seen.log {
            parts.push(Part { name: "together", found: check_together(log, &seen) });
        }
        parts
    }

    fn check_identity(&self, seen: &mut Seen) -> Result<String, Failure> {
        seen.identity = self.identity()?;
        Ok(match &seen.identity {
            Some(NodeIdentity { node, name, incarnation, cluster }) => {
                let cluster: String = cluster.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("\"{name}\", id {node:x}, cluster {cluster}, started {incarnation} times")
            }
            None => "belongs to no cluster yet".into(),
        })
    }

    fn check_forming(&self, seen: &mut Seen) -> Result<String, Failure> {
        let Some(stored) = datadir::forming_in(&self.dir)? else { return Ok("over".into()) };
        seen.forming = true;
        Ok(match forming::founders_stored(&stored)? {
            0 => "waits to be let into a cluster".into(),
            servers => format!("founds a cluster of {servers} servers"),
        })
    }

    fn check_log(&self, seen: &mut Seen) -> Result<String, Failure> {
        if !self.dir.join(GROUP).join("log").exists() {
            return match &seen.identity {
                Some(_) if !seen.forming => Err(lost_log(&self.dir)),
                _ => Ok("none yet".into()),
            };
        }
        let log = self.log()?;
        let commands = log.check_entries()?;
        if seen.identity.is_some() && !seen.forming && log.vote().is_none() && log.last().is_none() {
            return Err(lost_log(&self.dir));
        }
        let (files, bytes, batches) = log.extent();
        let (first, end) = log.range();
        let entries = if first == end { "no entries".into() } else { format!("entries {first} to {}", end - 1) };
        let place = log.end().map_or(String::new(), |(path, end)| {
            format!(", which end in {} at offset {end}", path.file_name().unwrap_or_default().to_string_lossy())
        });
        let vote = log.vote().map_or("no vote".into(), |vote| format!("vote of term {}", vote.leader_id.term));
        seen.log = Some(log);
        Ok(format!(
            "{entries} with {commands} commands, {vote}; {files} files, {bytes} bytes, {batches} batches{place}"
        ))
    }

    fn check_snapshots(&self, seen: &mut Seen, parts: &mut Vec<Part>) {
        let name = "snapshot";
        let all = match snapshot::check_all(&self.dir.join(GROUP).join("snapshots")) {
            Ok(all) => all,
            Err(failure) => return parts.push(Part { name, found: Err(failure) }),
        };
        if all.is_empty() {
            parts.push(Part { name, found: Ok("none".into()) });
        }
        for (path, checked) in all {
            let found = checked.and_then(|open| {
                let books = Books::from_notes(&open.notes)?;
                seen.snapshot = seen.snapshot.max(open.meta.last_log_id);
                let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let sessions = books.sessions.iter().count();
                Ok(format!("{file}: index {}, {} bytes, {sessions} sessions", open.index, open.file.len))
            });
            let found = found.map_err(|failure| {
                with_way_out(
                    failure,
                    &path,
                    "A start sets it aside and takes an older one, the state, or another member's.",
                )
            });
            parts.push(Part { name, found });
        }
    }

    fn check_state(&self, scratch: &Path, seen: &mut Seen) -> Result<String, Failure> {
        let state = self.dir.join(GROUP).join("state");
        if !self.has_store() {
            return Ok(if state.exists() { "not in the engine: the host's own".into() } else { "none".into() });
        }
        let copy = scratch.join("state");
        let failed = |error| Failure::io(format!("Copying {} to {}", state.display(), copy.display()), &error);
        copy_dir(&state, &copy).map_err(failed)?;
        let (mut machine, _reader) = KvMachine::open(&copy)?;
        if let Some(why) = machine.was_reset() {
            let why = why.split(" The damaged store was set aside").next().unwrap_or_default();
            let way_out = "A start sets it aside and rebuilds it from the snapshot and the log.";
            return Err(with_way_out(Failure::new(Code::Corrupt, why), &state, way_out));
        }
        let books = Books::from_notes(&machine.load_notes()?)?;
        seen.applied = books.applied.log_id;
        let upto = seen.applied.map_or("nothing".into(), |log_id| format!("entry {}", log_id.index));
        let behind = if seen.applied < seen.snapshot { "; a start brings it up to the snapshot" } else { "" };
        Ok(format!("applied up to {upto}, index {}; agrees with its digest{behind}", books.applied.index))
    }
}

/// Says where, when the failure does not, and what to do.
fn with_way_out(failure: Failure, path: &Path, way_out: &str) -> Failure {
    let named = failure.message.contains(&*path.to_string_lossy());
    let place = if named { String::new() } else { format!("{}: ", path.display()) };
    Failure::new(failure.code, format!("{place}{} {way_out}", failure.message))
}

fn lost_log(dir: &Path) -> Failure {
    let log = dir.join(GROUP).join("log");
    let what = format!(
        "{} is empty, though the node had a log. Empty the whole data directory; the node then joins its cluster again under \
         a new id and gets everything from there.",
        log.display()
    );
    Failure::new(Code::Corrupt, what)
}

/// Every entry must be in the log, in a snapshot, or in the state.
fn check_together(log: &OfflineLog, seen: &Seen) -> Result<String, Failure> {
    let purged = log.purged();
    let index = |log_id: Option<LogId>| log_id.map_or("nothing".into(), |log_id| format!("entry {}", log_id.index));
    let reached = seen.snapshot.max(seen.applied);
    // Others may have had entries on disk, and committed them, before this node had.
    let ends = if log.last() < reached {
        format!("; the log ends with {}, before {}, and will go on behind it", index(log.last()), index(reached))
    } else {
        String::new()
    };
    if purged <= seen.snapshot {
        return Ok(format!("purged up to {}, snapshot up to {}: no hole{ends}", index(purged), index(seen.snapshot)));
    }
    if purged <= reached {
        return Ok(format!(
            "purged up to {}, state up to {}: no hole; a start takes a snapshot of the state{ends}",
            index(purged),
            index(reached)
        ));
    }
    let what = format!(
        "The log begins after {}, the newest whole snapshot ends with {} and the state with {}: what lies between is not here. \
         Empty the data directory; the node then joins its cluster again and gets everything from there.",
        index(purged),
        index(seen.snapshot),
        index(seen.applied)
    );
    Err(Failure::new(Code::Corrupt, what))
}

fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
