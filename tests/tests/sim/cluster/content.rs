//! What a VE in memory consists of: a base tree that names objects, transactions that set keys to payloads or objects, and the state after them.

use std::collections::{BTreeMap, BTreeSet};

use aspfs_replica::catchup::{Page, RANGE_MAX};
use aspfs_replica::log::{LogRecord, LogTxn, Payload};
use bytes::Bytes;
use vefs::codec;
use vefs::ids::{Epoch, Hash, Lineage, PayloadId, Position, TxnNo};

/// Payloads above this are bulk.
pub const INLINE: usize = 200;

/// A key's value: payload bytes by id, or an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Value {
    Payload(PayloadId, u64, Hash),
    Object(Hash),
    Required(u64),
}

/// A record's body: the key that is set, and to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Body {
    Set(u8, u64, Hash),
    Seal(u8, Hash),
    /// These nodes are the required replicas, as bits.
    Require(u64),
}

/// The state of a VE.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub rows: BTreeMap<Vec<u8>, Vec<u8>>,
    pub bytes: BTreeMap<PayloadId, Bytes>,
}

impl State {
    pub fn root(&self) -> Hash {
        let rows: Vec<_> = self.rows.iter().collect();
        Hash::of(&codec::encode(&rows))
    }

    /// The same `apply` everywhere.
    pub fn apply(&mut self, txn: TxnNo, records: &[LogRecord], bulk: &BTreeMap<PayloadId, Bytes>) {
        let mut offset = 0;
        for record in records {
            let body: Body = codec::decode(&record.body).unwrap();
            let (key, value) = match body {
                Body::Set(key, len, hash) => {
                    let id = PayloadId { txn, offset };
                    offset += len;
                    let bytes = match &record.payload {
                        Some(Payload::Inline(bytes)) => bytes.clone(),
                        // A later record of the transaction sets the same key.
                        Some(Payload::Cancelled(_)) => Bytes::new(),
                        _ => bulk[&id].clone(),
                    };
                    self.bytes.insert(id, bytes);
                    (key, Value::Payload(id, len, hash))
                }
                Body::Seal(key, hash) => (key, Value::Object(hash)),
                Body::Require(nodes) => (255, Value::Required(nodes)),
            };
            let row = self.rows.insert(vec![1, key], codec::encode(&value));
            if let Some(Value::Payload(id, ..)) = row.map(|r| codec::decode(&r).unwrap()) {
                self.bytes.remove(&id);
            }
        }
    }

    /// The required replicas, as bits.
    pub fn required(&self) -> u64 {
        let row = self.rows.get(&[1, 255][..]).map(|r| codec::decode(r).unwrap());
        if let Some(Value::Required(nodes)) = row { nodes } else { 0 }
    }

    /// Rows behind a key, about `max` bytes.
    pub fn page(&self, after: Option<&[u8]>, upto: Option<&[u8]>, max: usize) -> Page {
        let mut page = Page::default();
        let behind = |k: &[u8]| after.is_none_or(|a| k > a) && upto.is_none_or(|u| k <= u);
        let mut rows = self.rows.iter().filter(|(k, _)| behind(k)).peekable();
        let mut objects = BTreeSet::new();
        while let Some((k, v)) = rows.next_if(|_| page.is_empty() || page.len() < max) {
            match codec::decode(v).unwrap() {
                Value::Payload(id, len, _) => {
                    for done in (0..len).step_by(RANGE_MAX as usize) {
                        let part = (len - done).min(RANGE_MAX);
                        let bytes = self.bytes[&id].slice(done as usize..(done + part) as usize);
                        page.payloads.push((id.plus(done), part, Hash::of(&bytes)));
                    }
                }
                Value::Object(hash) => drop(objects.insert(hash)),
                Value::Required(_) => {}
            }
            page.rows.push((k.clone(), v.clone()));
        }
        page.objects = objects.into_iter().collect();
        page.last = rows.peek().is_none();
        page
    }

    /// Bytes of a range that lies in one payload.
    pub fn payload(&self, id: PayloadId, len: u64) -> Option<Bytes> {
        let (start, bytes) = self.bytes.range(..=id).next_back()?;
        let from = id.offset.checked_sub(start.offset).filter(|_| start.txn == id.txn)?;
        (from + len <= bytes.len() as u64).then(|| bytes.slice(from as usize..(from + len) as usize))
    }
}

/// An object's bytes, of which everybody can make them.
pub fn object(number: u8) -> Bytes {
    Bytes::from(vec![number; 900 + usize::from(number) * 7])
}

/// A file's bytes that several VEs and nodes may have, few enough to be inline.
pub fn small(number: u8) -> Bytes {
    Bytes::from(vec![number; 100 + usize::from(number % 8)])
}

/// The base tree of all VEs: the names of two objects.
pub fn tree() -> Bytes {
    Bytes::from([Hash::of(&object(1)).0, Hash::of(&object(2)).0].concat())
}

pub fn chain(previous: Hash, position: &Position, records: &[LogRecord], seal: &[u8]) -> Hash {
    let mut all = previous.0.to_vec();
    all.extend(position.txn.0.to_le_bytes());
    all.extend(position.epoch.0.to_le_bytes());
    for r in records {
        all.extend((r.body.len() as u64).to_le_bytes());
        all.extend(&r.body[..]);
    }
    all.extend(seal);
    Hash::of(&all)
}

/// The empty state of a history.
pub fn empty(lineage: Lineage) -> Position {
    Position { lineage, epoch: Epoch(0), txn: TxnNo(0), chain: Hash([0; 32]) }
}
/// Of each record: whether a later one of the same transaction sets the same key.
pub fn cancelled(records: &[LogRecord]) -> Vec<bool> {
    let mut set = std::collections::BTreeSet::new();
    let mut out: Vec<bool> = records
        .iter()
        .rev()
        .map(|r| match codec::decode(&r.body) {
            Ok(Body::Set(key, ..)) => !set.insert(key),
            Ok(Body::Seal(key, _)) => {
                set.insert(key);
                false
            }
            _ => false,
        })
        .collect();
    out.reverse();
    out
}

/// A transaction behind `head`. Also its bulk payloads.
pub fn transaction(
    head: Position,
    epoch: Epoch,
    sets: Vec<(u8, Vec<u8>)>,
    seals: &[(u8, u8)],
    required: Option<u64>,
) -> (LogTxn, Vec<(PayloadId, Bytes)>) {
    let (mut offset, mut bulk, mut records) = (0, vec![], vec![]);
    let txn = head.txn.next();
    for (key, object_of) in seals {
        let body = Body::Seal(*key, Hash::of(&object(*object_of)));
        records.push(LogRecord { body: codec::encode(&body).into(), payload: None });
    }
    if let Some(nodes) = required {
        records.push(LogRecord { body: codec::encode(&Body::Require(nodes)).into(), payload: None });
    }
    for (key, bytes) in sets {
        let (id, len) = (PayloadId { txn, offset }, bytes.len() as u64);
        offset += len;
        let bytes = Bytes::from(bytes);
        let body = codec::encode(&Body::Set(key, len, Hash::of(&bytes)));
        let payload = if bytes.len() > INLINE {
            bulk.push((id, bytes));
            Payload::Bulk(id, len)
        } else {
            Payload::Inline(bytes)
        };
        records.push(LogRecord { body: body.into(), payload: Some(payload) });
    }
    let mut position = Position { epoch, txn, ..head };
    let seal = Bytes::from_static(b"seal");
    position.chain = chain(head.chain, &position, &records, &seal);
    (LogTxn { position, previous: head.chain, records, seal }, bulk)
}
