//! Slots: the numbers under which rows and files of VEs lie. A VE's identity names its slot, so that a whole state can be made beside the
//! one in use and put in its place by one rename, and so that a state that was replaced can stay as a *branch*, to be read.
//!
//! Crash points (promises G22, G23): a slot that no identity and no branch names is nothing, whatever it holds. The branch's name is durable before
//! the identity that replaces it is; the old slot is erased only when the new identity is durable. In between the branch names the slot of the
//! present state: it is no branch then, and nothing but its small file ever goes with it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::files::{read_whole, write_whole};
use super::mounted::branch_for_mounts;
use super::{Store, identity_path};
use crate::error::{Error, Result};
use crate::format::identity::{self, Identity};
use crate::format::role::{Fork, Role, RoleKind};
use crate::ids::{Epoch, Hash, Lineage, VeId};
use crate::limits;
use crate::ve::{Ve, role};

/// The folder of a VE's branches.
fn branches(ve: VeId) -> String {
    format!("ves/{ve}/branches")
}

pub(super) fn branch_path(ve: VeId, name: &str) -> String {
    format!("{}/{name}", branches(ve))
}

/// Whether a branch may have this name: 1 to [`limits::LABEL_MAX`] of `a-z`, `0-9`, `.` and `-`, not beginning with a dot.
pub fn is_branch_name(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-';
    (1..=limits::LABEL_MAX).contains(&name.len()) && name.bytes().all(good) && !name.starts_with('.')
}

impl Store {
    /// Opens a follower anew whose taking of a transaction failed half-way: what it had of it is dropped (promise G9). What it had before is flushed
    /// first. Refused where a flush failed: nobody knows what of it is on the disk.
    pub fn reopen_follower(&self, id: VeId) -> Result<Arc<Ve>> {
        let mut claim = self.ves.seize(id);
        if let Some(old) = claim.before() {
            if old.read_only_reason().is_none() || old.is_writer() {
                return Ok(old.clone());
            }
            let old = old.clone();
            // A publication that is past its flush ends first: it writes rows of the state that the new instance reads.
            let _publishing = old.publishing.lock();
            old.flush_poisoned()?;
            self.shared.space.release(old.state.lock().inline());
            old.count_received();
            claim.gone();
        }
        drop(claim);
        self.ve(id)
    }

    /// Whether there is a VE of this identifier.
    pub fn has_ve(&self, id: VeId) -> bool {
        self.shared.storage.open(&identity_path(id)).is_ok()
    }

    /// Makes a VE that follows another node's history from its beginning. Durable when this returns.
    pub fn create_follower(&self, id: VeId, lineage: Lineage, base: Hash, epoch: Epoch) -> Result<Arc<Ve>> {
        if id == VeId(0) {
            return Err(Error::Store("VE 00000000 is the node itself and has no tree".into()));
        }
        let _making = self.making.lock();
        let claim = self.claim_new(id)?;
        let _pin = self.shared.objects.pin(base);
        self.shared.base(base)?;
        let slot = self.free_slot(id)?;
        let identity = Identity { store: self.shared.store, ve: id, lineage, base, epoch, slot };
        self.check_may_come(&identity, None)?;
        self.erase(slot)?;
        self.write_role(&identity, RoleKind::Replica, epoch)?;
        write_whole(&*self.shared.storage, &identity_path(id), &identity.to_bytes())?;
        let ve = Ve::open(&self.shared, identity, true)?;
        claim.open(ve.clone());
        Ok(ve)
    }

    pub(super) fn write_role(&self, identity: &Identity, kind: RoleKind, epoch: Epoch) -> Result<()> {
        let fork = Fork::default();
        let role = Role { store: self.shared.store, ve: identity.ve, lineage: identity.lineage, kind, epoch, fork };
        role::store(&self.shared, &role)
    }

    /// A slot that nobody has: the VE's own number where that is free.
    pub(super) fn free_slot(&self, ve: VeId) -> Result<VeId> {
        let mut foreign = self.foreign_slots.lock();
        let taken = match &mut *foreign {
            Some(taken) => taken,
            None => foreign.insert(self.read_foreign_slots()?),
        };
        let own = self.shared.storage.open(&identity_path(ve)).is_err();
        if own && !taken.contains(&ve) {
            return Ok(ve);
        }
        loop {
            let slot = VeId(self.shared.entropy.next_u64() as u32);
            let named = self.shared.storage.open(&identity_path(slot)).is_ok();
            if slot != VeId(0) && slot != ve && !named && taken.insert(slot) {
                return Ok(slot);
            }
        }
    }

