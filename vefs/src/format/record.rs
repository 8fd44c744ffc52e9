//! The frame of one record in a journal segment (and, with the local fields zero, on the wire): header, body, envelope,
//! inline payload, zero padding to 8 bytes. See `docs/format/journal.md`.
//!
//! Invariants: every checksum is seeded with the segment's incarnation, so that a record of a recycled segment's former
//! life is *not there*; the header has its own checksum, so that `synced_upto` can be trusted without the body.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::FormatError;
use crate::ids::{Epoch, TxnNo};
use crate::limits;

/// `VREC`.
pub const MAGIC: u32 = u32::from_le_bytes(*b"VREC");
/// The one format of record frames.
pub const FORMAT: u8 = 1;
/// Frames start at multiples of this.
pub const ALIGN: u64 = 8;
/// Bytes of the header.
pub const HEADER_LEN: usize = 72;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A [`crate::change::Body`].
    Body,
    /// A [`crate::change::Seal`]: the transaction ends here.
    Seal,
}

/// The fixed header, exactly as stored.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawHeader {
    magic: U32,
    format: u8,
    kind: u8,
    flags: u8,
    reserved: u8,
    header_crc: U32,
    body_crc: U32,
    envelope_crc: U32,
    payload_crc: U32,
    body_len: U32,
    envelope_len: U32,
    payload_len: U32,
    reserved2: U32,
    txn: U64,
    seq: U64,
    epoch: U64,
    synced_upto: U64,
}

const _: () = assert!(size_of::<RawHeader>() == HEADER_LEN);

/// A header that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame holds.
    pub kind: FrameKind,
    /// Transaction it belongs to.
    pub txn: TxnNo,
    /// Number of the frame in the VE's journal, without gaps.
    pub seq: u64,
    /// The writer's epoch.
    pub epoch: Epoch,
    /// Journal position up to which everything was durable when this was written.
    pub synced_upto: u64,
    /// Length of the body in bytes.
    pub body_len: usize,
    /// Length of the envelope in bytes.
    pub envelope_len: usize,
    /// Length of the inline payload in bytes.
    pub payload_len: usize,
    body_crc: u32,
    envelope_crc: u32,
    payload_crc: u32,
}

impl Header {
    /// Bytes of the whole frame, padding included.
    pub fn frame_len(&self) -> u64 {
        frame_len(self.body_len, self.envelope_len, self.payload_len)
    }

    /// Offset of the payload within the frame.
    pub fn payload_offset(&self) -> u64 {
        (HEADER_LEN + self.body_len + self.envelope_len) as u64
    }

    /// CRC32 of the inline payload under the segment's incarnation.
    pub fn payload_crc(&self) -> u32 {
        self.payload_crc
    }
}

/// Bytes of a frame with parts of these lengths, padding included.
pub fn frame_len(body: usize, envelope: usize, payload: usize) -> u64 {
    ((HEADER_LEN + body + envelope + payload) as u64).next_multiple_of(ALIGN)
}

/// CRC32 (ISO-HDLC, as crc32fast has it) of `bytes`, seeded with a segment's incarnation.
pub fn crc(incarnation: u64, bytes: &[u8]) -> u32 {
    let seed = (incarnation ^ (incarnation >> 32)) as u32;
    let mut h = crc32fast::Hasher::new_with_initial(seed);
    h.update(bytes);
    h.finalize()
}

/// The parts of a frame to be written.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// What it holds.
    pub kind: FrameKind,
    /// Transaction it belongs to.
    pub txn: TxnNo,
    /// Its number.
    pub seq: u64,
    /// The writer's epoch.
    pub epoch: Epoch,
    /// What is durable now.
    pub synced_upto: u64,
    /// Encoded body.
    pub body: &'a [u8],
    /// Encoded envelope.
    pub envelope: &'a [u8],
    /// Inline payload.
    pub payload: &'a [u8],
}

impl Parts<'_> {
    /// Bytes of the frame.
    pub fn frame_len(&self) -> u64 {
        frame_len(self.body.len(), self.envelope.len(), self.payload.len())
    }

    /// The header bytes under an incarnation. `payload_crc` is [`crc`] of the payload, which the caller keeps.
    pub fn header(&self, incarnation: u64, payload_crc: u32) -> [u8; HEADER_LEN] {
        let mut raw = RawHeader {
            magic: MAGIC.into(),
            format: FORMAT,
            kind: match self.kind {
                FrameKind::Body => 1,
                FrameKind::Seal => 2,
            },
            flags: 0,
            reserved: 0,
            header_crc: 0.into(),
            body_crc: crc(incarnation, self.body).into(),
            envelope_crc: crc(incarnation, self.envelope).into(),
            payload_crc: payload_crc.into(),
            body_len: (self.body.len() as u32).into(),
            envelope_len: (self.envelope.len() as u32).into(),
            payload_len: (self.payload.len() as u32).into(),
            reserved2: 0.into(),
            txn: self.txn.0.into(),
            seq: self.seq.into(),
            epoch: self.epoch.0.into(),
            synced_upto: self.synced_upto.into(),
        };
        raw.header_crc = crc(incarnation, raw.as_bytes()).into();
        // invariant: the struct is HEADER_LEN bytes, asserted at compile time.
        let mut out = [0; HEADER_LEN];
        out.copy_from_slice(raw.as_bytes());
        out
    }
}

