//! Plans: what an operation would change, or the error it answers. A plan reads a [`View`] and changes nothing; everything
//! that can be refused is refused here. The rules are `docs/SEMANTICS.md`.

mod acl;
mod attr;
mod content;
mod create;
mod draft;
mod heavy;
mod remove;
mod rename;
mod xattr;

use bytes::Bytes;

pub use content::{seek_data, seek_hole};
use draft::Draft;
pub use xattr::as_stored as xattr_as_stored;

use crate::change::{Change, Settings};
use crate::clock::Timestamp;
use crate::errno::Errno;
use crate::error::Result;
use crate::ids::{InodeNo, PayloadId};
use crate::limits;
use crate::op::{Op, Reply};
use crate::state::tables::Usage;
use crate::state::view::View;

/// What a plan may look at besides the state.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The time that the operation happens at.
    pub now: Timestamp,
    /// Quota figures before the operation.
    pub usage: Usage,
    /// Quota limits.
    pub settings: &'a Settings,
    /// The id that the record's payload will have, if it has one.
    pub payload: PayloadId,
    /// Most extents of a file that one record takes away, beyond those that a write covers: applying it takes memory for each, on every node and at
    /// each start. At least 1.
    pub extents_most: usize,
    /// Whether the operation is the rest of one whose first part was asked whether there is room for the whole.
    pub is_rest: bool,
}

/// What is left to do once a plan is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing: the operation happened.
    Nothing,
    /// Nothing was planned: that has to happen first, and then this is planned again.
    First(Box<Op>),
    /// This was a first part of it, and that is the rest; the answer to that is the operation's.
    Rest(Box<Op>),
    /// The operation happened; [`Op::Trim`] takes away what its file does not need any more.
    Trim(InodeNo),
}

/// What an operation will do. No changes means that there is nothing to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they are applied.
    pub changes: Vec<Change>,
    /// Bytes that come with it; `Map` changes name them by [`Context::payload`].
    pub payload: Option<Bytes>,
    /// The answer once it is recorded.
    pub reply: Reply,
    /// What is left to do then.
    pub then: Then,
    /// Whether it only gives space back, so that it may use the reserve of a full disk (promise G4).
    pub frees: bool,
}

/// Plans an operation against a view.
pub fn plan<V: View + ?Sized>(view: &V, ctx: &Context<'_>, op: &Op) -> Result<Plan> {
    let mut d = Draft::new(view, ctx);
    if let Some(first) = heavy::first(&mut d, op)? {
        let then = Then::First(Box::new(first));
        return Ok(Plan { changes: vec![], payload: None, reply: Reply::Done, then, frees: true });
    }
    let frees =
        matches!(op, Op::Unlink { .. } | Op::Rmdir { .. } | Op::Reap { .. } | Op::Trim { .. } | Op::Removexattr { .. });
    let (reply, payload) = match op {
        Op::Create { parent, name, mode, rdev, owner } => {
            (create::create(&mut d, *parent, name, *mode, *rdev, owner)?, None)
        }
        Op::Symlink { parent, name, target, owner } => (create::symlink(&mut d, *parent, name, target, owner)?, None),
        Op::Link { ino, parent, name } => (create::link(&mut d, *ino, *parent, name)?, None),
        Op::Unlink { parent, name } => (remove::unlink(&mut d, *parent, name)?, None),
        Op::Rmdir { parent, name } => (remove::rmdir(&mut d, *parent, name)?, None),
        Op::Reap { ino } => (remove::reap(&mut d, *ino)?, None),
        Op::Trim { ino, from } => (heavy::trim(&mut d, *ino, *from)?, None),
        Op::Rename { parent, name, new_parent, new_name, flags } => {
            (rename::rename(&mut d, (*parent, name), (*new_parent, new_name), *flags)?, None)
        }
        Op::Write { ino, offset, data, kill_priv } => content::write(&mut d, *ino, *offset, data, *kill_priv)?,
        Op::Setattr { ino, set } => (attr::setattr(&mut d, *ino, set)?, None),
        Op::Fallocate { ino, mode, offset, len } => (content::fallocate(&mut d, *ino, *mode, *offset, *len)?, None),
        Op::CopyRange { src, src_offset, dst, dst_offset, len } => {
            (content::copy_range(&mut d, (*src, *src_offset), (*dst, *dst_offset), *len)?, None)
        }
        Op::Setxattr { ino, name, value, mode } => (xattr::set(&mut d, *ino, name, value, *mode)?, None),
        Op::Removexattr { ino, name } => (xattr::remove(&mut d, *ino, name)?, None),
    };
    let gives_back = d.bytes_delta() < 0;
    let then = std::mem::replace(&mut d.then, Then::Nothing);
    let changes = d.finish()?;
    // What was marked is given back right after.
    let frees = frees || gives_back || matches!(then, Then::Trim(_));
    Ok(Plan { changes, payload, reply, then, frees })
}

/// Checks the name of a directory entry: 1 to 255 bytes, no `/`, no NUL, not `.` or `..`.
pub fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > limits::NAME_MAX {
        return Err(Errno::ENAMETOOLONG.into());
    }
    if name.is_empty() || name == b"." || name == b".." || name.iter().any(|b| matches!(b, b'/' | 0)) {
        return Err(Errno::EINVAL.into());
    }
    Ok(())
}
