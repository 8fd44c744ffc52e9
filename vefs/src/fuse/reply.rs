//! Replies that fuser's own types do not offer as they are needed here.

use std::time::Duration;

use fuser::{FileAttr, FileHandle, FopenFlags, Generation, ReplyCreate, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyXattr};

use super::convert::{FOR_EVER, errno};
use super::fs::Found;
use super::sys;
use crate::clock::Timestamp;
use crate::errno::Errno;
use crate::ids::InodeNo;
use crate::types::{Inode, mode};

/// Inode numbers are never used twice.
pub const GENERATION: Generation = Generation(0);

/// An inode under a name.
pub fn entry(reply: ReplyEntry, found: Result<Found, Errno>) {
    match found {
        Ok(f) => reply.entry_with_ttls(&f.ttl(), &FOR_EVER, &f.attributes(), GENERATION),
        Err(e) => reply.error(errno(e)),
    }
}

/// Success, or an error.
pub fn empty(reply: ReplyEmpty, done: Result<(), Errno>) {
    match done {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(e)),
    }
}

/// A value of getxattr(2) or listxattr(2), or how long it is where there is no room for it.
pub fn xattr(reply: ReplyXattr, size: u32, value: Result<Vec<u8>, Errno>) {
    match value {
        Ok(v) if size == 0 => reply.size(v.len() as u32),
        Ok(v) if v.len() <= size as usize => reply.data(&v),
        Ok(_) => reply.error(errno(Errno::ERANGE)),
        Err(e) => reply.error(errno(e)),
    }
}

/// Attributes of nothing.
pub fn nothing() -> Inode {
    Inode {
        mode: mode::IFREG,
        uid: 0,
        gid: 0,
        nlink: 0,
        rdev: 0,
        size: 0,
        mapped: 0,
        atime: Timestamp::default(),
        mtime: Timestamp::default(),
        ctime: Timestamp::default(),
        btime: Timestamp::default(),
        parent: InodeNo(0),
        next_cookie: 0,
        flags: 0,
    }
}

/// Attributes of any directory.
pub fn directory() -> Inode {
    Inode { mode: mode::IFDIR, ..nothing() }
}

/// An open that reads a backing file which stays registered: fuser's own id would give it back when it is dropped.
pub fn opened_passthrough(reply: ReplyOpen, handle: FileHandle, flags: FopenFlags, backing: u32) {
    let id = sys::wrap_for_open(&reply, backing);
    reply.opened_passthrough(handle, flags, &id);
    let _ = id.into_raw();
}

/// As [`opened_passthrough`], for a creation that found the file there.
pub fn created_passthrough(
    reply: ReplyCreate,
    (ttl, attr): (&Duration, &FileAttr),
    handle: FileHandle,
    flags: FopenFlags,
    backing: u32,
) {
    let id = sys::wrap_for_create(&reply, backing);
    reply.created_passthrough(ttl, attr, GENERATION, handle, flags, &id);
    let _ = id.into_raw();
}
