//! Files in memory: for tests, for the simulator, and for building the states a power cut may leave.
//!
//! A name points to a file, a file is bytes: an open file goes on when its name is replaced or removed, as on disk. All
//! of a store lies under one mutex, so that a [`MemStorage::snapshot`] is one moment. Nothing is lost by not flushing;
//! what a power cut does is the business of the harness that records the calls.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, IoSlice};
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::Mutex;

pub use super::content::Content;
use super::path::{ancestors, check_dir, check_file};
use super::{File, Storage};

/// What [`Storage::free_bytes`] says of a store without a limit.
const UNLIMITED: u64 = 1 << 62;

/// A folder of files in memory. Independent copies are made with [`MemStorage::snapshot`] and share bytes until written.
#[derive(Debug, Default)]
pub struct MemStorage {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<Arc<str>, u64>,
    dirs: BTreeSet<Arc<str>>,
    inodes: BTreeMap<u64, Inode>,
    next: u64,
    capacity: Option<u64>,
}

/// Kept while it has a name or is open.
#[derive(Debug)]
struct Inode {
    content: Arc<Content>,
    handles: usize,
    named: bool,
}

impl MemStorage {
    /// An empty store without a limit.
    pub fn new() -> MemStorage {
        MemStorage::default()
    }

    /// An empty store that takes at most `bytes` (the files' lengths without holes; names are free).
    pub fn with_capacity(bytes: u64) -> MemStorage {
        let store = MemStorage::new();
        store.set_capacity(Some(bytes));
        store
    }

    /// A store of these files and folders. Folders the files need are made. Paths must be those of a [`Storage`].
    pub fn from_files(
        files: impl IntoIterator<Item = (Arc<str>, Arc<Content>)>,
        folders: impl IntoIterator<Item = Arc<str>>,
    ) -> MemStorage {
        let mut state = State { dirs: folders.into_iter().collect(), ..State::default() };
        for (path, content) in files {
            state.make_dirs(&path);
            let ino = state.next;
            state.next += 1;
            state.inodes.insert(ino, Inode { content, handles: 0, named: true });
            state.names.insert(path, ino);
        }
        MemStorage { state: Arc::new(Mutex::new(state)) }
    }

    /// An independent copy of this moment: names, bytes and limit, without the files that are only open.
    pub fn snapshot(&self) -> MemStorage {
        let copy = MemStorage::from_files(self.files(), self.folders());
        copy.set_capacity(self.state.lock().capacity);
        copy
    }

    /// The named files and their bytes.
    pub fn files(&self) -> BTreeMap<Arc<str>, Arc<Content>> {
        let state = self.state.lock();
        let content = |ino| state.inodes.get(ino).map(|inode| Arc::clone(&inode.content));
        state.names.iter().filter_map(|(path, ino)| Some((Arc::clone(path), content(ino)?))).collect()
    }

    /// The folders, the store itself left out.
    pub fn folders(&self) -> Vec<Arc<str>> {
        self.state.lock().dirs.iter().cloned().collect()
    }

    /// Changes the limit, in bytes; what is there already stays.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity = bytes;
    }

    /// Bytes taken, open files without a name included.
    pub fn used(&self) -> u64 {
        self.state.lock().used()
    }

    fn handle(&self, state: &mut State, ino: u64) -> io::Result<Arc<dyn File>> {
        state.inodes.get_mut(&ino).ok_or(ErrorKind::NotFound)?.handles += 1;
        Ok(Arc::new(MemFile { state: Arc::clone(&self.state), ino }))
    }
}

impl State {
    fn used(&self) -> u64 {
        self.inodes.values().map(|inode| inode.content.allocated()).sum()
    }

    /// Changes a file's bytes, or nothing at all when the limit would be passed.
    fn change(&mut self, ino: u64, change: impl FnOnce(&mut Content)) -> io::Result<()> {
        let used = self.capacity.map(|_| self.used());
        let inode = self.inodes.get_mut(&ino).ok_or(ErrorKind::NotFound)?;
        let (Some(used), Some(capacity)) = (used, self.capacity) else {
            change(Arc::make_mut(&mut inode.content));
            return Ok(());
        };
        let mut content = Content::clone(&inode.content);
        change(&mut content);
        let (before, after) = (inode.content.allocated(), content.allocated());
        if after > before && used - before + after > capacity {
            return Err(ErrorKind::StorageFull.into());
        }
        inode.content = Arc::new(content);
        Ok(())
    }

    /// A file may take this path: no folder has it, and no file is in the way of its folders.
    fn check_place(&self, path: &str) -> io::Result<()> {
        if self.dirs.contains(path) {
            return Err(ErrorKind::IsADirectory.into());
        }
        self.check_no_file(ancestors(path))
    }

