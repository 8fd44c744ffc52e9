//! Which inodes an operation is about, so that a comparison after it need not be of everything.

use vefs::ids::InodeNo;
use vefs::op::Op;

use crate::model::{Model, Reader};

/// Adds the inodes that `op` names on a model as it is before the operation; what it creates is in its answer.
pub fn of(model: &Model, op: &Op, out: &mut Vec<InodeNo>) {
    let mut named = |dir: &InodeNo, name: &[u8]| {
        out.push(*dir);
        if let Ok(entry) = model.lookup(*dir, name) {
            out.push(entry.ino);
        }
    };
    match op {
        Op::Create { parent, name, .. }
        | Op::Symlink { parent, name, .. }
        | Op::Unlink { parent, name }
        | Op::Rmdir { parent, name } => named(parent, name),
        Op::Link { ino, parent, name } => {
            named(parent, name);
            out.push(*ino);
        }
        Op::Rename { parent, name, new_parent, new_name, .. } => {
            named(parent, name);
            named(new_parent, new_name);
        }
        Op::CopyRange { src, dst, .. } => out.extend([*src, *dst]),
        Op::Write { ino, .. }
        | Op::Setattr { ino, .. }
        | Op::Fallocate { ino, .. }
        | Op::Setxattr { ino, .. }
        | Op::Removexattr { ino, .. }
        | Op::Reap { ino }
        | Op::Trim { ino, .. } => out.push(*ino),
    }
}
