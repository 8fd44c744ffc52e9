//! Writing an object whose bytes come in order.

use std::io::IoSlice;
use std::sync::Arc;

use super::format::{ChunkHasher, OBJECT_LEN_MAX};
use super::place::{self, Staged, Staging};
use super::store::{ObjectStore, Pin, Shared};
use super::{ObjectError, io_at};
use crate::ids::Hash;

/// Small writes are gathered up to this many bytes.
const BUFFER: usize = 256 << 10;
/// So many bytes are flushed while a body is still being written: a whole large one at its end would hold up everybody else's flushes.
const FLUSH_EVERY: u64 = 32 << 20;

/// An object in the making: a staging file and the hash so far. Dropping it removes the staging file.
pub struct ObjectWriter {
    shared: Arc<Shared>,
    staging: Staging,
    hasher: ChunkHasher,
    buffer: Vec<u8>,
    written: u64,
    flushed: u64,
    failed: bool,
}

impl ObjectWriter {
    pub(super) fn new(shared: Arc<Shared>) -> Result<ObjectWriter, ObjectError> {
        let staging = Staging::create(&shared, "")?;
        let hasher = ChunkHasher::new();
        Ok(ObjectWriter { shared, staging, hasher, buffer: Vec::new(), written: 0, flushed: 0, failed: false })
    }

    /// Bytes taken so far.
    pub fn len(&self) -> u64 {
        self.hasher.len()
    }

    /// Whether no byte was taken so far.
    pub fn is_empty(&self) -> bool {
        self.hasher.len() == 0
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// `TooLarge` past [`OBJECT_LEN_MAX`], `Io`. After an error the writer can only be dropped.
    pub fn write(&mut self, data: &[u8]) -> Result<(), ObjectError> {
        if self.failed {
            return Err(ObjectError::WriterFailed);
        }
        let len = self.hasher.len().saturating_add(data.len() as u64);
        if len > OBJECT_LEN_MAX {
            self.failed = true;
            return Err(ObjectError::TooLarge { len });
        }
        self.hasher.update(data);
        if self.buffer.len() + data.len() < BUFFER {
            self.buffer.extend_from_slice(data);
            return Ok(());
        }
        self.flush(data)
    }

    fn flush(&mut self, data: &[u8]) -> Result<(), ObjectError> {
        let parts = [IoSlice::new(&self.buffer), IoSlice::new(data)];
        let mut done = self.staging.file.write_at(&parts, self.written);
        self.written += (self.buffer.len() + data.len()) as u64;
        self.buffer.clear();
        if done.is_ok() && self.written - self.flushed >= FLUSH_EVERY {
            self.flushed = self.written;
            done = self.staging.file.sync();
        }
        self.failed = done.is_err();
        done.map_err(io_at(&self.staging.path))
    }

    /// Ends the body without giving it a name or flushing it; [`super::ObjectStore::place`] does that for many at once.
    ///
    /// # Errors
    /// `WriterFailed`, `Io`.
    pub fn seal(mut self) -> Result<Staged, ObjectError> {
        if self.failed {
            return Err(ObjectError::WriterFailed);
        }
        if !self.buffer.is_empty() {
            self.flush(&[])?;
        }
        Staged::written(&self.shared, self.staging, &self.hasher.finish())
    }

    /// As [`ObjectWriter::seal`], but when an equal object is there and usable, nothing more is written, and nothing staged. The pin
    /// keeps the object either way.
    ///
    /// # Errors
    /// `WriterFailed`, `Io`.
    pub(crate) fn seal_unless_known(mut self) -> Result<(Pin, Option<Staged>), ObjectError> {
        if self.failed {
            return Err(ObjectError::WriterFailed);
        }
        let sums = std::mem::replace(&mut self.hasher, ChunkHasher::new()).finish();
        let objects = ObjectStore { shared: self.shared.clone() };
        // Pinned before the look: what is seen then stays.
        let pin = objects.pin(sums.root());
        match objects.open(sums.root()) {
            // One that has rotted is no reason to give these bytes up.
            Ok(object) if object.verify().is_ok() => return Ok((pin, None)),
            Err(ObjectError::Io { path, source }) => return Err(ObjectError::Io { path, source }),
            _ => {}
        }
        if !self.buffer.is_empty() {
            self.flush(&[])?;
        }
        Ok((pin, Some(Staged::written(&self.shared, self.staging, &sums)?)))
    }

    /// Ends the body and gives it its name: body, sidecar and names are durable on return. An equal object that is
    /// there already is kept, one without a usable sidecar is replaced.
    ///
    /// # Errors
    /// `WriterFailed`, `Io`.
    pub fn finish(self) -> Result<Hash, ObjectError> {
        self.end(false)
    }

    /// As [`ObjectWriter::finish`], but an object of the same name is replaced in any case: the repair of a damaged one
    /// from good bytes.
    ///
    /// # Errors
    /// `WriterFailed`, `Io`.
    pub fn finish_over(self) -> Result<Hash, ObjectError> {
        self.end(true)
    }

    fn end(self, over: bool) -> Result<Hash, ObjectError> {
        let shared = self.shared.clone();
        let staged = self.seal()?;
        let hash = staged.hash();
        place::place(&shared, vec![staged], over)?;
        Ok(hash)
    }
}
