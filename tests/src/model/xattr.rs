//! Extended attributes, and the two that are ACLs.

use vefs::clock::Timestamp;
use vefs::errno::Errno;
use vefs::ids::InodeNo;
use vefs::limits::{XATTR_LIST_MAX, XATTR_NAME_MAX, XATTR_TOTAL_MAX, XATTR_VALUE_MAX};
use vefs::op::{Reply, XattrMode};
use vefs::types::{Inode, Kind};

use super::{Model, Node, acl};

impl Model {
    pub(super) fn setxattr(
        &mut self,
        ino: InodeNo,
        name: &[u8],
        value: &[u8],
        how: XattrMode,
        now: Timestamp,
    ) -> Result<Reply, Errno> {
        check_xattr_name(name)?;
        if value.len() > XATTR_VALUE_MAX {
            return Err(Errno::ERANGE);
        }
        let node = self.node(ino)?;
        check_kind(node, name)?;
        if is_acl(name) {
            return self.set_acl(ino, name, value, now);
        }
        match (how, node.xattrs.contains_key(name)) {
            (XattrMode::Create, true) => return Err(Errno::EEXIST),
            (XattrMode::Replace, false) => return Err(Errno::ENODATA),
            _ => check_room(node, name, value.len())?,
        }
        let node = self.known(ino);
        node.attr.flags |= Inode::HAS_XATTR;
        node.xattrs.insert(name.to_vec(), value.to_vec());
        node.attr.ctime = now;
        Ok(Reply::Done)
    }

    /// Sets or, without entries, removes an ACL.
    fn set_acl(&mut self, ino: InodeNo, name: &[u8], value: &[u8], now: Timestamp) -> Result<Reply, Errno> {
        if name == acl::DEFAULT && !self.node(ino)?.attr.is_dir() {
            return Err(Errno::EINVAL);
        }
        let list = acl::parse(value)?;
        let stored = !list.is_empty() && (name == acl::DEFAULT || !acl::is_minimal(&list));
        if stored {
            check_room(self.node(ino)?, name, acl::encode(&list).len())?;
        }
        let node = self.known(ino);
        if stored {
            node.attr.flags |= Inode::HAS_XATTR;
            node.xattrs.insert(name.to_vec(), acl::encode(&list));
        } else {
            node.xattrs.remove(name);
        }
        if name == acl::ACCESS && !list.is_empty() {
            node.attr.mode = node.attr.mode & !0o777 | acl::to_mode(&list);
        }
        node.attr.ctime = now;
        Ok(Reply::Done)
    }

    pub(super) fn removexattr(&mut self, ino: InodeNo, name: &[u8], now: Timestamp) -> Result<Reply, Errno> {
        check_xattr_name(name)?;
        let node = self.node(ino)?;
        check_kind(node, name)?;
        if !node.xattrs.contains_key(name) && !is_acl(name) {
            return Err(Errno::ENODATA);
        }
        let node = self.known(ino);
        node.xattrs.remove(name);
        node.attr.ctime = now;
        Ok(Reply::Done)
    }
}

fn is_acl(name: &[u8]) -> bool {
    name == acl::ACCESS || name == acl::DEFAULT
}

/// Length, NUL and namespace, in this order.
pub(super) fn check_xattr_name(name: &[u8]) -> Result<(), Errno> {
    if name.is_empty() {
        return Err(Errno::EINVAL);
    }
    if name.len() > XATTR_NAME_MAX {
        return Err(Errno::ERANGE);
    }
    if name.contains(&0) {
        return Err(Errno::EINVAL);
    }
    let open: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    let known = open.iter().any(|p| name.starts_with(p) && name.len() > p.len()) || is_acl(name);
    if known { Ok(()) } else { Err(Errno::EOPNOTSUPP) }
}

/// Which kinds of file may have an attribute of this name.
fn check_kind(node: &Node, name: &[u8]) -> Result<(), Errno> {
    let kind = node.attr.kind();
    if name.starts_with(b"user.") && kind != Kind::Regular && kind != Kind::Directory {
        return Err(Errno::EPERM);
    }
    if is_acl(name) && kind == Kind::Symlink {
        return Err(Errno::EOPNOTSUPP);
    }
    Ok(())
}

/// ENOSPC where the list of names would grow too long, or all of it too large.
fn check_room(node: &Node, new: &[u8], value: usize) -> Result<(), Errno> {
    if node.xattrs.get(new).is_some_and(|old| value <= old.len()) {
        return Ok(());
    }
    let others = || node.xattrs.iter().filter(|(n, _)| n.as_slice() != new);
    let list: usize = others().map(|(n, _)| n.len() + 1).sum();
    let all: usize = others().map(|(n, v)| n.len() + v.len()).sum();
    let full = list + new.len() + 1 > XATTR_LIST_MAX || all + new.len() + value > XATTR_TOTAL_MAX;
    if full { Err(Errno::ENOSPC) } else { Ok(()) }
}
