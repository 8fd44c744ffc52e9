//! A store in memory for tests: killed, cut from power and opened again at will.

use std::path::PathBuf;
use std::sync::Arc;

use vefs::change::Settings;
use vefs::clock::{Clock, ManualClock};
use vefs::entropy::SeededEntropy;
use vefs::errno::Errno;
use vefs::ids::{Hash, VeId};
use vefs::meta::MemoryMeta;
use vefs::op::{Op, Reply};
use vefs::storage::Storage;
use vefs::store::{Options, Parts, Store};
use vefs::{Result, Ve};

/// Sizes small enough that a short run rolls over segments, moves payloads and cleans files.
pub fn small_options() -> Options {
    Options {
        segment_min: 64 << 10,
        segment_max: 1 << 20,
        extent_target: 256 << 10,
        overlay_soft: 256 << 10,
        overlay_hard: 1 << 20,
        extents_most: Options::default().extents_most,
        recovery_memory: 64 << 10,
        persist_bytes: 512 << 10,
        checkpoint_bytes: 2 << 20,
        cursor_bytes: 16 << 20,
        reserve: 0,
        flush_files_max: 2,
        rebuild: false,
    }
}

/// [`small_options`] with which nearly every operation that takes extents away happens in parts. A crash in between leaves a part.
pub fn piecemeal_options() -> Options {
    Options { extents_most: 3, ..small_options() }
}

/// What an operation with this answer did: a copy may copy less than it was asked for.
pub fn as_answered(op: &Op, answer: &std::result::Result<Reply, Errno>) -> Op {
    match (op, answer) {
        (Op::CopyRange { src, src_offset, dst, dst_offset, len }, Ok(Reply::Written(n))) if (1..*len).contains(n) => {
            Op::CopyRange { src: *src, src_offset: *src_offset, dst: *dst, dst_offset: *dst_offset, len: *n }
        }
        _ => op.clone(),
    }
}

/// The parts of a simulated store that outlive its process.
pub struct World {
    /// Its files.
    pub storage: Arc<dyn Storage>,
    /// Its metadata.
    pub meta: Arc<MemoryMeta>,
    /// Its clock.
    pub clock: Arc<ManualClock>,
    seed: u64,
    /// Its sizes.
    pub options: Options,
}

impl World {
    /// A new store on a storage.
    pub fn create(storage: Arc<dyn Storage>, seed: u64, options: Options) -> Result<World> {
        let clock = Arc::new(ManualClock::default());
        Store::create_on(&*storage, &*clock, &SeededEntropy::new(seed))?;
        Ok(World { storage, meta: Arc::default(), clock, seed, options })
    }

    /// A store that is there already, its metadata gone.
    pub fn attach(storage: Arc<dyn Storage>, seed: u64, options: Options) -> World {
        World { storage, meta: Arc::default(), clock: Arc::default(), seed, options }
    }

    /// Opens the store, as a process that starts.
    pub fn open(&mut self) -> Result<Arc<Store>> {
        // Not the generator's own constant: from seed 0 each life drew the numbers of the one before, one place on, and a new journal
        // segment could take the name of one in use.
        self.seed = self.seed.wrapping_mul(0xD134_2543_DE82_EF95).wrapping_add(1);
        let parts = Parts {
            storage: self.storage.clone(),
            meta: self.meta.clone(),
            clock: self.clock.clone(),
            entropy: Arc::new(SeededEntropy::new(self.seed)),
            checkpoints: PathBuf::from("/nonexistent-checkpoints"),
            options: self.options.clone(),
        };
        Ok(Arc::new(Store::open_with(parts)?))
    }

    /// The metadata store forgets what it has not persisted, as when its process is killed.
    pub fn lose_unpersisted(&mut self) {
        self.meta = Arc::new(self.meta.after_crash());
    }

    /// The time operations happen at.
    pub fn now(&self) -> vefs::clock::Timestamp {
        self.clock.wall()
    }
}

/// Creates a VE over the empty tree with the model's quota.
pub fn create_ve(store: &Store, id: u32, quota_bytes: u64, quota_inodes: u64) -> Result<Arc<Ve>> {
    let settings = Settings { quota_bytes, quota_inodes, ..Settings::default() };
    store.create_ve(VeId(id), empty_tree(), settings)
}

/// The hash of the tree of one empty directory.
pub fn empty_tree() -> Hash {
    vefs::base::BaseTree::empty().hash()
}
