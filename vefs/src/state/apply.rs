//! The one code that changes a VE's state: on the primary, in recovery and on a replica.
//!
//! It cannot refuse: a plan checked everything. Given the same state and the same changes it ends in the same state, which
//! is what makes two sides with equal positions equal. Only reading the layers below can fail (I/O, damage).

use super::key::{Entry, Key, Value};
use super::overlay::touched;
use super::tables::Tables;
use super::view::{self, Scan, View};
use crate::change::{Change, Purpose};
use crate::error::Result;
use crate::ids::{InodeNo, TxnNo};
use crate::types::{Extent, Inode, Kind, Source};

/// Applies the changes of one record, as part of transaction `txn`.
pub fn apply(tables: &mut Tables, txn: TxnNo, purpose: Purpose, changes: &[Change]) -> Result<()> {
    for change in changes {
        // Housekeeping changes no bytes: nobody who asks what changed wants to hear of it.
        if let (Purpose::Operation, Change::Map(ino, ..) | Change::Unmap(ino, ..)) = (purpose, change) {
            tables.active.touch(txn, *ino, touched::CONTENT);
        }
        apply_one(tables, txn, change)?;
    }
    Ok(())
}

fn apply_one(t: &mut Tables, txn: TxnNo, change: &Change) -> Result<()> {
    match change {
        Change::PutInode(ino, inode) => put_inode(t, txn, *ino, inode),
        Change::DropInode(ino) => drop_inode(t, txn, *ino)?,
        Change::PutDentry(dir, name, d) => {
            t.active.touch(txn, *dir, touched::ENTRIES);
            let entry = Entry { name: name.clone().into(), ino: d.ino, kind: d.kind };
            t.active.set(Key::cookie(*dir, d.cookie), Some(Value::Entry(entry)), txn);
            t.active.set(Key::dentry(*dir, name), Some(Value::Dentry(*d)), txn);
        }
        Change::DropDentry(dir, name, cookie) => {
            t.active.touch(txn, *dir, touched::ENTRIES);
            t.unset(Key::cookie(*dir, *cookie), txn);
            t.unset(Key::dentry(*dir, name), txn);
        }
        Change::PutTarget(ino, target) => {
            t.active.set(Key::target(*ino), Some(Value::Bytes(target.clone().into())), txn);
        }
        Change::PutXattr(ino, name, value) => {
            t.active.touch(txn, *ino, touched::XATTR);
            t.active.set(Key::xattr(*ino, name), Some(Value::Bytes(value.clone().into())), txn);
        }
        Change::DropXattr(ino, name) => {
            t.active.touch(txn, *ino, touched::XATTR);
            t.unset(Key::xattr(*ino, name), txn);
        }
        Change::Map(ino, offset, extent) => {
            unmap(t, txn, *ino, *offset, offset.saturating_add(extent.len))?;
            map(t, txn, *ino, *offset, *extent)?;
        }
        Change::Unmap(ino, offset, len) => unmap(t, txn, *ino, *offset, offset.saturating_add(*len))?,
        Change::Usage(bytes, inodes) => {
            // No plan lets a sum overflow; what a hostile journal adds up to must still be the same everywhere.
            t.usage.bytes = t.usage.bytes.saturating_add(*bytes);
            t.usage.inodes = t.usage.inodes.saturating_add(*inodes);
        }
        Change::PutSettings(s) => t.active.set(Key::settings(), Some(Value::Settings(s.clone())), txn),
        Change::PutPolicy(p) => t.active.set(Key::policy(), Some(Value::Policy(p.clone())), txn),
        Change::PutHold(name, hold) => t.active.set(Key::hold(name), Some(Value::Hold(hold.clone())), txn),
        Change::DropHold(name) => t.unset(Key::hold(name), txn),
        Change::Wrote(ino, size, mapped, time) => {
            // A record that names no inode here changes nothing: `apply` cannot refuse. Nor does one that gives a symbolic link a size that no row may have.
            let fits = |i: &Inode| i.kind() != Kind::Symlink || *size <= crate::limits::SYMLINK_MAX as u64;
            if let Some(inode) = view::inode(t, *ino)?.filter(fits) {
                let times = Inode { mtime: *time, ctime: *time, ..inode };
                put_inode(t, txn, *ino, &Inode { size: *size, mapped: *mapped, ..times });
            }
        }
    }
    Ok(())
}

