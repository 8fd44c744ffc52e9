//! Contents of files on their way into a tree: large and executable ones become objects of their own, small ones share
//! pack objects.

use std::collections::HashMap;
use std::io::{ErrorKind, Read};

use super::format::Run;
use super::{BaseError, RuleError, check};
use crate::ids::Hash;
use crate::limits::{FILE_SIZE_MAX, OBJECT_CHUNK};
use crate::object::{ObjectError, ObjectStore, ObjectWriter, Pin, Staged};

/// A pack object has at most this many bytes.
pub const PACK_MAX: u64 = 16 << 20;
/// So many objects are flushed and named together.
const BATCH: usize = 64;

/// The content of a file to be added to a tree: a size, and runs of object bytes; the rest are holes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    pub(super) size: u64,
    pub(super) runs: Vec<PackRun>,
}

/// A run whose object may be a pack that is not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackRun {
    pub offset: u64,
    pub len: u64,
    pub object: Object,
    pub place: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Object {
    Named(Hash),
    /// Number of a pack of this builder.
    Pack(usize),
}

impl Content {
    /// A content of `size` bytes made of objects that are there already: runs of (offset, length, object, offset in
    /// the object), all in bytes, in order of offset.
    ///
    /// # Errors
    /// `Rule` when the runs are empty, out of order, overlapping, or not within the size.
    pub fn from_runs(size: u64, runs: impl IntoIterator<Item = (u64, u64, Hash, u64)>) -> Result<Content, BaseError> {
        let mut content = Content { size, runs: Vec::new() };
        if size > FILE_SIZE_MAX {
            return Err(RuleError::Size.into());
        }
        let mut end = 0;
        for (offset, len, hash, place) in runs {
            check::run(&Run { offset, len, hash, place }, size, &mut end)?;
            content.push(PackRun { offset, len, object: Object::Named(hash), place });
        }
        Ok(content)
    }

    /// Size of the file in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a run, joining it with the last one where they are one.
    fn push(&mut self, run: PackRun) {
        match self.runs.last_mut() {
            Some(last)
                if last.object == run.object
                    && last.offset + last.len == run.offset
                    && last.place + last.len == run.place =>
            {
                last.len += run.len;
            }
            _ => self.runs.push(run),
        }
    }
}

/// Makes objects of contents, and keeps them pinned.
pub(super) struct Packer {
    objects: ObjectStore,
    current: Option<ObjectWriter>,
    /// Packs that are finished; the current one is next.
    packs: Vec<Hash>,
    /// Small contents by hash: pack and place.
    small: HashMap<Hash, (usize, u64)>,
    staged: Vec<Staged>,
    pins: HashMap<Hash, Pin>,
}

impl Packer {
    pub fn new(objects: ObjectStore) -> Packer {
        Packer {
            objects,
            current: None,
            packs: Vec::new(),
            small: HashMap::new(),
            staged: Vec::new(),
            pins: HashMap::new(),
        }
    }

    pub fn objects(&self) -> &ObjectStore {
        &self.objects
    }

    /// Keeps an object of the tree from removal until the tree is there. What is staged here is pinned already.
    pub fn pin_existing(&mut self, hash: Hash) -> Result<(), BaseError> {
        if !self.pins.contains_key(&hash) {
            let pin = self.objects.pin(hash);
            if !self.objects.contains(hash)? {
                return Err(ObjectError::NotFound { hash }.into());
            }
            self.pins.insert(hash, pin);
        }
        Ok(())
    }

    /// See [`super::BaseBuilder::add_content`].
    pub fn add(&mut self, reader: &mut dyn Read, executable: bool, sparse: bool) -> Result<Content, BaseError> {
        let mut chunk = vec![0; OBJECT_CHUNK];
        let mut n = fill(reader, &mut chunk)?;
        if n < OBJECT_CHUNK && !executable {
            return self.add_small(&chunk[..n], sparse);
        }
        let mut content = Content::default();
        let mut writer = self.objects.writer()?;
        // The hash is not known before the end.
        let object = Object::Named(Hash::default());
        while n > 0 {
            if content.size + n as u64 > FILE_SIZE_MAX {
                return Err(RuleError::Size.into());
            }
            if !(sparse && is_zero(&chunk[..n])) {
                let run = PackRun { offset: content.size, len: n as u64, object, place: writer.len() };
                writer.write(&chunk[..n])?;
                content.push(run);
            }
            content.size += n as u64;
            n = fill(reader, &mut chunk)?;
        }
        if !content.runs.is_empty() {
            let hash = self.stage(writer)?;
            content.runs.iter_mut().for_each(|run| run.object = Object::Named(hash));
        }
        Ok(content)
    }

    fn add_small(&mut self, bytes: &[u8], sparse: bool) -> Result<Content, BaseError> {
        let len = bytes.len() as u64;
        if bytes.is_empty() || (sparse && is_zero(bytes)) {
            return Ok(Content { size: len, runs: Vec::new() });
        }
        let hash = Hash::of(bytes);
        let (pack, place) = match self.small.get(&hash) {
            Some(found) => *found,
            None => {
                if self.current.as_ref().is_some_and(|pack| pack.len() + len > PACK_MAX) {
                    self.end_pack()?;
                }
                let writer = match &mut self.current {
                    Some(writer) => writer,
                    none => none.insert(self.objects.writer()?),
                };
                let found = (self.packs.len(), writer.len());
                writer.write(bytes)?;
                self.small.insert(hash, found);
                found
            }
        };
        let run = PackRun { offset: 0, len, object: Object::Pack(pack), place };
        Ok(Content { size: len, runs: vec![run] })
    }

    fn end_pack(&mut self) -> Result<(), BaseError> {
        if let Some(writer) = self.current.take() {
            let hash = self.stage(writer)?;
            self.packs.push(hash);
        }
        Ok(())
    }

    fn stage(&mut self, writer: ObjectWriter) -> Result<Hash, BaseError> {
        let staged = writer.seal()?;
        let hash = staged.hash();
        self.pins.entry(hash).or_insert_with(|| self.objects.pin(hash));
        self.staged.push(staged);
        if self.staged.len() >= BATCH {
            self.objects.place(std::mem::take(&mut self.staged))?;
        }
        Ok(hash)
    }

    /// Ends the last pack and makes all objects durable.
    pub fn flush(&mut self) -> Result<(), BaseError> {
        self.end_pack()?;
        Ok(self.objects.place(std::mem::take(&mut self.staged))?)
    }

    /// The run with its object's name. After [`Packer::flush`].
    pub fn resolve(&self, run: &PackRun) -> Option<Run> {
        let hash = match run.object {
            Object::Named(hash) => hash,
            Object::Pack(number) => *self.packs.get(number)?,
        };
        Some(Run { offset: run.offset, len: run.len, hash, place: run.place })
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| *b == 0)
}

/// Fills the buffer as far as the reader goes.
fn fill(reader: &mut dyn Read, buf: &mut [u8]) -> Result<usize, BaseError> {
    let mut n = 0;
    while n < buf.len() {
        match reader.read(&mut buf[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(BaseError::Content(e)),
        }
    }
    Ok(n)
}
