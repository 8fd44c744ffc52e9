//! Whether the changes of a record can be applied at all. Recovery (and whoever else is given records) asks before it applies:
//! a record that came from a disk with a good checksum may still be nonsense, and `apply` cannot refuse (promise G29).
//!
//! What holds afterwards: every name, value and count is within [`crate::limits`]; no sum that applying, reading or
//! planning makes of offsets, lengths, counters and inode numbers overflows. Whether the changes make sense together (an entry
//! without its inode, say) is not checked here: the state stays readable, and the state root tells.
//!
//! Whoever writes a record asks as well, so that nothing is ever written that recovery would refuse.

use super::{Body, Change, Hold, Policy, ReplicaOf};
use crate::ids::{InodeNo, TxnNo};
use crate::limits;
use crate::object::OBJECT_LEN_MAX;
use crate::plan::check_name;
use crate::types::{Dentry, Extent, Inode, Kind, Source, mode};

/// A record or a stored value that must not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A change, counted from 0.
    #[error("change {0}: {1} out of range")]
    Change(usize, &'static str),
    /// The record as a whole, or a value on its own.
    #[error("{0} out of range")]
    Value(&'static str),
}

type Check = Result<(), &'static str>;

fn ensure(good: bool, what: &'static str) -> Check {
    if good { Ok(()) } else { Err(what) }
}

/// Checks a record of transaction `txn`.
pub fn validate(body: &Body, txn: TxnNo) -> Result<(), Invalid> {
    ensure(body.changes.len() <= limits::CHANGES_MAX, "number of changes").map_err(Invalid::Value)?;
    if let Some(payload) = &body.payload {
        ensure((1..=limits::WRITE_MAX as u64).contains(&payload.len), "payload length").map_err(Invalid::Value)?;
    }
    for (index, change) in body.changes.iter().enumerate() {
        check(change, txn).map_err(|what| Invalid::Change(index, what))?;
    }
    Ok(())
}

fn check(change: &Change, txn: TxnNo) -> Check {
    match change {
        Change::PutInode(no, i) => ino(*no).and_then(|()| inode(i)),
        Change::DropInode(no) => ino(*no),
        Change::PutDentry(dir, n, d) => ino(*dir).and_then(|()| name(n)).and_then(|()| dentry(d)),
        Change::DropDentry(dir, n, c) => ino(*dir).and_then(|()| name(n)).and_then(|()| cookie(*c)),
        Change::PutTarget(no, t) => ino(*no).and_then(|()| target(t)),
        Change::PutXattr(no, n, v) => ino(*no).and_then(|()| xattr_name(n)).and_then(|()| xattr_value(v)),
        Change::DropXattr(no, n) => ino(*no).and_then(|()| xattr_name(n)),
        Change::Map(no, offset, e) => ino(*no).and_then(|()| extent(*offset, e)).and_then(|()| known(e, txn)),
        Change::Unmap(no, offset, len) => {
            ino(*no).and_then(|()| ensure(offset.checked_add(*len).is_some(), "range to unmap"))
        }
        // Any figure: their sum saturates.
        Change::Usage(_, _) | Change::PutSettings(_) => Ok(()),
        Change::PutPolicy(p) => policy(p),
        Change::PutHold(n, h) => label(n).and_then(|()| hold(h)),
        Change::DropHold(n) => label(n),
        // That a symbolic link's size is smaller is for `apply`: the record does not say what it is about.
        Change::Wrote(no, size, mapped, time) => {
            ino(*no)?;
            ensure(time.is_valid(), "time")?;
            ensure(*size <= limits::FILE_SIZE_MAX, "size")?;
            ensure(*mapped <= limits::FILE_SIZE_MAX, "mapped bytes")
        }
    }
}

/// An inode number: not 0, and one more is a number too.
pub(crate) fn ino(ino: InodeNo) -> Check {
    ensure((1..=limits::COUNTER_MAX).contains(&ino.0), "inode number")
}

pub(crate) fn cookie(cookie: u64) -> Check {
    ensure(cookie <= limits::COUNTER_MAX, "cookie")
}

pub(crate) fn inode(i: &Inode) -> Check {
    let kind = Kind::of_mode(i.mode).filter(|_| i.mode & !(mode::IFMT | mode::PERM) == 0).ok_or("mode")?;
    ensure(kind == Kind::Directory || i.nlink <= limits::LINK_MAX, "link count")?;
    let size_max = if kind == Kind::Symlink { limits::SYMLINK_MAX as u64 } else { limits::FILE_SIZE_MAX };
    ensure(i.size <= size_max, "size")?;
    ensure(i.mapped <= limits::FILE_SIZE_MAX, "mapped bytes")?;
    ensure([i.atime, i.mtime, i.ctime, i.btime].into_iter().all(|t| t.is_valid()), "time")?;
    ensure(i.parent.0 <= limits::COUNTER_MAX, "parent")?;
    cookie(i.next_cookie)?;
    ensure(i.flags & !Inode::FLAGS == 0, "flags")
}

pub(crate) fn name(name: &[u8]) -> Check {
    ensure(check_name(name).is_ok(), "name")
}

pub(crate) fn dentry(d: &Dentry) -> Check {
    ino(d.ino).and_then(|()| cookie(d.cookie))
}

pub(crate) fn target(target: &[u8]) -> Check {
    ensure((1..=limits::SYMLINK_MAX).contains(&target.len()) && !target.contains(&0), "link target")
}

pub(crate) fn xattr_name(name: &[u8]) -> Check {
    ensure((1..=limits::XATTR_NAME_MAX).contains(&name.len()) && !name.contains(&0), "attribute name")
}

pub(crate) fn xattr_value(value: &[u8]) -> Check {
    ensure(value.len() <= limits::XATTR_VALUE_MAX, "attribute value")
}

/// An extent at an offset of a file: within the largest file, and its source within the largest payload or object.
pub(crate) fn extent(offset: u64, e: &Extent) -> Check {
    let within = |start: u64, max: u64| start.checked_add(e.len).is_some_and(|end| end <= max);
    ensure(e.len > 0 && within(offset, limits::FILE_SIZE_MAX), "extent")?;
    match e.source {
        Source::Payload(id) => ensure(within(id.offset, limits::COUNTER_MAX), "payload id"),
        Source::Object { offset, .. } | Source::Base { offset, .. } => {
            ensure(within(offset, OBJECT_LEN_MAX), "range of an object")
        }
        Source::Unwritten => Ok(()),
    }
}

/// A payload of a transaction to come would be whatever that one brings.
fn known(e: &Extent, txn: TxnNo) -> Check {
    match e.source {
        Source::Payload(id) => ensure(id.txn <= txn, "payload of a later transaction"),
        _ => Ok(()),
    }
}

pub(crate) fn label(name: &str) -> Check {
    ensure((1..=limits::LABEL_MAX).contains(&name.len()) && !name.contains('\0'), "name of a hold")
}

/// Checks a policy; what of it is out of range.
pub fn policy(p: &Policy) -> Result<(), &'static str> {
    ensure(p.window_ms >= limits::WINDOW_MIN_MS, "window")?;
    ensure(p.weight > 0, "weight")?;
    ensure(p.replicas.len() <= limits::REPLICAS_MAX, "number of replicas")?;
    let twice = |(i, r): (usize, &ReplicaOf)| p.replicas[..i].iter().any(|o| o.node == r.node);
    ensure(!p.replicas.iter().enumerate().any(twice), "replica named twice")
}

pub(crate) fn hold(h: &Hold) -> Check {
    ensure(h.owner.len() <= limits::LABEL_MAX, "owner of a hold")?;
    ensure(h.txn.0 <= limits::COUNTER_MAX, "version of a hold")?;
    ensure(h.since.is_valid(), "time of a hold")
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
