//! The store of objects: looking up, pinning, listing, and removal in two phases.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Mutex, MutexGuard};

use super::cache::Cache;
use super::place::{self, Staged, Staging};
use super::reader::{body_path, folder, sum_path};
use super::{Object, ObjectError, ObjectWriter, io_at};
use crate::ids::Hash;
use crate::storage::Storage;

/// All objects of one storage. A handle: clones share everything. Make one store for one storage: pins and marks of
/// removal are in memory.
#[derive(Clone)]
pub struct ObjectStore {
    pub(super) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub storage: Arc<dyn Storage>,
    stripes: [Mutex<()>; 64],
    marks: Mutex<Marks>,
    /// Number of the next staging file.
    pub next: AtomicU64,
    /// How often an object's bytes were replaced by good ones.
    pub repairs: AtomicU64,
}

#[derive(Default)]
pub(crate) struct Marks {
    pins: HashMap<Hash, u32>,
    condemned: HashSet<Hash>,
    /// Base trees marked for removal, by root hash.
    trees: HashSet<Hash>,
    pub cache: Cache,
    /// Staging files that somebody is writing.
    pub staging: HashSet<String>,
}

impl Shared {
    /// Serializes placing, removing and loading of one hash.
    pub fn stripe(&self, hash: Hash) -> MutexGuard<'_, ()> {
        self.stripes[hash.0[31] as usize % self.stripes.len()].lock()
    }

    pub fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock()
    }

    pub fn resurrect(&self, hash: Hash) {
        self.marks().condemned.remove(&hash);
    }

    fn pin(self: &Arc<Self>, hash: Hash) -> Pin {
        // The stripe: a removal that has already decided finishes first, so that a look after the pin is true.
        let _stripe = self.stripe(hash);
        let mut marks = self.marks();
        marks.condemned.remove(&hash);
        marks.trees.remove(&hash);
        *marks.pins.entry(hash).or_insert(0) += 1;
        Pin { shared: self.clone(), hash }
    }

    /// Whether a body is there under its name. The hash's stripe is held by the caller.
    pub fn exists(&self, path: &str) -> Result<bool, ObjectError> {
        match self.storage.open(path) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(io_at(path)(e)),
        }
    }

    /// Removes a file that may be gone already, and answers its length.
    pub fn remove(&self, path: &str) -> Result<u64, ObjectError> {
        let absent = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
        let len = match self.storage.open(path) {
            Err(e) if absent(&e) => return Ok(0),
            file => file.and_then(|f| f.len()).map_err(io_at(path))?,
        };
        match self.storage.remove(path) {
            Err(e) if !absent(&e) => Err(io_at(path)(e)),
            _ => Ok(len),
        }
    }

    /// Removes a sidecar whose body is not there, unless somebody is placing that very object.
    fn remove_orphan(&self, hash: Hash) -> Result<u64, ObjectError> {
        let _stripe = self.stripe(hash);
        let pinned = self.marks().pins.contains_key(&hash);
        if pinned || self.exists(&body_path(hash))? {
            return Ok(0);
        }
        self.remove(&sum_path(hash))
    }

    /// Removes the body if it is still condemned, unpinned and unreferenced; `None` when it stays.
    fn remove_body(&self, hash: Hash, referenced: &dyn Fn(&Hash) -> bool) -> Result<Option<u64>, ObjectError> {
        let _stripe = self.stripe(hash);
        if self.marks().pins.contains_key(&hash) {
            return Ok(None);
        }
        if referenced(&hash) {
            self.resurrect(hash);
            return Ok(None);
        }
        {
            // A reference made since the question came through a lookup, and that took the mark away. A pin cannot
            // have come: it waits for the stripe.
            let mut marks = self.marks();
            if !marks.condemned.remove(&hash) {
                return Ok(None);
            }
            marks.cache.remove(&hash);
        }
        let removed = self.remove(&body_path(hash));
        if removed.is_err() {
            self.marks().condemned.insert(hash);
        }
        removed.map(Some)
    }
}

/// Keeps an object from being removed while it is held. Counted: each pin counts by itself.
pub struct Pin {
    shared: Arc<Shared>,
    hash: Hash,
}

