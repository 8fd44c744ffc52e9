//! Reading bytes of files: first, under the VE's lock, where each piece lies; then, without it, the bytes, every chunk checked
//! (promise G24).

use std::sync::Arc;

use super::extent_file::ExtentFiles;
use super::{ExtentPlace, Location, Place};
use crate::error::{Error, Result};
use crate::format::record;
use crate::ids::{Hash, InodeNo, PayloadId};
use crate::journal::Segment;
use crate::limits::CHUNK;
use crate::object::ObjectStore;
use crate::state::view::{self, View};
use crate::storage::File;
use crate::types::{Extent, Inode, Source};

/// A piece of what is to be read.
pub struct Piece {
    /// Offset in the destination buffer.
    pub at: usize,
    /// Length in bytes.
    pub len: usize,
    origin: Origin,
}

enum Origin {
    Journal { segment: Arc<Segment>, offset: u64, total: u64, crc: u32, skip: u64 },
    Extent { file: Arc<dyn File>, place: ExtentPlace, skip: u64 },
    Object { hash: Hash, offset: u64 },
}

/// Gives the place that holds a payload id, with the id that it begins at.
pub type Find<'a> = dyn Fn(PayloadId) -> Result<Option<(PayloadId, Place)>> + 'a;

/// Where the pieces of a range of a file lie. Holes and reserved ranges have none.
pub fn pieces(
    view: &(impl View + ?Sized),
    find: &Find<'_>,
    files: &mut ExtentFiles,
    (ino, inode): (InodeNo, &Inode),
    offset: u64,
    len: usize,
) -> Result<Vec<Piece>> {
    pieces_of(find, files, offset, &extents(view, (ino, inode), offset, len)?)
}

/// The extents of a range of a file.
pub fn extents(
    view: &(impl View + ?Sized),
    (ino, inode): (InodeNo, &Inode),
    offset: u64,
    len: usize,
) -> Result<Vec<(u64, Extent)>> {
    let end = offset.saturating_add(len as u64).min(inode.size);
    view::extents(view, ino, inode, offset, end)
}

/// Where the pieces of these extents lie, from an offset on.
pub fn pieces_of(
    find: &Find<'_>,
    files: &mut ExtentFiles,
    offset: u64,
    extents: &[(u64, Extent)],
) -> Result<Vec<Piece>> {
    let mut out = Vec::new();
    for (at, extent) in extents {
        add_extent(find, files, (at - offset) as usize, extent, &mut out)?;
    }
    Ok(out)
}

/// The pieces of one extent, whatever file it belongs to; it begins at offset 0 of the buffer.
pub fn extent_pieces(find: &Find<'_>, files: &mut ExtentFiles, extent: &Extent) -> Result<Vec<Piece>> {
    let mut out = Vec::new();
    add_extent(find, files, 0, extent, &mut out)?;
    Ok(out)
}

fn add_extent(
    find: &Find<'_>,
    files: &mut ExtentFiles,
    start: usize,
    extent: &Extent,
    out: &mut Vec<Piece>,
) -> Result<()> {
    match extent.source {
        Source::Unwritten => Ok(()),
        Source::Object { hash, offset } | Source::Base { hash, offset } => {
            out.push(Piece { at: start, len: extent.len as usize, origin: Origin::Object { hash, offset } });
            Ok(())
        }
        Source::Payload(id) => payload_pieces(find, files, id, start, extent.len, out),
    }
}

/// The pieces of a range of payload ids; it may lie in several places.
pub fn payload_pieces(
    find: &Find<'_>,
    files: &mut ExtentFiles,
    id: PayloadId,
    start: usize,
    len: u64,
    out: &mut Vec<Piece>,
) -> Result<()> {
    let mut done = 0;
    while done < len {
        let id = id.plus(done);
        let Some((begin, place)) = find(id)? else {
            let place = format!("transaction {} offset {}", id.txn, id.offset);
            return Err(Error::Damage { what: "payload", place, detail: "nobody knows where it lies".into() });
        };
        let skip = id.offset - begin.offset;
        let n = (place.len - skip).min(len - done);
        let origin = match place.at {
            Location::Journal { segment, offset, crc } => {
                Origin::Journal { segment, offset, total: place.len, crc, skip }
            }
            Location::Extent(place) => Origin::Extent { file: files.file(place.file)?, place, skip },
        };
        out.push(Piece { at: start + done as usize, len: n as usize, origin });
        done += n;
    }
    Ok(())
}

/// Reads the pieces into `buf`, which the caller zeroed.
pub fn read(pieces: &[Piece], objects: &ObjectStore, buf: &mut [u8]) -> Result<()> {
    for piece in pieces {
        let into = &mut buf[piece.at..piece.at + piece.len];
        match &piece.origin {
            Origin::Journal { segment, offset, total, crc, skip } => {
                read_inline(segment, *offset, *total, *crc, *skip, into)?;
            }
            Origin::Extent { file, place, skip } => read_extent(&**file, place, *skip, into)?,
            Origin::Object { hash, offset } => objects.open(*hash)?.read_at(into, *offset)?,
        }
    }
    Ok(())
}

/// Reads part of an inline payload, checking all of it.
pub fn read_inline(segment: &Segment, offset: u64, total: u64, crc: u32, skip: u64, into: &mut [u8]) -> Result<()> {
    let mut whole = vec![0; total as usize];
    segment.file.read_at(&mut whole, offset).map_err(Error::io("reading journal payload", segment.path.clone()))?;
    if record::crc(segment.header.incarnation, &whole) != crc {
        let place = format!("{} offset {offset}", segment.path);
        return Err(Error::Damage { what: "journal payload", place, detail: "checksum does not match".into() });
    }
    into.copy_from_slice(&whole[skip as usize..skip as usize + into.len()]);
    Ok(())
}

/// Reads part of a place, checking every chunk that it touches.
pub fn read_extent(file: &dyn File, place: &ExtentPlace, skip: u64, into: &mut [u8]) -> Result<()> {
    let chunk = CHUNK as u64;
    let first = skip / chunk;
    let last = (skip + into.len() as u64).div_ceil(chunk);
    let from = first * chunk;
    let to = (last * chunk).min(place.len);
    let name = |detail: &str| Error::Damage {
        what: "extent file",
        place: format!("file {:016x} offset {}", place.file, place.offset + from),
        detail: detail.into(),
    };
    let aligned = from == skip && to == skip + into.len() as u64;
    let mut wide = if aligned { Vec::new() } else { vec![0; (to - from) as usize] };
    let bytes = if aligned { &mut *into } else { &mut wide[..] };
    match file.read_at(bytes, place.offset + from) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Err(name("the file ends before it")),
        Err(e) => return Err(Error::io("reading extent file", format!("{:016x}", place.file))(e)),
    }
    for (bytes, index) in bytes.chunks(CHUNK).zip(first as usize..) {
        if place.crcs.get(index) != Some(&crc32fast::hash(bytes)) {
            return Err(name("checksum does not match"));
        }
    }
    if !aligned {
        let start = (skip - from) as usize;
        into.copy_from_slice(&wide[start..start + into.len()]);
    }
    Ok(())
}
