//! What all VEs of a store share, and the store's periodic work: the commit tick, persisting metadata, checkpoints, space.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak, mpsc};

use parking_lot::Mutex;

use super::Store;
use super::contents::Contents;
use super::rebuild::{flush, newest_checkpoint};
use crate::base::BaseTree;
use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::error::{Error, Result};
use crate::ids::{Hash, Lineage, VeId};
use crate::limits;
use crate::meta::MetaStore;
use crate::object::ObjectStore;
use crate::storage::Storage;
use crate::ve::Ve;
use crate::ve::hashing::HashQueue;

/// Sizes and thresholds of a store; the defaults are for a node, tests choose smaller ones.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of a VE's first journal segments.
    pub segment_min: u64,
    /// Bytes that segments grow to.
    pub segment_max: u64,
    /// An extent file is closed from this size on.
    pub extent_target: u64,
    /// A VE's unpublished state is published in the background from this many bytes of memory, or four times as many bytes of payloads in its
    /// journal, on.
    pub overlay_soft: usize,
    /// From here on the operation after the one that reaches it publishes first.
    pub overlay_hard: usize,
    /// Most extents of a file that one record takes away, beyond those that a write covers.
    pub extents_most: usize,
    /// Recovery publishes what it has read from this many bytes of memory on.
    pub recovery_memory: usize,
    /// Metadata is persisted when the journals have grown by this many bytes since.
    pub persist_bytes: u64,
    /// A checkpoint of the metadata is made when the journals have grown by this many bytes since the last.
    pub checkpoint_bytes: u64,
    /// Most bytes of journal and payloads that a VE keeps for a replica that does not come along.
    pub cursor_bytes: u64,
    /// Free bytes that ordinary writers leave alone.
    pub reserve: u64,
    /// Up to this many dirty VEs a tick flushes file by file, above it the whole file system at once.
    pub flush_files_max: usize,
    /// Throw the metadata away and rebuild it from the newest checkpoint and the journals.
    pub rebuild: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            segment_min: limits::SEGMENT_MIN,
            segment_max: limits::SEGMENT_MAX,
            extent_target: limits::EXTENT_FILE_TARGET,
            overlay_soft: 16 << 20,
            overlay_hard: 64 << 20,
            extents_most: limits::EXTENTS_MOST,
            recovery_memory: 512 << 20,
            persist_bytes: 96 << 20,
            checkpoint_bytes: 512 << 20,
            cursor_bytes: 1 << 30,
            reserve: limits::RESERVE_BYTES,
            flush_files_max: 2,
            rebuild: false,
        }
    }
}

/// Whether the disk is nearly full. Free space is asked for in each tick, and in between whenever a quarter of what lay above the
/// reserve has been written since: a fast writer cannot reach into the reserve between two ticks.
#[derive(Default)]
pub struct Space {
    tight: AtomicBool,
    /// Bytes that may be written before free space is asked for again.
    budget: AtomicI64,
    /// Inline payload bytes that publishing has yet to copy out of journals: it needs that much space, or no journal can ever be
    /// recycled again.
    unpublished: AtomicU64,
}

impl Space {
    /// Whether ordinary writers must stop (promise G4).
    pub fn is_tight(&self) -> bool {
        self.tight.load(Ordering::Relaxed)
    }

    pub(crate) fn set_tight(&self, tight: bool) {
        if self.tight.swap(tight, Ordering::Relaxed) != tight {
            tracing::warn!(tight, "free space against the reserve");
        }
    }

