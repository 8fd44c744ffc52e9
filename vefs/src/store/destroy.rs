//! Destroying VEs: for good (promise G34), or this node's copy alone.
//!
//! Crash points: the tombstone is durable before anything goes, and the identity goes last. Until the tombstone is there nothing has happened; from
//! then on nobody opens the VE, and as long as the identity says which slots are its own, the next opening of the store ends what was begun.
//!
//! Invariant: only the tombstone of a VE that was destroyed for good says anything to other nodes: they erase theirs by it, and none revives the VE. That
//! of a copy is gone when the copy is, and the VE can come again.

use std::collections::BTreeMap;

use super::files::{read_whole, write_whole};
use super::slots::branch_path;
use super::{Store, identity_path};
use crate::error::{Error, Result};
use crate::format::identity::Identity;
use crate::format::note::Kind;
use crate::ids::{Lineage, VeId};
use crate::ve::role;

const TOMBSTONES: &str = "tombstones";
/// What the tombstone of a copy holds. That of a VE is empty.
const COPY: &[u8] = b"copy";

/// What a tombstone stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// The VE, on every node.
    Ve,
    /// What this node had of it.
    Copy,
}

fn tombstone(lineage: Lineage) -> String {
    format!("{TOMBSTONES}/{lineage}")
}

impl Store {
    /// Erases a VE with its branches and all else that it has, for good. After an error nothing has happened, or nobody opens it any more: called
    /// again, or when the store is opened next, this goes on. One that does not open is destroyed like any other.
    pub fn destroy_ve(&self, id: VeId) -> Result<()> {
        self.destroy(id, Mark::Ve)
    }

    /// As [`Store::destroy_ve`], for a VE that another node writes: nobody else erases theirs, and it can be followed here again.
    pub fn destroy_copy(&self, id: VeId) -> Result<()> {
        self.destroy(id, Mark::Copy)
    }

    fn destroy(&self, id: VeId, wanted: Mark) -> Result<()> {
        let _collecting = self.collecting.lock();
        // Nobody opens or makes it until all is erased.
        let mut claim = self.ves.seize(id);
        let identity = self.read_identity(id)?.ok_or_else(|| Error::Store(format!("there is no VE {id}")))?;
        let open = claim.before().cloned();
        let _publishing = open.as_ref().map(|ve| ve.publishing.lock());
        let begun = self.mark(identity.lineage)?;
        if begun.is_none() {
            self.check_not_mounted(id, identity.slot)?;
            for name in self.branch_names(id)? {
                self.read_branch(id, &name)?.map_or(Ok(()), |branch| self.check_not_mounted(id, branch.slot))?;
            }
        }
        // What was destroyed for good does not come again, whoever goes on with it.
        let mark = if begun == Some(Mark::Ve) { Mark::Ve } else { wanted };
        let buried = self.put_mark(identity.lineage, mark);
        // Where not even the tombstone could be written the VE goes on.
        if let Some(ve) = open.as_ref().filter(|_| buried.is_ok() || self.is_marked(identity.lineage)) {
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
        if mark == Mark::Copy { self.remove_small(&tombstone(identity.lineage)) } else { Ok(()) }
    }

    /// Removes everything that a destroyed VE has beside its state: role, branches, what was being made. Of each its rows and files go before the name by
    /// which they are found.
    fn remove_rest(&self, identity: &Identity) -> Result<()> {
        let ve = identity.ve;
        for name in self.branch_files(ve)? {
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
        self.put_mark(lineage, Mark::Ve)
    }

    /// Writes a tombstone. What was promised other nodes about a VE holds without a copy of it.
    fn put_mark(&self, lineage: Lineage, mark: Mark) -> Result<()> {
        let (body, notes) = match mark {
            Mark::Ve => (&[][..], &Kind::ALL[..]),
            Mark::Copy => (COPY, &[][..]),
        };
        write_whole(&*self.shared.storage, &tombstone(lineage), body)?;
        notes.iter().try_for_each(|kind| self.drop_note(lineage, *kind))
    }

    fn mark(&self, lineage: Lineage) -> Result<Option<Mark>> {
        let body = read_whole(&*self.shared.storage, &tombstone(lineage), COPY.len())?;
        Ok(body.map(|body| mark_of(&body)))
    }

    /// Whether there is a tombstone, of whatever kind and in whatever state.
    fn is_marked(&self, lineage: Lineage) -> bool {
        self.shared.storage.open(&tombstone(lineage)).is_ok()
    }

    /// Whether the VE of this lineage was destroyed, on every node. One of which only the copy here was is not.
    pub fn is_buried(&self, lineage: Lineage) -> bool {
        matches!(self.mark(lineage), Ok(Some(Mark::Ve)))
    }

    /// Refuses a VE that was destroyed, or whose copy is being: what is left of it is no state.
    pub(super) fn check_not_buried(&self, identity: &Identity) -> Result<()> {
        match self.mark(identity.lineage)? {
            Some(_) => Err(Error::Store(format!("VE {} was destroyed", identity.ve))),
            None => Ok(()),
        }
    }

    /// As [`Store::check_not_buried`], for one that is about to be put there. `old`: what is there. The tombstone of a copy that is gone keeps no other
    /// one away, and goes.
    pub(super) fn check_may_come(&self, new: &Identity, old: Option<&Identity>) -> Result<()> {
        let gone = old.is_none_or(|old| old.lineage != new.lineage);
        match self.mark(new.lineage)? {
            Some(Mark::Copy) if gone => self.remove_small(&tombstone(new.lineage)),
            _ => self.check_not_buried(new),
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
        for (id, mark) in half {
            match self.destroy(id, mark) {
                Ok(()) => tracing::warn!(ve = %id, "its destruction had been interrupted: done"),
                Err(e) => tracing::error!(ve = %id, error = %e, "going on with its destruction"),
            }
        }
    }

    /// The VEs that have a tombstone and an identity. Tombstones of copies without one are removed.
    fn half_destroyed(&self) -> Result<Vec<(VeId, Mark)>> {
        let list = |dir: &str| self.shared.storage.list(dir).map_err(Error::io("listing", dir));
        let mut marks = BTreeMap::new();
        for name in list(TOMBSTONES)?.into_iter().filter(|name| !name.ends_with(".new")) {
            let path = format!("{TOMBSTONES}/{name}");
            let body = read_whole(&*self.shared.storage, &path, COPY.len())?;
            marks.insert(name, mark_of(&body.unwrap_or_default()));
        }
        if marks.is_empty() {
            return Ok(Vec::new());
        }
        let (mut half, mut unread) = (Vec::new(), false);
        for id in list("ves")?.iter().filter_map(|n| n.parse().ok()) {
            match self.read_identity(id) {
                Ok(Some(identity)) => half.extend(marks.remove(&identity.lineage.to_string()).map(|mark| (id, mark))),
                Ok(None) => {}
                // Whoever opens it is told.
                Err(_) => unread = true,
            }
        }
        for (name, _) in marks.iter().filter(|(_, mark)| **mark == Mark::Copy && !unread) {
            self.remove_small(&format!("{TOMBSTONES}/{name}"))?;
        }
        Ok(half)
    }
}

/// What a tombstone of these bytes stands for.
fn mark_of(body: &[u8]) -> Mark {
    if body.is_empty() { Mark::Ve } else { Mark::Copy }
}

#[cfg(test)]
#[path = "destroy_tests.rs"]
mod tests;
