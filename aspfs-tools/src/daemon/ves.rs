//! What clients ask of VEs: creating, showing, setting, destroying; the node's status.

use std::collections::BTreeMap;

use vefs::change::{Policy, Settings};
use vefs::format::role::RoleKind;
use vefs::ids::{Hash, VeId};

use super::Daemon;
use super::refuse::{Answer, about, refusal};
use crate::control::message::{Change, Collected, Counted, Id, MountRow, Status, VeRow, Why};

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
        wanted_policy(id, &Policy::default(), change)?;
        // Its claim keeps it from being mounted or destroyed while it is made.
        let _claim = self.mounts.claim_alone(id.0)?;
        let ve = self.store.create_ve(id.0, base, settings).map_err(|e| match e {
            vefs::Error::Store(text) => refusal(Why::Exists, text),
            e => about(format!("VE {id}"))(e),
        })?;
        if let Err(refused) = self.change_policy(&ve, change) {
            drop(ve);
            self.store.destroy_ve(id.0).map_err(about(format!("VE {id}, which cannot be as it was wanted")))?;
            return Err(refused);
        }
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
            priority: policy.weight,
            replicas: policy.replicas.len() as u64,
            read_only: ve.read_only_reason().or_else(|| ve.fenced()),
        })
    }

    /// What is shown of a VE that does not open.
    pub fn damaged_row(&self, id: VeId, why: String) -> VeRow {
        VeRow {
            ve: Id(id),
            base: String::new(),
            templates: vec![],
            lineage: String::new(),
            epoch: 0,
            txn: 0,
            bytes_used: 0,
            bytes_limit: 0,
            inodes_used: 0,
            inodes_limit: 0,
            history_limit: 0,
            journal_bytes: 0,
            mounted: self.mounts.row(id),
            role: "damaged".into(),
            window_ms: 0,
            at_window: String::new(),
            priority: 0,
            replicas: 0,
            read_only: Some(why),
        }
    }

    /// Changes settings; durable when it returns.
    pub fn set(&self, id: Id, change: &Change) -> Answer<VeRow> {
        let ve = self.ve(id.0)?;
        let at = || about(format!("settings of VE {id}"));
        wanted_policy(id, &ve.policy().map_err(at())?, change)?;
        let before = ve.settings();
        ve.set_settings(changed(&before, change)).map_err(at())?;
        ve.sync().map_err(at())?;
        if let Err(refused) = self.change_policy(&ve, change) {
            ve.set_settings(before).and_then(|()| ve.sync()).map_err(at())?;
            return Err(refused);
        }
        self.row(id.0)
    }

    fn change_policy(&self, ve: &std::sync::Arc<vefs::Ve>, change: &Change) -> Answer<()> {
        let policy = ve.policy().map_err(about(format!("VE {}", ve.id())))?;
        let wanted = wanted_policy(Id(ve.id()), &policy, change)?;
        if wanted == policy { Ok(()) } else { self.set_policy(ve, wanted) }
    }

    pub fn destroy(&self, id: Id) -> Answer<()> {
        let _claim = self.mounts.claim_alone(id.0)?;
        let ve = self.ve(id.0)?;
        self.destroy_everywhere(ve).map_err(about(format!("VE {id}")))
    }

    pub fn status(&self) -> Answer<Status> {
        let disk = rustix::fs::statvfs(&self.config.store)
            .map_err(|e| refusal(Why::Failed, format!("{}: {e}", self.config.store.display())))?;
        let ves = self.store.list()?;
        self.mounts.sweep();
        // Those that are mounted are open: asking the others would open them all.
        let mounts = self.mounts.rows();
        let why = |row: &MountRow| {
            if row.version.is_some() {
                return None;
            }
            let ve = self.store.ve(row.ve.0).ok()?;
            Some((row.ve, ve.read_only_reason().or_else(|| ve.fenced())?))
        };
        let mut read_only = self.mounts.broken();
        read_only.extend(mounts.iter().filter(|row| !row.past).filter_map(why).collect::<Vec<_>>());
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

/// The policy with what is to be changed. Asked for before anything is: what is refused changes nothing.
fn wanted_policy(id: Id, policy: &Policy, change: &Change) -> Answer<Policy> {
    let wanted = super::replication::changed_policy(policy, change);
    let bad = |what: &str| refusal(Why::Usage, format!("VE {id}: {what} out of range"));
    vefs::change::validate::policy(&wanted).map(|()| wanted).map_err(bad)
}

fn changed(settings: &Settings, change: &Change) -> Settings {
    Settings {
        quota_bytes: change.quota.unwrap_or(settings.quota_bytes),
        quota_inodes: change.inodes.unwrap_or(settings.quota_inodes),
        history_bytes: change.history.unwrap_or(settings.history_bytes),
    }
}
