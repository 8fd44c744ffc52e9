//! A disk in memory of which a power cut leaves what was flushed and nothing else, for unit tests: bytes of files that were, under names that were.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::sync::Arc;

use parking_lot::Mutex;

use super::memory::{Content, MemStorage};
use super::{File, Storage};

/// A disk that can be cut off.
#[derive(Default)]
pub(crate) struct CutStorage {
    now: MemStorage,
    flushed: Arc<Mutex<Flushed>>,
}

/// Files go by number: a name may come to another one.
#[derive(Default)]
struct Flushed {
    next: u64,
    live: BTreeMap<Arc<str>, u64>,
    names: BTreeMap<Arc<str>, u64>,
    bytes: BTreeMap<u64, Arc<Content>>,
    /// Files whose flush failed: what they have beyond that is taken for written, and is not.
    failed: BTreeSet<u64>,
}

struct CutFile {
    below: Arc<dyn File>,
    number: u64,
    flushed: Arc<Mutex<Flushed>>,
}

fn whole(file: &dyn File) -> io::Result<Arc<Content>> {
    let mut bytes = vec![0; file.len()? as usize];
    file.read_at(&mut bytes, 0)?;
    let mut content = Content::default();
    content.write_at(&bytes, 0);
    Ok(Arc::new(content))
}

impl CutStorage {
    /// What a power cut now leaves.
    pub fn after_cut(&self) -> MemStorage {
        let f = self.flushed.lock();
        let files = f.names.iter().map(|(path, n)| (path.clone(), f.bytes.get(n).cloned().unwrap_or_default()));
        MemStorage::from_files(files, self.now.folders())
    }

    /// A flush fails, and the kernel takes all that was not flushed for written.
    pub fn fail_flush(&self) {
        let mut f = self.flushed.lock();
        f.failed = f.live.values().copied().collect();
    }

    /// What is there as long as nobody cuts the power.
    pub fn uncut(&self) -> MemStorage {
        self.now.snapshot()
    }

    fn file(&self, below: Arc<dyn File>, path: &str, new: bool) -> Arc<dyn File> {
        let mut f = self.flushed.lock();
        let number = match f.live.get(path) {
            Some(number) => *number,
            None => {
                assert!(new, "{path} came from nowhere");
                f.next += 1;
                let number = f.next;
                f.live.insert(path.into(), number);
                number
            }
        };
        Arc::new(CutFile { below, number, flushed: self.flushed.clone() })
    }
}

impl Storage for CutStorage {
    fn open(&self, path: &str) -> io::Result<Arc<dyn File>> {
        Ok(self.file(self.now.open(path)?, path, false))
    }
    fn create(&self, path: &str, zeros: u64) -> io::Result<Arc<dyn File>> {
        Ok(self.file(self.now.create(path, zeros)?, path, true))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.now.rename(from, to)?;
        let mut f = self.flushed.lock();
        if let Some(number) = f.live.remove(from) {
            f.live.insert(to.into(), number);
        }
        Ok(())
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.now.remove(path)?;
        self.flushed.lock().live.remove(path);
        Ok(())
    }
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.now.list(dir)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.now.sync_dir(dir)?;
        let mut f = self.flushed.lock();
        let within = |path: &Arc<str>| path.rsplit_once('/').map_or("", |(d, _)| d) == dir;
        f.names.retain(|path, _| !within(path));
        let Flushed { live, names, .. } = &mut *f;
        names.extend(live.iter().filter(|(path, _)| within(path)).map(|(path, n)| (path.clone(), *n)));
        Ok(())
    }
    fn sync_all(&self) -> io::Result<()> {
        let all = self.now.files();
        let mut f = self.flushed.lock();
        f.names = f.live.clone();
        let found = f.live.iter().filter(|(_, n)| !f.failed.contains(n));
        let found: Vec<_> = found.filter_map(|(path, n)| Some((*n, all.get(path)?.clone()))).collect();
        f.bytes.extend(found);
        Ok(())
    }
    fn forget_cached(&self, path: &str) -> io::Result<()> {
        let f = self.flushed.lock();
        let Some(number) = f.live.get(path).filter(|n| f.failed.contains(n)) else { return Ok(()) };
        let disk = f.bytes.get(number).cloned().unwrap_or_default();
        let mut bytes = vec![0; disk.len() as usize];
        let _ = disk.read_at(&mut bytes, 0);
        self.now.create(path, 0)?.write_at(&[IoSlice::new(&bytes)], 0)
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.now.free_bytes()
    }
}

impl File for CutFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.below.read_at(buf, offset)
    }
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.below.write_at(parts, offset)
    }
    fn sync(&self) -> io::Result<()> {
        let bytes = whole(&*self.below)?;
        self.flushed.lock().bytes.insert(self.number, bytes);
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        self.below.len()
    }
    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.below.punch(offset, len)
    }
}
