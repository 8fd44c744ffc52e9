//! One layer of a VE's state in memory: what the transactions since the last publish changed.
//!
//! Invariants: `first ≤ birth` for every slot; history entries of one key have rising, not overlapping
//! `birth..death`, all before the slot's `birth`. Within one transaction only the last value counts.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use foldhash::fast::RandomState;

use super::key::{Key, KeyKind, Value};
use crate::content::Place;
use crate::ids::{InodeNo, PayloadId, TxnNo};
use crate::meta::rows::TxnRow;

/// What is known of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Transaction that made the value.
    pub birth: TxnNo,
    /// First transaction in this layer that touched the key: the death of what lies below.
    pub first: TxnNo,
    /// The value; `None` when the key is gone.
    pub value: Option<Value>,
}

/// A value that was replaced within this layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// Whose.
    pub key: Key,
    /// Since when it was current.
    pub birth: TxnNo,
    /// Until when, exclusive.
    pub death: TxnNo,
    /// What it was.
    pub value: Value,
}

/// Kinds of change in the change index, as bits.
pub mod touched {
    /// Attributes, or the inode as a whole.
    pub const INODE: u8 = 1;
    /// Directory entries.
    pub const ENTRIES: u8 = 2;
    /// Extended attributes.
    pub const XATTR: u8 = 4;
    /// Content.
    pub const CONTENT: u8 = 8;
}

/// A layer.
#[derive(Default)]
pub struct Overlay {
    /// Kinds that are looked up one by one.
    points: HashMap<Key, Slot, RandomState>,
    /// Kinds that are also read in order.
    ordered: BTreeMap<Key, Slot>,
    /// What was replaced, oldest first.
    pub history: Vec<Past>,
    /// The change index: (transaction, inode) → bits of [`touched`].
    pub changes: BTreeMap<(TxnNo, InodeNo), u8>,
    /// Where payloads of this layer's transactions lie.
    pub places: BTreeMap<PayloadId, Place>,
    /// Bytes of inline payloads that came with this layer: publishing copies at most so many out of the journal.
    pub inline: u64,
    /// Transactions sealed in this layer.
    pub txns: Vec<(TxnNo, TxnRow)>,
    bytes: usize,
}

/// Bytes that a slot costs beyond the heap parts of its key and value, map overhead included.
const SLOT_BYTES: usize = 320;

/// So many bytes of payload in the journal weigh as much as one of memory.
const INLINE_SHARE: u64 = 4;
/// Slots that an empty layer keeps room for: about those of a layer that is published early.
const ROOM_MAX: usize = 128 << 10;

fn is_point(key: &Key) -> bool {
    matches!(key.kind(), KeyKind::Inode | KeyKind::Dentry | KeyKind::Target)
}

impl Overlay {
    /// What this layer says of a key; `None` when it says nothing.
    pub fn get(&self, key: &Key) -> Option<&Slot> {
        if is_point(key) { self.points.get(key) } else { self.ordered.get(key) }
    }

    /// Sets a key at a transaction, or removes it.
    pub fn set(&mut self, key: Key, value: Option<Value>, txn: TxnNo) {
        self.bytes += value.as_ref().map_or(0, Value::heap_bytes);
        let slot = if is_point(&key) { self.points.get_mut(&key) } else { self.ordered.get_mut(&key) };
        let Some(slot) = slot else {
            self.bytes += SLOT_BYTES + key.heap_bytes();
            let slot = Slot { birth: txn, first: txn, value };
            if is_point(&key) {
                self.points.insert(key, slot)
            } else {
                self.ordered.insert(key, slot)
            };
            return;
        };
        let old = std::mem::replace(&mut slot.value, value);
        let birth = std::mem::replace(&mut slot.birth, txn);
        // Where the base tree may have the key, that it was gone is a value, too.
        let old = old.or_else(|| key.ino().is_base().then_some(Value::Whiteout));
        if birth < txn
            && let Some(value) = old
        {
            self.bytes += SLOT_BYTES + key.heap_bytes();
            self.history.push(Past { key, birth, death: txn, value });
        }
    }

    /// Removes a key below which nothing lies: no mark of its absence is needed.
    pub fn erase(&mut self, key: &Key, txn: TxnNo) {
        let slot = if is_point(key) { self.points.remove_entry(key) } else { self.ordered.remove_entry(key) };
        let Some((key, Slot { birth, value, .. })) = slot else { return };
        match value {
            // The slot's bytes go on counting for what is now history.
            Some(value) if birth < txn => self.history.push(Past { key, birth, death: txn, value }),
            value => {
                let heap = value.as_ref().map_or(0, Value::heap_bytes);
                self.bytes = self.bytes.saturating_sub(SLOT_BYTES + key.heap_bytes() + heap);
            }
        }
    }

