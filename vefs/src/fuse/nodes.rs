//! Node ids, and who has what open in which way: the rules of passthrough.
//!
//! A node id is the inode number, so that it resolves without any table; an inode that had to leave passthrough gets a second one, the
//! number with bit 63 set, for the rest of the mount. `st_ino` is the same under both.
//!
//! Rules (kernel `fs/fuse/iomode.c`, and what was measured)
//! - All opens of a node are cached, or all read one backing file. A read-only open of a file whose whole content is one object may
//!   read that object, if nothing has it open cached and nothing opened it for writing during this mount.
//! - An open for writing, and a truncation, is never passthrough. Where it meets one, the inode moves to its second node id and the
//!   caller is told ESTALE: the kernel looks the name up again and finds the new node. What had the old one open goes on reading
//!   the bytes of before; this is a listed deviation, and counted.
//! - Every count is kept (see [`super::kept`]) before the kernel is answered, with the number of the request, so that a request that
//!   comes again after a takeover is counted once. So an inode that nobody has open any more stays for as long as one of its last requests may
//!   come again: until [`RESTING`] others were closed since.

use std::collections::{BTreeMap, HashMap};

use super::kept::{Kept, KeptError, REMEMBERED, Slot, fresh};
use crate::ids::{Hash, InodeNo};

/// Set in an inode's second node id.
const SECOND: u64 = 1 << 63;
/// Set in the number of a request that the kernel sends again (`FUSE_UNIQUE_RESEND`, linux/fuse.h).
pub const RESENT: u64 = 1 << 63;
/// Idle backing files and marks of writing that are kept per mount.
const IDLE_MAX: usize = 256;
/// Inodes that nobody has open and of which nothing else is known whose last requests are kept: many more than are under way at a time.
const RESTING: usize = 64;

/// What the kernel calls an inode by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The inode.
    pub fn ino(self) -> InodeNo {
        InodeNo(self.0 & !SECOND)
    }

    fn is_second(self) -> bool {
        self.0 & SECOND != 0
    }
}

/// How an open was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The kernel caches.
    Cached,
    /// As cached, but what is written through it does not go into the kernel's cache. Only the answer to the first open of its kind is
    /// this; it counts as cached.
    Direct,
    /// The kernel reads this backing file.
    Passthrough(u32),
}

/// Why an open cannot be answered.
#[derive(Debug)]
pub enum Refused {
    /// The kernel has to look the name up again. `moved`: because of this very open.
    Stale {
        /// The inode has moved to its second node id just now.
        moved: bool,
    },
    /// The state could not be kept.
    Kept(KeptError),
}

impl From<KeptError> for Refused {
    fn from(e: KeptError) -> Self {
        Refused::Kept(e)
    }
}

/// Registers and gives back backing files, which only the kernel side of a mount can.
pub trait Backings {
    /// Makes an object a backing file; `None` when that is not possible, which costs speed and nothing else.
    fn register(&self, object: Hash) -> Option<u32>;
    /// Whether this one is the file that lies under its object's name now, for all that is known.
    fn is_current(&self, backing: u32) -> bool;
    /// Gives one back.
    fn release(&self, backing: u32, object: Hash);
}

/// The inodes with opens of a mount.
#[derive(Debug)]
pub struct Nodes {
    kept: Kept,
    slots: HashMap<InodeNo, (u32, Slot)>,
    free: Vec<u32>,
    next: u32,
    /// Those that nobody has open, with a backing file or a mark of writing.
    idle: Closed,
    /// Those that nobody has open, without.
    resting: Closed,
}

/// Inodes in the order in which they were closed.
#[derive(Debug, Default)]
struct Closed {
    order: BTreeMap<u64, InodeNo>,
    at: HashMap<InodeNo, u64>,
    closed: u64,
}

impl Closed {
    fn set(&mut self, ino: InodeNo, is_in: bool) {
        if let Some(at) = self.at.remove(&ino) {
            self.order.remove(&at);
        }
        if is_in {
            self.closed += 1;
            self.at.insert(ino, self.closed);
            self.order.insert(self.closed, ino);
        }
    }

    /// The half of so many that were closed first, if there are more.
    fn surplus(&self, most: usize) -> Vec<InodeNo> {
        if self.at.len() <= most {
            return Vec::new();
        }
        self.order.values().take(most / 2).copied().collect()
    }
}

