//! chmod(2), chown(2), truncate(2), utimensat(2): one call may bring several.

use super::acl;
use super::content;
use super::draft::Draft;
use crate::change::Change;
use crate::errno::Errno;
use crate::error::Result;
use crate::ids::InodeNo;
use crate::op::{Reply, SetAttr};
use crate::state::view::View;
use crate::types::{Kind, mode};

pub(super) fn setattr<V: View + ?Sized>(d: &mut Draft<'_, V>, ino: InodeNo, set: &SetAttr) -> Result<Reply> {
    if [set.atime, set.mtime].into_iter().flatten().any(|t| !t.is_valid()) {
        return Err(Errno::EINVAL.into());
    }
    let inode = d.get(ino)?;
    let kind = inode.kind();
    if is_empty(set) {
        return d.reply(ino);
    }
    let now = d.ctx.now;
    if let Some(size) = set.size {
        content::truncate(d, ino, size)?;
    }
    if set.mode.is_some() && kind == Kind::Symlink {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let is_owned = set.uid.is_some() || set.gid.is_some();
    if is_owned || (set.size.is_some() && set.kill_priv) {
        d.kill_priv(ino, true)?;
    }
    let inode = d.edit(ino)?;
    if set.size.is_some() {
        inode.mtime = now;
    }
    inode.uid = set.uid.unwrap_or(inode.uid);
    inode.gid = set.gid.unwrap_or(inode.gid);
    inode.atime = set.atime.unwrap_or(inode.atime);
    inode.mtime = set.mtime.unwrap_or(inode.mtime);
    inode.ctime = now;
    if let Some(m) = set.mode {
        let perm = m & mode::PERM;
        inode.mode = (inode.mode & mode::IFMT) | perm;
        if let Some(old) = d.xattr(ino, acl::ACCESS)? {
            d.changes.push(Change::PutXattr(ino, acl::ACCESS.to_vec(), acl::with_mode(&old, perm)?));
        }
    }
    d.reply(ino)
}

fn is_empty(set: &SetAttr) -> bool {
    let SetAttr { mode, uid, gid, size, atime, mtime, kill_priv: _ } = set;
    mode.is_none() && uid.is_none() && gid.is_none() && size.is_none() && atime.is_none() && mtime.is_none()
}
