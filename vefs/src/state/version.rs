//! The state of a VE as of a past transaction, read from the metadata store alone: everything up to it was published before.
//!
//! A row of `Current` counts if it was born at or before the version; else the youngest former value born at or before it, if it
//! had not died by then; else the base tree's.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::key::{Key, KeyKind, Value};
use super::root::OwnKeys;
use super::tables::{base_range, base_value};
use super::view::{Scan, View};
use crate::base::BaseTree;
use crate::error::{Error, Result};
use crate::ids::{InodeNo, TxnNo, VeId};
use crate::meta::rows;
use crate::meta::{MetaStore, Table};
use crate::types::Extent;

/// Bytes of rows that a scan looks at together.
const SCAN_PAGE: usize = 32 << 10;
/// Entries of the base tree that a scan looks at together.
const BASE_PAGE: usize = 512;

/// A VE as it was after a transaction.
pub struct VersionView {
    /// Which VE.
    pub ve: VeId,
    /// After which transaction.
    pub txn: TxnNo,
    /// The store that has it.
    pub meta: Arc<dyn MetaStore>,
    /// The tree below.
    pub base: Arc<BaseTree>,
}

impl VersionView {
    /// What `Current` and `History` say of a key at this version; `None` when they say nothing.
    fn stored(&self, key: &Key) -> Result<Option<Value>> {
        if let Some(row) = self.meta.get(Table::Current, &rows::current(self.ve, key.as_bytes()))? {
            let row = rows::current_row(key, &row)?;
            if row.birth <= self.txn {
                return Ok(Some(row.value));
            }
        }
        let prefix = rows::history_prefix(self.ve, key);
        let mut end = prefix.clone();
        end.extend_from_slice(&[0xff; 9]);
        let mut found = None;
        self.meta.scan(Table::History, &rows::history(self.ve, key, self.txn), &end, &mut |k, v| {
            found = Some(rows::parse_history(k).and_then(|(_, birth)| rows::former_row(key, birth, v)));
            Scan::Stop
        })?;
        match found.transpose()? {
            Some(f) if f.death > self.txn => Ok(Some(f.value)),
            _ => Ok(None),
        }
    }

    /// The VE's own keys behind `after` and up to `upto`, about `max` bytes of them and at least one, and whether there are no more.
    pub fn own_page(&self, after: Option<&Key>, upto: Option<&Key>, max: usize) -> Result<(Vec<(Key, Value)>, bool)> {
        let mut from = after.map_or(Key::first(), Key::following);
        let end = upto.map_or(Key::last(), Key::beyond);
        loop {
            // `Current` says how far a page goes; what only `History` has in between belongs to it.
            let to = self.page_end_before(&from, &end, max)?;
            let mut page = self.collect(&from, to.as_ref().unwrap_or(&end))?;
            // Former values of `after` sort behind it.
            page.retain(|key, _| after.is_none_or(|after| key > after) && upto.is_none_or(|upto| key <= upto));
            let page: Vec<(Key, Value)> = page.into_iter().collect();
            match to {
                None => return Ok((page, true)),
                Some(to) if page.is_empty() => from = to,
                Some(_) => return Ok((page, false)),
            }
        }
    }

    /// The key before which a page that begins at `from` and goes no further than `to` ends; `None` where nothing is left behind it. Former
    /// values count as present ones do: a directory may have lost all its entries since.
    fn page_end_before(&self, from: &Key, to: &Key, max: usize) -> Result<Option<Key>> {
        let (low, high) = (rows::current(self.ve, from.as_bytes()), rows::current(self.ve, to.as_bytes()));
        let mut ends: Vec<Key> = Vec::new();
        for table in [Table::Current, Table::History] {
            let (mut bytes, mut end) = (0, None);
            self.meta.scan(table, &low, &high, &mut |k, v| {
                if bytes >= max {
                    let key = if table == Table::Current {
                        rows::parse_current(k)
                    } else {
                        rows::parse_history(k).map(|(key, _)| key)
                    };
                    // All former values of a key are of one page.
                    if key.as_ref().map_or(true, |key| key > from) {
                        end = Some(key);
                        return Scan::Stop;
                    }
                }
                bytes += k.len() + v.len();
                Scan::Next
            })?;
            ends.extend(end.transpose()?);
        }
        Ok(ends.into_iter().min())
    }

