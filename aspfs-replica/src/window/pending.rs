//! Changes that some replica has not acknowledged: when the oldest one was accepted, and how many bytes there are.
//!
//! Invariants: transactions ascend strictly; `since` never descends (an entry takes over an earlier time that comes after it, which
//! leaves every minimum over a tail as it was); there are at most `max` entries. Where entries are merged, the merged one
//! is as old as its oldest and ends with its newest: exposure is then overstated, never understated.

use std::collections::VecDeque;
use std::time::Duration;

use vefs::ids::TxnNo;

#[derive(Clone, Copy, Debug)]
struct Entry {
    last: TxnNo,
    since: Duration,
    bytes: u64,
    txns: u64,
}

/// When the oldest change after a transaction was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oldest {
    /// It is older than what is remembered here.
    Unknown,
    /// There is no such change.
    Nothing,
    /// At this time since boot.
    Since(Duration),
}

/// The queue.
#[derive(Clone, Debug)]
pub struct Pending {
    entries: VecDeque<Entry>,
    settled: TxnNo,
    max: usize,
}

impl Pending {
    /// Nothing is remembered of changes up to `settled`; at most `max` (2 or more) entries are kept.
    pub fn new(settled: TxnNo, max: usize) -> Pending {
        Pending { entries: VecDeque::new(), settled, max: max.max(2) }
    }

    /// A change of `bytes` in transaction `txn`, waiting since `since`.
    pub fn add(&mut self, txn: TxnNo, since: Duration, bytes: u64) {
        let newest = self.entries.back().map_or(self.settled.next(), |e| e.last);
        let txn = txn.max(newest);
        for e in self.entries.iter_mut().rev().take_while(|e| e.since > since) {
            e.since = since;
        }
        match self.entries.back_mut() {
            Some(e) if e.last == txn => e.bytes = e.bytes.saturating_add(bytes),
            _ => self.entries.push_back(Entry { last: txn, since, bytes, txns: 1 }),
        }
        if self.entries.len() > self.max {
            self.merge();
        }
    }

    fn merge(&mut self) {
        let old: Vec<Entry> = self.entries.drain(..).collect();
        self.entries.extend(old.chunks(2).map(|pair| {
            pair[1..].iter().fold(pair[0], |a, b| Entry {
                last: b.last,
                since: a.since,
                bytes: a.bytes.saturating_add(b.bytes),
                txns: a.txns + b.txns,
            })
        }));
    }

    fn first_after(&self, txn: TxnNo) -> usize {
        self.entries.partition_point(|e| e.last <= txn)
    }

    /// When the oldest change after `txn` was accepted.
    pub fn oldest_after(&self, txn: TxnNo) -> Oldest {
        if txn < self.settled {
            return Oldest::Unknown;
        }
        self.entries.get(self.first_after(txn)).map_or(Oldest::Nothing, |e| Oldest::Since(e.since))
    }

    /// Bytes and transactions after `txn` that are remembered.
    pub fn behind(&self, txn: TxnNo) -> (u64, u64) {
        let tail = self.entries.range(self.first_after(txn)..);
        tail.fold((0, 0), |(b, t), e| (u64::saturating_add(b, e.bytes), t + e.txns))
    }

    /// Bytes of the entries that end after `from` and not after `to`.
    pub fn between(&self, from: TxnNo, to: TxnNo) -> u64 {
        let (from, to) = (self.first_after(from), self.first_after(to));
        self.entries.range(from..to.max(from)).fold(0, |b, e| u64::saturating_add(b, e.bytes))
    }

    /// Nobody waits for what is in transactions up to `txn` any more.
    pub fn settle(&mut self, txn: TxnNo) {
        self.entries.drain(..self.first_after(txn));
        self.settled = self.settled.max(txn);
    }

    /// The newest transaction that was ever added or settled.
    pub fn newest(&self) -> TxnNo {
        self.entries.back().map_or(self.settled, |e| e.last)
    }

    /// Entries held, for what must stay bounded.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
