//! Giving back what extent files hold: dead places are forgotten, mostly dead files are emptied, and files that came free are named to the store, which
//! removes them after its next checkpoint.
//!
//! Invariant: a file is named as free only when no row names its bytes any more, whatever failed before (promise G26).

use std::collections::{BTreeMap, BTreeSet};

use super::Ve;
use super::gc::Collected;
use super::marks::Marks;
use crate::codec;
use crate::content::read::read_extent;
use crate::content::{ExtentPlace, Location};
use crate::error::Result;
use crate::ids::PayloadId;
use crate::meta::{Batch, Table, rows};

/// Extent files with less than this share of live bytes (percent) are cleaned.
const CLEAN_BELOW: u64 = 50;

impl Ve {
    /// Forgets dead places, moves what is alive out of mostly dead files, and notes which files are free.
    pub(super) fn clean(&self, marks: &Marks, done: &mut Collected) -> Result<()> {
        // Files begun later are not judged: what they hold may not be published yet.
        let closed = self.state.lock().files.closed();
        let files = closed.lengths()?;
        let mut places: BTreeMap<u64, Vec<(PayloadId, ExtentPlace)>> = BTreeMap::new();
        let (mut batch, mut dead) = (Batch::default(), Batch::default());
        self.each(Table::Places, &mut |k, v| {
            let (id, place) = rows::parse_place(k, v)?;
            if marks.live(id, place.len).is_empty() && files.contains_key(&place.file) {
                batch.delete(Table::Places, k.to_vec());
            } else {
                places.entry(place.file).or_default().push((id, place));
            }
            Ok(())
        })?;
        let pending: BTreeSet<u64> = self.unpublished_files();
        let mut free = Vec::new();
        for (number, size) in files {
            if pending.contains(&number) {
                continue;
            }
            let here = places.remove(&number).unwrap_or_default();
            let live: u64 = here.iter().flat_map(|(id, p)| marks.live(*id, p.len)).map(|(_, n)| n).sum();
            // One of which nothing is alive may be empty.
            if live == 0 || live * 100 < size.saturating_mul(CLEAN_BELOW) {
                // One that cannot be read stays as it is, and the others are cleaned.
                if let Err(e) = self.read_live(marks, &here, &mut |_, _| Ok(())) {
                    tracing::error!(ve = %self.id, error = %e, "live bytes cannot be moved: extent file left alone");
                    continue;
                }
                self.move_live(marks, &here, &mut batch, &mut dead)?;
                done.moved += live;
                free.push(number);
            }
        }
        // Moved bytes are durable before the rows that name them can be.
        self.sync()?;
        self.write_in_parts(batch)?;
        self.write_in_parts(dead)?;
        done.files += free.len() as u64;
        let mut s = self.state.lock();
        s.tables.places.clear();
        // Only now does no row name them.
        free.retain(|number| !s.garbage.contains(number));
        s.garbage.extend(free);
        Ok(())
    }

    /// Extent files that unpublished places name.
    fn unpublished_files(&self) -> BTreeSet<u64> {
        let s = self.state.lock();
        let layers = [Some(&s.tables.active), s.tables.frozen.as_deref()];
        let staged = s.staged_files();
        let places = layers.into_iter().flatten().flat_map(|o| o.places.values());
        places.filter_map(|p| if let Location::Extent(e) = &p.at { Some(e.file) } else { None }).chain(staged).collect()
    }

    /// Copies what is alive of these places and adds the rows that name the copies to `batch`. Rows of a batch may become durable a part
    /// at a time: the later ranges of a place come first and its own row last, so that at every moment each live byte is
    /// named; rows that are only in the way go to `dead`, which is written afterwards.
    fn move_live(
        &self,
        marks: &Marks,
        here: &[(PayloadId, ExtentPlace)],
        batch: &mut Batch,
        dead: &mut Batch,
    ) -> Result<()> {
        for (id, place) in here {
            if marks.live(*id, place.len).first().is_none_or(|(first, _)| first != id) {
                dead.delete(Table::Places, rows::place(self.slot, *id));
            }
        }
        self.read_live(marks, here, &mut |part, bytes| {
            let moved = self.state.lock().files.append_packed(bytes)?;
            batch.put(Table::Places, rows::place(self.slot, part), codec::encode(&moved));
            Ok(())
        })
    }

    /// Reads what is alive of these places, checked; of each place the later ranges first.
    fn read_live(
        &self,
        marks: &Marks,
        here: &[(PayloadId, ExtentPlace)],
        each: &mut dyn FnMut(PayloadId, &[u8]) -> Result<()>,
    ) -> Result<()> {
        for (id, place) in here {
            for (part, len) in marks.live(*id, place.len).into_iter().rev() {
                let file = self.state.lock().files.file(place.file)?;
                let mut bytes = vec![0; len as usize];
                read_extent(&*file, place, part.offset - id.offset, &mut bytes)?;
                each(part, &bytes)?;
            }
        }
        Ok(())
    }

    /// Removes extent files that were free before the last checkpoint.
    pub(crate) fn take_garbage(&self) -> Vec<u64> {
        std::mem::take(&mut self.state.lock().garbage)
    }

    /// Their removal holds up nobody who uses the VE: there may be hundreds of thousands. Whoever replaces the VE's state waits, and behind that nothing is
    /// removed: its slot may be another state's by then, whose files have the same numbers.
    pub(crate) fn remove_files(&self, numbers: &[u64]) -> Result<()> {
        let _one = self.begin_collecting();
        let closed = {
            let s = self.state.lock();
            s.journal.check()?;
            s.files.closed()
        };
        numbers.iter().try_for_each(|n| {
            let removed = closed.remove(*n);
            self.state.lock().files.forget(*n);
            removed
        })
    }
}

#[cfg(test)]
#[path = "cleaning_tests.rs"]
mod tests;
