//! The operations that change a VE's file system, as the kernel's file-system interface has them, and their answers.
//!
//! An [`Op`] says what a program wants. Permission was already decided by the kernel (mounts use `default_permissions`);
//! everything else is checked by the plan. Reading needs no `Op`.

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::ids::InodeNo;
use crate::types::Inode;

/// The owner that a created inode gets, and the mask that applies where the parent has no default ACL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group; a set-group-ID parent directory overrides it.
    pub gid: u32,
    /// The caller's umask(2).
    pub umask: u32,
}

/// How renameat2(2) treats an existing target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RenameFlags {
    /// `RENAME_NOREPLACE`: fail with EEXIST when the target exists.
    pub no_replace: bool,
    /// `RENAME_EXCHANGE`: swap the two.
    pub exchange: bool,
    /// `RENAME_WHITEOUT`: leave a character device 0:0 at the source.
    pub whiteout: bool,
}

/// What fallocate(2) shall do; all but `Allocate { keep_size: false }` leave the size alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FallocMode {
    /// Reserve space for holes in the range.
    Allocate {
        /// `FALLOC_FL_KEEP_SIZE`.
        keep_size: bool,
    },
    /// `FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE`.
    PunchHole,
    /// `FALLOC_FL_ZERO_RANGE`: the range reads as zeros and is reserved.
    ZeroRange {
        /// `FALLOC_FL_KEEP_SIZE`.
        keep_size: bool,
    },
}

/// What a setattr changes; `None` leaves alone. The clock is read by the caller: "now" arrives as a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits (the type bits are ignored).
    pub mode: Option<u32>,
    /// Owner; also clears set-user-ID and set-group-ID as chown(2) does.
    pub uid: Option<u32>,
    /// Group; as `uid`.
    pub gid: Option<u32>,
    /// Truncate or extend a regular file.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<Timestamp>,
    /// Modification time.
    pub mtime: Option<Timestamp>,
    /// Clear set-user-ID, and set-group-ID of a group-executable file (`FUSE_HANDLE_KILLPRIV_V2`), because of `size`.
    pub kill_priv: bool,
}

/// How setxattr(2) treats an existing attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrMode {
    /// Create or replace.
    Set,
    /// `XATTR_CREATE`: EEXIST when it exists.
    Create,
    /// `XATTR_REPLACE`: ENODATA when it does not.
    Replace,
}

/// An operation on a VE's file system. Names are bytes without `/` and NUL; `.` and `..` are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// mknod(2), mkdir(2), and open(2) with O_CREAT | O_EXCL: any kind but a symlink, by the type bits of `mode`.
    Create {
        /// Directory.
        parent: InodeNo,
        /// Name in it.
        name: Vec<u8>,
        /// Type and permission bits, before the mask.
        mode: u32,
        /// Device number for devices, else ignored. 0:0 is allowed.
        rdev: u64,
        /// Owner and mask.
        owner: Owner,
    },
    /// symlink(2).
    Symlink {
        /// Directory.
        parent: InodeNo,
        /// Name in it.
        name: Vec<u8>,
        /// What it points to, 1 to 4095 bytes.
        target: Vec<u8>,
        /// Owner; the mask does not apply.
        owner: Owner,
    },
    /// link(2); EPERM for a directory.
    Link {
        /// The inode that gets another name.
        ino: InodeNo,
        /// Directory.
        parent: InodeNo,
        /// New name in it.
        name: Vec<u8>,
    },
    /// unlink(2); EISDIR for a directory. At nlink 0 the inode becomes an orphan until [`Op::Reap`].
    Unlink {
        /// Directory.
        parent: InodeNo,
        /// Name in it.
        name: Vec<u8>,
    },
    /// rmdir(2). The directory becomes an orphan until [`Op::Reap`].
    Rmdir {
        /// Directory.
        parent: InodeNo,
        /// Name in it.
        name: Vec<u8>,
    },
    /// renameat2(2).
    Rename {
        /// Old directory.
        parent: InodeNo,
        /// Old name.
        name: Vec<u8>,
        /// New directory.
        new_parent: InodeNo,
        /// New name.
        new_name: Vec<u8>,
        /// Flags.
        flags: RenameFlags,
    },
    /// pwrite(2); a write past the end leaves a hole. An empty write changes nothing.
    Write {
        /// Regular file.
        ino: InodeNo,
        /// Offset in bytes.
        offset: u64,
        /// What to write.
        data: Bytes,
        /// Clear set-user-ID and set-group-ID, as the kernel asked (`FUSE_WRITE_KILL_SUIDGID`).
        kill_priv: bool,
    },
    /// chmod(2), chown(2), truncate(2), utimensat(2).
    Setattr {
        /// Inode.
        ino: InodeNo,
        /// What to change.
        set: SetAttr,
    },
    /// fallocate(2).
    Fallocate {
        /// Regular file.
        ino: InodeNo,
        /// What to do.
        mode: FallocMode,
        /// Start of the range.
        offset: u64,
        /// Length of the range, at least 1.
        len: u64,
    },
    /// copy_file_range(2): shares the bytes instead of copying them. Overlapping ranges of one file are EINVAL.
    CopyRange {
        /// Source file.
        src: InodeNo,
        /// Offset in it.
        src_offset: u64,
        /// Destination file.
        dst: InodeNo,
        /// Offset in it.
        dst_offset: u64,
        /// Length; cut at the source's end.
        len: u64,
    },
    /// setxattr(2). The two `system.posix_acl_*` names are checked and kept in step with the mode.
    Setxattr {
        /// Inode.
        ino: InodeNo,
        /// Full name with its namespace.
        name: Vec<u8>,
        /// Value.
        value: Vec<u8>,
        /// What to do about an existing one.
        mode: XattrMode,
    },
    /// removexattr(2).
    Removexattr {
        /// Inode.
        ino: InodeNo,
        /// Full name.
        name: Vec<u8>,
    },
    /// The last user of an orphan is gone: erase it. EBUSY while it has a name, ENOENT when it is not there.
    Reap {
        /// The orphan.
        ino: InodeNo,
    },
    /// Some of what is still mapped beyond the size of a file that was cut in front of many extents goes.
    Trim {
        /// The file.
        ino: InodeNo,
        /// What lies before that is looked at last.
        from: u64,
    },
}

/// What an operation answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The inode that was made, linked or changed, with its attributes after the operation.
    Inode(InodeNo, Inode),
    /// Bytes written or copied.
    Written(u64),
    /// Nothing but success.
    Done,
}
