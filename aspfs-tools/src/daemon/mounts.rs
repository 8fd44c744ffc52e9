//! The mounts of this daemon: which VE is served, through which device, and what becomes of it.
//!
//! A VE is in the table while it is mounted, being mounted, or being created or destroyed: a claim. So a VE is mounted once, and nothing
//! is destroyed under a mount. The table's lock is never held while a mount is made or stopped, or the holder asked, but when a new holder is
//! given what the one before had: that must not change meanwhile.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vefs::fuse::Figures;
use vefs::ids::VeId;

use super::holder::{Held, Link};
use super::pages::Fetched;
use super::refuse::{Answer, refusal};
use super::serving::Serving;
use super::{Daemon, DaemonError, Periodic};
use crate::control::message::{Id, MountRow, Released, Why};
use aspfs_holder::protocol::{MountFlags, Row, TEXT_MAX};
use aspfs_holder::push::Device;

/// Read-ahead of a mount in KiB: a request of 1 MiB, the largest there is.
const READ_AHEAD_KIB: u32 = 1024;
/// How long somebody who unmounts waits for the helper.
const REST: Duration = Duration::from_secs(1);
/// Threads that take mounts over: opening a VE reads and flushes.
const TAKING_OVER: usize = 4;
/// How often ended mounts are looked for.
const WATCH: Duration = Duration::from_millis(100);

/// All mounts.
pub struct Mounts {
    link: Link,
    slots: Mutex<BTreeMap<VeId, Slot>>,
}

enum Slot {
    /// Somebody is changing what it is.
    Claimed,
    /// It is served. The number is that of the holder that has it (see [`Link::count`]).
    Live(Row, Serving, u64),
    /// The holder has it, but it cannot be served, and why.
    Broken(Held, String, u64),
}

impl Slot {
    fn row(&self) -> Option<MountRow> {
        match self {
            Slot::Live(row, ..) => Some(shown(row)),
            Slot::Broken(held, ..) => Some(shown(&held.row)),
            Slot::Claimed => None,
        }
    }
}

/// A VE that nobody else may mount, create or destroy while this lives.
pub struct Claim<'a> {
    mounts: &'a Mounts,
    ve: VeId,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut slots = self.mounts.slots.lock();
        if let Some(Slot::Claimed) = slots.get(&self.ve) {
            slots.remove(&self.ve);
        }
    }
}

impl Mounts {
    /// With nothing mounted.
    pub fn new(link: Link) -> Mounts {
        Mounts { link, slots: Mutex::default() }
    }

    /// The holder's process.
    pub fn holder(&self) -> u32 {
        self.link.pid()
    }

