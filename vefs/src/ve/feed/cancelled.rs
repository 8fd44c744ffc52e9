//! What cancels out within a transaction: payloads of which nothing is left when it ends, because later records of the same transaction
//! overwrote it, cut it off or removed its file. A database's rollback journal is written and deleted within a tick; nobody will ever read it,
//! since the state between two records is no version.
//!
//! A function of the bodies alone (promise G13): a node to which a transaction comes without these bytes finds by itself which ones may be missing.

use std::collections::BTreeMap;

use crate::change::{Body, Change};
use crate::ids::{InodeNo, TxnNo};
use crate::types::Source;

/// A run of a file's bytes that a payload of the transaction is mapped to: its length, and where it begins among the transaction's payloads.
#[derive(Clone, Copy, Debug)]
struct Run {
    len: u64,
    payload: u64,
}

/// Takes a transaction's bodies in order.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    txn: TxnNo,
    runs: BTreeMap<(InodeNo, u64), Run>,
    /// Of each record: where its payload begins among the transaction's, and its length; 0 where it has none.
    payloads: Vec<(u64, u64)>,
    next: u64,
}

impl Tracker {
    pub fn new(txn: TxnNo) -> Tracker {
        Tracker { txn, ..Tracker::default() }
    }

    /// The next record.
    pub fn take(&mut self, body: &Body) {
        let len = body.payload.map_or(0, |p| p.len);
        self.payloads.push((self.next, len));
        self.next = self.next.saturating_add(len);
        for change in &body.changes {
            match change {
                Change::Map(ino, offset, extent) => {
                    self.cut(*ino, *offset, offset.saturating_add(extent.len));
                    if let Source::Payload(id) = extent.source
                        && id.txn == self.txn
                    {
                        self.runs.insert((*ino, *offset), Run { len: extent.len, payload: id.offset });
                    }
                }
                Change::Unmap(ino, offset, len) => self.cut(*ino, *offset, offset.saturating_add(*len)),
                Change::DropInode(ino) => self.cut(*ino, 0, u64::MAX),
                _ => {}
            }
        }
    }

    /// Nothing is mapped from one offset of a file to another. A run is removed once and leaves two at most: all in all the cost is that of sorting.
    fn cut(&mut self, ino: InodeNo, from: u64, to: u64) {
        let end = |start: u64, run: Run| start.saturating_add(run.len);
        let before = self.runs.range(..(ino, from)).next_back().map(|(k, r)| (*k, *r));
        if let Some(((_, start), run)) = before.filter(|((i, start), run)| *i == ino && end(*start, *run) > from) {
            self.runs.insert((ino, start), Run { len: from - start, ..run });
            self.keep_right(ino, start, run, to);
        }
        while let Some((&(i, start), &run)) = self.runs.range((ino, from)..).next()
            && i == ino
            && start < to
        {
            self.runs.remove(&(ino, start));
            self.keep_right(ino, start, run, to);
        }
    }

    /// What of a run lies behind `to` stays.
    fn keep_right(&mut self, ino: InodeNo, start: u64, run: Run, to: u64) {
        let end = start.saturating_add(run.len);
        if end > to {
            let right = Run { len: end - to, payload: run.payload.saturating_add(to - start) };
            self.runs.insert((ino, to), right);
        }
    }

