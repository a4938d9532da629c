//! The directory of snapshots: which one is current, and how one becomes it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::temporary::{Temporary, remove};
use super::{OpenSnapshot, SnapshotFile, format};
use crate::consensus::types::SnapshotMeta;
use crate::disk::{Disk, OsDisk};
use crate::durable::make_dir;
use crate::error::{Code, Failure};
use crate::planted::{self, Defect};

const SUFFIX: &str = ".snap";
const TEMPORARY: &str = ".tmp";
const SET_ASIDE: &str = ".corrupt";

/// The snapshots of one group. Cloning shares it.
#[derive(Clone)]
pub struct SnapshotDir {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    /// Numbers temporary files.
    next: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The current snapshot, once it was looked for.
    current: Option<Option<OpenSnapshot>>,
    /// Files that were received and not adopted, and the handles by which others may still want them.
    received: Vec<(PathBuf, Weak<File>)>,
}

impl SnapshotDir {
    /// Opens the directory at `path`, makes it when it is not there, and removes what unfinished snapshots left. Fails
    /// with `Io`.
    pub fn open(path: &Path) -> Result<SnapshotDir, Failure> {
        SnapshotDir::open_on(Arc::new(OsDisk), path)
    }

    /// [`SnapshotDir::open`] on `disk`.
    pub fn open_on(disk: Arc<dyn Disk>, path: &Path) -> Result<SnapshotDir, Failure> {
        let failed = |error: io::Error| Failure::io(format!("Opening the snapshots in {}", path.display()), &error);
        make_dir(disk.as_ref(), path).map_err(failed)?;
        for left_over in list(path, TEMPORARY).map_err(failed)? {
            remove(disk.as_ref(), &left_over);
        }
        let inner = Inner { path: path.to_path_buf(), disk, next: AtomicU64::new(1), state: Mutex::default() };
        Ok(SnapshotDir { inner: Arc::new(inner) })
    }

    /// The newest whole snapshot. The first call reads and checks it all; a damaged file is then set aside (`.corrupt`),
    /// reported to the log, and the next older one taken. Fails with `Refused` when a newer version of Quorate wrote the
    /// newest one, and with `Io`.
    pub fn latest(&self) -> Result<Option<OpenSnapshot>, Failure> {
        self.current(&mut self.inner.state.lock())
    }

    /// Makes a received snapshot the current one, durably, and removes older ones. When the current one is as new or
    /// newer, it stays, and `snapshot` is only readable through what is returned. Fails with `Io`.
    pub fn adopt(&self, snapshot: OpenSnapshot) -> Result<OpenSnapshot, Failure> {
        let received = snapshot.file.path.clone();
        let adopted = self.install(snapshot)?;
        self.inner.state.lock().received.retain(|(path, _)| *path != received);
        Ok(adopted)
    }

    /// [`SnapshotDir::adopt`] for a received snapshot of which only the file was kept. Fails with `Corrupt` too.
    pub fn adopt_file(&self, file: SnapshotFile) -> Result<OpenSnapshot, Failure> {
        self.adopt(format::open(file)?)
    }

    /// A file that is not a snapshot yet. Fails with `Io`.
    pub(super) fn temporary(&self, what: &str) -> Result<Temporary, Failure> {
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        Temporary::new(self.inner.disk.clone(), self.inner.path.join(format!("{what}-{number}{TEMPORARY}")))
    }

    /// Notes a complete temporary: it stays for as long as somebody has it open.
    pub(super) fn received(&self, file: &SnapshotFile) {
        self.inner.state.lock().received.push((file.path.clone(), Arc::downgrade(&file.file)));
    }

    pub(super) fn remove_unwanted(&self) {
        self.inner.state.lock().received.retain(|(path, handle)| {
            let wanted = handle.strong_count() > 0;
            if !wanted {
                remove(self.inner.disk.as_ref(), path);
            }
            wanted
        });
    }

