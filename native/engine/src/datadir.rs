//! The data directory of a node: one process has it, and it says who the node is.
//!
//! ```text
//! DATA_DIR/LOCK                 locked while a node has the directory
//! DATA_DIR/node                 who the node is, as text; no such file: an empty directory
//! DATA_DIR/forming              what the node promised while its cluster was being formed
//! DATA_DIR/group-N/log/         the log
//! DATA_DIR/group-N/snapshots/   snapshots
//! DATA_DIR/group-N/state/       applied state; may be deleted, it is rebuilt
//! ```
//!
//! Both files are replaced as a whole: written beside, fsynced, renamed, the directory fsynced.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs2::FileExt;

use crate::disk::{Disk, Open, OsDisk, write_all_at};
use crate::durable::make_dir;
use crate::error::{Code, Failure};
use crate::planted::{self, Defect};

const FORMAT: u32 = 1;
const LOCK: &str = "LOCK";
const NODE: &str = "node";
const FORMING: &str = "forming";
const WAY_OUT: &str = "Restore the directory from a copy, or move it away and start the node empty: it then joins \
                       anew and gets everything from the other members.";

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// The cluster it belongs to.
    pub cluster: [u8; 16],
    /// Its raft id.
    pub node: u64,
    /// The name that users know it by.
    pub name: String,
    /// How often it was started, this time included.
    pub incarnation: u64,
}

/// A data directory, locked.
pub struct DataDir {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    /// `None` once it was unlocked.
    lock: Option<File>,
    identity: Option<NodeIdentity>,
}

impl fmt::Debug for DataDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataDir").field("path", &self.path).field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl DataDir {
    /// Opens the directory at `path` for the node `name`, makes it when it is not there, and locks it until
    /// [`DataDir::unlock`] or drop. Fails with `Locked` when another node, in this process or another, has it; with
    /// `Invalid` when it belongs to a node of another name; with `Corrupt` when the node file is damaged or a
    /// newer version of Quorate wrote it; and with `Io`.
    pub fn open(path: &Path, name: &str) -> Result<DataDir, Failure> {
        DataDir::open_on(Arc::new(OsDisk), path, name)
    }

    /// [`DataDir::open`] on `disk`; only the lock is the operating system's.
    pub fn open_on(disk: Arc<dyn Disk>, path: &Path, name: &str) -> Result<DataDir, Failure> {
        make_dir(disk.as_ref(), path)
            .map_err(|error| Failure::io(format!("Making the data directory {}", path.display()), &error))?;
        let lock = lock(path)?;
        let identity = match read(&path.join(NODE))? {
            Some(data) => Some(parse(&path.join(NODE), &data)?),
            None => None,
        };
        if let Some(stored) = identity.as_ref().filter(|stored| stored.name != name) {
            return Err(Failure::invalid(format!(
                "The data directory {} belongs to the node \"{}\", not to \"{name}\".",
                path.display(),
                stored.name
            )));
        }
        Ok(DataDir { path: path.to_path_buf(), disk, lock: Some(lock), identity })
    }

    /// Who the node is; `None` in an empty directory.
    pub fn identity(&self) -> Option<&NodeIdentity> {
        self.identity.as_ref()
    }

    /// Stores who the node is, durably. Fails with `Invalid` when the name has control characters, `Closed` after
    /// [`DataDir::unlock`], and `Io`.
    pub fn save_identity(&mut self, identity: &NodeIdentity) -> Result<(), Failure> {
        if identity.name.chars().any(char::is_control) {
            return Err(Failure::invalid(format!("The name {:?} has control characters.", identity.name)));
        }
        self.replace(NODE, print(identity).as_bytes())?;
        self.identity = Some(identity.clone());
        Ok(())
    }

    /// Counts one more start, durably, and returns its number. Fails with `Invalid` in an empty directory, and as
    /// [`DataDir::save_identity`] does.
    pub fn next_incarnation(&mut self) -> Result<u64, Failure> {
        let mut identity = self.identity.clone().ok_or_else(|| {
            Failure::invalid(format!("The data directory {} belongs to no node yet.", self.path.display()))
        })?;
        identity.incarnation += 1;
        self.save_identity(&identity)?;
        Ok(identity.incarnation)
    }

    /// What [`DataDir::save_forming`] stored. Fails with `Corrupt` or `Io`.
    pub fn load_forming(&self) -> Result<Option<Vec<u8>>, Failure> {
        forming_in(&self.path)
    }

    /// Stores `forming`, or removes it, durably. Fails with `Closed` after [`DataDir::unlock`], and `Io`.
    pub fn save_forming(&mut self, forming: Option<&[u8]>) -> Result<(), Failure> {
        match forming {
            Some(content) => self.replace(FORMING, &[&crc32fast::hash(content).to_le_bytes(), content].concat()),
            None => self.remove(FORMING),
        }
    }

    /// Where the log of `group` lies.
    pub fn log_dir(&self, group: u64) -> PathBuf {
        self.group(group).join("log")
    }

    /// Where the snapshots of `group` lie.
    pub fn snapshots_dir(&self, group: u64) -> PathBuf {
        self.group(group).join("snapshots")
    }

    /// Where the applied state of `group` lies.
    pub fn state_dir(&self, group: u64) -> PathBuf {
        self.group(group).join("state")
    }

    /// Lets other nodes have the directory. Nothing can be saved any more. May be called again.
    pub fn unlock(&mut self) {
        self.lock = None;
    }

    fn group(&self, group: u64) -> PathBuf {
        self.path.join(format!("group-{group}"))
    }

    fn writable(&self) -> Result<(), Failure> {
        self.lock.as_ref().map_or_else(|| Err(Failure::closed()), |_| Ok(()))
    }

    fn replace(&self, name: &str, content: &[u8]) -> Result<(), Failure> {
        self.writable()?;
        let path = self.path.join(name);
        replace(self.disk.as_ref(), &path, content)
            .map_err(|error| Failure::io(format!("Writing {}", path.display()), &error))
    }

    fn remove(&self, name: &str) -> Result<(), Failure> {
        self.writable()?;
        let path = self.path.join(name);
        match self.disk.remove(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome
                .and_then(|()| self.disk.sync_dir(&self.path))
                .map_err(|error| Failure::io(format!("Removing {}", path.display()), &error)),
        }
    }
}

