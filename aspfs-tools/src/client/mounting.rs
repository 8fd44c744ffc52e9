//! Attaching and detaching mounts: done by the client, so that it happens in the caller's mount namespace, and so that whatever a path leads
//! through can make nobody wait but the client.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags as Bits, MoveMountFlags, UnmountFlags, mount_remount, move_mount, unmount};

use super::options::Options;
use super::{Client, ClientError, mountinfo};
use crate::control::message::{Id, MountRow, Released, Request, Why};
use crate::control::versions::Named;

/// How long the daemon may take to let go of a VE that was unmounted.
const RELEASE_MS: u64 = 10_000;
/// The same, if nothing of it is to be seen here any more.
const DETACHED_MS: u64 = 500;

/// Why a VE was not mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The daemon.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The mount point.
    #[error("mount point {}: {why}", .dir.display())]
    Point {
        /// Which.
        dir: PathBuf,
        /// Why.
        why: String,
    },
    /// It cannot be unmounted.
    #[error("{}: {why}", .dir.display())]
    Unmount {
        /// Where it is mounted.
        dir: PathBuf,
        /// Why.
        why: String,
    },
    /// It is mounted, but not here.
    #[error("VE {0} is not mounted in this mount namespace; it was attached at {1}")]
    Elsewhere(String, String),
    /// It is mounted still.
    #[error("VE {0} is unmounted here, but still in use: by another mount namespace, or by a process that has it open")]
    StillUsed(String),
    /// Nothing of this store is mounted there.
    #[error("{}: no VE of this daemon is mounted there", .0.display())]
    NotThere(PathBuf),
    /// What is mounted where cannot be found out.
    #[error("reading /proc/self/mountinfo: {0}")]
    Table(io::Error),
}

impl MountError {
    /// Whether the VE is not mounted (any more).
    pub fn is_gone(&self) -> bool {
        matches!(self, MountError::Client(ClientError::Refused(r)) if r.kind == Why::NotFound)
    }
}

/// Mounts a VE or a version at a folder. A mount that was left there while another node wrote the VE is detached: the daemon ends it.
pub fn mount(socket: &Path, what: &Named, dir: &Path, options: &Options) -> Result<MountRow, MountError> {
    let point = |why: String| MountError::Point { dir: dir.to_owned(), why };
    let (mut place, shown) = open_point(dir).map_err(|e| point(say(e)))?;
    let lines = mountinfo::read().map_err(MountError::Table)?;
    let past = if what.version.is_none() { past(socket, what)? } else { None };
    let left = Left { lines: &lines, past };
    let taken = mountinfo::at(&lines, &shown).filter(|line| line.kind == "fuse.vefs");
    match taken {
        Some(line) if !left.is_one(line) => return Err(point("busy: a VE is mounted there".into())),
        Some(line) if !left.is_alone(line) => {
            return Err(point("busy: something is mounted below what was left there".into()));
        }
        _ => {}
    }
    let request = Request::Mount {
        ve: Id(what.ve),
        version: what.version.clone(),
        dir: shown.display().to_string(),
        source: options.source.clone(),
        flags: options.flags.clone(),
    };
    let mut client = Client::connect(socket)?;
    let row: MountRow = client.call(&request).inspect_err(|_| left.detach_if_ended(socket, what))?;
    let mount = client.take_fd().ok_or_else(|| point("the daemon sent no mount".into()))?;
    let how = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    let attached = left.detach().and_then(|()| {
        if taken.is_some() {
            place = open_point(dir)?.0;
        }
        move_mount(&mount, "", &place, "", how)
    });
    if let Err(e) = attached {
        // Attached nowhere, it ends with this descriptor; the VE is free again when this returns.
        drop(mount);
        let _ = release(socket, &row, RELEASE_MS);
        return Err(point(say(e)));
    }
    Ok(row)
}

/// Where a mount is attached here that was left while another node wrote its VE.
struct Left<'a> {
    lines: &'a [mountinfo::Line],
    past: Option<MountRow>,
}

impl Left<'_> {
    fn is_one(&self, line: &mountinfo::Line) -> bool {
        self.past.iter().any(|row| is_of(line, row))
    }

    /// Whether nothing else goes with it when it is detached.
    fn is_alone(&self, line: &mountinfo::Line) -> bool {
        let below = |other: &&mountinfo::Line| other.dir.starts_with(&line.dir);
        self.lines
            .iter()
            .filter(below)
            .all(|other| std::ptr::eq(other, line) || other.dir != line.dir && self.is_one(other))
            && mountinfo::at(self.lines, &line.dir).is_some_and(|top| std::ptr::eq(top, line))
    }

    /// Detaches it wherever that takes nothing else along.
    fn detach(&self) -> Result<(), Errno> {
        let mut alone = self.lines.iter().rev().filter(|line| self.is_one(line) && self.is_alone(line));
        alone.try_for_each(|line| unmount(&line.dir, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH))
    }

    /// The VE is not mounted after all, and the daemon may have ended this before it came to that: then nobody serves it any more.
    fn detach_if_ended(&self, socket: &Path, what: &Named) {
        if self.past.is_some()
            && let Ok(None) = past(socket, what)
        {
            let _ = self.detach();
        }
    }
}

