//! The mounts of this daemon: which VE, or which version of one, is served, through which device, and what becomes of it.
//!
//! A target is in the table while it is mounted or being mounted: a claim. So it is mounted once. A VE that is being created or destroyed is there
//! alone, so that nothing is destroyed under a mount. The table's lock is never held while a mount is made or stopped, or the holder asked, but when a new holder is
//! given what the one before had: that must not change meanwhile.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use vefs::Store;
use vefs::fuse::Figures;
use vefs::ids::VeId;

use super::holder::{Held, Link, LinkError};
use super::mounting::is_dead;
use super::pages::Fetched;
use super::refuse::{Answer, refusal};
use super::serving::Serving;
use super::{Daemon, Periodic};
use crate::control::message::{Id, MountRow, Refusal, Why};
use aspfs_holder::protocol::{Row, VersionOf};
use aspfs_holder::push::Device;

/// How often ended mounts are looked for.
const WATCH: Duration = Duration::from_millis(100);
/// How long whoever wants to mount waits for somebody who is at it.
const CHANGING: Duration = Duration::from_secs(5);
/// How often it is looked whether that one is done.
const LOOK: Duration = Duration::from_millis(2);

/// What can be mounted: a VE, or a version of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The VE.
    pub ve: VeId,
    /// Which version; none: the VE itself.
    pub version: Option<VersionOf>,
}

impl Target {
    /// A VE itself.
    pub fn live(ve: VeId) -> Target {
        Target { ve, version: None }
    }

    /// What a mount is of.
    pub fn of(row: &Row) -> Target {
        Target { ve: VeId(row.ve), version: row.version.clone() }
    }

    /// What people call a version.
    pub fn label(&self) -> Option<&str> {
        self.version.as_ref().map(|v| v.label.as_str())
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.label() {
            None => write!(f, "{}", self.ve),
            Some(label) => write!(f, "{}@{label}", self.ve),
        }
    }
}

/// All mounts.
pub struct Mounts {
    pub(super) link: Link,
    store: Arc<Store>,
    slots: Mutex<BTreeMap<Target, Slot>>,
}

pub(super) enum Slot {
    /// Somebody is changing what it is.
    Claimed,
    /// The VE is being created or destroyed: nothing of it may be mounted.
    Alone,
    /// It is served. The number is that of the holder that has it (see [`Link::count`]).
    Live(Row, Serving, u64),
    /// The holder has it, but it cannot be served, and why.
    Broken(Held, String, u64),
}

impl Slot {
    fn row(&self) -> Option<MountRow> {
        match self {
            Slot::Live(row, serving, _) => Some(MountRow { past: serving.is_past(), ..shown(row) }),
            Slot::Broken(held, ..) => Some(shown(&held.row)),
            Slot::Claimed | Slot::Alone => None,
        }
    }

    /// Whether it was mounted and is not any more.
    fn is_over(&self) -> bool {
        match self {
            Slot::Live(_, serving, _) => serving.ended(),
            Slot::Broken(held, ..) => is_dead(&held.device),
            Slot::Claimed | Slot::Alone => false,
        }
    }
}

/// What nobody else may mount, create or destroy while this lives.
pub struct Claim<'a> {
    mounts: &'a Mounts,
    target: Target,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut slots = self.mounts.slots.lock();
        if let Some(Slot::Claimed | Slot::Alone) = slots.get(&self.target) {
            slots.remove(&self.target);
        }
    }
}

impl Mounts {
    /// With nothing mounted.
    pub fn new(link: Link, store: Arc<Store>) -> Mounts {
        Mounts { link, store, slots: Mutex::default() }
    }

    /// The holder's process.
    pub fn holder(&self) -> u32 {
        self.link.pid()
    }

