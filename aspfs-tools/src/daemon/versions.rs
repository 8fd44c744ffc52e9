//! What clients ask of versions and holds: which one is meant, listing, keeping, releasing.

use std::collections::BTreeMap;
use std::sync::Arc;

use vefs::errno::Errno;
use vefs::ids::TxnNo;

use super::Daemon;
use super::refuse::{Answer, about, refusal};
use crate::control::message::{At, HoldRow, Id, Refusal, Version, Why};
use crate::control::versions::Which;
use crate::units::show_time;

/// A version that a client means.
pub struct Found {
    /// The state that it is a version of: the VE, or a branch of it.
    pub state: Arc<vefs::Ve>,
    /// The branch's name.
    pub branch: Option<String>,
    /// After which transaction.
    pub txn: TxnNo,
}

impl Found {
    /// What people call it.
    pub fn label(&self) -> String {
        self.branch.as_ref().map_or(self.txn.to_string(), |branch| format!("{branch}:{}", self.txn))
    }
}

impl Daemon {
    /// The version that a client means; none: the present state. Whether it can be read is found out when it is.
    pub fn find(&self, id: Id, which: Option<&Which>) -> Answer<Found> {
        let state = self.ve(id.0)?;
        let here = |txn| Found { state: state.clone(), branch: None, txn };
        match which {
            None => txn_at(&state, None).map(here),
            Some(Which::At(at)) => txn_at(&state, Some(*at)).map(here),
            Some(Which::Branch(name, txn)) => {
                let state = self.branch(id, name)?;
                Ok(Found { state, branch: Some(name.clone()), txn: TxnNo(*txn) })
            }
            Some(Which::Name(name)) => {
                let holds = state.holds().map_err(about(format!("holds of VE {id}")))?;
                let hold = holds.into_iter().find(|(held, _)| held == name).map(|(_, hold)| hold.txn);
                let is_branch = self.store.branch_names(id.0)?.iter().any(|branch| branch == name);
                match (hold, is_branch) {
                    (Some(txn), false) => Ok(here(txn)),
                    (None, true) => {
                        let state = self.branch(id, name)?;
                        let txn = state.position().txn;
                        Ok(Found { state, branch: Some(name.clone()), txn })
                    }
                    (Some(_), true) => {
                        let text = format!(
                            "VE {id} has a hold and a branch named {name:?}: say {name}:TXN, or the hold's version"
                        );
                        Err(refusal(Why::Usage, text))
                    }
                    (None, false) => {
                        Err(refusal(Why::NotFound, format!("VE {id} has no hold and no branch named {name:?}")))
                    }
                }
            }
        }
    }

    fn branch(&self, id: Id, name: &str) -> Answer<Arc<vefs::Ve>> {
        if !self.store.branch_names(id.0)?.iter().any(|branch| branch == name) {
            return Err(refusal(Why::NotFound, format!("VE {id} has no branch {name:?}")));
        }
        Ok(self.store.branch(id.0, name)?)
    }
}

/// What a version that cannot be read is said to be.
pub fn no_version(id: Id, label: &str, e: vefs::Error) -> Refusal {
    match e {
        vefs::Error::Posix(Errno::ENOENT) => {
            refusal(Why::NotFound, format!("VE {id} has no version {label}: it was collected, or is not there yet"))
        }
        e => about(format!("version {label} of VE {id}"))(e),
    }
}

/// The versions that can be read, oldest first.
pub fn versions(daemon: &Daemon, id: Id, branch: Option<&str>) -> Answer<Vec<Version>> {
    let state = branch.map_or_else(|| daemon.ve(id.0), |name| daemon.branch(id, name))?;
    let rows = state.versions().map_err(about(format!("versions of VE {id}")))?;
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
        vefs::Error::Posix(Errno::EEXIST) => refusal(Why::Exists, format!("VE {id} has a hold named {name:?} already")),
        vefs::Error::Posix(Errno::ENOENT) => {
            refusal(Why::NotFound, format!("VE {id} has no version {txn}: it was collected, or is not there yet"))
        }
        vefs::Error::Posix(Errno::EINVAL) => {
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
    let mut rows: Vec<HoldRow> = holds.into_iter().map(row).collect();
    for (_, label, mounted) in daemon.store.mounted_versions().map_err(about("mounted versions".to_owned()))? {
        if mounted.ve == id.0 {
            let (name, since) = (mount_hold(&label), show_time(mounted.since));
            rows.push(HoldRow { name, txn: mounted.txn.0, onwards: false, owner: "mount".into(), since });
        }
    }
    Ok(rows)
}

/// What a mounted version is listed as among the holds.
fn mount_hold(label: &str) -> String {
    format!("mount {label}")
}

/// Releases a hold; durable when it returns.
pub fn release(daemon: &Daemon, id: Id, name: &str) -> Answer<()> {
    let ve = daemon.ve(id.0)?;
    let mounted = name.strip_prefix("mount ").is_some_and(|label| daemon.mounts.has(id.0, Some(label)));
    if mounted && !ve.holds().map_err(about(format!("holds of VE {id}")))?.iter().any(|(held, _)| held == name) {
        return Err(refusal(Why::Busy, format!("VE {id} has the version of hold {name:?} mounted: unmount it")));
    }
    ve.release(name).map_err(|e| match e {
        vefs::Error::Posix(Errno::ENOENT) => refusal(Why::NotFound, format!("VE {id} has no hold named {name:?}")),
        e => about(format!("hold {name:?} of VE {id}"))(e),
    })?;
    ve.sync().map_err(about(format!("hold {name:?} of VE {id}")))
}
