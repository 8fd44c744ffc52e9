//! renameat2(2): plain, NOREPLACE, EXCHANGE and WHITEOUT.

use super::check_name;
use super::create::whiteout;
use super::draft::Draft;
use super::remove::{existing, remove_dir, unlink_inode};
use crate::errno::Errno;
use crate::error::Result;
use crate::ids::InodeNo;
use crate::op::{RenameFlags, Reply};
use crate::state::view::View;
use crate::types::{Dentry, Kind};

/// A place in the namespace.
type Name<'a> = (InodeNo, &'a Vec<u8>);

pub(super) fn rename<V: View + ?Sized>(
    d: &mut Draft<'_, V>,
    old: Name<'_>,
    new: Name<'_>,
    flags: RenameFlags,
) -> Result<Reply> {
    if flags.exchange && (flags.no_replace || flags.whiteout) {
        return Err(Errno::EINVAL.into());
    }
    check_name(old.1)?;
    check_name(new.1)?;
    d.live_dir(old.0)?;
    d.live_dir(new.0)?;
    let source = existing(d, old.0, old.1)?;
    let target = d.entry(new.0, new.1)?;
    if flags.no_replace && target.is_some() {
        return Err(Errno::EEXIST.into());
    }
    if flags.exchange {
        let target = target.ok_or(Errno::ENOENT)?;
        return exchange(d, old, source, new, target);
    }
    if target.is_some_and(|t| t.ino == source.ino) {
        return Ok(Reply::Done);
    }
    if source.kind == Kind::Directory {
        forbid_loop(d, source.ino, new.0)?;
    }
    let cookie = match target {
        Some(target) => replace(d, source, new.0, target, old.0)?,
        None => d.take_cookie(new.0)?,
    };
    if flags.whiteout {
        let ino = whiteout(d);
        d.put_entry(old.0, old.1, Dentry { ino, kind: Kind::CharDevice, cookie: source.cookie });
    } else {
        d.drop_entry(old.0, old.1, source.cookie);
    }
    d.put_entry(new.0, new.1, Dentry { ino: source.ino, kind: source.kind, cookie });
    moved(d, source, old.0, new.0)?;
    d.touch_dir(old.0)?;
    d.touch_dir(new.0)?;
    Ok(Reply::Done)
}

fn exchange<V: View + ?Sized>(
    d: &mut Draft<'_, V>,
    old: Name<'_>,
    source: Dentry,
    new: Name<'_>,
    target: Dentry,
) -> Result<Reply> {
    if source.ino == target.ino {
        return Ok(Reply::Done);
    }
    if source.kind == Kind::Directory {
        forbid_loop(d, source.ino, new.0)?;
    }
    if target.kind == Kind::Directory {
        forbid_loop(d, target.ino, old.0)?;
    }
    d.put_entry(old.0, old.1, Dentry { cookie: source.cookie, ..target });
    d.put_entry(new.0, new.1, Dentry { cookie: target.cookie, ..source });
    moved(d, source, old.0, new.0)?;
    moved(d, target, new.0, old.0)?;
    d.touch_dir(old.0)?;
    d.touch_dir(new.0)?;
    Ok(Reply::Done)
}

/// The target of a plain rename goes; its name keeps its cookie, which is returned.
fn replace<V: View + ?Sized>(
    d: &mut Draft<'_, V>,
    source: Dentry,
    new_parent: InodeNo,
    target: Dentry,
    old_parent: InodeNo,
) -> Result<u64> {
    match (source.kind == Kind::Directory, target.kind == Kind::Directory) {
        (true, false) => return Err(Errno::ENOTDIR.into()),
        (false, true) => {
            // An ancestor of the source cannot be empty.
            let ancestor = is_ancestor(d, target.ino, old_parent)?;
            return Err(if ancestor { Errno::ENOTEMPTY } else { Errno::EISDIR }.into());
        }
        (true, true) => remove_dir(d, new_parent, target.ino)?,
        (false, false) => unlink_inode(d, target.ino)?,
    }
    Ok(target.cookie)
}

/// What moves gets a new ctime; a directory takes its link and its `..` along.
fn moved<V: View + ?Sized>(d: &mut Draft<'_, V>, what: Dentry, from: InodeNo, to: InodeNo) -> Result<()> {
    let now = d.ctx.now;
    let inode = d.edit(what.ino)?;
    inode.ctime = now;
    if what.kind == Kind::Directory && from != to {
        inode.parent = to;
        let p = d.edit(from)?;
        p.nlink = p.nlink.saturating_sub(1);
        let p = d.edit(to)?;
        p.nlink = p.nlink.checked_add(1).ok_or(Errno::EMLINK)?;
    }
    Ok(())
}

/// EINVAL when `dir` is `below` or one of its ancestors.
fn forbid_loop<V: View + ?Sized>(d: &mut Draft<'_, V>, dir: InodeNo, below: InodeNo) -> Result<()> {
    if is_ancestor(d, dir, below)? { Err(Errno::EINVAL.into()) } else { Ok(()) }
}

/// Whether `dir` is `below` or one of its ancestors. Parents are followed to the root; the tree has no cycles, and damage
/// that makes one ends at the bound.
fn is_ancestor<V: View + ?Sized>(d: &mut Draft<'_, V>, dir: InodeNo, below: InodeNo) -> Result<bool> {
    const DEPTH_MAX: usize = 1 << 20;
    let mut at = below;
    for _ in 0..DEPTH_MAX {
        if at == dir {
            return Ok(true);
        }
        if at == InodeNo::ROOT {
            return Ok(false);
        }
        // Not through the draft: a deep tree must not be collected in it.
        at = crate::state::view::need_inode(d.view, at)?.parent;
    }
    Err(Errno::EIO.into())
}
