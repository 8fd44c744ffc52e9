//! Changes of a file's bytes: write, truncate, fallocate, copy_file_range; and finding data and holes.

use bytes::Bytes;

use super::draft::Draft;
use super::{Then, heavy};
use crate::change::Change;
use crate::errno::Errno;
use crate::error::Result;
use crate::ids::InodeNo;
use crate::limits;
use crate::op::{FallocMode, Op, Reply};
use crate::state::apply::map_delta;
use crate::state::view::{self, Scan, View};
use crate::types::{Extent, Inode, Kind, Source};

/// A regular file: ENOENT, EISDIR, EINVAL for the others.
fn regular<'d, V: View + ?Sized>(d: &'d mut Draft<'_, V>, ino: InodeNo) -> Result<&'d Inode> {
    let inode = d.get(ino)?;
    match inode.kind() {
        Kind::Regular => Ok(inode),
        Kind::Directory => Err(Errno::EISDIR.into()),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// The end of a range; EFBIG beyond the largest file.
fn end_of(offset: u64, len: u64) -> Result<u64> {
    offset.checked_add(len).filter(|e| *e <= limits::FILE_SIZE_MAX).ok_or(Errno::EFBIG.into())
}

pub(super) fn write<V: View + ?Sized>(
    d: &mut Draft<'_, V>,
    ino: InodeNo,
    offset: u64,
    data: &Bytes,
    kill: bool,
) -> Result<(Reply, Option<Bytes>)> {
    if data.len() > limits::WRITE_MAX {
        return Err(Errno::EINVAL.into());
    }
    regular(d, ino)?;
    if data.is_empty() {
        return Ok((Reply::Written(0), None));
    }
    let len = data.len() as u64;
    let end = end_of(offset, len)?;
    let source = Source::Payload(d.ctx.payload);
    map(d, ino, offset, len, source)?;
    changed(d, ino, kill)?;
    let inode = d.edit(ino)?;
    inode.size = inode.size.max(end);
    Ok((Reply::Written(len), Some(data.clone())))
}

/// Sets the size of a file, with what goes with it: unmapping, the private map, cleared set-ID bits on a real change.
pub(super) fn truncate<V: View + ?Sized>(d: &mut Draft<'_, V>, ino: InodeNo, size: u64) -> Result<()> {
    let old = regular(d, ino)?.size;
    if size > limits::FILE_SIZE_MAX {
        return Err(Errno::EFBIG.into());
    }
    if size < old {
        match heavy::cut(d, ino, size, u64::MAX)? {
            None => unmap(d, ino, size, u64::MAX - size)?,
            Some(_) => heavy::mark(d, ino)?,
        }
    }
    if size != old {
        own_map(d, ino)?;
        d.edit(ino)?.size = size;
        d.kill_priv(ino, true)?;
    }
    Ok(())
}

pub(super) fn fallocate<V: View + ?Sized>(
    d: &mut Draft<'_, V>,
    ino: InodeNo,
    mode: FallocMode,
    offset: u64,
    len: u64,
) -> Result<Reply> {
    if len == 0 {
        return Err(Errno::EINVAL.into());
    }
    regular(d, ino)?;
    let whole = end_of(offset, len)?;
    let end = match heavy::cut(d, ino, offset, whole)? {
        None => whole,
        Some(cut) => {
            afford(d, ino, mode, offset, whole)?;
            d.then = Then::Rest(Box::new(Op::Fallocate { ino, mode, offset: cut, len: whole - cut }));
            cut
        }
    };
    let len = end - offset;
    let keep_size = match mode {
        FallocMode::Allocate { keep_size } => {
            for (hole, hole_len) in holes(d, ino, offset, end)? {
                map(d, ino, hole, hole_len, Source::Unwritten)?;
            }
            keep_size
        }
        FallocMode::PunchHole => {
            unmap(d, ino, offset, len)?;
            true
        }
        FallocMode::ZeroRange { keep_size } => {
            map(d, ino, offset, len, Source::Unwritten)?;
            keep_size
        }
    };
    own_map(d, ino)?;
    changed(d, ino, true)?;
    if !keep_size && d.then == Then::Nothing {
        let inode = d.edit(ino)?;
        inode.size = inode.size.max(end);
    }
    Ok(Reply::Done)
}

pub(super) fn copy_range<V: View + ?Sized>(
    d: &mut Draft<'_, V>,
    (src, src_offset): (InodeNo, u64),
    (dst, dst_offset): (InodeNo, u64),
    len: u64,
) -> Result<Reply> {
    let size = regular(d, src)?.size;
    regular(d, dst)?;
    let len = len.min(size.saturating_sub(src_offset));
    if len == 0 {
        return Ok(Reply::Written(0));
    }
    let end = end_of(dst_offset, len)?;
    if src == dst && src_offset < end && dst_offset < src_offset + len {
        return Err(Errno::EINVAL.into());
    }
    // Fewer bytes than were asked for are copied, where these are in many pieces, or lie where many are: copy_file_range(2) may.
    let end = heavy::cut(d, dst, dst_offset, end)?.unwrap_or(end);
    let end = heavy::cut(d, src, src_offset, src_offset + (end - dst_offset))?
        .map_or(end, |cut| dst_offset + (cut - src_offset));
    let len = end - dst_offset;
    let view = d.view;
    let inode = d.get(src)?.clone();
    let runs = view::extents(view, src, &inode, src_offset, src_offset + len)?;
    unmap(d, dst, dst_offset, len)?;
    for (at, e) in runs {
        if e.source == Source::Unwritten {
            continue;
        }
        // The range was unmapped before, but only in the draft: what it held is accounted for there.
        let to = dst_offset + (at - src_offset);
        d.changes.push(Change::Map(dst, to, e));
        d.edit(dst)?.mapped += e.len;
        if e.source.is_charged() {
            d.charge(e.len as i64);
        }
    }
    changed(d, dst, true)?;
    let inode = d.edit(dst)?;
    inode.size = inode.size.max(end);
    Ok(Reply::Written(len))
}

/// Content changed: mtime, ctime, the capabilities, and the set-ID bits where asked for.
fn changed<V: View + ?Sized>(d: &mut Draft<'_, V>, ino: InodeNo, kill: bool) -> Result<()> {
    let now = d.ctx.now;
    let inode = d.edit(ino)?;
    inode.mtime = now;
    inode.ctime = now;
    d.kill_priv(ino, kill)
}

/// Gives the file an extent map of its own: a base tree's file starts with the tree's runs, as extents, once.
fn own_map<V: View + ?Sized>(d: &mut Draft<'_, V>, ino: InodeNo) -> Result<()> {
    let view = d.view;
    if d.get(ino)?.flags & Inode::PRIVATE_MAP != 0 {
        return Ok(());
    }
    d.edit(ino)?.flags |= Inode::PRIVATE_MAP;
    // Before everything else that this plan maps: changes are applied in order.
    let runs = view.base().content(ino).iter().map(|(offset, e)| Change::Map(ino, *offset, *e));
    d.changes.splice(0..0, runs);
    Ok(())
}

fn map<V: View + ?Sized>(d: &mut Draft<'_, V>, ino: InodeNo, offset: u64, len: u64, source: Source) -> Result<()> {
    account(d, ino, offset, len, Some(source))?;
    d.changes.push(Change::Map(ino, offset, Extent { len, source }));
    Ok(())
}

pub(super) fn unmap<V: View + ?Sized>(d: &mut Draft<'_, V>, ino: InodeNo, offset: u64, len: u64) -> Result<()> {
    account(d, ino, offset, len, None)?;
    d.changes.push(Change::Unmap(ino, offset, len));
    Ok(())
}

fn account<V: View + ?Sized>(
    d: &mut Draft<'_, V>,
    ino: InodeNo,
    offset: u64,
    len: u64,
    source: Option<Source>,
) -> Result<()> {
    let view = d.view;
    let before = view::need_inode(view, ino)?;
    let (mapped, charged) = map_delta(view, ino, &before, offset, len, source)?;
    own_map(d, ino)?;
    let inode = d.edit(ino)?;
    inode.mapped = inode.mapped.saturating_add_signed(mapped);
    d.charge(charged);
    Ok(())
}

/// EDQUOT where the whole of an operation that happens in parts finds no room.
fn afford<V: View + ?Sized>(d: &mut Draft<'_, V>, ino: InodeNo, mode: FallocMode, from: u64, to: u64) -> Result<()> {
    let inode = view::need_inode(d.view, ino)?;
    let bytes = match mode {
        _ if d.ctx.is_rest => 0,
        FallocMode::PunchHole => 0,
        FallocMode::Allocate { .. } => (to - from) as i64 + map_delta(d.view, ino, &inode, from, to - from, None)?.0,
        FallocMode::ZeroRange { .. } => map_delta(d.view, ino, &inode, from, to - from, Some(Source::Unwritten))?.1,
    };
    if d.is_over(bytes) { Err(Errno::EDQUOT.into()) } else { Ok(()) }
}

/// The holes in a range: (offset, length).
fn holes<V: View + ?Sized>(d: &mut Draft<'_, V>, ino: InodeNo, from: u64, to: u64) -> Result<Vec<(u64, u64)>> {
    let view = d.view;
    let inode = d.get(ino)?;
    let mut out = Vec::new();
    let mut at = from;
    for (offset, e) in view::extents(view, ino, inode, from, to)? {
        if offset > at {
            out.push((at, offset - at));
        }
        at = offset + e.len;
    }
    if at < to {
        out.push((at, to - at));
    }
    Ok(out)
}

/// lseek(2) with SEEK_DATA: the next byte at or after `offset` that is data. Reserved ranges are holes.
pub fn seek_data(view: &(impl View + ?Sized), ino: InodeNo, offset: u64) -> Result<u64> {
    let inode = seekable(view, ino, offset)?;
    let mut found = None;
    view::each_extent(view, ino, &inode, (offset, inode.size), &mut |at, e| {
        if e.source == Source::Unwritten {
            return Scan::Next;
        }
        found = Some(at);
        Scan::Stop
    })?;
    found.ok_or(Errno::ENXIO.into())
}

/// lseek(2) with SEEK_HOLE: the next byte at or after `offset` that is in a hole; the end of the file is one.
pub fn seek_hole(view: &(impl View + ?Sized), ino: InodeNo, offset: u64) -> Result<u64> {
    let inode = seekable(view, ino, offset)?;
    let mut at = offset;
    view::each_extent(view, ino, &inode, (offset, inode.size), &mut |start, e| {
        if start > at || e.source == Source::Unwritten {
            return Scan::Stop;
        }
        at = start + e.len;
        Scan::Next
    })?;
    Ok(at)
}

fn seekable(view: &(impl View + ?Sized), ino: InodeNo, offset: u64) -> Result<Inode> {
    let inode = view::need_inode(view, ino)?;
    match inode.kind() {
        Kind::Regular if offset < inode.size => Ok(inode),
        Kind::Regular => Err(Errno::ENXIO.into()),
        Kind::Directory => Err(Errno::EISDIR.into()),
        _ => Err(Errno::EINVAL.into()),
    }
}