    /// Of each record: whether nothing is left of its payload.
    pub fn cancelled(&self) -> Vec<bool> {
        let mut left: Vec<(u64, u64)> =
            self.runs.values().map(|r| (r.payload, r.payload.saturating_add(r.len))).collect();
        left.sort_unstable();
        // Ends in the order of beginnings, each the highest so far: the last run that begins before a payload's end tells whether any reaches into it.
        let mut highest = 0;
        let ends: Vec<u64> = left
            .iter()
            .map(|(_, end)| {
                highest = highest.max(*end);
                highest
            })
            .collect();
        let is_left = |begin: u64, len: u64| {
            let before = left.partition_point(|(start, _)| *start < begin.saturating_add(len));
            before.checked_sub(1).is_some_and(|last| ends[last] > begin)
        };
        self.payloads.iter().map(|(begin, len)| *len > 0 && !is_left(*begin, *len)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{PayloadRef, Purpose};
    use crate::ids::PayloadId;
    use crate::types::Extent;

    const TXN: TxnNo = TxnNo(5);
    const A: InodeNo = InodeNo(1 << 32);
    const B: InodeNo = InodeNo(1 + (1 << 32));

    fn body(payload: u64, changes: Vec<Change>) -> Body {
        let payload = (payload > 0).then_some(PayloadRef { len: payload, hash: None });
        Body { purpose: Purpose::Operation, changes, payload }
    }

    fn map(ino: InodeNo, offset: u64, len: u64, payload: u64) -> Change {
        Change::Map(ino, offset, Extent { len, source: Source::Payload(PayloadId { txn: TXN, offset: payload }) })
    }

    fn cancelled(bodies: &[Body]) -> Vec<bool> {
        let mut tracker = Tracker::new(TXN);
        bodies.iter().for_each(|b| tracker.take(b));
        tracker.cancelled()
    }

    #[test]
    fn what_is_overwritten_cut_off_or_removed_is_left_by_nobody() {
        let write = |at, payload| body(100, vec![map(A, at, 100, payload)]);
        assert_eq!(cancelled(&[write(0, 0), write(0, 100)]), [true, false]);
        assert_eq!(cancelled(&[write(0, 0), write(50, 100)]), [false, false], "half of it is left");
        assert_eq!(cancelled(&[write(0, 0), write(50, 100), write(0, 200)]), [true, false, false]);
        assert_eq!(cancelled(&[write(0, 0), body(0, vec![Change::Unmap(A, 0, 99)])]), [false, false]);
        assert_eq!(cancelled(&[write(0, 0), body(0, vec![Change::Unmap(A, 0, u64::MAX)])]), [true, false]);
        assert_eq!(cancelled(&[write(0, 0), body(0, vec![Change::DropInode(B)])]), [false, false], "another file");
        assert_eq!(cancelled(&[write(0, 0), body(0, vec![Change::DropInode(A)]), write(0, 100)]), [true, false, false]);
        // A hole in the middle leaves both ends.
        assert_eq!(cancelled(&[write(0, 0), body(0, vec![Change::Unmap(A, 1, 98)])]), [false, false]);
    }

    #[test]
    fn what_was_copied_lives_where_it_was_copied_to() {
        let write = body(100, vec![map(A, 0, 100, 0)]);
        let copy = body(0, vec![map(B, 7, 40, 60)]);
        let gone = body(0, vec![Change::DropInode(A)]);
        assert_eq!(cancelled(&[write.clone(), copy.clone(), gone.clone()]), [false, false, false]);
        let both = body(0, vec![Change::DropInode(B)]);
        assert_eq!(cancelled(&[write, copy, gone, both]), [true, false, false, false]);
        // One run of two records' bytes, as a copy of joined extents has it.
        let (first, second) = (body(10, vec![map(A, 0, 10, 0)]), body(10, vec![map(A, 10, 10, 10)]));
        let copy = body(0, vec![map(B, 0, 4, 8)]);
        let gone = body(0, vec![Change::DropInode(A)]);
        assert_eq!(cancelled(&[first, second, copy, gone]), [false, false, false, false]);
    }

    #[test]
    fn other_sources_cut_too() {
        let write = body(100, vec![map(A, 0, 100, 0)]);
        let over = |source| body(0, vec![Change::Map(A, 0, Extent { len: 100, source })]);
        assert_eq!(cancelled(&[write.clone(), over(Source::Unwritten)]), [true, false]);
        let older = Source::Payload(PayloadId { txn: TxnNo(4), offset: 0 });
        assert_eq!(cancelled(&[write, over(older)]), [true, false], "of another transaction");
        // No sum of offsets wraps around.
        let far = body(100, vec![map(A, u64::MAX - 5, 100, u64::MAX - 5)]);
        assert_eq!(cancelled(&[far, body(0, vec![Change::DropInode(A)])]), [true, false]);
    }
}
