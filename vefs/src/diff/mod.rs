//! What differs between two versions of a VE: of one state, or of a state and a branch.
//!
//! The directories of both are walked side by side, names in byte order; files are paired by their path, and by their inode where that has
//! another name now. No file is read but those whose bytes lie elsewhere and may be the same.
//!
//! Invariants
//! - Rows come in byte order of [`Row::path`], each path at most once.
//! - Nothing that housekeeping does is a difference: where extents differ, bytes decide, and where both versions are of one state, an inode that
//!   the change index does not name between them is not looked at.
//! - Both versions are held by the caller. No lock of a VE is held over the walk; [`Snapshot::still_there`] is asked before a row is given.
//! - Memory: the names that moved ([`Limits::moved`], [`Limits::moved_bytes`]), the change index ([`Limits::touched`]), the entries at hand of the
//!   deepest [`walk::BUFFERED`] directories, and two buffers of bytes. A directory deeper than that costs its name.

mod compare;
mod moved;
mod names;
mod runs;
mod touched;
mod walk;

#[cfg(test)]
mod tests;

use std::fmt;

use crate::error::{Error, Result};
use crate::ids::InodeNo;
use crate::types::{Dentry, Inode};
use crate::ve::Snapshot;

/// Longest path that is walked, in bytes; programs can name 4095. What lies deeper is counted in [`Summary::too_deep`].
pub const PATH_MAX: usize = 16 << 10;

/// What a comparison may remember.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Names, old and new ones together, of inodes that may have been renamed. What is beyond is shown as removed and added.
    pub moved: usize,
    /// Bytes of their paths.
    pub moved_bytes: usize,
    /// Inodes of the change index. Where more were touched, every inode is compared.
    pub touched: usize,
}

impl Default for Limits {
    /// About 64 MiB in all.
    fn default() -> Limits {
        Limits { moved: 128 << 10, moved_bytes: 16 << 20, touched: 512 << 10 }
    }
}

/// What of an inode differs, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Differs(pub u8);

impl Differs {
    /// It is of another kind; then nothing else is compared.
    pub const TYPE: Differs = Differs(1);
    /// The bytes of a file, the target of a symlink.
    pub const CONTENT: Differs = Differs(2);
    /// Permission bits.
    pub const MODE: Differs = Differs(4);
    /// User or group.
    pub const OWNER: Differs = Differs(8);
    /// Extended attributes, ACLs among them.
    pub const XATTR: Differs = Differs(16);
    /// The number of a device.
    pub const DEVICE: Differs = Differs(32);
    /// The time of the last change of content, where the content is the same. Of a directory: where it has the same entries.
    pub const MTIME: Differs = Differs(64);

    const NAMES: [(Differs, &str); 7] = [
        (Differs::TYPE, "type"),
        (Differs::CONTENT, "content"),
        (Differs::MODE, "mode"),
        (Differs::OWNER, "owner"),
        (Differs::XATTR, "xattr"),
        (Differs::DEVICE, "device"),
        (Differs::MTIME, "mtime"),
    ];

    /// Whether all of these are among them.
    pub fn has(self, of: Differs) -> bool {
        self.0 & of.0 == of.0
    }

    /// Whether nothing differs.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Notes that something differs, if it does.
    fn note(&mut self, what: Differs, differs: bool) {
        self.0 |= if differs { what.0 } else { 0 };
    }

    /// Their names, in a fixed order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Differs::NAMES.into_iter().filter(move |(bit, _)| self.has(*bit)).map(|(_, name)| name)
    }
}

impl fmt::Display for Differs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().collect::<Vec<_>>().join(","))
    }
}

/// What became of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was not there.
    Added {
        /// What is there now was there, under another name that it has kept, or whose going was not remembered ([`Limits::moved`]).
        linked: bool,
    },
    /// It is not there any more.
    Removed {
        /// What was there still has another name, or got one that was not remembered.
        linked: bool,
    },
    /// Something else is there, or it is otherwise.
    Changed,
    /// What is there now had another name, which is gone.
    Renamed {
        /// That name, as a path.
        from: Vec<u8>,
        /// Something else was here, and is gone.
        replaced: bool,
    },
}

/// A path that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// From the root, in the newer tree; of what was removed, in the older one.
    pub path: Vec<u8>,
    /// How.
    pub change: Change,
    /// What of the inode; nothing where it was only added, removed or renamed.
    pub differs: Differs,
    /// The inode in the version that is compared from, with its number. None where the path was added.
    pub before: Option<(InodeNo, Inode)>,
    /// The same in the other version. None where it was removed.
    pub after: Option<(InodeNo, Inode)>,
}

