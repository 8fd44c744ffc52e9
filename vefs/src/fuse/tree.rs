//! What a mount reads from: a VE as it is, or a version of it. Every request that only reads comes through here, so that one adapter serves
//! both.

use std::sync::Arc;

use crate::error::Result;
use crate::ids::{Hash, InodeNo};
use crate::state::key::Entry;
use crate::types::{Dentry, Inode};
use crate::ve::{Snapshot, Ve};

/// The tree of a mount.
#[derive(Clone)]
pub enum Tree {
    /// The present state, which changes.
    Live(Arc<Ve>),
    /// A version: it never changes.
    Version(Arc<Snapshot>),
}

macro_rules! either {
    ($self:ident, $tree:ident => $call:expr) => {
        match $self {
            Tree::Live($tree) => $call,
            Tree::Version($tree) => $call,
        }
    };
}

impl Tree {
    /// The VE, of which this may be a version.
    pub fn ve(&self) -> &Arc<Ve> {
        match self {
            Tree::Live(ve) => ve,
            Tree::Version(version) => version.ve(),
        }
    }

    /// Whether it is a version.
    pub fn is_version(&self) -> bool {
        matches!(self, Tree::Version(_))
    }

    /// An inode's attributes; ENOENT.
    pub fn inode(&self, ino: InodeNo) -> Result<Inode> {
        either!(self, tree => tree.inode(ino))
    }

    /// Looks a name up: the entry and its inode.
    pub fn lookup(&self, dir: InodeNo, name: &[u8]) -> Result<(Dentry, Inode)> {
        either!(self, tree => tree.lookup(dir, name))
    }

    /// Up to `max` entries of a directory with cookies greater than `after`.
    pub fn entries(&self, dir: InodeNo, after: u64, max: usize) -> Result<Vec<(u64, Entry)>> {
        either!(self, tree => tree.entries(dir, after, max))
    }

    /// Reads up to `len` bytes; fewer at the end of the file.
    pub fn read(&self, ino: InodeNo, offset: u64, len: usize) -> Result<Vec<u8>> {
        either!(self, tree => tree.read(ino, offset, len))
    }

    /// A symlink's target.
    pub fn readlink(&self, ino: InodeNo) -> Result<Vec<u8>> {
        either!(self, tree => tree.readlink(ino))
    }

    /// An extended attribute; ENODATA.
    pub fn xattr(&self, ino: InodeNo, name: &[u8]) -> Result<Vec<u8>> {
        either!(self, tree => tree.xattr(ino, name))
    }

    /// The names of an inode's extended attributes.
    pub fn xattr_names(&self, ino: InodeNo) -> Result<Vec<Vec<u8>>> {
        either!(self, tree => tree.xattr_names(ino))
    }

    /// lseek(2), SEEK_DATA.
    pub fn seek_data(&self, ino: InodeNo, offset: u64) -> Result<u64> {
        either!(self, tree => tree.seek_data(ino, offset))
    }

    /// lseek(2), SEEK_HOLE.
    pub fn seek_hole(&self, ino: InodeNo, offset: u64) -> Result<u64> {
        either!(self, tree => tree.seek_hole(ino, offset))
    }

    /// The object that is the whole content of a regular file, if there is one.
    pub fn whole_object(&self, ino: InodeNo) -> Result<Option<Hash>> {
        either!(self, tree => tree.whole_object(ino))
    }
}
