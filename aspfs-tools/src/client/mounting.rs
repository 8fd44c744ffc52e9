//! Attaching and detaching mounts: done by the client, so that it happens in the caller's mount namespace, and so that whatever a path leads
//! through can make nobody wait but the client.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags as Bits, MoveMountFlags, UnmountFlags, mount_remount, move_mount, unmount};
use vefs::ids::VeId;

use super::options::Options;
use super::{Client, ClientError, mountinfo};
use crate::control::message::{Id, MountRow, Released, Request, Why};

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
    Elsewhere(Id, String),
    /// It is mounted still.
    #[error("VE {0} is unmounted here, but still in use: by another mount namespace, or by a process that has it open")]
    StillUsed(Id),
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

/// Mounts a VE at a folder.
pub fn mount(socket: &Path, ve: VeId, dir: &Path, options: &Options) -> Result<MountRow, MountError> {
    let point = |why: String| MountError::Point { dir: dir.to_owned(), why };
    let (place, shown) = open_point(dir).map_err(|e| point(say(e)))?;
    let lines = mountinfo::read().map_err(MountError::Table)?;
    if mountinfo::at(&lines, &shown).is_some_and(|line| line.kind == "fuse.vefs") {
        return Err(point("busy: a VE is mounted there".into()));
    }
    let mut client = Client::connect(socket)?;
    let source = options.source.clone().unwrap_or_else(|| ve.to_string());
    let request = Request::Mount { ve: Id(ve), dir: shown.display().to_string(), source, flags: options.flags.clone() };
    let row: MountRow = client.call(&request)?;
    let mount = client.take_fd().ok_or_else(|| point("the daemon sent no mount".into()))?;
    let how = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    if let Err(e) = move_mount(&mount, "", &place, "", how) {
        // Attached nowhere, it ends with this descriptor; the VE is free again when this returns.
        drop(mount);
        let _ = release(socket, ve, RELEASE_MS);
        return Err(point(say(e)));
    }
    Ok(row)
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

/// Unmounts a VE everywhere in this mount namespace, and waits until the daemon has let go of it. With `lazy` it is detached even when it is
/// in use, and not waited for.
pub fn umount(socket: &Path, ve: VeId, lazy: bool) -> Result<(), MountError> {
    let row: MountRow = Client::connect(socket)?.call(&Request::Mounted { ve: Id(ve) })?;
    let lines = mountinfo::read().map_err(MountError::Table)?;
    let dirs: Vec<&Path> =
        lines.iter().filter(|l| l.device == row.device && l.kind == "fuse.vefs").map(|l| l.dir.as_path()).collect();
    if dirs.is_empty() {
        // A mount that was detached a moment ago ends by itself.
        if release(socket, ve, DETACHED_MS)? {
            return Ok(());
        }
        return Err(MountError::Elsewhere(row.ve, row.dir));
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
    if !lazy && !release(socket, ve, RELEASE_MS)? {
        return Err(MountError::StillUsed(Id(ve)));
    }
    Ok(())
}

fn release(socket: &Path, ve: VeId, wait_ms: u64) -> Result<bool, ClientError> {
    let request = Request::Unmounted { ve: Id(ve), wait_ms };
    Client::connect(socket)?.call::<Released>(&request).map(|answer| answer.released)
}

/// Changes the flags of a mount that is there, as `mount -o remount` does.
pub fn remount(dir: &Path, options: &Options) -> Result<(), MountError> {
    let point = |why: String| MountError::Point { dir: dir.to_owned(), why };
    let (_, shown) = open_point(dir).map_err(|e| point(say(e)))?;
    let lines = mountinfo::read().map_err(MountError::Table)?;
    if mountinfo::at(&lines, &shown).is_none_or(|line| line.kind != "fuse.vefs") {
        return Err(point("no VE is mounted there".into()));
    }
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
