//! A directory tree as a source. Everything is opened relative to its directory and without following links; once opened, an entry
//! is looked at through its descriptor only, so that nobody who changes the tree meanwhile leads the reading elsewhere.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, Mode, OFlags, SeekFrom, Statx, StatxFlags};
use rustix::io::Errno;
use vefs::clock::Timestamp;
use vefs::types::Kind;

use super::super::event::{DATA_MAX, Event, Meta, What, device};
use super::{Options, Out, Result, SourceError, io_at, keeps_xattr};

/// A directory being read.
struct Level {
    fd: OwnedFd,
    node: u32,
    path: PathBuf,
    /// Names left, the next one last.
    names: Vec<CString>,
}

struct Walk<'a, 'b> {
    out: &'a mut Out<'b>,
    options: &'a Options,
    /// The mount that the source is on.
    mount: Mount,
    /// Inodes with several names, by device and number.
    linked: HashMap<(u64, u64), u32>,
    /// Number of the next inode.
    next: u32,
}

/// Reads a directory tree.
pub(super) fn read(root: &Path, options: &Options, out: &mut Out<'_>) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = fs::open(root, flags, Mode::empty()).map_err(|e| io_at("opening", root)(e.into()))?;
    let stat = look(&fd, root)?;
    let mut walk = Walk { out, options, mount: mount_of(&stat), linked: HashMap::new(), next: 1 };
    walk.out.event(Event::Meta { node: 0, meta: meta(&stat) })?;
    walk.xattrs(&fd, root)?;
    let mut stack = vec![Level { names: names(&fd, root)?, fd, node: 0, path: root.to_owned() }];
    while let Some(level) = stack.last_mut() {
        let Some(name) = level.names.pop() else {
            stack.pop();
            continue;
        };
        if let Some(below) = walk.entry(level, &name)? {
            stack.push(below);
        }
    }
    Ok(())
}

impl Walk<'_, '_> {
    /// Tells of an entry; answers the directory that it is, to go on in.
    fn entry(&mut self, level: &Level, name: &CStr) -> Result<Option<Level>> {
        let path = level.path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&level.fd, name, flags, Mode::empty()).map_err(|e| io_at("opening", &path)(e.into()))?;
        let stat = look(&fd, &path)?;
        let kind = Kind::of_mode(stat.stx_mode.into());
        let foreign = mount_of(&stat) != self.mount && !self.options.cross_mounts;
        if foreign {
            self.out.skip();
        }
        if foreign && kind != Some(Kind::Directory) {
            // A file that is mounted over another: what is below cannot be seen.
            return Ok(None);
        }
        let id = (u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor), stat.stx_ino);
        let several = stat.stx_nlink > 1 && kind != Some(Kind::Directory);
        if let Some(to) = self.linked.get(&id).filter(|_| several) {
            self.out.event(Event::Link { parent: level.node, name: name.to_bytes().to_vec(), to: *to })?;
            return Ok(None);
        }
        let mut file = None;
        let what = match kind {
            Some(Kind::Directory) => What::Directory,
            Some(Kind::Regular) => {
                let (opened, what) = open_file(&fd, &path, stat.stx_size)?;
                file = Some(opened);
                what
            }
            Some(Kind::Symlink) => What::Symlink(target(&fd, &path)?),
            Some(Kind::Fifo) => What::Fifo,
            Some(Kind::Socket) => What::Socket,
            Some(Kind::CharDevice) => What::CharDevice(device_of(&stat, &path)?),
            Some(Kind::BlockDevice) => What::BlockDevice(device_of(&stat, &path)?),
            None => return Err(io_at("looking at", &path)(io::Error::other("a kind of file that is not known"))),
        };
        let node = self.next;
        self.next += 1;
        self.out.event(Event::Node { parent: level.node, name: name.to_bytes().to_vec(), meta: meta(&stat), what })?;
        if several {
            self.linked.insert(id, node);
        }
        self.xattrs(&fd, &path)?;
        if let Some(file) = file {
            self.content(&file, &path, &stat)?;
        }
        if kind != Some(Kind::Directory) || foreign {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = fs::open(magic(&fd), flags, Mode::empty()).map_err(|e| io_at("opening", &path)(e.into()))?;
        let names = names(&fd, &path)?;
        Ok(Some(Level { fd, node, path, names }))
    }

    /// Tells of the extended attributes of an open file of any kind.
    fn xattrs(&mut self, fd: &OwnedFd, path: &Path) -> Result<()> {
        let failed = |e: Errno| io_at("reading extended attributes of", path)(e.into());
        let link = magic(fd);
        let mut list = vec![0; vefs::limits::XATTR_LIST_MAX];
        let len = match fs::listxattr(&link, &mut list[..]) {
            Err(Errno::OPNOTSUPP) => return Ok(()),
            other => other.map_err(failed)?,
        };
        let mut names: Vec<&[u8]> = list[..len].split(|b| *b == 0).filter(|name| keeps_xattr(name)).collect();
        names.sort_unstable();
        for name in names {
            let mut value = vec![0; vefs::limits::XATTR_VALUE_MAX];
            let len = fs::getxattr(&link, name, &mut value[..]).map_err(failed)?;
            value.truncate(len);
            self.out.event(Event::Xattr { name: name.to_vec(), value })?;
        }
        Ok(())
    }

    /// Tells of a file's bytes, range by range. The file must be at the end what it `was` at the beginning: to lseek(2) a hole at the end
    /// looks like the end of a file that became shorter, and bytes that change behind the reader show nowhere else.
    fn content(&mut self, file: &OwnedFd, path: &Path, was: &Statx) -> Result<()> {
        let failed = |e: Errno| io_at("reading", path)(e.into());
        let size = was.stx_size;
        let mut at = 0;
        while at < size {
            let start = match fs::seek(file, SeekFrom::Data(at)) {
                // Nothing but a hole is left.
                Err(Errno::NXIO) => break,
                Err(Errno::INVAL) => at,
                other => other.map_err(failed)?,
            };
            let end = match fs::seek(file, SeekFrom::Hole(start)) {
                Err(Errno::INVAL) => size,
                Err(Errno::NXIO) => return Err(changed(path)),
                other => other.map_err(failed)?,
            };
            self.range(file, path, start, end.min(size))?;
            at = end.max(start + 1);
        }
        if same_bytes(was, &look(file, path)?) { Ok(()) } else { Err(changed(path)) }
    }

    fn range(&mut self, file: &OwnedFd, path: &Path, start: u64, end: u64) -> Result<()> {
        let mut at = start;
        while at < end {
            let mut bytes = vec![0; (end - at).min(DATA_MAX as u64) as usize];
            let n = match rustix::io::pread(file, &mut bytes[..], at) {
                Err(Errno::INTR) => continue,
                other => other.map_err(|e| io_at("reading", path)(e.into()))?,
            };
            if n == 0 {
                return Err(io_at("reading", path)(io::Error::other("it became shorter while it was being read")));
            }
            bytes.truncate(n);
            self.out.event(Event::Data { offset: at, bytes })?;
            at += n as u64;
        }
        Ok(())
    }
}

