//! The scratch sheet of one plan: inodes as they will be, the changes so far, the quota's sum.
//!
//! Invariant: an inode appears once, however many roles it plays in the operation (both parents of a rename may be one), so
//! that no role overwrites another's change.

use super::{Context, Then};
use crate::change::Change;
use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::ids::InodeNo;
use crate::op::Reply;
use crate::state::view::{self, View};
use crate::types::{Dentry, Inode, mode};

/// The attribute with a file's capabilities.
const CAPABILITY: &[u8] = b"security.capability";

/// An inode on the sheet.
struct Drafted {
    ino: InodeNo,
    /// As it will be.
    inode: Inode,
    /// As it is; `None` for a new one.
    before: Option<Inode>,
}

impl Drafted {
    /// The change that makes it so; none when nothing changed.
    fn change(self) -> Option<Change> {
        let Drafted { ino, inode, before } = self;
        let Some(before) = before else { return Some(Change::PutInode(ino, inode)) };
        if inode == before {
            return None;
        }
        let Inode { size, mapped, mtime, .. } = inode;
        let wrote = Inode { size, mapped, mtime, ctime: mtime, ..before };
        Some(if wrote == inode { Change::Wrote(ino, size, mapped, mtime) } else { Change::PutInode(ino, inode) })
    }
}

pub(super) struct Draft<'a, V: View + ?Sized> {
    pub view: &'a V,
    pub ctx: &'a Context<'a>,
    inodes: Vec<Drafted>,
    dropped: Vec<InodeNo>,
    pub changes: Vec<Change>,
    /// What is left to do once this is recorded.
    pub then: Then,
    bytes: i64,
    count: i64,
    next_ino: InodeNo,
}

impl<'a, V: View + ?Sized> Draft<'a, V> {
    pub fn new(view: &'a V, ctx: &'a Context<'a>) -> Self {
        Draft {
            view,
            ctx,
            inodes: Vec::with_capacity(4),
            dropped: Vec::new(),
            changes: Vec::with_capacity(6),
            then: Then::Nothing,
            bytes: 0,
            count: 0,
            next_ino: ctx.usage.next_ino,
        }
    }

    /// The inode as it will be; ENOENT when there is none.
    pub fn get(&mut self, ino: InodeNo) -> Result<&Inode> {
        Ok(&self.slot(ino)?.inode)
    }

    /// The inode, to be changed.
    pub fn edit(&mut self, ino: InodeNo) -> Result<&mut Inode> {
        Ok(&mut self.slot(ino)?.inode)
    }

    fn slot(&mut self, ino: InodeNo) -> Result<&mut Drafted> {
        let at = match self.inodes.iter().position(|s| s.ino == ino) {
            Some(at) => at,
            None => {
                let inode = view::need_inode(self.view, ino)?;
                self.inodes.push(Drafted { ino, before: Some(inode.clone()), inode });
                self.inodes.len() - 1
            }
        };
        Ok(&mut self.inodes[at])
    }

    /// Hands out the next inode number for a new inode.
    pub fn new_inode(&mut self, inode: Inode) -> InodeNo {
        let ino = self.next_ino;
        self.next_ino = InodeNo(ino.0 + 1);
        self.count += 1;
        self.inodes.push(Drafted { ino, inode, before: None });
        ino
    }

    /// The inode goes for ever.
    pub fn drop_inode(&mut self, ino: InodeNo) {
        self.dropped.push(ino);
        self.changes.push(Change::DropInode(ino));
        if !ino.is_base() {
            self.count -= 1;
        }
    }

    /// Adds to the charged bytes.
    pub fn charge(&mut self, bytes: i64) {
        self.bytes += bytes;
    }

    /// Whether so many charged bytes more are above the quota.
    pub fn is_over(&self, bytes: i64) -> bool {
        passes(self.ctx.usage.bytes, bytes, self.ctx.settings.quota_bytes)
    }

    pub fn bytes_delta(&self) -> i64 {
        self.bytes
    }

