//! The file `ves/XXXXXXXX/identity`: a VE exists from the moment this file is durable, until it is gone.
//! See `docs/format/store.md`.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::FormatError;
use crate::ids::{Epoch, Hash, Lineage, VeId};

/// Magic bytes of an identity.
pub const MAGIC: [u8; 8] = *b"ASPFSVE1";
/// The one format of identities.
pub const FORMAT: u32 = 1;
/// Bytes of the file.
pub const LEN: usize = 112;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    format: U32,
    crc: U32,
    store: [u8; 16],
    lineage: [u8; 16],
    base: [u8; 32],
    epoch: U64,
    ve: U32,
    cipher: U32,
    key_id: U64,
    reserved: [u8; 8],
}

const _: () = assert!(size_of::<Raw>() == LEN);

/// Who a VE is: fixed when it is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The store it lives in.
    pub store: [u8; 16],
    /// Its identifier.
    pub ve: VeId,
    /// Its history's identity.
    pub lineage: Lineage,
    /// Root hash of its base tree.
    pub base: Hash,
    /// The epoch it was created in.
    pub epoch: Epoch,
}

impl Identity {
    /// The bytes of the file.
    pub fn to_bytes(&self) -> [u8; LEN] {
        let mut raw = Raw {
            magic: MAGIC,
            format: FORMAT.into(),
            crc: 0.into(),
            store: self.store,
            lineage: self.lineage.0,
            base: self.base.0,
            epoch: self.epoch.0.into(),
            ve: self.ve.0.into(),
            cipher: 0.into(),
            key_id: 0.into(),
            reserved: [0; 8],
        };
        raw.crc = crc32fast::hash(raw.as_bytes()).into();
        let mut out = [0; LEN];
        out.copy_from_slice(raw.as_bytes());
        out
    }

    /// Checks and reads it.
    pub fn parse(bytes: &[u8]) -> Result<Identity, FormatError> {
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
        Ok(Identity {
            store: raw.store,
            ve: VeId(raw.ve.get()),
            lineage: Lineage(raw.lineage),
            base: Hash(raw.base),
            epoch: Epoch(raw.epoch.get()),
        })
    }
}