/// Another way to what a descriptor stands for. Following this link follows no other, also where it stands for a symbolic link.
fn magic(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn look(fd: &OwnedFd, path: &Path) -> Result<Statx> {
    let mask = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    fs::statx(fd, c"", AtFlags::EMPTY_PATH, mask).map_err(|e| io_at("looking at", path)(e.into()))
}

/// What tells mounts apart: the mount's number where the kernel gives it, else the device. Never both: files of one overlayfs, or of the
/// subvolumes of one btrfs, have different devices.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mount {
    Number(u64),
    Device(u64),
}

fn mount_of(stat: &Statx) -> Mount {
    match StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::MNT_ID) {
        true => Mount::Number(stat.stx_mnt_id),
        false => Mount::Device(u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor)),
    }
}

/// The number of a device.
fn device_of(stat: &Statx, path: &Path) -> Result<u64> {
    let (major, minor) = (stat.stx_rdev_major, stat.stx_rdev_minor);
    let odd = || io::Error::other(format!("its device number {major}:{minor} has more than 12 and 20 bits"));
    device(major, minor).ok_or_else(|| io_at("looking at", path)(odd()))
}

/// Whether nothing was written to a file between two looks, and it has the same length.
fn same_bytes(was: &Statx, is: &Statx) -> bool {
    let seen = |stat: &Statx| {
        let times = [stat.stx_mtime, stat.stx_ctime].map(|time| (time.tv_sec, time.tv_nsec));
        (stat.stx_size, times)
    };
    seen(was) == seen(is)
}

fn changed(path: &Path) -> SourceError {
    io_at("reading", path)(io::Error::other("it changed while it was being read"))
}

fn meta(stat: &Statx) -> Meta {
    let mtime = Timestamp { secs: stat.stx_mtime.tv_sec, nanos: stat.stx_mtime.tv_nsec };
    Meta { mode: u32::from(stat.stx_mode) & 0o7777, uid: stat.stx_uid, gid: stat.stx_gid, mtime }
}

/// The names in a directory, the last one in byte order first.
fn names(fd: &OwnedFd, path: &Path) -> Result<Vec<CString>> {
    let failed = |e: Errno| io_at("reading directory", path)(e.into());
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(fd).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_owned();
        if name.as_bytes() != b"." && name.as_bytes() != b".." {
            names.push(name);
        }
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

/// Opens a regular file for reading, and looks whether it has holes.
fn open_file(fd: &OwnedFd, path: &Path, size: u64) -> Result<(OwnedFd, What)> {
    let failed = |e: Errno| io_at("opening", path)(e.into());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = match fs::open(magic(fd), flags | OFlags::NOATIME, Mode::empty()) {
        // Only for the owner.
        Err(Errno::PERM) => fs::open(magic(fd), flags, Mode::empty()).map_err(failed)?,
        other => other.map_err(failed)?,
    };
    let sparse = size > 0
        && match fs::seek(&file, SeekFrom::Hole(0)) {
            Err(Errno::INVAL | Errno::NXIO) => false,
            other => other.map_err(failed)? < size,
        };
    Ok((file, What::File { size, sparse }))
}

fn target(fd: &OwnedFd, path: &Path) -> Result<Vec<u8>, SourceError> {
    let target = fs::readlinkat(fd, c"", Vec::new()).map_err(|e| io_at("reading link", path)(e.into()))?;
    Ok(target.into_bytes())
}
