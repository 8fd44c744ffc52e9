//! Mounts that the holder has and this daemon does not serve, or serves with nothing but errors.

use super::{Held, Id, Mounts, Slot, Target, past};

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

    /// The mounts that cannot be served, for whoever tries again and puts each back.
    pub(in crate::daemon) fn take_broken(&self) -> Vec<Held> {
        let mut slots = self.slots.lock();
        let broken = |slot: &mut Slot| match slot {
            Slot::Broken(..) => match std::mem::replace(slot, Slot::Claimed) {
                Slot::Broken(held, ..) => Some(held),
                _ => None,
            },
            _ => None,
        };
        slots.values_mut().filter_map(broken).collect()
    }
}
