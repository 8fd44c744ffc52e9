//! The bulk payloads of a session: which wait to be sent, how much of them was, and what transactions have to wait for.
//!
//! Invariant: chunks of a payload go in order; those of the transaction that was taken up go before those of later ones.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use vefs::ids::{PayloadId, TxnNo};

use crate::log::{Log, LogError, LogTxn, Payload};
use crate::wire::Chunk;

/// Most bulk payloads that wait to be sent ahead of their records.
const EARLY_MAX: usize = 1024;

/// What is left of a payload: its bytes from an offset on.
#[derive(Clone, Copy, Debug)]
struct Rest {
    id: PayloadId,
    total: u64,
    offset: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Bulk {
    waiting: VecDeque<Rest>,
    /// Given out whole, and not acknowledged.
    staged: BTreeSet<PayloadId>,
    /// Of transactions that have not begun: the number of frames given to the stream when their last chunk was.
    given: BTreeMap<TxnNo, u64>,
    /// Bytes given out ahead of their records, by payload and all together.
    early: BTreeMap<PayloadId, u64>,
    early_bytes: u64,
}

fn payloads(txn: &LogTxn) -> impl Iterator<Item = (PayloadId, u64)> + '_ {
    txn.records.iter().filter_map(|r| match r.payload {
        Some(Payload::Bulk(id, len)) => Some((id, len)),
        _ => None,
    })
}

impl Bulk {
    /// Of a session whose replica has these.
    pub fn new(staged: impl Iterator<Item = PayloadId>) -> Bulk {
        Bulk { staged: staged.collect(), ..Bulk::default() }
    }

    /// Bytes given out whose transactions have not gone.
    pub fn early(&self) -> u64 {
        self.early_bytes
    }

    /// A payload may go ahead of its record, if what waits with it is less than `room`.
    pub fn offer(&mut self, id: PayloadId, total: u64, room: u64) {
        let queued: u64 = self.waiting.iter().map(|r| r.total - r.offset).sum();
        if self.waiting.len() < EARLY_MAX && queued < room && !self.staged.contains(&id) {
            self.waiting.push_back(Rest { id, total, offset: 0 });
        }
    }

    /// A transaction was taken up: what is missing of it goes first. What it has no need of, since it cancels out in it, does not go, or no further.
    pub fn needed(&mut self, txn: &LogTxn) {
        let known = |id: &PayloadId| self.staged.contains(id) || self.waiting.iter().any(|r| r.id == *id);
        let missing = payloads(txn).filter(|(id, _)| !known(id)).map(|(id, total)| Rest { id, total, offset: 0 });
        let missing: Vec<_> = missing.collect();
        let needed: BTreeSet<PayloadId> = payloads(txn).map(|(id, _)| id).collect();
        let (first, rest): (Vec<_>, Vec<_>) = self.waiting.drain(..).partition(|r| r.id.txn <= txn.position.txn);
        let first = first.into_iter().filter(|r| needed.contains(&r.id));
        self.waiting = first.chain(missing).chain(rest).collect();
    }

    /// Whether something of transactions up to this one waits to be given out.
    pub fn waits(&self, txn: TxnNo) -> bool {
        self.waiting.front().is_some_and(|r| r.id.txn <= txn)
    }

    /// Whether nothing waits to be given out.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next chunk, of so many bytes at most.
    pub fn next(&mut self, log: &dyn Log, piece: usize) -> Result<Option<Chunk>, LogError> {
        let Some(Rest { id, total, offset }) = self.waiting.front().copied() else { return Ok(None) };
        let len = (total - offset).min(piece as u64);
        let bytes = log.payload(id, offset, len as usize)?.to_vec();
        if bytes.len() as u64 != len {
            return Err(LogError(format!("payload {id:?}: {} of {len} bytes", bytes.len())));
        }
        *self.early.entry(id).or_default() += len;
        self.early_bytes += len;
        if offset + len == total {
            self.waiting.pop_front();
            self.staged.insert(id);
        } else if let Some(front) = self.waiting.front_mut() {
            front.offset = offset + len;
        }
        Ok(Some(Chunk { id, total, offset, within: log.in_body(id)?, bytes }))
    }

    /// A chunk of this transaction was given to the stream, as the last of so many frames.
    pub fn given(&mut self, txn: TxnNo, frames: u64) {
        self.given.insert(txn, frames);
    }

    /// A transaction begins: how many frames of bulk come before it.
    pub fn before(&mut self, txn: TxnNo) -> u64 {
        let later = self.given.split_off(&txn.next());
        std::mem::replace(&mut self.given, later).into_values().max().unwrap_or(0)
    }

    /// The transaction has gone: its bulk counts with it.
    pub fn gone(&mut self, txn: TxnNo) {
        let later = self.early.split_off(&PayloadId { txn: txn.next(), offset: 0 });
        self.early_bytes -= std::mem::replace(&mut self.early, later).into_values().sum::<u64>();
    }

    /// The replica has everything up to this transaction.
    pub fn acked(&mut self, txn: TxnNo) {
        self.staged = self.staged.split_off(&PayloadId { txn: txn.next(), offset: 0 });
    }
}
