//! From a staging file to a named object: the order of flushes and renames.
//!
//! Bytes of body and sidecar, then the sidecar's name, then the body's name; each step durable before the next. The
//! object is pinned from the moment its hash is known until it is placed, so that no sweep takes its sidecar away.

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::format::{ChunkHasher, OBJECT_LEN_MAX, Sums};
use super::reader::{body_path, folder, sum_path};
use super::store::{ObjectStore, Shared};
use super::{Object, ObjectError, Pin, io_at};
use crate::ids::Hash;
use crate::storage::File;

/// From so many objects on, one flush of everything is cheaper than a flush of each file.
const FLUSH_ALL_FROM: usize = 4;
/// Bytes read at a time when a file is adopted.
const READ_SIZE: usize = 1 << 20;

/// A file in `staging/` that is removed when it is given up.
pub(crate) struct Staging {
    shared: Arc<Shared>,
    pub path: String,
    pub file: Arc<dyn File>,
    placed: bool,
}

impl Staging {
    pub(super) fn create(shared: &Arc<Shared>, suffix: &str) -> Result<Staging, ObjectError> {
        let path = format!("staging/obj-{}{suffix}", shared.next.fetch_add(1, Ordering::Relaxed));
        shared.marks().staging.insert(path.clone());
        let file = shared.storage.create(&path, 0).map_err(io_at(&path));
        match file {
            Ok(file) => Ok(Staging { shared: shared.clone(), path, file, placed: false }),
            Err(e) => {
                shared.marks().staging.remove(&path);
                Err(e)
            }
        }
    }
}

impl Staging {
    /// A second name, in `staging/`, for a file that nobody writes any more.
    fn link(shared: &Arc<Shared>, from: &str) -> Result<Staging, ObjectError> {
        let path = format!("staging/obj-{}", shared.next.fetch_add(1, Ordering::Relaxed));
        shared.marks().staging.insert(path.clone());
        let linked = shared.storage.link(from, &path).and_then(|()| shared.storage.open(&path));
        match linked {
            Ok(file) => Ok(Staging { shared: shared.clone(), path, file, placed: false }),
            Err(source) => {
                let _ = shared.storage.remove(&path);
                shared.marks().staging.remove(&path);
                Err(ObjectError::Io { path: from.to_owned(), source })
            }
        }
    }

    /// Gives the file its name; the caller flushes the bytes before and the folder after.
    pub fn rename(mut self, to: &str) -> Result<(), ObjectError> {
        self.shared.storage.rename(&self.path, to).map_err(io_at(&self.path))?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.placed
            && let Err(error) = self.shared.storage.remove(&self.path)
        {
            tracing::debug!(path = self.path, %error, "staging file stays until the next start");
        }
        self.shared.marks().staging.remove(&self.path);
    }
}

/// Where the body waits.
enum Body {
    Own(Staging),
    Adopted { path: String, file: Arc<dyn File> },
}

impl Body {
    fn path(&self) -> &str {
        match self {
            Body::Own(staging) => &staging.path,
            Body::Adopted { path, .. } => path,
        }
    }

    fn file(&self) -> &dyn File {
        match self {
            Body::Own(staging) => &*staging.file,
            Body::Adopted { file, .. } => &**file,
        }
    }
}

/// An object that is written but has no name yet; [`ObjectStore::place`] gives it one. Dropping it removes it.
pub struct Staged {
    hash: Hash,
    len: u64,
    body: Body,
    sum: Staging,
    found: Found,
    /// Held until the object is placed.
    _pin: Pin,
}

/// What lies under an object's name already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// No body.
    Nothing,
    /// A usable object, to be kept.
    Intact,
    /// A body whose sidecar or length is wrong, so that the body is not trusted either.
    Damaged,
}

impl Staged {
    pub(super) fn written(shared: &Arc<Shared>, body: Staging, sums: &Sums) -> Result<Staged, ObjectError> {
        Self::new(shared, Body::Own(body), sums)
    }

    /// Reads and hashes an existing file, which becomes the body.
    pub(super) fn adopt(shared: &Arc<Shared>, path: &str, len: u64) -> Result<Staged, ObjectError> {
        let file = shared.storage.open(path).map_err(io_at(path))?;
        let sums = hash_file(&*file, path, len)?;
        Self::new(shared, Body::Adopted { path: path.to_owned(), file }, &sums)
    }

    /// Reads and hashes an existing file, which keeps its name beside the object's.
    pub(super) fn share(shared: &Arc<Shared>, path: &str, len: u64) -> Result<Staged, ObjectError> {
        let staging = Staging::link(shared, path)?;
        let sums = hash_file(&*staging.file, path, len)?;
        Self::new(shared, Body::Own(staging), &sums)
    }

    fn new(shared: &Arc<Shared>, body: Body, sums: &Sums) -> Result<Staged, ObjectError> {
        let hash = sums.root();
        let pin = ObjectStore { shared: shared.clone() }.pin(hash);
        let sum = Staging::create(shared, ".sum")?;
        sum.file.write_at(&[IoSlice::new(&sums.encode())], 0).map_err(io_at(&sum.path))?;
        Ok(Staged { hash, len: sums.len, body, sum, found: Found::Nothing, _pin: pin })
    }

