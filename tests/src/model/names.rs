//! Names: create, symlink, link, unlink, rmdir, and the reaping of orphans.

use std::collections::BTreeMap;

use vefs::clock::Timestamp;
use vefs::errno::Errno;
use vefs::ids::InodeNo;
use vefs::limits::{LINK_MAX, SYMLINK_MAX};
use vefs::op::{Owner, Reply};
use vefs::types::{Dentry, Inode, Kind, mode};

use super::{Body, Model, Node, acl, check_name};

impl Model {
    pub(super) fn create(
        &mut self,
        parent: InodeNo,
        name: &[u8],
        m: u32,
        rdev: u64,
        owner: Owner,
        now: Timestamp,
    ) -> Result<Reply, Errno> {
        let kind = Kind::of_mode(m).filter(|k| *k != Kind::Symlink).ok_or(Errno::EINVAL)?;
        self.check_free(parent, name)?;
        self.check_inode_quota()?;
        let dir = self.dir(parent)?;
        let (bits, xattrs) = first_mode(dir, kind, m & mode::PERM, owner.umask);
        let mut node = Node::new(kind.bits() | bits, owner.uid, owner.gid, now);
        if !xattrs.is_empty() {
            node.attr.flags |= Inode::HAS_XATTR;
        }
        node.xattrs = xattrs;
        if dir.attr.mode & mode::ISGID != 0 {
            node.attr.gid = dir.attr.gid;
            node.attr.mode |= if kind == Kind::Directory { mode::ISGID } else { 0 };
        }
        match kind {
            Kind::Directory => node.attr.parent = parent,
            Kind::CharDevice | Kind::BlockDevice => node.attr.rdev = rdev,
            _ => {}
        }
        let ino = self.add_node(node);
        self.enter(parent, name, ino, kind);
        self.known(parent).attr.nlink += u32::from(kind == Kind::Directory);
        self.touch_dir(parent, now);
        self.reply_inode(ino)
    }

    pub(super) fn symlink(
        &mut self,
        parent: InodeNo,
        name: &[u8],
        target: &[u8],
        owner: Owner,
        now: Timestamp,
    ) -> Result<Reply, Errno> {
        if target.is_empty() {
            return Err(Errno::ENOENT);
        }
        if target.len() > SYMLINK_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        if target.contains(&0) {
            return Err(Errno::EINVAL);
        }
        self.check_free(parent, name)?;
        self.check_inode_quota()?;
        let dir = &self.dir(parent)?.attr;
        let gid = if dir.mode & mode::ISGID != 0 { dir.gid } else { owner.gid };
        let mut node = Node::new(mode::IFLNK | 0o777, owner.uid, gid, now);
        node.attr.size = target.len() as u64;
        node.body = Body::Symlink(target.to_vec());
        let ino = self.add_node(node);
        self.enter(parent, name, ino, Kind::Symlink);
        self.touch_dir(parent, now);
        self.reply_inode(ino)
    }

    pub(super) fn link(&mut self, ino: InodeNo, parent: InodeNo, name: &[u8], now: Timestamp) -> Result<Reply, Errno> {
        check_name(name)?;
        if self.node(ino)?.attr.nlink == 0 {
            return Err(Errno::ENOENT);
        }
        self.check_free(parent, name)?;
        let attr = &self.node(ino)?.attr;
        if attr.is_dir() {
            return Err(Errno::EPERM);
        }
        if attr.nlink >= LINK_MAX {
            return Err(Errno::EMLINK);
        }
        let kind = attr.kind();
        let node = self.known(ino);
        node.attr.nlink += 1;
        node.attr.ctime = now;
        self.enter(parent, name, ino, kind);
        self.touch_dir(parent, now);
        self.reply_inode(ino)
    }

