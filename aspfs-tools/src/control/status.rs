//! How the daemon is, as it is told to clients. Its lists travel as rows before the answer: a frame holds no more than some hundred of them.

use serde::{Deserialize, Serialize};

use super::message::{Id, MountRow};

/// What the daemon counted of its mounts since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Opens answered with passthrough: the kernel reads the shared object itself.
    pub passthrough: u64,
    /// Opens that the kernel caches for one VE.
    pub cached: u64,
    /// Files that were open with passthrough when they were opened for writing: copied, and found again under a new number.
    pub moved: u64,
    /// Requests that the kernel sent again after a takeover.
    pub resent: u64,
    /// Of these, those that the daemon before had carried out.
    pub answered_before: u64,
    /// Bytes read through the daemon.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
    /// Files synced.
    pub syncs: u64,
    /// Requests that wait for a VE's window now.
    pub parked: u64,
    /// Requests that ever did.
    pub waited: u64,
}

/// How the daemon is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Status {
    pub release: String,
    pub pid: u32,
    pub store: String,
    /// Seconds since it started.
    pub uptime: u64,
    pub ves: u64,
    pub mounts: Vec<MountRow>,
    /// Sums over the mounts that are there now.
    pub counted: Counted,
    /// The holder's process.
    pub holder: u32,
    /// Bytes free on the store's file system.
    pub free: u64,
    pub size: u64,
    /// Ordinary writers are stopped: the disk is full up to the reserve.
    pub tight: bool,
    /// Mounted VEs that take no changes, with the reason.
    pub read_only: Vec<(Id, String)>,
}

/// A row that comes before the answer, which has empty lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StatusRow {
    /// One of `mounts`.
    Mount(MountRow),
    /// One of `read_only`.
    ReadOnly(Id, String),
}

impl Status {
    /// What is sent: the rows, and the answer behind them.
    pub fn split(mut self) -> (Vec<StatusRow>, Status) {
        let mounts = std::mem::take(&mut self.mounts).into_iter().map(StatusRow::Mount);
        let read_only = std::mem::take(&mut self.read_only).into_iter().map(|(ve, why)| StatusRow::ReadOnly(ve, why));
        (mounts.chain(read_only).collect(), self)
    }

    /// What was meant by that.
    pub fn join(rows: Vec<StatusRow>, mut answer: Status) -> Status {
        for row in rows {
            match row {
                StatusRow::Mount(row) => answer.mounts.push(row),
                StatusRow::ReadOnly(ve, why) => answer.read_only.push((ve, why)),
            }
        }
        answer
    }
}