    /// Keeps a VE from being mounted; refused while it is.
    pub fn claim(&self, ve: VeId) -> Answer<Claim<'_>> {
        let mut slots = self.slots.lock();
        match slots.get(&ve) {
            None => {
                slots.insert(ve, Slot::Claimed);
                Ok(Claim { mounts: self, ve })
            }
            Some(Slot::Claimed) => {
                Err(refusal(Why::Busy, format!("VE {ve} is being mounted, unmounted, created or destroyed")))
            }
            Some(Slot::Live(row, ..) | Slot::Broken(Held { row, .. }, ..)) => {
                Err(refusal(Why::Busy, format!("VE {ve} is mounted at {}", row.dir)))
            }
        }
    }

    fn settle(&self, claim: Claim<'_>, slot: Slot) {
        self.slots.lock().insert(claim.ve, slot);
    }

    /// Where a VE is mounted.
    pub fn row(&self, ve: VeId) -> Option<MountRow> {
        self.slots.lock().get(&ve)?.row()
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

    /// Mounts that cannot be served.
    pub fn broken(&self) -> Vec<(Id, String)> {
        let why = |(ve, slot): (&VeId, &Slot)| match slot {
            Slot::Broken(_, why, _) => Some((Id(*ve), format!("its mount is not served: {why}"))),
            _ => None,
        };
        self.slots.lock().iter().filter_map(why).collect()
    }

    /// Begins no fetch of a VE's dirty pages for a while. Whether one is under way.
    fn rest(&self, ve: VeId) -> bool {
        matches!(self.slots.lock().get(&ve), Some(Slot::Live(_, serving, _)) if serving.rest())
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
        for (ve, slot) in self.slots.lock().iter() {
            if let Slot::Live(row, serving, _) = slot
                && row.device == device
                && serving.end_fetch(fetched)
            {
                tracing::warn!(%ve, dir = row.dir, ?fetched, "its programs' dirty pages stay in the kernel for as long as that likes");
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

    /// Ends what has ended: a mount that was unmounted everywhere.
    fn sweep(&self) {
        let ended: Vec<(Claim<'_>, Option<Serving>)> = {
            let mut slots = self.slots.lock();
            let over: Vec<VeId> = slots
                .iter()
                .filter(|(_, s)| matches!(s, Slot::Live(_, serving, _) if serving.ended()))
                .map(|(ve, _)| *ve)
                .collect();
            let take = |ve: VeId| match slots.insert(ve, Slot::Claimed) {
                Some(Slot::Live(_, serving, _)) => (Claim { mounts: self, ve }, Some(serving)),
                _ => (Claim { mounts: self, ve }, None),
            };
            over.into_iter().map(take).collect()
        };
        for (claim, serving) in ended {
            if let Some(serving) = serving {
                serving.finish();
            }
            match self.link.forget(claim.ve) {
                Ok(()) => tracing::info!(ve = %claim.ve, "unmounted"),
                Err(e) => tracing::error!(ve = %claim.ve, error = %e, "the holder keeps an ended mount"),
            }
        }
    }

    /// Sees to it that the holder has every mount: one that was killed is replaced, and given what it had. Mounts go on meanwhile, since
    /// this process has their devices too. What fails is tried again at the next call.
    fn keep_held(&self) {
        if self.link.is_lost() {
            match self.link.renew() {
                Ok(()) => tracing::warn!(holder = self.link.pid(), "the holder has ended, there is a new one"),
                Err(e) => {
                    tracing::error!(error = %e, "the holder has ended, and there is no new one");
                    return;
                }
            }
        }
        let count = self.link.count();
        let mut slots = self.slots.lock();
        for (ve, slot) in slots.iter_mut() {
            let (row, (device, kept), by) = match slot {
                Slot::Live(row, serving, by) => (&*row, serving.descriptors(), by),
                Slot::Broken(held, _, by) => (&held.row, (held.device.as_fd(), held.kept.as_fd()), by),
                Slot::Claimed => continue,
            };
            if *by != count {
                match self.link.adopt(row, device, kept) {
                    Ok(()) => *by = count,
                    Err(e) => tracing::error!(%ve, error = %e, "the new holder does not take a mount"),
                }
            }
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
        for (ve, slot) in slots {
            if let Slot::Live(_, serving, _) = slot {
                serving.freeze();
                tracing::debug!(%ve, "left with the holder");
            }
        }
    }

    /// Ends the holder; refused while anything is mounted.
    pub fn end_holder(&self) -> Answer<()> {
        self.sweep();
        if let Some(row) = self.rows().first() {
            return Err(refusal(Why::Busy, format!("VE {} is mounted at {}", row.ve, row.dir)));
        }
        Ok(())
    }
}

/// Starts the thread that looks for ended mounts.
pub fn watch(daemon: Arc<Daemon>) -> io::Result<Periodic> {
    Periodic::start("aspfs-mounts", WATCH, move || {
        daemon.mounts.sweep();
        daemon.mounts.keep_held();
    })
}

impl Daemon {
    /// Mounts a VE, attached nowhere yet: whoever closes the descriptor without attaching it ends the mount.
    pub fn mount(&self, ve: VeId, dir: &str, source: &str, flags: &MountFlags) -> Answer<(MountRow, OwnedFd)> {
        for (what, text) in [("mount point", dir), ("source", source)] {
            if text.is_empty() || text.len() > TEXT_MAX || text.contains('\0') {
                return Err(refusal(Why::Usage, format!("the {what} is empty, too long or contains a zero byte")));
            }
        }
        if !self.ve(ve)?.is_writer() {
            let text = "it follows another node here: mount it there, or promote this node";
            return Err(refusal(Why::Failed, format!("VE {ve}: {text}")));
        }
        self.mounts.sweep();
        let claim = self.mounts.claim(ve)?;
        let count = self.mounts.link.count();
        let (held, mount) = self.mounts.link.mount(ve, dir, source, flags)?;
        let (held_row, row) = (held.row.clone(), shown(&held.row));
        match self.serve(held) {
            Ok(serving) => {
                set_read_ahead(row.device);
                tracing::info!(%ve, dir, "mounted");
                self.mounts.settle(claim, Slot::Live(held_row, serving, count));
                Ok((row, mount))
            }
            Err(why) => {
                drop(mount);
                self.mounts.link.forget(ve)?;
                Err(refusal(Why::Failed, format!("VE {ve}: {why}")))
            }
        }
    }

    fn serve(&self, held: Held) -> Result<Serving, String> {
        let ve = self.store.ve(VeId(held.row.ve)).map_err(|e| e.to_string())?;
        let host = self.host.as_ref().map_err(Clone::clone)?;
        (self.prepare)(&ve);
        let replication = self.replication.lock().clone();
        if let Some(replication) = replication {
            replication.refresh(&ve).map_err(|e| e.to_string())?;
        }
        Serving::start(host, ve, held).map_err(|e| e.to_string())
    }

    /// Serves what the holder kept from the daemon before, several VEs at a time. What cannot be served stays with the holder and is named
    /// in the status.
    pub fn take_over(&self) -> Result<(), DaemonError> {
        let held = Mutex::new(self.mounts.link.list()?.into_iter());
        let next = || held.lock().next();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..TAKING_OVER)
                .map(|_| scope.spawn(|| std::iter::from_fn(next).try_for_each(|h| self.take(h))))
                .collect();
            // A panic is one of `serve`: the mount it was about is as good as broken, and so is this daemon.
            threads.into_iter().try_for_each(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    }

    /// Goes on serving one mount.
    fn take(&self, held: Held) -> Result<(), DaemonError> {
        let ve = VeId(held.row.ve);
        if is_dead(&held.device) {
            self.mounts.link.forget(ve)?;
            tracing::info!(%ve, "was unmounted meanwhile");
            return Ok(());
        }
        let row = held.row.clone();
        let count = self.mounts.link.count();
        let spare =
            held.try_clone().map_err(|source| DaemonError::Io { what: "copying a mount's descriptors", source })?;
        let slot = match self.serve(held) {
            Ok(serving) => {
                tracing::info!(%ve, dir = row.dir, "taken over");
                Slot::Live(row, serving, count)
            }
            Err(why) => {
                tracing::error!(%ve, dir = row.dir, why, "its mount cannot be served");
                Slot::Broken(spare, why, count)
            }
        };
        self.mounts.slots.lock().insert(ve, slot);
        Ok(())
    }

    /// Where a VE is mounted, for whoever is going to unmount it: the helper that fetches dirty pages leaves it alone for a while.
    pub fn mounted(&self, ve: VeId) -> Answer<MountRow> {
        self.ve(ve)?;
        self.mounts.sweep();
        let until = Instant::now() + REST;
        while self.mounts.rest(ve) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.mounts.row(ve).ok_or_else(|| refusal(Why::NotFound, format!("VE {ve} is not mounted")))
    }

    /// Waits until a VE is not mounted any more.
    pub fn released(&self, ve: VeId, wait: Duration) -> Released {
        let until = Instant::now() + wait;
        loop {
            self.mounts.sweep();
            let released = !self.mounts.slots.lock().contains_key(&ve);
            if released || Instant::now() >= until {
                return Released { released };
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Tells the daemon to end.
    pub fn end(&self, holder: bool) -> Answer<()> {
        if holder {
            self.mounts.end_holder()?;
        }
        let me = nix::unistd::Pid::this();
        nix::sys::signal::kill(me, nix::sys::signal::Signal::SIGTERM)
            .map_err(|e| refusal(Why::Failed, format!("stopping: {e}")))
    }
}

fn shown(row: &Row) -> MountRow {
    MountRow { ve: Id(VeId(row.ve)), dir: row.dir.clone(), source: row.source.clone(), device: row.device }
}

/// Whether the kernel has given a mount up: it was unmounted everywhere, or its connection aborted.
fn is_dead(device: &OwnedFd) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(device.as_fd(), PollFlags::empty())];
    let asked = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    asked.is_ok() && fds.iter().any(|fd| fd.revents().intersects(PollFlags::ERR | PollFlags::HUP))
}

/// The kernel's default of 128 KiB would cut large reads in eight. Possible only when the mount's first request has been answered.
fn set_read_ahead((major, minor): (u32, u32)) {
    let path = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    if let Err(e) = std::fs::write(&path, READ_AHEAD_KIB.to_string()) {
        tracing::warn!(path, error = %e, "read-ahead stays at the kernel's default");
    }
}
