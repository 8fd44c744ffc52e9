//! The oracle: the file system of one VE as a few maps in memory, written from `docs/SEMANTICS.md` alone.
//!
//! Nothing here is meant to be fast or durable, only plainly right: every operation first checks everything, then
//! changes the maps, so that an error has changed nothing. [`Reader`] is what the model and a real VE have in common, and
//! [`compare`] names the first difference between the two.
//!
//! Invariants: `used_bytes` is the sum of the charged bytes of all contents and `used_inodes` the number of private
//! inodes; each dentry's inode exists; a directory's `nlink` is 2 plus its subdirectories, or 0 once it is removed.

pub mod acl;
mod attr;
mod base;
mod content;
mod data;
mod names;
mod reader;
mod rename;
mod xattr;

#[cfg(test)]
mod mirror;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use vefs::clock::Timestamp;
use vefs::errno::Errno;
use vefs::ids::InodeNo;
use vefs::limits::{FILE_SIZE_MAX, NAME_MAX};
use vefs::op::{Op, Reply};
use vefs::types::{Dentry, Inode, Kind, mode};

pub use base::{BaseEntry, sample_tree};
pub use content::{Run, RunKind, normalize};
pub use reader::{Entry, Reader, compare, compare_inode};

use content::Content;

/// What an inode holds besides its attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Body {
    File(Content),
    Dir(BTreeMap<Vec<u8>, Dentry>),
    Symlink(Vec<u8>),
    Special,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    attr: Inode,
    body: Body,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Node {
    /// An inode of `mode` without content, made at `now`.
    fn new(mode: u32, uid: u32, gid: u32, now: Timestamp) -> Node {
        let kind = Kind::of_mode(mode).expect("the caller checked the type bits");
        let is_dir = kind == Kind::Directory;
        let attr = Inode {
            mode,
            uid,
            gid,
            nlink: if is_dir { 2 } else { 1 },
            rdev: 0,
            size: if is_dir { 4096 } else { 0 },
            mapped: 0,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            parent: InodeNo(0),
            next_cookie: if is_dir { 3 } else { 0 },
            flags: if kind == Kind::Regular { Inode::PRIVATE_MAP } else { 0 },
        };
        let body = match kind {
            Kind::Regular => Body::File(Content::default()),
            Kind::Directory => Body::Dir(BTreeMap::new()),
            Kind::Symlink => Body::Symlink(Vec::new()),
            _ => Body::Special,
        };
        Node { attr, body, xattrs: BTreeMap::new() }
    }

    fn content(&self) -> &Content {
        match &self.body {
            Body::File(c) => c,
            other => panic!("content of {other:?}"),
        }
    }

    fn names(&self) -> &BTreeMap<Vec<u8>, Dentry> {
        match &self.body {
            Body::Dir(names) => names,
            other => panic!("names in {other:?}"),
        }
    }

    fn names_mut(&mut self) -> &mut BTreeMap<Vec<u8>, Dentry> {
        match &mut self.body {
            Body::Dir(names) => names,
            other => panic!("names in {other:?}"),
        }
    }

    /// Clears set-user-ID, and set-group-ID where the group may execute, and the capabilities.
    fn kill_priv(&mut self) {
        if self.attr.mode & mode::IXGRP != 0 {
            self.attr.mode &= !mode::ISGID;
        }
        self.attr.mode &= !mode::ISUID;
        self.lose_capabilities();
    }

    /// A file that is written has none any more.
    fn lose_capabilities(&mut self) {
        self.xattrs.remove(b"security.capability".as_slice());
    }
}

/// One VE's file system in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    nodes: BTreeMap<u64, Node>,
    next_ino: u64,
    quota_bytes: u64,
    quota_inodes: u64,
    used_bytes: u64,
    used_inodes: u64,
}

impl Model {
    /// An empty root directory, and quotas in bytes and inodes.
    pub fn new(quota_bytes: u64, quota_inodes: u64) -> Model {
        let mut root = Node::new(mode::IFDIR | 0o755, 0, 0, Timestamp::default());
        root.attr.parent = InodeNo::ROOT;
        let next_ino = InodeNo::FIRST_PRIVATE.0;
        let nodes = BTreeMap::from([(InodeNo::ROOT.0, root)]);
        Model { nodes, next_ino, quota_bytes, quota_inodes, used_bytes: 0, used_inodes: 0 }
    }

    /// Sets the quotas; they may fall below what is used.
    pub fn set_quota(&mut self, bytes: u64, inodes: u64) {
        (self.quota_bytes, self.quota_inodes) = (bytes, inodes);
    }

