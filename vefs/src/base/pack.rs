//! Contents of files on their way into a tree: large and executable ones become objects of their own, small ones share
//! pack objects.

use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read};

use super::format::Run;
use super::pieces::{Pieces, Whole, is_zero, push};
use super::spool::Spool;
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

/// A run whose object may be a pack that is not made yet.
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
    /// Number of a small content of this builder; the place is 0.
    Small(usize),
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
            push(&mut content.runs, PackRun { offset, len, object: Object::Named(hash), place });
        }
        Ok(content)
    }

    /// Size of the file in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// Makes objects of contents, and keeps them pinned.
pub(super) struct Packer {
    objects: ObjectStore,
    spool: Spool,
    current: Option<ObjectWriter>,
    /// Packs that are finished; the current one is next.
    packs: Vec<Hash>,
    staged: Vec<Staged>,
    /// What was staged here.
    made: HashSet<Hash>,
    pins: HashMap<Hash, Pin>,
    /// Whether an object was there already: somebody else may have placed it and not flushed its name yet.
    kept: bool,
    /// Bytes of objects that were not there.
    new_bytes: u64,
}

impl Packer {
    pub fn new(objects: ObjectStore) -> Packer {
        Packer {
            objects,
            spool: Spool::default(),
            current: None,
            packs: Vec::new(),
            staged: Vec::new(),
            made: HashSet::new(),
            pins: HashMap::new(),
            kept: false,
            new_bytes: 0,
        }
    }

    pub fn objects(&self) -> &ObjectStore {
        &self.objects
    }

    /// Bytes of objects that were not in the store before.
    pub fn new_bytes(&self) -> u64 {
        self.new_bytes
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

    /// Takes away the marks of removal that a collection has put on objects while they were pinned: it may have looked for uses
    /// before the tree was there.
    pub fn resurrect(&self) {
        for hash in self.pins.keys() {
            drop(self.objects.pin(*hash));
        }
    }

    /// See [`super::BaseBuilder::add_content`].
    pub fn add(&mut self, reader: &mut dyn Read, executable: bool, sparse: bool) -> Result<Content, BaseError> {
        let mut pieces = Pieces::new(self.objects.clone(), executable, sparse);
        let mut chunk = vec![0; OBJECT_CHUNK];
        loop {
            let n = fill(reader, &mut chunk)?;
            let size = pieces.len();
            if n == 0 {
                return self.end(pieces, size);
            }
            pieces.write(size, &chunk[..n])?;
        }
    }

    /// See [`super::BaseBuilder::end_content`].
    pub fn end(&mut self, pieces: Pieces, size: u64) -> Result<Content, BaseError> {
        match pieces.end(size)? {
            Whole::Small { bytes, sparse } => {
                let mut content = Content { size, runs: Vec::new() };
                if !(bytes.is_empty() || (sparse && is_zero(&bytes))) {
                    let object = Object::Small(self.spool.add(&self.objects, &bytes)?);
                    content.runs.push(PackRun { offset: 0, len: size, object, place: 0 });
                }
                Ok(content)
            }
            Whole::Large { size, writer, mut runs } => {
                if let Some(writer) = writer {
                    let hash = self.stage(*writer)?;
                    runs.iter_mut().for_each(|run| run.object = Object::Named(hash));
                }
                Ok(Content { size, runs })
            }
        }
    }

    /// Puts a small content into a pack, unless it is in one. Called in the order of the tree.
    pub fn pack(&mut self, run: &PackRun) -> Result<(), BaseError> {
        let Object::Small(number) = run.object else { return Ok(()) };
        if self.spool.packed(number).is_some() {
            return Ok(());
        }
        let bytes = self.spool.read(number)?;
        if self.current.as_ref().is_some_and(|pack| pack.len() + bytes.len() as u64 > PACK_MAX) {
            self.end_pack()?;
        }
        let writer = match &mut self.current {
            Some(writer) => writer,
            none => none.insert(self.objects.writer()?),
        };
        self.spool.set_packed(number, self.packs.len(), writer.len());
        Ok(writer.write(&bytes)?)
    }

    fn end_pack(&mut self) -> Result<(), BaseError> {
        if let Some(writer) = self.current.take() {
            let hash = self.stage(writer)?;
            self.packs.push(hash);
        }
        Ok(())
    }

    fn stage(&mut self, writer: ObjectWriter) -> Result<Hash, BaseError> {
        let (pin, staged) = writer.seal_unless_known()?;
        let hash = pin.hash();
        match staged {
            None => self.kept = true,
            // Of two that are equal one is enough.
            Some(staged) if self.made.insert(hash) => {
                self.new_bytes += staged.len();
                self.staged.push(staged);
            }
            Some(_) => {}
        }
        self.pins.entry(hash).or_insert(pin);
        if self.staged.len() >= BATCH {
            self.objects.place(std::mem::take(&mut self.staged))?;
        }
        Ok(hash)
    }

    /// Ends the last pack and makes all objects durable.
    pub fn flush(&mut self) -> Result<(), BaseError> {
        self.end_pack()?;
        self.objects.place(std::mem::take(&mut self.staged))?;
        if self.kept {
            let flushed = self.objects.storage().sync_all();
            flushed.map_err(|source| BaseError::Io { path: "objects".into(), source })?;
        }
        Ok(())
    }

    /// The run with its object's name. After [`Packer::flush`].
    pub fn resolve(&self, run: &PackRun) -> Option<Run> {
        let (hash, place) = match run.object {
            Object::Named(hash) => (hash, run.place),
            Object::Small(number) => {
                let (pack, place) = self.spool.packed(number)?;
                (*self.packs.get(pack)?, place)
            }
        };
        Some(Run { offset: run.offset, len: run.len, hash, place })
    }
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
