//! A primary's log and a replica's store in memory, each with a durable and a volatile part; and bugs to plant in them.

use std::collections::BTreeMap;

use aspfs_replica::log::{At, FollowError, Follower, Log, LogError, LogRead, LogRecord, LogTxn, Payload};
use aspfs_replica::wire::Chunk;
use bytes::Bytes;
use vefs::content::InBody;
use vefs::ids::{Epoch, Hash, Lineage, PayloadId, Position, TxnNo};

/// What may be wrong with a store on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bug {
    #[default]
    None,
    /// A flush says that it flushed.
    DropFsync,
    /// A flush is said to have ended when it begins: what it flushes is durable only with the next one.
    AckEarly,
    /// The highest epoch is not remembered.
    SkipEpoch,
    /// The log hands out what is not durable.
    ShipEarly,
}

/// A node's copy of a VE.
#[derive(Clone, Debug)]
pub struct Copy {
    pub txns: Vec<LogTxn>,
    pub durable: usize,
    pub epoch: Epoch,
    pub payloads: BTreeMap<PayloadId, Bytes>,
    pub staged: BTreeMap<PayloadId, Vec<u8>>,
    /// The journal does not reach back behind this transaction.
    pub floor: u64,
    pub bug: Bug,
    /// Bytes of inline payloads, until they are forgotten.
    pub elsewhere: BTreeMap<Hash, Bytes>,
    held: BTreeMap<Hash, Bytes>,
    /// What is received is durable at once.
    pub eager: bool,
    /// What was held is gone when it is wanted.
    pub rotten: bool,
    /// Payloads that came as hashes.
    pub named: std::cell::Cell<usize>,
    promised: usize,
}

const LINEAGE: Lineage = Lineage([9; 16]);

