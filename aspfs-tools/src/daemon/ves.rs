//! What clients ask of VEs: creating, showing, setting, destroying; versions and holds; the node's status.

use std::collections::BTreeMap;

use vefs::change::Settings;
use vefs::format::role::RoleKind;
use vefs::ids::{Hash, TxnNo, VeId};

use super::Daemon;
use super::refuse::{Answer, about, refusal};
use crate::control::message::{At, Change, Collected, Counted, HoldRow, Id, MountRow, Status, VeRow, Version, Why};
use crate::units::show_time;

impl Daemon {
    /// The VE of this identifier.
    pub fn ve(&self, id: VeId) -> Answer<std::sync::Arc<vefs::Ve>> {
        self.store.ve(id).map_err(|e| match e {
            vefs::Error::Store(text) => refusal(Why::NotFound, text),
            e => about(format!("VE {id}"))(e),
        })
    }

    pub fn create(&self, id: Id, templates: &[String], change: &Change) -> Answer<VeRow> {
        let (base, _pin) = self.base_of(templates)?;
        let settings = changed(&Settings::default(), change);
        // Its claim keeps it from being mounted or destroyed while it is made.
        let _claim = self.mounts.claim(id.0)?;
        let ve = self.store.create_ve(id.0, base, settings).map_err(|e| match e {
            vefs::Error::Store(text) => refusal(Why::Exists, text),
            e => about(format!("VE {id}"))(e),
        })?;
        self.change_policy(&ve, change)?;
        self.row(id.0)
    }

    /// What is shown of a VE.
    pub fn row(&self, id: VeId) -> Answer<VeRow> {
        self.row_with(id, &self.template_names()?)
    }

    /// As [`Daemon::row`], with the names of templates at hand.
    pub fn row_with(&self, id: VeId, names: &BTreeMap<Hash, Vec<String>>) -> Answer<VeRow> {
        let ve = self.ve(id)?;
        let (usage, position, settings) = (ve.statfs(), ve.position(), ve.settings());
        let policy = ve.policy().map_err(about(format!("VE {id}")))?;
        Ok(VeRow {
            ve: Id(id),
            base: ve.identity().base.to_hex(),
            templates: names.get(&ve.identity().base).cloned().unwrap_or_default(),
            lineage: position.lineage.to_string(),
            epoch: position.epoch.0,
            txn: position.txn.0,
            bytes_used: usage.bytes_used,
            bytes_limit: usage.bytes_limit,
            inodes_used: usage.inodes_used,
            inodes_limit: usage.inodes_limit,
            history_limit: settings.history_bytes,
            journal_bytes: ve.journal_bytes(),
            mounted: self.mounts.row(id),
            role: role(&ve).into(),
            window_ms: policy.window_ms.into(),
            at_window: super::replication::at_window(&policy).into(),
            replicas: policy.replicas.len() as u64,
            read_only: ve.read_only_reason().or_else(|| ve.fenced()),
        })
    }

    /// Changes settings; durable when it returns.
    pub fn set(&self, id: Id, change: &Change) -> Answer<VeRow> {
        let ve = self.ve(id.0)?;
        let at = || about(format!("settings of VE {id}"));
        ve.set_settings(changed(&ve.settings(), change)).map_err(at())?;
        ve.sync().map_err(at())?;
        self.change_policy(&ve, change)?;
        self.row(id.0)
    }

    fn change_policy(&self, ve: &std::sync::Arc<vefs::Ve>, change: &Change) -> Answer<()> {
        let policy = ve.policy().map_err(about(format!("VE {}", ve.id())))?;
        let wanted = super::replication::changed_policy(&policy, change);
        if wanted == policy { Ok(()) } else { self.set_policy(ve, wanted) }
    }

    pub fn destroy(&self, id: Id) -> Answer<()> {
        let _claim = self.mounts.claim(id.0)?;
        let ve = self.ve(id.0)?;
        self.tell_destroyed(&ve);
        drop(ve);
        self.store.destroy_ve(id.0).map_err(about(format!("VE {id}")))
    }

    pub fn status(&self) -> Answer<Status> {
        let disk = rustix::fs::statvfs(&self.config.store)
            .map_err(|e| refusal(Why::Failed, format!("{}: {e}", self.config.store.display())))?;
        let ves = self.store.list()?;
        // Those that are mounted are open: asking the others would open them all.
        let mounts = self.mounts.rows();
        let why = |row: &MountRow| {
            let ve = self.store.ve(row.ve.0).ok()?;
            Some((row.ve, ve.read_only_reason().or_else(|| ve.fenced())?))
        };
        let mut read_only: Vec<(Id, String)> = mounts.iter().filter_map(why).collect();
        read_only.extend(self.mounts.broken());
        Ok(Status {
            release: crate::version().into(),
            pid: std::process::id(),
            store: self.config.store.display().to_string(),
            uptime: self.started.elapsed().as_secs(),
            ves: ves.len() as u64,
            mounts,
            counted: counted(self.mounts.figures()),
            holder: self.mounts.holder(),
            free: disk.f_bavail.saturating_mul(disk.f_frsize),
            size: disk.f_blocks.saturating_mul(disk.f_frsize),
            tight: disk.f_bavail.saturating_mul(disk.f_frsize) < self.config.options.reserve,
            read_only,
        })
    }