    /// Carries out `op`, or answers an error and changes nothing.
    pub fn apply(&mut self, op: &Op, now: Timestamp) -> Result<Reply, Errno> {
        match op {
            Op::Create { parent, name, mode, rdev, owner } => self.create(*parent, name, *mode, *rdev, *owner, now),
            Op::Symlink { parent, name, target, owner } => self.symlink(*parent, name, target, *owner, now),
            Op::Link { ino, parent, name } => self.link(*ino, *parent, name, now),
            Op::Unlink { parent, name } => self.unlink(*parent, name, now),
            Op::Rmdir { parent, name } => self.rmdir(*parent, name, now),
            Op::Rename { parent, name, new_parent, new_name, flags } => {
                self.rename((*parent, name), (*new_parent, new_name), *flags, now)
            }
            Op::Write { ino, offset, data, kill_priv } => self.write(*ino, *offset, data, *kill_priv, now),
            Op::Setattr { ino, set } => self.setattr(*ino, set, now),
            Op::Fallocate { ino, mode, offset, len } => self.fallocate(*ino, *mode, *offset, *len, now),
            Op::CopyRange { src, src_offset, dst, dst_offset, len } => {
                self.copy_range((*src, *src_offset), (*dst, *dst_offset), *len, now)
            }
            Op::Setxattr { ino, name, value, mode } => self.setxattr(*ino, name, value, *mode, now),
            Op::Removexattr { ino, name } => self.removexattr(*ino, name, now),
            Op::Reap { ino } => self.reap(*ino),
            // Here a file that is cut has nothing beyond its size.
            Op::Trim { ino, .. } => self.node(*ino).map(|_| Reply::Done),
        }
    }

    fn node(&self, ino: InodeNo) -> Result<&Node, Errno> {
        self.nodes.get(&ino.0).ok_or(Errno::ENOENT)
    }

    /// A node that a check has already met.
    fn known(&mut self, ino: InodeNo) -> &mut Node {
        self.nodes.get_mut(&ino.0).expect("inode was checked")
    }

    /// The names of a directory that still has a name itself.
    fn dir(&self, ino: InodeNo) -> Result<&Node, Errno> {
        let node = self.node(ino)?;
        match node.body {
            Body::Dir(_) if node.attr.nlink == 0 => Err(Errno::ENOENT),
            Body::Dir(_) => Ok(node),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// A regular file: EISDIR for a directory, EINVAL for the other kinds.
    fn file(&self, ino: InodeNo) -> Result<&Node, Errno> {
        let node = self.node(ino)?;
        match node.body {
            Body::File(_) => Ok(node),
            Body::Dir(_) => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    fn reply_inode(&self, ino: InodeNo) -> Result<Reply, Errno> {
        Ok(Reply::Inode(ino, self.node(ino)?.attr.clone()))
    }

    /// EDQUOT where one more inode is one too many.
    fn check_inode_quota(&self) -> Result<(), Errno> {
        if self.used_inodes >= self.quota_inodes { Err(Errno::EDQUOT) } else { Ok(()) }
    }

    /// EDQUOT where `less` charged bytes make room for `more` and the sum grows above the quota.
    fn check_byte_quota(&self, less: u64, more: u64) -> Result<(), Errno> {
        if more <= less {
            return Ok(());
        }
        match self.used_bytes.checked_add(more - less) {
            Some(sum) if sum <= self.quota_bytes => Ok(()),
            _ => Err(Errno::EDQUOT),
        }
    }

    /// Numbers a new private inode.
    fn add_node(&mut self, node: Node) -> InodeNo {
        let ino = InodeNo(self.next_ino);
        self.next_ino += 1;
        self.used_inodes += 1;
        self.nodes.insert(ino.0, node);
        ino
    }

    /// Changes a file's map and keeps the sums in step.
    fn change_content(&mut self, ino: InodeNo, change: impl FnOnce(&mut Content)) {
        let node = self.known(ino);
        let Body::File(content) = &mut node.body else { panic!("content of inode {ino}, which is no file") };
        let before = content.charged();
        change(content);
        let after = content.charged();
        node.attr.mapped = content.mapped();
        node.attr.flags |= Inode::PRIVATE_MAP;
        self.used_bytes = self.used_bytes - before + after;
    }
}

/// A name of a directory entry: 1 to 255 bytes without `/` and NUL, not `.` or `..`.
fn check_name(name: &[u8]) -> Result<(), Errno> {
    if name.len() > NAME_MAX {
        Err(Errno::ENAMETOOLONG)
    } else if name.is_empty() || name == b"." || name == b".." || name.iter().any(|b| matches!(b, b'/' | 0)) {
        Err(Errno::EINVAL)
    } else {
        Ok(())
    }
}

/// The end of a range that must not pass the largest file size.
fn end_of(offset: u64, len: u64) -> Result<u64, Errno> {
    offset.checked_add(len).filter(|end| *end <= FILE_SIZE_MAX).ok_or(Errno::EFBIG)
}