    /// Keeps a VE or a version from being mounted; refused while it is. Whoever is changing what it is, and has only just been told that it was unmounted, is
    /// waited for.
    pub fn claim(&self, target: Target) -> Answer<Claim<'_>> {
        let until = Instant::now() + CHANGING;
        let mut slots = self.slots.lock();
        while matches!(slots.get(&target), Some(Slot::Claimed)) && Instant::now() < until {
            MutexGuard::unlocked(&mut slots, || std::thread::sleep(LOOK));
        }
        if let Some(slot) = slots.get(&target) {
            return Err(taken(&target, slot));
        }
        let live = Target::live(target.ve);
        if let Some(slot @ Slot::Alone) = slots.get(&live) {
            return Err(taken(&live, slot));
        }
        slots.insert(target.clone(), Slot::Claimed);
        Ok(Claim { mounts: self, target })
    }

    /// Keeps a VE and its versions from being mounted, for whoever creates or destroys it; refused while one is.
    pub fn claim_alone(&self, ve: VeId) -> Answer<Claim<'_>> {
        let mut slots = self.slots.lock();
        let first = Target::live(ve);
        if let Some((target, slot)) = slots.range(&first..).next().filter(|(target, _)| target.ve == ve) {
            return Err(taken(target, slot));
        }
        slots.insert(first.clone(), Slot::Alone);
        Ok(Claim { mounts: self, target: first })
    }

    pub(super) fn settle(&self, claim: Claim<'_>, slot: Slot) {
        self.slots.lock().insert(claim.target.clone(), slot);
    }

    /// Takes a mount over from an earlier daemon.
    pub(super) fn insert(&self, target: Target, slot: Slot) {
        self.slots.lock().insert(target, slot);
    }

    /// Whether a VE, or a version of this label, is mounted or being mounted.
    pub(super) fn has(&self, ve: VeId, label: Option<&str>) -> bool {
        self.slots.lock().keys().any(|target| target.ve == ve && target.label() == label)
    }

    /// Whether a version in this slot is mounted under this label.
    pub(super) fn has_version(&self, slot: VeId, label: &str) -> bool {
        let is_it = |version: &VersionOf| version.slot == slot.0 && version.label == label;
        self.slots.lock().keys().any(|target| target.version.as_ref().is_some_and(is_it))
    }

    /// Where a VE is mounted.
    pub fn row(&self, ve: VeId) -> Option<MountRow> {
        self.slots.lock().get(&Target::live(ve))?.row()
    }

    /// All mounts.
    pub fn rows(&self) -> Vec<MountRow> {
        self.slots.lock().values().filter_map(Slot::row).collect()
    }

    /// What all mounts counted, since this daemon serves them.
    pub fn figures(&self) -> Figures {
        let mut sum = Figures::default();
        for slot in self.slots.lock().values() {
            if let Slot::Live(_, serving, _) = slot {
                sum += serving.figures();
            }
        }
        sum
    }

    /// Begins no fetch of a VE's dirty pages for a while. Whether one is under way.
    pub(super) fn rest(&self, ve: VeId) -> bool {
        matches!(self.slots.lock().get(&Target::live(ve)), Some(Slot::Live(_, serving, _)) if serving.rest())
    }

    /// The devices of mounts whose dirty pages are to be fetched now.
    pub fn fetches(&self) -> Vec<Device> {
        let due = |slot: &Slot| match slot {
            Slot::Live(row, serving, _) if serving.begin_fetch() => Some(row.device),
            _ => None,
        };
        self.slots.lock().values().filter_map(due).collect()
    }

    /// What came of one.
    pub fn fetched(&self, device: Device, fetched: &Fetched) {
        for (target, slot) in self.slots.lock().iter() {
            if let Slot::Live(row, serving, _) = slot
                && row.device == device
                && serving.end_fetch(fetched)
            {
                tracing::warn!(ve = %target, dir = row.dir, ?fetched, "its programs' dirty pages stay in the kernel for as long as that likes");
            }
        }
    }

    /// Nothing came of any.
    pub fn fetches_failed(&self) {
        for slot in self.slots.lock().values() {
            if let Slot::Live(_, serving, _) = slot {
                serving.end_fetch(&Fetched::Failed(String::new()));
            }
        }
    }

    /// Ends what has ended: a mount that was unmounted everywhere, whether it was served or not.
    pub(super) fn sweep(&self) {
        let ended: Vec<(Claim<'_>, Option<Serving>)> = {
            let mut slots = self.slots.lock();
            let over: Vec<Target> =
                slots.iter().filter(|(_, slot)| slot.is_over()).map(|(target, _)| target.clone()).collect();
            let take = |target: Target| match slots.insert(target.clone(), Slot::Claimed) {
                Some(Slot::Live(_, serving, _)) => (Claim { mounts: self, target }, Some(serving)),
                _ => (Claim { mounts: self, target }, None),
            };
            over.into_iter().map(take).collect()
        };
        for (claim, serving) in ended {
            if let Some(serving) = serving {
                serving.finish();
            }
            match self.forget(&claim.target) {
                Ok(()) => tracing::info!(ve = %claim.target, "unmounted"),
                Err(e) => tracing::error!(ve = %claim.target, error = %e, "the holder keeps an ended mount"),
            }
        }
    }

    /// A mount is gone: the holder lets go of it, and the version is kept no longer, whatever the holder says.
    pub(super) fn forget(&self, target: &Target) -> Result<(), LinkError> {
        let forgotten = self.link.forget(target.ve, target.version.clone());
        self.release(target);
        forgotten
    }

    /// A version is not mounted: nothing keeps it for that reason. Where this fails, the next start does it.
    pub(super) fn release(&self, target: &Target) {
        if let Some(version) = &target.version
            && let Err(e) = self.store.release_mounted(target.ve, VeId(version.slot), &version.label)
        {
            tracing::warn!(ve = %target, error = %e, "a version that was unmounted is kept");
        }
    }

    /// Sees to it that the holder has every mount: one that was killed is replaced, and given what it had. Mounts go on meanwhile, since
    /// this process has their devices too. What fails is tried again at the next call.
    fn keep_held(&self) {
        if self.link.is_lost() {
            match self.link.renew() {
                Ok(()) => tracing::warn!(holder = self.link.pid(), "the connection to the holder had ended: a new one"),
                Err(e) => {
                    tracing::error!(error = %e, "the connection to the holder has ended, and there is no new one");
                    return;
                }
            }
            self.drop_unknown();
        }
        let count = self.link.count();
        let mut slots = self.slots.lock();
        for (target, slot) in slots.iter_mut() {
            let (row, (device, kept), by) = match slot {
                Slot::Live(row, serving, by) => (&*row, serving.descriptors(), by),
                Slot::Broken(held, _, by) => (&held.row, (held.device.as_fd(), held.kept.as_fd()), by),
                Slot::Claimed | Slot::Alone => continue,
            };
            if *by != count {
                match self.link.adopt(row, device, kept) {
                    Ok(()) => *by = count,
                    Err(e) => tracing::error!(ve = %target, error = %e, "the new holder does not take a mount"),
                }
            }
        }
    }

    /// After a connection that broke: the holder may have made a mount whose descriptor nobody got, or not have heard that one is gone. Those are
    /// dead. With one of them it would refuse the next mount of the same target.
    fn drop_unknown(&self) {
        let dropped = self.link.list().and_then(|all| {
            all.iter().filter(|held| is_dead(&held.device)).try_for_each(|held| {
                // Nobody mounts it meanwhile. One that is known ends by itself.
                let Ok(claim) = self.claim(Target::of(&held.row)) else { return Ok(()) };
                self.link.forget(claim.target.ve, claim.target.version.clone())
            })
        });
        if let Err(e) = dropped {
            tracing::error!(error = %e, "the holder keeps mounts that are gone");
        }
    }

    /// Ends serving; what is mounted stays with the holder. A holder of nothing ends too.
    pub fn stop(&self) {
        self.sweep();
        let slots = std::mem::take(&mut *self.slots.lock());
        if slots.is_empty() {
            if let Err(e) = self.link.quit() {
                tracing::warn!(error = %e, "ending the holder");
            }
            return;
        }
        for (target, slot) in slots {
            if let Slot::Live(_, serving, _) = slot {
                serving.freeze();
                tracing::debug!(ve = %target, "left with the holder");
            }
        }
    }

    /// Ends the holder; refused while anything is mounted, or being mounted.
    pub fn end_holder(&self) -> Answer<()> {
        self.sweep();
        match self.slots.lock().iter().next() {
            Some((target, slot)) => Err(taken(target, slot)),
            None => Ok(()),
        }
    }
}

/// Starts the thread that looks for ended mounts.
pub fn watch(daemon: Arc<Daemon>) -> io::Result<Periodic> {
    Periodic::start("aspfs-mounts", WATCH, move || {
        daemon.mounts.sweep();
        daemon.mounts.keep_held();
    })
}

/// Why something cannot be had.
fn taken(target: &Target, slot: &Slot) -> Refusal {
    let text = match slot {
        Slot::Live(row, ..) | Slot::Broken(Held { row, .. }, ..) => format!("VE {target} is mounted at {}", row.dir),
        Slot::Claimed | Slot::Alone => format!("VE {target} is being mounted, unmounted, created or destroyed"),
    };
    refusal(Why::Busy, text)
}

pub(super) fn shown(row: &Row) -> MountRow {
    let version = row.version.as_ref().map(|v| v.label.clone());
    MountRow {
        ve: Id(VeId(row.ve)),
        version,
        dir: row.dir.clone(),
        source: row.source.clone(),
        device: row.device,
        past: false,
    }
}

mod broken;
mod past;

#[cfg(test)]
mod tests;