fn put_inode(t: &mut Tables, txn: TxnNo, ino: InodeNo, inode: &Inode) {
    t.active.touch(txn, ino, touched::INODE);
    if ino >= t.usage.next_ino {
        t.usage.next_ino = InodeNo(ino.0 + 1);
    }
    // An orphan never gets a name again: its mark goes with the inode. It finds orphans after a restart.
    if inode.nlink == 0 {
        t.active.set(Key::orphan(ino), Some(Value::Mark), txn);
    }
    t.active.set(Key::inode(ino), Some(Value::Inode(inode.clone())), txn);
}

fn drop_inode(t: &mut Tables, txn: TxnNo, ino: InodeNo) -> Result<()> {
    t.active.touch(txn, ino, touched::INODE);
    let mut keys = vec![Key::inode(ino), Key::orphan(ino)];
    // What an inode of the VE's own cannot have need not be looked for.
    let (linked, mapped, tagged) = match t.get(&Key::inode(ino))? {
        Some(Value::Inode(i)) if !ino.is_base() => (i.kind() == Kind::Symlink, i.mapped > 0, i.may_have_xattrs(ino)),
        _ => (true, true, true),
    };
    if linked && t.get(&Key::target(ino))?.is_some() {
        keys.push(Key::target(ino));
    }
    let mut collect = |key: &Key, _: &Value| {
        keys.push(key.clone());
        Scan::Next
    };
    if tagged {
        t.scan(&Key::xattr(ino, &[]), &Key::xattr(InodeNo(ino.0 + 1), &[]), &mut collect)?;
    }
    if mapped {
        t.scan(&Key::extent(ino, 0), &Key::extent(InodeNo(ino.0 + 1), 0), &mut collect)?;
    }
    for key in keys {
        t.unset(key, txn);
    }
    t.maps.forget(ino);
    Ok(())
}

/// Makes `from..to` a hole: extents inside go, those that reach in are cut.
fn unmap(t: &mut Tables, txn: TxnNo, ino: InodeNo, from: u64, to: u64) -> Result<()> {
    if from >= to {
        return Ok(());
    }
    let mut hit: Vec<(u64, Extent)> = Vec::new();
    if let Some((offset, e)) = t.extent_floor(ino, from)?
        && offset.saturating_add(e.len) > from
    {
        hit.push((offset, e));
    }
    if let Some(next) = from.checked_add(1) {
        t.scan(&Key::extent(ino, next), &Key::extent(ino, to), &mut |key, value| {
            if let Value::Extent(e) = value {
                hit.push((key.number(), *e));
            }
            Scan::Next
        })?;
    }
    for (offset, e) in hit {
        let end = offset.saturating_add(e.len);
        if offset < from {
            let left = Extent { len: from - offset, source: e.source };
            t.set_extent(ino, offset, Some(left), txn);
        } else {
            t.set_extent(ino, offset, None, txn);
        }
        if end > to {
            let right = Extent { len: end - to, source: e.source.plus(to - offset) };
            t.set_extent(ino, to, Some(right), txn);
        }
    }
    Ok(())
}

/// Maps an extent into a hole, joining it with the one before where both name consecutive bytes of one source.
fn map(t: &mut Tables, txn: TxnNo, ino: InodeNo, offset: u64, extent: Extent) -> Result<()> {
    if let Some(before) = offset.checked_sub(1)
        && let Some((start, left)) = t.extent_floor(ino, before)?
        && start.saturating_add(left.len) == offset
        && left.source.plus(left.len) == extent.source
        && joins_cheaply(t, ino, start, txn)
    {
        let joined = Extent { len: left.len + extent.len, source: left.source };
        t.set_extent(ino, start, Some(joined), txn);
        return Ok(());
    }
    t.set_extent(ino, offset, Some(extent), txn);
    Ok(())
}

/// Whether changing the extent at `start` costs no history: it was made by this very transaction.
fn joins_cheaply(t: &Tables, ino: InodeNo, start: u64, txn: TxnNo) -> bool {
    t.active.get(&Key::extent(ino, start)).is_some_and(|s| s.birth == txn)
}

/// The figures by which mapping `extent` at `offset` changes a file: (mapped bytes, charged bytes).
pub fn map_delta(
    t: &(impl View + ?Sized),
    ino: InodeNo,
    inode: &Inode,
    offset: u64,
    len: u64,
    source: Option<Source>,
) -> Result<(i64, i64)> {
    let (mut mapped, mut charged) = (0i64, 0i64);
    view::each_extent(t, ino, inode, (offset, offset.saturating_add(len)), &mut |_, e| {
        mapped -= e.len as i64;
        if e.source.is_charged() {
            charged -= e.len as i64;
        }
        Scan::Next
    })?;
    if let Some(source) = source {
        mapped += len as i64;
        if source.is_charged() {
            charged += len as i64;
        }
    }
    Ok((mapped, charged))
}
