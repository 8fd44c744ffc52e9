//! Reading a VE's state, present or past: what a plan looks at and what the mount, backups and diffs read from.

use super::key::{Entry, Key, Value};
use crate::base::BaseTree;
use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::ids::InodeNo;
pub use crate::meta::Scan;
use crate::types::{Dentry, Extent, Inode};

/// A readable state of a VE.
pub trait View {
    /// The value of a key, the base tree's where nothing hides it.
    fn get(&self, key: &Key) -> Result<Option<Value>>;

    /// Visits the keys with `from ≤ key < to` in order, the base tree's entries and attributes among them.
    fn scan(&self, from: &Key, to: &Key, visit: &mut dyn FnMut(&Key, &Value) -> Scan) -> Result<()>;

    /// The last extent of a file with a private map that begins at or before `offset`.
    fn extent_floor(&self, ino: InodeNo, offset: u64) -> Result<Option<(u64, Extent)>>;

    /// The tree below.
    fn base(&self) -> &BaseTree;
}

/// A value of a kind that its key cannot have.
pub(crate) fn wrong(key: &Key, value: &Value) -> Error {
    Error::Damage { what: "metadata", place: format!("{key:?}"), detail: format!("unexpected value {value:?}") }
}

/// Visits a range of keys whose values are of one kind; `None` of the visitor says that one is of another.
fn scan_of(
    view: &(impl View + ?Sized),
    (from, to): (&Key, &Key),
    visit: &mut dyn FnMut(&Key, &Value) -> Option<Scan>,
) -> Result<()> {
    let mut bad = None;
    view.scan(from, to, &mut |key, value| {
        visit(key, value).unwrap_or_else(|| {
            bad = Some(wrong(key, value));
            Scan::Stop
        })
    })?;
    bad.map_or(Ok(()), Err)
}

/// An inode's attributes.
pub fn inode(view: &(impl View + ?Sized), ino: InodeNo) -> Result<Option<Inode>> {
    let key = Key::inode(ino);
    match view.get(&key)? {
        None => Ok(None),
        Some(Value::Inode(i)) => Ok(Some(i)),
        Some(other) => Err(wrong(&key, &other)),
    }
}

/// An inode that has to be there.
pub fn need_inode(view: &(impl View + ?Sized), ino: InodeNo) -> Result<Inode> {
    inode(view, ino)?.ok_or(Error::Posix(Errno::ENOENT))
}

/// A directory's entry.
pub fn dentry(view: &(impl View + ?Sized), dir: InodeNo, name: &[u8]) -> Result<Option<Dentry>> {
    let key = Key::dentry(dir, name);
    match view.get(&key)? {
        None => Ok(None),
        Some(Value::Dentry(d)) => Ok(Some(d)),
        Some(other) => Err(wrong(&key, &other)),
    }
}

/// Looks a name up as the kernel does: ENOTDIR, ENOENT and ENAMETOOLONG included.
pub fn lookup(view: &(impl View + ?Sized), dir: InodeNo, name: &[u8]) -> Result<Dentry> {
    crate::plan::check_name(name)?;
    let d = need_inode(view, dir)?;
    if !d.is_dir() {
        return Err(Errno::ENOTDIR.into());
    }
    dentry(view, dir, name)?.ok_or(Error::Posix(Errno::ENOENT))
}

/// Visits a directory's entries with cookies greater than `after`, in the order of their cookies.
pub fn entries(
    view: &(impl View + ?Sized),
    dir: InodeNo,
    after: u64,
    visit: &mut dyn FnMut(u64, &Entry) -> Scan,
) -> Result<()> {
    let range = (&Key::cookie(dir, after.saturating_add(1)), &Key::cookie(InodeNo(dir.0 + 1), 0));
    scan_of(view, range, &mut |key, value| match value {
        Value::Entry(e) => Some(visit(key.number(), e)),
        _ => None,
    })
}

/// Visits a directory's entries from a key of kind dentry on, in byte order of their names. Not for the present state, whose overlays have
/// entries by name in no order.
pub fn names(
    view: &super::version::VersionView,
    from: &Key,
    visit: &mut dyn FnMut(&[u8], Dentry) -> Scan,
) -> Result<()> {
    scan_of(view, (from, &Key::dentry(InodeNo(from.ino().0 + 1), &[])), &mut |key, value| match value {
        Value::Dentry(d) => Some(visit(key.rest(), *d)),
        _ => None,
    })
}

