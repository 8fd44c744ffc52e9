//! Garbage collection: forgetting old versions, and giving back the bytes that then nothing reads.
//!
//! Removal has two phases (promise G26): first the rows of forgotten versions go, durably, so that no reader and no hold can
//! begin on them; then what only they could read. A crash in between leaves more than is needed, never less.
//!
//! Liveness of bytes is found by marking, not by counting: every extent in `Current` and `History` marks the payload ids it names. A
//! count that drifts would lose data; a mark that is missing cannot happen without a missing extent.

use std::collections::BTreeSet;

use super::Ve;
use super::marks::Marks;
use crate::change::Hold;
use crate::clock::Timestamp;
use crate::codec;
use crate::error::{Error, Result};
use crate::ids::{Hash, TxnNo, VeId};
use crate::meta::rows;
use crate::meta::{Batch, MetaError, MetaStore, Scan, Table, prefix_end};
use crate::state::key::Value;
use crate::state::publish::former_cost;
use crate::types::Source;

/// How long versions are kept: for each step, versions younger than `age` seconds are kept one per `every` seconds (0: all).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// (age, every), by rising age. What is older than the last age goes.
    pub steps: Vec<(i64, i64)>,
}

impl Default for Retention {
    /// 10 minutes: all; 1 hour: one a minute; 1 day: one a quarter of an hour; 7 days: one a day.
    fn default() -> Self {
        Retention { steps: vec![(600, 0), (3600, 60), (86_400, 900), (7 * 86_400, 86_400)] }
    }
}

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Versions that can no longer be read.
    pub versions: u64,
    /// Rows of history removed.
    pub rows: u64,
    /// Bytes that history still takes.
    pub history: u64,
    /// Live bytes that were moved out of mostly dead extent files.
    pub moved: u64,
    /// Extent files that have no live bytes any more.
    pub files: u64,
}

/// Rows per batch.
const BATCH: usize = 10_000;

/// Which versions stay readable.
struct Kept {
    points: BTreeSet<TxnNo>,
    /// Every version from here on.
    floor: TxnNo,
}

impl Kept {
    /// Whether a value that was current from `birth` until before `death` can still be read.
    fn reads(&self, birth: TxnNo, death: TxnNo) -> bool {
        death > self.floor || self.points.range(birth..death).next().is_some()
    }
}

/// Receives a row's key and value.
type EachRow<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), MetaError> + 'a;

impl Ve {
    /// Forgets what the retention, the history cap, holds and readers do not keep, and cleans extent files. Extent files
    /// that came free are removed by the store after its next checkpoint.
    pub fn collect(&self, retention: &Retention) -> Result<Collected> {
        self.publish()?;
        let _one = self.begin_collecting();
        let mut done = Collected::default();
        let mut kept = self.withdraw(retention, false, &mut done)?;
        let mut marks = Marks::default();
        self.sweep_history(&kept, &mut marks, &mut done)?;
        let cap = self.settings().history_bytes;
        // Nobody knows beforehand what a version costs: half of them at a time, until it is enough (promise G33).
        while done.history > cap {
            let before = done.versions;
            kept = self.withdraw(retention, true, &mut done)?;
            if done.versions == before {
                break;
            }
            marks = Marks::default();
            self.sweep_history(&kept, &mut marks, &mut done)?;
        }
        self.mark_current(&mut marks)?;
        self.sweep_changes(&kept)?;
        self.mark_unshipped(&mut marks)?;
        self.clean(&marks, &mut done)?;
        Ok(done)
    }

