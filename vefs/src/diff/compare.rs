//! Two inodes compared: attributes, extended attributes, content.

use std::collections::HashMap;

use super::names::Names;
use super::runs::Runs;
use super::touched::{CONTENT, XATTR};
use super::{Differs, Sides};
use crate::error::{Error, Result};
use crate::ids::InodeNo;
use crate::state::view;
use crate::types::{Inode, Kind, Source, mode};
use crate::ve::Snapshot;

/// Bytes read of either file at a time.
const STEP: u64 = 1 << 20;
/// Results remembered of files with several names, so that each is read once.
const KNOWN_MAX: usize = 1024;

/// An inode in both versions.
pub(super) struct Compared {
    pub differs: Differs,
    pub before: Inode,
    pub after: Inode,
}

/// Compares inodes.
pub(super) struct Comparer<'a> {
    sides: &'a Sides<'a>,
    known: HashMap<(InodeNo, InodeNo), Differs>,
}

impl<'a> Comparer<'a> {
    pub fn new(sides: &'a Sides<'a>) -> Comparer<'a> {
        Comparer { sides, known: HashMap::new() }
    }

    /// What differs between an inode of the one and one of the other version; `same`: they are one inode.
    pub fn compare(&mut self, from: InodeNo, to: InodeNo, same: bool) -> Result<Compared> {
        let sides = self.sides;
        let (before, after) = (sides.need(sides.from, from)?, sides.need(sides.to, to)?);
        if let Some(differs) = self.known.get(&(from, to)) {
            return Ok(Compared { differs: *differs, before, after });
        }
        let differs = self.look((from, &before), (to, &after), same)?;
        if before.nlink.min(after.nlink) > 1 && !before.is_dir() && self.known.len() < KNOWN_MAX {
            self.known.insert((from, to), differs);
        }
        Ok(Compared { differs, before, after })
    }

    fn look(&self, (from, a): (InodeNo, &Inode), (to, b): (InodeNo, &Inode), same: bool) -> Result<Differs> {
        let mut differs = Differs::default();
        if a.kind() != b.kind() {
            return Ok(Differs::TYPE);
        }
        // What the change index says of an inode counts where both numbers mean it.
        let bits = self.sides.touched.as_ref().filter(|_| same).map(|touched| touched.get(&to).copied().unwrap_or(0));
        let may = |what: u8| bits.is_none_or(|bits| bits & what != 0);
        differs.note(Differs::MODE, (a.mode ^ b.mode) & mode::PERM != 0);
        differs.note(Differs::OWNER, (a.uid, a.gid) != (b.uid, b.gid));
        differs.note(Differs::XATTR, may(XATTR) && self.xattrs_differ((from, a), (to, b))?);
        match a.kind() {
            Kind::Regular => {
                let content = a.size != b.size || (may(CONTENT) && self.bytes_differ((from, a), (to, b), same)?);
                differs.note(Differs::CONTENT, content);
            }
            Kind::Symlink if !same => {
                let targets = (self.sides.from.readlink(from)?, self.sides.to.readlink(to)?);
                differs.note(Differs::CONTENT, targets.0 != targets.1);
            }
            Kind::CharDevice | Kind::BlockDevice => differs.note(Differs::DEVICE, a.rdev != b.rdev),
            _ => {}
        }
        if a.mtime != b.mtime && !differs.has(Differs::CONTENT) {
            differs.note(Differs::MTIME, !a.is_dir() || self.have_same_names(from, to)?);
        }
        Ok(differs)
    }

    fn xattrs_differ(&self, (from, a): (InodeNo, &Inode), (to, b): (InodeNo, &Inode)) -> Result<bool> {
        let names = |of: &Snapshot, ino: InodeNo, inode: &Inode| match inode.may_have_xattrs(ino) {
            true => view::xattr_names(of.view(), ino),
            false => Ok(Vec::new()),
        };
        let (old, new) = (names(self.sides.from, from, a)?, names(self.sides.to, to, b)?);
        if old != new {
            return Ok(true);
        }
        for name in &old {
            if view::xattr(self.sides.from.view(), from, name)? != view::xattr(self.sides.to.view(), to, name)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether two directories have the same names, leading to the same inodes.
    fn have_same_names(&self, from: InodeNo, to: InodeNo) -> Result<bool> {
        if from == to && self.sides.same_names(from) {
            return Ok(true);
        }
        let mut old = Names::new(self.sides.from.view(), from);
        let mut new = Names::new(self.sides.to.view(), to);
        loop {
            match (old.next()?, new.next()?) {
                (None, None) => return Ok(true),
                (Some(a), Some(b)) if a.0 == b.0 && a.1.ino == b.1.ino => {}
                _ => return Ok(false),
            }
        }
    }

    /// Whether two files of one size have other bytes. Those of one source are not read.
    fn bytes_differ(&self, (from, a): (InodeNo, &Inode), (to, b): (InodeNo, &Inode), same: bool) -> Result<bool> {
        // Two histories may give one payload id to different bytes. Both cannot have changed a file at the same nanosecond, though: one that
        // has its ctime is as it was when they parted.
        let ids_count = self.sides.one_state || (same && a.ctime == b.ctime);
        let alike = |x: Option<Source>, y: Option<Source>| match (x, y) {
            (None, None) => true,
            (Some(Source::Payload(x)), Some(Source::Payload(y))) => ids_count && x == y,
            (Some(x), Some(y)) => object_of(x).is_some() && object_of(x) == object_of(y),
            _ => false,
        };
        let mut old = Runs::new(self.sides.from.view(), from, a)?;
        let mut new = Runs::new(self.sides.to.view(), to, b)?;
        let mut offset = 0;
        while offset < a.size {
            let ((x, x_end), (y, y_end)) = (old.at(offset)?, new.at(offset)?);
            let mut end = x_end.min(y_end).min(a.size);
            if !alike(x, y) {
                end = end.min(offset + STEP);
                let len = (end - offset) as usize;
                let x = self.bytes(self.sides.from, from, x, offset, len)?;
                if x != self.bytes(self.sides.to, to, y, offset, len)? {
                    return Ok(true);
                }
            }
            offset = end;
        }
        Ok(false)
    }

    fn bytes(&self, of: &Snapshot, ino: InodeNo, source: Option<Source>, offset: u64, len: usize) -> Result<Vec<u8>> {
        if source.is_none() {
            return Ok(vec![0; len]);
        }
        let bytes = of.read(ino, offset, len)?;
        if bytes.len() != len {
            let place = format!("version {} of VE {}, inode {ino}", of.txn(), of.ve().id());
            return Err(Error::Damage {
                what: "file",
                place,
                detail: format!("it ends before {}", offset + len as u64),
            });
        }
        Ok(bytes)
    }
}

/// The object that bytes are of, and where in it.
fn object_of(source: Source) -> Option<(crate::ids::Hash, u64)> {
    match source {
        Source::Object { hash, offset } | Source::Base { hash, offset } => Some((hash, offset)),
        Source::Payload(_) | Source::Unwritten => None,
    }
}
