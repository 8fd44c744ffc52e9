//! The rows of the metadata store: how keys are put together and what the values of system rows are.
//! See `docs/format/metadata.md`. Numbers in keys are big-endian, so that they sort.

use bincode::{Decode, Encode};

use super::MetaError;
use crate::clock::Timestamp;
use crate::codec;
use crate::content::ExtentPlace;
use crate::ids::{Epoch, Hash, InodeNo, Lineage, PayloadId, TxnNo, VeId};
use crate::limits;
use crate::state::check;
use crate::state::key::{Key, Value};

/// A current value with the transaction that made it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Current {
    /// Transaction since which it is so.
    pub birth: TxnNo,
    /// What.
    pub value: Value,
}

/// A former value: current from its birth (in the key) until `death`, exclusive.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Former {
    /// Transaction that replaced it.
    pub death: TxnNo,
    /// What it was.
    pub value: Value,
}

/// The state of a VE as far as the metadata store has it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Head {
    /// Whose history.
    pub lineage: Lineage,
    /// Epoch of the last transaction.
    pub epoch: Epoch,
    /// Last transaction applied here.
    pub txn: TxnNo,
    /// Chain hash after it.
    pub chain: Hash,
    /// Its version time.
    pub time: Timestamp,
    /// Journal position after its seal.
    pub journal: u64,
    /// `seq` of the frame after its seal.
    pub seq: u64,
    /// Charged bytes.
    pub bytes: i64,
    /// Private inodes.
    pub inodes: i64,
    /// The next private inode number.
    pub next_ino: InodeNo,
    /// Versions before this one may be gone (except held ones).
    pub floor: TxnNo,
    /// Rough bytes of history rows and of payloads that only history reads.
    pub history: u64,
}

/// A transaction as the list of versions shows it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TxnRow {
    /// Version time.
    pub time: Timestamp,
    /// Chain hash after it.
    pub chain: Hash,
    /// Its epoch.
    pub epoch: Epoch,
}

/// A version that is mounted on this node, and so kept. It is no part of the VE's history: each node has its own.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Mounted {
    /// Of which VE: the row's key has the slot.
    pub ve: VeId,
    /// After which transaction.
    pub txn: TxnNo,
    /// Since when, by the wall clock: a label.
    pub since: Timestamp,
}

/// The prefix of all rows of a VE in `Current`, `History`, `Changes` and `Places`.
pub fn ve_prefix(ve: VeId) -> Vec<u8> {
    ve.0.to_be_bytes().to_vec()
}

/// The row of a current value.
pub fn current(ve: VeId, key: &[u8]) -> Vec<u8> {
    let mut k = Vec::with_capacity(4 + key.len());
    k.extend_from_slice(&ve.0.to_be_bytes());
    k.extend_from_slice(key);
    k
}

/// The prefix of all former values of a key. The NUL keeps a name apart from longer names: names hold none.
pub fn history_prefix(ve: VeId, key: &Key) -> Vec<u8> {
    let mut k = current(ve, key.as_bytes());
    k.push(0);
    k
}

/// The row of a former value. Newer births come first.
pub fn history(ve: VeId, key: &Key, birth: TxnNo) -> Vec<u8> {
    let mut k = history_prefix(ve, key);
    k.extend_from_slice(&(!birth.0).to_be_bytes());
    k
}

/// The logical key and the birth in a history row.
pub fn parse_history(row: &[u8]) -> Result<(Key, TxnNo), MetaError> {
    let bad = || MetaError::Damaged { table: "history", detail: format!("key of {} bytes", row.len()) };
    let end = row.len().checked_sub(9).filter(|e| *e > 4).ok_or_else(bad)?;
    let key = Key::from_bytes(&row[4..end]).ok_or_else(bad)?;
    Ok((key, TxnNo(!number(&row[end + 1..]))))
}

/// The logical key in a row of `Current`.
pub fn parse_current(row: &[u8]) -> Result<Key, MetaError> {
    row.get(4..)
        .and_then(Key::from_bytes)
        .ok_or_else(|| MetaError::Damaged { table: "current", detail: format!("key of {} bytes", row.len()) })
}

