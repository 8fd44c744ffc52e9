//! Which payload bytes are alive: what some extent that can still be read names.

use std::collections::BTreeMap;

use crate::ids::PayloadId;
use crate::state::key::Value;
use crate::types::Source;

/// Live payload bytes: disjoint ranges, start → end offset within a transaction.
#[derive(Default)]
pub(super) struct Marks(BTreeMap<PayloadId, u64>);

impl Marks {
    /// Marks the payload bytes that a value names.
    pub fn mark_value(&mut self, value: &Value) {
        if let Value::Extent(e) = value
            && let Source::Payload(id) = e.source
        {
            self.mark(id, e.len);
        }
    }

    /// Marks a range as alive.
    pub fn mark(&mut self, id: PayloadId, len: u64) {
        let (mut start, mut end) = (id.offset, id.offset.saturating_add(len));
        while let Some((s, e)) =
            self.0.range(..=PayloadId { txn: id.txn, offset: end }).next_back().map(|(s, e)| (*s, *e))
        {
            if s.txn != id.txn || e < start {
                break;
            }
            start = start.min(s.offset);
            end = end.max(e);
            self.0.remove(&s);
        }
        self.0.insert(PayloadId { txn: id.txn, offset: start }, end);
    }

    /// All live ranges.
    pub fn all(&self) -> impl Iterator<Item = (PayloadId, u64)> {
        self.0.iter().map(|(start, end)| (*start, end - start.offset))
    }

    /// The live parts of a range.
    pub fn live(&self, id: PayloadId, len: u64) -> Vec<(PayloadId, u64)> {
        let end = id.offset + len;
        let before = self.0.range(..=id).next_back().filter(|(s, e)| s.txn == id.txn && **e > id.offset);
        let first = before.map_or(id, |(s, _)| *s);
        let mut out = Vec::new();
        for (s, e) in self.0.range(first..PayloadId { txn: id.txn, offset: end }) {
            let (from, to) = (s.offset.max(id.offset), (*e).min(end));
            if from < to {
                out.push((PayloadId { txn: id.txn, offset: from }, to - from));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TxnNo;

    fn id(txn: u64, offset: u64) -> PayloadId {
        PayloadId { txn: TxnNo(txn), offset }
    }

    #[test]
    fn marks_join_and_cut() {
        let mut m = Marks::default();
        m.mark(id(1, 10), 10);
        m.mark(id(1, 30), 10);
        m.mark(id(2, 0), 5);
        assert_eq!(m.live(id(1, 0), 100), [(id(1, 10), 10), (id(1, 30), 10)]);
        assert_eq!(m.live(id(1, 15), 20), [(id(1, 15), 5), (id(1, 30), 5)]);
        assert!(m.live(id(1, 20), 10).is_empty());
        m.mark(id(1, 15), 20);
        assert_eq!(m.live(id(1, 0), 100), [(id(1, 10), 30)]);
    }
}
