//! A storage that writes down what is done to it, in order.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IoSlice};
use std::sync::Arc;

use parking_lot::Mutex;
use vefs::storage::memory::MemStorage;
use vefs::storage::{File, Storage};

use super::CrashStates;

/// A file, whatever its name is at the moment. The files of the base are numbered from 0 in the order of their paths,
/// new ones follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub(super) usize);

/// A call that was carried out, or a mark of the test. The path of an open file's event is the one it was opened by.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the arguments of the calls")]
pub enum Event {
    /// A file was made, or emptied when it was there (not `fresh`), and filled with zeros.
    Create {
        path: Arc<str>,
        file: FileId,
        zeros: u64,
        fresh: bool,
    },
    Write {
        path: Arc<str>,
        file: FileId,
        offset: u64,
        data: Arc<[u8]>,
    },
    Punch {
        path: Arc<str>,
        file: FileId,
        offset: u64,
        len: u64,
    },
    Rename {
        from: Arc<str>,
        to: Arc<str>,
        file: FileId,
    },
    Remove {
        path: Arc<str>,
        file: FileId,
    },
    Sync {
        path: Arc<str>,
        file: FileId,
    },
    SyncDir {
        dir: Arc<str>,
    },
    SyncAll,
    /// [`Recorder::fail_flush`]: a flush of the file, or of everything, answered an error.
    FlushFailed {
        file: Option<FileId>,
    },
    /// Inserted by the test: from here on a check may demand more (an operation was acknowledged, a flush answered).
    Mark(u64),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Create { path, zeros, .. } => write!(f, "create {path} of {zeros} zeros"),
            Event::Write { path, offset, data, .. } => write!(f, "write {path} {offset}+{}", data.len()),
            Event::Punch { path, offset, len, .. } => write!(f, "punch {path} {offset}+{len}"),
            Event::Rename { from, to, .. } => write!(f, "rename {from} to {to}"),
            Event::Remove { path, .. } => write!(f, "remove {path}"),
            Event::Sync { path, .. } => write!(f, "sync {path}"),
            Event::SyncDir { dir } => write!(f, "sync_dir {dir:?}"),
            Event::SyncAll => write!(f, "sync_all"),
            Event::FlushFailed { file: Some(file) } => write!(f, "failed sync of file {}", file.0),
            Event::FlushFailed { file: None } => write!(f, "failed sync_all"),
            Event::Mark(mark) => write!(f, "mark {mark}"),
        }
    }
}

/// errno(3) of a failed flush.
const EIO: i32 = 5;

/// A [`MemStorage`] that records every changing call that succeeded. One lock orders calls of all threads, so that a
/// flush covers exactly what stands before it in the log.
#[derive(Debug)]
pub struct Recorder {
    base: MemStorage,
    below: MemStorage,
    tape: Arc<Mutex<Tape>>,
}

#[derive(Debug)]
struct Tape {
    log: Vec<Event>,
    names: BTreeMap<Arc<str>, FileId>,
    next: usize,
    /// Flushes that still succeed before one fails.
    good_flushes: Option<u64>,
}

impl Tape {
    /// Whether this flush is the one that fails.
    fn fails(&mut self, file: Option<FileId>) -> io::Result<()> {
        self.good_flushes = match self.good_flushes {
            Some(0) => {
                self.good_flushes = None;
                self.log.push(Event::FlushFailed { file });
                return Err(io::Error::from_raw_os_error(EIO));
            }
            left => left.map(|left| left - 1),
        };
        Ok(())
    }
}

impl Recorder {
    /// Records from the state of `base` on, all of which counts as durable. `base` itself is not changed.
    pub fn new(base: &MemStorage) -> Recorder {
        let names: BTreeMap<_, _> = base.files().into_keys().enumerate().map(|(id, path)| (path, FileId(id))).collect();
        let tape = Tape { log: Vec::new(), next: names.len(), names, good_flushes: None };
        Recorder { base: base.snapshot(), below: base.snapshot(), tape: Arc::new(Mutex::new(tape)) }
    }

    /// Inserts a mark.
    pub fn mark(&self, mark: u64) {
        self.tape.lock().log.push(Event::Mark(mark));
    }