impl Nodes {
    /// Goes on with what was kept.
    pub fn new(kept: Kept, slots: Vec<(u32, Slot)>) -> Nodes {
        let next = slots.iter().map(|(i, _)| i + 1).max().unwrap_or(0);
        let used: std::collections::HashSet<u32> = slots.iter().map(|(i, _)| *i).collect();
        let free = (0..next).filter(|i| !used.contains(i)).collect();
        // The kernel numbers requests upwards, so the last one tells which slot was closed last.
        let mut idle: Vec<(u64, InodeNo)> =
            slots.iter().filter(|(_, s)| s.is_idle()).map(|(_, s)| (s.requests[0], InodeNo(s.ino))).collect();
        idle.sort_unstable();
        let slots = slots.into_iter().map(|(i, s)| (InodeNo(s.ino), (i, s))).collect();
        let mut nodes = Nodes { kept, slots, free, next, idle: Closed::default(), resting: Closed::default() };
        idle.into_iter().for_each(|(_, ino)| nodes.sort(ino));
        nodes
    }

    /// Puts an inode among the idle or resting ones, if it is one.
    fn sort(&mut self, ino: InodeNo) {
        let slot = self.slots.get(&ino).map(|(_, slot)| slot).filter(|slot| slot.is_idle());
        let marked = slot.map(|slot| slot.backing != 0 || slot.written);
        self.idle.set(ino, marked == Some(true));
        self.resting.set(ino, marked == Some(false));
    }

    /// The node id under which the kernel is to know an inode from now on.
    pub fn node(&self, ino: InodeNo) -> NodeId {
        let aliased = self.slots.get(&ino).is_some_and(|(_, s)| s.aliased);
        NodeId(if aliased { ino.0 | SECOND } else { ino.0 })
    }

    /// Whether the kernel may have this inode under two node ids. What it does through one of them changes no attributes that it caches for the
    /// other, so it must cache neither's.
    pub fn is_twice(&self, ino: InodeNo) -> bool {
        self.slots.get(&ino).is_some_and(|(_, s)| s.aliased)
    }

    /// Whether this node id was left behind: it must not be opened.
    pub fn is_retired(&self, node: NodeId) -> bool {
        !node.is_second() && self.node(node.ino()) != node
    }

    /// Whether the kernel has this inode open.
    pub fn is_open(&self, ino: InodeNo) -> bool {
        self.slots.get(&ino).is_some_and(|(_, s)| s.cached + s.passthrough > 0)
    }

    /// Whether anything is open that the kernel caches itself.
    pub fn any_cached(&self) -> bool {
        self.slots.values().any(|(_, s)| s.cached > 0)
    }

    /// Backing files that the kernel has, with their objects.
    pub fn backings(&self) -> impl Iterator<Item = (u32, Hash)> {
        self.slots.values().filter(|(_, s)| s.backing != 0).map(|(_, s)| (s.backing, s.object))
    }

    /// Answers an open. `whole` tells the object that is the file's whole content, if there is one worth passing through.
    pub fn open(
        &mut self,
        node: NodeId,
        write: bool,
        request: u64,
        whole: impl FnOnce() -> Option<Hash>,
        kernel: &dyn Backings,
    ) -> Result<Opened, Refused> {
        let ino = node.ino();
        if let Some(done) = self.done_before(ino, request) {
            return Ok(done);
        }
        if self.is_retired(node) {
            return Err(Refused::Stale { moved: false });
        }
        if write {
            self.before_change(node)?;
        }
        let mut slot = self.slots.get(&ino).map_or_else(|| fresh(ino), |(_, s)| s.clone());
        let (mut opened, mut former) = (Opened::Cached, None);
        if !write && slot.cached == 0 && !slot.written && !node.is_second() {
            if slot.passthrough == 0 {
                former = choose_backing(&mut slot, whole(), kernel);
            }
            if slot.backing != 0 {
                opened = Opened::Passthrough(slot.backing);
            }
        }
        match opened {
            Opened::Passthrough(_) => slot.passthrough += 1,
            _ => (slot.written, slot.cached) = (slot.written || write, slot.cached + 1),
        }
        remember(&mut slot, request, opened);
        self.put(slot, kernel)?;
        // Not before it is kept that it is used no more: the next daemon would go on with what the kernel does not have.
        if let Some((backing, object)) = former {
            kernel.release(backing, object);
        }
        Ok(opened)
    }

    /// Before content is changed through a node: moves an inode that is open in passthrough to its second node id.
    pub fn before_change(&mut self, node: NodeId) -> Result<(), Refused> {
        if self.is_retired(node) {
            return Err(Refused::Stale { moved: false });
        }
        let Some((index, slot)) = self.slots.get_mut(&node.ino()) else { return Ok(()) };
        if slot.passthrough == 0 || node.is_second() {
            return Ok(());
        }
        let mut moved = slot.clone();
        moved.aliased = true;
        moved.written = true;
        self.kept.put_slot(*index, &moved)?;
        *slot = moved;
        Err(Refused::Stale { moved: true })
    }

