//! The numbers and names of the system, each as a type of its own so that one cannot be taken for another.
//!
//! All of them are plain values; `Ord` is numeric. What crosses a disk or a wire is encoded elsewhere
//! ([`crate::format`] for fixed layouts, [`crate::codec`] for bodies).

use std::fmt;

use bincode::{Decode, Encode};

/// Identifier of a virtual environment, written as exactly 8 hex digits. VE 0 is the node itself and has no tree here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct VeId(pub u32);

impl fmt::Display for VeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}", self.0)
    }
}

impl std::str::FromStr for VeId {
    type Err = ParseIdError;

    /// Accepts exactly 8 hex digits of either case; everything else, a sign or a prefix included, is refused.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s.len() != 8 || !s.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ParseIdError { got: s.chars().take(32).collect() });
        }
        u32::from_str_radix(s, 16).map(VeId).map_err(|_| ParseIdError { got: s.to_owned() })
    }
}

/// A VE identifier that is not 8 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("VE identifier {got:?} is not exactly 8 hex digits, like 0000002A")]
pub struct ParseIdError {
    /// What was given, cut to 32 characters.
    pub got: String,
}

/// Inode number, as `st_ino` shows it. Below 2^32 it is the base tree's; from 2^32 on it is private to the lineage.
/// Never reused within a lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct InodeNo(pub u64);

impl InodeNo {
    /// The root directory of every VE and of every base tree.
    pub const ROOT: InodeNo = InodeNo(1);
    /// The first inode number that is private to a VE.
    pub const FIRST_PRIVATE: InodeNo = InodeNo(1 << 32);

    /// Whether this number comes from the base tree's inode table.
    pub fn is_base(self) -> bool {
        self < Self::FIRST_PRIVATE
    }
}

impl fmt::Display for InodeNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a transaction within a lineage, counted from 1; 0 is the empty state over the base tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct TxnNo(pub u64);

impl TxnNo {
    /// The transaction after this one.
    pub fn next(self) -> TxnNo {
        TxnNo(self.0 + 1)
    }
}

impl fmt::Display for TxnNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The fencing token of a VE's writer: at most one epoch is writable.
///
/// Its upper 32 bits count promotions (the *term*), its lower 32 bits restarts of a writer within a term. So whatever a primary did that was
/// not heard of, a promotion's epoch is above it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Epoch(pub u64);

impl Epoch {
    /// How many promotions there were.
    pub fn term(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The epoch of the writer after a restart.
    pub fn restarted(self) -> Epoch {
        Epoch(self.0.saturating_add(1))
    }

    /// The first epoch of the next promotion.
    pub fn promoted(self) -> Epoch {
        Epoch((u64::from(self.term()).saturating_add(1)).min(u64::from(u32::MAX >> 2)) << 32)
    }
}

/// Random identity of a VE's history, drawn when the VE is created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Lineage(pub [u8; 16]);

/// A BLAKE3 digest (32 bytes).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Hash {
        Hash(*blake3::hash(bytes).as_bytes())
    }

    /// The digest as 64 lower-case hex digits.
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }

    /// Parses 64 hex digits; `None` for anything else.
    pub fn from_hex(s: &str) -> Option<Hash> {
        if s.len() != 64 || !s.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut out = [0u8; 32];
        for (byte, pair) in out.iter_mut().zip(s.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Hash(out))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({}…)", hex(&self.0[..6]))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

/// Name of payload bytes within a lineage: the transaction that brought them and the offset, in bytes, within that
/// transaction's payload stream. It never names a place: moving bytes leaves it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct PayloadId {
    /// The transaction whose records carried the bytes.
    pub txn: TxnNo,
    /// Offset in bytes within the payloads of that transaction, in record order.
    pub offset: u64,
}

impl PayloadId {
    /// The id of the byte `delta` bytes further on.
    pub fn plus(self, delta: u64) -> PayloadId {
        PayloadId { txn: self.txn, offset: self.offset + delta }
    }
}

/// A point in a VE's history. Compare positions, never transaction numbers alone: numbers repeat on a branch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Position {
    /// Whose history.
    pub lineage: Lineage,
    /// The writer's epoch at that point.
    pub epoch: Epoch,
    /// The last transaction.
    pub txn: TxnNo,
    /// BLAKE3 over the previous chain hash and this transaction's record bodies.
    pub chain: Hash,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ve_id_is_exactly_eight_hex_digits() {
        assert_eq!("0000002a".parse::<VeId>(), Ok(VeId(0x2a)));
        assert_eq!(VeId(0x2a).to_string(), "0000002A");
        for bad in ["", "2A", "0000002AA", "0x00002A", "+000002A", "0000002G", "００００００２Ａ"] {
            assert!(bad.parse::<VeId>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn hash_hex_round_trips_and_refuses_the_rest() {
        let h = Hash::of(b"x");
        assert_eq!(Hash::from_hex(&h.to_hex()), Some(h));
        assert_eq!(Hash::from_hex("00"), None);
        for bad in ["g", "+", "é"] {
            assert_eq!(Hash::from_hex(&bad.repeat(64)), None, "{bad}");
        }
        // A sign passes `from_str_radix`: "+a" 32 times was taken for a digest.
        assert_eq!(Hash::from_hex(&"+a".repeat(32)), None);
    }
}