    /// The name it will have.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Bytes of the body.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the body has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The checksums of a file of a known length.
fn hash_file(file: &dyn File, path: &str, len: u64) -> Result<Sums, ObjectError> {
    let got = file.len().map_err(io_at(path))?;
    if got != len {
        return Err(ObjectError::AdoptLength { path: path.to_owned(), expected: len, got });
    }
    if len > OBJECT_LEN_MAX {
        return Err(ObjectError::TooLarge { len });
    }
    let mut buf = vec![0; READ_SIZE.min(len as usize)];
    let mut hasher = ChunkHasher::new();
    while hasher.len() < len {
        let n = (len - hasher.len()).min(READ_SIZE as u64) as usize;
        file.read_at(&mut buf[..n], hasher.len()).map_err(io_at(path))?;
        hasher.update(&buf[..n]);
    }
    Ok(hasher.finish())
}

/// Looks under the name. The hash's stripe is held by the caller.
fn look(shared: &Shared, hash: Hash) -> Result<Found, ObjectError> {
    match Object::load(&*shared.storage, hash) {
        Ok(_) => Ok(Found::Intact),
        Err(ObjectError::NotFound { .. }) => Ok(Found::Nothing),
        Err(ObjectError::Io { path, source }) => Err(ObjectError::Io { path, source }),
        Err(_) => Ok(Found::Damaged),
    }
}

/// Whether a body lies under the name that looks usable and is not what its name says: the good bytes that have come are not to be given up for it. Read
/// without the stripe, since it may take long.
fn has_rotted(shared: &Shared, hash: Hash) -> Result<bool, ObjectError> {
    match Object::load(&*shared.storage, hash) {
        Ok(object) => Ok(object.verify().is_err()),
        Err(ObjectError::Io { path, source }) => Err(ObjectError::Io { path, source }),
        Err(_) => Ok(false),
    }
}

/// Gives staged objects their names. With `over`, an existing object of the same name is replaced, not kept.
pub(super) fn place(shared: &Arc<Shared>, mut all: Vec<Staged>, over: bool) -> Result<(), ObjectError> {
    flush_bytes(shared, &all)?;
    for staged in &mut all {
        let over = over || has_rotted(shared, staged.hash)?;
        let _stripe = shared.stripe(staged.hash);
        staged.found = if over { Found::Damaged } else { look(shared, staged.hash)? };
        if staged.found != Found::Intact {
            let from = &staged.sum.path;
            shared.storage.rename(from, &sum_path(staged.hash)).map_err(io_at(from))?;
            staged.sum.placed = true;
        }
    }
    flush_names(shared, &all)?;
    for staged in &mut all {
        let _stripe = shared.stripe(staged.hash);
        let from = staged.body.path();
        // Somebody else may have placed an equal one meanwhile: then that one stays.
        let keep = match staged.found {
            Found::Damaged => false,
            Found::Intact | Found::Nothing => look(shared, staged.hash)? == Found::Intact,
        };
        if !keep {
            shared.storage.rename(from, &body_path(staged.hash)).map_err(io_at(from))?;
            if let Body::Own(staging) = &mut staged.body {
                staging.placed = true;
            }
            shared.marks().cache.remove(&staged.hash);
        } else {
            staged.found = Found::Intact;
        }
    }
    // Kept ones as well: their names may stem from a process that died before it had flushed them.
    flush_names(shared, &all)?;
    if all.iter().any(|staged| staged.found == Found::Damaged) {
        // Another file may lie under a name than the one that somebody has open.
        shared.repairs.fetch_add(1, Ordering::AcqRel);
    }
    for staged in &all {
        shared.resurrect(staged.hash);
        if let (Found::Intact, Body::Adopted { path, .. }) = (staged.found, &staged.body) {
            shared.remove(path)?;
        }
    }
    Ok(())
}

fn flush_bytes(shared: &Shared, all: &[Staged]) -> Result<(), ObjectError> {
    if all.len() >= FLUSH_ALL_FROM {
        return shared.storage.sync_all().map_err(io_at("objects"));
    }
    for staged in all {
        staged.body.file().sync().map_err(io_at(staged.body.path()))?;
        staged.sum.file.sync().map_err(io_at(&staged.sum.path))?;
    }
    Ok(())
}

fn flush_names(shared: &Shared, all: &[Staged]) -> Result<(), ObjectError> {
    if all.len() >= FLUSH_ALL_FROM {
        return shared.storage.sync_all().map_err(io_at("objects"));
    }
    let folders: BTreeSet<String> = all.iter().map(|staged| folder(staged.hash)).collect();
    for dir in folders {
        shared.storage.sync_dir(&dir).map_err(io_at(&dir))?;
    }
    Ok(())
}

impl ObjectStore {
    /// Puts good bytes in the place of whatever lies under an object's name, durably.
    ///
    /// # Errors
    /// `WrongBytes` when they are not this object's: nothing was changed. `Io`.
    pub fn repair(&self, hash: Hash, staged: Staged) -> Result<(), ObjectError> {
        let got = staged.hash();
        if got != hash {
            return Err(ObjectError::WrongBytes { hash, got });
        }
        let placed = place(&self.shared, vec![staged], true);
        // Whatever came of it: another file may lie under the name by now.
        self.shared.repairs.fetch_add(1, Ordering::AcqRel);
        placed
    }

    /// How often an object's bytes were replaced in this run: what was opened before that may read damaged ones.
    pub fn repairs(&self) -> u64 {
        self.shared.repairs.load(Ordering::Acquire)
    }
}
