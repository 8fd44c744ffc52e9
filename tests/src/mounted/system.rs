//! Calls of the kernel that tests make and no safe wrapper offers: mappings, file handles, idmapped mounts. The only room of this crate
//! with `unsafe`.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, MsyncFlags, ProtFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

/// A mapping of a file's beginning, accessed byte by byte, as another process may change it at any time.
pub struct Mapping {
    at: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is owned; all accesses are volatile and of single bytes.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// mmap(2): `MAP_SHARED` or `MAP_PRIVATE`.
    pub fn new(file: &File, len: usize, write: bool, shared: bool) -> io::Result<Mapping> {
        let access = if write { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        let flags = if shared { MapFlags::SHARED } else { MapFlags::PRIVATE };
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let at = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, access, flags, file, 0)? };
        NonNull::new(at.cast()).map(|at| Mapping { at, len }).ok_or_else(|| io::Error::other("mapped at 0"))
    }

    /// Bytes from an offset on.
    pub fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        assert!(offset + len <= self.len);
        // SAFETY: inside the mapping, as was checked.
        (0..len).map(|i| unsafe { self.at.add(offset + i).read_volatile() }).collect()
    }

    /// Changes bytes; the mapping must be writable.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len);
        for (i, b) in bytes.iter().enumerate() {
            // SAFETY: inside the mapping, as was checked.
            unsafe { self.at.add(offset + i).write_volatile(*b) };
        }
    }

    /// msync(2) with `MS_SYNC`.
    pub fn sync(&self) -> io::Result<()> {
        // SAFETY: exactly this mapping.
        unsafe { rustix::mm::msync(self.at.as_ptr().cast(), self.len, MsyncFlags::SYNC)? };
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly this mapping, which nobody uses any more.
        let _ = unsafe { rustix::mm::munmap(self.at.as_ptr().cast(), self.len) };
    }
}

/// Room for a file handle: `MAX_HANDLE_SZ` bytes behind its head.
const HANDLE: usize = 8 + 128;

/// A file handle (name_to_handle_at(2)).
#[repr(C, align(8))]
#[derive(Clone)]
pub struct Handle([u8; HANDLE]);

/// The handle of a path, its last link not followed.
pub fn handle_of(path: &Path) -> io::Result<Handle> {
    let mut handle = Handle([0; HANDLE]);
    handle.0[..4].copy_from_slice(&128u32.to_ne_bytes());
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
    let mut mount = 0i32;
    // SAFETY: the path ends with a NUL; the handle has the room that its first word says; all of it lives through the call.
    let done = unsafe {
        let handle: *mut Handle = &raw mut handle;
        libc::syscall(libc::SYS_name_to_handle_at, libc::AT_FDCWD, path.as_ptr(), handle, &raw mut mount, 0)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(handle) }
}

/// Opens what a handle means, on the mount that `mount` is on.
pub fn open_handle(mount: BorrowedFd<'_>, handle: &Handle, flags: i32) -> io::Result<File> {
    // SAFETY: the handle is as name_to_handle_at made it, and only read.
    let fd = unsafe { libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), &raw const *handle, flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the kernel has just given us.
    Ok(unsafe { File::from_raw_fd(fd as i32) })
}

/// Mounts what is at `from` at `to` once more, with owners mapped as in a user namespace.
pub fn idmapped(from: &Path, to: &Path, users: BorrowedFd<'_>) -> io::Result<()> {
    let tree: OwnedFd =
        open_tree(rustix::fs::CWD, from, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    let set = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: users.as_raw_fd() as u64,
    };
    // SAFETY: an empty NUL-terminated path, and a struct of the size given; both are only read.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const set,
            size_of::<libc::mount_attr>(),
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(move_mount(&tree, "", rustix::fs::CWD, to, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}
