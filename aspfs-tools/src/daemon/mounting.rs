//! Mounting and unmounting: what the daemon does with a VE or a version that somebody wants mounted, and with what the daemon before had mounted.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use aspfs_holder::protocol::{MountFlags, Row, TEXT_MAX, VersionOf};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vefs::ids::{TxnNo, VeId};

use super::holder::Held;
use super::mounts::{Claim, Slot, Target, shown};
use super::refuse::{Answer, refusal};
use super::replication::NOT_REPLICATED;
use super::serving::Serving;
use super::versions::no_version;
use super::{Daemon, DaemonError};
use crate::control::message::{At, Id, MountRow, Released, Why};
use crate::control::versions::{Named, Which};

/// Read-ahead of a mount in KiB: a request of 1 MiB, the largest there is.
const READ_AHEAD_KIB: u32 = 1024;
/// How long somebody who unmounts waits for the helper.
const REST: Duration = Duration::from_secs(1);
/// How long a mount that was cut off may take to end.
const ENDING: Duration = Duration::from_secs(5);
/// Threads that take mounts over: opening a VE reads and flushes.
const TAKING_OVER: usize = 4;

/// What a client wants mounted.
pub struct Wanted<'a> {
    /// The VE.
    pub ve: VeId,
    /// Which version; none: the VE itself.
    pub version: Option<&'a Which>,
    /// Where it is going to be attached: for people.
    pub dir: &'a str,
    /// Its source in /proc/mounts; its name if not given.
    pub source: Option<&'a str>,
    /// How.
    pub flags: &'a MountFlags,
}

impl Daemon {
    /// Mounts a VE, attached nowhere yet: whoever closes the descriptor without attaching it ends the mount.
    pub fn mount(&self, wanted: &Wanted<'_>) -> Answer<(MountRow, OwnedFd)> {
        for (what, text) in [("mount point", Some(wanted.dir)), ("source", wanted.source)] {
            if text.is_some_and(|text| text.is_empty() || text.len() > TEXT_MAX || text.contains('\0')) {
                return Err(refusal(Why::Usage, format!("the {what} is empty, too long or contains a zero byte")));
            }
        }
        self.mounts.sweep();
        let (target, claim) = match wanted.version {
            None => self.claim_live(wanted.ve)?,
            Some(which) => self.claim_version(wanted.ve, which)?,
        };
        let count = self.mounts.link.count();
        let row = Row {
            ve: target.ve.0,
            version: target.version.clone(),
            dir: wanted.dir.to_owned(),
            source: wanted.source.map_or_else(|| target.to_string(), str::to_owned),
            flags: MountFlags { read_only: wanted.flags.read_only || target.version.is_some(), ..wanted.flags.clone() },
            device: (0, 0),
        };
        let (held, mount) = self.mounts.link.mount(row).inspect_err(|_| self.mounts.release(&target))?;
        let (held_row, row) = (held.row.clone(), shown(&held.row));
        match self.serve(held) {
            Ok(serving) => {
                set_read_ahead(row.device);
                tracing::info!(ve = %target, dir = wanted.dir, "mounted");
                self.mounts.settle(claim, Slot::Live(held_row, serving, count));
                Ok((row, mount))
            }
            Err(why) => {
                drop(mount);
                self.mounts.forget(&target)?;
                Err(refusal(Why::Failed, format!("VE {target}: {why}")))
            }
        }
    }

    /// The right to mount a VE, which only its writer may. A mount that was left there while another node wrote it makes room.
    fn claim_live(&self, ve: VeId) -> Answer<(Target, Claim<'_>)> {
        if !self.ve(ve)?.is_writer() {
            let text = "it follows another node here: mount it there, mount a version of it, or promote this node";
            return Err(refusal(Why::Failed, format!("VE {ve}: {text}")));
        }
        if let Some(past) = self.mounts.past(ve) {
            tracing::warn!(%ve, dir = past.dir, "the mount from before another node wrote this VE is cut off: the VE is mounted anew");
            let failed = |e| refusal(Why::Failed, format!("VE {ve}: ending its former mount at {}: {e}", past.dir));
            self.mounts.abort_past(ve).map_err(failed)?;
            // Where somebody else mounts it meanwhile, that is said below.
            if !self.released(ve, None, ENDING).released && self.mounts.past(ve).is_some() {
                return Err(refusal(Why::Busy, format!("VE {ve}: its former mount at {} does not end", past.dir)));
            }
        }
        let target = Target::live(ve);
        Ok((target.clone(), self.mounts.claim(target)?))
    }

    /// The right to mount a version, which is kept from now on.
    fn claim_version(&self, ve: VeId, which: &Which) -> Answer<(Target, Claim<'_>)> {
        let found = self.find(Id(ve), Some(which))?;
        let label = found.label();
        let version = VersionOf { slot: found.state.slot().0, txn: found.txn.0, label: label.clone() };
        let target = Target { ve, version: Some(version) };
        let claim = self.mounts.claim(target.clone())?;
        found.state.hold_mounted(&label, found.txn).map_err(|e| no_version(Id(ve), &label, e))?;
        Ok((target, claim))
    }