    fn check_no_file<'a>(&self, mut dirs: impl Iterator<Item = &'a str>) -> io::Result<()> {
        match dirs.any(|dir| self.names.contains_key(dir)) {
            true => Err(ErrorKind::NotADirectory.into()),
            false => Ok(()),
        }
    }

    fn make_dirs(&mut self, path: &str) {
        for dir in ancestors(path) {
            if !self.dirs.contains(dir) {
                self.dirs.insert(dir.into());
            }
        }
    }

    fn find(&self, path: &str) -> io::Result<u64> {
        self.check_place(path)?;
        Ok(*self.names.get(path).ok_or(ErrorKind::NotFound)?)
    }

    fn unname(&mut self, ino: u64) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.named = false;
        }
        self.reap(ino);
    }

    fn reap(&mut self, ino: u64) {
        if self.inodes.get(&ino).is_some_and(|inode| !inode.named && inode.handles == 0) {
            self.inodes.remove(&ino);
        }
    }
}

impl Storage for MemStorage {
    fn open(&self, path: &str) -> io::Result<Arc<dyn File>> {
        check_file(path)?;
        let mut state = self.state.lock();
        let ino = state.find(path)?;
        self.handle(&mut state, ino)
    }

    /// `StorageFull` may leave a new, empty file, as on disk.
    fn create(&self, path: &str, zeros: u64) -> io::Result<Arc<dyn File>> {
        check_file(path)?;
        let mut state = self.state.lock();
        state.check_place(path)?;
        let ino = match state.names.get(path) {
            Some(ino) => *ino,
            None => {
                state.make_dirs(path);
                let ino = state.next;
                state.next += 1;
                state.inodes.insert(ino, Inode { content: Arc::default(), handles: 0, named: true });
                state.names.insert(path.into(), ino);
                ino
            }
        };
        state.change(ino, |content| *content = Content::default())?;
        state.change(ino, |content| content.zero(0, zeros))?;
        self.handle(&mut state, ino)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_file(from)?;
        check_file(to)?;
        let mut state = self.state.lock();
        let ino = state.find(from)?;
        state.check_place(to)?;
        if from == to {
            return Ok(());
        }
        state.make_dirs(to);
        state.names.remove(from);
        if let Some(replaced) = state.names.insert(to.into(), ino) {
            state.unname(replaced);
        }
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        check_file(path)?;
        let mut state = self.state.lock();
        let ino = state.find(path)?;
        state.names.remove(path);
        state.unname(ino);
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        check_dir(dir)?;
        let state = self.state.lock();
        state.check_no_file(ancestors(dir).chain([dir]))?;
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let files = state.names.range::<str, _>(from).map(|(path, _)| path);
        let folders = state.dirs.range::<str, _>(from);
        let below = |path: &Arc<str>| path.strip_prefix(prefix.as_str()).map(str::to_owned);
        let direct = files.map_while(below).chain(folders.map_while(below)).filter(|name| !name.contains('/'));
        Ok(direct.collect())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        check_dir(dir)?;
        let state = self.state.lock();
        state.check_no_file(ancestors(dir).chain([dir]))?;
        if dir.is_empty() || state.dirs.contains(dir) { Ok(()) } else { Err(ErrorKind::NotFound.into()) }
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.state.lock();
        Ok(state.capacity.map_or(UNLIMITED, |capacity| capacity.saturating_sub(state.used())))
    }
}

#[derive(Debug)]
struct MemFile {
    state: Arc<Mutex<State>>,
    ino: u64,
}

impl MemFile {
    fn content(&self) -> io::Result<Arc<Content>> {
        let state = self.state.lock();
        Ok(Arc::clone(&state.inodes.get(&self.ino).ok_or(ErrorKind::NotFound)?.content))
    }
}

impl Drop for MemFile {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        if let Some(inode) = state.inodes.get_mut(&self.ino) {
            inode.handles -= 1;
        }
        state.reap(self.ino);
    }
}

impl File for MemFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if self.content()?.read_at(buf, offset) { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let total = parts.iter().map(|part| part.len() as u64).sum();
        offset.checked_add(total).filter(|end| i64::try_from(*end).is_ok()).ok_or(ErrorKind::FileTooLarge)?;
        self.state.lock().change(self.ino, |content| {
            let mut at = offset;
            for part in parts {
                content.write_at(part, at);
                at += part.len() as u64;
            }
        })
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.content()?.len())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.state.lock().change(self.ino, |content| content.punch(offset, len))
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
