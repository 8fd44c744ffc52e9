//! The file `superblock` of a store: what makes a folder a store. Written once. See `docs/format/store.md`.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::FormatError;
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
    magic: [u8; 8],
    format: U32,
    crc: U32,
    store: [u8; 16],
    created_secs: U64,
    key_id: U64,
    cipher: U32,
    reserved: [u8; 12],
}

const _: () = assert!(size_of::<Raw>() == LEN);

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
        let mut raw = Raw {
            magic: MAGIC,
            format: FORMAT.into(),
            crc: 0.into(),
            store: self.store,
            created_secs: self.created.secs.cast_unsigned().into(),
            key_id: 0.into(),
            cipher: 0.into(),
            reserved: [0; 12],
        };
        raw.crc = crc32fast::hash(raw.as_bytes()).into();
        let mut out = [0; LEN];
        out.copy_from_slice(raw.as_bytes());
        out
    }

    /// Checks and reads it.
    pub fn parse(bytes: &[u8]) -> Result<Superblock, FormatError> {
        if bytes.len() != LEN {
            return Err(FormatError::Short { got: bytes.len(), need: LEN });
        }
        let mut raw = Raw::read_from_bytes(bytes).map_err(|_| FormatError::Magic)?;
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
        let created = Timestamp { secs: raw.created_secs.get().cast_signed(), nanos: 0 };
        Ok(Superblock { store: raw.store, created })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_flips() {
        let s = Superblock { store: [9; 16], created: Timestamp { secs: -5, nanos: 0 } };
        let b = s.to_bytes();
        assert_eq!(Superblock::parse(&b), Ok(s));
        for bit in 0..b.len() * 8 {
            let mut w = b;
            w[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::parse(&w).is_err(), "bit {bit}");
        }
    }
}