    pub(super) fn unlink(&mut self, parent: InodeNo, name: &[u8], now: Timestamp) -> Result<Reply, Errno> {
        let entry = self.lookup_entry(parent, name)?;
        if entry.kind == Kind::Directory {
            return Err(Errno::EISDIR);
        }
        self.known(parent).names_mut().remove(name);
        self.drop_link(entry, parent, now);
        self.touch_dir(parent, now);
        Ok(Reply::Done)
    }

    pub(super) fn rmdir(&mut self, parent: InodeNo, name: &[u8], now: Timestamp) -> Result<Reply, Errno> {
        let entry = self.lookup_entry(parent, name)?;
        if entry.kind != Kind::Directory {
            return Err(Errno::ENOTDIR);
        }
        if !self.node(entry.ino)?.names().is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.known(parent).names_mut().remove(name);
        self.drop_link(entry, parent, now);
        self.touch_dir(parent, now);
        Ok(Reply::Done)
    }

    pub(super) fn reap(&mut self, ino: InodeNo) -> Result<Reply, Errno> {
        if self.node(ino)?.attr.nlink > 0 {
            return Err(Errno::EBUSY);
        }
        let node = self.nodes.remove(&ino.0).expect("inode was checked");
        if let Body::File(content) = node.body {
            self.used_bytes -= content.charged();
        }
        self.used_inodes -= u64::from(!ino.is_base());
        Ok(Reply::Done)
    }

    /// The entry of `name` in `parent`, with the errors in their order.
    pub(super) fn lookup_entry(&self, parent: InodeNo, name: &[u8]) -> Result<Dentry, Errno> {
        check_name(name)?;
        self.dir(parent)?.names().get(name).copied().ok_or(Errno::ENOENT)
    }

    /// That `name` could be made in `parent`.
    fn check_free(&self, parent: InodeNo, name: &[u8]) -> Result<(), Errno> {
        match self.lookup_entry(parent, name) {
            Ok(_) => Err(Errno::EEXIST),
            Err(Errno::ENOENT) => self.dir(parent).map(|_| ()),
            Err(e) => Err(e),
        }
    }

    /// Enters a new name under the directory's next cookie.
    pub(super) fn enter(&mut self, parent: InodeNo, name: &[u8], ino: InodeNo, kind: Kind) {
        let dir = self.known(parent);
        let cookie = dir.attr.next_cookie;
        dir.attr.next_cookie += 1;
        dir.names_mut().insert(name.to_vec(), Dentry { ino, kind, cookie });
    }

    /// Takes from an inode the link that a name in `parent` was. The name itself is the caller's business.
    pub(super) fn drop_link(&mut self, entry: Dentry, parent: InodeNo, now: Timestamp) {
        let node = self.known(entry.ino);
        node.attr.ctime = now;
        if entry.kind == Kind::Directory {
            node.attr.nlink = 0;
            self.known(parent).attr.nlink -= 1;
        } else {
            node.attr.nlink -= 1;
        }
    }

    pub(super) fn touch_dir(&mut self, ino: InodeNo, now: Timestamp) {
        let attr = &mut self.known(ino).attr;
        (attr.mtime, attr.ctime) = (now, now);
    }
}

/// The permission bits of a new inode, and the ACLs it starts with.
fn first_mode(dir: &Node, kind: Kind, bits: u32, umask: u32) -> (u32, BTreeMap<Vec<u8>, Vec<u8>>) {
    let mut xattrs = BTreeMap::new();
    let Some(default) = dir.xattrs.get(acl::DEFAULT) else {
        return (bits & !(umask & 0o777), xattrs);
    };
    if kind == Kind::Directory {
        xattrs.insert(acl::DEFAULT.to_vec(), default.clone());
    }
    let mut list = acl::parse(default).expect("only checked ACLs are stored");
    let bits = acl::inherit(&mut list, bits);
    if !acl::is_minimal(&list) {
        xattrs.insert(acl::ACCESS.to_vec(), acl::encode(&list));
    }
    (bits, xattrs)
}