    /// The slots that have another number than their VE.
    fn read_foreign_slots(&self) -> Result<BTreeSet<VeId>> {
        let mut taken = BTreeSet::new();
        for id in self.list()? {
            taken.extend(self.read_identity(id)?.map(|i| i.slot).filter(|s| *s != id));
            for name in self.branch_names(id)? {
                taken.extend(self.read_branch(id, &name)?.map(|i| i.slot));
            }
        }
        Ok(taken)
    }

    /// The names of a VE's branches: states that were replaced and kept.
    pub fn branch_names(&self, ve: VeId) -> Result<Vec<String>> {
        let mut names = self.branch_files(ve)?;
        if !names.is_empty()
            && let Some(present) = self.read_identity(ve)?
        {
            names.retain(|name| !matches!(self.read_branch(ve, name), Ok(Some(i)) if i.slot == present.slot));
        }
        Ok(names)
    }

    /// As [`Store::branch_names`], with what a replacement left that was not ended.
    pub(super) fn branch_files(&self, ve: VeId) -> Result<Vec<String>> {
        let dir = branches(ve);
        let mut names = self.shared.storage.list(&dir).map_err(Error::io("listing", dir))?;
        names.retain(|n| is_branch_name(n) && !n.ends_with(".new"));
        names.sort_unstable();
        Ok(names)
    }

    /// Whether the slot of a branch is the one of the VE's present state.
    fn is_present(&self, branch: &Identity) -> Result<bool> {
        Ok(self.read_identity(branch.ve)?.is_some_and(|i| i.slot == branch.slot))
    }

    pub(super) fn read_branch(&self, ve: VeId, name: &str) -> Result<Option<Identity>> {
        if !is_branch_name(name) {
            return Ok(None);
        }
        let path = branch_path(ve, name);
        let Some(bytes) = read_whole(&*self.shared.storage, &path, identity::LEN)? else { return Ok(None) };
        let identity = Identity::parse(&bytes).map_err(|e| e.at("branch of a VE", path.clone()))?;
        if identity.ve != ve || identity.store != self.shared.store {
            let detail = format!("it is of VE {} of another folder or store", identity.ve);
            return Err(Error::Damage { what: "branch of a VE", place: path, detail });
        }
        Ok(Some(identity))
    }

    /// A branch, to be read: it takes no changes.
    pub fn branch(&self, ve: VeId, name: &str) -> Result<Arc<Ve>> {
        let mut open = self.branches.lock();
        if let Some(branch) = open.get(&(ve, name.to_owned())) {
            return Ok(branch.clone());
        }
        let identity =
            self.read_branch(ve, name)?.ok_or_else(|| Error::Store(format!("VE {ve} has no branch {name}")))?;
        if self.is_present(&identity)? {
            return Err(Error::Store(format!("branch {name} of VE {ve} is the VE's present state")));
        }
        let branch = Ve::open_frozen(&self.shared, identity)?;
        open.insert((ve, name.to_owned()), branch.clone());
        Ok(branch)
    }

    /// Removes a branch with all its bytes, or the name alone where the bytes are those of the present state.
    pub fn remove_branch(&self, ve: VeId, name: &str) -> Result<()> {
        let _collecting = self.collecting.lock();
        {
            // Nobody replaces the present state between the look and the removal.
            let _claim = self.ves.seize(ve);
            if let Some(identity) = self.read_branch(ve, name)?
                && self.is_present(&identity)?
            {
                return self.remove_small(&branch_path(ve, name));
            }
        }
        let branch = self.branch(ve, name)?;
        let _publishing = branch.publishing.lock();
        self.check_not_mounted(ve, branch.slot)?;
        branch.state.lock().journal.poison("the branch was removed".into());
        self.branches.lock().remove(&(ve, name.to_owned()));
        self.remove_small(&branch_path(ve, name))?;
        self.shared.space.release(branch.state.lock().inline());
        self.erase(branch.slot)?;
        self.give_slot_back(branch.slot);
        Ok(())
    }

    pub(super) fn give_slot_back(&self, slot: VeId) {
        if let Some(taken) = &mut *self.foreign_slots.lock() {
            taken.remove(&slot);
        }
    }

    /// Opens every branch of every VE; they are collected and their objects counted like VEs.
    pub(super) fn open_branches(&self) -> Result<Vec<Arc<Ve>>> {
        self.try_branches()?.into_iter().map(|(_, branch)| branch).collect()
    }

