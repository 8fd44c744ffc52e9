//! The file of the next segment, made before it is needed: no operation waits for its zeros.

use std::sync::Arc;

use super::Journal;
use crate::error::{Error, Result};
use crate::format::segment::DATA_START;
use crate::journal::folder;
use crate::storage::{File, Storage};

/// Makes the zero-filled file of a segment, without a header. Of a failure nothing is left.
pub fn create_segment(storage: &dyn Storage, path: &str, capacity: u64) -> Result<Arc<dyn File>> {
    storage.create(path, DATA_START + capacity).map_err(|e| {
        // A half-filled file would only take space; recovery ignores it in any case.
        let _ = storage.remove(path);
        Error::io("creating journal segment", path)(e)
    })
}

impl Journal {
    /// Takes note of how much a new segment may take of the disk: nearly full, it must not go for zeros.
    pub fn allow_growth(&mut self, bytes: u64) {
        self.growth = bytes;
    }

    /// Whether somebody should be asked to make a spare segment ready; true once for each.
    pub fn asks_for_spare(&mut self) -> bool {
        self.wants_spare() && !std::mem::replace(&mut self.spare_asked, true)
    }

    fn wants_spare(&self) -> bool {
        self.poisoned.is_none() && self.spare.is_none()
    }

    pub(super) fn capacity(&self, wanted: u64) -> u64 {
        wanted.min(self.segment_max).min(self.growth).max(self.segment_min)
    }

    /// Path and capacity of the spare segment that should be made ready with [`create_segment`] and given to
    /// [`Journal::take_spare`] or given up with [`Journal::no_spare`], so that no operation waits for its zeros, and so that there is
    /// one left to erase files with when the disk is full (promise G4). `None` also while somebody makes one.
    pub fn spare_wanted(&mut self) -> Option<(String, u64)> {
        if !self.wants_spare() || self.spare_under_way {
            return None;
        }
        (self.spare_asked, self.spare_under_way) = (true, true);
        let last = self.segments.back().map_or(0, |s| s.header.capacity);
        Some((self.new_path(), self.capacity(last * 2)))
    }

    /// No spare could be made.
    pub fn no_spare(&mut self) {
        self.spare_under_way = false;
    }

    /// Takes a file that [`create_segment`] made as the spare; its name and its zeros are durable. Removes it when there has come to be
    /// another.
    pub fn take_spare(&mut self, path: String, file: Arc<dyn File>, capacity: u64) -> Result<()> {
        self.spare_under_way = false;
        if !self.wants_spare() {
            return match self.storage.remove(&path) {
                // Whoever destroyed the VE was quicker.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
                other => other.map_err(Error::io("removing journal segment", path)),
            };
        }
        self.spare = Some((path, file, capacity));
        Ok(())
    }

    /// A path that no segment has: what is created is emptied.
    fn new_path(&self) -> String {
        loop {
            let path = format!("{}/{:016x}", folder(self.ve), self.entropy.next_u64());
            let spare = self.spare.iter().map(|(path, ..)| path);
            if self.segments.iter().map(|s| &s.path).chain(spare).all(|p| *p != path) {
                return path;
            }
        }
    }

    pub(super) fn create(&mut self, capacity: u64) -> Result<(String, Arc<dyn File>, u64)> {
        let path = self.new_path();
        let file = create_segment(&*self.storage, &path, capacity)?;
        self.names += 1;
        Ok((path, file, capacity))
    }
}
