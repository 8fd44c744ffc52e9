//! Files in very many pieces: what takes their extents away is recorded in parts.
//!
//! Whoever applies a record needs some hundred bytes for each extent that it takes away, on every node and again at each start, and a program can
//! give a file as many extents as bytes: one record that took millions away would cost the other VEs their memory.
//!
//! - To punch a hole or reserve may happen in parts; a crash in between leaves a part of it, as on other file systems.
//! - A file is cut at once: the size and the flag [`Inode::CUT`] are one record, for a program may take that for a commit. What is mapped beyond goes
//!   after it, in parts, and before anything that could show it again: before the next operation on this file's content.
//! - A removed file is cut, too, which nobody sees, before it is erased.

use super::draft::Draft;
use super::{Then, content};
use crate::error::{Error, Result};
use crate::ids::InodeNo;
use crate::op::{Op, Reply};
use crate::state::view::{self, View};
use crate::types::Inode;

/// Where the first part of `from..to` ends, if it has more extents than one record takes away.
pub(super) fn cut<V: View + ?Sized>(d: &mut Draft<'_, V>, ino: InodeNo, from: u64, to: u64) -> Result<Option<u64>> {
    let (view, most) = (d.view, d.ctx.extents_most);
    // As it is, not as it will be: what the draft has done already was counted by itself.
    let inode = view::need_inode(view, ino)?;
    // An extent has a byte at least.
    if inode.mapped <= most as u64 || inode.flags & Inode::PRIVATE_MAP == 0 {
        return Ok(None);
    }
    Ok(view::some_extents(view, ino, &inode, (from, to), most)?.1)
}

/// Leaves what is mapped beyond the size to [`trim`].
pub(super) fn mark<V: View + ?Sized>(d: &mut Draft<'_, V>, ino: InodeNo) -> Result<()> {
    d.edit(ino)?.flags |= Inode::CUT;
    d.then = Then::Trim(ino);
    Ok(())
}

/// Some of what is mapped beyond the size of a file that was cut goes, from `from` on. The file is the same afterwards.
///
/// Each part begins where the one before ended, and not at what that has removed: marks of it lie there for a while. The last one begins at the size, since
/// the file may have been another in between.
pub(super) fn trim<V: View + ?Sized>(d: &mut Draft<'_, V>, ino: InodeNo, from: u64) -> Result<Reply> {
    let inode = d.get(ino)?.clone();
    if inode.flags & Inode::CUT == 0 {
        return Ok(Reply::Done);
    }
    let from = from.max(inode.size);
    let next = cut(d, ino, from, u64::MAX)?;
    content::unmap(d, ino, from, next.unwrap_or(u64::MAX) - from)?;
    if next.is_some() || from > inode.size {
        d.then = Then::Rest(Box::new(Op::Trim { ino, from: next.unwrap_or(inode.size) }));
    } else {
        d.edit(ino)?.flags &= !Inode::CUT;
    }
    Ok(Reply::Done)
}

/// What has to happen before an operation: where it is about the content of a file that was cut, what is mapped beyond the size goes.
pub(super) fn first<V: View + ?Sized>(d: &mut Draft<'_, V>, op: &Op) -> Result<Option<Op>> {
    let ino = match op {
        Op::Write { ino, .. } | Op::Fallocate { ino, .. } | Op::CopyRange { dst: ino, .. } => *ino,
        Op::Setattr { ino, set } if set.size.is_some() => *ino,
        _ => return Ok(None),
    };
    match d.get(ino) {
        Ok(inode) => Ok((inode.flags & Inode::CUT != 0).then_some(Op::Trim { ino, from: inode.size })),
        // The operation says so itself, where it comes to that.
        Err(Error::Posix(_)) => Ok(None),
        Err(e) => Err(e),
    }
}
