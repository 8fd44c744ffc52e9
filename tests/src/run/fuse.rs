//! A storage that dies in the middle of something: after a number of changing calls every call fails, and nothing that
//! failed has reached the storage below. What the metadata store does burns the same fuse.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use vefs::storage::{File, Storage};

/// errno(3) of a call after the end.
const EIO: i32 = 5;

/// How many changing calls are left.
#[derive(Debug)]
pub struct Fuse(AtomicI64);

impl Default for Fuse {
    fn default() -> Fuse {
        Fuse(AtomicI64::new(i64::MAX))
    }
}

impl Fuse {
    /// After `calls` more changing calls nothing works any more.
    pub fn arm(&self, calls: u32) {
        self.0.store(i64::from(calls), Ordering::Relaxed);
    }

    /// Everything works again.
    pub fn disarm(&self) {
        self.0.store(i64::MAX, Ordering::Relaxed);
    }

    /// Whether a call has failed.
    pub fn is_blown(&self) -> bool {
        self.0.load(Ordering::Relaxed) < 0
    }

    /// One call less.
    pub fn burn(&self) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) == i64::MAX || self.0.fetch_sub(1, Ordering::Relaxed) > 0 {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(EIO))
        }
    }

    fn read(&self) -> io::Result<()> {
        if self.is_blown() { Err(io::Error::from_raw_os_error(EIO)) } else { Ok(()) }
    }
}

/// A storage on a fuse.
pub struct Fused {
    below: Arc<dyn Storage>,
    fuse: Arc<Fuse>,
}

impl Fused {
    /// Puts a storage on a fuse.
    pub fn new(below: Arc<dyn Storage>, fuse: Arc<Fuse>) -> Fused {
        Fused { below, fuse }
    }

    fn wrap(&self, below: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(FusedFile { below, fuse: self.fuse.clone() })
    }
}

impl Storage for Fused {
    fn open(&self, path: &str) -> io::Result<Arc<dyn File>> {
        self.fuse.read()?;
        self.below.open(path).map(|f| self.wrap(f))
    }

    fn create(&self, path: &str, zeros: u64) -> io::Result<Arc<dyn File>> {
        self.fuse.burn()?;
        self.below.create(path, zeros).map(|f| self.wrap(f))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.fuse.burn()?;
        self.below.rename(from, to)
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.fuse.burn()?;
        self.below.link(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.fuse.burn()?;
        self.below.remove(path)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.fuse.read()?;
        self.below.list(dir)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.fuse.burn()?;
        self.below.sync_dir(dir)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.fuse.burn()?;
        self.below.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.fuse.read()?;
        self.below.free_bytes()
    }
}

struct FusedFile {
    below: Arc<dyn File>,
    fuse: Arc<Fuse>,
}

impl File for FusedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.fuse.read()?;
        self.below.read_at(buf, offset)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.fuse.burn()?;
        self.below.write_at(parts, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.fuse.burn()?;
        self.below.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.fuse.read()?;
        self.below.len()
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.fuse.burn()?;
        self.below.punch(offset, len)
    }
}
