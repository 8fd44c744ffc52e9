//! The kernel's calls that no safe wrapper offers: the only room of this crate with `unsafe`.
//!
//! Each function takes and gives owned or borrowed descriptors only, so that nothing outside can misuse them.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::mount::{OpenTreeFlags, open_tree};

/// `FUSE_DEV_IOC_BACKING_CLOSE` of linux/fuse.h: `_IOW(229, 2, uint32_t)`.
const BACKING_CLOSE: libc::c_ulong = 0x4004_e502;

/// Makes `place` a second descriptor of what `fd` is open on, in one step (dup3(2)). Whoever owns `place` keeps owning the number.
pub fn dup_over(fd: BorrowedFd<'_>, place: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both descriptors are open, as they are borrowed; dup3 touches no memory of ours.
    let done = unsafe { libc::dup3(fd.as_raw_fd(), place.as_raw_fd(), libc::O_CLOEXEC) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives a backing id of a FUSE connection back (linux/fuse.h, kernel `fs/fuse/backing.c`).
pub fn close_backing(device: BorrowedFd<'_>, id: u32) -> io::Result<()> {
    // SAFETY: the argument is a pointer to a u32 that lives through the call; the kernel only reads it.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), BACKING_CLOSE, &raw const id) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A read-only view of a folder: a bind mount of its own that is attached nowhere (open_tree(2), mount_setattr(2)) and goes with its
/// descriptor. No descriptor opened through it can ever be made writable, by nobody.
pub fn read_only_view(folder: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(rustix::fs::CWD, folder, flags)?;
    let set = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOATIME,
        attr_clr: libc::MOUNT_ATTR__ATIME,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is a NUL-terminated empty string, the attributes a struct of the size given; both live through the call
    // and are only read.
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
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(tree) }
}

/// fuser's form of a backing id that is ours. The caller takes it back with `into_raw`.
pub fn wrap_for_open(reply: &fuser::ReplyOpen, backing: u32) -> fuser::BackingId {
    // SAFETY: the id was registered on this connection and is not given back while the reply is made: the lock of the mount's
    // nodes was held when it was counted as open.
    unsafe { reply.wrap_backing(backing) }
}

/// As [`wrap_for_open`].
pub fn wrap_for_create(reply: &fuser::ReplyCreate, backing: u32) -> fuser::BackingId {
    // SAFETY: as above.
    unsafe { reply.wrap_backing(backing) }
}
