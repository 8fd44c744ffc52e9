//! Whether this node writes a VE or follows it. The file `role` is durable before anything happens under it (promises G10, G18, G21).
//!
//! Invariant: nothing but [`Ve::receive`](super::Ve) changes a VE whose role is not that of the primary.

use super::{State, Ve};
use crate::error::{Error, Result};
use crate::format::identity::Identity;
use crate::format::role::{self, Fork, Role, RoleKind};
use crate::ids::{Epoch, Hash, VeId};
use crate::store::Shared;
use crate::store::files::{read_whole, write_whole};

/// Path of a VE's role.
pub(crate) fn path(ve: VeId) -> String {
    format!("ves/{ve}/role")
}

/// The role of a VE that was never replicated.
pub(crate) fn alone(identity: &Identity) -> Role {
    Role {
        store: identity.store,
        ve: identity.ve,
        lineage: identity.lineage,
        kind: RoleKind::Primary,
        epoch: Epoch(0),
        fork: Fork::default(),
    }
}

/// The role that is on disk. One of another lineage is that of an erased VE of the same identifier.
pub(crate) fn load(shared: &Shared, identity: &Identity) -> Result<Role> {
    let path = path(identity.ve);
    let Some(bytes) = read_whole(&*shared.storage, &path, role::LEN)? else { return Ok(alone(identity)) };
    let role = Role::parse(&bytes).map_err(|e| e.at("role of a VE", path.clone()))?;
    if role.ve != identity.ve || role.store != identity.store {
        let detail = format!("it is that of VE {} of another folder or store", role.ve);
        return Err(Error::Damage { what: "role of a VE", place: path, detail });
    }
    Ok(if role.lineage == identity.lineage { role } else { alone(identity) })
}

/// Writes a role, durably.
pub(crate) fn store(shared: &Shared, role: &Role) -> Result<()> {
    write_whole(&*shared.storage, &path(role.ve), &role.to_bytes())
}

impl State {
    /// `Err` where this node does not write the VE.
    pub fn check_writer(&self) -> Result<()> {
        let reason = match self.role.kind {
            RoleKind::Primary => return Ok(()),
            RoleKind::Replica => "it follows another node",
            RoleKind::Superseded => "another node took it over",
        };
        Err(Error::ReadOnly { ve: self.role.ve, reason: reason.into() })
    }

    /// `Err` where this node writes the VE in a higher epoch than this.
    fn check_not_above(&self, epoch: Epoch) -> Result<()> {
        if self.role.kind != RoleKind::Primary || self.epoch <= epoch {
            return Ok(());
        }
        let (ve, ours) = (self.role.ve, self.epoch.0);
        let text = "a state from another node, which has not seen that, does not take its place";
        Err(Error::Store(format!("VE {ve} is written here in epoch {ours}: {text}")))
    }
}

impl Ve {
    /// What this node does with the VE.
    pub fn role(&self) -> Role {
        self.state.lock().role
    }

    /// Whether this node writes the VE.
    pub fn is_writer(&self) -> bool {
        self.state.lock().role.kind == RoleKind::Primary
    }

    /// The epoch in which this node writes, or the highest that it has seen where it follows.
    pub fn epoch(&self) -> Epoch {
        let s = self.state.lock();
        match s.role.kind {
            RoleKind::Primary => s.epoch,
            _ => s.role.epoch.max(s.head.epoch),
        }
    }

    /// Takes note of an epoch. Durable when this returns; lower ones change nothing (promise G10). EINVAL at a writer for one above its own: noted
    /// there, its next start would take it for the one that it wrote in.
    pub fn note_epoch(&self, epoch: Epoch) -> Result<()> {
        let mut s = self.state.lock();
        if epoch <= s.role.epoch {
            return Ok(());
        }
        if s.role.kind == RoleKind::Primary && epoch > s.epoch {
            return Err(crate::errno::Errno::EINVAL.into());
        }
        let role = Role { epoch, ..s.role };
        self.take_role(&mut s, role)
    }

    /// Takes a role on, durably first. Where an error leaves another one on the disk than is in memory, nothing is written any more: the next start would
    /// take what was written under the one for the other's (promises G10, G18).
    fn take_role(&self, s: &mut State, role: Role) -> Result<()> {
        let Err(e) = store(&self.shared, &role) else {
            s.role = role;
            return Ok(());
        };
        match load(&self.shared, &self.identity) {
            Ok(there) if there == s.role => Err(e),
            // Its name may be in the page cache alone.
            _ => Err(s.journal.poison_flush(format!("writing its role: {e}"))),
        }
    }

    /// The objects that the present and kept states name and that are not here (promise G21).
    pub fn missing_objects(&self) -> Result<Vec<Hash>> {
        let mut used = std::collections::BTreeSet::new();
        self.objects_in_use(&mut used)?;
        let mut missing = Vec::new();
        for hash in used {
            if !self.shared.objects.contains(hash)? {
                missing.push(hash);
            }
        }
        Ok(missing)
    }

