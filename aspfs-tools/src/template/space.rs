//! The space that an import takes, which the store is told of before it is taken (promise G4).
//!
//! What counts is what comes to lie on the disk, not what is sent: one byte in a hole brings a whole chunk, and every file a little more. The
//! sum may be too large, which costs a look at the disk: what is in the store already, or comes twice, counts as if it were new.

use std::sync::Arc;

use vefs::limits::OBJECT_CHUNK;
use vefs::{Result, Store};

/// The store is told each time so many bytes are about to be written.
const STEP: u64 = 1 << 20;
/// What an object takes besides its bytes: the rest of its last block, and its sidecar.
const OBJECT: u64 = 8 << 10;
/// What an inode takes in the tree's file, names and attributes left out.
const INODE: u64 = 160;
/// What a run of a file's bytes takes there.
const RUN: u64 = 64;

/// What one import takes.
pub(super) struct Space {
    store: Arc<Store>,
    /// Bytes of the disk, and how many of them the store was told of.
    taken: u64,
    told: u64,
    /// Bytes of small contents. They wait in a file, and are written once more at the end, into packs.
    small: u64,
    /// Runs of bytes between holes.
    runs: u64,
}

/// How far a file whose bytes are coming is counted.
pub(super) struct Counted {
    size: u64,
    /// Whether it shares a pack. A library has an object of its own, which is seen only when its bytes are all there: it counts as small.
    small: bool,
    /// The end of the chunks that are counted: a multiple of their size, or the end of the file.
    end: u64,
}

impl Counted {
    /// A file of `size` bytes, of which none has come.
    pub fn new(size: u64, executable: bool) -> Counted {
        Counted { size, small: size < OBJECT_CHUNK as u64 && !executable, end: 0 }
    }
}

impl Space {
    /// Nothing is taken so far.
    ///
    /// # Errors
    /// The disk is full up to the reserve.
    pub fn begin(store: &Arc<Store>) -> Result<Space> {
        store.spend_space(0)?;
        Ok(Space { store: store.clone(), taken: 0, told: 0, small: 0, runs: 0 })
    }

    /// Counts `len` bytes, at least one, that are about to be written at an offset; they end within the file's size.
    ///
    /// # Errors
    /// The disk is full up to the reserve.
    pub fn bytes(&mut self, file: &mut Counted, offset: u64, len: u64) -> Result<()> {
        let chunk = OBJECT_CHUNK as u64;
        let begin = offset - offset % chunk;
        let end = (offset + len).next_multiple_of(chunk).min(file.size);
        if end <= file.end {
            return Ok(());
        }
        if file.end == 0 {
            self.taken += OBJECT;
            self.small += if file.small { file.size } else { 0 };
        }
        if file.end == 0 || begin > file.end {
            self.runs += 1;
        }
        self.taken += end - begin.max(file.end);
        file.end = end;
        if self.taken - self.told >= STEP {
            self.store.spend_space(self.taken - self.told)?;
            self.told = self.taken;
        }
        Ok(())
    }

    /// Makes sure of room for what comes last and is not asked about while it is written: the packs, and the tree of so many inodes, with
    /// so many bytes of names and attributes.
    ///
    /// # Errors
    /// There is not enough above the reserve.
    pub fn end(&self, inodes: u64, names: u64) -> Result<()> {
        let more = self.small + names + inodes * INODE + self.runs * RUN;
        self.store.spend_space(self.taken - self.told + more)?;
        self.store.require_space(more)
    }
}
