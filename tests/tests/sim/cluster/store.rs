//! A node's copy of a VE in memory: its history, role, branches and states to come, each with what of it survives a power cut; and bugs
//! to plant in it.

use std::collections::{BTreeMap, BTreeSet};

use aspfs_replica::log::{At, FollowError, Follower, Log, LogError, LogRead, LogTxn, Payload};
use aspfs_replica::wire::Chunk;
use bytes::Bytes;
use vefs::codec;
use vefs::content::InBody;
use vefs::format::role::RoleKind;
use vefs::ids::{Epoch, Hash, Lineage, PayloadId, Position, TxnNo};

use super::content::{self, Body, State};
use super::incoming::Incoming;

/// What may be wrong on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bug {
    #[default]
    None,
    /// A replica's flush says that it flushed.
    DropFsync,
    /// A replica's flush is said to have ended when it begins.
    AckEarly,
    /// The highest epoch is not remembered.
    SkipEpoch,
    /// The log hands out what is not durable.
    ShipEarly,
    /// A promotion says that it goes on one transaction before it does.
    ForkOffByOne,
    /// Writers are not slowed or stopped.
    NoThrottle,
    /// A promotion's role is not durable when writing begins.
    RoleLate,
    /// A writer does not look at its lease when an operation completes.
    NoLease,
    /// A state is put in place without having been proved.
    Unproved,
    /// A tail beyond the fork is dropped.
    DropTail,
}

/// The durable part of what a node does with a VE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    pub kind: RoleKind,
    pub epoch: Epoch,
    pub fork: Position,
    /// To whom it was handed over.
    pub successor: Option<aspfs_replica::node::NodeId>,
}

/// A stretch of history behind a state.
#[derive(Clone, Debug)]
pub struct History {
    pub base: Position,
    pub start: State,
    pub txns: Vec<LogTxn>,
    pub bulk: BTreeMap<PayloadId, Bytes>,
}

/// A node's copy of a VE.
#[derive(Clone, Debug)]
pub struct Store {
    pub history: History,
    pub durable: usize,
    pub state: State,
    pub role: Role,
    /// The epoch in which this run writes.
    pub writing: Epoch,
    pub branches: BTreeMap<String, History>,
    pub staged: BTreeMap<PayloadId, Vec<u8>>,
    /// So many transactions at the start of the history can no longer be read.
    pub recycled: usize,
    pub trees: BTreeSet<Hash>,
    pub objects: BTreeMap<Hash, Bytes>,
    pub incoming: Option<Incoming>,
    /// Bytes of inline payloads, until they are forgotten.
    small: BTreeMap<Hash, Bytes>,
    held: BTreeMap<Hash, Bytes>,
    /// Payloads that came as hashes.
    pub named: std::cell::Cell<u64>,
    /// Payloads that did not travel, as nothing was left of them.
    pub cancelled: std::cell::Cell<u64>,
    /// Bytes of trees and objects that are not whole; gone after a power cut.
    pub parts: BTreeMap<Hash, Vec<u8>>,
    /// The disk is full.
    pub full: bool,
    pub bug: Bug,
    /// The name of the branch that the present state becomes when another is installed.
    pub branch: Option<String>,
    promised: usize,
}

impl Store {
    pub fn new(lineage: Lineage, kind: RoleKind, whole: bool, bug: Bug) -> Store {
        let base = content::empty(lineage);
        let history = History { base, start: State::default(), txns: vec![], bulk: BTreeMap::new() };
        let role = Role { kind, epoch: Epoch(1), fork: base, successor: None };
        let objects = [content::object(1), content::object(2)].into_iter().filter(|_| whole);
        Store {
            history,
            durable: 0,
            state: State::default(),
            role,
            writing: Epoch(1),
            branches: BTreeMap::new(),
            staged: BTreeMap::new(),
            recycled: 0,
            trees: whole.then(|| Hash::of(&content::tree())).into_iter().collect(),
            objects: objects.map(|b| (Hash::of(&b), b)).collect(),
            incoming: None,
            small: BTreeMap::new(),
            held: BTreeMap::new(),
            named: std::cell::Cell::new(0),
            cancelled: std::cell::Cell::new(0),
            parts: BTreeMap::new(),
            full: false,
            bug,
            branch: None,
            promised: 0,
        }
    }

    pub fn lineage(&self) -> Lineage {
        self.history.base.lineage
    }

    /// The position after the first `n` transactions.
    pub fn position(&self, n: usize) -> Position {
        n.checked_sub(1).map_or(self.history.base, |last| self.history.txns[last].position)
    }

    pub fn head(&self) -> Position {
        self.position(self.history.txns.len())
    }

    pub fn durable_head(&self) -> Position {
        self.position(self.durable)
    }

