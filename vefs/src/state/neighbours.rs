//! Reading the extent maps of many files at once: files that were made one after the other lie beside each other in the metadata store, and are found
//! with one look-up instead of one each.
//!
//! Invariant: this only fills [`Maps`](super::maps::Maps) with what would be read there file by file, and never with part of a map.

use std::collections::{BTreeMap, BTreeSet};

use super::key::{Key, Value};
use super::maps::Known;
use super::tables::Tables;
use super::view::Scan;
use crate::error::Result;
use crate::ids::InodeNo;
use crate::types::Extent;

/// How far inodes may be apart whose maps are read together.
const NEIGHBOURS: u64 = 8;
/// Extents that are read for many files together, at most.
const EXTENTS_AT_ONCE: usize = 1024;

impl Tables {
    /// Reads the maps of these files in, as far as nobody has.
    pub fn know_maps(&self, inos: &BTreeSet<InodeNo>) -> Result<()> {
        let unknown = |ino: &InodeNo| *ino < self.fresh_from && matches!(self.maps.ask(*ino, |_| ()), Known::Unknown);
        let unknown: Vec<InodeNo> = inos.iter().copied().filter(unknown).collect();
        unknown.chunk_by(|a, b| b.0 - a.0 <= NEIGHBOURS).try_for_each(|near| self.read_maps(near))
    }

    fn read_maps(&self, inos: &[InodeNo]) -> Result<()> {
        let [first, .., last] = *inos else { return Ok(()) };
        let mut maps: BTreeMap<InodeNo, BTreeMap<u64, Extent>> =
            inos.iter().map(|ino| (*ino, BTreeMap::new())).collect();
        let (mut read, mut unread) = (0, None);
        self.scan_layers(&Key::extent(first, 0), &Key::extent(InodeNo(last.0 + 1), 0), &mut |key, value| {
            if read == EXTENTS_AT_ONCE {
                unread = Some(key.ino());
                return Scan::Stop;
            }
            read += 1;
            if let (Value::Extent(e), Some(map)) = (value, maps.get_mut(&key.ino())) {
                map.insert(key.number(), *e);
            }
            Scan::Next
        })?;
        // A map is put where it is whole.
        let whole = maps.into_iter().take_while(|(ino, _)| unread.is_none_or(|unread| *ino < unread));
        whole.for_each(|(ino, map)| self.maps.put(ino, map));
        Ok(())
    }
}

#[cfg(test)]
#[path = "neighbours_tests.rs"]
mod tests;
