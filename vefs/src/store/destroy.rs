//! Destroying VEs, for good (promise G34).
//!
//! Crash points: the tombstone is durable before anything goes, and the identity goes last. Until the tombstone is there nothing has happened; from
//! then on no node revives the VE and nobody opens it, and as long as the identity says which slots are its own, the next opening of the store ends what
//! was begun.

use std::collections::BTreeSet;

use super::files::write_whole;
use super::slots::branch_path;
use super::{Store, identity_path};
use crate::error::{Error, Result};
use crate::format::identity::Identity;
use crate::format::note::Kind;
use crate::ids::{Lineage, VeId};
use crate::ve::role;

const TOMBSTONES: &str = "tombstones";

fn tombstone(lineage: Lineage) -> String {
    format!("{TOMBSTONES}/{lineage}")
}

impl Store {
    /// Erases a VE with its branches and all else that it has. After an error nothing has happened, or nobody opens it any more: called again, or
    /// when the store is opened next, this goes on. One that does not open is destroyed like any other.
    pub fn destroy_ve(&self, id: VeId) -> Result<()> {
        let _collecting = self.collecting.lock();
        // Nobody opens or makes it until all is erased.
        let mut claim = self.ves.seize(id);
        let identity = self.read_identity(id)?.ok_or_else(|| Error::Store(format!("there is no VE {id}")))?;
        let open = claim.before().cloned();
        let _publishing = open.as_ref().map(|ve| ve.publishing.lock());
        if !self.is_buried(identity.lineage) {
            self.check_not_mounted(id, identity.slot)?;
            for name in self.branch_names(id)? {
                self.read_branch(id, &name)?.map_or(Ok(()), |branch| self.check_not_mounted(id, branch.slot))?;
            }
        }
        let buried = self.bury(identity.lineage);
        // Where not even the tombstone could be written the VE goes on.
        if let Some(ve) = open.as_ref().filter(|_| self.is_buried(identity.lineage)) {
            ve.state.lock().journal.poison("the VE was destroyed".into());
        }
        buried?;
        if let Some(ve) = &open {
            self.shared.space.release(ve.state.lock().inline());
        }
        claim.gone();
        self.remove_rest(&identity)?;
        self.erase(identity.slot)?;
        self.remove_small(&identity_path(id))?;
        self.give_slot_back(identity.slot);
        Ok(())
    }

    /// Removes everything that a destroyed VE has beside its state: role, branches, what was being made. Of each its rows and files go before the name by
    /// which they are found.
    fn remove_rest(&self, identity: &Identity) -> Result<()> {
        let ve = identity.ve;
        for name in self.branch_names(ve)? {
            let branch = self.read_branch(ve, &name)?;
            let open = self.branches.lock().remove(&(ve, name.clone()));
            if let Some(open) = open {
                open.state.lock().journal.poison("the VE was destroyed".into());
                self.shared.space.release(open.state.lock().inline());
            }
            if let Some(branch) = &branch {
                self.erase(branch.slot)?;
            }
            self.remove_small(&branch_path(ve, &name))?;
            if let Some(branch) = branch {
                self.give_slot_back(branch.slot);
            }
        }
        if let Some(incoming) = self.read_incoming(ve)? {
            self.erase(incoming.slot)?;
            self.abandon(&incoming)?;
        }
        self.remove_small(&role::path(ve))
    }

    /// Remembers that the VE of a lineage was destroyed, so that no node that comes back revives it (promise G34).
    pub(super) fn bury(&self, lineage: Lineage) -> Result<()> {
        write_whole(&*self.shared.storage, &tombstone(lineage), &[])?;
        Kind::ALL.into_iter().try_for_each(|kind| self.drop_note(lineage, kind))
    }

    /// Whether the VE of this lineage was destroyed.
    pub fn is_buried(&self, lineage: Lineage) -> bool {
        self.shared.storage.open(&tombstone(lineage)).is_ok()
    }

    /// Refuses a VE that was destroyed: what is left of it is no state.
    pub(super) fn check_not_buried(&self, identity: &Identity) -> Result<()> {
        match self.is_buried(identity.lineage) {
            true => Err(Error::Store(format!("VE {} was destroyed", identity.ve))),
            false => Ok(()),
        }
    }

    /// Takes over from another node that the VE of a lineage was destroyed: it is destroyed here as well, with its branches.
    pub fn bury_ve(&self, ve: VeId, lineage: Lineage) -> Result<()> {
        match self.read_identity(ve)? {
            Some(identity) if identity.lineage == lineage => self.destroy_ve(ve),
            _ => self.bury(lineage),
        }
    }

    /// Goes on with destructions that a crash interrupted. One with which that fails stays closed.
    pub(super) fn finish_destroying(&self) {
        let half = self.half_destroyed().unwrap_or_else(|e| {
            tracing::error!(error = %e, "looking for VEs that were being destroyed");
            Vec::new()
        });
        for id in half {
            match self.destroy_ve(id) {
                Ok(()) => tracing::warn!(ve = %id, "its destruction had been interrupted: done"),
                Err(e) => tracing::error!(ve = %id, error = %e, "going on with its destruction"),
            }
        }
    }

    /// The VEs that have a tombstone and an identity.
    fn half_destroyed(&self) -> Result<Vec<VeId>> {
        let list = |dir: &str| self.shared.storage.list(dir).map_err(Error::io("listing", dir));
        let buried: BTreeSet<String> = list(TOMBSTONES)?.into_iter().collect();
        if buried.is_empty() {
            return Ok(Vec::new());
        }
        let is_half = |id: &VeId| match self.read_identity(*id) {
            Ok(identity) => identity.is_some_and(|i| buried.contains(&i.lineage.to_string())),
            // Whoever opens it is told.
            Err(_) => false,
        };
        Ok(list("ves")?.iter().filter_map(|n| n.parse().ok()).filter(is_half).collect())
    }
}

#[cfg(test)]
#[path = "destroy_tests.rs"]
mod tests;