    /// A directory that is there: ENOENT, ENOTDIR.
    pub fn dir(&mut self, dir: InodeNo) -> Result<&Inode> {
        let inode = self.get(dir)?;
        if inode.is_dir() { Ok(inode) } else { Err(Errno::ENOTDIR.into()) }
    }

    /// A directory in which names can be made: it has one itself.
    pub fn live_dir(&mut self, dir: InodeNo) -> Result<&Inode> {
        let inode = self.dir(dir)?;
        if inode.nlink == 0 { Err(Errno::ENOENT.into()) } else { Ok(inode) }
    }

    /// The entry of a directory, if there is one.
    pub fn entry(&self, dir: InodeNo, name: &[u8]) -> Result<Option<Dentry>> {
        view::dentry(self.view, dir, name)
    }

    /// An extended attribute of an inode, if it has it.
    pub fn xattr(&mut self, ino: InodeNo, name: &[u8]) -> Result<Option<Box<[u8]>>> {
        if self.get(ino)?.may_have_xattrs(ino) { view::xattr(self.view, ino, name) } else { Ok(None) }
    }

    /// What a change of content or owner takes from a file: its capabilities (capabilities(7)); with `set_ids` set-user-ID as well, and set-group-ID of
    /// a group-executable one.
    pub fn kill_priv(&mut self, ino: InodeNo, set_ids: bool) -> Result<()> {
        if self.get(ino)?.is_dir() {
            return Ok(());
        }
        if self.xattr(ino, CAPABILITY)?.is_some() {
            self.changes.push(Change::DropXattr(ino, CAPABILITY.to_vec()));
        }
        if set_ids {
            let inode = self.edit(ino)?;
            inode.mode &= !mode::ISUID;
            if inode.mode & mode::IXGRP != 0 {
                inode.mode &= !mode::ISGID;
            }
        }
        Ok(())
    }

    /// The next cookie of a directory.
    pub fn take_cookie(&mut self, dir: InodeNo) -> Result<u64> {
        let d = self.edit(dir)?;
        let cookie = d.next_cookie;
        d.next_cookie += 1;
        Ok(cookie)
    }

    pub fn put_entry(&mut self, dir: InodeNo, name: &[u8], d: Dentry) {
        self.changes.push(Change::PutDentry(dir, name.to_vec(), d));
    }

    pub fn drop_entry(&mut self, dir: InodeNo, name: &[u8], cookie: u64) {
        self.changes.push(Change::DropDentry(dir, name.to_vec(), cookie));
    }

    /// Sets a directory's mtime and ctime.
    pub fn touch_dir(&mut self, dir: InodeNo) -> Result<()> {
        let now = self.ctx.now;
        let d = self.edit(dir)?;
        d.mtime = now;
        d.ctime = now;
        Ok(())
    }

    /// The answer with an inode's attributes as they will be.
    pub fn reply(&mut self, ino: InodeNo) -> Result<Reply> {
        Ok(Reply::Inode(ino, self.get(ino)?.clone()))
    }

    /// The changes, with the inodes that changed and the quota's sum. EDQUOT when that grows past a limit.
    pub fn finish(mut self) -> Result<Vec<Change>> {
        if self.is_over(self.bytes) || passes(self.ctx.usage.inodes, self.count, self.ctx.settings.quota_inodes) {
            return Err(Error::Posix(Errno::EDQUOT));
        }
        for drafted in self.inodes {
            if !self.dropped.contains(&drafted.ino) {
                self.changes.extend(drafted.change());
            }
        }
        if self.bytes != 0 || self.count != 0 {
            self.changes.push(Change::Usage(self.bytes, self.count));
        }
        Ok(self.changes)
    }
}

/// Whether a figure grows past a limit. A sum that overflows is above every limit.
fn passes(now: i64, delta: i64, limit: u64) -> bool {
    delta > 0 && now.checked_add(delta).is_none_or(|sum| sum > i64::try_from(limit).unwrap_or(i64::MAX))
}
