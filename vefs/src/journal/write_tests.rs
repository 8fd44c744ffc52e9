use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::*;
use crate::entropy::SeededEntropy;
use crate::journal::TailState;
use crate::storage::memory::MemStorage;

/// Writes of a file, as (offset, end).
type Writes = Arc<Mutex<Vec<(u64, u64)>>>;

/// A storage that takes note of every write of one file after its creation.
struct Noting(MemStorage, Writes);
struct NotingFile(Arc<dyn File>, Writes);

impl Storage for Noting {
    fn open(&self, path: &str) -> io::Result<Arc<dyn File>> {
        self.0.open(path)
    }
    fn create(&self, path: &str, zeros: u64) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(NotingFile(self.0.create(path, zeros)?, self.1.clone())))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.link(from, to)
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.0.remove(path)
    }
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.0.free_bytes()
    }
}

impl File for NotingFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buf, offset)
    }
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let len: usize = parts.iter().map(|p| p.len()).sum();
        self.1.lock().push((offset, offset + len as u64));
        self.0.write_at(parts, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.punch(offset, len)
    }
}

/// Frames of 4 KiB payload were three to ten times slower than others on a machine whose zero-filled segments had left the page cache:
/// each append ended in a page that it wrote in part, which the kernel read from the disk first, with the VE's lock held.
#[test]
fn no_page_is_begun_without_being_filled() {
    let writes = Writes::default();
    let storage = Arc::new(Noting(MemStorage::new(), writes.clone()));
    let entropy = Arc::new(SeededEntropy::new(1));
    let tail = TailState { segments: Vec::new(), read_from: 0, next_order: 0, position: 0, seq: 0 };
    let sizes = (64 << 10, 64 << 10);
    let mut journal = Journal::new(VeId(1), [1; 16], storage, entropy, sizes, tail);
    for n in 0..60 {
        let payload = vec![7; [0, 100, 4096, 5000][n % 4]];
        journal.append(FrameKind::Body, TxnNo(1), Epoch(1), b"body", b"", &payload).unwrap();
    }
    let mut filled = 0;
    let mut segments = 0;
    for (from, to) in writes.lock().iter().copied() {
        if from == 0 {
            (filled, segments) = (0, segments + 1);
        }
        assert!(from <= filled, "a hole before {from}");
        assert!(to <= filled || to.is_multiple_of(PAGE), "{from}..{to} ends within a new page; filled up to {filled}");
        assert!(to <= DATA_START + (64 << 10), "{to} is behind the segment's end");
        filled = filled.max(to);
    }
    assert!(segments > 1, "the test shall cross a segment");
}