/// What a comparison found, in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Paths added.
    pub added: u64,
    /// Removed.
    pub removed: u64,
    /// Changed, without those that were renamed as well.
    pub changed: u64,
    /// Renamed.
    pub renamed: u64,
    /// More was moved than can be remembered: some renames are shown as a path removed and one added.
    pub forgotten: bool,
    /// Directories that were not looked into: their path is longer than [`PATH_MAX`].
    pub too_deep: u64,
    /// Names looked at.
    pub looked: u64,
}

/// Told while the comparison goes on.
pub enum Event {
    /// A path differs.
    Row(Box<Row>),
    /// So many names were looked at.
    Looked(u64),
}

/// Hears of it; an error ends the comparison.
pub type Hear<'a, E> = dyn FnMut(Event) -> std::result::Result<(), E> + 'a;

/// Names after which it is told how far it is.
const TELL: u64 = 4096;

/// The two versions, and what is known of them together.
struct Sides<'a> {
    from: &'a Snapshot,
    to: &'a Snapshot,
    /// Both lie in one slot: an inode number means one inode.
    one_state: bool,
    /// Inode numbers may mean the same inode at all.
    related: bool,
    /// Base inodes mean the same inode.
    one_base: bool,
    /// What was changed between them, where that is known.
    touched: Option<touched::Touched>,
}

impl<'a> Sides<'a> {
    fn new(from: &'a Snapshot, to: &'a Snapshot, limits: &Limits) -> Result<Sides<'a>> {
        let (a, b) = (from.ve(), to.ve());
        let one_state = a.slot == b.slot;
        let related = one_state || a.identity.lineage == b.identity.lineage;
        let one_base = one_state || a.identity.base == b.identity.base;
        let touched = if one_state { touched::between(from, to, limits.touched)? } else { None };
        Ok(Sides { from, to, one_state, related, one_base, touched })
    }

    /// Whether both versions have this inode as it is: the change index says so. False where nothing is known.
    fn untouched(&self, ino: InodeNo) -> bool {
        self.touched.as_ref().is_some_and(|touched| !touched.contains_key(&ino))
    }

    /// Whether a directory has the same entries in both versions: the change index says so. False where nothing is known.
    fn same_names(&self, dir: InodeNo) -> bool {
        self.touched.as_ref().is_some_and(|touched| touched.get(&dir).is_none_or(|bits| bits & touched::ENTRIES == 0))
    }

    /// Whether two entries lead to one inode. Beyond a fork two histories give the same numbers to different inodes, made at different times.
    fn same_inode(&self, from: &Dentry, to: &Dentry) -> Result<bool> {
        if from.ino != to.ino || from.kind != to.kind || !self.may_be_same(from.ino) {
            return Ok(false);
        }
        Ok(self.one_state || self.need(self.from, from.ino)?.btime == self.need(self.to, to.ino)?.btime)
    }

    fn may_be_same(&self, ino: InodeNo) -> bool {
        self.related && (self.one_base || !ino.is_base())
    }

    /// Whether what an entry of one version leads to has a name in the other one.
    fn lives(&self, entry: &Dentry, in_to: bool) -> Result<bool> {
        if !self.may_be_same(entry.ino) {
            return Ok(false);
        }
        let (here, there) = if in_to { (self.from, self.to) } else { (self.to, self.from) };
        let Some(inode) = crate::state::view::inode(there.view(), entry.ino)? else { return Ok(false) };
        if inode.nlink == 0 || inode.kind() != entry.kind {
            return Ok(false);
        }
        Ok(self.one_state || self.need(here, entry.ino)?.btime == inode.btime)
    }

    /// The inode that an entry leads to.
    fn need(&self, of: &Snapshot, ino: InodeNo) -> Result<Inode> {
        crate::state::view::inode(of.view(), ino)?.ok_or_else(|| {
            let place = format!("version {} of VE {}, inode {ino}", of.txn(), of.ve().id());
            Error::Damage { what: "metadata", place, detail: "an entry leads to it, and it is not there".into() }
        })
    }
}

/// Compares two versions. Rows, and how far it is, are told as they come.
pub fn compare<E: From<Error>>(
    from: &Snapshot,
    to: &Snapshot,
    limits: &Limits,
    hear: &mut Hear<'_, E>,
) -> std::result::Result<Summary, E> {
    let sides = Sides::new(from, to, limits)?;
    let mut moved = moved::Moved::new(limits);
    if moved::anything_moved(&sides)? {
        walk::Walk::new(&sides, walk::Pass::Collect(&mut moved)).run(hear)?;
    }
    let mut summary = walk::Walk::new(&sides, walk::Pass::Tell(&moved)).run(hear)?;
    summary.forgotten = moved.is_full();
    Ok(summary)
}
