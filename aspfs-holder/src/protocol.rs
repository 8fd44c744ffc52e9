//! What daemon and holder say to each other: one message a packet, in bincode, descriptors beside it.
//!
//! The daemon asks, the holder answers; only the answer to [`Ask::List`] is more than one packet. An upgraded daemon meets the holder of the release
//! before: [`PROTOCOL`] is raised when a message changes, and a daemon that meets another protocol says so and touches nothing.

use bincode::{Decode, Encode};

use serde::{Deserialize, Serialize};

/// The protocol of this program.
pub const PROTOCOL: u32 = 3;
/// Longest packet in bytes.
pub const PACKET_MAX: usize = 16 << 10;
/// Longest path or source of a mount.
pub const TEXT_MAX: usize = 4096;
/// Most mounts of one holder.
pub const MOUNTS_MAX: usize = 10_000;

/// How a VE is mounted. What is not said here is the kernel's default, `noatime` and devices and set-user-ID honoured: a root file
/// system needs them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(deny_unknown_fields)]
pub struct MountFlags {
    /// Read-only at this mount point.
    pub read_only: bool,
    /// Set-user-ID, set-group-ID and capabilities of files are ignored.
    pub nosuid: bool,
    /// Devices cannot be opened.
    pub nodev: bool,
    /// Nothing can be executed.
    pub noexec: bool,
    /// Symlinks are not followed.
    pub nosymfollow: bool,
}

/// Which version of a VE is mounted. A daemon finds it again by its slot and transaction, whatever else became of the VE.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct VersionOf {
    /// The number under which the state lies that it is a version of.
    pub slot: u32,
    /// After which transaction.
    pub txn: u64,
    /// What people call it: `TXN`, or `BRANCH:TXN`.
    pub label: String,
}

/// What the daemon asks.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Ask {
    /// First of all. Answered when the daemon before has ended.
    Hello {
        /// See [`PROTOCOL`].
        protocol: u32,
    },
    /// Every mount: a [`Reply::Mount`] each, and [`Reply::End`].
    List,
    /// A new mount, whose device has no number yet; refused when it is held already: [`Reply::Mount`], with the mount itself as a third
    /// descriptor.
    Mount(Row),
    /// The mount is gone: [`Reply::Done`].
    Forget {
        /// Of which VE.
        ve: u32,
        /// Of which version; none: the VE itself.
        version: Option<VersionOf>,
    },
    /// End, if nothing is held: [`Reply::Done`].
    Quit,
    /// A mount that a holder made which is gone; beside it `/dev/fuse` and the memfd: [`Reply::Done`], also where it is held already.
    Adopt(Row),
}

/// What the holder answers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// To [`Ask::Hello`].
    Hello {
        /// See [`PROTOCOL`].
        protocol: u32,
        /// The holder's process.
        pid: u32,
    },
    /// A mount; beside it `/dev/fuse` and the memfd.
    Mount(Row),
    /// No more mounts.
    End,
    /// Done.
    Done,
    /// Not done, and why.
    Refused(String),
}

/// A mount that is held.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Row {
    /// Of which VE.
    pub ve: u32,
    /// Of which version; none: the VE itself.
    pub version: Option<VersionOf>,
    /// Where it was to be attached.
    pub dir: String,
    /// Its source.
    pub source: String,
    /// How it was made.
    pub flags: MountFlags,
    /// Major and minor number of its device.
    pub device: (u32, u32),
}
