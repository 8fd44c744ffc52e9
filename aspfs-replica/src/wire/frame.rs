//! Frames: a fixed header with a checksum of its own, and a body with another. See `docs/format/wire.md`.
//!
//! A reader looks at the magic, then at the header's checksum, then at the format, then at the other fields, and at the body's
//! checksum when the body is there. Nothing is allocated on the word of a header that did not check out or that names a
//! body longer than its kind allows.

use vefs::ids::{Epoch, VeId};
use vefs::limits;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::WireError;

/// `AWIR`.
pub const MAGIC: [u8; 4] = *b"AWIR";
/// The one format of the wire.
pub const FORMAT: u16 = 1;
/// Bytes of the header.
pub const HEADER_LEN: usize = 48;
/// Flag: the body is its length before compression (4 bytes), then one zstd frame.
pub const ZSTD: u8 = 1;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Raw {
    magic: [u8; 4],
    format: U16,
    kind: u8,
    flags: u8,
    header_crc: U32,
    body_crc: U32,
    body_len: U32,
    ve: U32,
    epoch: U64,
    session: U64,
    seq: U64,
}

const _: () = assert!(size_of::<Raw>() == HEADER_LEN);

/// What every frame says beside its message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// Which VE.
    pub ve: Option<VeId>,
    /// The epoch in which the sender of the frame acts: a primary's own, the highest that a replica has seen.
    pub epoch: Epoch,
    /// The session it belongs to: one for each connection, from the primary, ascending within its epoch. A frame of another one
    /// means nothing.
    pub session: u64,
    /// Number of the frame in its session and direction, from 0, without gaps.
    pub seq: u64,
}

/// A header that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What every frame says.
    pub envelope: Envelope,
    /// Number of the message's kind.
    pub kind: u8,
    /// Whether the body is compressed.
    pub zstd: bool,
    /// Bytes of the body.
    pub body_len: usize,
    body_crc: u32,
}

/// Puts a frame together. The body is within its kind's bound.
pub fn write(kind: u8, zstd: bool, envelope: Envelope, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER_LEN + body.len());
    frame.resize(HEADER_LEN, 0);
    frame.extend_from_slice(body);
    seal(kind, zstd, envelope, &mut frame);
    frame
}

/// Writes the header of a frame in front of its body, where there is room for it. The body is within its kind's bound.
pub fn seal(kind: u8, zstd: bool, envelope: Envelope, frame: &mut [u8]) {
    let Some((header, body)) = frame.split_first_chunk_mut::<HEADER_LEN>() else { return };
    let mut raw = Raw {
        magic: MAGIC,
        format: FORMAT.into(),
        kind,
        flags: if zstd { ZSTD } else { 0 },
        header_crc: 0.into(),
        body_crc: crc32fast::hash(body).into(),
        body_len: (body.len() as u32).into(),
        ve: envelope.ve.map_or(0, |v| v.0).into(),
        epoch: envelope.epoch.0.into(),
        session: envelope.session.into(),
        seq: envelope.seq.into(),
    };
    raw.header_crc = crc32fast::hash(raw.as_bytes()).into();
    header.copy_from_slice(raw.as_bytes());
}

impl Header {
    /// Checks the header at the start of `bytes`. `bound` says how long the body of a kind may be, `None` for an unknown kind.
    pub fn parse(bytes: &[u8], bound: impl Fn(u8) -> Option<usize>) -> Result<Header, WireError> {
        let Ok((mut raw, _)) = Raw::read_from_prefix(bytes) else {
            return Err(WireError::Short { got: bytes.len(), need: HEADER_LEN });
        };
        if raw.magic != MAGIC {
            return Err(WireError::Magic);
        }
        let want = std::mem::replace(&mut raw.header_crc, 0.into());
        if crc32fast::hash(raw.as_bytes()) != want.get() {
            return Err(WireError::HeaderChecksum);
        }
        if raw.format.get() != FORMAT {
            return Err(WireError::Format { found: raw.format.get() });
        }
        let Some(max) = bound(raw.kind) else { return Err(WireError::Kind(raw.kind)) };
        if raw.flags & !ZSTD != 0 {
            return Err(WireError::Field("flags"));
        }
        let body_len = raw.body_len.get() as usize;
        if body_len > max {
            return Err(WireError::Long { kind: raw.kind, len: body_len, max });
        }
        // A higher one would be noted durably, and then the role is none that can be read.
        if raw.epoch.get() > limits::COUNTER_MAX {
            return Err(WireError::Field("epoch"));
        }
        let ve = raw.ve.get();
        Ok(Header {
            envelope: Envelope {
                ve: (ve != 0).then_some(VeId(ve)),
                epoch: Epoch(raw.epoch.get()),
                session: raw.session.get(),
                seq: raw.seq.get(),
            },
            kind: raw.kind,
            zstd: raw.flags & ZSTD != 0,
            body_len,
            body_crc: raw.body_crc.get(),
        })
    }

    /// The body behind the header, checked, and the bytes of the whole frame.
    pub fn body<'a>(&self, frame: &'a [u8]) -> Result<(&'a [u8], usize), WireError> {
        let need = HEADER_LEN + self.body_len;
        let Some(body) = frame.get(HEADER_LEN..need) else {
            return Err(WireError::Short { got: frame.len(), need });
        };
        if crc32fast::hash(body) != self.body_crc {
            return Err(WireError::BodyChecksum);
        }
        Ok((body, need))
    }
}
