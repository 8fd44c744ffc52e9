//! The header of a journal segment: first 4096 bytes of the file, 160 used. Frames follow. See `docs/format/journal.md`.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::FormatError;
use crate::ids::VeId;

/// Magic bytes of a segment.
pub const MAGIC: [u8; 8] = *b"ASPFSJNL";
/// The one format of segments.
pub const FORMAT: u32 = 1;
/// Frames start here.
pub const DATA_START: u64 = 4096;
/// Bytes of the header that are used.
pub const HEADER_LEN: usize = 96;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    format: U32,
    crc: U32,
    store: [u8; 16],
    ve: U32,
    cipher: U32,
    key_id: U64,
    incarnation: U64,
    order: U64,
    base: U64,
    first_seq: U64,
    capacity: U64,
    reserved: [u8; 8],
}

const _: () = assert!(size_of::<Raw>() == HEADER_LEN);

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The store it belongs to.
    pub store: [u8; 16],
    /// The VE whose journal it is part of.
    pub ve: VeId,
    /// Random for each life of the file; seeds every checksum in it.
    pub incarnation: u64,
    /// Counts the segments a VE ever started; of two with the same base the later one counts.
    pub order: u64,
    /// Journal position of the first frame.
    pub base: u64,
    /// `seq` of the first frame.
    pub first_seq: u64,
    /// Bytes for frames.
    pub capacity: u64,
}

impl SegmentHeader {
    /// The bytes to be written at offset 0.
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut raw = Raw {
            magic: MAGIC,
            format: FORMAT.into(),
            crc: 0.into(),
            store: self.store,
            ve: self.ve.0.into(),
            cipher: 0.into(),
            key_id: 0.into(),
            incarnation: self.incarnation.into(),
            order: self.order.into(),
            base: self.base.into(),
            first_seq: self.first_seq.into(),
            capacity: self.capacity.into(),
            reserved: [0; 8],
        };
        raw.crc = crc32fast::hash(raw.as_bytes()).into();
        let mut out = [0; HEADER_LEN];
        out.copy_from_slice(raw.as_bytes());
        out
    }

    /// Checks and reads a header.
    pub fn parse(bytes: &[u8]) -> Result<SegmentHeader, FormatError> {
        let Some((raw, _)) = bytes.split_at_checked(HEADER_LEN) else {
            return Err(FormatError::Short { got: bytes.len(), need: HEADER_LEN });
        };
        let mut raw = Raw::read_from_bytes(raw).map_err(|_| FormatError::Magic)?;
        if raw.magic != MAGIC {
            return Err(FormatError::Magic);
        }
        let want = raw.crc.get();
        raw.crc = 0.into();
        if crc32fast::hash(raw.as_bytes()) != want {
            return Err(FormatError::Checksum);
        }
        if raw.format.get() != FORMAT {
            return Err(FormatError::Unknown { found: raw.format.get(), known: FORMAT });
        }
        if raw.cipher.get() != 0 || raw.key_id.get() != 0 {
            return Err(FormatError::Cipher(raw.cipher.get(), raw.key_id.get()));
        }
        if raw.base.get() > u64::MAX / 4 || raw.capacity.get() > u64::MAX / 4 {
            return Err(FormatError::Field("base or capacity"));
        }
        Ok(SegmentHeader {
            store: raw.store,
            ve: VeId(raw.ve.get()),
            incarnation: raw.incarnation.get(),
            order: raw.order.get(),
            base: raw.base.get(),
            first_seq: raw.first_seq.get(),
            capacity: raw.capacity.get(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_flips() {
        let h = SegmentHeader {
            store: [7; 16],
            ve: VeId(42),
            incarnation: 3,
            order: 4,
            base: 5,
            first_seq: 6,
            capacity: 1 << 20,
        };
        let b = h.to_bytes();
        assert_eq!(SegmentHeader::parse(&b), Ok(h));
        for bit in 0..b.len() * 8 {
            let mut w = b;
            w[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::parse(&w).is_err(), "bit {bit}");
        }
    }
}
