//! A storage in memory for the tests of objects and base trees. It logs what changes names or flushes, and can be told
//! to fail.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::storage::{File, Storage};

#[derive(Default)]
pub struct TestStore {
    files: Mutex<BTreeMap<String, Arc<TestFile>>>,
    log: Arc<Mutex<Vec<String>>>,
    /// Steps (calls that change something) until every further one fails.
    budget: Arc<Mutex<Option<usize>>>,
}

pub struct TestFile {
    bytes: Mutex<Vec<u8>>,
    path: String,
    log: Arc<Mutex<Vec<String>>>,
    budget: Arc<Mutex<Option<usize>>>,
}

fn step(budget: &Mutex<Option<usize>>) -> io::Result<()> {
    match &mut *budget.lock() {
        None => Ok(()),
        Some(0) => Err(io::Error::other("injected")),
        Some(n) => {
            *n -= 1;
            Ok(())
        }
    }
}

impl TestStore {
    pub fn new() -> Arc<TestStore> {
        Arc::default()
    }

    /// Everything fails after `steps` more changes; `None`: nothing fails any more.
    pub fn fail_after(&self, steps: Option<usize>) {
        *self.budget.lock() = steps;
    }

    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock())
    }

    pub fn paths(&self) -> Vec<String> {
        self.files.lock().keys().cloned().collect()
    }

    pub fn bytes(&self, path: &str) -> Vec<u8> {
        self.files.lock()[path].bytes.lock().clone()
    }

    pub fn put(&self, path: &str, bytes: &[u8]) {
        let file = TestFile {
            bytes: Mutex::new(bytes.to_vec()),
            path: path.to_owned(),
            log: self.log.clone(),
            budget: self.budget.clone(),
        };
        self.files.lock().insert(path.to_owned(), Arc::new(file));
    }

    pub fn flip(&self, path: &str, at: usize, mask: u8) {
        self.files.lock()[path].bytes.lock()[at] ^= mask;
    }
}

impl Storage for TestStore {
    fn open(&self, path: &str) -> io::Result<Arc<dyn File>> {
        match self.files.lock().get(path) {
            Some(file) => Ok(file.clone()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn create(&self, path: &str, zeros: u64) -> io::Result<Arc<dyn File>> {
        step(&self.budget)?;
        self.put(path, &vec![0; zeros as usize]);
        self.open(path)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        step(&self.budget)?;
        self.log.lock().push(format!("rename {to}"));
        let mut files = self.files.lock();
        let file = files.remove(from).ok_or(ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        step(&self.budget)?;
        self.log.lock().push(format!("remove {path}"));
        self.files.lock().remove(path).map(drop).ok_or(ErrorKind::NotFound.into())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let prefix = format!("{dir}/");
        let files = self.files.lock();
        let below = files.keys().filter_map(|p| p.strip_prefix(&prefix)).map(|p| p.split('/').next().unwrap_or(p));
        let mut names: Vec<String> = below.map(str::to_owned).collect();
        names.dedup();
        Ok(names)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        step(&self.budget)?;
        self.log.lock().push(format!("sync_dir {dir}"));
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        step(&self.budget)?;
        self.log.lock().push("sync_all".to_owned());
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

impl File for TestFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.bytes.lock();
        let part = bytes.get(offset as usize..).and_then(|b| b.get(..buf.len())).ok_or(ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(part);
        Ok(())
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        step(&self.budget)?;
        let mut bytes = self.bytes.lock();
        let mut at = offset as usize;
        for part in parts {
            let end = at + part.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[at..end].copy_from_slice(part);
            at = end;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        step(&self.budget)?;
        self.log.lock().push(format!("sync {}", self.path));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().len() as u64)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut bytes = self.bytes.lock();
        let end = bytes.len().min((offset + len) as usize);
        bytes[offset as usize..end].fill(0);
        Ok(())
    }
}
