//! The members of a tar archive one by one: headers of the kinds ustar, GNU and pax, put together into one description.
//!
//! Every length in the archive is checked before anything is allocated by it (promise G29). Fields of a header are read by the crate
//! `tar`; it is not used further up, where it has no bounds and no sparse maps.

use std::io::{self, Read};

use tar::Header;
use vefs::clock::Timestamp;
use vefs::limits::FILE_SIZE_MAX;

use super::super::super::event::{DATA_MAX, Meta, What, device};
use super::super::{SourceError, keeps_xattr, shown};
use super::acl;
use super::pax::{self, Pax};
use super::sparse::{self, Map};
use super::unpack::fill;

pub(super) const BLOCK: u64 = 512;
/// Most bytes of the extended header of one member, or of a long name.
const EXTRA_MAX: u64 = 8 << 20;
/// Most bytes of all that extended headers say of every member.
const GLOBAL_MAX: usize = 64 << 10;
/// Most bytes that may follow the end of an archive: tapes are padded.
const PADDING_MAX: u64 = 64 << 20;

/// What is wrong with an archive.
#[derive(Debug)]
pub enum TarError {
    Io(io::Error),
    Bad(String),
    Member(Vec<u8>, String),
}

impl From<io::Error> for TarError {
    fn from(e: io::Error) -> TarError {
        TarError::Io(e)
    }
}

impl TarError {
    pub fn at(self, place: &str) -> SourceError {
        let place = place.to_owned();
        match self {
            TarError::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                SourceError::Archive { place, detail: "it is cut off".into() }
            }
            TarError::Io(e) => SourceError::Archive { place, detail: e.to_string() },
            TarError::Bad(detail) => SourceError::Archive { place, detail },
            TarError::Member(name, detail) => SourceError::Member { place, member: shown(&name), detail },
        }
    }
}

fn cut_off() -> TarError {
    TarError::Io(io::ErrorKind::UnexpectedEof.into())
}

/// What a member is.
#[derive(Debug, PartialEq, Eq)]
pub enum Body {
    /// Another name of the member of this name.
    Link(Vec<u8>),
    Other(What),
}

/// Name and value of an extended attribute.
type Xattr = (Vec<u8>, Vec<u8>);

/// A member.
#[derive(Debug)]
pub struct Member {
    /// Its name as it stands in the archive.
    pub path: Vec<u8>,
    pub meta: Meta,
    pub body: Body,
    pub xattrs: Vec<Xattr>,
}

/// Reads members.
pub struct Members<R> {
    from: R,
    /// Bytes of the present member that were not read yet, padding included.
    left: u64,
    /// The ranges of the present member's file that lie in the archive.
    map: Map,
    global: Pax,
}

/// What precedes a member and belongs to it.
#[derive(Default)]
struct Extra {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Pax,
    any: bool,
}

impl<R: Read> Members<R> {
    pub fn new(from: R) -> Members<R> {
        Members { from, left: 0, map: Map::default(), global: Pax::default() }
    }

    /// What is read from.
    pub fn reader(&self) -> &R {
        &self.from
    }

