//! Which files read a damaged thing, and what they are called. Looked for only where something is damaged: it goes through all rows of a VE.

use std::collections::{BTreeMap, VecDeque};

use super::walk::object_of;
use super::{Reader, Thing};
use crate::error::{Error, Result};
use crate::ids::{InodeNo, TxnNo, VeId};
use crate::meta::{Scan, Table, prefix_end, rows};
use crate::state::key::Value;
use crate::state::version::VersionView;
use crate::state::view;
use crate::store::Store;
use crate::types::{Extent, Kind, Source};

/// Most readers that are named.
const READERS_MAX: usize = 8;
/// Most directories that are gone through for their paths.
const DIRECTORIES_MAX: usize = 1 << 20;

impl Store {
    /// Some of the files that read a thing.
    pub(super) fn readers_of(&self, thing: &Thing) -> Result<Vec<Reader>> {
        let mut out = Vec::new();
        let slots = match thing {
            Thing::Object(_) => self.named_slots()?,
            Thing::Payload(slot, _) => self.named_slots()?.into_iter().filter(|(s, _)| s == slot).collect(),
            Thing::Tree(_) | Thing::Journal(_) | Thing::Row(..) => BTreeMap::new(),
        };
        for (slot, ve) in slots {
            let mut inodes = self.inodes_with(slot, &mut |extent| match (thing, &extent.source) {
                (Thing::Object(hash), source) => object_of(source) == Some(*hash),
                // Payloads are at most so long: neighbours of one transaction are told apart by the place's own length.
                (Thing::Payload(_, id), Source::Payload(p)) => {
                    p.txn == id.txn && p.offset <= id.offset && id.offset - p.offset < extent.len
                        || p.txn == id.txn && p.offset >= id.offset && p.offset - id.offset < self.place_len(slot, *id)
                }
                _ => false,
            })?;
            inodes.truncate(READERS_MAX - out.len());
            let paths = self.paths(slot, ve, &inodes)?;
            out.extend(inodes.into_iter().map(|ino| Reader { ve, ino, path: paths.get(&ino).cloned() }));
            if out.len() >= READERS_MAX {
                break;
            }
        }
        Ok(out)
    }

    fn place_len(&self, slot: VeId, id: crate::ids::PayloadId) -> u64 {
        let key = rows::place(slot, id);
        let row = self.shared.meta.get(Table::Places, &key).ok().flatten();
        row.and_then(|row| rows::parse_place(&key, &row).ok()).map_or(0, |(_, place)| place.len)
    }

    /// The files under a slot that have such an extent now, as far as is published.
    fn inodes_with(&self, slot: VeId, wanted: &mut dyn FnMut(&Extent) -> bool) -> Result<Vec<InodeNo>> {
        let from = rows::ve_prefix(slot);
        let to = prefix_end(&from).unwrap_or_else(|| vec![0xff; 64]);
        let mut out = Vec::new();
        self.shared.meta.scan(Table::Current, &from, &to, &mut |k, v| {
            // A row that cannot be read is found by its own check.
            let row = rows::parse_current(k).and_then(|key| rows::current_row(&key, v).map(|row| (key.ino(), row)));
            if let Ok((ino, row)) = row
                && let Value::Extent(extent) = row.value
                && wanted(&extent)
                && out.last() != Some(&ino)
            {
                out.push(ino);
            }
            if out.len() < READERS_MAX { Scan::Next } else { Scan::Stop }
        })?;
        Ok(out)
    }

    /// Paths of some inodes of a VE, by a walk over its published tree.
    fn paths(&self, slot: VeId, ve: VeId, inodes: &[InodeNo]) -> Result<BTreeMap<InodeNo, Vec<u8>>> {
        let mut found = BTreeMap::new();
        if inodes.is_empty() {
            return Ok(found);
        }
        let identity = self.read_identity(ve)?.ok_or_else(|| Error::Store(format!("there is no VE {ve}")))?;
        let base = self.shared.base(identity.base)?;
        let view = VersionView { ve: slot, txn: TxnNo(u64::MAX), meta: self.shared.meta.clone(), base };
        let mut todo = VecDeque::from([(InodeNo::ROOT, Vec::new())]);
        let mut visited = 0;
        while let Some((dir, path)) = todo.pop_front() {
            visited += 1;
            if visited > DIRECTORIES_MAX || found.len() == inodes.len() {
                break;
            }
            view::entries(&view, dir, 0, &mut |_, entry| {
                let full = || [&path[..], b"/", &entry.name].concat();
                if inodes.contains(&entry.ino) {
                    found.entry(entry.ino).or_insert_with(full);
                }
                if entry.kind == Kind::Directory {
                    todo.push_back((entry.ino, full()));
                }
                Scan::Next
            })?;
        }
        Ok(found)
    }
}
