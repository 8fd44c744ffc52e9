//! Mounted versions of a store's VEs: whose slot they are in, and what becomes of a slot that only they use.
//!
//! Invariant: a slot of which a version is mounted is not erased (promise G26). A state that is replaced meanwhile becomes a branch, whose
//! name says why, and which goes with the last of its mounts.

use std::sync::Arc;

use super::Store;
use crate::error::{Error, Result};
use crate::ids::VeId;
use crate::meta::rows::Mounted;
use crate::meta::{Batch, Table, rows};
use crate::ve::{Ve, mounted_rows};

/// What the name of a branch begins with that is there for mounts alone.
const FOR_MOUNTS: &str = "mounted-";

/// The name of the branch that a replaced state becomes because a version of it is mounted.
pub(super) fn branch_for_mounts(slot: VeId) -> String {
    format!("{FOR_MOUNTS}{slot}").to_ascii_lowercase()
}

impl Store {
    /// Whether a version in this slot is mounted.
    pub(super) fn is_slot_mounted(&self, slot: VeId) -> Result<bool> {
        Ok(!mounted_rows(&*self.shared.meta, &rows::mounted_prefix(slot))?.is_empty())
    }

    /// Refuses what would take a slot's bytes away from under a mount.
    pub(super) fn check_not_mounted(&self, ve: VeId, slot: VeId) -> Result<()> {
        match mounted_rows(&*self.shared.meta, &rows::mounted_prefix(slot))?.first() {
            Some((_, label, _)) => Err(Error::Store(format!("version {label} of VE {ve} is mounted"))),
            None => Ok(()),
        }
    }

    /// Every version that is mounted: slot, label, which.
    pub fn mounted_versions(&self) -> Result<Vec<(VeId, String, Mounted)>> {
        mounted_rows(&*self.shared.meta, &rows::mounted_versions())
    }

    /// The state of a VE that lies in a slot: its present one, or a branch.
    pub fn state_in(&self, ve: VeId, slot: VeId) -> Result<Arc<Ve>> {
        if self.read_identity(ve)?.is_some_and(|i| i.slot == slot) {
            return self.ve(ve);
        }
        for name in self.branch_names(ve)? {
            if self.read_branch(ve, &name)?.is_some_and(|i| i.slot == slot) {
                return self.branch(ve, &name);
            }
        }
        Err(Error::Store(format!("VE {ve} has no state in slot {slot} any more")))
    }

    /// A version is not mounted any more: nothing keeps it for that reason. A branch that was there for its mounts goes with the last one.
    pub fn release_mounted(&self, ve: VeId, slot: VeId, label: &str) -> Result<()> {
        let mut batch = Batch::default();
        batch.delete(Table::System, rows::mounted(slot, label));
        self.shared.meta.write(batch)?;
        self.shared.meta.persist()?;
        self.drop_branch_for_mounts(ve, &branch_for_mounts(slot))
    }

    /// Releases every mounted version that is not mounted: what a kill left. Returns how many that were.
    pub fn release_unmounted(&self, is_mounted: impl Fn(VeId, &str) -> bool) -> Result<usize> {
        let mut released = 0;
        for (slot, label, row) in self.mounted_versions()? {
            if !is_mounted(slot, &label) {
                self.release_mounted(row.ve, slot, &label)?;
                released += 1;
            }
        }
        for ve in self.list()? {
            for name in self.branch_names(ve)?.iter().filter(|n| n.starts_with(FOR_MOUNTS)) {
                self.drop_branch_for_mounts(ve, name)?;
            }
        }
        Ok(released)
    }

    fn drop_branch_for_mounts(&self, ve: VeId, name: &str) -> Result<()> {
        let Some(identity) = self.read_branch(ve, name)? else { return Ok(()) };
        if name != branch_for_mounts(identity.slot) || self.is_slot_mounted(identity.slot)? {
            return Ok(());
        }
        self.remove_branch(ve, name)
    }
}