    pub fn collect(&self) -> Answer<Collected> {
        let done = self.store.collect_garbage(&self.config.retention).map_err(about("garbage collection"))?;
        Ok(Collected {
            versions: done.ves.versions,
            history_bytes: done.ves.history,
            moved_bytes: done.ves.moved,
            files: done.ves.files,
            object_bytes: done.objects,
        })
    }
}

fn counted(f: vefs::fuse::Figures) -> Counted {
    Counted {
        passthrough: f.passthrough,
        cached: f.cached,
        moved: f.moved,
        resent: f.resent,
        answered_before: f.answered_before,
        read: f.read,
        written: f.written,
        syncs: f.syncs,
        parked: f.parked,
        waited: f.waited,
    }
}

fn role(ve: &vefs::Ve) -> &'static str {
    match ve.role().kind {
        RoleKind::Primary => "primary",
        RoleKind::Replica => "replica",
        RoleKind::Superseded => "superseded",
    }
}

fn changed(settings: &Settings, change: &Change) -> Settings {
    Settings {
        quota_bytes: change.quota.unwrap_or(settings.quota_bytes),
        quota_inodes: change.inodes.unwrap_or(settings.quota_inodes),
        history_bytes: change.history.unwrap_or(settings.history_bytes),
    }
}

/// The versions that can be read, oldest first.
pub fn versions(daemon: &Daemon, id: Id) -> Answer<Vec<Version>> {
    let rows = daemon.ve(id.0)?.versions().map_err(about(format!("versions of VE {id}")))?;
    let show = |row: &vefs::ve::VersionRow| Version {
        txn: row.position.txn.0,
        time: show_time(row.time),
        epoch: row.position.epoch.0,
        chain: row.position.chain.to_hex(),
    };
    Ok(rows.iter().map(show).collect())
}

/// The transaction that a client means: the present state if it names none, the newest version that is not younger than a moment.
pub fn txn_at(ve: &vefs::Ve, at: Option<At>) -> Answer<TxnNo> {
    let in_ve = || about(format!("VE {}", ve.id()));
    match at {
        None => {
            ve.seal().map_err(in_ve())?;
            Ok(ve.position().txn)
        }
        Some(At::Txn(txn)) => Ok(TxnNo(txn)),
        Some(At::Time(secs, nanos)) => {
            let moment = vefs::clock::Timestamp { secs, nanos };
            let versions = ve.versions().map_err(in_ve())?;
            let found = versions.iter().rev().find(|v| v.time <= moment);
            found.map(|v| v.position.txn).ok_or_else(|| {
                let oldest = versions.first().map_or("there is none".into(), |v| {
                    format!("the oldest is transaction {} of {}", v.position.txn, show_time(v.time))
                });
                refusal(
                    Why::NotFound,
                    format!("VE {} has no version of {} or before; {oldest}", ve.id(), show_time(moment)),
                )
            })
        }
    }
}

/// Keeps a version.
pub fn hold(daemon: &Daemon, id: Id, name: &str, at: Option<At>, onwards: bool, owner: &str) -> Answer<HoldRow> {
    let ve = daemon.ve(id.0)?;
    let txn = txn_at(&ve, at)?;
    ve.hold(name, txn, onwards, owner).map_err(|e| match e {
        vefs::Error::Posix(vefs::errno::Errno::EEXIST) => {
            refusal(Why::Exists, format!("VE {id} has a hold named {name:?} already"))
        }
        vefs::Error::Posix(vefs::errno::Errno::ENOENT) => {
            refusal(Why::NotFound, format!("VE {id} has no version {txn}: it was collected, or is not there yet"))
        }
        vefs::Error::Posix(vefs::errno::Errno::EINVAL) => {
            refusal(Why::Usage, "a hold's name and owner are 1 to 128 bytes long".to_owned())
        }
        e => about(format!("hold {name:?} of VE {id}"))(e),
    })?;
    let held = holds(daemon, id)?.into_iter().find(|hold| hold.name == name);
    held.ok_or_else(|| refusal(Why::Failed, format!("hold {name:?} of VE {id} was released at once")))
}

/// All holds of a VE.
pub fn holds(daemon: &Daemon, id: Id) -> Answer<Vec<HoldRow>> {
    let holds: BTreeMap<_, _> =
        daemon.ve(id.0)?.holds().map_err(about(format!("holds of VE {id}")))?.into_iter().collect();
    let row = |(name, hold): (String, vefs::change::Hold)| HoldRow {
        name,
        txn: hold.txn.0,
        onwards: hold.onwards,
        owner: hold.owner,
        since: show_time(hold.since),
    };
    Ok(holds.into_iter().map(row).collect())
}

/// Releases a hold; durable when it returns.
pub fn release(daemon: &Daemon, id: Id, name: &str) -> Answer<()> {
    let ve = daemon.ve(id.0)?;
    ve.release(name).map_err(|e| match e {
        vefs::Error::Posix(vefs::errno::Errno::ENOENT) => {
            refusal(Why::NotFound, format!("VE {id} has no hold named {name:?}"))
        }
        e => about(format!("hold {name:?} of VE {id}"))(e),
    })?;
    ve.sync().map_err(about(format!("hold {name:?} of VE {id}")))
}