fn chain(previous: Hash, position: &Position, records: &[LogRecord], seal: &[u8]) -> Hash {
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

impl Copy {
    pub fn new(bug: Bug) -> Copy {
        Copy {
            txns: vec![],
            durable: 0,
            epoch: Epoch(1),
            payloads: BTreeMap::new(),
            staged: BTreeMap::new(),
            floor: 0,
            bug,
            elsewhere: BTreeMap::new(),
            held: BTreeMap::new(),
            eager: false,
            rotten: false,
            named: std::cell::Cell::new(0),
            promised: 0,
        }
    }

    /// The position after the first `n` transactions.
    pub fn position(&self, n: usize) -> Position {
        let empty = Position { lineage: LINEAGE, epoch: Epoch(0), txn: TxnNo(0), chain: Hash([0; 32]) };
        n.checked_sub(1).map_or(empty, |last| self.txns[last].position)
    }

    /// A transaction is sealed: a record for each payload, whose hash is its body; those over 1000 bytes are bulk.
    pub fn write(&mut self, payloads: &[Vec<u8>]) -> Vec<(PayloadId, u64)> {
        let head = self.position(self.txns.len());
        let (mut offset, mut bulk) = (0, vec![]);
        let mut records = vec![];
        for bytes in payloads {
            let id = PayloadId { txn: head.txn.next(), offset };
            offset += bytes.len() as u64;
            let payload = if bytes.len() > 1000 {
                self.payloads.insert(id, Bytes::from(bytes.clone()));
                bulk.push((id, bytes.len() as u64));
                Payload::Bulk(id, bytes.len() as u64)
            } else {
                Payload::Inline(Bytes::from(bytes.clone()))
            };
            records.push(LogRecord { body: Bytes::copy_from_slice(&Hash::of(bytes).0), payload: Some(payload) });
        }
        let mut position = Position { epoch: self.epoch, txn: head.txn.next(), ..head };
        let seal = Bytes::from_static(b"seal");
        position.chain = chain(head.chain, &position, &records, &seal);
        self.note(&records);
        self.txns.push(LogTxn { position, previous: head.chain, records, seal });
        bulk
    }

    /// Nothing is known of bytes that came before.
    pub fn forget(&mut self) {
        self.elsewhere.clear();
    }

    fn note(&mut self, records: &[LogRecord]) {
        let bytes = records.iter().filter_map(|r| match &r.payload {
            Some(Payload::Inline(bytes)) => Some(bytes.clone()),
            _ => None,
        });
        self.elsewhere.extend(bytes.map(|b| (Hash::of(&b), b)));
    }

    pub fn flush(&mut self) {
        self.durable = self.txns.len();
    }

    /// The power goes and comes back.
    pub fn power_cut(&mut self) {
        self.txns.truncate(self.durable);
        self.staged.clear();
    }

    fn corrupt(&self, txn: &LogTxn) -> Option<String> {
        let head = self.head();
        if txn.previous != head.chain || txn.position.txn != head.txn.next() {
            return Some("not behind the head".into());
        }
        if chain(txn.previous, &txn.position, &txn.records, &txn.seal) != txn.position.chain {
            return Some("chain hash".into());
        }
        let bad = |r: &&LogRecord| {
            let hash = match &r.payload {
                Some(Payload::Inline(bytes)) => Hash::of(bytes),
                Some(Payload::Bulk(id, _)) => self.staged.get(id).map(|b| Hash::of(b)).unwrap_or_default(),
                Some(Payload::Cancelled(_)) | None => Hash::default(),
            };
            hash.0[..] != r.body[..]
        };
        txn.records.iter().find(bad).map(|_| "payload".into())
    }
}

impl Log for Copy {
    fn durable(&self) -> Position {
        self.position(if self.bug == Bug::ShipEarly { self.txns.len() } else { self.durable })
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn base(&self) -> Hash {
        Hash([1; 32])
    }

    fn position_at(&self, txn: TxnNo) -> At {
        match txn.0 {
            n if n > self.durable as u64 => At::Beyond,
            n if n < self.floor => At::Gone,
            n => At::Here(self.position(n as usize)),
        }
    }

    fn read(&self, after: TxnNo) -> Result<LogRead, LogError> {
        let upto = Log::durable(self).txn.0;
        Ok(match after.0 {
            n if n >= upto => LogRead::AtEnd,
            n if n < self.floor => LogRead::Gone,
            n => LogRead::Txn(self.txns[n as usize].clone()),
        })
    }

    fn payload(&self, id: PayloadId, offset: u64, len: usize) -> Result<Bytes, LogError> {
        let bytes = self.payloads.get(&id).ok_or_else(|| LogError("no such payload".into()))?;
        Ok(bytes.slice(offset as usize..offset as usize + len))
    }

    fn in_body(&self, _id: PayloadId) -> Result<Option<InBody>, LogError> {
        Ok(None)
    }

    fn alike(&self, txn: &LogTxn) -> Vec<Option<Hash>> {
        let one = |payload: &Option<Payload>| {
            let Some(Payload::Inline(bytes)) = payload else { return None };
            Some(Hash::of(bytes)).filter(|hash| bytes.len() >= 400 && self.elsewhere.contains_key(hash))
        };
        txn.records.iter().map(|r| one(&r.payload)).collect()
    }
}

impl Follower for Copy {
    fn base(&self) -> Hash {
        Hash([1; 32])
    }

    fn head(&self) -> Position {
        self.position(self.txns.len())
    }

    fn durable(&self) -> Position {
        self.position(self.durable)
    }

    fn highest_epoch(&self) -> Epoch {
        if self.bug == Bug::SkipEpoch { Epoch(0) } else { self.epoch }
    }

    fn note_epoch(&mut self, epoch: Epoch) -> Result<(), FollowError> {
        self.epoch = self.epoch.max(epoch);
        Ok(())
    }

    fn stage(&mut self, chunk: &Chunk) -> Result<(), FollowError> {
        let staged = self.staged.entry(chunk.id).or_default();
        staged.truncate(chunk.offset as usize);
        staged.extend_from_slice(&chunk.bytes);
        Ok(())
    }

    fn unstage_all(&mut self) {
        self.staged.clear();
    }

    fn hold(&mut self, wanted: &[(Hash, u64)]) -> Vec<bool> {
        let found =
            wanted.iter().map(|(hash, len)| self.elsewhere.get(hash).filter(|b| b.len() as u64 == *len).cloned());
        let found: Vec<Option<Bytes>> = found.collect();
        self.held.extend(wanted.iter().zip(&found).filter_map(|((hash, _), bytes)| Some((*hash, bytes.clone()?))));
        found.iter().map(Option::is_some).collect()
    }

    fn release(&mut self) {
        self.held.clear();
    }

    fn held(&self, hash: Hash) -> Option<Bytes> {
        self.named.set(self.named.get() + 1);
        self.held.get(&hash).filter(|_| !self.rotten).cloned()
    }

    fn receive(&mut self, txn: &LogTxn) -> Result<(), FollowError> {
        if let Some(detail) = self.corrupt(txn) {
            return Err(FollowError::Corrupt { txn: txn.position.txn, detail });
        }
        self.staged.retain(|id, _| id.txn > txn.position.txn);
        self.note(&txn.records);
        self.txns.push(txn.clone());
        if self.eager {
            self.flush();
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<Position, FollowError> {
        match self.bug {
            Bug::DropFsync => {}
            Bug::AckEarly => self.durable = std::mem::replace(&mut self.promised, self.txns.len()).min(self.txns.len()),
            _ => self.flush(),
        }
        Ok(self.head())
    }
}
