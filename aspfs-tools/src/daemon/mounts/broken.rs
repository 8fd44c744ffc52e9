//! Mounts that the holder has and this daemon does not serve, or serves with nothing but errors.

use super::{Claim, Held, Id, Mounts, Slot, Target, past};

impl Mounts {
    /// Mounts that cannot be served, or only with errors.
    pub fn broken(&self) -> Vec<(Id, String)> {
        let why = |(target, slot): (&Target, &Slot)| match (slot, target.label()) {
            (Slot::Live(_, serving, _), None) if serving.is_past() => Some((Id(target.ve), past::WHY.into())),
            (Slot::Broken(_, why, _), None) => Some((Id(target.ve), format!("its mount is not served: {why}"))),
            (Slot::Broken(_, why, _), Some(label)) => {
                Some((Id(target.ve), format!("the mount of its version {label} is not served: {why}")))
            }
            _ => None,
        };
        self.slots.lock().iter().filter_map(why).collect()
    }

    /// What could not be served for this reason.
    pub(in crate::daemon) fn broken_for(&self, reason: &str) -> Vec<Target> {
        let is_it = |slot: &Slot| matches!(slot, Slot::Broken(_, why, _) if why == reason);
        self.slots.lock().iter().filter(|(_, slot)| is_it(slot)).map(|(target, _)| target.clone()).collect()
    }

    /// One of them, if it still is, for whoever tries again: nobody else has it meanwhile. The number is that of the holder that has it.
    pub(in crate::daemon) fn take_broken(&self, target: Target) -> Option<(Claim<'_>, Held, u64)> {
        let mut slots = self.slots.lock();
        let slot = slots.get_mut(&target)?;
        match std::mem::replace(slot, Slot::Claimed) {
            Slot::Broken(held, _, count) => Some((Claim { mounts: self, target }, held, count)),
            other => {
                *slot = other;
                None
            }
        }
    }
}
