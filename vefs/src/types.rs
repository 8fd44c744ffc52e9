//! What the namespace is made of: inodes, directory entries, extents, and the mode bits that tell them apart.
//!
//! These are the *logical* values of a VE's state: they are what records carry, what versions keep and what the state
//! root covers. None of them names a place on a disk.

use bincode::{Decode, Encode};

use crate::clock::Timestamp;
use crate::ids::{Hash, InodeNo, PayloadId};

/// The file type bits of a mode and the special permission bits (inode(7)).
pub mod mode {
    #![allow(missing_docs, reason = "the names are stat(2)'s own")]
    pub const IFMT: u32 = 0o170000;
    pub const IFSOCK: u32 = 0o140000;
    pub const IFLNK: u32 = 0o120000;
    pub const IFREG: u32 = 0o100000;
    pub const IFBLK: u32 = 0o060000;
    pub const IFDIR: u32 = 0o040000;
    pub const IFCHR: u32 = 0o020000;
    pub const IFIFO: u32 = 0o010000;
    pub const ISUID: u32 = 0o4000;
    pub const ISGID: u32 = 0o2000;
    pub const ISVTX: u32 = 0o1000;
    pub const IXGRP: u32 = 0o0010;
    /// All bits that chmod(2) can set.
    pub const PERM: u32 = 0o7777;
}

/// What kind of file an inode is; the same seven that `d_type` of readdir(3) knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Kind {
    Regular,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

impl Kind {
    /// The kind that a mode's type bits name; `None` where they name none. No type bits at all is not a kind.
    pub fn of_mode(m: u32) -> Option<Kind> {
        Some(match m & mode::IFMT {
            mode::IFREG => Kind::Regular,
            mode::IFDIR => Kind::Directory,
            mode::IFLNK => Kind::Symlink,
            mode::IFIFO => Kind::Fifo,
            mode::IFSOCK => Kind::Socket,
            mode::IFCHR => Kind::CharDevice,
            mode::IFBLK => Kind::BlockDevice,
            _ => return None,
        })
    }

    /// The type bits of this kind.
    pub fn bits(self) -> u32 {
        match self {
            Kind::Regular => mode::IFREG,
            Kind::Directory => mode::IFDIR,
            Kind::Symlink => mode::IFLNK,
            Kind::Fifo => mode::IFIFO,
            Kind::Socket => mode::IFSOCK,
            Kind::CharDevice => mode::IFCHR,
            Kind::BlockDevice => mode::IFBLK,
        }
    }
}

/// The attributes of an inode. Content, symlink target and extended attributes are keys of their own.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Inode {
    /// Type and permission bits, as `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Hard links; 0 for an orphan (unlinked and still open).
    pub nlink: u32,
    /// Device number of a character or block device, as the kernel's `makedev` packs it; else 0.
    pub rdev: u64,
    /// Length in bytes: file length, symlink target length; 4096 for a directory, 0 for the other kinds.
    pub size: u64,
    /// Bytes of the file that are mapped (not holes), whatever maps them: `st_blocks` is this / 512, rounded up.
    pub mapped: u64,
    /// Last access, as far as it is kept (utimensat(2) and creation only).
    pub atime: Timestamp,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of anything.
    pub ctime: Timestamp,
    /// Creation.
    pub btime: Timestamp,
    /// Parent of a directory (the root's is itself); 0 for everything else.
    pub parent: InodeNo,
    /// Of a directory: the cookie its next new entry gets. Cookies are never reused in one directory.
    pub next_cookie: u64,
    /// Flags, see [`Inode::PRIVATE_MAP`], [`Inode::HAS_XATTR`] and [`Inode::CUT`].
    pub flags: u32,
}

impl Inode {
    /// The extent map of this file lies in the VE's own state and is complete; without it a base inode's content is the
    /// base tree's.
    pub const PRIVATE_MAP: u32 = 1;
    /// All flags there are.
    pub const FLAGS: u32 = Inode::PRIVATE_MAP | Inode::HAS_XATTR | Inode::CUT;

    /// The inode has, or once had, extended attributes of the VE's own. Without it an inode that is not the base tree's has none, and
    /// nobody needs to look.
    pub const HAS_XATTR: u32 = 2;

    /// The file was cut in front of more extents than one record takes away: what is mapped beyond its size is no content of it any more, and goes
    /// before anything else happens to its content.
    pub const CUT: u32 = 4;

    /// Whether there may be extended attributes.
    pub fn may_have_xattrs(&self, ino: InodeNo) -> bool {
        ino.is_base() || self.flags & Inode::HAS_XATTR != 0
    }

    /// The kind of this inode. A mode without a valid type cannot be constructed by a plan; decoders check.
    pub fn kind(&self) -> Kind {
        Kind::of_mode(self.mode).unwrap_or(Kind::Regular)
    }

    /// Whether this is a directory.
    pub fn is_dir(&self) -> bool {
        self.mode & mode::IFMT == mode::IFDIR
    }

    /// Whether this is a regular file.
    pub fn is_file(&self) -> bool {
        self.mode & mode::IFMT == mode::IFREG
    }
}

/// What a directory entry points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Dentry {
    /// The inode.
    pub ino: InodeNo,
    /// Its kind, so that readdir needs no inode.
    pub kind: Kind,
    /// The persistent `d_off` of this entry: unique in its directory for ever, also after it is gone.
    pub cookie: u64,
}

/// A run of bytes of a file. Its offset in the file is its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Extent {
    /// Length in bytes, at least 1.
    pub len: u64,
    /// Where the bytes come from.
    pub source: Source,
}

/// Where an extent's bytes come from. All variants are logical: none names a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Source {
    /// Bytes that a record of this lineage carried.
    Payload(PayloadId),
    /// Bytes of an object sealed from this lineage's own writes, from `offset` on. Charged to the quota.
    Object {
        /// Name of the object.
        hash: Hash,
        /// Offset in bytes within it.
        offset: u64,
    },
    /// Bytes of a base tree's file, from `offset` of that object on. Free of charge.
    Base {
        /// Name of the object.
        hash: Hash,
        /// Offset in bytes within it.
        offset: u64,
    },
    /// Reserved by fallocate(2), reads as zeros. Charged.
    Unwritten,
}

impl Source {
    /// The source of the bytes `delta` further on.
    pub fn plus(self, delta: u64) -> Source {
        match self {
            Source::Payload(id) => Source::Payload(id.plus(delta)),
            Source::Object { hash, offset } => Source::Object { hash, offset: offset + delta },
            Source::Base { hash, offset } => Source::Base { hash, offset: offset + delta },
            Source::Unwritten => Source::Unwritten,
        }
    }

    /// Whether mapped bytes of this source count towards the VE's quota.
    pub fn is_charged(self) -> bool {
        !matches!(self, Source::Base { .. })
    }
}