    /// Phase one: decides which versions stay, removes the rows of the others, durably. With `halve` the older half of those that
    /// only the retention keeps goes as well.
    fn withdraw(&self, retention: &Retention, halve: bool, done: &mut Collected) -> Result<Kept> {
        // Nobody begins to read while the decision is made.
        let readers = self.readers.lock();
        let mut txns = Vec::new();
        self.txn_rows(&mut |txn, row| txns.push((txn, row.time)))?;
        let now = self.shared.clock.wall();
        let published = self.published()?;
        let mut pinned: BTreeSet<TxnNo> = readers.keys().copied().collect();
        pinned.insert(published);
        let mut floor = published;
        for (_, Hold { txn, onwards, .. }) in self.holds()? {
            pinned.insert(txn);
            if onwards {
                floor = floor.min(txn);
            }
        }
        pinned.extend(self.mounted_versions()?.into_iter().map(|(_, mounted)| mounted.txn));
        pinned.extend(txns.iter().map(|(t, _)| *t).filter(|t| *t >= floor));
        let mut keep: BTreeSet<TxnNo> = &chosen(retention, &txns, now) - &pinned;
        if halve {
            let last = keep.len().div_ceil(2);
            keep = keep.into_iter().skip(last).collect();
        }
        keep.extend(pinned);
        // The empty state at the beginning has no row: it is kept while nothing was ever forgotten.
        if self.state.lock().head.floor == TxnNo(0) && keep.len() == txns.len() {
            keep.insert(TxnNo(0));
        }
        let mut batch = Batch::default();
        for (txn, _) in txns.iter().filter(|(t, _)| !keep.contains(t)) {
            batch.delete(Table::System, rows::txn(self.slot, *txn));
            done.versions += 1;
        }
        if !keep.contains(&TxnNo(0)) {
            self.set_floor(keep.first().copied().unwrap_or(published), &mut batch)?;
        }
        if !batch.rows.is_empty() {
            self.shared.meta.write(batch)?;
            self.shared.meta.persist()?;
        }
        Ok(Kept { points: keep, floor })
    }

    fn set_floor(&self, floor: TxnNo, batch: &mut Batch) -> Result<()> {
        self.state.lock().head.floor = floor;
        self.edit_head(batch, |head| head.floor = floor)
    }

    /// Changes the stored head; the caller holds `publishing`, so that nothing is published meanwhile.
    fn edit_head(&self, batch: &mut Batch, edit: impl FnOnce(&mut rows::Head)) -> Result<()> {
        if let Some(row) = self.shared.meta.get(Table::System, &rows::head(self.slot))? {
            let mut head = rows::head_row(&row)?;
            edit(&mut head);
            batch.put(Table::System, rows::head(self.slot), codec::encode(&head));
        }
        Ok(())
    }

    /// Phase two: removes former values that no kept version reads, marks what the others name, and counts them.
    fn sweep_history(&self, kept: &Kept, marks: &mut Marks, done: &mut Collected) -> Result<()> {
        let mut batch = Batch::default();
        let mut history = 0;
        self.each(Table::History, &mut |k, v| {
            let (key, birth) = rows::parse_history(k)?;
            let former = rows::former_row(&key, birth, v)?;
            if kept.reads(birth, former.death) {
                history += former_cost(k.len(), v.len(), &former.value);
                marks.mark_value(&former.value);
            } else {
                batch.delete(Table::History, k.to_vec());
                done.rows += 1;
            }
            Ok(())
        })?;
        done.history = history;
        self.state.lock().head.history = history;
        self.edit_head(&mut batch, |head| head.history = history)?;
        self.write_in_parts(batch)
    }

    fn mark_current(&self, marks: &mut Marks) -> Result<()> {
        self.each(Table::Current, &mut |k, v| {
            marks.mark_value(&rows::current_row(&rows::parse_current(k)?, v)?.value);
            Ok(())
        })
    }

    /// Payloads that a follower has not taken yet stay, whole, whatever became of what named them.
    fn mark_unshipped(&self, marks: &mut Marks) -> Result<()> {
        let Some(after) = self.state.lock().unshipped_after() else { return Ok(()) };
        self.each(Table::Places, &mut |k, v| {
            let (id, place) = rows::parse_place(k, v)?;
            if id.txn > after {
                marks.mark(id, place.len);
            }
            Ok(())
        })
    }

    /// The change index is needed from the oldest kept version on.
    fn sweep_changes(&self, kept: &Kept) -> Result<()> {
        let oldest = kept.points.first().copied().unwrap_or(kept.floor);
        let mut batch = Batch::default();
        self.each(Table::Changes, &mut |k, _| {
            if rows::parse_change(k)?.0 <= oldest {
                batch.delete(Table::Changes, k.to_vec());
            }
            Ok(())
        })?;
        self.write_in_parts(batch)
    }

    /// Adds the objects that any kept state of this VE names.
    pub(crate) fn objects_in_use(&self, out: &mut BTreeSet<Hash>) -> Result<()> {
        objects_of_rows(&*self.shared.meta, self.slot, out)?;
        let s = self.state.lock();
        for layer in [Some(&s.tables.active), s.tables.frozen.as_deref()].into_iter().flatten() {
            out.extend(layer.slots().filter_map(|(_, s)| s.value.as_ref()).filter_map(object_of));
            out.extend(layer.history.iter().filter_map(|p| object_of(&p.value)));
        }
        Ok(())
    }

