//! The file `ves/XXXXXXXX/incoming`: a state of the VE is being made in another slot, from these figures. See `docs/format/store.md`.

use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::FormatError;
use super::sealed::{Prefix, open_whole, seal, sealed};
use crate::clock::Timestamp;
use crate::ids::{Epoch, Hash, InodeNo, Lineage, Position, TxnNo, VeId};
use crate::limits::COUNTER_MAX;

/// Magic bytes.
pub const MAGIC: [u8; 8] = *b"ASPFSIN1";
/// The one format.
pub const FORMAT: u32 = 1;
/// Bytes of the file.
pub const LEN: usize = 240;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Raw {
    prefix: Prefix,
    store: [u8; 16],
    lineage: [u8; 16],
    base: [u8; 32],
    chain: [u8; 32],
    root: [u8; 32],
    txn: U64,
    epoch: U64,
    secs: I64,
    nanos: U32,
    ve: U32,
    bytes: I64,
    inodes: I64,
    next_ino: U64,
    slot: U32,
    cipher: U32,
    key_id: U64,
    reserved: [u8; 24],
}

sealed!(Raw, MAGIC, FORMAT, LEN);

/// What a state is, before its rows and bytes: enough to know it again, and to check it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Manifest {
    /// The position whose state it is.
    pub at: Position,
    /// Its version time.
    pub time: Timestamp,
    /// Root hash of the base tree.
    pub base: Hash,
    /// State root.
    pub root: Hash,
    /// Charged bytes.
    pub bytes: i64,
    /// Private inodes.
    pub inodes: i64,
    /// The next private inode number.
    pub next_ino: InodeNo,
}

impl Manifest {
    /// Whether its numbers are within their limits.
    pub fn is_sane(&self) -> bool {
        let counters = [self.at.txn.0, self.at.epoch.0, self.next_ino.0];
        counters.into_iter().all(|c| c <= COUNTER_MAX) && self.time.is_valid() && !self.next_ino.is_base()
    }
}

/// The content of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// The store it lives in.
    pub store: [u8; 16],
    /// The VE.
    pub ve: VeId,
    /// Where it is made.
    pub slot: VeId,
    /// What.
    pub manifest: Manifest,
}

impl Incoming {
    /// The bytes of the file.
    pub fn to_bytes(&self) -> [u8; LEN] {
        let m = &self.manifest;
        seal(Raw {
            prefix: Prefix::new::<Raw>(),
            store: self.store,
            lineage: m.at.lineage.0,
            base: m.base.0,
            chain: m.at.chain.0,
            root: m.root.0,
            txn: m.at.txn.0.into(),
            epoch: m.at.epoch.0.into(),
            secs: m.time.secs.into(),
            nanos: m.time.nanos.into(),
            ve: self.ve.0.into(),
            bytes: m.bytes.into(),
            inodes: m.inodes.into(),
            next_ino: m.next_ino.0.into(),
            slot: self.slot.0.into(),
            cipher: 0.into(),
            key_id: 0.into(),
            reserved: [0; 24],
        })
    }

    /// Checks and reads it.
    pub fn parse(bytes: &[u8]) -> Result<Incoming, FormatError> {
        let raw: Raw = open_whole(bytes)?;
        let at = Position {
            lineage: Lineage(raw.lineage),
            epoch: Epoch(raw.epoch.get()),
            txn: TxnNo(raw.txn.get()),
            chain: Hash(raw.chain),
        };
        let manifest = Manifest {
            at,
            time: Timestamp { secs: raw.secs.get(), nanos: raw.nanos.get() },
            base: Hash(raw.base),
            root: Hash(raw.root),
            bytes: raw.bytes.get(),
            inodes: raw.inodes.get(),
            next_ino: InodeNo(raw.next_ino.get()),
        };
        if !manifest.is_sane() {
            return Err(FormatError::Field("number"));
        }
        Ok(Incoming { store: raw.store, ve: VeId(raw.ve.get()), slot: VeId(raw.slot.get()), manifest })
    }
}