    /// Takes note of `bytes` that were written.
    pub(crate) fn spend(&self, bytes: u64) {
        self.budget.fetch_sub(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// Takes note of inline payload bytes that publishing will copy.
    pub(crate) fn hold(&self, inline: u64) {
        self.unpublished.fetch_add(inline, Ordering::Relaxed);
        self.spend(inline);
    }

    /// They are copied, or gone.
    pub(crate) fn release(&self, inline: u64) {
        self.unpublished.fetch_sub(inline, Ordering::Relaxed);
    }

    /// Bytes that may be taken at once without coming near the reserve.
    pub(crate) fn room(&self) -> u64 {
        self.budget.load(Ordering::Relaxed).max(0).unsigned_abs()
    }

    fn measured(&self, free: u64, reserve: u64) {
        let reserve = reserve.saturating_add(self.unpublished.load(Ordering::Relaxed));
        self.set_tight(free < reserve);
        let budget = i64::try_from(free.saturating_sub(reserve) / 4).unwrap_or(i64::MAX);
        self.budget.store(budget, Ordering::Relaxed);
    }
}

/// What all VEs of a store share.
pub struct Shared {
    /// The store's identity.
    pub store: [u8; 16],
    /// Files.
    pub storage: Arc<dyn Storage>,
    /// Metadata.
    pub meta: Arc<dyn MetaStore>,
    /// Objects.
    pub objects: ObjectStore,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Random numbers.
    pub entropy: Arc<dyn Entropy>,
    /// Sizes and thresholds.
    pub options: Options,
    /// The disk's fullness.
    pub space: Space,
    pub(super) bases: Mutex<HashMap<Hash, Weak<BaseTree>>>,
    /// Held while labels and stacks are written or removed.
    pub(super) labels: Mutex<()>,
    pub(super) publisher: Mutex<Option<mpsc::Sender<VeId>>>,
    pub(super) preparer: Mutex<Option<mpsc::Sender<VeId>>>,
    /// Hashes of bulk payloads that the hashing thread makes.
    pub(crate) hashes: HashQueue,
    /// Where bytes lie that may come once more.
    pub(crate) contents: Contents,
    /// About how many bytes of memory VEs have given back to the allocator.
    pub(crate) given_back: AtomicU64,
}

impl Shared {
    #[allow(clippy::too_many_arguments, reason = "called in one place, with the parts of a store")]
    pub(super) fn new(
        store: [u8; 16],
        storage: Arc<dyn Storage>,
        meta: Arc<dyn MetaStore>,
        objects: ObjectStore,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        options: Options,
    ) -> Shared {
        Shared {
            store,
            storage,
            meta,
            objects,
            clock,
            entropy,
            options,
            space: Space::default(),
            bases: Mutex::default(),
            labels: Mutex::default(),
            publisher: Mutex::default(),
            preparer: Mutex::default(),
            hashes: HashQueue::default(),
            contents: Contents::default(),
            given_back: AtomicU64::default(),
        }
    }

    /// A base tree, loaded once for all VEs.
    pub fn base(&self, hash: Hash) -> Result<Arc<BaseTree>> {
        let mut bases = self.bases.lock();
        if let Some(tree) = bases.get(&hash).and_then(Weak::upgrade) {
            return Ok(tree);
        }
        let empty = BaseTree::empty();
        let tree = if hash == empty.hash() { empty } else { BaseTree::open(&*self.storage, hash)? };
        bases.insert(hash, Arc::downgrade(&tree));
        Ok(tree)
    }

    /// Compares free space with the reserve.
    pub(crate) fn measure_space(&self) -> Result<()> {
        let free = self.storage.free_bytes().map_err(Error::io("reading free space", "store"))?;
        self.space.measured(free, self.options.reserve);
        Ok(())
    }

    /// Whether ordinary writers must stop, from a measurement that is new enough.
    pub(crate) fn is_tight(&self) -> Result<bool> {
        if self.space.budget.load(Ordering::Relaxed) <= 0 && !self.space.is_tight() {
            self.measure_space()?;
        }
        Ok(self.space.is_tight())
    }

    /// Asks the publishing thread to publish a VE; false when there is none.
    pub(crate) fn wake_publisher(&self, ve: VeId) -> bool {
        self.publisher.lock().as_ref().is_some_and(|p| p.send(ve).is_ok())
    }

    /// Asks the preparing thread for a VE's next journal segment; where there is none, the tick makes it.
    pub(crate) fn wake_preparer(&self, ve: VeId) {
        if let Some(p) = self.preparer.lock().as_ref() {
            // Nobody there any more: the store is about to close.
            let _ = p.send(ve);
        }
    }

    pub(crate) fn has_publisher(&self) -> bool {
        self.publisher.lock().is_some()
    }
}

/// How far the journals are covered by what is durable elsewhere.
#[derive(Default)]
pub(super) struct CheckpointState {
    /// Journal bytes written since metadata was persisted, and since the last checkpoint.
    pub(super) since_persist: u64,
    pub(super) since_checkpoint: u64,
    /// Number of the newest checkpoint, 0 for none.
    number: u64,
    /// Up to which journal position the newest checkpoint has each VE. By lineage and slot: neither a VE made anew under the same identifier nor a
    /// state put in the place of another is in it.
    covered: HashMap<(Lineage, VeId), u64>,
}

impl CheckpointState {
    pub(super) fn load(dir: &Path) -> Result<CheckpointState> {
        let number = newest_checkpoint(dir)?.map_or(0, |(n, _)| n);
        Ok(CheckpointState { number, ..Default::default() })
    }
}

impl Store {
    /// Publishes every open VE. All are tried; the first error.
    pub fn publish_all(&self) -> Result<()> {
        let mut failed = Ok(());
        self.publish_each(Ve::publish, &mut |_, e| {
            if failed.is_ok() {
                failed = Err(e);
            }
        });
        failed
    }

    /// Publishes what can be published, now if `waits` is not set: the tick of all VEs does not wait for one whose history is being collected. What one VE
    /// meets is not the others' trouble: its journal stays as long as it is needed, theirs go on.
    pub(super) fn publish_what_can_be(&self, waits: bool) {
        let publish = if waits { Ve::publish } else { Ve::publish_unless_collected };
        self.publish_each(publish, &mut |ve, e| tracing::error!(ve = %ve.id(), error = %e, "publishing"));
    }

    fn publish_each(&self, publish: fn(&Ve) -> Result<()>, failed: &mut dyn FnMut(&Ve, Error)) {
        for ve in self.opened() {
            if ve.read_only_reason().is_none()
                && let Err(e) = publish(&ve)
            {
                failed(&ve, e);
            }
        }
    }

    /// Makes published metadata durable and gives back the journal segments that nothing needs any more.
    pub fn persist(&self) -> Result<()> {
        self.shared.meta.persist()?;
        let mut c = self.checkpoint_state.lock();
        c.since_persist = 0;
        for ve in self.opened() {
            let covered = c.covered.get(&state_of(&ve)).copied().unwrap_or(0);
            let given_back = ve.persisted_journal().and_then(|persisted| ve.recycle_journal(covered.min(persisted)));
            if let Err(e) = given_back {
                tracing::error!(ve = %ve.id(), error = %e, "giving back journal segments");
            }
        }
        Ok(())
    }

    /// Publishes, persists and keeps a copy of the metadata, from which with the journals since everything can be rebuilt
    /// (promise G32). Older copies go once the new one is complete. A VE that cannot be published is in it as it was published last, and its
    /// journal stays from there on.
    pub fn checkpoint(&self) -> Result<()> {
        self.checkpoint_as(true)
    }

    /// As [`Store::checkpoint`]. Unless it `waits`, a VE whose history is being collected is in it as it was published last, too.
    pub(super) fn checkpoint_as(&self, waits: bool) -> Result<()> {
        let _checkpointing = self.checkpointing.lock();
        self.publish_what_can_be(waits);
        self.shared.meta.persist()?;
        let mut covered = HashMap::new();
        for ve in self.opened() {
            match ve.persisted_journal() {
                Ok(position) => _ = covered.insert(state_of(&ve), position),
                // Of its journal nothing is given back.
                Err(e) => tracing::error!(ve = %ve.id(), error = %e, "what a checkpoint has of it"),
            }
        }
        let number = self.checkpoint_state.lock().number + 1;
        let dir = self.checkpoints.join(format!("{number:016}"));
        let staging = self.checkpoints.join("new");
        let _ = std::fs::remove_dir_all(&staging);
        self.make_checkpoint(number, &staging, &dir)?;
        {
            let mut c = self.checkpoint_state.lock();
            c.since_checkpoint = 0;
            c.covered = covered;
        }
        self.persist()
    }

    fn make_checkpoint(&self, number: u64, staging: &Path, dir: &Path) -> Result<()> {
        let say = || dir.display().to_string();
        self.shared.meta.checkpoint(staging)?;
        if staging.exists() {
            std::fs::rename(staging, dir).map_err(Error::io("naming checkpoint", say()))?;
            // The name is taken, whatever fails from here on.
            self.checkpoint_state.lock().number = number;
            flush(&self.checkpoints)?;
            self.remove_old_checkpoints(dir);
        }
        Ok(())
    }

    /// Removes what lies beside the newest checkpoint. What stays costs space and is tried again: the new one is complete, and the journals that it makes
    /// superfluous can go.
    fn remove_old_checkpoints(&self, newest: &Path) {
        let warn = |e: std::io::Error, path: &Path| {
            tracing::warn!(path = %path.display(), error = %e, "old checkpoint not removed");
        };
        match std::fs::read_dir(&self.checkpoints) {
            Ok(entries) => {
                for old in entries.flatten().map(|e| e.path()).filter(|path| path != newest) {
                    std::fs::remove_dir_all(&old).unwrap_or_else(|e| warn(e, &old));
                }
            }
            Err(e) => warn(e, &self.checkpoints),
        }
    }
}

/// The state whose journal positions are meant. A VE whose state was replaced counts them from 0 again, in another slot.
fn state_of(ve: &Ve) -> (Lineage, VeId) {
    (ve.identity().lineage, ve.slot())
}

#[cfg(test)]
#[path = "shared_tests.rs"]
mod tests;
