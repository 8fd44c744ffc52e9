//! Files in a real folder.
//!
//! Every path is walked from the store's own descriptor, one component at a time and without following symbolic links,
//! so that nothing in the store can lead out of it. Errors of writes and flushes are handed up as they are and never
//! retried here: after a failed flush the kernel may have dropped the pages and forgotten the error
//! (`docs/format/disk-assumptions.md`).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{self, AtFlags, Dir, FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags, retry_on_intr};

use super::path::{check_dir, check_file, split};
use super::{File, Storage};
use crate::waiting;

/// Most parts one pwritev(2) takes on Linux (`UIO_MAXIOV`).
const PARTS_PER_CALL: usize = 1024;
/// Zeros written by one call of [`Storage::create`]. Small on purpose: the kernel makes a page-cache folio as large as the
/// write that fills it, and every later write into a folio walks all its blocks (`ext4_block_write_begin`).
const ZEROS: &[u8] = &[0; 16 << 10];
/// The file that [`DiskStorage::lock`] locks.
const LOCK_NAME: &str = "lock";
const FILE_MODE: Mode = Mode::from_raw_mode(0o600);
const DIR_MODE: Mode = Mode::from_raw_mode(0o700);
const DIR_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FILE_FLAGS: OFlags = OFlags::RDWR.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A folder on a local file system.
///
/// ```
/// use std::io::IoSlice;
/// use vefs::storage::{Storage, disk::DiskStorage};
///
/// let folder = tempfile::tempdir()?;
/// let store = DiskStorage::open(folder.path())?;
/// let _in_use = store.lock()?;
/// let file = store.create("journal/1", 4096)?;
/// file.write_at(&[IoSlice::new(b"head"), IoSlice::new(b"body")], 0)?;
/// file.sync()?;
/// store.sync_dir("journal")?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct DiskStorage {
    root: OwnedFd,
}

/// Keeps every other process out of a store until it is dropped or the process dies.
#[derive(Debug)]
pub struct StoreLock {
    _file: OwnedFd,
}

impl DiskStorage {
    /// Opens an existing folder. The folder itself may be reached through symbolic links; nothing below it may.
    pub fn open(root: &Path) -> io::Result<DiskStorage> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(DiskStorage { root: retry_on_intr(|| fs::open(root, flags, Mode::empty()))? })
    }

    /// Locks the store for this holder alone (flock(2) on the file `lock`, made when missing). `ResourceBusy` when
    /// somebody has it, this process included.
    pub fn lock(&self) -> io::Result<StoreLock> {
        let flags = FILE_FLAGS | OFlags::CREATE;
        let file = retry_on_intr(|| fs::openat(&self.root, LOCK_NAME, flags, FILE_MODE))?;
        match retry_on_intr(|| fs::flock(&file, FlockOperation::NonBlockingLockExclusive)) {
            Ok(()) => Ok(StoreLock { _file: file }),
            Err(Errno::WOULDBLOCK) => {
                Err(io::Error::new(io::ErrorKind::ResourceBusy, "the store is in use by another process"))
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Opens a folder by its checked path; with `make`, folders on the way that are missing are made.
    fn folder(&self, dir: &str, make: bool) -> io::Result<Folder<'_>> {
        let mut at = Folder::Root(self.root.as_fd());
        for name in dir.split('/').filter(|name| !name.is_empty()) {
            let mut next = open_dir(at.as_fd(), name);
            if make && matches!(next, Err(Errno::NOENT)) {
                match fs::mkdirat(at.as_fd(), name, DIR_MODE) {
                    Ok(()) | Err(Errno::EXIST) => next = open_dir(at.as_fd(), name),
                    Err(e) => return Err(e.into()),
                }
            }
            at = Folder::Below(next?);
        }
        Ok(at)
    }
}

/// A folder on the way: the store itself, or one opened below it.
enum Folder<'a> {
    Root(BorrowedFd<'a>),
    Below(OwnedFd),
}

impl AsFd for Folder<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Folder::Root(fd) => *fd,
            Folder::Below(fd) => fd.as_fd(),
        }
    }
}

fn open_dir(at: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    retry_on_intr(|| fs::openat(at, name, DIR_FLAGS, Mode::empty()))
}

impl Storage for DiskStorage {
    fn open(&self, path: &str) -> io::Result<Arc<dyn File>> {
        check_file(path)?;
        let (dir, name) = split(path);
        let folder = self.folder(dir, false)?;
        let fd = retry_on_intr(|| fs::openat(folder.as_fd(), name, FILE_FLAGS, Mode::empty()))?;
        Ok(Arc::new(DiskFile { fd }))
    }