    /// Every branch of every VE, or why it, or the names of a VE's, cannot be read.
    pub(super) fn try_branches(&self) -> Result<Vec<(VeId, Result<Arc<Ve>>)>> {
        let mut out = Vec::new();
        for ve in self.list()? {
            match self.branch_names(ve) {
                Ok(names) => out.extend(names.iter().map(|name| (ve, self.branch(ve, name)))),
                Err(e) => out.push((ve, Err(e))),
            }
        }
        Ok(out)
    }

    /// Gives the present state the name of a branch, with a number behind it where another state has that name: both stay.
    fn name_branch(&self, name: &str, old: &Identity) -> Result<()> {
        let numbered = (2u32..).map(|n| format!("{name}-{n}"));
        for name in std::iter::once(name.to_owned()).chain(numbered).take_while(|name| is_branch_name(name)) {
            match self.read_branch(old.ve, &name) {
                Ok(None) => return write_whole(&*self.shared.storage, &branch_path(old.ve, &name), &old.to_bytes()),
                // What is damaged is somebody's as well.
                Ok(Some(_)) | Err(Error::Damage { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Err(Error::Store(format!("there is a branch {name} of VE {} already", old.ve)))
    }

    /// Removes the names that a replacement which was not ended gave the present state.
    fn drop_half_branches(&self, present: &Identity) -> Result<()> {
        for name in self.branch_files(present.ve)? {
            if matches!(self.read_branch(present.ve, &name), Ok(Some(i)) if i.slot == present.slot) {
                self.remove_small(&branch_path(present.ve, &name))?;
            }
        }
        Ok(())
    }

    /// Puts a state that was made in another slot in the place of a VE's present one, which stays under `branch` if one is named, or while a
    /// version of it is mounted; else it is erased. Whoever still has the old one finds it read-only. Refused where this node writes the VE in an epoch
    /// above `epoch`, the one of the node that the state comes from: it was promoted meanwhile, and what it acknowledged stays (promise G11).
    pub(super) fn replace(&self, new: Identity, epoch: Epoch, branch: Option<&str>) -> Result<Arc<Ve>> {
        let _making = self.making.lock();
        let mut claim = self.ves.seize(new.ve);
        let old = self.read_identity(new.ve)?;
        // Whoever destroyed the VE meanwhile took away what was made.
        if self.read_incoming(new.ve)?.is_none_or(|incoming| incoming.slot != new.slot) {
            return Err(Error::Store(format!("what was being made of VE {} was given up", new.ve)));
        }
        self.check_may_come(&new, old.as_ref())?;
        if let Some(name) = branch.filter(|name| !is_branch_name(name)) {
            return Err(Error::Store(format!("{name:?} cannot be the name of a branch")));
        }
        if let Some(open) = claim.before() {
            let reason = if branch.is_some() { "its history was rewound" } else { "its state was replaced" };
            open.retire(reason, epoch)?;
        }
        old.as_ref().map_or(Ok(()), |old| self.drop_half_branches(old))?;
        // From here on no version of the old state can be held for a mount.
        let branch = match (branch, &old) {
            (None, Some(old)) if self.is_slot_mounted(old.slot)? => Some(branch_for_mounts(old.slot)),
            _ => branch.map(str::to_owned),
        };
        if let (Some(name), Some(old)) = (&branch, &old) {
            self.name_branch(name, old)?;
            if let Some(taken) = &mut *self.foreign_slots.lock() {
                taken.insert(old.slot);
            }
        }
        let keeps_epoch = old.as_ref().is_some_and(|o| o.lineage == new.lineage);
        let seen = match claim.before().filter(|_| keeps_epoch) {
            Some(open) => open.epoch(),
            None if keeps_epoch => role::load(&self.shared, &new)?.epoch,
            None => Epoch(0),
        };
        self.write_role(&new, RoleKind::Replica, epoch.max(seen))?;
        write_whole(&*self.shared.storage, &identity_path(new.ve), &new.to_bytes())?;
        if let Some(gone) = claim.before() {
            self.shared.space.release(gone.state.lock().inline());
        }
        claim.gone();
        if let (None, Some(old)) = (branch, old) {
            self.erase(old.slot)?;
            self.give_slot_back(old.slot);
        }
        let ve = Ve::open(&self.shared, new, true)?;
        claim.open(ve.clone());
        Ok(ve)
    }
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
