//! Replies that fuser's own types do not offer as they are needed here.

use std::time::Duration;

use fuser::{FileAttr, FileHandle, FopenFlags, Generation, ReplyCreate, ReplyOpen};

use super::sys;
use crate::clock::Timestamp;
use crate::ids::InodeNo;
use crate::types::{Inode, mode};

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
    reply.created_passthrough(ttl, attr, Generation(0), handle, flags, &id);
    let _ = id.into_raw();
}