/// Whether a directory has no entries.
pub fn is_empty_dir(view: &(impl View + ?Sized), dir: InodeNo) -> Result<bool> {
    let mut empty = true;
    entries(view, dir, 0, &mut |_, _| {
        empty = false;
        Scan::Stop
    })?;
    Ok(empty)
}

fn bytes(view: &(impl View + ?Sized), key: &Key) -> Result<Option<Box<[u8]>>> {
    match view.get(key)? {
        None => Ok(None),
        Some(Value::Bytes(b)) => Ok(Some(b)),
        Some(other) => Err(wrong(key, &other)),
    }
}

/// A symlink's target.
pub fn target(view: &(impl View + ?Sized), ino: InodeNo) -> Result<Option<Box<[u8]>>> {
    bytes(view, &Key::target(ino))
}

/// An extended attribute.
pub fn xattr(view: &(impl View + ?Sized), ino: InodeNo, name: &[u8]) -> Result<Option<Box<[u8]>>> {
    bytes(view, &Key::xattr(ino, name))
}

/// The names of an inode's extended attributes, in byte order.
pub fn xattr_names(view: &(impl View + ?Sized), ino: InodeNo) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    view.scan(&Key::xattr(ino, &[]), &Key::xattr(InodeNo(ino.0 + 1), &[]), &mut |key, _| {
        names.push(key.rest().to_vec());
        Scan::Next
    })?;
    Ok(names)
}

/// Mapped runs of a file, with their offsets.
pub type Extents = Vec<(u64, Extent)>;

/// The mapped runs of a file that overlap `from..to`, cut to it, in order. Works for base and private maps. Only for ranges that cannot have many.
pub fn extents(view: &(impl View + ?Sized), ino: InodeNo, at: &Inode, from: u64, to: u64) -> Result<Extents> {
    Ok(some_extents(view, ino, at, (from, to), usize::MAX)?.0)
}

/// The first `most` of the mapped runs of a file that overlap `from..to`, and where the next one begins, if there are more: a file may have as many
/// runs as bytes.
pub fn some_extents(
    view: &(impl View + ?Sized),
    ino: InodeNo,
    at: &Inode,
    (from, to): (u64, u64),
    most: usize,
) -> Result<(Extents, Option<u64>)> {
    let (mut some, mut next) = (Vec::new(), None);
    each_extent(view, ino, at, (from, to), &mut |offset, extent| {
        if some.len() == most {
            next = Some(offset);
            return Scan::Stop;
        }
        some.push((offset, extent));
        Scan::Next
    })?;
    Ok((some, next))
}

/// Visits the mapped runs of a file that overlap `from..to`, cut to it, in order.
pub fn each_extent(
    view: &(impl View + ?Sized),
    ino: InodeNo,
    at: &Inode,
    (from, to): (u64, u64),
    visit: &mut dyn FnMut(u64, Extent) -> Scan,
) -> Result<()> {
    if from >= to {
        return Ok(());
    }
    let mut cut = |offset: u64, extent: Extent| {
        let start = offset.max(from);
        let end = offset.saturating_add(extent.len).min(to);
        if start >= end {
            return Scan::Next;
        }
        visit(start, Extent { len: end - start, source: extent.source.plus(start - offset) })
    };
    if at.flags & Inode::PRIVATE_MAP == 0 {
        let mut runs = view.base().content(ino).iter();
        let _ = runs.any(|(offset, extent)| cut(*offset, *extent) == Scan::Stop);
        return Ok(());
    }
    if let Some((offset, extent)) = view.extent_floor(ino, from)?
        && cut(offset, extent) == Scan::Stop
    {
        return Ok(());
    }
    let Some(next) = from.checked_add(1) else { return Ok(()) };
    scan_of(view, (&Key::extent(ino, next), &Key::extent(ino, to)), &mut |key, value| match value {
        Value::Extent(e) => Some(cut(key.number(), *e)),
        _ => None,
    })
}
