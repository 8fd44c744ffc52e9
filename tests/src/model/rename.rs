//! renameat2(2).

use vefs::clock::Timestamp;
use vefs::errno::Errno;
use vefs::ids::InodeNo;
use vefs::op::{RenameFlags, Reply};
use vefs::types::{Dentry, Kind, mode};

use super::{Model, Node, check_name};

/// A name in a directory.
type Place<'a> = (InodeNo, &'a [u8]);

impl Model {
    pub(super) fn rename(
        &mut self,
        from: Place,
        to: Place,
        flags: RenameFlags,
        now: Timestamp,
    ) -> Result<Reply, Errno> {
        if flags.exchange && (flags.no_replace || flags.whiteout) {
            return Err(Errno::EINVAL);
        }
        check_name(from.1)?;
        check_name(to.1)?;
        self.dir(from.0)?;
        self.dir(to.0)?;
        let source = self.lookup_entry(from.0, from.1)?;
        let target = self.dir(to.0)?.names().get(to.1).copied();
        match target {
            Some(_) if flags.no_replace => return Err(Errno::EEXIST),
            None if flags.exchange => return Err(Errno::ENOENT),
            Some(t) if t.ino == source.ino => return Ok(Reply::Done),
            _ => {}
        }
        self.check_rename(source, from.0, target, to.0, flags)?;

        match target {
            Some(t) if flags.exchange => {
                self.point(to, source);
                self.point(from, t);
                self.moved(t, to.0, from.0, now);
            }
            Some(t) => {
                self.drop_link(t, to.0, now);
                self.point(to, source);
                self.leave(from, source, flags.whiteout, now);
            }
            None => {
                self.enter(to.0, to.1, source.ino, source.kind);
                self.leave(from, source, flags.whiteout, now);
            }
        }
        self.moved(source, from.0, to.0, now);
        self.touch_dir(from.0, now);
        self.touch_dir(to.0, now);
        Ok(Reply::Done)
    }

    /// The rules about kinds, loops and quota, once the two entries are known.
    fn check_rename(
        &self,
        source: Dentry,
        from: InodeNo,
        target: Option<Dentry>,
        to: InodeNo,
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        if self.contains(source, to) {
            return Err(Errno::EINVAL);
        }
        if let Some(t) = target {
            if self.contains(t, from) {
                return Err(if flags.exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
            }
            if !flags.exchange {
                match (source.kind == Kind::Directory, t.kind == Kind::Directory) {
                    (true, false) => return Err(Errno::ENOTDIR),
                    (false, true) => return Err(Errno::EISDIR),
                    (true, true) if !self.node(t.ino)?.names().is_empty() => return Err(Errno::ENOTEMPTY),
                    _ => {}
                }
            }
        }
        if flags.whiteout { self.check_inode_quota() } else { Ok(()) }
    }

    /// Whether `entry` is the directory `dir` or an ancestor of it.
    fn contains(&self, entry: Dentry, dir: InodeNo) -> bool {
        let mut at = dir;
        loop {
            if at == entry.ino {
                return true;
            }
            if at == InodeNo::ROOT {
                return false;
            }
            at = self.nodes[&at.0].attr.parent;
        }
    }

    /// Lets an existing name, with its cookie, point to the inode of `entry`.
    fn point(&mut self, place: Place, entry: Dentry) {
        let name = self.known(place.0).names_mut().get_mut(place.1).expect("name was checked");
        (name.ino, name.kind) = (entry.ino, entry.kind);
    }

    /// Takes the old name away, or leaves a whiteout there.
    fn leave(&mut self, from: Place, source: Dentry, whiteout: bool, now: Timestamp) {
        if whiteout {
            let ino = self.add_node(Node::new(mode::IFCHR, 0, 0, now));
            self.point(from, Dentry { ino, kind: Kind::CharDevice, cookie: source.cookie });
        } else {
            self.known(from.0).names_mut().remove(from.1);
        }
    }

    /// What moving does to the moved inode, and a directory's to its parents.
    fn moved(&mut self, entry: Dentry, old_parent: InodeNo, new_parent: InodeNo, now: Timestamp) {
        let node = self.known(entry.ino);
        node.attr.ctime = now;
        if entry.kind == Kind::Directory {
            node.attr.parent = new_parent;
            self.known(old_parent).attr.nlink -= 1;
            self.known(new_parent).attr.nlink += 1;
        }
    }
}
