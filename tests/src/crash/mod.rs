//! Every state a power cut may leave: what was done to a storage is recorded, and for each point in time the disks are
//! built that a restart may find.
//!
//! # Fault model
//!
//! What must survive: an event *covered by a completed flush* before the cut.
//! - [`File::sync`] covers the earlier writes and punches of that file, and its length.
//! - [`Storage::sync_dir`] covers the earlier creations, renames and removals of names in that folder, and the folder
//!   itself with those above it.
//! - [`Storage::sync_all`] covers everything before it.
//! - A rename is atomic: it is found whole or not at all, and is covered by a flush of either of its folders, with
//!   whatever happened to names of both folders before.
//! - The bytes of a file and its name are separate: a name may be there without the bytes, and bytes that were flushed
//!   are lost with their name when only the file was flushed.
//!
//! What may break: every other event may or may not have reached the disk, in any combination and in any order, since
//! neither the page cache nor a disk's own cache keeps one. A write may tear at any multiple of 512 bytes of the file
//! ([`CrashClass::Torn`]): either its beginning or its end is there. A punch, a truncation and a change of a name do not
//! tear. Space that was never written reads as zeros, not as bytes of somebody else. A creation's zeros are a write
//! of their own: the name may be found with an empty or half-filled file.
//!
//! What is not survived but must be *detected*: a disk that puts a write in the wrong place ([`CrashClass::Misdirected`]), or
//! that lost a write it had promised ([`CrashClass::Dropped`]). These are not in [`Classes::POWER_CUT`]; a check of them
//! asks that no wrong bytes are taken for right ones, not that nothing is missing (a lost *last* write looks like one never
//! made).
//!
//! A flush that fails ([`Recorder::fail_flush`]) covers nothing, and what it should have covered of files' bytes is covered by no
//! later flush either: it may be found or not for ever after. Names are covered by the next good flush.
//!
//! Not in the model: bytes that rot later.
//!
//! # Use
//!
//! Record with a [`Recorder`], insert a [`Recorder::mark`] wherever a check may demand more from then on, and go through
//! [`Recorder::states`]. Points in time are numbered by how many events of the log happened ([`CrashState::at`]).
//! States with the same bytes are handed out once *between two marks*: what a check demands may depend on the marks before the
//! cut ([`marks`]) and on nothing else of the log. Everything follows from the log and the seed.
//!
//! [`File::sync`]: vefs::storage::File::sync
//! [`Storage::sync_dir`]: vefs::storage::Storage::sync_dir
//! [`Storage::sync_all`]: vefs::storage::Storage::sync_all

use std::fmt;
use std::ops::BitOr;

use vefs::storage::memory::MemStorage;

mod choose;
mod image;
mod record;
mod states;

pub use record::{Event, FileId, Recorder};
pub use states::{CrashStates, StateCounts};

/// One disk a restart may find.
#[derive(Debug)]
pub struct CrashState {
    /// The disk. Writing to it changes nothing else.
    pub storage: MemStorage,
    /// Events of the log that happened before the cut.
    pub at: usize,
    /// How the state came about. Another class may lead to the same bytes; they are not handed out again.
    pub class: CrashClass,
    /// A hash of all names and bytes: states of one base with the same one are the same disk.
    pub hash: u64,
    /// What reached the disk and what did not, for the message of a failed check.
    pub description: String,
}

/// How a state comes about. *Pending* events are those no flush covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CrashClass {
    /// Everything is there: the process died, the machine did not.
    KillDaemon,
    /// Nothing pending is there.
    Nothing,
    /// The pending up to some point are there.
    Prefix,
    /// All pending but one are there.
    DropOne,
    /// Of the pending exactly one is there.
    OnlyOne,
    /// All pending are there, but one write only to a multiple of `unit` bytes of the file, or only from there on. It is
    /// the last pending write, or a drawn earlier one.
    Torn {
        /// 512 or 4096.
        unit: u64,
    },
    /// Some of the pending are there.
    Subset,
    /// All pending are there, one write at another offset of its file (a multiple of 4096 bytes away) and not at its own.
    Misdirected,
    /// Everything is there but one write that a flush had covered.
    Dropped,
}

impl CrashClass {
    /// Whether the disk broke its promises, so that damage must be detected but data need not survive.
    pub fn is_damage(self) -> bool {
        matches!(self, CrashClass::Misdirected | CrashClass::Dropped)
    }

    fn bit(self) -> Classes {
        match self {
            CrashClass::KillDaemon => Classes::KILL_DAEMON,
            CrashClass::Nothing => Classes::NOTHING,
            CrashClass::Prefix => Classes::PREFIX,
            CrashClass::DropOne => Classes::DROP_ONE,
            CrashClass::OnlyOne => Classes::ONLY_ONE,
            CrashClass::Torn { unit: 512 } => Classes::TORN_512,
            CrashClass::Torn { .. } => Classes::TORN_4096,
            CrashClass::Subset => Classes::SUBSET,
            CrashClass::Misdirected => Classes::MISDIRECTED,
            CrashClass::Dropped => Classes::DROPPED,
        }
    }
}

/// A set of [`CrashClass`]es.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Classes(u16);

#[allow(missing_docs, reason = "each is the class of its name")]
impl Classes {
    pub const KILL_DAEMON: Classes = Classes(1);
    pub const NOTHING: Classes = Classes(1 << 1);
    pub const PREFIX: Classes = Classes(1 << 2);
    pub const DROP_ONE: Classes = Classes(1 << 3);
    pub const ONLY_ONE: Classes = Classes(1 << 4);
    pub const TORN_512: Classes = Classes(1 << 5);
    pub const TORN_4096: Classes = Classes(1 << 6);
    pub const SUBSET: Classes = Classes(1 << 7);
    pub const MISDIRECTED: Classes = Classes(1 << 8);
    pub const DROPPED: Classes = Classes(1 << 9);
    /// All that an honest disk may leave: everything covered by a flush must survive in them.
    pub const POWER_CUT: Classes = Classes((1 << 8) - 1);
    /// All that a lying disk may leave.
    pub const DAMAGE: Classes = Classes(Classes::MISDIRECTED.0 | Classes::DROPPED.0);
    pub const ALL: Classes = Classes(Classes::POWER_CUT.0 | Classes::DAMAGE.0);

    /// Whether all of `other` are in it.
    pub fn contains(self, other: Classes) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Classes {
    type Output = Classes;

    fn bitor(self, other: Classes) -> Classes {
        Classes(self.0 | other.0)
    }
}

impl fmt::Debug for Classes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Classes({:#b})", self.0)
    }
}

/// The marks that were set before a cut, in order.
pub fn marks(log: &[Event], at: usize) -> impl DoubleEndedIterator<Item = u64> {
    log.iter().take(at).filter_map(|event| match event {
        Event::Mark(mark) => Some(*mark),
        _ => None,
    })
}

#[cfg(test)]
mod class_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod protocol_tests;
