//! What a record changes in a VE's state. A plan makes changes, a record carries them, `apply` carries them out and
//! cannot refuse; primary, recovery and replica run the same `apply`.
//!
//! Changes are logical: no place of bytes appears in them, no clock and no counter is read when they are applied.

pub mod validate;

use bincode::{Decode, Encode};

use crate::clock::Timestamp;
use crate::ids::{Hash, InodeNo, TxnNo};
use crate::types::{Dentry, Extent, Inode};

/// One change of a VE's state.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Change {
    /// The inode is now this. At `nlink` 0 it is an orphan, else it is not.
    PutInode(InodeNo, Inode),
    /// The inode is gone with its target, attributes and extents.
    DropInode(InodeNo),
    /// The entry `name` of a directory is now this.
    PutDentry(InodeNo, Vec<u8>, Dentry),
    /// The entry `name`, which had this cookie, is gone.
    DropDentry(InodeNo, Vec<u8>, u64),
    /// The symlink points to this.
    PutTarget(InodeNo, Vec<u8>),
    /// The extended attribute is now this.
    PutXattr(InodeNo, Vec<u8>, Vec<u8>),
    /// The extended attribute is gone.
    DropXattr(InodeNo, Vec<u8>),
    /// From this offset on the file's bytes are the extent's; what was mapped there is not any more.
    Map(InodeNo, u64, Extent),
    /// The range (offset, length) is a hole.
    Unmap(InodeNo, u64, u64),
    /// The quota's figures grow by this many bytes and inodes.
    Usage(i64, i64),
    /// The VE's settings are now these.
    PutSettings(Settings),
    /// A hold of this name keeps versions from GC.
    PutHold(String, Hold),
    /// The hold is released.
    DropHold(String),
    /// Content of the file or directory was changed: its size and mapped bytes are now these, its mtime and ctime this. What a write changes
    /// of an inode, in a third of the bytes.
    Wrote(InodeNo, u64, u64, Timestamp),
    /// The VE is replicated like this from now on.
    PutPolicy(Policy),
}

/// What an administrator sets for a VE; travels with its history.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Settings {
    /// Most charged bytes.
    pub quota_bytes: u64,
    /// Most private inodes.
    pub quota_inodes: u64,
    /// Most bytes that history may keep beyond the live state.
    pub history_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { quota_bytes: u64::MAX, quota_inodes: u64::MAX, history_bytes: crate::limits::HISTORY_MIN }
    }
}

/// How a VE is replicated; travels with its history, so that a replica that is promoted knows it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Policy {
    /// The window W in milliseconds, at least [`crate::limits::WINDOW_MIN_MS`].
    pub window_ms: u32,
    /// What happens when the window would be passed (promise G16).
    pub at_window: AtWindow,
    /// Whose turn comes first on a link: the share of it that this VE gets, 1 (the least) to 255.
    pub weight: u8,
    /// Whether `lagging` is recorded with the arbiter before it begins.
    pub recorded: bool,
    /// The nodes that follow, at most [`crate::limits::REPLICAS_MAX`].
    pub replicas: Vec<ReplicaOf>,
    /// The node that writes the VE, which is none of the replicas; zero while it has never had any. With them it is all that may speak about the VE
    /// (promise G30).
    pub writer: [u8; 16],
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            window_ms: crate::limits::WINDOW_DEFAULT_MS,
            at_window: AtWindow::Degrade,
            weight: 16,
            recorded: false,
            replicas: vec![],
            writer: [0; 16],
        }
    }
}

/// A node that follows a VE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ReplicaOf {
    /// Its identity in the cluster.
    pub node: [u8; 16],
    /// Whether the VE cannot do without it.
    pub need: Need,
    /// Most bytes a second that are sent to it, 0 for no limit.
    pub bandwidth: u64,
}

impl ReplicaOf {
    /// Whether the VE's exposure counts it.
    pub fn is_required(&self) -> bool {
        self.need == Need::Required
    }
}

/// Whether a VE cannot do without a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum Need {
    /// The VE's exposure does not count it.
    #[default]
    Optional,
    /// It does.
    Required,
    /// It will again, once the replica is back and has everything: it was away when another node was promoted. Said in the policy, since the
    /// node that was promoted then may not be the one that the replica comes back to.
    Returning,
}

/// What happens when the window would be passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum AtWindow {
    /// The VE goes on and is `lagging`, loudly.
    #[default]
    Degrade,
    /// Changing operations wait.
    Stall,
    /// As `Degrade`, and writers are not slowed before either.
    Alarm,
}

/// Keeps a version, and with it every byte that it reads, from garbage collection (promise G25).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hold {
    /// The version that stays readable.
    pub txn: TxnNo,
    /// Whether every version from there on stays, too.
    pub onwards: bool,
    /// Who asked for it, for people.
    pub owner: String,
    /// When.
    pub since: Timestamp,
}

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Purpose {
    /// A program's or an administrator's operation.
    Operation,
    /// Sealing or coalescing: same bytes, other extents. Makes no new version of its own and no exposure.
    Housekeeping,
}

/// Payload bytes that a record brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PayloadRef {
    /// Length in bytes.
    pub len: u64,
    /// BLAKE3 of the bytes; where it is not yet known when the record is written (bulk), the seal carries it.
    pub hash: Option<Hash>,
}

/// The logical part of an operation's record: what the chain hash covers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Body {
    /// What for.
    pub purpose: Purpose,
    /// In this order.
    pub changes: Vec<Change>,
    /// The payload that `Map` changes of this record may name.
    pub payload: Option<PayloadRef>,
}

/// The logical part of the record that seals a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Seal {
    /// Number of records sealed.
    pub records: u32,
    /// Version time: never before that of the version before.
    pub time: Timestamp,
    /// BLAKE3 of each payload whose `PayloadRef` had none, in record order.
    pub payloads: Vec<Hash>,
    /// Chain hash after this transaction.
    pub chain: Hash,
}