    /// A file that was just created is open, cached.
    pub fn created(&mut self, ino: InodeNo, request: u64, kernel: &dyn Backings) -> Result<(), KeptError> {
        if self.done_before(ino, request).is_some() {
            return Ok(());
        }
        let mut slot = self.slots.get(&ino).map_or_else(|| fresh(ino), |(_, s)| s.clone());
        slot.cached += 1;
        remember(&mut slot, request, Opened::Cached);
        self.put(slot, kernel)
    }

    /// An open ended; `passthrough` tells which kind.
    pub fn release(
        &mut self,
        ino: InodeNo,
        passthrough: bool,
        request: u64,
        kernel: &dyn Backings,
    ) -> Result<(), KeptError> {
        if self.done_before(ino, request).is_some() {
            return Ok(());
        }
        let Some(mut slot) = self.less(ino, passthrough) else { return Ok(()) };
        remember(&mut slot, request, Opened::Cached);
        self.put(slot, kernel)
    }

    /// An inode's slot with an open less.
    fn less(&self, ino: InodeNo, passthrough: bool) -> Option<Slot> {
        let mut slot = self.slots.get(&ino)?.1.clone();
        let count = if passthrough { &mut slot.passthrough } else { &mut slot.cached };
        *count = count.saturating_sub(1);
        Some(slot)
    }

    /// An open that was counted is not answered after all. Its request may come again, and is another one then.
    pub fn undo(
        &mut self,
        ino: InodeNo,
        passthrough: bool,
        request: u64,
        kernel: &dyn Backings,
    ) -> Result<(), KeptError> {
        let Some(mut slot) = self.less(ino, passthrough) else { return Ok(()) };
        // Others may have come since, and pushed it out.
        slot.requests.iter_mut().filter(|r| **r & !1 == request & !RESENT).for_each(|r| *r = 0);
        self.put(slot, kernel)
    }

    /// The inode is gone.
    pub fn gone(&mut self, ino: InodeNo, kernel: &dyn Backings) -> Result<(), KeptError> {
        let Some((index, slot)) = self.slots.get(&ino) else { return Ok(()) };
        let (index, backing, object) = (*index, slot.backing, slot.object);
        self.kept.put_slot(index, &Slot::default())?;
        self.slots.remove(&ino);
        self.free.push(index);
        self.sort(ino);
        if backing != 0 {
            kernel.release(backing, object);
        }
        Ok(())
    }

    /// The answer that a request of this number got before the daemon was replaced.
    fn done_before(&self, ino: InodeNo, request: u64) -> Option<Opened> {
        if request & RESENT == 0 {
            return None;
        }
        let (_, slot) = self.slots.get(&ino)?;
        let number = request & !RESENT;
        let found = slot.requests.iter().find(|r| **r & !1 == number)?;
        Some(if found & 1 != 0 { Opened::Passthrough(slot.backing) } else { Opened::Cached })
    }

    fn put(&mut self, slot: Slot, kernel: &dyn Backings) -> Result<(), KeptError> {
        let ino = InodeNo(slot.ino);
        let index = match self.slots.get(&ino) {
            Some((index, _)) => *index,
            None => self.free.pop().unwrap_or(self.next),
        };
        self.kept.put_slot(index, &slot)?;
        self.next = self.next.max(index + 1);
        self.slots.insert(ino, (index, slot));
        self.sort(ino);
        self.shed(kernel)
    }

    /// Forgets the idle slots that were closed first: what such a one says of writing is a matter of speed only.
    fn shed(&mut self, kernel: &dyn Backings) -> Result<(), KeptError> {
        let surplus = [self.idle.surplus(IDLE_MAX), self.resting.surplus(2 * RESTING)].concat();
        surplus.into_iter().try_for_each(|ino| self.gone(ino, kernel))
    }
}

/// Sees to it that the slot's backing file is this object as it is now, or none. Gives the one that is to be given back.
fn choose_backing(slot: &mut Slot, object: Option<Hash>, kernel: &dyn Backings) -> Option<(u32, Hash)> {
    if slot.backing != 0 && object == Some(slot.object) && kernel.is_current(slot.backing) {
        return None;
    }
    let former = (std::mem::take(&mut slot.backing), slot.object);
    if let Some(object) = object
        && let Some(backing) = kernel.register(object)
    {
        slot.backing = backing;
        slot.object = object;
    }
    (former.0 != 0).then_some(former)
}

fn remember(slot: &mut Slot, request: u64, opened: Opened) {
    slot.requests.copy_within(..REMEMBERED - 1, 1);
    slot.requests[0] = (request & !RESENT & !1) | u64::from(matches!(opened, Opened::Passthrough(_)));
}

#[cfg(test)]
#[path = "nodes_tests.rs"]
mod tests;
