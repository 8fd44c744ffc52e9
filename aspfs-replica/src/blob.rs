//! Blobs: what travels on request streams. A header of 12 bytes with a checksum over everything, then one encoded value. See
//! `docs/format/wire.md`.
//!
//! The length is checked first, then the magic, the checksum, the format, the kind; nothing is allocated before (promises G28, G29).

use bincode::{Decode, Encode};
use vefs::codec::{self, CodecError};

use crate::compress::{Unexpandable, compressed, expanded};

/// Magic bytes of a blob.
pub const MAGIC: [u8; 4] = *b"APUL";
/// The one format of blobs.
pub const FORMAT: u16 = 1;
/// Bytes of the header.
pub const HEADER_LEN: usize = 12;
/// Set in the kind of an answer whose body is compressed.
pub const COMPRESSED: u16 = 1 << 15;

/// What a blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A question about a state.
    Ask = 1,
    /// An answer to one.
    Answer = 2,
    /// A question to a member.
    Question = 3,
    /// A member's answer.
    Reply = 4,
}

/// Why bytes are no blob.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// Too few bytes.
    #[error("{0} bytes are no blob")]
    Short(usize),
    /// Longer than allowed.
    #[error("a blob of {len} bytes, at most {max}")]
    Long {
        /// Bytes there are.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// Something else.
    #[error("magic bytes do not match")]
    Magic,
    /// Damaged.
    #[error("the checksum does not match")]
    Checksum,
    /// Another program's format.
    #[error("blob format {found}, this program knows {FORMAT}")]
    Format {
        /// The number met.
        found: u16,
    },
    /// A question where an answer is expected, or the like.
    #[error("kind of blob {0} where another is expected")]
    Kind(u16),
    /// A field is out of its range.
    #[error("field {0} is out of range")]
    Field(&'static str),
    /// The body does not become what it says before it was compressed.
    #[error("malformed compression")]
    Zstd,
    /// Not the encoding of what it should be.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// The kind that a blob's header says it has, for whoever serves several; `None` where there is no header.
pub fn kind_of(blob: &[u8]) -> Option<u16> {
    blob.get(6..8).map(|k| u16::from_le_bytes([k[0], k[1]])).filter(|_| blob.starts_with(&MAGIC))
}

/// A value as a blob.
pub fn seal(kind: Kind, value: &impl Encode) -> Vec<u8> {
    with_body(kind, &codec::encode(value))
}

/// As [`seal`], compressed where that makes it smaller: for answers only.
pub(crate) fn seal_smaller(kind: Kind, value: &impl Encode) -> Vec<u8> {
    let body = codec::encode(value);
    match compressed(&body) {
        Some(smaller) => sealed(kind as u16 | COMPRESSED, &smaller),
        None => with_body(kind, &body),
    }
}

/// A blob with a right header and any body: what a hostile peer can send.
pub fn with_body(kind: Kind, body: &[u8]) -> Vec<u8> {
    sealed(kind as u16, body)
}

/// As [`with_body`], of a blob that says that its body is compressed.
pub fn with_compressed_body(kind: Kind, body: &[u8]) -> Vec<u8> {
    sealed(kind as u16 | COMPRESSED, body)
}

fn sealed(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_LEN + body.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&FORMAT.to_le_bytes());
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(body);
    let crc = crc32fast::hash(&out);
    out[8..12].copy_from_slice(&crc.to_le_bytes());
    out
}

/// The value in a blob of at most `max` bytes, before it was compressed, too.
pub fn open<T: Decode<()>>(kind: Kind, max: usize, blob: &[u8]) -> Result<T, BlobError> {
    if blob.len() > max {
        return Err(BlobError::Long { len: blob.len(), max });
    }
    let Some((header, body)) = blob.split_first_chunk::<HEADER_LEN>() else { return Err(BlobError::Short(blob.len())) };
    let [m0, m1, m2, m3, f0, f1, k0, k1, c0, c1, c2, c3] = *header;
    if [m0, m1, m2, m3] != MAGIC {
        return Err(BlobError::Magic);
    }
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[..8]);
    crc.update(&[0; 4]);
    crc.update(body);
    if crc.finalize() != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err(BlobError::Checksum);
    }
    let found = u16::from_le_bytes([f0, f1]);
    if found != FORMAT {
        return Err(BlobError::Format { found });
    }
    let met = u16::from_le_bytes([k0, k1]);
    if met == kind as u16 {
        return Ok(codec::decode(body)?);
    }
    if kind != Kind::Answer || met != kind as u16 | COMPRESSED {
        return Err(BlobError::Kind(met));
    }
    let plain = expanded(body, max - HEADER_LEN).map_err(|why| match why {
        Unexpandable::Long => BlobError::Field("length before compression"),
        Unexpandable::Malformed => BlobError::Zstd,
    })?;
    Ok(codec::decode(&plain)?)
}