    fn create(&self, path: &str, zeros: u64) -> io::Result<Arc<dyn File>> {
        check_file(path)?;
        let (dir, name) = split(path);
        let folder = self.folder(dir, true)?;
        let flags = FILE_FLAGS | OFlags::CREATE | OFlags::TRUNC;
        let fd = retry_on_intr(|| fs::openat(folder.as_fd(), name, flags, FILE_MODE))?;
        let file = DiskFile { fd };
        if let Err(e) = file.fill(zeros) {
            // Space that was taken in vain is given back at once: a full disk must not stay full because of us. The
            // error that counts is the first one.
            let _ = fs::ftruncate(&file.fd, 0);
            return Err(e);
        }
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_file(from)?;
        check_file(to)?;
        let ((from_dir, from_name), (to_dir, to_name)) = (split(from), split(to));
        let source = self.folder(from_dir, false)?;
        let target = self.folder(to_dir, true)?;
        Ok(fs::renameat(source.as_fd(), from_name, target.as_fd(), to_name)?)
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        check_file(from)?;
        check_file(to)?;
        let ((from_dir, from_name), (to_dir, to_name)) = (split(from), split(to));
        let source = self.folder(from_dir, false)?;
        let target = self.folder(to_dir, true)?;
        Ok(fs::linkat(source.as_fd(), from_name, target.as_fd(), to_name, AtFlags::empty())?)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        check_file(path)?;
        let (dir, name) = split(path);
        let folder = self.folder(dir, false)?;
        Ok(fs::unlinkat(folder.as_fd(), name, AtFlags::empty())?)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        check_dir(dir)?;
        let folder = match self.folder(dir, false) {
            Ok(folder) => folder,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut names = Vec::new();
        for entry in Dir::read_from(folder.as_fd())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Flushes the folder and every folder above it up to the store, since a folder's own name lies in its parent.
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        check_dir(dir)?;
        let mut at = dir;
        loop {
            fs::fsync(self.folder(at, false)?.as_fd())?;
            if at.is_empty() {
                return Ok(());
            }
            at = split(at).0;
        }
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(fs::syncfs(&self.root)?)
    }

    fn forget_cached(&self, path: &str) -> io::Result<()> {
        check_file(path)?;
        let (dir, name) = split(path);
        let folder = self.folder(dir, false)?;
        let fd = retry_on_intr(|| fs::openat(folder.as_fd(), name, FILE_FLAGS, Mode::empty()))?;
        Ok(fs::fadvise(&fd, 0, None, fs::Advice::DontNeed)?)
    }

    /// What an unprivileged process may still take (`f_bavail` of statvfs(3)): the file system's reserve is not ours.
    fn free_bytes(&self) -> io::Result<u64> {
        let stat = fs::fstatvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// An open file. Closed when the last user drops it; errors at closing say nothing that a flush would not.
#[derive(Debug)]
struct DiskFile {
    fd: OwnedFd,
}

impl DiskFile {
    /// Reads what the page cache has, without waiting; false when that is not all. An error is for the read that waits.
    fn read_cached(&self, buf: &mut [u8], offset: u64) -> bool {
        let want = buf.len();
        let parts = &mut [IoSliceMut::new(buf)];
        rustix::io::preadv2(&self.fd, parts, offset, ReadWriteFlags::NOWAIT).is_ok_and(|n| n == want)
    }

    fn fill(&self, zeros: u64) -> io::Result<()> {
        let mut at = 0;
        while at < zeros {
            let n = (zeros - at).min(ZEROS.len() as u64);
            self.write_at(&[IoSlice::new(&ZEROS[..n as usize])], at)?;
            at += n;
        }
        Ok(())
    }
}

impl File for DiskFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if waiting::is_told() && self.read_cached(buf, offset) {
            return Ok(());
        }
        waiting::wait(|| {
            let mut done = 0;
            while done < buf.len() {
                let at = offset.checked_add(done as u64).ok_or(io::ErrorKind::InvalidInput)?;
                match retry_on_intr(|| rustix::io::pread(&self.fd, &mut buf[done..], at))? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    n => done += n,
                }
            }
            Ok(())
        })
    }

    /// One pwritev(2) per 1024 parts; the kernel takes at most 2 GiB − 4 KiB in one call, more than that is `WriteZero`.
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut at = offset;
        for chunk in parts.chunks(PARTS_PER_CALL) {
            let want: usize = chunk.iter().map(|part| part.len()).sum();
            let got = retry_on_intr(|| rustix::io::pwritev(&self.fd, chunk, at))?;
            if got != want {
                return Err(io::Error::new(io::ErrorKind::WriteZero, format!("{got} of {want} bytes written")));
            }
            at = at.checked_add(want as u64).ok_or(io::ErrorKind::InvalidInput)?;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(fs::fdatasync(&self.fd)?)
    }

    fn len(&self) -> io::Result<u64> {
        let size = fs::fstat(&self.fd)?.st_size;
        u64::try_from(size).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(retry_on_intr(|| fs::fallocate(&self.fd, flags, offset, len))?)
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