    fn index(&self, txn: TxnNo) -> Option<usize> {
        txn.0.checked_sub(self.history.base.txn.0).map(|n| n as usize)
    }

    /// A transaction is made: keys set to bytes, keys set to objects. Its bulk payloads.
    pub fn write(
        &mut self,
        sets: Vec<(u8, Vec<u8>)>,
        seals: &[(u8, u8)],
        required: Option<u64>,
    ) -> Vec<(PayloadId, u64)> {
        let (txn, bulk) = content::transaction(self.head(), self.writing, sets, seals, required);
        let ids = bulk.iter().map(|(id, b)| (*id, b.len() as u64)).collect();
        self.history.bulk.extend(bulk);
        self.enter(txn);
        ids
    }

    fn enter(&mut self, txn: LogTxn) {
        self.make_objects(&txn);
        self.note(&txn);
        self.state.apply(txn.position.txn, &txn.records, &self.history.bulk);
        self.history.txns.push(txn);
    }

    /// Objects are made of the node's own bytes; here everybody knows them.
    fn make_objects(&mut self, txn: &LogTxn) {
        for record in &txn.records {
            if let Ok(Body::Seal(_, hash)) = codec::decode(&record.body) {
                let made = (0..=255).map(content::object).find(|b| Hash::of(b) == hash).unwrap();
                self.objects.insert(hash, made);
            }
        }
    }

    /// Inline payloads are known from now on; every few transactions all are forgotten.
    fn note(&mut self, txn: &LogTxn) {
        if txn.position.txn.0.is_multiple_of(9) {
            self.small.clear();
        }
        for record in &txn.records {
            if let Some(Payload::Inline(bytes)) = &record.payload {
                self.small.insert(Hash::of(bytes), bytes.clone());
            }
        }
    }

    pub fn flush(&mut self) {
        self.durable = self.history.txns.len();
    }

    /// Whether every object that the state names is here.
    pub fn has_objects(&self) -> bool {
        let named = self.state.rows.values().filter_map(|v| match codec::decode(v) {
            Ok(content::Value::Object(hash)) => Some(hash),
            _ => None,
        });
        !self.trees.is_empty() && named.into_iter().all(|hash| self.objects.contains_key(&hash))
    }

    /// The power goes: what is not durable is gone.
    pub fn power_cut(&mut self) {
        self.history.txns.truncate(self.durable);
        let durable = self.durable_head().txn;
        self.history.bulk.retain(|id, _| id.txn <= durable);
        self.staged.clear();
        self.parts.clear();
        self.replay();
        if let Some(incoming) = &mut self.incoming {
            incoming.power_cut();
        }
    }

    /// Derives the state anew.
    pub fn replay(&mut self) {
        let mut state = self.history.start.clone();
        for txn in &self.history.txns {
            state.apply(txn.position.txn, &txn.records, &self.history.bulk);
        }
        self.state = state;
    }

    /// A transaction as it travels.
    fn without_cancelled(&self, txn: &LogTxn) -> LogTxn {
        let (mut txn, cancelled) = (txn.clone(), content::cancelled(&txn.records));
        for (record, cancelled) in txn.records.iter_mut().zip(cancelled) {
            if let Some(payload) = record.payload.as_mut().filter(|_| cancelled) {
                *payload = Payload::Cancelled(payload.size());
                self.cancelled.set(self.cancelled.get() + 1);
            }
        }
        txn
    }

    fn corrupt(&self, txn: &LogTxn) -> Option<String> {
        let head = self.head();
        if self.role.kind != RoleKind::Replica {
            return Some("not a replica".into());
        }
        if txn.previous != head.chain || txn.position.txn != head.txn.next() {
            return Some("not behind the head".into());
        }
        if content::chain(txn.previous, &txn.position, &txn.records, &txn.seal) != txn.position.chain {
            return Some("chain hash".into());
        }
        let mut offset = 0;
        for (record, cancelled) in txn.records.iter().zip(content::cancelled(&txn.records)) {
            let Ok(body) = codec::decode::<Body>(&record.body) else { return Some("body".into()) };
            let Body::Set(_, len, hash) = body else { continue };
            let id = PayloadId { txn: txn.position.txn, offset };
            offset += len;
            if cancelled && record.payload == Some(Payload::Cancelled(len)) {
                continue;
            }
            let found = match &record.payload {
                Some(Payload::Inline(bytes)) => Hash::of(bytes),
                Some(Payload::Bulk(named, _)) if *named == id => {
                    self.staged.get(&id).map(|b| Hash::of(b)).unwrap_or_default()
                }
                _ => Hash::default(),
            };
            if found != hash {
                return Some("payload".into());
            }
        }
        None
    }
}

