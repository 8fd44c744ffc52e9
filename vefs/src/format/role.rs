//! The file `ves/XXXXXXXX/role`: whether this node writes a VE or follows it, and the highest epoch that it has seen. See `docs/format/store.md`.
//!
//! It is written whole before anything is done in the epoch that it names (promises G10, G18, G21). Without one a VE is written here, and its
//! journal alone says in which epoch.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::FormatError;
use super::sealed::{Prefix, open_whole, seal, sealed};
use crate::ids::{Epoch, Hash, Lineage, TxnNo, VeId};

/// Magic bytes of a role.
pub const MAGIC: [u8; 8] = *b"ASPFSRL1";
/// The one format of roles.
pub const FORMAT: u32 = 1;
/// Bytes of the file.
pub const LEN: usize = 128;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Raw {
    prefix: Prefix,
    store: [u8; 16],
    lineage: [u8; 16],
    fork_chain: [u8; 32],
    fork_txn: U64,
    fork_epoch: U64,
    epoch: U64,
    ve: U32,
    kind: U32,
    cipher: U32,
    reserved: U32,
    key_id: U64,
}

sealed!(Raw, MAGIC, FORMAT, LEN);

/// What a node does with a VE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleKind {
    /// Writes it.
    Primary,
    /// Follows another node's history.
    Replica,
    /// Wrote it, and was superseded: nothing changes here until its history has been rewound.
    Superseded,
}

/// The position behind which the present term's own history begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fork {
    /// Last transaction of the history before.
    pub txn: TxnNo,
    /// Its epoch.
    pub epoch: Epoch,
    /// Chain hash after it.
    pub chain: Hash,
}

/// A node's part in a VE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    /// The store it lives in.
    pub store: [u8; 16],
    /// The VE.
    pub ve: VeId,
    /// Its history; a role of another one means nothing.
    pub lineage: Lineage,
    /// Which part.
    pub kind: RoleKind,
    /// The highest epoch that was seen or written in.
    pub epoch: Epoch,
    /// Where this node took over, if it did.
    pub fork: Fork,
}

impl Role {
    /// The bytes of the file.
    pub fn to_bytes(&self) -> [u8; LEN] {
        seal(Raw {
            prefix: Prefix::new::<Raw>(),
            store: self.store,
            lineage: self.lineage.0,
            fork_chain: self.fork.chain.0,
            fork_txn: self.fork.txn.0.into(),
            fork_epoch: self.fork.epoch.0.into(),
            epoch: self.epoch.0.into(),
            ve: self.ve.0.into(),
            kind: match self.kind {
                RoleKind::Primary => 1,
                RoleKind::Replica => 2,
                RoleKind::Superseded => 3,
            }
            .into(),
            cipher: 0.into(),
            reserved: 0.into(),
            key_id: 0.into(),
        })
    }

    /// Checks and reads it.
    pub fn parse(bytes: &[u8]) -> Result<Role, FormatError> {
        let raw: Raw = open_whole(bytes)?;
        let kind = match raw.kind.get() {
            1 => RoleKind::Primary,
            2 => RoleKind::Replica,
            3 => RoleKind::Superseded,
            _ => return Err(FormatError::Field("kind")),
        };
        if raw.fork_txn.get() > crate::limits::COUNTER_MAX || raw.epoch.get() > crate::limits::COUNTER_MAX {
            return Err(FormatError::Field("number"));
        }
        Ok(Role {
            store: raw.store,
            ve: VeId(raw.ve.get()),
            lineage: Lineage(raw.lineage),
            kind,
            epoch: Epoch(raw.epoch.get()),
            fork: Fork {
                txn: TxnNo(raw.fork_txn.get()),
                epoch: Epoch(raw.fork_epoch.get()),
                chain: Hash(raw.fork_chain),
            },
        })
    }
}