/// The row of the change index.
pub fn change(ve: VeId, txn: TxnNo, ino: InodeNo) -> Vec<u8> {
    let mut k = ve_prefix(ve);
    k.extend_from_slice(&txn.0.to_be_bytes());
    k.extend_from_slice(&ino.0.to_be_bytes());
    k
}

/// The transaction and inode in a row of the change index.
pub fn parse_change(row: &[u8]) -> Result<(TxnNo, InodeNo), MetaError> {
    if row.len() != 20 {
        return Err(MetaError::Damaged { table: "changes", detail: format!("key of {} bytes", row.len()) });
    }
    Ok((TxnNo(number(&row[4..12])), InodeNo(number(&row[12..20]))))
}

/// The row of a place.
pub fn place(ve: VeId, id: PayloadId) -> Vec<u8> {
    let mut k = ve_prefix(ve);
    k.extend_from_slice(&id.txn.0.to_be_bytes());
    k.extend_from_slice(&id.offset.to_be_bytes());
    k
}

/// The payload id and place in a row of `Places`.
pub fn parse_place(key: &[u8], value: &[u8]) -> Result<(PayloadId, ExtentPlace), MetaError> {
    let bad = |detail: String| MetaError::Damaged { table: "places", detail };
    if key.len() != 20 {
        return Err(bad(format!("key of {} bytes", key.len())));
    }
    let id = PayloadId { txn: TxnNo(number(&key[4..12])), offset: number(&key[12..20]) };
    let place: ExtentPlace = decode("places", value)?;
    if !place.is_sane() || id.offset > limits::COUNTER_MAX {
        return Err(bad("impossible numbers".into()));
    }
    Ok((id, place))
}

/// The row of a VE's head.
pub fn head(ve: VeId) -> Vec<u8> {
    let mut k = b"H".to_vec();
    k.extend_from_slice(&ve.0.to_be_bytes());
    k
}

/// The row of a clean stop: (journal position, order number of the next segment). It counts only while no segment of that order is
/// there, that is, until the next frame.
pub fn clean(ve: VeId) -> Vec<u8> {
    let mut k = b"C".to_vec();
    k.extend_from_slice(&ve.0.to_be_bytes());
    k
}

/// The row of the scrub.
pub fn scrub() -> Vec<u8> {
    b"S".to_vec()
}

/// The row of the last answers: (request, memo) pairs, oldest first.
pub fn answers(ve: VeId) -> Vec<u8> {
    let mut k = b"A".to_vec();
    k.extend_from_slice(&ve.0.to_be_bytes());
    k
}

/// The prefix of a VE's cursors.
pub fn cursor_prefix(ve: VeId) -> Vec<u8> {
    let mut k = b"U".to_vec();
    k.extend_from_slice(&ve.0.to_be_bytes());
    k
}

/// The row of a follower's cursor: (transaction, journal position behind it, whether it lost its hold).
pub fn cursor(ve: VeId, node: [u8; 16]) -> Vec<u8> {
    let mut k = cursor_prefix(ve);
    k.extend_from_slice(&node);
    k
}

/// The node at the end of a cursor's row.
pub fn parse_cursor(row: &[u8]) -> Result<[u8; 16], MetaError> {
    let bad = || MetaError::Damaged { table: "system", detail: format!("cursor key of {} bytes", row.len()) };
    row.get(5..).and_then(|node| node.try_into().ok()).ok_or_else(bad)
}

/// The prefix of the rows of all mounted versions.
pub fn mounted_versions() -> Vec<u8> {
    b"M".to_vec()
}

/// The prefix of the rows of a slot's mounted versions.
pub fn mounted_prefix(slot: VeId) -> Vec<u8> {
    let mut k = mounted_versions();
    k.extend_from_slice(&slot.0.to_be_bytes());
    k
}

/// The row of a mounted version: its label is what people call it.
pub fn mounted(slot: VeId, label: &str) -> Vec<u8> {
    let mut k = mounted_prefix(slot);
    k.extend_from_slice(label.as_bytes());
    k
}

