//! A VE as the oracle's reader, that takes damage for an answer: what cannot be read is counted and answered as the model has
//! it, so that everything else is still compared.

use std::cell::{Cell, RefCell};

use vefs::errno::Errno;
use vefs::ids::InodeNo;
use vefs::object::ObjectError;
use vefs::types::{Dentry, Inode};
use vefs::{Error, Ve};

use crate::model::{Entry, Model, Reader, Run, compare, compare_inode};
use crate::reader::runs;

/// The reader.
pub struct Probe<'a> {
    ve: &'a Ve,
    model: &'a Model,
    seeks: bool,
    /// Answers that said that there is damage.
    pub damaged: Cell<usize>,
    /// The first answer that was neither a result, nor the file system's, nor damage.
    pub failed: RefCell<Option<String>>,
}

impl<'a> Probe<'a> {
    /// Reads `ve`, which is said to be like `model`.
    pub fn new(ve: &'a Ve, model: &'a Model) -> Probe<'a> {
        Probe { ve, model, seeks: true, damaged: Cell::new(0), failed: RefCell::new(None) }
    }

    /// Without asking lseek(2), where `seeks` says so.
    pub fn seeking(self, seeks: bool) -> Probe<'a> {
        Probe { seeks, ..self }
    }

    /// The first difference that is not damage, and how much damage was met.
    pub fn run(&self) -> (Result<(), String>, usize) {
        self.told(compare(self.model, self))
    }

    /// The same of these inodes and the usage only.
    pub fn run_on(&self, inodes: &[InodeNo]) -> (Result<(), String>, usize) {
        let usage = (self.model.usage(), self.usage());
        let found = match usage.0 == usage.1 {
            true => inodes.iter().try_for_each(|ino| compare_inode(self.model, self, *ino)),
            false => Err(format!("usage: {usage:?}")),
        };
        self.told(found)
    }

    fn told(&self, found: Result<(), String>) -> (Result<(), String>, usize) {
        let result = match self.failed.take() {
            Some(failed) => Err(format!("reading failed: {failed}")),
            None => found,
        };
        (result, self.damaged.get())
    }

    fn take<T>(&self, real: vefs::Result<T>, model: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        match real {
            Ok(value) => Ok(value),
            Err(Error::Posix(e)) => Err(e),
            Err(Error::Object(ObjectError::PastEnd { .. })) => self.fail("a read past the end of an object".to_owned()),
            Err(Error::Damage { .. } | Error::Object(_)) => {
                self.damaged.set(self.damaged.get() + 1);
                model()
            }
            Err(other) => self.fail(format!("{other:?}")),
        }
    }

    fn fail<T>(&self, what: String) -> Result<T, Errno> {
        self.failed.borrow_mut().get_or_insert(what);
        Err(Errno::EIO)
    }
}

impl Reader for Probe<'_> {
    fn inode(&self, ino: InodeNo) -> Result<Option<Inode>, Errno> {
        let real = match self.ve.inode(ino) {
            Err(Error::Posix(Errno::ENOENT)) => Ok(None),
            other => other.map(Some),
        };
        self.take(real, || self.model.inode(ino))
    }

    fn lookup(&self, dir: InodeNo, name: &[u8]) -> Result<Dentry, Errno> {
        self.take(self.ve.lookup(dir, name).map(|(d, _)| d), || self.model.lookup(dir, name))
    }

    fn entries(&self, dir: InodeNo) -> Result<Vec<Entry>, Errno> {
        let real = self.ve.entries(dir, 0, usize::MAX).map(|all| {
            let entry = |(cookie, e): (u64, vefs::state::key::Entry)| {
                (cookie, e.name.to_vec(), Dentry { ino: e.ino, kind: e.kind, cookie })
            };
            all.into_iter().map(entry).collect()
        });
        self.take(real, || self.model.entries(dir))
    }

    fn read(&self, ino: InodeNo, offset: u64, len: u64) -> Result<Vec<u8>, Errno> {
        self.take(self.ve.read(ino, offset, len as usize), || self.model.read(ino, offset, len))
    }

    fn mapped_runs(&self, ino: InodeNo) -> Result<Vec<Run>, Errno> {
        self.take(self.ve.with_view(|v| runs(v, ino)), || self.model.mapped_runs(ino))
    }

    fn seek_data(&self, ino: InodeNo, offset: u64) -> Result<u64, Errno> {
        self.take(self.ve.seek_data(ino, offset), || self.model.seek_data(ino, offset))
    }

    fn seek_hole(&self, ino: InodeNo, offset: u64) -> Result<u64, Errno> {
        self.take(self.ve.seek_hole(ino, offset), || self.model.seek_hole(ino, offset))
    }

    fn target(&self, ino: InodeNo) -> Result<Vec<u8>, Errno> {
        self.take(self.ve.readlink(ino), || self.model.target(ino))
    }

    fn xattr(&self, ino: InodeNo, name: &[u8]) -> Result<Vec<u8>, Errno> {
        self.take(self.ve.xattr(ino, name), || self.model.xattr(ino, name))
    }

    fn xattr_names(&self, ino: InodeNo) -> Result<Vec<Vec<u8>>, Errno> {
        self.take(self.ve.xattr_names(ino), || self.model.xattr_names(ino))
    }

    fn usage(&self) -> Result<(u64, u64), Errno> {
        Ok(self.ve.usage())
    }

    fn is_asked_to_seek(&self) -> bool {
        self.seeks
    }

    fn all_inodes(&self) -> Result<Option<Vec<InodeNo>>, Errno> {
        Ok(None)
    }
}
