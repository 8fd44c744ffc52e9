//! setxattr(2) and removexattr(2), with the rules of the namespaces (xattr(7)).

use super::acl;
use super::draft::Draft;
use crate::change::Change;
use crate::errno::Errno;
use crate::error::Result;
use crate::ids::InodeNo;
use crate::limits;
use crate::op::{Reply, XattrMode};
use crate::state::view::{self, View};
use crate::types::{Inode, Kind};

/// The namespaces there are (xattr(7)).
const NAMESPACES: [&[u8]; 4] = [b"user.", b"trusted.", b"security.", b"system."];

pub(super) fn set<V: View + ?Sized>(
    d: &mut Draft<'_, V>,
    ino: InodeNo,
    name: &[u8],
    value: &[u8],
    how: XattrMode,
) -> Result<Reply> {
    check_name(name)?;
    if value.len() > limits::XATTR_VALUE_MAX {
        return Err(Errno::ERANGE.into());
    }
    let kind = d.get(ino)?.kind();
    check_kind(name, kind)?;
    let acl = acl::is_acl(name);
    if acl {
        acl::check_kind(name, kind)?;
    }
    let parsed = if acl { acl::parse(value)? } else { None };
    let exists = d.xattr(ino, name)?.is_some();
    match how {
        _ if acl => {}
        XattrMode::Create if exists => return Err(Errno::EEXIST.into()),
        XattrMode::Replace if !exists => return Err(Errno::ENODATA.into()),
        _ => {}
    }
    let mut store = !acl || parsed.is_some();
    if let (Some(entries), true) = (&parsed, name == acl::ACCESS) {
        let (bits, extended) = acl::mode_of(entries);
        let inode = d.edit(ino)?;
        inode.mode = (inode.mode & !0o777) | bits;
        store = extended;
    }
    if store {
        let value = parsed.as_deref().map_or_else(|| value.to_vec(), acl::encode);
        check_room(d, ino, name, value.len())?;
        d.edit(ino)?.flags |= Inode::HAS_XATTR;
        d.changes.push(Change::PutXattr(ino, name.to_vec(), value));
    } else if exists {
        d.changes.push(Change::DropXattr(ino, name.to_vec()));
    }
    changed(d, ino)
}

pub(super) fn remove<V: View + ?Sized>(d: &mut Draft<'_, V>, ino: InodeNo, name: &[u8]) -> Result<Reply> {
    check_name(name)?;
    let kind = d.get(ino)?.kind();
    check_kind(name, kind)?;
    let acl = acl::is_acl(name);
    if acl && kind == Kind::Symlink {
        return Err(Errno::EOPNOTSUPP.into());
    }
    if d.xattr(ino, name)?.is_some() {
        d.changes.push(Change::DropXattr(ino, name.to_vec()));
    } else if !acl {
        return Err(Errno::ENODATA.into());
    }
    changed(d, ino)
}

/// The value that setting this attribute on a new inode stores, `None` where that stores nothing: an ACL that says no more than
/// the mode, for one. For those who build trees.
///
/// # Errors
/// As setxattr(2) has them.
pub fn as_stored(name: &[u8], value: &[u8], kind: Kind) -> Result<Option<Vec<u8>>> {
    check_name(name)?;
    if value.len() > limits::XATTR_VALUE_MAX {
        return Err(Errno::ERANGE.into());
    }
    check_kind(name, kind)?;
    if !acl::is_acl(name) {
        return Ok(Some(value.to_vec()));
    }
    acl::check_kind(name, kind)?;
    let entries = acl::parse(value)?.filter(|entries| name != acl::ACCESS || acl::mode_of(entries).1);
    Ok(entries.map(|entries| acl::encode(&entries)))
}

fn changed<V: View + ?Sized>(d: &mut Draft<'_, V>, ino: InodeNo) -> Result<Reply> {
    let now = d.ctx.now;
    d.edit(ino)?.ctime = now;
    Ok(Reply::Done)
}

/// Checks a name.
fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > limits::XATTR_NAME_MAX {
        return Err(Errno::ERANGE.into());
    }
    if name.is_empty() || name.contains(&0) {
        return Err(Errno::EINVAL.into());
    }
    match NAMESPACES.iter().find(|p| name.starts_with(p)) {
        Some(p) if name.len() > p.len() => {}
        _ => return Err(Errno::EOPNOTSUPP.into()),
    }
    if name.starts_with(b"system.") && !acl::is_acl(name) {
        return Err(Errno::EOPNOTSUPP.into());
    }
    Ok(())
}

/// Whether this kind of inode may have attributes of the namespace.
fn check_kind(name: &[u8], kind: Kind) -> Result<()> {
    if name.starts_with(b"user.") && !matches!(kind, Kind::Regular | Kind::Directory) {
        return Err(Errno::EPERM.into());
    }
    Ok(())
}

/// All names of an inode have to fit into one listxattr(2), and names and values have a bound. A value that gets no longer always fits: a template's
/// file may have more.
fn check_room<V: View + ?Sized>(d: &mut Draft<'_, V>, ino: InodeNo, name: &[u8], value: usize) -> Result<()> {
    if d.xattr(ino, name)?.is_some_and(|old| value <= old.len()) {
        return Ok(());
    }
    let (mut list, mut all) = (name.len() + 1, name.len() + value);
    for other in view::xattr_names(d.view, ino)?.iter().filter(|n| **n != name) {
        list += other.len() + 1;
        all += other.len() + view::xattr(d.view, ino, other)?.map_or(0, |v| v.len());
    }
    let full = list > limits::XATTR_LIST_MAX || all > limits::XATTR_TOTAL_MAX;
    if full { Err(Errno::ENOSPC.into()) } else { Ok(()) }
}