    /// The `nth` `sync` or `sync_all` from now on (1 is the next) fails with EIO. What it should have covered of files'
    /// bytes is never covered by a later flush, as on Linux, where the pages count as clean afterwards.
    pub fn fail_flush(&self, nth: u64) {
        self.tape.lock().good_flushes = Some(nth.saturating_sub(1));
    }

    /// Events recorded so far.
    pub fn len(&self) -> usize {
        self.tape.lock().log.len()
    }

    /// Whether nothing was recorded yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was recorded so far.
    pub fn log(&self) -> Vec<Event> {
        self.tape.lock().log.clone()
    }

    /// The state recording started from.
    pub fn base(&self) -> &MemStorage {
        &self.base
    }

    /// The state as the recorded process sees it now.
    pub fn now(&self) -> MemStorage {
        self.below.snapshot()
    }

    /// The states a power cut may leave at any point of `log`, which came from [`Recorder::log`].
    pub fn states<'a>(&self, log: &'a [Event]) -> CrashStates<'a> {
        CrashStates::new(log, &self.base)
    }

    fn wrap(&self, below: Arc<dyn File>, path: Arc<str>, file: FileId) -> Arc<dyn File> {
        Arc::new(RecordedFile { below, tape: Arc::clone(&self.tape), path, file })
    }
}

impl Storage for Recorder {
    fn open(&self, path: &str) -> io::Result<Arc<dyn File>> {
        let tape = self.tape.lock();
        let below = self.below.open(path)?;
        let (path, file) = tape.names.get_key_value(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.wrap(below, Arc::clone(path), *file))
    }

    fn create(&self, path: &str, zeros: u64) -> io::Result<Arc<dyn File>> {
        let mut tape = self.tape.lock();
        let made = self.below.create(path, zeros);
        // A full disk leaves an empty file behind.
        let zeros = match &made {
            Ok(_) => zeros,
            Err(_) if self.below.open(path).is_ok() => 0,
            Err(_) => return made,
        };
        let path: Arc<str> = path.into();
        let known = tape.names.get(&path).copied();
        let file = known.unwrap_or(FileId(tape.next));
        if known.is_none() {
            tape.next += 1;
            tape.names.insert(Arc::clone(&path), file);
        }
        tape.log.push(Event::Create { path: Arc::clone(&path), file, zeros, fresh: known.is_none() });
        Ok(self.wrap(made?, path, file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut tape = self.tape.lock();
        self.below.rename(from, to)?;
        if from != to
            && let Some((from, file)) = tape.names.remove_entry(from)
        {
            let to: Arc<str> = to.into();
            tape.names.insert(Arc::clone(&to), file);
            tape.log.push(Event::Rename { from, to, file });
        }
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut tape = self.tape.lock();
        self.below.remove(path)?;
        if let Some((path, file)) = tape.names.remove_entry(path) {
            tape.log.push(Event::Remove { path, file });
        }
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.below.list(dir)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut tape = self.tape.lock();
        self.below.sync_dir(dir)?;
        tape.log.push(Event::SyncDir { dir: dir.into() });
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        let mut tape = self.tape.lock();
        tape.fails(None)?;
        self.below.sync_all()?;
        tape.log.push(Event::SyncAll);
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.below.free_bytes()
    }
}

struct RecordedFile {
    below: Arc<dyn File>,
    tape: Arc<Mutex<Tape>>,
    path: Arc<str>,
    file: FileId,
}

impl File for RecordedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.below.read_at(buf, offset)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut tape = self.tape.lock();
        self.below.write_at(parts, offset)?;
        let data: Arc<[u8]> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        if !data.is_empty() {
            tape.log.push(Event::Write { path: Arc::clone(&self.path), file: self.file, offset, data });
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut tape = self.tape.lock();
        tape.fails(Some(self.file))?;
        self.below.sync()?;
        tape.log.push(Event::Sync { path: Arc::clone(&self.path), file: self.file });
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.below.len()
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut tape = self.tape.lock();
        self.below.punch(offset, len)?;
        tape.log.push(Event::Punch { path: Arc::clone(&self.path), file: self.file, offset, len });
        Ok(())
    }
}
