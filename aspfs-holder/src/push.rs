//! `aspfs-holder push`: a helper of the daemon that makes the kernel send dirty pages of VE mounts (syncfs(2)), since no process that holds a
//! store's descriptors may touch a mount: after a kill it would hang there, with the store locked.
//!
//! It is a process of its own, with no descriptor of a store or of `/dev/fuse`: a mount that nobody serves can hang its threads and
//! nothing else. On its standard input come device numbers, `MAJOR:MINOR`, a line each; on its standard output go a line each with the number
//! and `done`, `gone` (not mounted in this mount namespace) or `failed` and why. It ends with its input.
//!
//! Invariants
//! - Each mount has a thread of its own while it is being pushed out. Whoever asks does not ask again before the answer.
//! - A mount is found by its device in /proc/self/mountinfo, and what was opened is looked at before it is synced: a path may lead elsewhere
//!   by then. No symlink is followed.

use std::fs::File;
use std::io::{self, BufRead, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx, syncfs};

use crate::mountinfo::{self, Line};
use crate::protocol::MOUNTS_MAX;

/// Major and minor number of a file system's device.
pub type Device = (u32, u32);

/// The type that /proc/self/mountinfo shows.
const KIND: &str = "fuse.vefs";
/// Longest line that is understood.
const LINE_MAX: u64 = 64;

/// A device as it is written in both directions.
pub fn show(device: Device) -> String {
    format!("{}:{}", device.0, device.1)
}

/// Reads what [`show`] wrote.
pub fn parse(text: &str) -> Option<Device> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The mounts of this namespace, read again when the kernel says that they changed.
struct Table {
    file: File,
    lines: Vec<Line>,
}

impl Table {
    fn open() -> io::Result<Table> {
        let mut table = Table { file: File::open("/proc/self/mountinfo")?, lines: Vec::new() };
        table.read()?;
        Ok(table)
    }

    fn read(&mut self) -> io::Result<()> {
        let mut text = Vec::new();
        self.file.rewind()?;
        self.file.read_to_end(&mut text)?;
        self.lines = mountinfo::parse(&text);
        Ok(())
    }

    /// Where a device is mounted.
    fn dirs(&mut self, device: Device) -> io::Result<Vec<PathBuf>> {
        // By proc_pid_mounts(5) a change shows as an exceptional condition, once.
        let mut fds = [PollFd::new(&self.file, PollFlags::PRI)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        if fds.iter().any(|fd| fd.revents().intersects(PollFlags::PRI | PollFlags::ERR)) {
            self.read()?;
        }
        let here = |line: &&Line| line.device == device && line.kind == KIND;
        Ok(self.lines.iter().filter(here).map(|line| line.dir.clone()).collect())
    }
}

/// The program. Returns when its input ends; threads that hang then end with their mounts.
pub fn main() -> io::Result<()> {
    let _ = rustix::process::chdir("/");
    crate::raise_descriptor_limit();
    let table = Arc::new(Mutex::new(Table::open()?));
    let mut input = io::stdin().lock();
    let running = Arc::new(());
    loop {
        let mut line = String::new();
        if (&mut input).take(LINE_MAX).read_line(&mut line)? == 0 {
            return Ok(());
        }
        let Some(device) = parse(line.trim_end()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line that is no device number"));
        };
        if Arc::strong_count(&running) > MOUNTS_MAX {
            answer(device, &Err(io::Error::other("too many mounts at a time")));
            continue;
        }
        let (table, here) = (table.clone(), running.clone());
        let started = std::thread::Builder::new().spawn(move || {
            answer(device, &push(&table, device));
            drop(here);
        });
        if let Err(e) = started {
            answer(device, &Err(e));
        }
    }
}

fn answer(device: Device, done: &io::Result<bool>) {
    let device = show(device);
    let line = match done {
        Ok(true) => format!("{device} done\n"),
        Ok(false) => format!("{device} gone\n"),
        Err(e) => format!("{device} failed {e}\n"),
    };
    // Without a daemon nobody wants to know.
    let _ = io::stdout().lock().write_all(line.as_bytes()).and_then(|()| io::stdout().flush());
}

fn push(table: &Mutex<Table>, device: Device) -> io::Result<bool> {
    let lock = || -> MutexGuard<'_, Table> { table.lock().unwrap_or_else(PoisonError::into_inner) };
    let dirs = lock().dirs(device)?;
    for dir in dirs.iter().rev() {
        if let Some(root) = open(dir, device)? {
            syncfs(&root)?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// The root of a mount, if this device is what lies there.
fn open(dir: &Path, device: Device) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = match openat2(CWD, dir, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Ok(root) => root,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let seen = statx(&root, "", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, StatxFlags::empty())?;
    Ok(((seen.stx_dev_major, seen.stx_dev_minor) == device).then_some(root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_they_are_written() {
        assert_eq!(parse(&show((0, 52))), Some((0, 52)));
        assert_eq!((parse("52"), parse("0:"), parse("0:x"), parse("-1:2")), (None, None, None, None));
    }

    #[test]
    fn what_is_no_mount_of_a_ve_is_not_touched() {
        let table = Mutex::new(Table::open().unwrap());
        // The root is a mount, but not of this type.
        let seen = statx(CWD, "/", AtFlags::empty(), StatxFlags::empty()).unwrap();
        assert!(!push(&table, (seen.stx_dev_major, seen.stx_dev_minor)).unwrap());
        assert!(!push(&table, (9999, 1)).unwrap());
        // A path that leads elsewhere than the table says.
        assert!(open(Path::new("/"), (9999, 1)).unwrap().is_none());
        assert!(open(Path::new("/nowhere"), (9999, 1)).unwrap().is_none());
    }
}
