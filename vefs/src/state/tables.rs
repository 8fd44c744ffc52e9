//! The present state of a VE: the layers put together.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::key::{Key, KeyKind, Value};
use super::maps::{FILE_MAX, Known, Maps, Places};
use super::overlay::Overlay;
use super::view::{Scan, View};
use crate::base::BaseTree;
use crate::error::Result;
use crate::ids::{InodeNo, PayloadId, TxnNo, VeId};
use crate::meta::{MetaStore, Table, rows};
use crate::types::{Dentry, Extent};

/// What the quota counts, and the next inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Charged bytes.
    pub bytes: i64,
    /// Private inodes.
    pub inodes: i64,
    /// The next private inode number.
    pub next_ino: InodeNo,
}

/// The layers of a VE.
pub struct Tables {
    /// Which VE.
    pub ve: VeId,
    /// Changed since the last freeze.
    pub active: Overlay,
    /// Being published.
    pub frozen: Option<Arc<Overlay>>,
    /// The next active one: empty, with the room that an earlier one needed.
    pub spare: Overlay,
    /// The store below.
    pub meta: Arc<dyn MetaStore>,
    /// The tree below that.
    pub base: Arc<BaseTree>,
    /// No private inode from this number on has a row in the metadata store.
    pub fresh_from: InodeNo,
    /// Quota figures.
    pub usage: Usage,
    /// What was read from below the overlays of late.
    pub found: Found,
    /// Extent maps of files that are used.
    pub maps: Maps,
    /// Places of payloads that are read.
    pub places: Places,
}

/// Keys that were looked up below the overlays, with what was there, nothing included. A look-up is followed by the operation
/// on what was found; and each creation asks for the default ACL that most directories do not have.
///
/// Invariant: what lies below the overlays changes only when a frozen overlay becomes part of it, whose keys are not asked
/// for here while it is there; [`Found::published`] is called at the moment when it goes.
#[derive(Default)]
pub struct Found {
    keys: RefCell<HashMap<Key, Option<Value>, RandomState>>,
    /// How often it was asked since somebody looked.
    asked: Cell<u32>,
}

impl Found {
    /// Most keys remembered.
    const MAX: usize = 1024;

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.keys.get_mut().clear();
    }

    /// How often it was asked since this was called last.
    pub fn take_asked(&self) -> u32 {
        self.asked.take()
    }

    /// Forgets what a layer that has become part of what lies below has changed there.
    pub fn published(&mut self, layer: &Overlay) {
        self.keys.get_mut().retain(|key, _| layer.get(key).is_none());
    }

    fn get(&self, key: &Key) -> Option<Option<Value>> {
        self.asked.set(self.asked.get().saturating_add(1));
        self.keys.borrow().get(key).cloned()
    }

    fn put(&self, key: &Key, value: &Option<Value>) {
        let mut map = self.keys.borrow_mut();
        if map.len() >= Self::MAX {
            map.clear();
        }
        if value.as_ref().is_none_or(|v| v.heap_bytes() <= 4096) {
            map.insert(key.clone(), value.clone());
        }
    }
}

impl Tables {
    /// Lets go what was looked up one by one. Gives about how many bytes that were.
    pub fn forget_found(&mut self) -> usize {
        let room = self.found.keys.get_mut().capacity();
        (self.found, self.places) = (Found::default(), Places::default());
        room * size_of::<(Key, Option<Value>)>()
    }

    /// Lets go files' maps and room that nothing uses. Gives about how many bytes that were.
    pub fn shrink(&mut self) -> usize {
        self.spare = Overlay::default();
        self.maps.let_go() * size_of::<(u64, Extent)>() + self.active.shrink()
    }

    pub(super) fn layers(&self) -> impl Iterator<Item = &Overlay> {
        std::iter::once(&self.active).chain(self.frozen.as_deref())
    }

    pub(super) fn is_fresh(&self, key: &Key) -> bool {
        key.ino() >= self.fresh_from
    }

