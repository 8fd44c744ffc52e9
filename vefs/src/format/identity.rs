//! The file `ves/XXXXXXXX/identity`: a VE exists from the moment this file is durable, until it is gone.
//! See `docs/format/store.md`.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::FormatError;
use super::sealed::{Prefix, open_whole, seal, sealed};
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
    prefix: Prefix,
    store: [u8; 16],
    lineage: [u8; 16],
    base: [u8; 32],
    epoch: U64,
    ve: U32,
    cipher: U32,
    key_id: U64,
    slot: U32,
    reserved: [u8; 4],
}

sealed!(Raw, MAGIC, FORMAT, LEN);

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
    /// The number under which its rows and files lie. The VE's own unless its state was replaced since.
    pub slot: VeId,
}

impl Identity {
    /// The bytes of the file.
    pub fn to_bytes(&self) -> [u8; LEN] {
        seal(Raw {
            prefix: Prefix::new::<Raw>(),
            store: self.store,
            lineage: self.lineage.0,
            base: self.base.0,
            epoch: self.epoch.0.into(),
            ve: self.ve.0.into(),
            cipher: 0.into(),
            key_id: 0.into(),
            slot: if self.slot == self.ve { 0 } else { self.slot.0 }.into(),
            reserved: [0; 4],
        })
    }

    /// Checks and reads it.
    pub fn parse(bytes: &[u8]) -> Result<Identity, FormatError> {
        let raw: Raw = open_whole(bytes)?;
        let ve = VeId(raw.ve.get());
        Ok(Identity {
            store: raw.store,
            ve,
            lineage: Lineage(raw.lineage),
            base: Hash(raw.base),
            epoch: Epoch(raw.epoch.get()),
            slot: if raw.slot.get() == 0 { ve } else { VeId(raw.slot.get()) },
        })
    }
}