/// Keeps nodes out of a data directory that is only looked at; makes no file. `None` when there is no LOCK, so that no node
/// has it either. Fails with `Locked` and with `Io`.
pub fn hold(dir: &Path) -> Result<Option<File>, Failure> {
    let path = dir.join(LOCK);
    match File::open(&path) {
        Ok(file) => lock_file(dir, file).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::io(format!("Opening {}", path.display()), &error)),
    }
}

/// Who the node in `dir` is, as [`DataDir::identity`], without opening the directory. Fails with `Corrupt` and with `Io`.
pub fn identity_in(dir: &Path) -> Result<Option<NodeIdentity>, Failure> {
    let path = dir.join(NODE);
    read(&path)?.map(|data| parse(&path, &data)).transpose()
}

/// What [`DataDir::load_forming`] gives, without opening the directory. Fails with `Corrupt` and with `Io`.
pub fn forming_in(dir: &Path) -> Result<Option<Vec<u8>>, Failure> {
    let path = dir.join(FORMING);
    let Some(data) = read(&path)? else { return Ok(None) };
    let content = data
        .split_first_chunk::<4>()
        .filter(|(stored, content)| u32::from_le_bytes(**stored) == crc32fast::hash(content));
    match content {
        Some((_, content)) => Ok(Some(content.to_vec())),
        None => Err(Failure::new(Code::Corrupt, format!("{} is damaged. {WAY_OUT}", path.display()))),
    }
}

fn lock(dir: &Path) -> Result<File, Failure> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    lock_file(dir, file.map_err(|error| Failure::io(format!("Opening {}", path.display()), &error))?)
}

