//! The file `superblock` of a store: what makes a folder a store. Written once. See `docs/format/store.md`.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::FormatError;
use super::sealed::{Prefix, open_whole, seal, sealed};
use crate::clock::Timestamp;

/// Magic bytes of a store.
pub const MAGIC: [u8; 8] = *b"ASPFSSTO";
/// The one format of stores.
pub const FORMAT: u32 = 1;
/// Bytes of the file.
pub const LEN: usize = 64;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Raw {
    prefix: Prefix,
    store: [u8; 16],
    created_secs: U64,
    key_id: U64,
    cipher: U32,
    reserved: [u8; 12],
}

sealed!(Raw, MAGIC, FORMAT, LEN);

/// What the superblock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Random identity of the store; every file of it repeats it.
    pub store: [u8; 16],
    /// When it was made (seconds; a label).
    pub created: Timestamp,
}

impl Superblock {
    /// The bytes of the file.
    pub fn to_bytes(&self) -> [u8; LEN] {
        seal(Raw {
            prefix: Prefix::new::<Raw>(),
            store: self.store,
            created_secs: self.created.secs.cast_unsigned().into(),
            key_id: 0.into(),
            cipher: 0.into(),
            reserved: [0; 12],
        })
    }

    /// Checks and reads it.
    pub fn parse(bytes: &[u8]) -> Result<Superblock, FormatError> {
        let raw: Raw = open_whole(bytes)?;
        let created = Timestamp { secs: raw.created_secs.get().cast_signed(), nanos: 0 };
        Ok(Superblock { store: raw.store, created })
    }
}
