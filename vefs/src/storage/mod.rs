//! The seam between the journal and content code and the disk: files in folders, written at offsets, flushed.
//!
//! Everything that must survive a power cut goes through these two traits, so that a memory implementation can record
//! each call and build every state a power cut may leave. Metadata (RocksDB) has its own seam.
//!
//! Paths are relative to the store, `/`-separated, without `..`; folders exist as soon as a file is created in them.
//! What survives: bytes written and then flushed by [`File::sync`] or [`Storage::sync_all`]; names made or removed and
//! then flushed by [`Storage::sync_dir`] or [`Storage::sync_all`]. Nothing else may be relied on.

use std::io::{self, IoSlice};
use std::sync::Arc;

mod content;
#[cfg(test)]
pub(crate) mod cut;
pub mod disk;
pub mod fault;
pub mod memory;
mod path;

/// A folder of files on one file system.
pub trait Storage: Send + Sync + 'static {
    /// Opens an existing file for reading and writing. `NotFound` when there is none.
    fn open(&self, path: &str) -> io::Result<Arc<dyn File>>;

    /// Creates a file, or empties an existing one, and fills it with `zeros` written zero bytes (not a hole: later
    /// overwrites need no allocation). The name is not durable before [`Storage::sync_dir`].
    fn create(&self, path: &str, zeros: u64) -> io::Result<Arc<dyn File>>;

    /// Renames a file within the store, replacing the target atomically and making the folders it goes into. The change
    /// is durable after [`Storage::sync_dir`] of either folder.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Gives the bytes of a file, which nobody writes any more, a second name that is not taken. Where the storage has no links the
    /// bytes are copied, and have to be flushed under the new name.
    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        const STEP: u64 = 1 << 20;
        let source = self.open(from)?;
        let target = self.create(to, 0)?;
        let (len, mut at) = (source.len()?, 0);
        while at < len {
            let mut part = vec![0; STEP.min(len - at) as usize];
            source.read_at(&mut part, at)?;
            target.write_at(&[IoSlice::new(&part)], at)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Removes a file. `NotFound` when there is none.
    fn remove(&self, path: &str) -> io::Result<()>;

    /// The names in a folder (files and folders), in no order; empty when the folder does not exist.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;

    /// Makes the names in a folder, and the folder itself, durable (fsync(2) of a directory).
    fn sync_dir(&self, dir: &str) -> io::Result<()>;

    /// Makes everything durable with one flush (syncfs(2)).
    fn sync_all(&self) -> io::Result<()>;

    /// Reads of a file that nobody has open ask the disk from now on, and not what memory has of it: after a failed flush that may be what the disk never
    /// got, with the kernel taking it for written (fsync(2)). Where there is no such memory nothing happens.
    fn forget_cached(&self, _path: &str) -> io::Result<()> {
        Ok(())
    }

    /// Bytes that can still be written to the file system.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// An open file of a [`Storage`]. Reads and writes may come from many threads.
pub trait File: Send + Sync + 'static {
    /// Fills `buf` from `offset`; `UnexpectedEof` when the file is shorter.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all parts one after the other from `offset` on, extending the file if need be. A short write is an error.
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()>;

    /// Makes the bytes and the length durable (fdatasync(2)).
    fn sync(&self) -> io::Result<()>;

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether it has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Gives the range's space back; it then reads as zeros (fallocate(2), `FALLOC_FL_PUNCH_HOLE`).
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;
}

#[cfg(test)]
mod contract_tests;