    /// All keys in a range that `Current` or `History` had at this version.
    fn collect(&self, from: &Key, to: &Key) -> Result<BTreeMap<Key, Value>> {
        let mut out = BTreeMap::new();
        let mut bad: Option<Error> = None;
        let (low, high) = (rows::current(self.ve, from.as_bytes()), rows::current(self.ve, to.as_bytes()));
        self.meta.scan(Table::Current, &low, &high, &mut |k, v| {
            let row = rows::parse_current(k).and_then(|key| rows::current_row(&key, v).map(|row| (key, row)));
            match row {
                Ok((key, row)) if row.birth <= self.txn => {
                    out.insert(key, row.value);
                }
                Ok(_) => {}
                Err(e) => bad = Some(e.into()),
            }
            Scan::Next
        })?;
        self.meta.scan(Table::History, &low, &high, &mut |k, v| {
            let row = rows::parse_history(k).and_then(|(key, birth)| {
                let former = rows::former_row(&key, birth, v)?;
                Ok((key, birth, former))
            });
            match row {
                Ok((key, birth, former)) if birth <= self.txn && self.txn < former.death => {
                    out.insert(key, former.value);
                }
                Ok(_) => {}
                Err(e) => bad = Some(e.into()),
            }
            Scan::Next
        })?;
        bad.map_or(Ok(out), Err)
    }
}

/// Whiteouts as such.
impl OwnKeys for VersionView {
    fn next_inode(&self, from: InodeNo) -> Result<Option<InodeNo>> {
        let mut next: Option<InodeNo> = None;
        for kind in KeyKind::ALL {
            let (low, high) = (Key::first_of(kind, from), Key::first_of(kind, next.unwrap_or(InodeNo(u64::MAX))));
            let (low, high) = (rows::current(self.ve, low.as_bytes()), rows::current(self.ve, high.as_bytes()));
            for table in [Table::Current, Table::History] {
                let mut found = None;
                self.meta.scan(table, &low, &high, &mut |k, _| {
                    found = Some(match table {
                        Table::Current => rows::parse_current(k),
                        _ => rows::parse_history(k).map(|(key, _)| key),
                    });
                    Scan::Stop
                })?;
                let found = found.transpose()?.map(|key| key.ino());
                next = next.into_iter().chain(found).min();
            }
        }
        Ok(next)
    }

    fn each(
        &self,
        kind: KeyKind,
        from: InodeNo,
        to: InodeNo,
        visit: &mut dyn FnMut(&Key, &Value) -> Result<()>,
    ) -> Result<()> {
        let (mut from, to) = (Key::first_of(kind, from), Key::first_of(kind, to));
        loop {
            let end = self.page_end_before(&from, &to, SCAN_PAGE)?;
            let until = end.as_ref().unwrap_or(&to);
            let mut page = self.collect(&from, until)?;
            // Former values of a key sort behind it.
            page.retain(|key, _| *key >= from && key < until);
            page.iter().try_for_each(|(key, value)| visit(key, value))?;
            let Some(end) = end else { return Ok(()) };
            from = end;
        }
    }
}

impl View for VersionView {
    fn get(&self, key: &Key) -> Result<Option<Value>> {
        match self.stored(key)? {
            Some(Value::Whiteout) => Ok(None),
            Some(value) => Ok(Some(value)),
            None => Ok(base_value(&self.base, key)),
        }
    }

    fn scan(&self, from: &Key, to: &Key, visit: &mut dyn FnMut(&Key, &Value) -> Scan) -> Result<()> {
        let mut from = from.clone();
        loop {
            let mut end = self.page_end_before(&from, to, SCAN_PAGE)?;
            let until = end.as_ref().unwrap_or(to);
            let mut all = self.collect(&from, until)?;
            let last = base_range(&self.base, &from, until, BASE_PAGE, &mut |key, value| {
                all.entry(key).or_insert(value);
            });
            if let Some(last) = last {
                end = Some(last.successor());
            }
            let until = end.as_ref().unwrap_or(to);
            all.retain(|key, _| *key >= from && key < until);
            for (key, value) in &all {
                if *value != Value::Whiteout && visit(key, value) == Scan::Stop {
                    return Ok(());
                }
            }
            let Some(end) = end else { return Ok(()) };
            from = end;
        }
    }

    fn extent_floor(&self, ino: InodeNo, offset: u64) -> Result<Option<(u64, Extent)>> {
        let low = rows::current(self.ve, Key::extent(ino, 0).as_bytes());
        let mut at = offset;
        loop {
            let key = Key::extent(ino, at);
            let mut best: Option<Key> = None;
            if let Some((row, _)) = self.meta.floor(Table::Current, &low, &rows::current(self.ve, key.as_bytes()))? {
                best = Some(rows::parse_current(&row)?);
            }
            let high = rows::history(self.ve, &key, TxnNo(0));
            if let Some((row, _)) = self.meta.floor(Table::History, &low, &high)? {
                best = best.max(Some(rows::parse_history(&row)?.0));
            }
            let Some(key) = best.filter(|k| k.kind() == KeyKind::Extent) else { return Ok(None) };
            if let Some(Value::Extent(e)) = self.stored(&key)? {
                return Ok(Some((key.number(), e)));
            }
            let Some(next) = key.number().checked_sub(1) else { return Ok(None) };
            at = next;
        }
    }

    fn base(&self) -> &BaseTree {
        &self.base
    }
}
