//! A VE, present or past, as the oracle's [`Reader`].

use vefs::errno::Errno;
use vefs::ids::InodeNo;
use vefs::state::view::{self, View};
use vefs::types::{Dentry, Inode, Source};
use vefs::ve::Snapshot;
use vefs::{Error, Result, Ve};

use crate::model::{Reader, Run, RunKind};

fn no(e: Error) -> Errno {
    match e {
        Error::Posix(e) => e,
        // Everything else is a finding: the text must reach whoever runs the test.
        other => panic!("reading failed: {other}"),
    }
}

pub(crate) fn runs(v: &impl View, ino: InodeNo) -> Result<Vec<Run>> {
    let inode = view::need_inode(v, ino)?;
    let extents = view::extents(v, ino, &inode, 0, u64::MAX)?;
    Ok(extents
        .iter()
        .map(|(offset, e)| Run {
            offset: *offset,
            len: e.len,
            kind: match e.source {
                Source::Payload(_) | Source::Object { .. } => RunKind::Data,
                Source::Base { .. } => RunKind::Base,
                Source::Unwritten => RunKind::Reserved,
            },
        })
        .collect())
}

impl Reader for Ve {
    fn inode(&self, ino: InodeNo) -> Result<Option<Inode>, Errno> {
        match Ve::inode(self, ino) {
            Ok(i) => Ok(Some(i)),
            Err(Error::Posix(Errno::ENOENT)) => Ok(None),
            Err(e) => Err(no(e)),
        }
    }

    fn lookup(&self, dir: InodeNo, name: &[u8]) -> Result<Dentry, Errno> {
        Ve::lookup(self, dir, name).map(|(d, _)| d).map_err(no)
    }

    fn entries(&self, dir: InodeNo) -> Result<Vec<(u64, Vec<u8>, Dentry)>, Errno> {
        // In small pieces, so that cookies are used as readdir uses them.
        let mut out = Vec::new();
        let mut after = 0;
        loop {
            let some = Ve::entries(self, dir, after, 7).map_err(no)?;
            let Some((last, _)) = some.last() else { return Ok(out) };
            after = *last;
            for (cookie, e) in some {
                out.push((cookie, e.name.to_vec(), Dentry { ino: e.ino, kind: e.kind, cookie }));
            }
        }
    }

    fn read(&self, ino: InodeNo, offset: u64, len: u64) -> Result<Vec<u8>, Errno> {
        Ve::read(self, ino, offset, len as usize).map_err(no)
    }

    fn mapped_runs(&self, ino: InodeNo) -> Result<Vec<Run>, Errno> {
        self.with_view(|v| runs(v, ino)).map_err(no)
    }

    fn seek_data(&self, ino: InodeNo, offset: u64) -> Result<u64, Errno> {
        Ve::seek_data(self, ino, offset).map_err(no)
    }

    fn seek_hole(&self, ino: InodeNo, offset: u64) -> Result<u64, Errno> {
        Ve::seek_hole(self, ino, offset).map_err(no)
    }

    fn target(&self, ino: InodeNo) -> Result<Vec<u8>, Errno> {
        self.readlink(ino).map_err(no)
    }

    fn xattr(&self, ino: InodeNo, name: &[u8]) -> Result<Vec<u8>, Errno> {
        Ve::xattr(self, ino, name).map_err(no)
    }

    fn xattr_names(&self, ino: InodeNo) -> Result<Vec<Vec<u8>>, Errno> {
        Ve::xattr_names(self, ino).map_err(no)
    }

    fn usage(&self) -> Result<(u64, u64), Errno> {
        Ok(Ve::usage(self))
    }

    fn all_inodes(&self) -> Result<Option<Vec<InodeNo>>, Errno> {
        Ok(None)
    }
}

/// A version as the oracle's reader. Usage figures and seeking belong to the present state.
pub struct Past<'a>(pub &'a Snapshot, pub (u64, u64));

impl Reader for Past<'_> {
    fn inode(&self, ino: InodeNo) -> Result<Option<Inode>, Errno> {
        match self.0.inode(ino) {
            Ok(i) => Ok(Some(i)),
            Err(Error::Posix(Errno::ENOENT)) => Ok(None),
            Err(e) => Err(no(e)),
        }
    }

    fn lookup(&self, dir: InodeNo, name: &[u8]) -> Result<Dentry, Errno> {
        self.0.lookup(dir, name).map(|(d, _)| d).map_err(no)
    }

    fn entries(&self, dir: InodeNo) -> Result<Vec<(u64, Vec<u8>, Dentry)>, Errno> {
        let all = self.0.entries(dir, 0, usize::MAX).map_err(no)?;
        Ok(all
            .into_iter()
            .map(|(cookie, e)| (cookie, e.name.to_vec(), Dentry { ino: e.ino, kind: e.kind, cookie }))
            .collect())
    }

    fn read(&self, ino: InodeNo, offset: u64, len: u64) -> Result<Vec<u8>, Errno> {
        self.0.read(ino, offset, len as usize).map_err(no)
    }

    fn mapped_runs(&self, ino: InodeNo) -> Result<Vec<Run>, Errno> {
        runs(self.0.view(), ino).map_err(no)
    }

    fn seek_data(&self, ino: InodeNo, offset: u64) -> Result<u64, Errno> {
        vefs::plan::seek_data(self.0.view(), ino, offset).map_err(no)
    }

    fn seek_hole(&self, ino: InodeNo, offset: u64) -> Result<u64, Errno> {
        vefs::plan::seek_hole(self.0.view(), ino, offset).map_err(no)
    }

    fn target(&self, ino: InodeNo) -> Result<Vec<u8>, Errno> {
        self.0.readlink(ino).map_err(no)
    }

    fn xattr(&self, ino: InodeNo, name: &[u8]) -> Result<Vec<u8>, Errno> {
        self.0.xattr(ino, name).map_err(no)
    }

    fn xattr_names(&self, ino: InodeNo) -> Result<Vec<Vec<u8>>, Errno> {
        self.0.xattr_names(ino).map_err(no)
    }

    fn usage(&self) -> Result<(u64, u64), Errno> {
        Ok(self.1)
    }

    fn all_inodes(&self) -> Result<Option<Vec<InodeNo>>, Errno> {
        Ok(None)
    }
}
