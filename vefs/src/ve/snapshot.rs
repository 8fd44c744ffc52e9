//! A whole state of a VE for another node: what it is, its rows page by page, and the bytes that they name. It stays readable while
//! the [`Snapshot`] lives, and the history behind it stays while its cursor does.

use std::sync::Arc;

use bytes::Bytes;

use super::marks::Marks;
use super::{Snapshot, Ve};
use crate::content::read::payload_pieces;
use crate::error::{Error, Result};
use crate::format::incoming::Manifest;
use crate::ids::{Hash, PayloadId, Position};
use crate::meta::{Table, rows};
use crate::state::key::{Key, Value};
use crate::state::tables::stored_place;

/// Longest range of payload bytes that a page names as one.
pub const RANGE_MAX: u64 = 1 << 20;

/// Rows of a state, in the order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Key and value, whiteouts as such.
    pub rows: Vec<(Key, Value)>,
    /// The payload bytes that the rows name: ranges of at most [`RANGE_MAX`] bytes with their BLAKE3.
    pub payloads: Vec<(PayloadId, u64, Hash)>,
    /// The objects that the rows name, the base tree's included.
    pub objects: Vec<Hash>,
    /// There are no more rows behind these.
    pub last: bool,
}

impl Ve {
    /// The present state, sealed, published and durable, and what it is.
    pub fn manifest(self: &Arc<Self>) -> Result<(Manifest, Snapshot)> {
        self.commit()?;
        self.publish()?;
        let row = self.shared.meta.get(Table::System, &rows::head(self.slot))?;
        let place = || format!("VE {}", self.id);
        let row = row.ok_or_else(|| Error::Store(format!("{} has no state yet", place())))?;
        let head = rows::head_row(&row)?;
        let snapshot = self.version(head.txn)?;
        let manifest = Manifest {
            at: Position { lineage: head.lineage, epoch: head.epoch, txn: head.txn, chain: head.chain },
            time: head.time,
            base: self.identity.base,
            root: snapshot.state_root()?.root,
            bytes: head.bytes,
            inodes: head.inodes,
            next_ino: head.next_ino,
        };
        Ok((manifest, snapshot))
    }
}

impl Snapshot {
    /// The next rows behind a key and up to another, about `max` bytes of them and at least one.
    pub fn page(&self, after: Option<&Key>, upto: Option<&Key>, max: usize) -> Result<Page> {
        let (rows, last) = self.view().own_page(after, upto, max)?;
        let (mut marks, mut objects) = (Marks::default(), std::collections::BTreeSet::new());
        for (_, value) in &rows {
            marks.mark_value(value);
            if let Value::Extent(e) = value
                && let crate::types::Source::Object { hash, .. } | crate::types::Source::Base { hash, .. } = e.source
            {
                objects.insert(hash);
            }
        }
        let mut payloads = Vec::new();
        for (id, len) in marks.all() {
            for done in (0..len).step_by(RANGE_MAX as usize) {
                let part = (len - done).min(RANGE_MAX);
                let hash = Hash::of(&self.payload(id.plus(done), 0, part as usize)?);
                payloads.push((id.plus(done), part, hash));
            }
        }
        Ok(Page { rows, payloads, objects: objects.into_iter().collect(), last })
    }

    /// Bytes of a payload that a row of this state names.
    pub fn payload(&self, id: PayloadId, offset: u64, len: usize) -> Result<Bytes> {
        let mut pieces = Vec::new();
        let find = |id| stored_place(&*self.view().meta, self.view().ve, id);
        payload_pieces(&find, &mut self.ve().state.lock().files, id.plus(offset), 0, len as u64, &mut pieces)?;
        let mut bytes = vec![0; len];
        crate::content::read::read(&pieces, &self.ve().shared.objects, &mut bytes)?;
        Ok(Bytes::from(bytes))
    }
}

#[cfg(test)]
mod tests {
    use crate::ids::InodeNo;
    use crate::store::bed::{create, in_memory, write};

    /// A replica that compares its state with the primary's asks for the rows up to one of its own. Where that one had changed since the version, its value
    /// of then lay behind where the page ended: the replica got all rows but this one, found another root, and gave the whole pull up, again
    /// and again as long as the file was busy.
    #[test]
    fn a_page_up_to_a_key_has_the_key() {
        let (_store, ve, _) = in_memory();
        let inos: Vec<InodeNo> = (0..5).map(|n| create(&ve, &format!("f{n}"))).collect();
        inos.iter().for_each(|ino| write(&ve, *ino, 0, vec![1; 10]).unwrap());
        ve.commit().unwrap();
        ve.publish().unwrap();
        let snapshot = ve.version(ve.position().txn).unwrap();
        let all = snapshot.page(None, None, usize::MAX).unwrap().rows;
        inos.iter().for_each(|ino| write(&ve, *ino, 0, vec![2; 20]).unwrap());
        ve.commit().unwrap();
        ve.publish().unwrap();
        assert!(snapshot.page(None, None, usize::MAX).unwrap().rows == all);
        for (n, (key, _)) in all.iter().enumerate() {
            assert!(snapshot.page(None, Some(key), usize::MAX).unwrap().rows == all[..=n], "up to row {n}");
        }
    }
}