/// Checks the header at the start of `bytes` under an incarnation. Lengths are bounded by `limits`.
pub fn parse_header(bytes: &[u8], incarnation: u64) -> Result<Header, FormatError> {
    let Some((raw, _)) = bytes.split_at_checked(HEADER_LEN) else {
        return Err(FormatError::Short { got: bytes.len(), need: HEADER_LEN });
    };
    if raw[..4] != MAGIC.to_le_bytes() {
        return Err(FormatError::Magic);
    }
    let mut raw = RawHeader::read_from_bytes(raw).map_err(|_| FormatError::Magic)?;
    let want = raw.header_crc.get();
    raw.header_crc = 0.into();
    if crc(incarnation, raw.as_bytes()) != want {
        return Err(FormatError::Checksum);
    }
    if raw.format != FORMAT {
        return Err(FormatError::Unknown { found: raw.format.into(), known: FORMAT.into() });
    }
    let kind = match raw.kind {
        1 => FrameKind::Body,
        2 => FrameKind::Seal,
        _ => return Err(FormatError::Field("kind")),
    };
    let bounded = |v: U32, max: usize, name| {
        let v = v.get() as usize;
        if v > max { Err(FormatError::Field(name)) } else { Ok(v) }
    };
    Ok(Header {
        kind,
        txn: TxnNo(raw.txn.get()),
        seq: raw.seq.get(),
        epoch: Epoch(raw.epoch.get()),
        synced_upto: raw.synced_upto.get(),
        body_len: bounded(raw.body_len, limits::BODY_MAX, "body length")?,
        envelope_len: bounded(raw.envelope_len, limits::ENVELOPE_MAX, "envelope length")?,
        payload_len: bounded(raw.payload_len, limits::INLINE_MAX, "payload length")?,
        body_crc: raw.body_crc.get(),
        envelope_crc: raw.envelope_crc.get(),
        payload_crc: raw.payload_crc.get(),
    })
}

/// A whole frame, checked.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Its header.
    pub header: Header,
    /// Encoded body.
    pub body: &'a [u8],
    /// Encoded envelope.
    pub envelope: &'a [u8],
    /// Inline payload.
    pub payload: &'a [u8],
}

/// Checks the frame at the start of `bytes` with all its parts.
pub fn parse(bytes: &[u8], incarnation: u64) -> Result<Frame<'_>, FormatError> {
    let header = parse_header(bytes, incarnation)?;
    let need = header.frame_len() as usize;
    if bytes.len() < need {
        return Err(FormatError::Short { got: bytes.len(), need });
    }
    let (body, rest) = bytes[HEADER_LEN..].split_at(header.body_len);
    let (envelope, rest) = rest.split_at(header.envelope_len);
    let payload = &rest[..header.payload_len];
    if crc(incarnation, body) != header.body_crc
        || crc(incarnation, envelope) != header.envelope_crc
        || crc(incarnation, payload) != header.payload_crc
    {
        return Err(FormatError::Checksum);
    }
    Ok(Frame { header, body, envelope, payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample<'a>() -> Parts<'a> {
        Parts {
            kind: FrameKind::Body,
            txn: TxnNo(5),
            seq: 9,
            epoch: Epoch(2),
            synced_upto: 4096,
            body: b"body",
            envelope: b"env",
            payload: b"payload",
        }
    }

    fn bytes(p: &Parts<'_>, incarnation: u64) -> Vec<u8> {
        let mut v = p.header(incarnation, crc(incarnation, p.payload)).to_vec();
        v.extend_from_slice(p.body);
        v.extend_from_slice(p.envelope);
        v.extend_from_slice(p.payload);
        v.resize(p.frame_len() as usize, 0);
        v
    }

    #[test]
    fn round_trip() {
        let v = bytes(&sample(), 77);
        let f = parse(&v, 77).unwrap();
        assert_eq!((f.body, f.envelope, f.payload), (&b"body"[..], &b"env"[..], &b"payload"[..]));
        assert_eq!((f.header.txn, f.header.seq, f.header.synced_upto), (TxnNo(5), 9, 4096));
        assert_eq!(f.header.frame_len(), v.len() as u64);
    }

    /// A record of another incarnation of a recycled segment is not there (checks G5).
    #[test]
    fn another_incarnation_is_not_there() {
        let v = bytes(&sample(), 77);
        assert_eq!(parse(&v, 78).unwrap_err(), FormatError::Checksum);
    }

    /// Every flipped bit before the padding is noticed (checks G24).
    #[test]
    fn every_flip_is_noticed() {
        let p = sample();
        let v = bytes(&p, 77);
        let used = HEADER_LEN + p.body.len() + p.envelope.len() + p.payload.len();
        for bit in 0..used * 8 {
            let mut w = v.clone();
            w[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&w, 77).is_err(), "bit {bit} flipped unnoticed");
        }
    }
}
