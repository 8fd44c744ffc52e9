//! A storage that notes when its flushes began and ended: what a slow fsync waited for.

use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use vefs::storage::{File, Storage};

/// What was flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// One file.
    File,
    /// Names in a folder.
    Names,
    /// Everything: a tick with many VEs.
    All,
}

/// A flush.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Of what.
    pub what: What,
    /// By the thread that measures.
    pub own: bool,
    /// When it began.
    pub begin: Instant,
    /// When it ended.
    pub end: Instant,
}

/// All flushes.
#[derive(Default)]
pub struct Trace(Mutex<Vec<Span>>);

thread_local! {
    /// Set in the thread that measures.
    pub static MEASURES: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

impl Trace {
    fn note<T>(&self, what: What, flush: impl FnOnce() -> T) -> T {
        let begin = Instant::now();
        let out = flush();
        let span = Span { what, own: MEASURES.get(), begin, end: Instant::now() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(span);
        out
    }

    /// The flushes so far, which are forgotten.
    pub fn take(&self) -> Vec<Span> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The storage.
pub struct Traced {
    below: Arc<dyn Storage>,
    trace: Arc<Trace>,
}

impl Traced {
    /// Notes in `trace`.
    pub fn new(below: Arc<dyn Storage>, trace: Arc<Trace>) -> Traced {
        Traced { below, trace }
    }

    fn file(&self, below: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(TracedFile { below, trace: self.trace.clone() })
    }
}

impl Storage for Traced {
    fn open(&self, path: &str) -> io::Result<Arc<dyn File>> {
        self.below.open(path).map(|f| self.file(f))
    }

    fn create(&self, path: &str, zeros: u64) -> io::Result<Arc<dyn File>> {
        self.below.create(path, zeros).map(|f| self.file(f))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.below.rename(from, to)
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.below.link(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.below.remove(path)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.below.list(dir)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.trace.note(What::Names, || self.below.sync_dir(dir))
    }

    fn sync_all(&self) -> io::Result<()> {
        self.trace.note(What::All, || self.below.sync_all())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.below.free_bytes()
    }
}

struct TracedFile {
    below: Arc<dyn File>,
    trace: Arc<Trace>,
}

impl File for TracedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.below.read_at(buf, offset)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.below.write_at(parts, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.trace.note(What::File, || self.below.sync())
    }

    fn len(&self) -> io::Result<u64> {
        self.below.len()
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.below.punch(offset, len)
    }
}