    /// Renames a complete, durable file into place, unless the current snapshot is as new.
    pub(super) fn install(&self, mut snapshot: OpenSnapshot) -> Result<OpenSnapshot, Failure> {
        let mut state = self.inner.state.lock();
        if let Some(current) = self.current(&mut state)?
            && current.meta.last_log_id >= snapshot.meta.last_log_id
        {
            if snapshot.file.path != current.file.path {
                remove(self.inner.disk.as_ref(), &snapshot.file.path);
            }
            return Ok(snapshot);
        }
        let path = self.inner.path.join(name(&snapshot.meta));
        let failed = |error: io::Error| Failure::io(format!("Putting {} in place", path.display()), &error);
        self.inner.disk.rename(&snapshot.file.path, &path).map_err(failed)?;
        if !planted::is(Defect::RenameNotSynced) {
            self.inner.disk.sync_dir(&self.inner.path).map_err(failed)?;
        }
        snapshot.file.path = path;
        state.current = Some(Some(snapshot.clone()));
        self.remove_others(&snapshot.file.path);
        Ok(snapshot)
    }

    /// What cannot be listed now is removed after the next snapshot.
    fn remove_others(&self, current: &Path) {
        match list(&self.inner.path, SUFFIX) {
            Ok(all) => {
                all.iter().filter(|path| *path != current).for_each(|path| remove(self.inner.disk.as_ref(), path))
            }
            Err(error) => {
                let path = self.inner.path.display();
                tracing::warn!(target: "quorate::snapshot", "{path} cannot be listed: {error}");
            }
        }
    }

    fn current(&self, state: &mut State) -> Result<Option<OpenSnapshot>, Failure> {
        if let Some(known) = &state.current {
            return Ok(known.clone());
        }
        let found = self.find()?;
        state.current = Some(found.clone());
        Ok(found)
    }

    fn find(&self) -> Result<Option<OpenSnapshot>, Failure> {
        let path = self.inner.path.display();
        let all = list(&self.inner.path, SUFFIX).map_err(|error| Failure::io(format!("Listing {path}"), &error))?;
        for path in all.into_iter().rev() {
            match open_whole(&path) {
                Ok(snapshot) => return Ok(Some(snapshot)),
                Err(failure) if failure.code == Code::Corrupt => set_aside(self.inner.disk.as_ref(), &path, &failure)?,
                Err(failure) => return Err(failure),
            }
        }
        Ok(None)
    }
}

/// A snapshot file, and what is in it or wrong with it.
pub type Checked = (PathBuf, Result<OpenSnapshot, Failure>);

/// Reads and checks every snapshot in `dir`, the oldest first, and changes nothing. Fails with `Io` when the directory cannot be
/// listed; a directory that is not there has none.
pub fn check_all(dir: &Path) -> Result<Vec<Checked>, Failure> {
    let all = match list(dir, SUFFIX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        all => all.map_err(|error| Failure::io(format!("Listing {}", dir.display()), &error))?,
    };
    let check = |path: PathBuf| {
        let checked = open_whole(&path).and_then(|open| check_name(&path, open));
        (path, checked)
    };
    Ok(all.into_iter().map(check).collect())
}

fn check_name(path: &Path, open: OpenSnapshot) -> Result<OpenSnapshot, Failure> {
    let expected = name(&open.meta);
    if path.file_name().is_some_and(|found| *found == *expected) {
        return Ok(open);
    }
    Err(Failure::new(Code::Corrupt, format!("{} holds the snapshot {expected}: it was renamed.", path.display())))
}

fn open_whole(path: &Path) -> Result<OpenSnapshot, Failure> {
    let failed = |error: io::Error| Failure::io(format!("Opening {}", path.display()), &error);
    let file = File::open(path).map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len();
    let file = SnapshotFile { path: path.to_path_buf(), file: Arc::new(file), len };
    format::verify(&file)?;
    format::open(file)
}

fn set_aside(disk: &dyn Disk, path: &Path, failure: &Failure) -> Result<(), Failure> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(SET_ASIDE);
    disk.rename(path, Path::new(&aside))
        .map_err(|error| Failure::io(format!("Setting {} aside", path.display()), &error))?;
    let aside = PathBuf::from(aside);
    tracing::error!(
        target: "quorate::snapshot",
        "{failure} It is set aside as {}; the state is rebuilt from what is older, or from another member.",
        aside.display()
    );
    Ok(())
}

/// The name of a snapshot; names sort by age.
fn name(meta: &SnapshotMeta) -> String {
    let (index, term) = meta.last_log_id.map_or((0, 0), |id| (id.index, id.leader_id.term));
    format!("{index:020}-{term}{SUFFIX}")
}

fn list(dir: &Path, suffix: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.to_str().is_some_and(|path| path.ends_with(suffix)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
