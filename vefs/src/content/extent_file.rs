//! A VE's extent files: append-only, written once, flushed before the journal frames that name their bytes are promised.
//!
//! Invariants: a file's number is never used twice; after a restart a new file is begun, so that bytes beyond what was flushed are
//! never written over; a file is removed only when no place names it and a checkpoint knows that.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::IoSlice;
use std::sync::Arc;

use super::{ExtentPlace, InBody, chunk_crcs};
use crate::error::{Error, Result};
use crate::format::extent::{DATA_START, ExtentHeader, HEADER_LEN};
use crate::ids::{InodeNo, VeId};
use crate::limits;
use crate::storage::{File, Storage};

/// Open extent files kept at hand per VE.
const OPEN_MAX: usize = 16;

/// Files that hold one file's body, as it is being written from its start on, kept open per VE.
const BODIES_MAX: usize = 64;
/// Set in the number of a file that holds one body: it has no header, so that it can become an object as it is.
const BODY_BIT: u64 = 1 << 63;

/// The folder of a VE's extent files.
pub fn folder(ve: VeId) -> String {
    format!("ves/{ve}/extents")
}

/// Path of one extent file.
pub fn path(ve: VeId, number: u64) -> String {
    format!("{}/{number:016x}", folder(ve))
}

struct Current {
    number: u64,
    file: Arc<dyn File>,
    end: u64,
}

/// Whose body it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    /// Of a file that is written here.
    File(InodeNo),
    /// Of the body that the primary has under this number.
    Primary(u64),
}

/// A body that is being written from its start on.
struct Body {
    number: u64,
    file: Arc<dyn File>,
    end: u64,
}

/// The extent files of a VE.
pub struct ExtentFiles {
    ve: VeId,
    store: [u8; 16],
    storage: Arc<dyn Storage>,
    target: u64,
    current: Option<Current>,
    bodies: BTreeMap<Whose, Body>,
    next_number: u64,
    open: HashMap<u64, Arc<dyn File>>,
    /// Files with unflushed bytes or names, with the append that touched them last.
    dirty: Vec<(Arc<dyn File>, u64)>,
    /// Appends so far, and how many of them are durable.
    appended: u64,
    durable: u64,
    names: u64,
    names_durable: u64,
}

/// What has to be flushed.
pub struct Flush {
    /// Files with unflushed bytes.
    pub files: Vec<Arc<dyn File>>,
    /// Folder whose names are not durable.
    pub dir: Option<String>,
    names: u64,
    appended: u64,
}

impl ExtentFiles {
    /// Continues after the files that are there.
    pub fn open(ve: VeId, store: [u8; 16], storage: Arc<dyn Storage>, target: u64) -> Result<ExtentFiles> {
        let next_number = numbers(&*storage, ve)?.iter().map(|n| n & !BODY_BIT).max().map_or(1, |n| n + 1);
        Ok(ExtentFiles {
            ve,
            store,
            storage,
            target,
            current: None,
            bodies: BTreeMap::new(),
            next_number,
            open: HashMap::new(),
            dirty: Vec::new(),
            appended: 0,
            durable: 0,
            names: 0,
            names_durable: 0,
        })
    }

    /// Appends bytes from a page boundary on and tells where they lie. An error leaves nothing that anybody names.
    pub fn append(&mut self, bytes: &[u8]) -> Result<ExtentPlace> {
        self.append_aligned(bytes, 4096)
    }

    /// Appends bytes directly behind the ones before: for small ones.
    pub fn append_packed(&mut self, bytes: &[u8]) -> Result<ExtentPlace> {
        self.append_aligned(bytes, 1)
    }

    fn append_aligned(&mut self, bytes: &[u8], align: u64) -> Result<ExtentPlace> {
        if self.current.as_ref().is_none_or(|c| c.end >= self.target) {
            self.begin()?;
        }
        // invariant: begin() left a current file.
        let current = self.current.as_mut().expect("a current extent file"); // invariant: see above
        let offset = current.end.next_multiple_of(align);
        if let Err(e) = current.file.write_at(&[IoSlice::new(bytes)], offset) {
            let place = path(self.ve, current.number);
            // What the failed write left is never named; the next bytes go to a new file.
            self.current = None;
            return Err(Error::io("writing extent file", place)(e));
        }
        current.end = offset + bytes.len() as u64;
        let file = current.file.clone();
        let number = current.number;
        self.touched(file);
        Ok(ExtentPlace { file: number, offset, len: bytes.len() as u64, crcs: chunk_crcs(bytes) })
    }