    /// Notes for the change index that a transaction touched an inode.
    pub fn touch(&mut self, txn: TxnNo, ino: InodeNo, bits: u8) {
        let entry = self.changes.entry((txn, ino)).or_insert_with(|| {
            self.bytes += 48;
            0
        });
        *entry |= bits;
    }

    /// Slots of ordered kinds with `from ≤ key < to`.
    pub fn range<'a>(&'a self, from: &Key, to: &Key) -> impl Iterator<Item = (&'a Key, &'a Slot)> + use<'a> {
        self.ordered.range((Bound::Included(from.clone()), Bound::Excluded(to.clone())))
    }

    /// The last slot with `from ≤ key ≤ at`, gone or not.
    pub fn floor(&self, from: &Key, at: &Key) -> Option<&Key> {
        self.ordered.range::<Key, _>(from..=at).next_back().map(|(k, _)| k)
    }

    /// An empty layer with the room that this one's table takes, where that is not too much: a layer that grows from nothing moves its slots
    /// again and again, into memory that the kernel has to clear first.
    pub fn emptied(self) -> Overlay {
        let mut points = self.points;
        points.clear();
        if points.capacity() > ROOM_MAX {
            points = HashMap::default();
        }
        Overlay { points, ..Overlay::default() }
    }

    /// Gives back room that no slot uses, and about how many bytes that were.
    pub fn shrink(&mut self) -> usize {
        let before = self.points.capacity();
        self.points.shrink_to_fit();
        self.history.shrink_to_fit();
        self.txns.shrink_to_fit();
        before.saturating_sub(self.points.capacity()) * size_of::<(Key, Slot)>()
    }

    /// All slots, in no order.
    pub fn slots(&self) -> impl Iterator<Item = (&Key, &Slot)> {
        self.points.iter().chain(self.ordered.iter())
    }

    /// Number of slots.
    pub fn len(&self) -> usize {
        self.points.len() + self.ordered.len()
    }

    /// Whether nothing was ever set.
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.txns.is_empty()
    }

    /// Rough bytes of memory.
    pub fn bytes(&self) -> usize {
        self.bytes + self.places.len() * 128
    }

    /// Rough bytes of memory, or more where its payloads in the journal are what makes it large: they are to be copied by publishing and read by
    /// recovery, so they have a bound, too.
    pub fn weight(&self) -> usize {
        self.bytes().max(usize::try_from(self.inline / INLINE_SHARE).unwrap_or(usize::MAX))
    }

    /// The place whose range holds `id`, with the id it begins at.
    pub fn place(&self, id: PayloadId) -> Option<(PayloadId, &Place)> {
        let (start, place) = self.places.range(..=id).next_back()?;
        (start.txn == id.txn && id.offset - start.offset < place.len).then_some((*start, place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::InodeNo;

    /// Within a transaction the last value counts; across transactions the former one is kept with its span, and so is that a key was gone, where the
    /// base tree may have it.
    #[test]
    fn history_keeps_one_value_a_transaction() {
        for (ino, gone) in [(InodeNo::FIRST_PRIVATE, &[][..]), (InodeNo(9), &[(6, 8, Value::Whiteout)])] {
            let mut o = Overlay::default();
            let k = Key::xattr(ino, b"user.x");
            let v = |n: u8| Value::Bytes(Box::new([n]));
            o.set(k.clone(), Some(v(1)), TxnNo(3));
            o.set(k.clone(), Some(v(2)), TxnNo(3));
            assert!(o.history.is_empty());
            o.set(k.clone(), Some(v(3)), TxnNo(5));
            o.set(k.clone(), None, TxnNo(6));
            o.set(k.clone(), Some(v(4)), TxnNo(8));
            let spans: Vec<_> = o.history.iter().map(|p| (p.birth.0, p.death.0, p.value.clone())).collect();
            assert_eq!(spans, [&[(3, 5, v(2)), (5, 6, v(3))], gone].concat());
            assert_eq!(o.get(&k), Some(&Slot { birth: TxnNo(8), first: TxnNo(3), value: Some(v(4)) }));
        }
    }

    /// What is erased leaves its former values and nothing else.
    #[test]
    fn erasing_keeps_history_and_no_mark() {
        let mut o = Overlay::default();
        for key in [Key::inode(InodeNo(9)), Key::extent(InodeNo(9), 0)] {
            let value = || Some(Value::Bytes(Box::new([1; 9])));
            let before = o.bytes();
            o.set(key.clone(), value(), TxnNo(3));
            o.erase(&key, TxnNo(3));
            assert_eq!((o.get(&key), o.history.len(), o.bytes()), (None, 0, before));
            o.set(key.clone(), value(), TxnNo(3));
            o.erase(&key, TxnNo(4));
            let span = o.history.pop().map(|p| (p.key, p.birth, p.death));
            assert_eq!(span, Some((key.clone(), TxnNo(3), TxnNo(4))));
            assert_eq!(o.get(&key), None);
        }
        assert!(o.is_empty());
    }
}
