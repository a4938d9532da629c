//! Disks of their own for the nodes: small ext4 file systems whose power can be cut.
//!
//! Level 1 ([`ext4`]): the file system lies on a loop device on a file. The cut is EXT4_IOC_SHUTDOWN without a flush of the
//! journal: what the file system had not written to the device by itself is gone.
//!
//! Level 2 ([`lossy`]): the device's file is served by this process, which keeps writes in memory until a flush comes. At
//! the cut a random subset of the unflushed 512-byte sectors survives, so a block may be half old and half new, and
//! later writes may survive earlier ones.

pub mod ext4;
pub mod lossy;

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use quorate_engine::Failure;

use crate::rng::Rng;
use crate::workdir::run;
use ext4::Shutdown;
use lossy::Lossy;

/// Size of one disk, in bytes.
pub const DISK_BYTES: u64 = 96 << 20;

/// The file that fills a disk.
const FILLER: &str = "filler";

/// A file system that is mounted, or can be again.
pub struct Disk {
    image: PathBuf,
    point: PathBuf,
    lossy: Option<Lossy>,
    device: Option<String>,
    mounted: bool,
    /// How often the file system needed e2fsck before it could be mounted.
    pub repairs: u64,
}

/// Says why disks cannot be made here: no root, no loop device; `None` when they can.
pub fn missing(level: u32) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("mounting needs root".into());
    }
    let mut needed = vec!["/dev/loop-control"];
    if level == 2 {
        needed.push("/dev/fuse");
    }
    if let Some(device) = needed.into_iter().find(|device| !Path::new(device).exists()) {
        return Some(format!("there is no {device}"));
    }
    let tools = ["mkfs.ext4", "e2fsck", "losetup", "mount", "umount", "perl"];
    let absent = tools.into_iter().find(|tool| run("sh", &["-c", &format!("command -v {tool}")]).is_err());
    absent.map(|tool| format!("there is no {tool}"))
}

/// Makes a disk in `dir` and takes it away again. Says why that failed: a container may have all that [`missing`] looks for and
/// forbid mounting; `None` when it can be done.
pub fn refused(dir: &Path, level: u32) -> Option<String> {
    Disk::new(dir, "probe", level).err().map(|failure| format!("no disk can be made here: {failure}"))
}

impl Disk {
    /// Makes and mounts a disk called `name` in `dir`. `level` is 1 or 2. Fails with `Io`, or with what a tool said.
    pub fn new(dir: &Path, name: &str, level: u32) -> Result<Disk, Failure> {
        Disk::sized(dir, name, level, DISK_BYTES)
    }

    /// [`Disk::new`] with `bytes` bytes on it.
    pub fn sized(dir: &Path, name: &str, level: u32, bytes: u64) -> Result<Disk, Failure> {
        let point = dir.join(name);
        std::fs::create_dir_all(&point).map_err(|error| Failure::io("Making a mount point", &error))?;
        let lossy = if level == 2 { Some(Lossy::new(&dir.join(format!("{name}.served")), bytes)?) } else { None };
        let image = match &lossy {
            Some(lossy) => lossy.file(),
            None => dir.join(format!("{name}.img")),
        };
        if lossy.is_none() {
            let file = std::fs::File::create(&image).and_then(|file| file.set_len(bytes));
            file.map_err(|error| Failure::io("Making a disk's file", &error))?;
        }
        let mut disk = Disk { image, point, lossy, device: None, mounted: false, repairs: 0 };
        disk.attach()?;
        run("mkfs.ext4", &["-q", "-F", "-m", "0", disk.device()])?;
        disk.mount()?;
        Ok(disk)
    }

    /// Takes all room that is left, until [`Disk::free`]. Fails with `Io` for any other reason than that there is none.
    pub fn fill(&self) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::io("Filling a disk", &error);
        let mut file = File::options().create(true).append(true).open(self.point.join(FILLER)).map_err(failed)?;
        let block = vec![0xaa; 1 << 16];
        let mut len = block.len();
        // Ever smaller pieces: the last of them is smaller than any file system's block.
        while len >= 512 {
            match file.write(&block[..len]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => len /= 2,
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }

    /// Gives the room back that [`Disk::fill`] took. Fails with `Io`.
    pub fn free(&self) -> Result<(), Failure> {
        match std::fs::remove_file(self.point.join(FILLER)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Failure::io("Freeing a disk", &error)),
            _ => Ok(()),
        }
    }

    /// Where it is mounted.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// What keeps unflushed writes; at level 2 only.
    pub fn lossy(&self) -> Option<&Lossy> {
        self.lossy.as_ref()
    }

    /// Makes the power come back after a cut: everything in memory is gone, the file system is mounted anew. Nobody may
    /// have a file open on it. Fails with what a tool said.
    pub fn power_up(&mut self) -> Result<(), Failure> {
        self.unmount()?;
        if let Some(lossy) = &mut self.lossy {
            lossy.power_up()?;
        }
        self.attach()?;
        if self.mount().is_err() {
            // The file system's own affair: blocks that it does not protect were torn.
            self.repairs += 1;
            run("sh", &["-c", &format!("e2fsck -fy {} >&2 || [ $? -lt 4 ]", self.device())])?;
            self.mount()?;
        }
        Ok(())
    }

    fn device(&self) -> &str {
        self.device.as_deref().unwrap_or_default()
    }

    fn attach(&mut self) -> Result<(), Failure> {
        self.device = Some(run("losetup", &["--find", "--show", &self.image.to_string_lossy()])?);
        Ok(())
    }

    fn mount(&mut self) -> Result<(), Failure> {
        run("mount", &["-t", "ext4", self.device(), &self.point.to_string_lossy()])?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), Failure> {
        if self.mounted {
            run("umount", &[&self.point.to_string_lossy()])?;
            self.mounted = false;
        }
        if let Some(device) = self.device.take() {
            run("losetup", &["--detach", &device])?;
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(failure) = self.unmount() {
            eprintln!("A disk stays mounted until its directory is cleared: {failure}");
        }
    }
}

/// A power cut that is ready to happen, of one disk or several.
pub struct Cut<'a> {
    lossy: Vec<&'a Lossy>,
    shutdown: Option<Shutdown>,
}

impl Cut<'_> {
    /// Prepares the cut of `disks`. Fails with what a tool said.
    pub fn arm<'a>(disks: &[&'a Disk]) -> Result<Cut<'a>, Failure> {
        let lossy: Vec<&Lossy> = disks.iter().filter_map(|disk| disk.lossy()).collect();
        let plain: Vec<&Path> = disks.iter().filter(|disk| disk.lossy.is_none()).map(|disk| disk.point()).collect();
        let shutdown = if plain.is_empty() { None } else { Some(Shutdown::arm(&plain)?) };
        Ok(Cut { lossy, shutdown })
    }

    /// Cuts. Gives how many sectors were unflushed, and how many of them survived (level 2). Fails when it did not happen.
    pub fn fire(self, rng: &mut Rng) -> Result<(u64, u64), Failure> {
        if let Some(shutdown) = self.shutdown {
            shutdown.fire()?;
        }
        // First all off, then the dice: nothing may be flushed between one disk and the next.
        self.lossy.iter().for_each(|lossy| lossy.power_off());
        let survived = self.lossy.iter().map(|lossy| lossy.settle(rng));
        Ok(survived.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1)))
    }
}