    /// The next member; `None` at the end of the archive.
    pub fn next(&mut self) -> Result<Option<Member>, TarError> {
        let mut extra = Extra::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                return if extra.any { Err(cut_off()) } else { Ok(None) };
            };
            let size = header.entry_size().map_err(|_| TarError::Bad("a size in it is not a number".into()))?;
            match header.as_bytes()[156] {
                b'L' => extra.path = Some(without_nul(self.extra(size)?)),
                b'K' => extra.link = Some(without_nul(self.extra(size)?)),
                b'x' | b'X' => extra.pax = Pax::parse(&self.extra(size)?).map_err(TarError::Bad)?,
                b'g' => {
                    let newer = Pax::parse(&self.extra(size)?).map_err(TarError::Bad)?;
                    self.global.update(newer);
                    if self.global.len() > GLOBAL_MAX {
                        return Err(TarError::Bad(format!("its global headers have more than {GLOBAL_MAX} bytes")));
                    }
                }
                // The name of the tape.
                b'V' => {
                    self.left = padded(size)?;
                    continue;
                }
                _ => return self.member(&header, size, extra).map(Some),
            }
            extra.any = true;
        }
    }

    /// The next header; `None` for the zeros that end an archive.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let mut block = [0; BLOCK as usize];
        if fill(&mut self.from, &mut block)? < block.len() {
            return Err(cut_off());
        }
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block);
        let sum = |signed: bool| {
            let byte = |(i, b): (usize, &u8)| match (i, signed) {
                (148..156, _) => i64::from(b' '),
                (_, true) => i64::from(b.cast_signed()),
                (_, false) => i64::from(*b),
            };
            block.iter().enumerate().map(byte).sum::<i64>()
        };
        match header.cksum() {
            // Some tars of old added signed bytes.
            Ok(want) if [sum(false), sum(true)].contains(&want.into()) => Ok(Some(header.clone())),
            _ => Err(TarError::Bad("it is not a tar archive, or damaged: a header's checksum does not match".into())),
        }
    }

    /// The bytes of something that precedes a member.
    fn extra(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > EXTRA_MAX {
            return Err(TarError::Bad(format!(
                "an extended header in it has {size} bytes, over the limit of {EXTRA_MAX}"
            )));
        }
        let mut bytes = vec![0; size as usize];
        if fill(&mut self.from, &mut bytes)? < bytes.len() {
            return Err(cut_off());
        }
        self.left = padded(size)? - size;
        Ok(bytes)
    }

    fn member(&mut self, header: &Header, size: u64, extra: Extra) -> Result<Member, TarError> {
        let mut pax = self.global.clone();
        pax.update(extra.pax);
        let path = pax.path().map(<[u8]>::to_vec).or(extra.path).unwrap_or_else(|| header.path_bytes().into_owned());
        let refuse = |detail: &str| TarError::Member(path.clone(), detail.to_owned());
        let link = pax.get(b"linkpath").map(<[u8]>::to_vec).or(extra.link);
        let link = link.unwrap_or_else(|| header.link_name_bytes().map(Into::into).unwrap_or_default());
        let size = pax.number(b"size").map_err(|e| refuse(&e))?.unwrap_or(size);
        self.left = padded(size)?;
        self.map = Map::default();
        let meta = meta(header, &pax).map_err(|e| refuse(&e))?;
        let kind = header.as_bytes()[156];
        if matches!(kind, b'1'..=b'6') {
            // Some archives state a size all the same, a link that of its file; no bytes follow, as Go's archive/tar and libarchive have it.
            self.left = 0;
        }
        let what = match kind {
            b'0' | 0 | b'7' if path.ends_with(b"/") => What::Directory,
            b'0' | 0 | b'7' | b'S' => self.file(header, size, &pax).map_err(|e| e.named(&path))?,
            b'1' => return Ok(Member { path, meta, body: Body::Link(link), xattrs: Vec::new() }),
            b'2' => What::Symlink(link),
            b'3' => What::CharDevice(device_number(header).map_err(|e| refuse(&e))?),
            b'4' => What::BlockDevice(device_number(header).map_err(|e| refuse(&e))?),
            b'5' | b'D' => What::Directory,
            b'6' => What::Fifo,
            b'M' => return Err(refuse("it is the rest of a member in another volume")),
            other => return Err(refuse(&format!("its type {:?} is unknown", char::from(other)))),
        };
        let xattrs = xattrs(&pax).map_err(|e| refuse(&e))?;
        Ok(Member { path, meta, body: Body::Other(what), xattrs })
    }

    /// A regular file whose bytes follow, all of them or those of its ranges.
    fn file(&mut self, header: &Header, size: u64, pax: &Pax) -> Result<What, TarError> {
        let before = self.left;
        let found = sparse::find(header, pax, &mut self.from, &mut self.left)?;
        let stored = size.saturating_sub(before - self.left);
        let (size, map) = found.unwrap_or_else(|| (size, Map::whole(size)));
        if size > FILE_SIZE_MAX {
            return Err(TarError::Bad(format!("its size of {size} bytes is over the limit of {FILE_SIZE_MAX}")));
        }
        map.check(size, stored)?;
        let sparse = map.bytes() < size;
        self.map = map;
        Ok(What::File { size, sparse })
    }

    /// The next bytes of the present member and where in its file they are; `None` when there are no more. The pieces are as large as
    /// they can be, so that the same file makes the same ones however the stream is cut.
    pub fn piece(&mut self) -> Result<Option<(u64, Vec<u8>)>, TarError> {
        let Some((at, len)) = self.map.next(DATA_MAX as u64) else { return Ok(None) };
        let mut bytes = vec![0; len as usize];
        if fill(&mut self.from, &mut bytes)? < bytes.len() {
            return Err(cut_off());
        }
        self.left -= len;
        Ok(Some((at, bytes)))
    }

    fn skip(&mut self) -> Result<(), TarError> {
        let left = std::mem::take(&mut self.left);
        match io::copy(&mut (&mut self.from).take(left), &mut io::sink())? == left {
            true => Ok(()),
            false => Err(cut_off()),
        }
    }

    /// Reads what follows the end, so that whatever the stream is packed in checks its checksums.
    pub fn finish(mut self) -> Result<(), TarError> {
        let padding = io::copy(&mut (&mut self.from).take(PADDING_MAX + 1), &mut io::sink())?;
        match padding <= PADDING_MAX {
            true => Ok(()),
            false => Err(TarError::Bad(format!("more than {PADDING_MAX} bytes follow its end"))),
        }
    }
}

