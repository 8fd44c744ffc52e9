//! Followers' cursors: what of the history is held for whom, and what each of them said that it has.
//!
//! Invariant: a cursor that only holds history is no acknowledgement (promise G14). It counts as one from the follower's own word on, until the
//! follower is offered a whole state, or says that it has nothing.

use std::collections::BTreeMap;
use std::sync::MutexGuard;

use super::{Known, State, Ve};
use crate::codec;
use crate::error::Result;
use crate::ids::{Epoch, Hash, TxnNo};
use crate::meta::{Batch, Scan, Table, prefix_end, rows};

/// A follower's place in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// What is behind this is held for it.
    pub txn: TxnNo,
    /// It said that it has everything up to here; else nothing is known of what it has.
    pub acked: bool,
    /// Epoch and chain hash of that, which the journal may not tell any more.
    pub at: Option<(Epoch, Hash)>,
    /// Journal position behind that.
    pub journal: u64,
    /// It lost its hold: what it needs may be gone.
    pub lost: bool,
}

impl State {
    /// Cursors that hold more than `cap` bytes lose their hold.
    pub fn limit_cursors(&mut self, cap: u64) {
        let behind: BTreeMap<[u8; 16], u64> =
            self.cursors.iter().map(|(n, c)| (*n, self.index.behind(c.txn))).collect();
        let (ve, position) = (self.role.ve, self.journal.position());
        for (node, cursor) in self.cursors.iter_mut().filter(|(_, c)| !c.lost) {
            let held = behind[node].max(position.saturating_sub(cursor.journal));
            if held > cap {
                cursor.lost = true;
                tracing::warn!(%ve, txn = %cursor.txn, held, "a replica is too far behind: its journal is held no longer");
            }
        }
    }

    /// The nodes whose cursors hold the journal.
    pub fn holding(&self) -> impl Iterator<Item = [u8; 16]> {
        self.cursors.iter().filter(|(_, c)| !c.lost).map(|(node, _)| *node)
    }

    /// Epoch and chain hash of a transaction at which a follower stands.
    pub(super) fn followed(&self, txn: TxnNo) -> Option<(Epoch, Hash)> {
        self.cursors.values().find(|c| c.txn == txn).and_then(|c| c.at)
    }

    /// Payloads of transactions after this one are held for followers.
    pub fn unshipped_after(&self) -> Option<TxnNo> {
        self.cursors.values().filter(|c| !c.lost).map(|c| c.txn).min()
    }

    /// The rows of the cursors.
    pub fn cursor_rows(&self, batch: &mut Batch) {
        for (node, c) in &self.cursors {
            let (epoch, chain) = c.at.unwrap_or_default();
            let row: Row = (c.txn, c.journal, c.lost, epoch, chain, c.acked);
            batch.put(Table::System, rows::cursor(self.tables.ve, *node), codec::encode(&row));
        }
    }
}

/// A cursor's row: transaction, journal position, whether it is lost, epoch and chain hash (zeros where they were not known), whether it was
/// acknowledged.
type Row = (TxnNo, u64, bool, Epoch, Hash, bool);

/// Stores of before have rows without the last one, or the last three: what was not acknowledged may be among them, so none counts as it.
pub(super) fn cursor_row(row: &[u8]) -> std::result::Result<Row, crate::meta::MetaError> {
    rows::decode::<Row>("system", row).or_else(|e| {
        if let Ok((txn, journal, lost, epoch, chain)) = rows::decode("system", row) {
            return Ok((txn, journal, lost, epoch, chain, false));
        }
        let (txn, journal, lost) = rows::decode("system", row).map_err(|_| e)?;
        Ok((txn, journal, lost, Epoch(0), Hash::default(), false))
    })
}

/// The cursors that are stored.
pub(crate) fn load_cursors(
    meta: &dyn crate::meta::MetaStore,
    slot: crate::ids::VeId,
) -> Result<BTreeMap<[u8; 16], Cursor>> {
    let (mut out, mut bad) = (BTreeMap::new(), None);
    let prefix = rows::cursor_prefix(slot);
    let end = prefix_end(&prefix).unwrap_or_else(|| vec![0xff; 32]);
    meta.scan(Table::System, &prefix, &end, &mut |k, v| {
        let row = rows::parse_cursor(k).and_then(|node| Ok((node, cursor_row(v)?)));
        match row {
            Ok((node, (txn, journal, lost, epoch, chain, acked))) => {
                let at = (chain != Hash::default()).then_some((epoch, chain));
                out.insert(node, Cursor { txn, acked, at, journal, lost });
                Scan::Next
            }
            Err(e) => {
                bad = Some(e.into());
                Scan::Stop
            }
        }
    })?;
    bad.map_or(Ok(out), Err)
}

impl Ve {
    /// A follower has everything up to `txn`, durably: what is behind that is held for it.
    pub fn set_cursor(&self, node: [u8; 16], txn: TxnNo) -> Result<()> {
        self.put_cursor(node, txn, true)
    }

