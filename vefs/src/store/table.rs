//! The VEs of a store that are open, and those that somebody is opening, creating or destroying: one at a time for each VE, any number
//! for the store. Opening a VE replays its journal, which must hold up nobody but those who want this VE.
//!
//! Invariant: the table's lock is held over nothing that can wait. A claim is given up when it is dropped, whatever happened.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::ids::VeId;
use crate::ve::Ve;

#[derive(Default)]
pub(super) struct Table {
    slots: Mutex<BTreeMap<VeId, Slot>>,
    /// Somebody has given up a claim.
    settled: Condvar,
}

enum Slot {
    Open(Arc<Ve>),
    Claimed,
}

/// What became of the wish to have a VE.
pub(super) enum Claimed<'a> {
    /// It is open.
    Open(Arc<Ve>),
    /// It is not, and nobody else opens or makes it while this lives.
    Free(Claim<'a>),
}

/// The right to open, make, replace or destroy a VE. When it is dropped, what was open before is open again.
pub(super) struct Claim<'a> {
    table: &'a Table,
    ve: VeId,
    before: Option<Arc<Ve>>,
}

impl Table {
    /// The VE, or the right to open it; waits for whoever has that.
    pub fn claim(&self, ve: VeId) -> Claimed<'_> {
        let mut slots = self.slots.lock();
        loop {
            match slots.get(&ve) {
                Some(Slot::Open(ve)) => return Claimed::Open(ve.clone()),
                Some(Slot::Claimed) => self.settled.wait(&mut slots),
                None => break,
            }
        }
        slots.insert(ve, Slot::Claimed);
        Claimed::Free(Claim { table: self, ve, before: None })
    }

    /// The right to a VE, whether it is open (see [`Claim::before`]) or not. Nobody else gets it meanwhile.
    pub fn seize(&self, ve: VeId) -> Claim<'_> {
        loop {
            let before = match self.claim(ve) {
                Claimed::Free(claim) => return claim,
                Claimed::Open(before) => before,
            };
            let mut slots = self.slots.lock();
            if let Some(slot @ Slot::Open(_)) = slots.get_mut(&ve)
                && matches!(slot, Slot::Open(open) if Arc::ptr_eq(open, &before))
            {
                *slot = Slot::Claimed;
                return Claim { table: self, ve, before: Some(before) };
            }
        }
    }

    /// The VEs that are open.
    pub fn open(&self) -> Vec<Arc<Ve>> {
        let open = |slot: &Slot| match slot {
            Slot::Open(ve) => Some(ve.clone()),
            Slot::Claimed => None,
        };
        self.slots.lock().values().filter_map(open).collect()
    }
}

impl Claim<'_> {
    /// What was open when it was seized.
    pub fn before(&self) -> Option<&Arc<Ve>> {
        self.before.as_ref()
    }

    /// What was open is of no use any more.
    pub fn gone(&mut self) {
        self.before = None;
    }

    /// The VE is open.
    pub fn open(mut self, ve: Arc<Ve>) {
        self.before = Some(ve);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut slots = self.table.slots.lock();
        match self.before.take() {
            Some(ve) => slots.insert(self.ve, Slot::Open(ve)),
            None => slots.remove(&self.ve),
        };
        drop(slots);
        self.table.settled.notify_all();
    }
}
