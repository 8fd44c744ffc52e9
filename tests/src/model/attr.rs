//! chmod, chown, truncate and utimensat in one.

use vefs::clock::Timestamp;
use vefs::errno::Errno;
use vefs::ids::InodeNo;
use vefs::limits::FILE_SIZE_MAX;
use vefs::op::{Reply, SetAttr};
use vefs::types::{Kind, mode};

use super::{Model, acl};

impl Model {
    pub(super) fn setattr(&mut self, ino: InodeNo, set: &SetAttr, now: Timestamp) -> Result<Reply, Errno> {
        if [set.atime, set.mtime].into_iter().flatten().any(|t| t.nanos >= 1_000_000_000) {
            return Err(Errno::EINVAL);
        }
        let attr = self.node(ino)?.attr.clone();
        if let Some(size) = set.size {
            self.file(ino)?;
            if size > FILE_SIZE_MAX {
                return Err(Errno::EFBIG);
            }
        }
        if set.mode.is_some() && attr.kind() == Kind::Symlink {
            return Err(Errno::EOPNOTSUPP);
        }
        if *set == (SetAttr { kill_priv: set.kill_priv, ..SetAttr::default() }) {
            return Ok(Reply::Inode(ino, attr));
        }

        if let Some(size) = set.size {
            if size != attr.size {
                self.truncate(ino, size);
            }
            if size != attr.size || set.kill_priv {
                self.known(ino).kill_priv();
            }
            self.known(ino).attr.mtime = now;
        }
        let node = self.known(ino);
        if set.uid.is_some() || set.gid.is_some() {
            node.attr.uid = set.uid.unwrap_or(node.attr.uid);
            node.attr.gid = set.gid.unwrap_or(node.attr.gid);
            if !node.attr.is_dir() {
                node.kill_priv();
            }
        }
        if let Some(bits) = set.mode {
            node.attr.mode = node.attr.mode & mode::IFMT | bits & mode::PERM;
            if let Some(value) = node.xattrs.get_mut(acl::ACCESS) {
                let mut list = acl::parse(value).expect("only checked ACLs are stored");
                acl::follow_mode(&mut list, bits);
                *value = acl::encode(&list);
            }
        }
        node.attr.atime = set.atime.unwrap_or(node.attr.atime);
        node.attr.mtime = set.mtime.unwrap_or(node.attr.mtime);
        node.attr.ctime = now;
        self.reply_inode(ino)
    }
}