    /// The place of payload bytes with the id its range begins at; `None` when nobody knows it.
    pub fn place(&self, id: PayloadId) -> Result<Option<(PayloadId, crate::content::Place)>> {
        if let Some((start, place)) = self.layers().find_map(|l| l.place(id)) {
            return Ok(Some((start, place.clone())));
        }
        if let Some(known) = self.places.get(id) {
            return Ok(Some(known));
        }
        let stored = stored_place(&*self.meta, self.ve, id)?;
        if let Some((start, place)) = &stored {
            self.places.put(*start, place.clone());
        }
        Ok(stored)
    }

    /// Maps an extent, or removes one.
    pub fn set_extent(&mut self, ino: InodeNo, offset: u64, extent: Option<Extent>, txn: TxnNo) {
        self.maps.set(ino, offset, extent);
        match extent {
            Some(e) => self.active.set(Key::extent(ino, offset), Some(Value::Extent(e)), txn),
            None => self.unset(Key::extent(ino, offset), txn),
        }
    }

    /// Removes a key. Where nothing lies below it nothing is left of it: a file that is written again and again would become a row of
    /// marks, which everybody who looks for an extent would have to walk along.
    pub fn unset(&mut self, key: Key, txn: TxnNo) {
        // A journal that no plan wrote may name an inode before it makes it: what is frozen is looked at.
        if self.is_fresh(&key) && self.frozen.as_ref().is_none_or(|f| f.get(&key).is_none()) {
            self.active.erase(&key, txn);
        } else {
            self.active.set(key, None, txn);
        }
    }

    /// Asks something of a file's extent map; `None` when the map is not kept: it has too many extents, or lies in the overlays alone.
    fn ask_map<T>(&self, ino: InodeNo, question: impl Fn(&BTreeMap<u64, Extent>) -> T) -> Result<Option<T>> {
        if ino >= self.fresh_from {
            return Ok(None);
        }
        match self.maps.ask(ino, &question) {
            Known::Map(answer) => Ok(Some(answer)),
            Known::TooLarge => Ok(None),
            Known::Unknown => {
                let mut map = BTreeMap::new();
                self.scan_layers(&Key::extent(ino, 0), &Key::extent(InodeNo(ino.0 + 1), 0), &mut |key, value| {
                    if let Value::Extent(e) = value {
                        map.insert(key.number(), *e);
                    }
                    if map.len() > FILE_MAX { Scan::Stop } else { Scan::Next }
                })?;
                if map.len() > FILE_MAX {
                    self.maps.put_too_large(ino);
                    return Ok(None);
                }
                let answer = question(&map);
                self.maps.put(ino, map);
                Ok(Some(answer))
            }
        }
    }

    /// The extents of a scan, if it is one of extents of one file whose map is kept.
    fn scan_map(&self, from: &Key, to: &Key) -> Result<Option<Vec<(u64, Extent)>>> {
        let ino = from.ino();
        let last = if to.ino() == ino { to.number() } else { u64::MAX };
        let one_file = to.ino() == ino || (to.ino().0 == ino.0 + 1 && to.number() == 0);
        if from.kind() != KeyKind::Extent || to.kind() != KeyKind::Extent || !one_file || from >= to {
            return Ok(None);
        }
        let first = from.number();
        self.ask_map(ino, |map| map.range(first..last).map(|(o, e)| (*o, *e)).collect())
    }

    fn stored(&self, key: &Key) -> Result<Option<Value>> {
        if self.is_fresh(key) {
            return Ok(None);
        }
        if let Some(known) = self.found.get(key) {
            return Ok(known);
        }
        let value = match self.meta.get(Table::Current, &rows::current(self.ve, key.as_bytes()))? {
            None => base_value(&self.base, key),
            Some(row) => not_gone(rows::current_row(key, &row)?.value),
        };
        self.found.put(key, &value);
        Ok(value)
    }
}

impl View for Tables {
    fn get(&self, key: &Key) -> Result<Option<Value>> {
        match self.layers().find_map(|l| l.get(key)) {
            Some(slot) => Ok(slot.value.clone()),
            None => self.stored(key),
        }
    }