    /// Appends bytes that lie at `offset` of a file, if they continue its body: a file written from start to end gets an extent file
    /// of its own, which can become its object without a copy. `size` is the file's size before. `None`: they do not; small ones
    /// also not once the body was flushed, as they would cost a flush of their own.
    pub fn append_body(&mut self, ino: InodeNo, offset: u64, size: u64, bytes: &[u8]) -> Result<Option<ExtentPlace>> {
        let small = bytes.len() < limits::INLINE_MAX;
        let whose = Whose::File(ino);
        if offset == 0 && size == 0 && !small {
            self.begin_body(whose)?;
        }
        let Some(body) = self.bodies.get(&whose) else { return Ok(None) };
        let dirty = self.dirty.iter().any(|(f, _)| Arc::ptr_eq(f, &body.file));
        if size != offset || (small && !dirty) {
            self.bodies.remove(&whose);
            return Ok(None);
        }
        self.continue_body(whose, offset, bytes)
    }

    /// Appends bytes that a primary has in a body, if they continue what came of that body: so they lie behind each other here as well, and the
    /// file can become its object without a copy. `None`: they do not.
    pub fn append_followed(&mut self, at: InBody, bytes: &[u8]) -> Result<Option<ExtentPlace>> {
        let whose = Whose::Primary(at.body);
        if at.offset == 0 && bytes.len() >= limits::INLINE_MAX {
            self.begin_body(whose)?;
        }
        self.continue_body(whose, at.offset, bytes)
    }

    /// Appends bytes to a body that ends at their offset. One that ends elsewhere is given up.
    fn continue_body(&mut self, whose: Whose, offset: u64, bytes: &[u8]) -> Result<Option<ExtentPlace>> {
        let Some(body) = self.bodies.get_mut(&whose) else { return Ok(None) };
        if body.end != offset {
            self.bodies.remove(&whose);
            return Ok(None);
        }
        let number = body.number;
        if let Err(e) = body.file.write_at(&[IoSlice::new(bytes)], offset) {
            self.bodies.remove(&whose);
            return Err(Error::io("writing extent file", path(self.ve, number))(e));
        }
        body.end = offset + bytes.len() as u64;
        let file = body.file.clone();
        self.touched(file);
        Ok(Some(ExtentPlace { file: number, offset, len: bytes.len() as u64, crcs: chunk_crcs(bytes) }))
    }

    fn begin_body(&mut self, whose: Whose) -> Result<()> {
        if self.bodies.len() >= BODIES_MAX {
            self.bodies.pop_first();
        }
        let number = self.next_number | BODY_BIT;
        self.next_number += 1;
        let path = path(self.ve, number);
        let file = self.storage.create(&path, 0).map_err(Error::io("creating extent file", path))?;
        self.names += 1;
        self.touched(file.clone());
        self.remember(number, file.clone());
        self.bodies.insert(whose, Body { number, file, end: 0 });
        Ok(())
    }

    /// Whether a file's body is being written from its start on.
    pub fn has_body(&self, ino: InodeNo) -> bool {
        self.bodies.contains_key(&Whose::File(ino))
    }

    /// Whether a file holds one body and nothing else.
    pub fn is_body(&self, number: u64) -> bool {
        number & BODY_BIT != 0
    }

    /// Ends the body of a file, so that nothing is appended to its extent file any more.
    pub fn end_body(&mut self, ino: InodeNo) {
        self.bodies.remove(&Whose::File(ino));
    }

    /// Ends the body that an extent file holds, whosever it is.
    pub fn end_body_in(&mut self, number: u64) {
        self.bodies.retain(|_, body| body.number != number);
    }

    /// Gives up the bodies of a primary: others follow.
    pub fn end_followed(&mut self) {
        self.bodies.retain(|whose, _| !matches!(whose, Whose::Primary(_)));
    }

    /// Notes that a file was written.
    fn touched(&mut self, file: Arc<dyn File>) {
        self.appended += 1;
        match self.dirty.iter_mut().find(|(f, _)| Arc::ptr_eq(f, &file)) {
            Some((_, append)) => *append = self.appended,
            None => self.dirty.push((file, self.appended)),
        }
    }

    fn begin(&mut self) -> Result<()> {
        let number = self.next_number;
        let path = path(self.ve, number);
        self.next_number += 1;
        let file = self.storage.create(&path, 0).map_err(Error::io("creating extent file", path.clone()))?;
        let header = ExtentHeader { store: self.store, ve: self.ve, number };
        let result = file.write_at(&[IoSlice::new(&header.to_bytes())], 0);
        if let Err(e) = result {
            let _ = self.storage.remove(&path);
            return Err(Error::io("writing extent file", path)(e));
        }
        self.names += 1;
        self.touched(file.clone());
        self.remember(number, file.clone());
        self.current = Some(Current { number, file, end: DATA_START });
        Ok(())
    }

