//! A content that comes piece by piece, with holes between the pieces, of which only the present chunk is in memory.

use super::pack::{Object, PackRun};
use super::{BaseError, RuleError};
use crate::ids::Hash;
use crate::limits::{FILE_SIZE_MAX, OBJECT_CHUNK};
use crate::object::{ObjectStore, ObjectWriter};

/// What programs and libraries begin with (elf(5)).
const ELF: &[u8] = b"\x7fELF";

/// A file's content on its way in. Made by [`super::BaseBuilder::begin_content`], ended by
/// [`super::BaseBuilder::end_content`]; dropped, it leaves nothing.
pub struct Pieces {
    objects: ObjectStore,
    executable: bool,
    sparse: bool,
    /// The chunk being filled, and where in the file it begins: always at a multiple of the chunk's size.
    chunk: Vec<u8>,
    at: u64,
    writer: Option<Box<ObjectWriter>>,
    runs: Vec<PackRun>,
}

/// What has come together.
pub(super) enum Whole {
    /// The bytes of a content that shares a pack.
    Small { bytes: Vec<u8>, sparse: bool },
    /// A content that has an object of its own, if it has bytes at all; its name is not in the runs yet.
    Large { size: u64, writer: Option<Box<ObjectWriter>>, runs: Vec<PackRun> },
}

impl Pieces {
    pub(super) fn new(objects: ObjectStore, executable: bool, sparse: bool) -> Pieces {
        Pieces { objects, executable, sparse, chunk: Vec::new(), at: 0, writer: None, runs: Vec::new() }
    }

    /// Bytes of the file that have come, holes included.
    pub fn len(&self) -> u64 {
        self.at + self.chunk.len() as u64
    }

    /// Whether nothing has come.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the next piece. What lies between it and the one before is a hole, which only a sparse content has.
    ///
    /// # Errors
    /// `Rule` for a piece out of order, a hole where none may be, or a file over the limit; `Object`.
    pub fn write(&mut self, offset: u64, mut bytes: &[u8]) -> Result<(), BaseError> {
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > FILE_SIZE_MAX) {
            return Err(RuleError::Size.into());
        }
        self.advance(offset)?;
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(OBJECT_CHUNK - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            self.end_full_chunk()?;
            bytes = rest;
        }
        Ok(())
    }

    /// Goes on to an offset; the bytes up to there are zero. Whole chunks of them take no time.
    fn advance(&mut self, to: u64) -> Result<(), BaseError> {
        if to < self.len() || (to > self.len() && !self.sparse) {
            return Err(RuleError::Runs.into());
        }
        if !self.chunk.is_empty() {
            self.pad(to)?;
        }
        if self.chunk.is_empty() {
            self.at = to - to % OBJECT_CHUNK as u64;
            self.pad(to)?;
        }
        Ok(())
    }

    /// Fills the present chunk with zeros, up to an offset at most.
    fn pad(&mut self, to: u64) -> Result<(), BaseError> {
        let len = (to - self.at).min(OBJECT_CHUNK as u64) as usize;
        self.chunk.resize(len, 0);
        self.end_full_chunk()
    }

    fn end_full_chunk(&mut self) -> Result<(), BaseError> {
        if self.chunk.len() == OBJECT_CHUNK { self.end_chunk() } else { Ok(()) }
    }

    fn end_chunk(&mut self) -> Result<(), BaseError> {
        let len = self.chunk.len() as u64;
        if len > 0 && !(self.sparse && is_zero(&self.chunk)) {
            let writer = match &mut self.writer {
                Some(writer) => writer,
                none => none.insert(Box::new(self.objects.writer()?)),
            };
            let place = writer.len();
            writer.write(&self.chunk)?;
            // The hash is not known before the end.
            push(&mut self.runs, PackRun { offset: self.at, len, object: Object::Named(Hash::default()), place });
        }
        self.at += len;
        self.chunk.clear();
        Ok(())
    }

    /// Ends a content of `size` bytes.
    pub(super) fn end(mut self, size: u64) -> Result<Whole, BaseError> {
        if size > FILE_SIZE_MAX {
            return Err(RuleError::Size.into());
        }
        self.advance(size)?;
        // A library is mapped, as a program is, and rarely has the bits of one.
        let executable = self.executable || self.chunk.starts_with(ELF);
        if size < OBJECT_CHUNK as u64 && !executable {
            return Ok(Whole::Small { bytes: self.chunk, sparse: self.sparse });
        }
        self.end_chunk()?;
        Ok(Whole::Large { size, writer: self.writer, runs: self.runs })
    }
}

/// Appends a run, joining it with the last one where they are one.
pub(super) fn push(runs: &mut Vec<PackRun>, run: PackRun) {
    match runs.last_mut() {
        Some(last)
            if last.object == run.object
                && last.offset + last.len == run.offset
                && last.place + last.len == run.place =>
        {
            last.len += run.len;
        }
        _ => runs.push(run),
    }
}

pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| *b == 0)
}
