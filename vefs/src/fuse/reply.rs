//! Replies that fuser's own types do not offer as they are needed here.

use std::time::Duration;

use fuser::{
    FileAttr, FileHandle, FopenFlags, Generation, ReplyAttr, ReplyCreate, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, ReplyXattr,
};

use super::convert::{FOR_EVER, errno};
use super::files::{CACHED, PASSTHROUGH};
use super::fs::Found;
use super::nodes::Opened;
use super::sys;
use crate::clock::Timestamp;
use crate::errno::Errno;
use crate::ids::InodeNo;
use crate::types::{Inode, Kind, mode};

/// Inode numbers are never used twice.
pub const GENERATION: Generation = Generation(0);

/// The kernel need not tell of each close(2).
const OPEN_FLAGS: FopenFlags = FopenFlags::FOPEN_NOFLUSH;
const CACHED_FLAGS: FopenFlags = OPEN_FLAGS.union(FopenFlags::FOPEN_KEEP_CACHE);
/// Not with `FOPEN_PARALLEL_DIRECT_WRITES`: kernels up to 6.10 let such a write and a cached open wait for each other.
const DIRECT_FLAGS: FopenFlags = CACHED_FLAGS.union(FopenFlags::FOPEN_DIRECT_IO);

/// How a kind of request is answered.
pub trait Answer<T>: Send + 'static {
    /// Says what the request came to.
    fn give(self, done: Result<T, Errno>);
}

impl Answer<()> for ReplyEmpty {
    fn give(self, done: Result<(), Errno>) {
        match done {
            Ok(()) => self.ok(),
            Err(e) => self.error(errno(e)),
        }
    }
}

impl Answer<Found> for ReplyEntry {
    fn give(self, done: Result<Found, Errno>) {
        match done {
            Ok(f) => self.entry_with_ttls(&f.ttl(), &FOR_EVER, &f.attributes(), GENERATION),
            Err(e) => self.error(errno(e)),
        }
    }
}

impl Answer<(FileAttr, Duration)> for ReplyAttr {
    fn give(self, done: Result<(FileAttr, Duration), Errno>) {
        match done {
            Ok((attr, ttl)) => self.attr(&ttl, &attr),
            Err(e) => self.error(errno(e)),
        }
    }
}

impl Answer<u32> for ReplyWrite {
    fn give(self, done: Result<u32, Errno>) {
        match done {
            Ok(n) => self.written(n),
            Err(e) => self.error(errno(e)),
        }
    }
}

impl Answer<Opened> for ReplyOpen {
    fn give(self, done: Result<Opened, Errno>) {
        match done {
            Ok(Opened::Cached) => self.opened(FileHandle(CACHED), CACHED_FLAGS),
            Ok(Opened::Direct) => self.opened(FileHandle(CACHED), DIRECT_FLAGS),
            // Passthrough and KEEP_CACHE exclude each other.
            Ok(Opened::Passthrough(backing)) => {
                let id = sys::wrap_for_open(&self, backing);
                self.opened_passthrough(FileHandle(PASSTHROUGH), OPEN_FLAGS, &id);
                // It stays registered: fuser's own id would give it back when it is dropped.
                let _ = id.into_raw();
            }
            Err(e) => self.error(errno(e)),
        }
    }
}

impl Answer<(Found, Opened)> for ReplyCreate {
    fn give(self, done: Result<(Found, Opened), Errno>) {
        match done {
            Ok((f, opened @ (Opened::Cached | Opened::Direct))) => {
                let flags = if opened == Opened::Direct { DIRECT_FLAGS } else { CACHED_FLAGS };
                self.created(&f.ttl(), &f.attributes(), GENERATION, FileHandle(CACHED), flags);
            }
            // The creation found the file there.
            Ok((f, Opened::Passthrough(backing))) => {
                let (id, handle) = (sys::wrap_for_create(&self, backing), FileHandle(PASSTHROUGH));
                self.created_passthrough(&f.ttl(), &f.attributes(), GENERATION, handle, OPEN_FLAGS, &id);
                let _ = id.into_raw();
            }
            Err(e) => self.error(errno(e)),
        }
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

/// Attributes of any inode of a kind.
pub fn any(kind: Kind) -> Inode {
    Inode { mode: kind.bits(), ..nothing() }
}