fn lock_file(dir: &Path, file: File) -> Result<File, Failure> {
    match file.try_lock_exclusive() {
        Ok(()) => Ok(file),
        Err(error) if error.kind() == fs2::lock_contended_error().kind() => Err(Failure::new(
            Code::Locked,
            format!("The data directory {} is in use by another node, in this process or another.", dir.display()),
        )),
        Err(error) => Err(Failure::io(format!("Locking {}", dir.join(LOCK).display()), &error)),
    }
}

fn replace(disk: &dyn Disk, path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let file = disk.open(&temporary, Open::Create)?;
    write_all_at(file.as_ref(), 0, content)?;
    file.sync()?;
    disk.rename(&temporary, path)?;
    if planted::is(Defect::RenameNotSynced) {
        return Ok(());
    }
    path.parent().map_or(Ok(()), |dir| disk.sync_dir(dir))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    match fs::read(path) {
        Ok(data) => Ok(Some(data)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::io(format!("Reading {}", path.display()), &error)),
    }
}

/// The node file: lines of a word and a value, the last one the checksum of the others.
fn print(identity: &NodeIdentity) -> String {
    let cluster: String = identity.cluster.iter().map(|byte| format!("{byte:02x}")).collect();
    let NodeIdentity { node, name, incarnation, .. } = identity;
    let content =
        format!("quorate-node {FORMAT}\ncluster {cluster}\nnode {node:016x}\nname {name}\nincarnation {incarnation}\n");
    let checksum = crc32fast::hash(content.as_bytes());
    format!("{content}crc32 {checksum:08x}\n")
}

fn parse(path: &Path, data: &[u8]) -> Result<NodeIdentity, Failure> {
    let text = std::str::from_utf8(data).ok();
    let format = text.and_then(|text| text.lines().next()?.strip_prefix("quorate-node ")?.parse::<u32>().ok());
    if let Some(format) = format.filter(|format| *format > FORMAT) {
        let message =
            format!("{} has format {format}, this version of Quorate knows {FORMAT}: use a newer one.", path.display());
        return Err(Failure::new(Code::Corrupt, message));
    }
    text.and_then(fields)
        .ok_or_else(|| Failure::new(Code::Corrupt, format!("{} is damaged. {WAY_OUT}", path.display())))
}