impl Log for Store {
    fn durable(&self) -> Position {
        if self.bug == Bug::ShipEarly { self.head() } else { self.durable_head() }
    }

    fn epoch(&self) -> Epoch {
        self.writing.max(self.role.epoch)
    }

    fn base(&self) -> Hash {
        Hash::of(&content::tree())
    }

    fn position_at(&self, txn: TxnNo) -> At {
        if txn == TxnNo(0) {
            return At::Here(content::empty(self.lineage()));
        }
        match self.index(txn) {
            Some(n) if n > self.durable => At::Beyond,
            Some(n) if n >= self.recycled => At::Here(self.position(n)),
            _ => At::Gone,
        }
    }

    fn read(&self, after: TxnNo) -> Result<LogRead, LogError> {
        if after >= Log::durable(self).txn {
            return Ok(LogRead::AtEnd);
        }
        Ok(match self.index(after) {
            Some(n) if n >= self.recycled => LogRead::Txn(self.without_cancelled(&self.history.txns[n])),
            _ => LogRead::Gone,
        })
    }

    fn payload(&self, id: PayloadId, offset: u64, len: usize) -> Result<Bytes, LogError> {
        let bytes = self.history.bulk.get(&id).ok_or_else(|| LogError("no such payload".into()))?;
        Ok(bytes.slice(offset as usize..offset as usize + len))
    }

    fn in_body(&self, _id: PayloadId) -> Result<Option<InBody>, LogError> {
        Ok(None)
    }

    fn alike(&self, txn: &LogTxn) -> Vec<Option<Hash>> {
        let one = |payload: &Option<Payload>| {
            let Some(Payload::Inline(bytes)) = payload else { return None };
            Some(Hash::of(bytes)).filter(|hash| self.small.contains_key(hash))
        };
        txn.records.iter().map(|r| one(&r.payload)).collect()
    }
}

impl Follower for Store {
    fn base(&self) -> Hash {
        Log::base(self)
    }

    fn head(&self) -> Position {
        Store::head(self)
    }

    fn durable(&self) -> Position {
        self.durable_head()
    }

    fn highest_epoch(&self) -> Epoch {
        if self.bug == Bug::SkipEpoch { Epoch(0) } else { self.role.epoch }
    }

    fn note_epoch(&mut self, epoch: Epoch) -> Result<(), FollowError> {
        if self.full {
            return Err(FollowError::Store("no space".into()));
        }
        if epoch > self.role.epoch {
            (self.role.epoch, self.role.successor) = (epoch, None);
        }
        Ok(())
    }

    fn stage(&mut self, chunk: &Chunk) -> Result<(), FollowError> {
        if self.full {
            return Err(FollowError::Store("no space".into()));
        }
        let staged = self.staged.entry(chunk.id).or_default();
        staged.truncate(chunk.offset as usize);
        staged.extend_from_slice(&chunk.bytes);
        Ok(())
    }

    fn unstage_all(&mut self) {
        self.staged.clear();
    }

    fn hold(&mut self, wanted: &[(Hash, u64)]) -> Vec<bool> {
        let found = wanted.iter().map(|(hash, len)| self.small.get(hash).filter(|b| b.len() as u64 == *len).cloned());
        let found: Vec<Option<Bytes>> = found.collect();
        self.held.extend(wanted.iter().zip(&found).filter_map(|((hash, _), bytes)| Some((*hash, bytes.clone()?))));
        found.iter().map(Option::is_some).collect()
    }

    fn release(&mut self) {
        self.held.clear();
    }

    fn held(&self, hash: Hash) -> Option<Bytes> {
        self.named.set(self.named.get() + 1);
        self.held.get(&hash).cloned()
    }

    fn receive(&mut self, txn: &LogTxn) -> Result<(), FollowError> {
        if let Some(detail) = self.corrupt(txn) {
            return Err(FollowError::Corrupt { txn: txn.position.txn, detail });
        }
        if self.full {
            return Err(FollowError::Store("no space".into()));
        }
        for record in &txn.records {
            if let Some(Payload::Bulk(id, _)) = &record.payload {
                let bytes = self.staged.remove(id).unwrap();
                self.history.bulk.insert(*id, Bytes::from(bytes));
            }
        }
        self.staged.retain(|id, _| id.txn > txn.position.txn);
        self.enter(txn.clone());
        Ok(())
    }

    fn sync(&mut self) -> Result<Position, FollowError> {
        match self.bug {
            Bug::DropFsync => {}
            Bug::AckEarly => {
                let before = std::mem::replace(&mut self.promised, self.history.txns.len());
                self.durable = before.min(self.history.txns.len()).max(self.durable);
            }
            _ => self.flush(),
        }
        Ok(Store::head(self))
    }
}