    fn remember(&mut self, number: u64, file: Arc<dyn File>) {
        if self.open.len() >= OPEN_MAX
            && let Some(some) = self.open.keys().copied().find(|n| Some(*n) != self.current.as_ref().map(|c| c.number))
        {
            self.open.remove(&some);
        }
        self.open.insert(number, file);
    }

    /// The file of a number, its header checked.
    pub fn file(&mut self, number: u64) -> Result<Arc<dyn File>> {
        if let Some(file) = self.open.get(&number) {
            return Ok(file.clone());
        }
        let place = path(self.ve, number);
        let file = self.storage.open(&place).map_err(Error::io("opening extent file", place.clone()))?;
        if number & BODY_BIT != 0 {
            self.remember(number, file.clone());
            return Ok(file);
        }
        let mut head = [0; HEADER_LEN];
        file.read_at(&mut head, 0).map_err(Error::io("reading extent file", place.clone()))?;
        let header = ExtentHeader::parse(&head).map_err(|e| e.at("extent file", place.clone()))?;
        if header != (ExtentHeader { store: self.store, ve: self.ve, number }) {
            let detail = "it belongs to another store or VE".into();
            return Err(Error::Damage { what: "extent file", place, detail });
        }
        self.remember(number, file.clone());
        Ok(file)
    }

    /// Lets go of files at hand that are not being written.
    pub fn let_go(&mut self) {
        let written: Vec<u64> =
            self.current.iter().map(|c| c.number).chain(self.bodies.values().map(|b| b.number)).collect();
        self.open.retain(|number, _| written.contains(number));
    }

    /// What must be flushed so that everything appended so far is durable; `None` when it is already.
    pub fn flush_wanted(&self) -> Option<Flush> {
        if self.dirty.is_empty() {
            return None;
        }
        let files = self.dirty.iter().map(|(f, _)| f.clone()).collect();
        let dir = (self.names_durable < self.names).then(|| folder(self.ve));
        Some(Flush { files, dir, names: self.names, appended: self.appended })
    }

    /// The flush is done.
    pub fn flushed(&mut self, flush: &Flush) {
        self.durable = self.durable.max(flush.appended);
        // Flushes may overlap: what was appended to a file since this one began stays.
        let durable = self.durable;
        self.dirty.retain(|(_, append)| *append > durable);
        if flush.dir.is_some() {
            self.names_durable = self.names_durable.max(flush.names);
        }
    }

    /// Appends so far in this run.
    pub fn appended(&self) -> u64 {
        self.appended
    }

    /// How many of them are durable.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// The files that nothing is appended to any more at this moment.
    pub fn closed(&self) -> Closed {
        let bodies = self.bodies.values().map(|b| b.number);
        let in_use = self.current.iter().map(|c| c.number).chain(bodies).collect();
        Closed { ve: self.ve, storage: self.storage.clone(), next_number: self.next_number, in_use }
    }

    /// A file was removed that nothing names any more.
    pub fn forget(&mut self, number: u64) {
        self.open.remove(&number);
    }
}

/// Files that nothing is appended to: none of them is begun later, so that they can be looked at without whoever writes meanwhile.
pub struct Closed {
    ve: VeId,
    storage: Arc<dyn Storage>,
    next_number: u64,
    in_use: BTreeSet<u64>,
}

impl Closed {
    /// Their numbers and lengths. A VE has as many as it has files of some size.
    pub fn lengths(&self) -> Result<BTreeMap<u64, u64>> {
        let mut out = BTreeMap::new();
        let is_one = |n: &u64| n & !BODY_BIT < self.next_number && !self.in_use.contains(n);
        for number in numbers(&*self.storage, self.ve)?.into_iter().filter(is_one) {
            let place = path(self.ve, number);
            let file = self.storage.open(&place).map_err(Error::io("opening extent file", place.clone()))?;
            out.insert(number, file.len().map_err(Error::io("reading extent file", place))?);
        }
        Ok(out)
    }

    /// Removes one that nothing names any more.
    pub fn remove(&self, number: u64) -> Result<()> {
        let place = path(self.ve, number);
        self.storage.remove(&place).map_err(Error::io("removing extent file", place))
    }
}

fn numbers(storage: &dyn Storage, ve: VeId) -> Result<Vec<u64>> {
    let dir = folder(ve);
    let names = storage.list(&dir).map_err(Error::io("listing extent files", dir))?;
    Ok(names.iter().filter_map(|n| u64::from_str_radix(n, 16).ok()).collect())
}