    fn serve(&self, held: Held) -> Result<Serving, String> {
        let host = self.host.as_ref().map_err(Clone::clone)?;
        let id = VeId(held.row.ve);
        if let Some(VersionOf { slot, txn, label }) = held.row.version.clone() {
            let state = self.store.state_in(id, VeId(slot)).map_err(|e| e.to_string())?;
            let version = state.hold_mounted(&label, TxnNo(txn)).map_err(|e| no_version(Id(id), &label, e).message)?;
            return Serving::start_version(host, version, held).map_err(|e| e.to_string());
        }
        let ve = self.store.ve(id).map_err(|e| e.to_string())?;
        (self.prepare)(&ve);
        self.lead(&ve)?;
        Serving::start(host, ve, held).map_err(|e| e.to_string())
    }

    /// Serves what the holder kept from the daemon before, several VEs at a time. What cannot be served stays with the holder and is named
    /// in the status.
    pub fn take_over(&self) -> Result<(), DaemonError> {
        let held = Mutex::new(self.mounts.link.list()?.into_iter());
        let next = || held.lock().next();
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..TAKING_OVER).map(|_| scope.spawn(|| std::iter::from_fn(next).for_each(|h| self.take(h)))).collect();
            // A panic is one of `serve`: the mount it was about is as good as broken, and so is this daemon.
            threads.into_iter().for_each(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        });
        // Before anything is collected: what a kill left of mounts that are no more. Nobody waits for it where it fails.
        match self.store.release_unmounted(|slot, label| self.mounts.has_version(slot, label)) {
            Ok(0) => {}
            Ok(n) => tracing::info!(n, "versions that are not mounted any more were released"),
            Err(e) => tracing::warn!(error = %e, "releasing versions that are not mounted any more"),
        }
        Ok(())
    }

    /// Goes on serving one mount of the daemon before.
    fn take(&self, held: Held) {
        let (target, count) = (Target::of(&held.row), self.mounts.link.count());
        if let Some(slot) = self.serve_again(held, count) {
            self.mounts.insert(target, slot);
        }
    }

    /// Serves what was mounted before, and is the holder's of this number; none where it was unmounted meanwhile.
    fn serve_again(&self, held: Held, count: u64) -> Option<Slot> {
        let (ve, row) = (Target::of(&held.row), held.row.clone());
        if is_dead(&held.device) {
            match self.mounts.forget(&ve) {
                Ok(()) => tracing::info!(%ve, "was unmounted meanwhile"),
                // It is told later, when there is another one.
                Err(e) => tracing::error!(%ve, error = %e, "the holder keeps an ended mount"),
            }
            return None;
        }
        let (served, spare) = match held.try_clone() {
            Ok(spare) => (self.serve(held), spare),
            Err(e) => (Err(format!("copying its descriptors: {e}")), held),
        };
        Some(match served {
            Ok(serving) => {
                tracing::info!(%ve, dir = row.dir, "taken over");
                Slot::Live(row, serving, count)
            }
            Err(why) => {
                tracing::error!(%ve, dir = row.dir, why, "its mount cannot be served");
                Slot::Broken(spare, why, count)
            }
        })
    }

    /// Tries to serve what could not be served for want of replication. Whatever asked for it meanwhile has been waiting.
    pub fn serve_broken(&self) {
        for target in self.mounts.broken_for(NOT_REPLICATED) {
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            if let Some((claim, held, count)) = self.mounts.take_broken(target)
                && let Some(slot) = self.serve_again(held, count)
            {
                self.mounts.settle(claim, slot);
            }
        }
    }

    /// Where a VE or a version is mounted, for whoever is going to unmount it: the helper that fetches dirty pages leaves it alone for a while.
    pub fn mounted(&self, ve: VeId, which: Option<&Which>) -> Answer<MountRow> {
        self.mounts.sweep();
        let Some(which) = which else {
            let until = Instant::now() + REST;
            while self.mounts.rest(ve) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
            // One that does not open can be unmounted.
            let nothing = |_| refusal(Why::NotFound, format!("VE {ve} is not mounted"));
            return self.mounts.row(ve).ok_or_else(|| self.ve(ve).map_or_else(|e| e, nothing));
        };
        let name = Named { ve, version: Some(which.clone()) };
        let rows: Vec<MountRow> = self.mounts.rows().into_iter().filter(|row| row.ve.0 == ve).collect();
        let labelled = |label: &str| rows.iter().find(|row| row.version.as_deref() == Some(label)).cloned();
        let found = match which {
            Which::At(At::Txn(txn)) => labelled(&txn.to_string()),
            Which::Branch(branch, txn) => labelled(&format!("{branch}:{txn}")),
            _ => self.find(Id(ve), Some(which)).ok().and_then(|found| labelled(&found.label())),
        };
        found.ok_or_else(|| {
            let others: Vec<String> = rows.iter().map(MountRow::name).collect();
            let others = if others.is_empty() { "nothing of this VE is".into() } else { others.join(", ") + " is" };
            refusal(Why::NotFound, format!("VE {name} is not mounted; {others}"))
        })
    }

    /// Waits until a VE, or a version of this label, is not mounted any more.
    pub fn released(&self, ve: VeId, label: Option<&str>, wait: Duration) -> Released {
        let until = Instant::now() + wait;
        loop {
            self.mounts.sweep();
            let released = !self.mounts.has(ve, label);
            if released || Instant::now() >= until || self.stopping.load(Ordering::Acquire) {
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

/// Whether the kernel has given a mount up: it was unmounted everywhere, or its connection aborted.
pub(super) fn is_dead(device: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(device, PollFlags::empty())];
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
