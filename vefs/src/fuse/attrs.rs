//! Requests about attributes: getattr, setattr, extended attributes, statfs.

use fuser::TimeOrNow;

use super::asker::Asker;
use super::convert;
use super::fs::{Found, Fs};
use super::nodes::NodeId;
use crate::errno::Errno;
use crate::op::{Op, SetAttr};

/// Bytes of a block in statfs(2).
pub const BLOCK: u64 = 4096;

/// What a setattr request may carry.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length in bytes.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<TimeOrNow>,
    /// Modification time.
    pub mtime: Option<TimeOrNow>,
}

/// statfs(2), in blocks of [`BLOCK`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Blocks there are, and free.
    pub blocks: (u64, u64),
    /// Inodes there are, and free.
    pub files: (u64, u64),
}

impl Fs {
    /// stat(2). An inode that left passthrough shows its own number under both node ids.
    pub(super) fn attributes(&self, node: NodeId) -> Result<(fuser::FileAttr, std::time::Duration), Errno> {
        let inode = self.inode(node.ino())?;
        Ok(self.shown(node, &inode))
    }

    fn shown(&self, node: NodeId, inode: &crate::types::Inode) -> (fuser::FileAttr, std::time::Duration) {
        let twice = self.nodes.lock().is_twice(node.ino());
        let ttl = if twice { std::time::Duration::ZERO } else { convert::FOR_EVER };
        (convert::attributes(node.ino().0, inode), ttl)
    }

    /// chmod(2), chown(2), truncate(2), utimensat(2).
    pub(super) fn set_attributes(
        &self,
        asker: Asker,
        node: NodeId,
        wanted: &Wanted,
    ) -> Result<(fuser::FileAttr, std::time::Duration), Errno> {
        if wanted.size.is_some() {
            self.nodes.lock().before_change(node).map_err(|why| self.refused(node, why))?;
        }
        let now = self.ve.now();
        let set = SetAttr {
            mode: wanted.mode,
            uid: wanted.uid,
            gid: wanted.gid,
            size: wanted.size,
            atime: wanted.atime.map(|t| convert::time_or_now(t, now)),
            mtime: wanted.mtime.map(|t| convert::time_or_now(t, now)),
            kill_priv: wanted.size.is_some(),
        };
        let Found { inode, .. } = self.change_inode(asker, &Op::Setattr { ino: node.ino(), set })?;
        if wanted.size.is_some()
            && let Err(why) = self.nodes.lock().before_change(node)
        {
            // It was opened in passthrough meanwhile, by what it was before: nobody else is to join that.
            self.refused(node, why);
        }
        Ok(self.shown(node, &inode))
    }

    /// getxattr(2).
    pub(super) fn attribute(&self, node: NodeId, name: &[u8]) -> Result<Vec<u8>, Errno> {
        self.tree.xattr(node.ino(), name).map_err(|e| self.errno(&e))
    }

    /// listxattr(2): the names, each with a NUL.
    pub(super) fn attribute_names(&self, node: NodeId) -> Result<Vec<u8>, Errno> {
        let names = self.tree.xattr_names(node.ino()).map_err(|e| self.errno(&e))?;
        Ok(names.into_iter().flat_map(|name| name.into_iter().chain([0])).collect())
    }

    /// setxattr(2).
    pub(super) fn set_attribute(
        &self,
        asker: Asker,
        node: NodeId,
        name: &[u8],
        value: &[u8],
        flags: i32,
    ) -> Result<(), Errno> {
        let mode = convert::xattr_mode(flags)?;
        let op = Op::Setxattr { ino: node.ino(), name: name.to_vec(), value: value.to_vec(), mode };
        self.change(asker, &op).map(|_| ())
    }

    /// removexattr(2).
    pub(super) fn remove_attribute(&self, asker: Asker, node: NodeId, name: &[u8]) -> Result<(), Errno> {
        self.change(asker, &Op::Removexattr { ino: node.ino(), name: name.to_vec() }).map(|_| ())
    }

    /// statfs(2): the VE's quota, or what the node has where there is none. A version shows what its VE uses now, and no room.
    pub(super) fn room(&self) -> Result<Room, Errno> {
        self.reaping.now();
        let stat = self.ve.statfs();
        let node_free = self.ve.node_free_bytes().map_err(|e| self.errno(&e))?;
        if self.tree.is_version() {
            return Ok(Room { blocks: (stat.bytes_used.div_ceil(BLOCK), 0), files: (stat.inodes_used, 0) });
        }
        let bytes = stat.bytes_limit.min(stat.bytes_used.saturating_add(node_free));
        let free = bytes.saturating_sub(stat.bytes_used);
        // A count that a program can still add to: nobody makes four billion inodes.
        let inodes = stat.inodes_limit.min(u64::from(u32::MAX));
        Ok(Room { blocks: (bytes / BLOCK, free / BLOCK), files: (inodes, inodes.saturating_sub(stat.inodes_used)) })
    }
}