impl Pin {
    /// What is pinned.
    pub fn hash(&self) -> Hash {
        self.hash
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut marks = self.shared.marks();
        if let Some(count) = marks.pins.get_mut(&self.hash) {
            *count -= 1;
            if *count == 0 {
                marks.pins.remove(&self.hash);
                // A mark that was made meanwhile was made by somebody who may have looked before this one's reference was written. The next one
                // who looks marks it again, if it is garbage still.
                marks.condemned.remove(&self.hash);
                marks.trees.remove(&self.hash);
            }
        }
    }
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pin({:?})", self.hash)
    }
}

impl ObjectStore {
    /// The objects of `storage`. Nothing is read.
    pub fn new(storage: Arc<dyn Storage>) -> ObjectStore {
        let stripes = std::array::from_fn(|_| Mutex::new(()));
        let shared =
            Shared { storage, stripes, marks: Mutex::default(), next: AtomicU64::new(0), repairs: AtomicU64::new(0) };
        ObjectStore { shared: Arc::new(shared) }
    }

    /// The storage below.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.shared.storage
    }

    /// Path of a body in the store, for the kernel to read it.
    pub fn body_path(hash: Hash) -> String {
        body_path(hash)
    }

    /// Starts an object whose bytes are about to come.
    ///
    /// # Errors
    /// `Io` when no staging file can be made.
    pub fn writer(&self) -> Result<ObjectWriter, ObjectError> {
        ObjectWriter::new(self.shared.clone())
    }

    /// A file in `staging/` for something else that is made of objects. Removed when it is dropped without a place.
    pub(crate) fn staging(&self, suffix: &str) -> Result<Staging, ObjectError> {
        Staging::create(&self.shared, suffix)
    }

    /// Stores bytes as an object, durable on return.
    ///
    /// # Errors
    /// As [`ObjectWriter::finish`].
    pub fn put(&self, bytes: &[u8]) -> Result<Hash, ObjectError> {
        let mut writer = self.writer()?;
        writer.write(bytes)?;
        writer.finish()
    }

    /// Makes an object of a file that already holds the body, without copying. `path` is in this storage, best in
    /// `staging/`, under a name that does not begin with `obj-`. On success it is gone; after an error it is still there or has
    /// become the object already.
    ///
    /// # Errors
    /// `AdoptLength` when the file has not `len` bytes, `TooLarge`, `Io`.
    pub fn adopt(&self, path: &str, len: u64) -> Result<Hash, ObjectError> {
        let staged = Staged::adopt(&self.shared, path, len)?;
        let hash = staged.hash();
        place::place(&self.shared, vec![staged], false)?;
        Ok(hash)
    }

    /// Stages a file that already holds the body, and that nobody writes any more, as an object; the file keeps its name. No byte
    /// is copied where the storage has links.
    ///
    /// # Errors
    /// As [`ObjectStore::adopt`].
    pub fn share(&self, path: &str, len: u64) -> Result<Staged, ObjectError> {
        Staged::share(&self.shared, path, len)
    }

    /// Gives many staged objects their names with three flushes for all of them. Durable on return. What an error
    /// leaves behind are objects that are there or not, never halves.
    ///
    /// # Errors
    /// `Io`.
    pub fn place(&self, staged: Vec<Staged>) -> Result<(), ObjectError> {
        place::place(&self.shared, staged, false)
    }

    /// Opens an object, checking its sidecar against its name. A condemned one is kept from now on.
    ///
    /// # Errors
    /// `NotFound`, `Sidecar`, `BodyLength`, `Io`.
    pub fn open(&self, hash: Hash) -> Result<Arc<Object>, ObjectError> {
        {
            let mut marks = self.shared.marks();
            if let Some(object) = marks.cache.get(&hash) {
                marks.condemned.remove(&hash);
                return Ok(object);
            }
        }
        let _stripe = self.shared.stripe(hash);
        let object = Arc::new(Object::load(&*self.shared.storage, hash)?);
        let mut marks = self.shared.marks();
        marks.condemned.remove(&hash);
        marks.cache.insert(hash, object.clone());
        Ok(object)
    }

    /// Whether the object is there. A condemned one is kept from now on. Whoever tells a peer "have" pins first.
    ///
    /// # Errors
    /// `Io`.
    pub fn contains(&self, hash: Hash) -> Result<bool, ObjectError> {
        let _stripe = self.shared.stripe(hash);
        let there = self.shared.exists(&body_path(hash))?;
        if there {
            self.shared.resurrect(hash);
        }
        Ok(there)
    }

    /// The names of all objects, in order. Sidecars whose body is gone are removed on the way.
    ///
    /// # Errors
    /// `Io`.
    pub fn list(&self) -> Result<Vec<Hash>, ObjectError> {
        let list = |dir: &str| self.shared.storage.list(dir).map_err(io_at(dir));
        let (mut bodies, mut sums) = (BTreeSet::new(), Vec::new());
        for shard in list("objects")? {
            for name in list(&format!("objects/{shard}"))? {
                let (hex, is_sum) = match name.strip_suffix(".sum") {
                    Some(hex) => (hex, true),
                    None => (name.as_str(), false),
                };
                // Only the exact names that this room gives; anything else is not an object.
                let Some(hash) = Hash::from_hex(hex).filter(|h| h.to_hex() == hex && hex.starts_with(&shard)) else {
                    continue;
                };
                if is_sum {
                    sums.push(hash);
                } else if shard.len() == 2 {
                    bodies.insert(hash);
                }
            }
        }
        for orphan in sums.into_iter().filter(|hash| !bodies.contains(hash)) {
            self.shared.remove_orphan(orphan)?;
        }
        Ok(bodies.into_iter().collect())
    }

    /// Keeps an object from removal while the answer is held. Pin first, then look whether it is there.
    pub fn pin(&self, hash: Hash) -> Pin {
        self.shared.pin(hash)
    }

    /// Marks objects for removal. Nothing is persisted; any lookup, placement or pin of one takes its mark away.
    pub fn condemn(&self, hashes: impl IntoIterator<Item = Hash>) {
        self.shared.marks().condemned.extend(hashes);
    }

    /// Removes every object that is still condemned, not pinned, and of which `still_referenced` says no; answers the
    /// bytes given back. What is referenced loses its mark; what is pinned keeps it for the next sweep.
    /// `still_referenced` is asked under the hash's lock and must not call this store.
    ///
    /// # Errors
    /// `Io`; what was not removed by then stays condemned.
    pub fn sweep_condemned(&self, still_referenced: impl Fn(&Hash) -> bool) -> Result<u64, ObjectError> {
        let condemned: BTreeSet<Hash> = self.shared.marks().condemned.iter().copied().collect();
        let (mut bytes, mut gone) = (0, Vec::new());
        for hash in condemned {
            if let Some(len) = self.shared.remove_body(hash, &still_referenced)? {
                bytes += len;
                gone.push(hash);
            }
        }
        // The body's removal is durable before the sidecar goes: a power cut leaves no body without a sidecar.
        let folders: BTreeSet<String> = gone.iter().map(|hash| folder(*hash)).collect();
        for dir in folders {
            self.shared.storage.sync_dir(&dir).map_err(io_at(&dir))?;
        }
        for hash in gone {
            bytes += self.shared.remove_orphan(hash)?;
        }
        Ok(bytes)
    }

    /// Marks base trees for removal, as [`ObjectStore::condemn`] does objects. A pin of the root hash takes the mark away.
    pub(crate) fn condemn_trees(&self, hashes: impl IntoIterator<Item = Hash>) {
        self.shared.marks().trees.extend(hashes);
    }

    /// Calls `remove` for every tree that is still marked, not pinned, and not referenced; answers how many there were.
    /// `remove` is called under the root hash's lock, so that a pin waits for it, and must not call this store.
    pub(crate) fn sweep_trees<E>(
        &self,
        referenced: impl Fn(&Hash) -> bool,
        mut remove: impl FnMut(Hash) -> Result<(), E>,
    ) -> Result<u64, E> {
        let condemned: BTreeSet<Hash> = self.shared.marks().trees.iter().copied().collect();
        let mut removed = 0;
        for hash in condemned {
            let _stripe = self.shared.stripe(hash);
            let mut marks = self.shared.marks();
            if marks.trees.remove(&hash) && !marks.pins.contains_key(&hash) && !referenced(&hash) {
                drop(marks);
                remove(hash)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Removes staging files that a crash left behind, and answers how many. Files being written, and those of others
    /// in the same folder, stay.
    ///
    /// # Errors
    /// `Io`.
    pub fn clean_staging(&self) -> Result<usize, ObjectError> {
        let mut removed = 0;
        for name in self.shared.storage.list("staging").map_err(io_at("staging"))? {
            let path = format!("staging/{name}");
            if name.starts_with("obj-") && !self.shared.marks().staging.contains(&path) {
                self.shared.remove(&path)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}
