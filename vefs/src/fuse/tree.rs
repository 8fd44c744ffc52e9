//! What a mount reads from: a VE as it is, or a version of it. Every request that only reads comes through here, so that one adapter serves
//! both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::errno::Errno;
use crate::error::Result;
use crate::ids::{Hash, InodeNo};
use crate::state::key::Entry;
use crate::types::{Dentry, Inode};
use crate::ve::{Snapshot, Ve};

/// The tree of a mount.
#[derive(Clone)]
pub enum Tree {
    /// The present state, which changes.
    Live(Arc<Ve>, Arc<Reign>),
    /// A version: it never changes.
    Version(Arc<Snapshot>),
}

/// Whether the mount of a VE is of the time in which this node wrote it, and nobody else has since. The kernel keeps names, their absence, attributes and
/// pages of it for ever; when another node has changed the VE, none of that is true any more, and what programs did by it would destroy what the other node
/// acknowledged: an append goes to where the file once ended (promises G2, G11).
pub struct Reign {
    received: u64,
    over: AtomicBool,
}

impl Reign {
    /// It ended while nobody looked.
    pub fn end(&self, ve: &Ve) {
        if !self.over.swap(true, Ordering::SeqCst) {
            let text = "ALARM: another node has changed a VE that is mounted here: the mount answers EIO from now on, unmount it";
            tracing::error!(ve = %ve.id(), "{text}");
        }
    }

    fn check(&self, ve: &Ve) -> Result<()> {
        if ve.received() != self.received {
            self.end(ve);
        }
        if self.over.load(Ordering::SeqCst) { Err(Errno::EIO.into()) } else { Ok(()) }
    }
}

macro_rules! either {
    ($self:ident, $tree:ident => $call:expr) => {
        match $self {
            Tree::Live($tree, reign) => {
                reign.check($tree)?;
                $call
            }
            Tree::Version($tree) => $call,
        }
    };
}

impl Tree {
    /// A VE as it is, for a mount that begins.
    pub fn live(ve: Arc<Ve>) -> Tree {
        let reign = Reign { received: ve.received(), over: AtomicBool::new(false) };
        Tree::Live(ve, Arc::new(reign))
    }

    /// EIO once another node has changed it.
    pub fn check(&self) -> Result<()> {
        match self {
            Tree::Live(ve, reign) => reign.check(ve),
            Tree::Version(_) => Ok(()),
        }
    }

    /// The VE, of which this may be a version.
    pub fn ve(&self) -> &Arc<Ve> {
        match self {
            Tree::Live(ve, _) => ve,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::meta::MemoryMeta;
    use crate::storage::memory::MemStorage;
    use crate::store::bed;

    /// A VE was handed over and its mount stayed: the other node's changes came in under it, while the kernel went on with what it had kept. When the VE came
    /// back, programs appended to where files had once ended, over what the other node had acknowledged (checks G2, G11).
    #[test]
    fn a_mount_ends_with_the_first_change_of_another_node() {
        let (_from, primary, _) = bed::in_memory();
        let store = bed::on(Arc::new(MemStorage::new()), Arc::new(MemoryMeta::default()));
        let follower = bed::create_follower(&store, &primary);
        while bed::ship(&primary, &follower).unwrap() {}
        let tree = Tree::live(follower.clone());
        assert!(tree.inode(InodeNo::ROOT).is_ok() && tree.check().is_ok());
        bed::create(&primary, "new");
        primary.commit().unwrap();
        assert!(bed::ship(&primary, &follower).unwrap());
        assert!(matches!(tree.inode(InodeNo::ROOT), Err(Error::Posix(Errno::EIO))));
        assert!(matches!(tree.check(), Err(Error::Posix(Errno::EIO))));
        let next = Tree::live(follower);
        assert!(next.lookup(InodeNo::ROOT, b"new").is_ok());
    }

    /// The node was away, had changes that nobody else had, and its state was replaced by the new writer's: the mount had the state that was put aside, and went
    /// on as if nothing had happened, also when this node wrote again.
    #[test]
    fn a_mount_ends_when_another_state_takes_the_place_of_its_own() {
        let (_from, ve, _) = bed::in_memory();
        let tree = Tree::live(ve.clone());
        assert!(tree.check().is_ok());
        ve.retire("its history was rewound", ve.epoch()).unwrap();
        assert!(matches!(tree.inode(InodeNo::ROOT), Err(Error::Posix(Errno::EIO))));
    }
}