    /// Begins to write, in this epoch, behind what is here: durable before the first new change (promise G21). EINVAL where the
    /// epoch is not above every one seen.
    pub fn promote(&self, epoch: Epoch) -> Result<Role> {
        self.promote_in(epoch, false)
    }

    /// As [`Ve::promote`], in the epoch that a majority joined, this node with them: it is noted here already, and is nobody else's.
    pub fn promote_joined(&self, epoch: Epoch) -> Result<Role> {
        self.promote_in(epoch, true)
    }

    fn promote_in(&self, epoch: Epoch, joined: bool) -> Result<Role> {
        self.sync()?;
        let mut s = self.state.lock();
        s.journal.check()?;
        let noted = joined && epoch == s.role.epoch && s.role.kind != RoleKind::Primary;
        if (epoch <= s.role.epoch && !noted) || epoch <= s.head.epoch {
            return Err(crate::errno::Errno::EINVAL.into());
        }
        let fork = Fork { txn: s.head.txn, epoch: s.head.epoch, chain: s.head.chain };
        let role = Role { kind: RoleKind::Primary, epoch, fork, ..s.role };
        self.take_role(&mut s, role)?;
        s.staged.clear();
        s.epoch = epoch;
        Ok(role)
    }

    /// Another state takes this one's place: whoever still has it changes nothing any more. What was answered is sealed first. Refused, with nothing
    /// changed, where this node writes in an epoch above `seen`: the other state does not have what it acknowledged (promise G11).
    pub(crate) fn retire(&self, reason: &str, seen: Epoch) -> Result<()> {
        let _one = self.publishing.lock();
        self.make_hashes();
        let mut s = self.state.lock();
        s.check_not_above(seen)?;
        if s.journal.poisoned().is_none() && s.role.kind == RoleKind::Primary {
            s.seal(&self.shared)?;
        }
        drop(s);
        if self.read_only_reason().is_none() {
            self.sync()?;
        }
        let mut s = self.state.lock();
        // It may have been promoted meanwhile; behind this it cannot be.
        s.check_not_above(seen)?;
        s.journal.poison(reason.into());
        drop(s);
        self.count_received();
        Ok(())
    }

    /// Ends writing: what was answered is sealed and durable, then the role is. With [`RoleKind::Replica`] this node follows from now on
    /// whoever has `epoch` or a higher one.
    pub fn step_down(&self, kind: RoleKind, epoch: Epoch) -> Result<Role> {
        // Nobody publishes: a seal under way would end in the new role.
        let _one = self.publishing.lock();
        loop {
            self.make_hashes();
            self.state.lock().seal(&self.shared)?;
            self.sync()?;
            let mut s = self.state.lock();
            if s.open.records > 0 || !s.is_durable()? {
                continue;
            }
            let role = Role { kind, epoch: epoch.max(s.role.epoch).max(s.epoch), ..s.role };
            self.take_role(&mut s, role)?;
            return Ok(role);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::sync::Arc;

    use super::*;
    use crate::meta::MemoryMeta;
    use crate::storage::fault::{Call, FaultPlan, FaultStorage};
    use crate::storage::memory::MemStorage;
    use crate::store::bed;

    /// A new role was on the disk and the old one in memory, after an error behind the rename: the VE went on writing in a role that its next start did not
    /// know (checks G10, G21). An error before it changes nothing, and stops nobody.
    #[test]
    fn memory_and_disk_do_not_differ_about_a_role() {
        type Change = fn(&Ve) -> Result<()>;
        let changes: [(bool, Change); 3] = [
            (false, |ve| ve.note_epoch(Epoch(9))),
            (false, |ve| ve.promote(Epoch(9)).map(drop)),
            (true, |ve| ve.step_down(RoleKind::Replica, Epoch(9)).map(drop)),
        ];
        for (writes, change) in changes {
            let plan = FaultPlan::new();
            let storage = Arc::new(FaultStorage::new(Arc::new(MemStorage::new()), plan.clone()));
            let store = bed::on(storage, Arc::new(MemoryMeta::default()));
            let (_from, primary, _) = bed::in_memory();
            let ve = match writes {
                true => bed::create_ve(&store, bed::VE),
                false => bed::create_follower(&store, &primary),
            };
            ve.sync().unwrap();
            let before = ve.role();
            let on_disk = || load(&ve.shared, &ve.identity).unwrap();
            for (call, error) in [(Call::Create, ErrorKind::StorageFull), (Call::Sync, ErrorKind::Other)] {
                plan.fail(call, 1, error);
                change(&ve).unwrap_err();
                assert_eq!((ve.role(), on_disk(), ve.read_only_reason()), (before, before, None));
            }
            plan.fail(Call::SyncDir, 1, ErrorKind::Other);
            change(&ve).unwrap_err();
            assert_ne!(on_disk(), before);
            assert!(ve.read_only_reason().unwrap().contains("role"));
        }
    }
}
