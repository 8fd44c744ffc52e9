//! Requests about names: lookup, creation, removal, renaming, reading directories.

use super::asker::Asker;
use super::convert;
use super::fs::{Found, Fs};
use super::nodes::NodeId;
use crate::errno::Errno;
use crate::ids::InodeNo;
use crate::op::{Op, Owner};
use crate::state::key::Entry;
use crate::types::Inode;

/// Entries taken from the core at a time.
const ENTRIES: usize = 256;
/// Cookies of `.` and `..`.
const DOT: u64 = 1;
const DOT_DOT: u64 = 2;

/// An entry of a directory for the kernel.
pub struct Listed<'a> {
    /// Where the next one begins.
    pub cookie: u64,
    /// Its name.
    pub name: &'a [u8],
    /// The inode.
    pub ino: InodeNo,
    /// Its kind.
    pub kind: crate::types::Kind,
}

impl Fs {
    /// A name; `None` when there is none, which the kernel may remember. `.` and `..` are asked for by exported file handles only.
    pub(super) fn lookup(&self, parent: NodeId, name: &[u8]) -> Result<Option<Found>, Errno> {
        let dir = parent.ino();
        let found = match name {
            b"." => self.inode(dir).map(|inode| (dir, inode)),
            b".." => self.inode(dir).and_then(|d| self.inode(d.parent).map(|inode| (d.parent, inode))),
            _ => match self.tree.lookup(dir, name) {
                Ok((d, inode)) => Ok((d.ino, inode)),
                Err(e) => Err(self.errno(&e)),
            },
        };
        match found {
            // A handle of an inode that has lost its name, and that the kernel does not have any more: it is about to be erased.
            Ok((_, inode)) if inode.nlink == 0 => Err(Errno::ESTALE),
            Ok((ino, inode)) => Ok(Some(self.found(ino, inode))),
            // A handle of an inode that is gone.
            Err(Errno::ENOENT) if name == b"." || name == b".." => Err(Errno::ESTALE),
            // The directory itself may be gone: then nothing is to be remembered about its names.
            Err(Errno::ENOENT) => self.inode(dir).map(|_| None),
            Err(e) => Err(e),
        }
    }

    /// mknod(2), mkdir(2).
    pub(super) fn create_node(
        &self,
        asker: Asker,
        parent: NodeId,
        name: &[u8],
        mode: u32,
        umask: u32,
        rdev: u32,
    ) -> Result<Found, Errno> {
        let owner = Owner { uid: asker.uid, gid: asker.gid, umask };
        let op = Op::Create { parent: parent.ino(), name: name.to_vec(), mode, rdev: u64::from(rdev), owner };
        self.change_inode(asker, &op)
    }

    /// symlink(2).
    pub(super) fn create_symlink(
        &self,
        asker: Asker,
        parent: NodeId,
        name: &[u8],
        target: &[u8],
    ) -> Result<Found, Errno> {
        let owner = Owner { uid: asker.uid, gid: asker.gid, umask: 0 };
        let op = Op::Symlink { parent: parent.ino(), name: name.to_vec(), target: target.to_vec(), owner };
        self.change_inode(asker, &op)
    }

    /// link(2).
    pub(super) fn link_node(&self, asker: Asker, node: NodeId, parent: NodeId, name: &[u8]) -> Result<Found, Errno> {
        let op = Op::Link { ino: node.ino(), parent: parent.ino(), name: name.to_vec() };
        self.change_inode(asker, &op)
    }

    /// unlink(2), rmdir(2).
    pub(super) fn remove(&self, asker: Asker, parent: NodeId, name: &[u8], dir: bool) -> Result<(), Errno> {
        let (parent, name) = (parent.ino(), name.to_vec());
        let op = if dir { Op::Rmdir { parent, name } } else { Op::Unlink { parent, name } };
        self.change(asker, &op).map(|_| ())
    }

    /// renameat2(2).
    pub(super) fn rename_node(
        &self,
        asker: Asker,
        from: (NodeId, &[u8]),
        to: (NodeId, &[u8]),
        flags: fuser::RenameFlags,
    ) -> Result<(), Errno> {
        let op = Op::Rename {
            parent: from.0.ino(),
            name: from.1.to_vec(),
            new_parent: to.0.ino(),
            new_name: to.1.to_vec(),
            flags: convert::rename_flags(flags)?,
        };
        self.change(asker, &op).map(|_| ())
    }

    /// Entries behind a cookie, until `add` says that it is full.
    pub(super) fn list(&self, node: NodeId, after: u64, add: &mut dyn FnMut(&Listed<'_>) -> bool) -> Result<(), Errno> {
        let dir = node.ino();
        let inode = self.inode(dir)?;
        let kind = crate::types::Kind::Directory;
        for (cookie, name, ino) in [(DOT, b".".as_slice(), dir), (DOT_DOT, b"..".as_slice(), inode.parent)] {
            if after < cookie && add(&Listed { cookie, name, ino, kind }) {
                return Ok(());
            }
        }
        let mut after = after.max(DOT_DOT);
        loop {
            let batch: Vec<(u64, Entry)> = self.tree.entries(dir, after, ENTRIES).map_err(|e| self.errno(&e))?;
            for (cookie, entry) in &batch {
                let full = add(&Listed { cookie: *cookie, name: &entry.name, ino: entry.ino, kind: entry.kind });
                if full {
                    return Ok(());
                }
                after = *cookie;
            }
            if batch.len() < ENTRIES {
                return Ok(());
            }
        }
    }

    /// As [`Fs::list`], with the inode of each entry. `.` and `..` come without.
    pub(super) fn list_with_inodes(
        &self,
        node: NodeId,
        after: u64,
        add: &mut dyn FnMut(&Listed<'_>, Option<Found>) -> bool,
    ) -> Result<(), Errno> {
        self.list(node, after, &mut |entry| {
            if entry.cookie <= DOT_DOT {
                return add(entry, None);
            }
            // An entry that went between the two steps is shown without its inode.
            let inode: Option<Inode> = self.tree.inode(entry.ino).ok();
            add(entry, inode.map(|inode| self.found(entry.ino, inode)))
        })
    }
}