    fn scan(&self, from: &Key, to: &Key, visit: &mut dyn FnMut(&Key, &Value) -> Scan) -> Result<()> {
        let Some(extents) = self.scan_map(from, to)? else { return self.scan_layers(from, to, visit) };
        for (offset, e) in extents {
            if visit(&Key::extent(from.ino(), offset), &Value::Extent(e)) == Scan::Stop {
                break;
            }
        }
        Ok(())
    }

    fn extent_floor(&self, ino: InodeNo, offset: u64) -> Result<Option<(u64, Extent)>> {
        let known = self.ask_map(ino, |map| map.range(..=offset).next_back().map(|(o, e)| (*o, *e)))?;
        known.map_or_else(|| self.floor_in_layers(ino, offset), Ok)
    }

    fn base(&self) -> &BaseTree {
        &self.base
    }
}

/// The place of payload bytes as the metadata store has it.
pub fn stored_place(
    meta: &dyn MetaStore,
    ve: VeId,
    id: PayloadId,
) -> Result<Option<(PayloadId, crate::content::Place)>> {
    let low = rows::place(ve, PayloadId { txn: id.txn, offset: 0 });
    match meta.floor(Table::Places, &low, &rows::place(ve, id))? {
        None => Ok(None),
        Some((k, v)) => {
            let (start, place) = rows::parse_place(&k, &v)?;
            Ok((id.offset - start.offset < place.len).then(|| (start, place.into())))
        }
    }
}

pub(super) fn not_gone(value: Value) -> Option<Value> {
    if value == Value::Whiteout { None } else { Some(value) }
}

/// What the base tree has under a key.
pub fn base_value(base: &BaseTree, key: &Key) -> Option<Value> {
    let ino = key.ino();
    if !ino.is_base() {
        return None;
    }
    match key.kind() {
        KeyKind::Inode => base.inode(ino).map(Value::Inode),
        KeyKind::Dentry => base.lookup(ino, key.rest()).map(Value::Dentry),
        KeyKind::Cookie => base.entry_by_cookie(ino, key.number()).map(|(name, d)| base_entry(name, d)),
        KeyKind::Target => base.target(ino).map(|t| Value::Bytes(t.into())),
        KeyKind::Xattr => base.xattr(ino, key.rest()).map(|v| Value::Bytes(v.into())),
        KeyKind::Extent | KeyKind::Orphan | KeyKind::Hold | KeyKind::Settings | KeyKind::Policy => None,
    }
}

fn base_entry(name: &[u8], d: Dentry) -> Value {
    Value::Entry(super::key::Entry { name: name.into(), ino: d.ino, kind: d.kind })
}

/// Gives up to `limit` of the base tree's keys in a range; the last one when there may be more. Only cookies and
/// names (of one directory) and extended attributes (of one inode) are ever read in order.
pub fn base_range(
    base: &BaseTree,
    from: &Key,
    to: &Key,
    limit: usize,
    give: &mut dyn FnMut(Key, Value),
) -> Option<Key> {
    let ino = from.ino();
    if !ino.is_base() {
        return None;
    }
    let mut n = 0;
    let mut last = None;
    let mut one = |key: Key, value: Value| {
        last = Some(key.clone());
        give(key, value);
        n += 1;
        n < limit
    };
    match from.kind() {
        KeyKind::Cookie => {
            for (name, d) in base.entries(ino, from.number().saturating_sub(1)) {
                let key = Key::cookie(ino, d.cookie);
                if key >= *to || !one(key, base_entry(name, d)) {
                    break;
                }
            }
        }
        KeyKind::Dentry => {
            for (name, d) in base.entries_from(ino, from.rest()) {
                let key = Key::dentry(ino, name);
                if key >= *to || !one(key, Value::Dentry(d)) {
                    break;
                }
            }
        }
        KeyKind::Xattr => {
            for name in base.xattrs(ino) {
                let key = Key::xattr(ino, name);
                if key >= *from
                    && key < *to
                    && let Some(v) = base.xattr(ino, name)
                    && !one(key, Value::Bytes(v.into()))
                {
                    break;
                }
            }
        }
        _ => {}
    }
    last.filter(|_| n == limit)
}

#[cfg(test)]
#[path = "tables_tests.rs"]
pub(super) mod tests;
