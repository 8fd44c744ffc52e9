//! The header of a journal segment: the first 4096 bytes of the file hold it twice, 96 bytes at 0 and at 2048, because without it
//! none of the segment's frames can be checked. Frames follow. See `docs/format/journal.md`.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::FormatError;
use super::sealed::{Prefix, open, seal, sealed};
use crate::ids::VeId;
use crate::limits;

/// Magic bytes of a segment.
pub const MAGIC: [u8; 8] = *b"ASPFSJNL";
/// The one format of segments.
pub const FORMAT: u32 = 1;
/// Frames start here.
pub const DATA_START: u64 = 4096;
/// Where the second copy of the header lies.
pub const COPY_AT: usize = 2048;
/// Bytes of the header that are used.
pub const HEADER_LEN: usize = 96;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Raw {
    prefix: Prefix,
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

sealed!(Raw, MAGIC, FORMAT, HEADER_LEN);

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
        seal(Raw {
            prefix: Prefix::new::<Raw>(),
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
        })
    }

    /// Reads the first copy of a header block that is good; what is wrong with the first one when none is. After a torn rewrite the
    /// second copy may be a former life's: then the segment is that one's, and the frames of this life are not there.
    pub fn parse_block(block: &[u8]) -> Result<SegmentHeader, FormatError> {
        match (Self::parse(block), block.get(COPY_AT..).map(Self::parse)) {
            (Err(FormatError::Magic | FormatError::Checksum), Some(Ok(copy))) => Ok(copy),
            (first, _) => first,
        }
    }

    /// Checks and reads a header.
    pub fn parse(bytes: &[u8]) -> Result<SegmentHeader, FormatError> {
        let raw: Raw = open(bytes)?;
        let counters = [raw.base.get(), raw.order.get(), raw.first_seq.get()];
        if counters.into_iter().any(|c| c > limits::COUNTER_MAX) {
            return Err(FormatError::Field("base, order or first frame"));
        }
        if raw.capacity.get() > limits::SEGMENT_CAPACITY_MAX {
            return Err(FormatError::Field("capacity"));
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

    /// A damaged header cost the segment's frames, which nothing later promised: they went as a torn tail (checks G5).
    #[test]
    fn the_second_copy_stands_in_for_the_first() {
        let (store, ve, incarnation) = ([7; 16], VeId(42), 3);
        let h = SegmentHeader { store, ve, incarnation, order: 4, base: 5, first_seq: 6, capacity: 7 };
        let mut block = [0; COPY_AT + HEADER_LEN];
        block[..HEADER_LEN].copy_from_slice(&h.to_bytes());
        block[COPY_AT..].copy_from_slice(&h.to_bytes());
        for at in [0, 13, 60, COPY_AT, COPY_AT + 50] {
            let mut bad = block;
            bad[at] ^= 1;
            assert_eq!(SegmentHeader::parse_block(&bad), Ok(h), "byte {at}");
        }
        block[3] ^= 1;
        block[COPY_AT + 3] ^= 1;
        assert_eq!(SegmentHeader::parse_block(&block), Err(FormatError::Magic));
    }
}
