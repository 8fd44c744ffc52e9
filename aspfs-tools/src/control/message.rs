//! What is said on the control socket, as JSON. The rows are also what the client prints with `--json`.
//!
//! Identifiers travel as text (8 hex digits, 64 hex digits), times as RFC 3339 in UTC, sizes as bytes; [`NO_LIMIT`] is no limit.

use super::path::Path;
use super::replication::AtWindow;
use super::versions::Which;
use aspfs_holder::protocol::MountFlags;
use serde::{Deserialize, Serialize};
use vefs::clock::Timestamp;
use vefs::ids::VeId;

pub use super::status::{Counted, Status};

/// The protocol of this program. A daemon refuses a client of another one.
pub const PROTOCOL: u32 = 2;
/// A limit that is none.
pub const NO_LIMIT: u64 = u64::MAX;

/// First message of either side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// See [`PROTOCOL`].
    pub protocol: u32,
    /// The program's release, for messages.
    pub release: String,
}

impl Hello {
    /// What this program says.
    pub fn ours() -> Hello {
        Hello { protocol: PROTOCOL, release: crate::version().into() }
    }
}

/// Why something was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// What was asked for makes no sense; asking again will not help.
    Usage,
    /// Not for this user.
    Denied,
    /// It is not there.
    NotFound,
    /// It is there already.
    Exists,
    /// It is in use.
    Busy,
    /// No space, or a quota.
    Space,
    /// The client went away.
    Cancelled,
    /// Anything else.
    Failed,
}

/// Something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Of what kind.
    pub kind: Why,
    /// For people: what and where.
    pub message: String,
}

/// A version: by number, or the newest one that is not younger than a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum At {
    /// After this transaction.
    Txn(u64),
    /// Seconds and nanoseconds since 1970.
    Time(i64, u32),
}

impl At {
    /// The state at a moment.
    pub fn time(at: Timestamp) -> At {
        At::Time(at.secs, at.nanos)
    }
}

/// What of a VE's settings shall change; `None` leaves alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Most charged bytes.
    pub quota: Option<u64>,
    /// Most private inodes.
    pub inodes: Option<u64>,
    /// Most bytes of history.
    pub history: Option<u64>,
    /// The window of replication in milliseconds.
    #[serde(default)]
    pub window_ms: Option<u32>,
    /// What happens when it would be passed.
    #[serde(default)]
    pub at_window: Option<AtWindow>,
    /// Its place on the links to its replicas, from 1.
    #[serde(default)]
    pub priority: Option<u8>,
}

