//! Files in very many pieces: what takes their extents away is recorded in parts.
//!
//! Whoever applies a record needs some hundred bytes for each extent that it takes away, on every node and again at each start, and a program can
//! give a file as many extents as bytes: one record that took millions away would cost the other VEs their memory.
//!
//! - To punch a hole, reserve or erase may happen in parts; a crash in between leaves a part of it, as on other file systems. Erasing is nothing that
//!   anybody sees.
//! - A file is cut at once: the size and the flag [`Inode::CUT`] are one record, for a program may take that for a commit. What is mapped beyond goes
//!   after it, in parts, and before anything that could show it again: before the next operation on this file's content.

use super::draft::Draft;
use super::{Then, content};
use crate::error::Result;
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

/// Some of what is mapped beyond the size of a file that was cut goes, from the front. The file is the same afterwards.
pub(super) fn trim<V: View + ?Sized>(d: &mut Draft<'_, V>, ino: InodeNo) -> Result<Reply> {
    let inode = d.get(ino)?.clone();
    if inode.flags & Inode::CUT == 0 {
        return Ok(Reply::Done);
    }
    match cut(d, ino, inode.size, u64::MAX)? {
        Some(end) => {
            content::unmap(d, ino, inode.size, end - inode.size)?;
            d.then = Then::Again;
        }
        None => {
            content::unmap(d, ino, inode.size, u64::MAX - inode.size)?;
            d.edit(ino)?.flags &= !Inode::CUT;
        }
    }
    Ok(Reply::Done)
}

/// Whether an operation is about the content of a file that was cut: then some of what is mapped beyond its size goes first.
pub(super) fn settle<V: View + ?Sized>(d: &mut Draft<'_, V>, op: &Op) -> Result<bool> {
    let ino = match op {
        Op::Write { ino, .. } | Op::Fallocate { ino, .. } | Op::CopyRange { dst: ino, .. } => *ino,
        Op::Setattr { ino, set } if set.size.is_some() => *ino,
        _ => return Ok(false),
    };
    let is_cut = view::inode(d.view, ino)?.is_some_and(|i| i.flags & Inode::CUT != 0);
    if is_cut {
        trim(d, ino)?;
        d.then = Then::Again;
    }
    Ok(is_cut)
}
