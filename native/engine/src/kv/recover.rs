//! Opening a store that may be damaged.
//!
//! sled holds no only copy, so damage is no reason to refuse to start: the directory is set aside for a person to
//! look at, and the store starts empty.

use std::collections::HashMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use sled::Batch;

use super::database;
use super::panics::panic_message;
use super::record::{DATA, Digest, META, Meta, NOTE, NOTE_END, Phase, Record, fingerprint};
use super::seal;
use super::store::{Store, sync_dir};
use crate::error::{Code, Failure};
use crate::limits::{KEPT_DATABASES_MAX, SET_ASIDE_MAX};
use crate::surroundings::wall_ms;

/// An open store, whole, and what is known of it.
pub(super) struct Recovered {
    pub store: Store,
    pub meta: Meta,
    /// Fingerprint of each note.
    pub notes: HashMap<Vec<u8>, u64>,
    /// Why an earlier one was set aside.
    pub reset: Option<String>,
}

/// Opens the store in `dir` or makes one; sets a damaged one aside. Fails with `Locked`, `Io`, and as [`replace`] does.
pub(super) fn open(dir: &Path) -> Result<Recovered, Failure> {
    fs::create_dir_all(dir).map_err(|error| Failure::io(format!("Making {}", dir.display()), &error))?;
    match attempt(dir) {
        Err(Refusal { kept: true, .. }) => replace(dir),
        Err(Refusal { failure, .. }) if matches!(failure.code, Code::Corrupt | Code::Internal) => {
            start_empty(dir, &failure)
        }
        other => other.map_err(|refusal| refusal.failure),
    }
}

/// Sets the store in `dir`, which this process keeps open for ever, aside, and makes an empty one. Fails with `Io`, and with
/// `Unavailable` when that happened too often.
pub(super) fn replace(dir: &Path) -> Result<Recovered, Failure> {
    if database::kept() > KEPT_DATABASES_MAX {
        let message = "sled failed too often, and keeps memory that only a new process has back: restart this one.";
        return Err(Failure::new(Code::Unavailable, message));
    }
    start_empty(dir, &Failure::new(Code::Io, "sled could not write a part of the store, and cannot close it any more."))
}

fn start_empty(dir: &Path, damage: &Failure) -> Result<Recovered, Failure> {
    let aside = set_aside(dir)?;
    let reason = format!("{damage} The store was set aside as {}.", aside.display());
    tracing::error!("The key-value store in {} starts empty: {reason}", dir.display());
    fs::create_dir_all(dir).map_err(|error| Failure::io(format!("Making {}", dir.display()), &error))?;
    let recovered = attempt(dir).map_err(|refusal| refusal.failure)?;
    Ok(Recovered { reset: Some(reason), ..recovered })
}

/// Why a store was not opened.
struct Refusal {
    failure: Failure,
    /// Its directory stays locked as long as this process lives.
    kept: bool,
}

fn attempt(dir: &Path) -> Result<Recovered, Refusal> {
    let sealed = seal::take(dir);
    let mut ending = None;
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let store = Store::open(dir)?;
        ending = Some(store.db.ending());
        load(store, sealed)
    }));
    let opened = opened.unwrap_or_else(|panic| {
        Err(Failure::new(Code::Corrupt, format!("sled panicked at open: {}.", panic_message(panic.as_ref()))))
    });
    opened.map_err(|failure| Refusal { failure, kept: ending.is_some_and(|ending| ending.is_kept()) })
}

fn load(mut store: Store, sealed: bool) -> Result<Recovered, Failure> {
    let meta = store.load_meta()?;
    if meta.batches < store.durable_batches() {
        let (found, durable) = (meta.batches, store.durable_batches());
        let message = format!("sled has lost changes that were durable (batch {found} found, {durable} expected).");
        return Err(Failure::new(Code::Corrupt, message));
    }
    if meta.phase == Phase::Installing {
        tracing::warn!("The installation of a snapshot was interrupted: the key-value store starts empty.");
        store.clear()?;
        let meta = Meta::default();
        store.commit(Batch::default(), &meta)?;
        return Ok(Recovered { store, meta, notes: HashMap::new(), reset: None });
    }
    let meta = store.finish_layers(meta)?;
    let notes = verify(&store, &meta, sealed)?;
    Ok(Recovered { store, meta, notes, reset: None })
}

/// Reads every record, of a sealed store only the notes. Fails with `Corrupt` unless they are exactly those that the last batch left.
fn verify(store: &Store, meta: &Meta, sealed: bool) -> Result<HashMap<Vec<u8>, u64>, Failure> {
    let (mut entries, mut noted, mut notes) = (Digest::default(), Digest::default(), HashMap::new());
    let items = if sealed { store.db.range([NOTE]..[NOTE_END]) } else { store.db.iter() };
    for item in items {
        let (key, stored) = item.map_err(|error| store.db.read_failure("Verifying the store", &error))?;
        let print = fingerprint(&key, &stored);
        match key.first() {
            Some(&DATA) => {
                Record::parse(&stored)?;
                entries.add(print);
            }
            Some(&NOTE) => {
                noted.add(print);
                notes.insert(key[1..].to_vec(), print);
            }
            _ if key == META => {}
            _ => return Err(Failure::new(Code::Corrupt, "The store holds a record of an unknown kind.")),
        }
    }
    if sealed {
        entries = meta.entries;
    }
    if (entries, noted) != (meta.entries, meta.notes) {
        let (found, expected) = (entries.count, meta.entries.count);
        return Err(Failure::new(
            Code::Corrupt,
            format!("The store's records do not match its digest ({found} entries, {expected} expected)."),
        ));
    }
    Ok(notes)
}

fn set_aside(dir: &Path) -> Result<PathBuf, Failure> {
    let mut stamp = u128::from(wall_ms());
    let mut aside = aside_path(dir, stamp);
    while aside.exists() {
        stamp += 1;
        aside = aside_path(dir, stamp);
    }
    let io = |error| Failure::io(format!("Setting {} aside as {}", dir.display(), aside.display()), &error);
    fs::rename(dir, &aside).map_err(io)?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync_dir(parent).map_err(io)?;
        remove_older(dir, parent).map_err(io)?;
    }
    Ok(aside)
}

fn aside_path(dir: &Path, stamp: u128) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(format!(".corrupt-{stamp}"));
    PathBuf::from(name)
}

/// A store that is damaged again and again must not fill the disk.
fn remove_older(dir: &Path, parent: &Path) -> std::io::Result<()> {
    let start = format!("{}.corrupt-", dir.file_name().unwrap_or_default().to_string_lossy());
    let mut kept = Vec::new();
    for item in fs::read_dir(parent)? {
        let item = item?;
        let stamp = item.file_name().to_str().and_then(|name| name.strip_prefix(&start)?.parse::<u128>().ok());
        kept.extend(stamp.map(|stamp| (stamp, item.path())));
    }
    kept.sort();
    kept.iter().rev().skip(SET_ASIDE_MAX).try_for_each(|(_, path)| fs::remove_dir_all(path))
}
