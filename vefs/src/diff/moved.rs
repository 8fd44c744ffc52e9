//! Names of inodes that both versions have, where the other version has it under another one: the renames, and the hard links made or removed.
//!
//! Invariants: an inode's names stand in byte order, old and new ones apart; the first old one goes with the first new one, and so on. What is
//! told of a name is decided by what stands here, so that a table that was full tells of both halves of a rename alike.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::names::Names;
use super::touched::ENTRIES;
use super::{Limits, Sides};
use crate::error::Result;
use crate::ids::InodeNo;

/// An inode's names that only one of the versions has.
#[derive(Default)]
struct Both {
    old: Vec<Box<[u8]>>,
    new: Vec<Box<[u8]>>,
}

/// The names.
pub(super) struct Moved {
    inodes: HashMap<InodeNo, Both, RandomState>,
    names: usize,
    bytes: usize,
    limits: Limits,
    full: bool,
}

impl Moved {
    pub fn new(limits: &Limits) -> Moved {
        Moved { inodes: HashMap::default(), names: 0, bytes: 0, limits: *limits, full: false }
    }

    /// Whether there were more names than it takes.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// A name that only the older version (or only the newer one) has. Paths come in byte order.
    pub fn note(&mut self, ino: InodeNo, path: &[u8], is_new: bool) {
        self.full |= self.names >= self.limits.moved || self.bytes + path.len() > self.limits.moved_bytes;
        if self.full {
            return;
        }
        (self.names, self.bytes) = (self.names + 1, self.bytes + path.len());
        let both = self.inodes.entry(ino).or_default();
        if is_new { &mut both.new } else { &mut both.old }.push(path.into());
    }

    /// The new name that an old one was changed into.
    pub fn new_name(&self, ino: InodeNo, old: &[u8]) -> Option<&[u8]> {
        let both = self.inodes.get(&ino)?;
        partner(&both.old, &both.new, old)
    }

    /// The old name that a new one was changed from.
    pub fn old_name(&self, ino: InodeNo, new: &[u8]) -> Option<&[u8]> {
        let both = self.inodes.get(&ino)?;
        partner(&both.new, &both.old, new)
    }
}

fn partner<'a>(of: &[Box<[u8]>], in_list: &'a [Box<[u8]>], path: &[u8]) -> Option<&'a [u8]> {
    let at = of.binary_search_by(|known| (**known).cmp(path)).ok()?;
    in_list.get(at).map(|path| &**path)
}

/// Whether an inode that both versions have may have got or lost a name: only then are names worth collecting. Where it is known which directories
/// were changed, they are looked at; else it may.
pub(super) fn anything_moved(sides: &Sides<'_>) -> Result<bool> {
    let Some(touched) = &sides.touched else { return Ok(sides.related) };
    for dir in touched.iter().filter(|(_, bits)| **bits & ENTRIES != 0).map(|(dir, _)| *dir) {
        for (here, there, in_to) in [(sides.from, sides.to, true), (sides.to, sides.from, false)] {
            let mut names = Names::new(here.view(), dir);
            while let Some((name, entry)) = names.next()? {
                let other = crate::state::view::dentry(there.view(), dir, &name)?;
                if other.is_none_or(|other| other.ino != entry.ino) && sides.lives(&entry, in_to)? {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}
