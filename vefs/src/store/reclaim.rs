//! Giving space back, store-wide: old versions of every VE, extent files that came free, base trees and objects that nothing
//! names.
//!
//! Order (promises G26, G32): rows go first; then a checkpoint of the metadata is made, after which no replay can come back to
//! a state that names the bytes; only then files are unlinked.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Store;
use crate::error::Result;
use crate::ids::Hash;
use crate::ve::{Collected, Retention};

/// What a store-wide collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Sums over all VEs.
    pub ves: Collected,
    /// Base trees removed.
    pub trees: u64,
    /// Bytes of objects removed.
    pub objects: u64,
}

impl Store {
    /// Forgets what nothing keeps in every VE, and unlinks what then nothing names.
    pub fn collect_garbage(&self, retention: &Retention) -> Result<Reclaimed> {
        let _collecting = self.collecting.lock();
        self.open_all()?;
        let mut done = Reclaimed::default();
        for ve in self.opened() {
            let c = ve.collect(retention)?;
            done.ves.versions += c.versions;
            done.ves.rows += c.rows;
            done.ves.history += c.history;
            done.ves.moved += c.moved;
            done.ves.files += c.files;
        }
        // Before objects are looked at: those of a tree that goes, go with it.
        done.trees = self.collect_trees()?;
        self.shared.meta.persist()?;
        // What is garbage by now is garbage in the checkpoint as well.
        let garbage: Vec<_> = self.opened().into_iter().map(|ve| (ve.take_garbage(), ve)).collect();
        let condemned = self.condemn_objects()?;
        self.checkpoint()?;
        for (files, ve) in &garbage {
            ve.remove_files(files)?;
        }
        if condemned {
            let used = self.objects_in_use()?;
            done.objects = self.shared.objects.sweep_condemned(|hash| used.contains(hash))?;
        }
        Ok(done)
    }

    /// Seals and coalesces quiet files in every open VE; returns how many files changed.
    pub fn housekeep(&self, quiet: Duration) -> Result<usize> {
        let mut changed = 0;
        for ve in self.opened() {
            if ve.read_only_reason().is_none() && !self.shared.space.is_tight() {
                changed += ve.housekeep(quiet)?;
            }
        }
        Ok(changed)
    }

    fn condemn_objects(&self) -> Result<bool> {
        // Listed before the uses are: an object that comes in between is not on the list.
        let all = self.shared.objects.list()?;
        let used = self.objects_in_use()?;
        let dead: Vec<Hash> = all.into_iter().filter(|h| !used.contains(h)).collect();
        let any = !dead.is_empty();
        self.shared.objects.condemn(dead);
        Ok(any)
    }

    /// Objects that base trees or any kept state of a VE name.
    fn objects_in_use(&self) -> Result<BTreeSet<Hash>> {
        let mut used = BTreeSet::new();
        for hash in self.trees()? {
            used.extend(self.shared.base(hash)?.objects());
        }
        for ve in self.opened() {
            ve.objects_in_use(&mut used)?;
        }
        Ok(used)
    }
}