/// The slot and the label in the row of a mounted version.
pub fn parse_mounted(row: &[u8]) -> Result<(VeId, String), MetaError> {
    let bad = || MetaError::Damaged { table: "system", detail: format!("mounted version, key of {} bytes", row.len()) };
    let slot = row.get(1..5).and_then(|b| b.try_into().ok()).ok_or_else(bad)?;
    let label = std::str::from_utf8(&row[5..]).map_err(|_| bad())?;
    if label.is_empty() || label.len() > limits::MOUNT_LABEL_MAX {
        return Err(bad());
    }
    Ok((VeId(u32::from_be_bytes(slot)), label.to_owned()))
}

/// A mounted version, checked.
pub fn mounted_row(value: &[u8]) -> Result<Mounted, MetaError> {
    let row: Mounted = decode("system", value)?;
    if row.txn.0 > limits::COUNTER_MAX || !row.since.is_valid() {
        return Err(MetaError::Damaged { table: "system", detail: "mounted version with impossible numbers".into() });
    }
    Ok(row)
}

/// The row of a transaction.
pub fn txn(ve: VeId, txn: TxnNo) -> Vec<u8> {
    let mut k = b"T".to_vec();
    k.extend_from_slice(&ve.0.to_be_bytes());
    k.extend_from_slice(&txn.0.to_be_bytes());
    k
}

/// The transaction number at the end of a row.
pub fn parse_txn(row: &[u8]) -> Result<TxnNo, MetaError> {
    if row.len() != 13 {
        return Err(MetaError::Damaged { table: "system", detail: format!("transaction key of {} bytes", row.len()) });
    }
    Ok(TxnNo(number(&row[5..13])))
}

/// The current value of a key, checked.
pub fn current_row(key: &Key, value: &[u8]) -> Result<Current, MetaError> {
    let row: Current = decode("current", value)?;
    check::value(key, &row.value).map_err(|e| damaged("current", key, &e))?;
    Ok(row)
}

/// A former value of a key that was born at `birth`, checked.
pub fn former_row(key: &Key, birth: TxnNo, value: &[u8]) -> Result<Former, MetaError> {
    let row: Former = decode("history", value)?;
    check::value(key, &row.value).map_err(|e| damaged("history", key, &e))?;
    if row.death <= birth {
        return Err(damaged("history", key, &"it died before it was born"));
    }
    Ok(row)
}

/// A VE's head, checked.
pub fn head_row(value: &[u8]) -> Result<Head, MetaError> {
    let head: Head = decode("system", value)?;
    let counters = [head.txn.0, head.journal, head.seq, head.next_ino.0, head.floor.0];
    if counters.into_iter().any(|c| c > limits::COUNTER_MAX) || !head.time.is_valid() || head.next_ino.is_base() {
        return Err(MetaError::Damaged { table: "system", detail: "head with impossible numbers".into() });
    }
    Ok(head)
}

fn damaged(table: &'static str, key: &Key, detail: &dyn std::fmt::Display) -> MetaError {
    MetaError::Damaged { table, detail: format!("{key:?}: {detail}") }
}

/// Decodes a row's value, naming the table when it is damaged.
pub fn decode<T: Decode<()>>(table: &'static str, value: &[u8]) -> Result<T, MetaError> {
    codec::decode(value).map_err(|e| match e {
        codec::CodecError::Format(found) => MetaError::Format { table, found, known: codec::FORMAT },
        other => MetaError::Damaged { table, detail: other.to_string() },
    })
}

fn number(bytes: &[u8]) -> u64 {
    let mut b = [0; 8];
    b.copy_from_slice(&bytes[..8]);
    u64::from_be_bytes(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Former values of `a` lie apart from those of every name that begins with `a`.
    #[test]
    fn history_of_a_name_is_contiguous() {
        let ve = VeId(1);
        let a = Key::dentry(InodeNo(1), b"a");
        let prefix = history_prefix(ve, &a);
        for other in [&b"ab"[..], b"a\xff\xff\xff\xff\xff\xff\xff\xff", b"a\x01"] {
            let row = history(ve, &Key::dentry(InodeNo(1), other), TxnNo(3));
            assert!(!row.starts_with(&prefix), "{other:?}");
        }
        let row = history(ve, &a, TxnNo(3));
        assert_eq!(parse_history(&row).unwrap(), (a.clone(), TxnNo(3)));
        assert!(history(ve, &a, TxnNo(4)) < row, "newer first");
    }
}