    /// What is behind `txn` is held for a follower that has not said what it has, or is about to have something else.
    pub fn hold_for(&self, node: [u8; 16], txn: TxnNo) -> Result<()> {
        self.put_cursor(node, txn, false)
    }

    /// What a follower acknowledged means nothing any more, until it says otherwise. What is held for it stays.
    pub fn doubt_cursor(&self, node: [u8; 16]) -> Result<()> {
        let mut s = self.state.lock();
        let Some(cursor) = s.cursors.get_mut(&node).filter(|c| c.acked) else { return Ok(()) };
        cursor.acked = false;
        self.store_cursors(s)
    }

    fn put_cursor(&self, node: [u8; 16], txn: TxnNo, acked: bool) -> Result<()> {
        if self.state.lock().cursors.get(&node).is_some_and(|c| (c.txn, c.acked, c.lost) == (txn, acked, false)) {
            return Ok(());
        }
        let sealed = if txn == TxnNo(0) { None } else { self.find(txn)? };
        // The journal may begin right behind it.
        let next = if sealed.is_none() && txn != TxnNo(0) { self.find(txn.next())? } else { None };
        let at = match self.position_at(txn)? {
            Known::Here(position) => Some((position.epoch, position.chain)),
            Known::Beyond | Known::Gone => None,
        };
        let mut s = self.state.lock();
        let journal = match sealed {
            Some(sealed) => sealed.end,
            None if txn == s.head.txn => s.head.journal,
            None => next.map_or(s.journal.oldest(), |next| next.begin),
        };
        // A start that did not know of a new one would give its journal back before anybody could say so, and one that did not know that one is doubted
        // would count on it.
        let news = s.cursors.get(&node).is_none_or(|c| c.acked && !acked);
        // A position whose successors were recycled holds nothing.
        let lost = sealed.or(next).is_none() && txn != s.head.txn && s.journal.oldest() > 0;
        s.cursors.insert(node, Cursor { txn, acked, at, journal, lost });
        if news { self.store_cursors(s) } else { Ok(()) }
    }

    /// Makes the rows of the cursors durable.
    fn store_cursors(&self, s: MutexGuard<'_, State>) -> Result<()> {
        let mut batch = Batch::default();
        s.cursor_rows(&mut batch);
        self.shared.meta.write(batch)?;
        drop(s);
        Ok(self.shared.meta.persist()?)
    }

    /// Nothing is held any more for this follower.
    pub fn drop_cursor(&self, node: [u8; 16]) -> Result<()> {
        let mut s = self.state.lock();
        if s.cursors.remove(&node).is_some() {
            let mut batch = Batch::default();
            batch.delete(Table::System, rows::cursor(self.slot, node));
            self.shared.meta.write(batch)?;
        }
        Ok(())
    }

    /// The followers' cursors, and how many bytes lie behind each.
    pub fn cursors(&self) -> Vec<([u8; 16], Cursor, u64)> {
        let s = self.state.lock();
        s.cursors.iter().map(|(n, c)| (*n, *c, s.index.behind(c.txn))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::bed;

    /// What a hold is at counted as acknowledged (checks G14).
    #[test]
    fn a_hold_is_no_acknowledgement() {
        let (_store, ve, _) = bed::in_memory();
        bed::create(&ve, "file");
        ve.commit().unwrap();
        let (node, head) = ([2; 16], ve.position().txn);
        let acked = || (ve.cursors().iter().map(|(_, c, _)| (c.txn, c.acked))).collect::<Vec<_>>();
        ve.hold_for(node, TxnNo(0)).unwrap();
        assert_eq!(acked(), [(TxnNo(0), false)]);
        for _ in 0..2 {
            ve.set_cursor(node, head).unwrap();
            assert_eq!(acked(), [(head, true)]);
            ve.hold_for(node, head).unwrap();
            assert_eq!(acked(), [(head, false)], "it is about to have something else");
        }
        ve.set_cursor(node, head).unwrap();
        ve.doubt_cursor(node).unwrap();
        assert_eq!(acked(), [(head, false)]);
        let stored = load_cursors(&*ve.shared.meta, ve.slot).unwrap();
        assert!(!stored[&node].acked, "a start counted on it");
    }

    /// Rows of before say nothing of acknowledgements.
    #[test]
    fn rows_of_before_are_read() {
        let (chain, epoch) = (Hash([7; 32]), Epoch(3));
        let row = |bytes: Vec<u8>| cursor_row(&bytes).unwrap();
        let now: Row = (TxnNo(900), 70_000, true, epoch, chain, true);
        assert_eq!(row(codec::encode(&now)), now);
        assert_eq!(
            row(codec::encode(&(TxnNo(900), 70_000u64, true, epoch, chain))),
            (now.0, now.1, now.2, now.3, now.4, false)
        );
        let first = (TxnNo(900), 70_000, true, Epoch(0), Hash::default(), false);
        assert_eq!(row(codec::encode(&(TxnNo(900), 70_000u64, true))), first);
    }
}
