//! What differs between two versions, as it is said on the control socket.

use serde::{Deserialize, Serialize};

use super::frame::TEXT_MAX;
use super::path::Path;

/// A row has two paths at most, and JSON makes up to six bytes of one.
const _: () = assert!(2 * 6 * (vefs::diff::PATH_MAX + vefs::limits::NAME_MAX) + 4096 < TEXT_MAX);

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Became {
    Added,
    Removed,
    Changed,
    Renamed,
}

/// A path that differs between two versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffRow {
    /// How.
    pub change: Became,
    /// From the VE's root: as it is now, or of what was removed as it was.
    pub path: Path,
    /// The old path of what was renamed.
    pub from: Option<Path>,
    /// What differs of what is there: of type, content, mode, owner, xattr, device, mtime.
    pub differs: Vec<String>,
    /// Of what was added: it was there before under another name, which it still has, or whose end was not remembered. Of what was removed: it
    /// still has another name.
    pub linked: bool,
    /// Of what was renamed: something else was there, and is gone.
    pub replaced: bool,
    /// What was there; none where the path was added.
    pub before: Option<Inode>,
    /// What is there; none where it was removed.
    pub after: Option<Inode>,
}

/// Attributes of one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Inode {
    pub ino: u64,
    /// As `st_mode`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    /// Major and minor number of a device.
    pub device: Option<(u32, u32)>,
    pub mtime: String,
}

/// All of them were told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct DiffEnd {
    pub added: u64,
    pub removed: u64,
    pub changed: u64,
    pub renamed: u64,
    /// More was moved than is remembered: some of what was renamed was told as removed and added.
    pub forgotten: bool,
    /// Directories that were not looked into: their path is too long.
    pub too_deep: u64,
}