/// What a client may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
#[allow(missing_docs, reason = "the fields have the names of the command line's arguments")]
pub enum Request {
    /// How the daemon is. Rows: [`StatusRow`](super::status::StatusRow). Answer: [`Status`], without what the rows say.
    Status {},
    /// A new VE over a stack of templates, the lowest first; none: an empty tree. Answer: [`VeRow`].
    VeCreate { ve: Id, templates: Vec<String>, change: Change },
    /// All VEs. Rows: [`VeRow`].
    VeList {},
    /// One VE. Answer: [`VeRow`].
    VeShow { ve: Id },
    /// Other settings. Answer: [`VeRow`].
    VeSet { ve: Id, change: Change },
    /// A VE with all its history. Refused while it is mounted. Answer: nothing.
    VeDestroy { ve: Id },
    /// A new template, told of in data frames: one event each ([`crate::template::event`]), and an end. `source` is for people. Answer:
    /// [`Imported`].
    TemplateImport { name: String, source: String },
    /// All templates. Rows: [`TemplateRow`].
    TemplateList {},
    /// One template, with its users. Answer: [`TemplateRow`].
    TemplateShow { name: String },
    /// Checks every byte of a template. Progress. Answer: [`Damage`].
    TemplateVerify { name: String },
    /// Takes a template's name away; refused while a VE uses it. Answer: nothing.
    TemplateRemove { name: String },
    /// A mount of a VE or of a version, not attached anywhere: the answer, a [`MountRow`], has a descriptor of it beside it, for move_mount(2).
    Mount { ve: Id, version: Option<Which>, dir: String, source: Option<String>, flags: MountFlags },
    /// Where a VE or a version is mounted. Answer: [`MountRow`].
    Mounted { ve: Id, version: Option<Which> },
    /// Waits until a VE, or a version of this label, that was unmounted is released, or `wait_ms` are over. Answer: [`Released`].
    Unmounted { ve: Id, version: Option<String>, wait_ms: u64 },
    /// The versions of a VE, or of a branch of it, that can be read, oldest first. Rows: [`Version`].
    Versions { ve: Id, branch: Option<String> },
    /// A file as it was. A row with its attributes ([`FileRow`]), data, and an answer that says nothing.
    Cat { ve: Id, path: Path, at: Option<Which> },
    /// What differs between two versions, in byte order of paths. Rows: [`super::diff::DiffRow`]. Answer: [`super::diff::DiffEnd`].
    Diff { ve: Id, from: Option<Which>, to: Option<Which> },
    /// Keeps a version, and with `onwards` all later ones. Answer: [`HoldRow`].
    HoldAdd { ve: Id, name: String, at: Option<At>, onwards: bool, owner: String },
    /// All holds of a VE. Rows: [`HoldRow`].
    HoldList { ve: Id },
    /// Releases a hold. Answer: nothing.
    HoldRelease { ve: Id, name: String },
    /// Collects garbage now. Answer: [`Collected`].
    Gc {},
    /// How the check of everything stored is; with `now` one begins. Rows: [`super::scrub::DamageRow`]. Answer: [`super::scrub::ScrubRow`],
    /// without these.
    Scrub { now: bool },
    /// Begins a cluster with this node as its first. Answer: list of [`NodeRow`](super::replication::NodeRow).
    ClusterInit { name: String, node: String, addresses: Vec<String> },
    /// Joins a cluster, or takes a new certificate. Answer: as above.
    ClusterJoin { bundle: super::replication::Secret },
    /// Adds a node. Answer: [`BundleText`](super::replication::BundleText).
    NodeAdd { name: String, addresses: Vec<String> },
    /// All nodes. Answer: list of [`NodeRow`](super::replication::NodeRow).
    NodeList {},
    /// Throws a node out. Answer: as above.
    NodeRevoke { node: String },
    /// A new certificate for a node. Answer: option of [`BundleText`](super::replication::BundleText); none for this node, which has it already.
    NodeRenew { node: String },
    /// Where a node listens. Answer: list of [`NodeRow`](super::replication::NodeRow).
    NodeAddress { node: String, addresses: Vec<String> },
    /// A replica more, or another way of having it. Answer: list of [`ReplicaRow`](super::replication::ReplicaRow).
    ReplicaAdd { ve: Id, node: String, required: bool, bandwidth: u64 },
    /// A replica less. Answer: nothing.
    ReplicaRemove { ve: Id, node: String, node_is_off: bool },
    /// How a VE, or every one, is replicated. Rows: [`ReplicaRow`](super::replication::ReplicaRow).
    ReplicaStatus { ve: Option<Id> },
    /// This node writes a VE that it followed. Answer: [`PromotedRow`](super::replication::PromotedRow).
    Promote { ve: Id, old_primary_is_off: bool, force: bool },
    /// What would be lost by that. Answer: [`StakesRow`](super::replication::StakesRow).
    PromoteStakes { ve: Id },
    /// Another node writes a VE that this one wrote. Answer: [`PromotedRow`](super::replication::PromotedRow).
    Switchover { ve: Id, node: String },
    /// Former states that were kept. Answer: list of [`BranchRow`](super::replication::BranchRow).
    BranchList { ve: Id },
    /// Removes one. Answer: nothing.
    BranchRemove { ve: Id, name: String },
    /// Ends the daemon. With `holder` the holder ends too; refused while anything is mounted. Answer: nothing.
    Stop { holder: bool },
}

/// A VE's identifier as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(pub VeId);

impl TryFrom<String> for Id {
    type Error = vefs::ids::ParseIdError;

    fn try_from(text: String) -> Result<Id, Self::Error> {
        text.parse().map(Id)
    }
}