/// A VE's mount that was left there while another node wrote the VE, if there is one.
fn past(socket: &Path, what: &Named) -> Result<Option<MountRow>, ClientError> {
    match Client::connect(socket)?.call::<MountRow>(&Request::Mounted { ve: Id(what.ve), version: None }) {
        Ok(row) => Ok(Some(row).filter(|row| row.past)),
        Err(ClientError::Refused(r)) if r.kind == Why::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Opens a folder to mount on, and finds its name without symlinks.
fn open_point(dir: &Path) -> Result<(OwnedFd, PathBuf), Errno> {
    let place = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let link = format!("/proc/self/fd/{}", place.as_fd().as_raw_fd());
    let shown = std::fs::read_link(link).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    Ok((place, shown))
}

fn say(e: Errno) -> String {
    match e {
        Errno::NOTDIR => "is not a directory".into(),
        Errno::NOENT => "is not there".into(),
        Errno::BUSY => "busy".into(),
        Errno::PERM => "only root may mount".into(),
        e => io::Error::from(e).to_string(),
    }
}

/// What is to be unmounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A VE or a version.
    Named(Named),
    /// What is mounted at a folder.
    At(PathBuf),
}

impl std::str::FromStr for Target {
    type Err = crate::control::versions::NameError;

    /// What has a slash in it is a folder.
    fn from_str(text: &str) -> Result<Target, Self::Err> {
        if text.contains('/') { Ok(Target::At(text.into())) } else { text.parse().map(Target::Named) }
    }
}

/// Unmounts what is said (see [`umount_row`]).
pub fn umount(socket: &Path, target: &Target, lazy: bool) -> Result<(), MountError> {
    let mut client = Client::connect(socket)?;
    let named = match target {
        Target::Named(named) => Request::Mounted { ve: Id(named.ve), version: named.version.clone() },
        Target::At(dir) => {
            let row = at_folder(&mut client, dir)?;
            // Asked for by name, the daemon sees to it that none of its helpers is in there.
            client = Client::connect(socket)?;
            let version =
                row.version.map(|label| label.parse()).transpose().map_err(|_| MountError::NotThere(dir.clone()))?;
            Request::Mounted { ve: row.ve, version }
        }
    };
    let row: MountRow = client.call(&named)?;
    umount_row(socket, &row, lazy)
}

/// What is mounted at a folder, as the daemon has it.
fn at_folder(client: &mut Client, dir: &Path) -> Result<MountRow, MountError> {
    // The mount's own root must not be opened: it may be served by nobody.
    let point = |e: io::Error| MountError::Point { dir: dir.to_owned(), why: e.to_string() };
    let whole = std::path::absolute(dir).map_err(point)?;
    let shown = match (whole.parent(), whole.file_name()) {
        (Some(parent), Some(name)) => parent.canonicalize().map_err(point)?.join(name),
        _ => whole,
    };
    let lines = mountinfo::read().map_err(MountError::Table)?;
    let line = mountinfo::at(&lines, &shown).ok_or_else(|| MountError::NotThere(dir.to_owned()))?;
    let status = client.status()?;
    let row = status.mounts.into_iter().find(|row| is_of(line, row));
    row.ok_or_else(|| MountError::NotThere(dir.to_owned()))
}

/// Whether a mount is the one that the daemon tells of. Its device's number alone does not say so: when it is gone, the kernel gives the number to
/// the next mount, which may be another VE's.
fn is_of(line: &mountinfo::Line, row: &MountRow) -> bool {
    line.kind == "fuse.vefs" && line.device == row.device && line.source == row.source
}

/// Unmounts a VE or a version everywhere in this mount namespace, and waits until the daemon has let go of it. With `lazy` it is detached even
/// when it is in use, and not waited for.
pub fn umount_row(socket: &Path, row: &MountRow, lazy: bool) -> Result<(), MountError> {
    let lines = mountinfo::read().map_err(MountError::Table)?;
    let dirs: Vec<&Path> = lines.iter().filter(|line| is_of(line, row)).map(|line| line.dir.as_path()).collect();
    if dirs.is_empty() {
        // A mount that was detached a moment ago ends by itself.
        if release(socket, row, DETACHED_MS)? {
            return Ok(());
        }
        return Err(MountError::Elsewhere(row.name(), row.dir.clone()));
    }
    let flags = UnmountFlags::NOFOLLOW | if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    for dir in dirs.into_iter().rev() {
        unmount(dir, flags).map_err(|e| {
            let why = match e {
                Errno::BUSY => "busy: a process works in it or has a file open, or something is mounted below; --lazy detaches it now".into(),
                Errno::PERM => "only root may unmount".into(),
                e => io::Error::from(e).to_string(),
            };
            MountError::Unmount { dir: dir.to_owned(), why }
        })?;
    }
    if !lazy && !release(socket, row, RELEASE_MS)? {
        return Err(MountError::StillUsed(row.name()));
    }
    Ok(())
}

fn release(socket: &Path, row: &MountRow, wait_ms: u64) -> Result<bool, ClientError> {
    let request = Request::Unmounted { ve: row.ve, version: row.version.clone(), wait_ms };
    Client::connect(socket)?.call::<Released>(&request).map(|answer| answer.released)
}

/// The flags that a VE's mount has, as options: what a remount does not change stays (mount(8), "remount").
pub fn present(dir: &Path) -> Result<String, MountError> {
    let point = |why: String| MountError::Point { dir: dir.to_owned(), why };
    let (_, shown) = open_point(dir).map_err(|e| point(say(e)))?;
    let lines = mountinfo::read().map_err(MountError::Table)?;
    match mountinfo::at(&lines, &shown) {
        Some(line) if line.kind == "fuse.vefs" => Ok(Options::flags_in(&line.options)),
        _ => Err(point("no VE is mounted there".into())),
    }
}

/// Gives a mount that is there these flags, and no others.
pub fn remount(dir: &Path, options: &Options) -> Result<(), MountError> {
    present(dir)?;
    let point = |why: String| MountError::Point { dir: dir.to_owned(), why };
    let (_, shown) = open_point(dir).map_err(|e| point(say(e)))?;
    let flags = &options.flags;
    let mut bits = Bits::BIND | Bits::NOATIME;
    for (set, bit) in [
        (flags.read_only, Bits::RDONLY),
        (flags.nosuid, Bits::NOSUID),
        (flags.nodev, Bits::NODEV),
        (flags.noexec, Bits::NOEXEC),
        (flags.nosymfollow, Bits::NOSYMFOLLOW),
    ] {
        if set {
            bits |= bit;
        }
    }
    mount_remount(&shown, bits, "").map_err(|e| point(say(e)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vefs::ids::VeId;

    /// A mount that was left was detached by its place: what lay over it went instead, or what was mounted below it as well.
    #[test]
    fn what_was_left_is_detached_where_it_is_alone() {
        let lines = mountinfo::parse(
            b"40 36 0:52 / /srv/a rw - fuse.vefs 0000002B rw\n41 40 0:60 / /srv/a/data rw - ext4 /dev/sdb rw\n\
              42 36 0:52 / /srv/b rw - fuse.vefs 0000002B rw\n43 36 0:52 / /srv/c rw - fuse.vefs 0000002B rw\n\
              44 43 0:61 / /srv/c rw - tmpfs tmpfs rw\n45 36 0:70 / /srv/bb rw - tmpfs tmpfs rw\n",
        );
        let past = MountRow {
            ve: Id(VeId(0x2B)),
            version: None,
            dir: "/srv/a".into(),
            source: "0000002B".into(),
            device: (0, 52),
            past: true,
        };
        let left = Left { lines: &lines, past: Some(past) };
        let alone = |line: &&mountinfo::Line| left.is_one(line) && left.is_alone(line);
        let dirs: Vec<&Path> = lines.iter().filter(alone).map(|line| line.dir.as_path()).collect();
        assert_eq!(dirs, [Path::new("/srv/b")], "others are below /srv/a and over /srv/c");
    }

    /// The daemon told of a mount that was gone, and the kernel had given its device's number to another VE's mount: `aspfs umount` of the one
    /// unmounted the other.
    #[test]
    fn a_device_number_alone_is_no_mount_of_a_ve() {
        let lines = mountinfo::parse(
            b"40 36 0:52 / /srv/b rw - fuse.vefs 0000002B rw\n41 36 0:52 / /srv/c rw - ext4 0000002A rw\n",
        );
        let row = |ve: u32, device| MountRow {
            ve: Id(VeId(ve)),
            version: None,
            dir: "/srv/a".into(),
            source: format!("{ve:08X}"),
            device,
            past: false,
        };
        let found = |row: &MountRow| lines.iter().filter(|line| is_of(line, row)).count();
        assert_eq!((found(&row(0x2A, (0, 52))), found(&row(0x2B, (0, 52))), found(&row(0x2B, (0, 53)))), (0, 1, 0));
    }
}
