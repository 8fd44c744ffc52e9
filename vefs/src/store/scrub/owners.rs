//! Which files read a damaged thing, and what they are called. Looked for only where something is damaged: it goes through all rows of a VE.

use std::collections::BTreeMap;

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
/// Longest path that is told: of a longer one the end, behind an ellipsis. A VE's root makes them as long as it likes.
const PATH_MAX: usize = 4096;

/// A directory: its number, where the one above it stands among those gone through, its name.
type Directory = (InodeNo, usize, Box<[u8]>);

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
        let mut all: Vec<Directory> = vec![(InodeNo::ROOT, 0, Box::default())];
        let mut at = 0;
        while let Some((dir, ..)) = all.get(at)
            && found.len() < inodes.len()
        {
            let mut below = Vec::new();
            view::entries(&view, *dir, 0, &mut |_, entry| {
                if inodes.contains(&entry.ino) {
                    found.entry(entry.ino).or_insert_with(|| path_of(&all, at, &entry.name));
                }
                if entry.kind == Kind::Directory && all.len() + below.len() < DIRECTORIES_MAX {
                    below.push((entry.ino, at, entry.name.clone()));
                }
                Scan::Next
            })?;
            all.append(&mut below);
            at += 1;
        }
        Ok(found)
    }
}

/// The path of a name in a directory, put together only here: those of all directories together would be as large as a root wants.
fn path_of(all: &[Directory], mut dir: usize, name: &[u8]) -> Vec<u8> {
    let (mut parts, mut len) = (vec![name], name.len() + 1);
    // The root stands first and has no name.
    while dir != 0 {
        let (_, above, name) = &all[dir];
        len += name.len() + 1;
        if len > PATH_MAX {
            parts.push("…".as_bytes());
            return join(&parts)[1..].to_vec();
        }
        parts.push(name);
        dir = *above;
    }
    join(&parts)
}

/// Names from the last to the first as a path.
fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.iter().rev().flat_map(|part| [b"/", *part]).flatten().copied().collect()
}