fn fields(text: &str) -> Option<NodeIdentity> {
    let (content, checksum) = text.strip_suffix('\n')?.rsplit_once("crc32 ")?;
    if checksum != format!("{:08x}", crc32fast::hash(content.as_bytes())) {
        return None;
    }
    let mut lines = content.lines().skip(1);
    let mut field = |word: &str| lines.next()?.strip_prefix(word)?.strip_prefix(' ');
    let cluster = u128::from_str_radix(field("cluster")?, 16).ok()?.to_be_bytes();
    let node = u64::from_str_radix(field("node")?, 16).ok()?;
    let name = field("name")?.to_string();
    Some(NodeIdentity { cluster, node, name, incarnation: field("incarnation")?.parse().ok()? })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn identity(name: &str) -> NodeIdentity {
        NodeIdentity { cluster: [0xab; 16], node: 0xfeed, name: name.to_string(), incarnation: 1 }
    }

    #[test]
    fn an_empty_directory_becomes_a_nodes_and_counts_its_starts() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        let mut data = DataDir::open(&path, "server 1").unwrap();
        assert_eq!(data.identity(), None);
        assert_eq!(data.next_incarnation().unwrap_err().code, Code::Invalid);
        data.save_identity(&identity("server 1")).unwrap();
        drop(data);
        let mut data = DataDir::open(&path, "server 1").unwrap();
        assert_eq!(data.identity(), Some(&identity("server 1")));
        assert_eq!(data.next_incarnation().unwrap(), 2);
        drop(data);
        assert_eq!(DataDir::open(&path, "server 1").unwrap().identity().unwrap().incarnation, 2);
        assert!(fs::read_to_string(path.join("node")).unwrap().contains("name server 1\n"));
    }

    #[test]
    fn one_node_at_a_time_has_the_directory() {
        let root = tempfile::tempdir().unwrap();
        let mut data = DataDir::open(root.path(), "a").unwrap();
        let refused = DataDir::open(root.path(), "a").unwrap_err();
        assert_eq!(refused.code, Code::Locked);
        assert!(refused.message.contains(root.path().to_str().unwrap()), "{refused}");
        data.unlock();
        DataDir::open(root.path(), "a").unwrap();
        assert_eq!(data.save_identity(&identity("a")).unwrap_err().code, Code::Closed);
    }

    #[test]
    fn another_name_is_refused_and_told_whose_it_is() {
        let root = tempfile::tempdir().unwrap();
        DataDir::open(root.path(), "a").unwrap().save_identity(&identity("a")).unwrap();
        let refused = DataDir::open(root.path(), "b").unwrap_err();
        assert_eq!(refused.code, Code::Invalid);
        assert!(refused.message.contains("belongs to the node \"a\""), "{refused}");
    }

    #[test]
    fn every_cut_and_every_flipped_bit_of_the_node_file_is_refused() {
        let root = tempfile::tempdir().unwrap();
        DataDir::open(root.path(), "a").unwrap().save_identity(&identity("a")).unwrap();
        let path = root.path().join("node");
        let whole = fs::read(&path).unwrap();
        let refused = |data: &[u8]| {
            fs::write(&path, data).unwrap();
            DataDir::open(root.path(), "a").unwrap_err().code == Code::Corrupt
        };
        assert!((0..whole.len()).all(|len| refused(&whole[..len])));
        for bit in 0..whole.len() * 8 {
            let mut data = whole.clone();
            data[bit / 8] ^= 1 << (bit % 8);
            assert!(refused(&data), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("node"), "quorate-node 2\nall new\n").unwrap();
        let refused = DataDir::open(root.path(), "a").unwrap_err();
        assert_eq!(refused.code, Code::Corrupt);
        assert!(refused.message.contains("use a newer one"), "{refused}");
    }

    #[test]
    fn promises_of_forming_are_kept_until_removed() {
        let root = tempfile::tempdir().unwrap();
        let mut data = DataDir::open(root.path(), "a").unwrap();
        assert_eq!(data.load_forming().unwrap(), None);
        data.save_forming(Some(b"promise")).unwrap();
        data.save_forming(Some(b"")).unwrap();
        assert_eq!(data.load_forming().unwrap().as_deref(), Some(&b""[..]));
        data.save_forming(Some(b"another")).unwrap();
        drop(data);
        let mut data = DataDir::open(root.path(), "a").unwrap();
        assert_eq!(data.load_forming().unwrap().as_deref(), Some(&b"another"[..]));
        fs::write(root.path().join("forming"), b"abcdxyz").unwrap();
        assert_eq!(data.load_forming().unwrap_err().code, Code::Corrupt);
        data.save_forming(None).unwrap();
        data.save_forming(None).unwrap();
        assert_eq!(data.load_forming().unwrap(), None);
    }

    #[test]
    fn a_crash_while_writing_leaves_the_old_file() {
        let root = tempfile::tempdir().unwrap();
        DataDir::open(root.path(), "a").unwrap().save_identity(&identity("a")).unwrap();
        fs::write(root.path().join("node.tmp"), b"quorate-no").unwrap();
        let mut data = DataDir::open(root.path(), "a").unwrap();
        assert_eq!(data.identity(), Some(&identity("a")));
        assert_eq!(data.next_incarnation().unwrap(), 2);
    }

    #[test]
    fn groups_have_their_places() {
        let root = tempfile::tempdir().unwrap();
        let data = DataDir::open(root.path(), "a").unwrap();
        assert_eq!(data.log_dir(0), root.path().join("group-0/log"));
        assert_eq!(data.snapshots_dir(0), root.path().join("group-0/snapshots"));
        assert_eq!(data.state_dir(3), root.path().join("group-3/state"));
    }
}
