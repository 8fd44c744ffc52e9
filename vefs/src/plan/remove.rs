//! Taking names and inodes away: unlink(2), rmdir(2), and erasing an orphan nobody has open any more.

use super::draft::Draft;
use super::{check_name, heavy};
use crate::errno::Errno;
use crate::error::Result;
use crate::ids::InodeNo;
use crate::op::Reply;
use crate::state::view::{self, View};
use crate::types::{Dentry, Inode, Kind};

pub(super) fn unlink<V: View + ?Sized>(d: &mut Draft<'_, V>, parent: InodeNo, name: &[u8]) -> Result<Reply> {
    let entry = existing(d, parent, name)?;
    if entry.kind == Kind::Directory {
        return Err(Errno::EISDIR.into());
    }
    unlink_inode(d, entry.ino)?;
    d.drop_entry(parent, name, entry.cookie);
    d.touch_dir(parent)?;
    Ok(Reply::Done)
}

pub(super) fn rmdir<V: View + ?Sized>(d: &mut Draft<'_, V>, parent: InodeNo, name: &[u8]) -> Result<Reply> {
    let entry = existing(d, parent, name)?;
    if entry.kind != Kind::Directory {
        return Err(Errno::ENOTDIR.into());
    }
    remove_dir(d, parent, entry.ino)?;
    d.drop_entry(parent, name, entry.cookie);
    d.touch_dir(parent)?;
    Ok(Reply::Done)
}

pub(super) fn reap<V: View + ?Sized>(d: &mut Draft<'_, V>, ino: InodeNo) -> Result<Reply> {
    let inode = d.get(ino)?.clone();
    if inode.nlink > 0 {
        return Err(Errno::EBUSY.into());
    }
    if inode.is_file() && inode.mapped > 0 {
        let (extents, more) = view::some_extents(d.view, ino, &inode, (0, u64::MAX), d.ctx.extents_most)?;
        if more.is_some() && inode.flags & Inode::PRIVATE_MAP != 0 {
            d.edit(ino)?.size = 0;
            heavy::mark(d, ino)?;
            return Ok(Reply::Done);
        }
        let charged: u64 = extents.iter().filter(|(_, e)| e.source.is_charged()).map(|(_, e)| e.len).sum();
        d.charge(-(charged as i64));
    }
    d.drop_inode(ino);
    Ok(Reply::Done)
}

/// The entry that is to go or to move.
pub(super) fn existing<V: View + ?Sized>(d: &mut Draft<'_, V>, parent: InodeNo, name: &[u8]) -> Result<Dentry> {
    check_name(name)?;
    d.live_dir(parent)?;
    d.entry(parent, name)?.ok_or(Errno::ENOENT.into())
}

/// An inode that is not a directory loses a link; at 0 it is an orphan.
pub(super) fn unlink_inode<V: View + ?Sized>(d: &mut Draft<'_, V>, ino: InodeNo) -> Result<()> {
    let now = d.ctx.now;
    let inode = d.edit(ino)?;
    inode.nlink = inode.nlink.saturating_sub(1);
    inode.ctime = now;
    Ok(())
}

/// An empty directory becomes an orphan and its parent loses a link.
pub(super) fn remove_dir<V: View + ?Sized>(d: &mut Draft<'_, V>, parent: InodeNo, ino: InodeNo) -> Result<()> {
    if !view::is_empty_dir(d.view, ino)? {
        return Err(Errno::ENOTEMPTY.into());
    }
    let now = d.ctx.now;
    let dir = d.edit(ino)?;
    dir.nlink = 0;
    dir.ctime = now;
    let p = d.edit(parent)?;
    p.nlink = p.nlink.saturating_sub(1);
    Ok(())
}
