//! The header of an extent file: first 4096 bytes, 64 used; raw payload bytes follow. Checksums of the bytes lie with
//! their places (record envelopes, then the metadata store). See `docs/format/extent-file.md`.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::FormatError;
use super::sealed::{Prefix, open, seal, sealed};
use crate::ids::VeId;

/// Magic bytes of an extent file.
pub const MAGIC: [u8; 8] = *b"ASPFSEXT";
/// The one format of extent files.
pub const FORMAT: u32 = 1;
/// Payload bytes start here.
pub const DATA_START: u64 = 4096;
/// Bytes of the header that are used.
pub const HEADER_LEN: usize = 64;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Raw {
    prefix: Prefix,
    store: [u8; 16],
    ve: U32,
    cipher: U32,
    key_id: U64,
    number: U64,
    reserved: [u8; 8],
}

sealed!(Raw, MAGIC, FORMAT, HEADER_LEN);

/// What an extent file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentHeader {
    /// The store it belongs to.
    pub store: [u8; 16],
    /// The VE whose bytes it holds.
    pub ve: VeId,
    /// Its number in the VE; never used twice.
    pub number: u64,
}

impl ExtentHeader {
    /// The bytes to be written at offset 0.
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        seal(Raw {
            prefix: Prefix::new::<Raw>(),
            store: self.store,
            ve: self.ve.0.into(),
            cipher: 0.into(),
            key_id: 0.into(),
            number: self.number.into(),
            reserved: [0; 8],
        })
    }

    /// Checks and reads a header.
    pub fn parse(bytes: &[u8]) -> Result<ExtentHeader, FormatError> {
        let raw: Raw = open(bytes)?;
        Ok(ExtentHeader { store: raw.store, ve: VeId(raw.ve.get()), number: raw.number.get() })
    }
}