impl From<Id> for String {
    fn from(id: Id) -> String {
        id.0.to_string()
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// An answer that says nothing but that it was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// How far something is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done.
    pub doing: String,
    /// How much of it is done.
    pub done: u64,
    /// Of how much, where that is known.
    pub of: Option<u64>,
}

/// A VE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct VeRow {
    pub ve: Id,
    /// Hash of its base tree, and what that was made of where a name is known.
    pub base: String,
    pub templates: Vec<String>,
    /// Position of its last sealed transaction.
    pub lineage: String,
    pub epoch: u64,
    pub txn: u64,
    pub bytes_used: u64,
    pub bytes_limit: u64,
    pub inodes_used: u64,
    pub inodes_limit: u64,
    pub history_limit: u64,
    pub journal_bytes: u64,
    /// Where it is mounted.
    pub mounted: Option<MountRow>,
    /// What this node does with it: primary, replica or superseded; damaged: it does not open, `read_only` says why, and its figures are not known.
    pub role: String,
    pub window_ms: u64,
    pub at_window: String,
    pub priority: u8,
    /// Number of its replicas.
    pub replicas: u64,
    /// Why it takes no changes.
    pub read_only: Option<String>,
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRow {
    /// Of which VE.
    pub ve: Id,
    /// Of which version, if not of the VE itself: `TXN` or `BRANCH:TXN`.
    pub version: Option<String>,
    /// Where it was attached first.
    pub dir: String,
    /// Its source in /proc/mounts.
    pub source: String,
    /// Major and minor number of its device, as in /proc/self/mountinfo.
    pub device: (u32, u32),
    /// Another node has changed the VE since: whatever is asked of the mount fails (EIO), and the next mount of the VE takes its place.
    #[serde(default)]
    pub past: bool,
}

impl MountRow {
    /// What is mounted, as people write it.
    pub fn name(&self) -> String {
        self.version.as_ref().map_or(self.ve.to_string(), |version| format!("{}@{version}", self.ve))
    }
}

/// Whether a VE is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// It is mounted nowhere any more.
    pub released: bool,
}

/// A template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct TemplateRow {
    pub name: String,
    /// Root hash of its tree.
    pub root: String,
    pub created: String,
    pub inodes: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Where it came from.
    pub source: String,
    /// The VEs that have it below them; in lists empty.
    pub users: Vec<Id>,
    /// Why nothing but its name is known.
    pub damaged: Option<String>,
}

/// An import is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// What is there now.
    pub template: TemplateRow,
    /// Bytes that were not in the store before.
    pub new_bytes: u64,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Damage {
    pub inodes: u64,
    pub objects: u64,
    pub bytes: u64,
    /// Things that are not as they should be.
    pub damaged: u64,
    /// The first of them, for people.
    pub damage: Vec<String>,
}

/// A version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Version {
    pub txn: u64,
    pub time: String,
    pub epoch: u64,
    pub chain: String,
}

/// A file's attributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct FileRow {
    /// The version it is of.
    pub txn: u64,
    /// As `st_mode`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime: String,
}

/// A hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct HoldRow {
    pub name: String,
    pub txn: u64,
    pub onwards: bool,
    pub owner: String,
    pub since: String,
}

/// What a collection did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Collected {
    /// Versions that can no longer be read.
    pub versions: u64,
    /// Bytes that history still takes.
    pub history_bytes: u64,
    /// Live bytes that were moved.
    pub moved_bytes: u64,
    /// Extent files removed.
    pub files: u64,
    /// Bytes of objects removed.
    pub object_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_go_there_and_back_as_json() {
        let ve = Id(VeId(0x2a));
        for request in [
            Request::Status {},
            Request::VeCreate {
                ve,
                templates: vec!["debian".into()],
                change: Change { quota: Some(1), ..Change::default() },
            },
            Request::Cat { ve, path: Path::new(b"/etc/\xff"), at: Some(Which::At(At::Time(-1, 5))) },
            Request::HoldAdd { ve, name: "n".into(), at: Some(At::Txn(7)), onwards: true, owner: "o".into() },
        ] {
            let text = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request, "{text}");
        }
    }

    #[test]
    fn what_is_not_asked_right_is_refused() {
        for bad in [
            r#"{"do":"ve-show","ve":"2a"}"#,
            r#"{"do":"ve-show","ve":"0000002A","more":1}"#,
            r#"{"do":"status","x":1}"#,
            r#"{"do":"format-disk"}"#,
            r#"{}"#,
            "null",
        ] {
            assert!(serde_json::from_str::<Request>(bad).is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<Request>(r#"{"do":"ve-show","ve":"0000002a"}"#).is_ok());
    }
}