    /// Visits all rows of this VE in a table.
    pub(super) fn each(&self, table: Table, visit: &mut EachRow<'_>) -> Result<()> {
        each_row(&*self.shared.meta, self.slot, table, visit)
    }

    /// Writes rows in their order, a part at a time.
    pub(super) fn write_in_parts(&self, batch: Batch) -> Result<()> {
        let mut part = Batch::default();
        for (table, key, value) in batch.rows {
            match value {
                Some(v) => part.put(table, key, v),
                None => part.delete(table, key),
            }
            if part.rows.len() >= BATCH {
                self.shared.meta.write(std::mem::take(&mut part))?;
            }
        }
        if part.rows.is_empty() { Ok(()) } else { Ok(self.shared.meta.write(part)?) }
    }
}

/// Visits all rows of a slot in a table.
fn each_row(meta: &dyn MetaStore, slot: VeId, table: Table, visit: &mut EachRow<'_>) -> Result<()> {
    let from = rows::ve_prefix(slot);
    let to = prefix_end(&from).unwrap_or_else(|| vec![0xff; 64]);
    let mut bad = None;
    meta.scan(table, &from, &to, &mut |k, v| match visit(k, v) {
        Ok(()) => Scan::Next,
        Err(e) => {
            bad = Some(Error::Meta(e));
            Scan::Stop
        }
    })?;
    bad.map_or(Ok(()), Err)
}

/// Adds the objects that the rows of a slot name.
pub(crate) fn objects_of_rows(meta: &dyn MetaStore, slot: VeId, out: &mut BTreeSet<Hash>) -> Result<()> {
    each_row(meta, slot, Table::Current, &mut |k, v| {
        out.extend(object_of(&rows::current_row(&rows::parse_current(k)?, v)?.value));
        Ok(())
    })?;
    each_row(meta, slot, Table::History, &mut |k, v| {
        let (key, birth) = rows::parse_history(k)?;
        out.extend(object_of(&rows::former_row(&key, birth, v)?.value));
        Ok(())
    })
}

fn object_of(value: &Value) -> Option<Hash> {
    match value {
        Value::Extent(e) => match e.source {
            Source::Object { hash, .. } | Source::Base { hash, .. } => Some(hash),
            _ => None,
        },
        _ => None,
    }
}

/// The versions that a retention keeps: of each step's every so many seconds the newest.
fn chosen(retention: &Retention, txns: &[(TxnNo, Timestamp)], now: Timestamp) -> BTreeSet<TxnNo> {
    let mut keep = BTreeSet::new();
    let mut slots = BTreeSet::new();
    for (txn, time) in txns.iter().rev() {
        let age = now.secs.saturating_sub(time.secs);
        let Some((step, (_, every))) = retention.steps.iter().enumerate().find(|(_, (until, _))| age < *until) else {
            continue;
        };
        if *every == 0 || slots.insert((step, time.secs.div_euclid(*every))) {
            keep.insert(*txn);
        }
    }
    keep
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_thins_with_age() {
        let now = Timestamp { secs: 100_000, nanos: 0 };
        let at = |n: u64, age: i64| (TxnNo(n), Timestamp { secs: now.secs - age, nanos: 0 });
        let txns = [at(1, 90_000), at(2, 3_000), at(3, 2_999), at(4, 100), at(5, 99), at(6, 0)];
        let retention = Retention { steps: vec![(600, 0), (3600, 60)] };
        let kept: Vec<u64> = chosen(&retention, &txns, now).iter().map(|t| t.0).collect();
        assert_eq!(kept, [3, 4, 5, 6]);
    }

    /// A value is read by the versions from its birth until before its death, and by no other (checks G26).
    #[test]
    fn a_value_is_kept_for_its_versions_only() {
        let kept = Kept { points: [TxnNo(5)].into(), floor: TxnNo(10) };
        assert!(kept.reads(TxnNo(3), TxnNo(6)));
        assert!(!kept.reads(TxnNo(3), TxnNo(5)));
        assert!(!kept.reads(TxnNo(6), TxnNo(10)));
        assert!(kept.reads(TxnNo(6), TxnNo(11)));
    }
}