impl TarError {
    fn named(self, path: &[u8]) -> TarError {
        match self {
            TarError::Bad(detail) => TarError::Member(path.to_vec(), detail),
            other => other,
        }
    }
}

fn padded(size: u64) -> Result<u64, TarError> {
    size.checked_next_multiple_of(BLOCK).ok_or_else(|| TarError::Bad(format!("a size of {size} bytes in it is absurd")))
}

fn without_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len()));
    bytes
}

fn meta(header: &Header, pax: &Pax) -> Result<Meta, String> {
    let id = |key: &[u8], field: io::Result<u64>| {
        let id = pax.number(key)?.map_or(field, Ok).map_err(|_| "its owner is not a number")?;
        // The last one says "nobody" to chown(2).
        u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or_else(|| format!("its owner {id} is out of range"))
    };
    let mtime = match pax.get(b"mtime") {
        Some(text) => pax::time(text)?,
        None => {
            let secs = header.mtime().map_err(|_| "its time is not a number")?;
            Timestamp { secs: secs.cast_signed(), nanos: 0 }
        }
    };
    let mode = header.mode().map_err(|_| "its permissions are not a number")? & 0o7777;
    Ok(Meta { mode, uid: id(b"uid", header.uid())?, gid: id(b"gid", header.gid())?, mtime })
}

/// The number of the device that a header is of. A field that was left empty says 0.
fn device_number(header: &Header) -> Result<u64, String> {
    let is_empty = |at: usize| header.as_bytes()[at..at + 8].iter().all(|b| matches!(b, 0 | b' '));
    let number = |what: &str, at: usize, field: io::Result<Option<u32>>| match field {
        Ok(Some(number)) => Ok(number),
        Err(_) if is_empty(at) => Ok(0),
        _ => Err(format!("its {what} device number is missing or cannot be read")),
    };
    let major = number("major", 329, header.device_major())?;
    let minor = number("minor", 337, header.device_minor())?;
    let far = || format!("its device number {major}:{minor} is out of range: 4095:1048575 is the last");
    device(major, minor).ok_or_else(far)
}

/// The extended attributes that a member has in its extended header, the last of each name.
fn xattrs(pax: &Pax) -> Result<Vec<Xattr>, String> {
    let mut out: Vec<Xattr> = Vec::new();
    for (key, value) in pax.iter() {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.").filter(|name| keeps_xattr(name)) {
            out.push((name.to_vec(), value.to_vec()));
        }
    }
    for (key, name) in [
        (&b"SCHILY.acl.access"[..], &b"system.posix_acl_access"[..]),
        (b"SCHILY.acl.default", b"system.posix_acl_default"),
    ] {
        if let Some(text) = pax.get(key).filter(|text| !text.is_empty())
            && !out.iter().any(|(known, _)| known == name)
        {
            out.push((name.to_vec(), acl::parse(text)?));
        }
    }
    Ok(out)
}
