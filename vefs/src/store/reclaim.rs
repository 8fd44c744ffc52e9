//! Giving space back, store-wide: old versions of every VE, extent files that came free, base trees and objects that nothing
//! names.
//!
//! Order (promises G26, G32): rows go first; then a checkpoint of the metadata is made, after which no replay can come back to
//! a state that names the bytes; only then files are unlinked.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Store;
use crate::error::{Error, Result};
use crate::ids::Hash;
use crate::ve::{Collected, Retention, Ve};

/// What a store-wide collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Sums over all VEs.
    pub ves: Collected,
    /// Base trees removed.
    pub trees: u64,
    /// Bytes of objects removed.
    pub objects: u64,
    /// VEs that could not be collected: read-only after an error, or damaged; and 1 where no base tree could be. The reason is in the log.
    pub skipped: u64,
}

impl Store {
    /// Forgets what nothing keeps in every VE, and unlinks what then nothing names.
    pub fn collect_garbage(&self, retention: &Retention) -> Result<Reclaimed> {
        let _collecting = self.collecting.lock();
        let unread = self.open_what_opens()?;
        let (branches, unread_branches) = self.branches_that_open()?;
        let unread = unread + unread_branches;
        let mut done = Reclaimed { skipped: unread, ..Reclaimed::default() };
        let mut collected = Vec::new();
        for ve in self.opened().into_iter().chain(branches) {
            // One VE's trouble is not the others': they get their space back.
            match ve.collect(retention) {
                Ok(c) => {
                    done.ves.versions += c.versions;
                    done.ves.rows += c.rows;
                    done.ves.history += c.history;
                    done.ves.moved += c.moved;
                    done.ves.files += c.files;
                    collected.push(ve);
                }
                Err(e) => {
                    tracing::warn!(ve = %ve.id(), error = %e, "not collected");
                    done.skipped += 1;
                }
            }
        }
        // Before objects are looked at: those of a tree that goes, go with it.
        done.trees = match self.collect_trees() {
            // What a VE is made of that cannot be read, or which tree a name is of, is not known.
            Err(e) if unread > 0 || matches!(e, Error::Damage { .. }) => {
                tracing::error!(error = %e, "no base tree is removed");
                done.skipped += u64::from(unread == 0);
                0
            }
            collected => collected?,
        };
        self.shared.meta.persist()?;
        // What is garbage by now is garbage in the checkpoint as well.
        // Files of a VE whose collection broke off may still be named: they stay.
        let garbage: Vec<_> = collected.into_iter().map(|ve| (ve.take_garbage(), ve)).collect();
        // What a VE that does not open would name is not known: then no object goes.
        let condemned = unread == 0 && self.condemn_objects()?;
        self.checkpoint()?;
        for (files, ve) in &garbage {
            // They are found again. One whose state was replaced meanwhile has none any more.
            if let Err(e) = ve.remove_files(files) {
                tracing::warn!(ve = %ve.id(), error = %e, "extent files not removed");
            }
        }
        if condemned && let Some(used) = self.known_uses() {
            done.objects = self.shared.objects.sweep_condemned(|hash| used.contains(hash))?;
        }
        Ok(done)
    }

    /// Opens every VE, and answers how many did not.
    fn open_what_opens(&self) -> Result<u64> {
        let mut unread = 0;
        for id in self.list()? {
            if let Err(e) = self.ve(id) {
                tracing::warn!(ve = %id, error = %e, "not opened for collection: no object is removed");
                unread += 1;
            }
        }
        Ok(unread)
    }

    /// The branches that open, and how many do not.
    fn branches_that_open(&self) -> Result<(Vec<Arc<Ve>>, u64)> {
        let (mut branches, mut unread) = (Vec::new(), 0);
        for (ve, branch) in self.try_branches()? {
            match branch {
                Ok(branch) => branches.push(branch),
                Err(e) => {
                    tracing::warn!(%ve, error = %e, "a branch is not opened for collection: no object is removed");
                    unread += 1;
                }
            }
        }
        Ok((branches, unread))
    }

    /// Seals and coalesces quiet files in every open VE; returns how many files changed, or the first error. Publishes what a quiet VE has unpublished.
    pub fn housekeep(&self, quiet: Duration) -> Result<usize> {
        let (mut changed, mut failed) = (0, Ok(()));
        for ve in self.opened() {
            if ve.read_only_reason().is_none() && !self.shared.space.is_tight() {
                // What one VE meets ends nobody else's round.
                match ve.housekeep(quiet) {
                    Ok(files) => changed += files,
                    Err(e) => failed = failed.and(Err(e)),
                }
                match ve.publish_quiet() {
                    Ok(bytes) => drop(self.shared.given_back.fetch_add(bytes as u64, Ordering::Relaxed)),
                    Err(e) => tracing::error!(ve = %ve.id(), error = %e, "publishing what is quiet"),
                }
            }
        }
        failed.map(|()| changed)
    }

    /// About how many bytes of memory VEs that do little have given back since this was asked last: whoever knows the allocator may pass them on.
    pub fn take_given_back(&self) -> u64 {
        self.shared.given_back.swap(0, Ordering::Relaxed)
    }

    fn condemn_objects(&self) -> Result<bool> {
        // Listed before the uses are: an object that comes in between is not on the list.
        let all = self.shared.objects.list()?;
        let Some(used) = self.known_uses() else { return Ok(false) };
        let dead: Vec<Hash> = all.into_iter().filter(|h| !used.contains(h)).collect();
        let any = !dead.is_empty();
        self.shared.objects.condemn(dead);
        Ok(any)
    }

    /// The objects in use, if that can be known: what one VE that does not open names is not, and then no object goes.
    fn known_uses(&self) -> Option<BTreeSet<Hash>> {
        let used = self.objects_in_use();
        used.inspect_err(|e| tracing::warn!(error = %e, "no object is removed: what is in use is not known")).ok()
    }

    /// Objects that base trees or any kept state of a VE name. Whoever opens, replaces or makes a VE at this moment is waited for: its state is in
    /// files and in no table.
    fn objects_in_use(&self) -> Result<BTreeSet<Hash>> {
        let mut used = BTreeSet::new();
        for hash in self.trees()? {
            used.extend(self.shared.base(hash)?.objects());
        }
        // In this order: a state that is made becomes a VE's, and a VE's becomes a branch, never the other way round.
        for incoming in self.all_incoming()? {
            crate::ve::objects_of_rows(&*self.shared.meta, incoming.slot, &mut used)?;
        }
        for id in self.list()? {
            self.ve(id)?.objects_in_use(&mut used)?;
        }
        for branch in self.open_branches()? {
            branch.objects_in_use(&mut used)?;
        }
        Ok(used)
    }
}

#[cfg(test)]
#[path = "reclaim_tests.rs"]
mod tests;
