//! Turning a frozen overlay into rows of the metadata store: one batch, written whole.
//!
//! Invariants: everything in the overlay is durable in the journal before the batch is written, and the places in the batch
//! name bytes that are durable; so the metadata store is never ahead of the ground state, whenever it flushes by itself.

use std::collections::BTreeMap;

use super::key::{Key, Value};
use super::overlay::{Overlay, Past, Slot};
use super::tables::base_value;
use crate::base::BaseTree;
use crate::codec;
use crate::content::read::read_inline;
use crate::content::{ExtentPlace, Location, Place};
use crate::error::Result;
use crate::ids::{InodeNo, PayloadId, VeId};
use crate::meta::rows::{self, Current, Former, Head};
use crate::meta::{Batch, MetaStore, Table};
use crate::types::Source;

/// Inline payloads are gathered into runs of up to this many bytes before they are written to an extent file.
const GATHER: usize = 1 << 20;

/// What the rows are made for.
pub struct Target<'a> {
    /// The VE.
    pub ve: VeId,
    /// The store that is about to be written.
    pub meta: &'a dyn MetaStore,
    /// The VE's base tree.
    pub base: &'a BaseTree,
    /// No private inode from this number on has a row there yet.
    pub fresh_from: InodeNo,
}

/// The payload ids, with lengths, of the overlay's inline payloads that its extents, present or past, still name. Only these
/// need to leave the journal; the others were overwritten within their own transaction and no version reads them.
pub fn inline_in_use(overlay: &Overlay) -> Vec<PayloadId> {
    let mut out = Vec::new();
    let present = overlay.slots().filter_map(|(_, s)| s.value.as_ref());
    for value in present.chain(overlay.history.iter().map(|p| &p.value)) {
        let Value::Extent(extent) = value else { continue };
        let Source::Payload(id) = extent.source else { continue };
        let first = overlay.place(id).map_or(id, |(start, _)| start);
        for (start, place) in overlay.places.range(first..id.plus(extent.len)) {
            if start.offset + place.len > id.offset && matches!(place.at, Location::Journal { .. }) {
                out.push(*start);
            }
        }
    }
    out.sort_unstable();
    out.dedup();
    out
}

/// Copies the inline payloads that are still named to an extent file, through `write`: they cannot stay in a journal that is to be
/// recycled. Neighbours are written together.
pub fn move_inline(
    overlay: &Overlay,
    write: &mut dyn FnMut(&[u8]) -> Result<ExtentPlace>,
) -> Result<BTreeMap<PayloadId, ExtentPlace>> {
    let mut moved = BTreeMap::new();
    let mut run: Vec<u8> = Vec::new();
    let mut begin: Option<PayloadId> = None;
    for id in inline_in_use(overlay) {
        let Some(Place { len, at: Location::Journal { segment, offset, crc } }) = overlay.places.get(&id) else {
            continue;
        };
        let follows = begin.is_some_and(|b| b.plus(run.len() as u64) == id);
        if let Some(first) = begin.filter(|_| !follows || run.len() >= GATHER) {
            moved.insert(first, write(&run)?);
            run.clear();
            begin = None;
        }
        begin = begin.or(Some(id));
        let start = run.len();
        run.resize(start + *len as usize, 0);
        read_inline(segment, *offset, *len, *crc, 0, &mut run[start..])?;
    }
    if let Some(first) = begin {
        moved.insert(first, write(&run)?);
    }
    Ok(moved)
}

/// The rows of an overlay. `moved` are the places of its inline payloads that were moved; `head` is the state after it, its
/// `history` the figure before.
pub fn rows(
    target: &Target<'_>,
    overlay: &Overlay,
    moved: &BTreeMap<PayloadId, ExtentPlace>,
    mut head: Head,
) -> Result<(Batch, Head)> {
    let mut batch = Batch::default();
    let ve = target.ve;
    let mut slots: Vec<(&Key, &Slot)> = overlay.slots().collect();
    slots.sort_unstable_by_key(|(k, _)| *k);
    for (key, slot) in slots {
        head.history += slot_rows(target, &mut batch, key, slot)?;
    }
    let hides = |past: &Past| past.value != Value::Whiteout || base_value(target.base, &past.key).is_some();
    for past in overlay.history.iter().filter(|past| hides(past)) {
        let former = Former { death: past.death, value: past.value.clone() };
        head.history += former_row(&mut batch, ve, &past.key, past.birth, &former);
    }
    for ((txn, ino), bits) in &overlay.changes {
        batch.put(Table::Changes, rows::change(ve, *txn, *ino), vec![*bits]);
    }
    for (id, place) in &overlay.places {
        if let Location::Extent(place) = &place.at {
            batch.put(Table::Places, rows::place(ve, *id), codec::encode(place));
        }
    }
    for (id, place) in moved {
        batch.put(Table::Places, rows::place(ve, *id), codec::encode(place));
    }
    for (txn, row) in &overlay.txns {
        batch.put(Table::System, rows::txn(ve, *txn), codec::encode(row));
    }
    batch.put(Table::System, rows::head(ve), codec::encode(&head));
    Ok((batch, head))
}

fn slot_rows(target: &Target<'_>, batch: &mut Batch, key: &Key, slot: &Slot) -> Result<u64> {
    let row = rows::current(target.ve, key.as_bytes());
    let old = if key.ino() >= target.fresh_from { None } else { target.meta.get(Table::Current, &row)? };
    let mut history = 0;
    let had_row = old.is_some();
    if let Some(old) = old {
        let old = rows::current_row(key, &old)?;
        let former = Former { death: slot.first, value: old.value };
        history = former_row(batch, target.ve, key, old.birth, &former);
    }
    match &slot.value {
        Some(value) => {
            let now = Current { birth: slot.birth, value: value.clone() };
            batch.put(Table::Current, row, codec::encode(&now));
        }
        None if base_value(target.base, key).is_some() => {
            let gone = Current { birth: slot.birth, value: Value::Whiteout };
            batch.put(Table::Current, row, codec::encode(&gone));
        }
        None if had_row => batch.delete(Table::Current, row),
        None => {}
    }
    Ok(history)
}

/// Writes a former value and tells what it costs: its row, and the payload bytes that it keeps.
fn former_row(batch: &mut Batch, ve: VeId, key: &Key, birth: crate::ids::TxnNo, former: &Former) -> u64 {
    let row = rows::history(ve, key, birth);
    let value = codec::encode(former);
    let cost = former_cost(row.len(), value.len(), &former.value);
    batch.put(Table::History, row, value);
    cost
}

/// What a row of history counts towards the history cap, in bytes.
pub fn former_cost(key: usize, value: usize, former: &Value) -> u64 {
    let payload = match former {
        Value::Extent(e) if matches!(e.source, Source::Payload(_) | Source::Object { .. }) => e.len,
        _ => 0,
    };
    (key + value) as u64 + payload
}
