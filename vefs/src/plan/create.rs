//! Making inodes and names: mknod(2), mkdir(2), symlink(2), link(2).

use super::acl;
use super::check_name;
use super::draft::Draft;
use crate::change::Change;
use crate::errno::Errno;
use crate::error::Result;
use crate::ids::InodeNo;
use crate::limits;
use crate::op::{Owner, Reply};
use crate::state::view::View;
use crate::types::{Dentry, Inode, Kind, mode};

/// Size that every directory shows.
pub(super) const DIR_SIZE: u64 = 4096;

pub(super) fn create<V: View + ?Sized>(
    d: &mut Draft<'_, V>,
    parent: InodeNo,
    name: &[u8],
    wanted: u32,
    rdev: u64,
    owner: &Owner,
) -> Result<Reply> {
    let kind = match Kind::of_mode(wanted) {
        None | Some(Kind::Symlink) => return Err(Errno::EINVAL.into()),
        Some(kind) => kind,
    };
    check_name(name)?;
    let (gid, sgid) = check_new(d, parent, name, owner)?;
    let mut perm = wanted & mode::PERM;
    let inherited = match d.xattr(parent, acl::DEFAULT)? {
        None => {
            perm &= !owner.umask;
            acl::Inherited::default()
        }
        Some(default) => acl::inherit(&default, &mut perm, kind == Kind::Directory)?,
    };
    if kind == Kind::Directory && sgid {
        perm |= mode::ISGID;
    }
    let mut inode = blank(d, kind.bits() | perm, owner.uid, gid);
    match kind {
        Kind::Directory => {
            inode.nlink = 2;
            inode.size = DIR_SIZE;
            inode.parent = parent;
            inode.next_cookie = 3;
            let p = d.edit(parent)?;
            p.nlink = p.nlink.checked_add(1).ok_or(Errno::EMLINK)?;
        }
        Kind::Regular => inode.flags = Inode::PRIVATE_MAP,
        Kind::CharDevice | Kind::BlockDevice => inode.rdev = rdev,
        _ => {}
    }
    if inherited.access.is_some() || inherited.default.is_some() {
        inode.flags |= Inode::HAS_XATTR;
    }
    let ino = d.new_inode(inode);
    for (name, value) in [(acl::ACCESS, inherited.access), (acl::DEFAULT, inherited.default)] {
        if let Some(value) = value {
            d.changes.push(Change::PutXattr(ino, name.to_vec(), value));
        }
    }
    enter(d, parent, name, ino, kind)?;
    d.reply(ino)
}

pub(super) fn symlink<V: View + ?Sized>(
    d: &mut Draft<'_, V>,
    parent: InodeNo,
    name: &[u8],
    target: &[u8],
    owner: &Owner,
) -> Result<Reply> {
    if target.is_empty() {
        return Err(Errno::ENOENT.into());
    }
    if target.len() > limits::SYMLINK_MAX {
        return Err(Errno::ENAMETOOLONG.into());
    }
    if target.contains(&0) {
        return Err(Errno::EINVAL.into());
    }
    check_name(name)?;
    let (gid, _) = check_new(d, parent, name, owner)?;
    let mut inode = blank(d, mode::IFLNK | 0o777, owner.uid, gid);
    inode.size = target.len() as u64;
    let ino = d.new_inode(inode);
    d.changes.push(Change::PutTarget(ino, target.to_vec()));
    enter(d, parent, name, ino, Kind::Symlink)?;
    d.reply(ino)
}

pub(super) fn link<V: View + ?Sized>(
    d: &mut Draft<'_, V>,
    ino: InodeNo,
    parent: InodeNo,
    name: &[u8],
) -> Result<Reply> {
    check_name(name)?;
    let inode = d.get(ino)?;
    if inode.nlink == 0 {
        return Err(Errno::ENOENT.into());
    }
    let (kind, nlink) = (inode.kind(), inode.nlink);
    d.live_dir(parent)?;
    if d.entry(parent, name)?.is_some() {
        return Err(Errno::EEXIST.into());
    }
    if kind == Kind::Directory {
        return Err(Errno::EPERM.into());
    }
    if nlink >= limits::LINK_MAX {
        return Err(Errno::EMLINK.into());
    }
    let now = d.ctx.now;
    let inode = d.edit(ino)?;
    inode.nlink += 1;
    inode.ctime = now;
    enter(d, parent, name, ino, kind)?;
    d.reply(ino)
}

/// Checks that a new name can be made, and tells the group of the new inode and whether the directory is set-group-ID.
fn check_new<V: View + ?Sized>(
    d: &mut Draft<'_, V>,
    parent: InodeNo,
    name: &[u8],
    owner: &Owner,
) -> Result<(u32, bool)> {
    let dir = d.live_dir(parent)?;
    let sgid = dir.mode & mode::ISGID != 0;
    let gid = if sgid { dir.gid } else { owner.gid };
    match d.entry(parent, name)? {
        None => Ok((gid, sgid)),
        Some(_) => Err(Errno::EEXIST.into()),
    }
}

fn blank<V: View + ?Sized>(d: &Draft<'_, V>, mode: u32, uid: u32, gid: u32) -> Inode {
    let now = d.ctx.now;
    Inode {
        mode,
        uid,
        gid,
        nlink: 1,
        rdev: 0,
        size: 0,
        mapped: 0,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        parent: InodeNo(0),
        next_cookie: 0,
        flags: 0,
    }
}

/// The whiteout that renameat2(2) leaves: a character device 0:0 without permissions.
pub(super) fn whiteout<V: View + ?Sized>(d: &mut Draft<'_, V>) -> InodeNo {
    let inode = blank(d, mode::IFCHR, 0, 0);
    d.new_inode(inode)
}

fn enter<V: View + ?Sized>(d: &mut Draft<'_, V>, dir: InodeNo, name: &[u8], ino: InodeNo, kind: Kind) -> Result<()> {
    let cookie = d.take_cookie(dir)?;
    d.put_entry(dir, name, Dentry { ino, kind, cookie });
    d.touch_dir(dir)
}
