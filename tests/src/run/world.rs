//! What outlives the process of a store under test, and the ways in which the process ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vefs::Result;
use vefs::clock::ManualClock;
use vefs::entropy::SeededEntropy;
use vefs::meta::{MetaStore, RocksMeta};
use vefs::storage::Storage;
use vefs::storage::disk::DiskStorage;
use vefs::storage::memory::MemStorage;
use vefs::store::{Options, Parts, Store};

use super::fuse::{Fuse, Fused};
use super::meta::CrashMeta;
use crate::crash::Recorder;
use crate::opgen::Rng;

/// A store's surroundings.
pub trait World {
    /// Starts a process on what is there.
    fn open(&mut self) -> Result<Arc<Store>>;
    /// The process is about to end: the last chance to see what it leaves.
    fn dying(&mut self, _rng: &mut Rng) {}
    /// The process is gone, the machine is not: files keep what was written, metadata what was durable and perhaps more. The
    /// store and everything of it are dropped before. Says what was lost.
    fn kill(&mut self, rng: &mut Rng) -> String;
    /// Loses the metadata but for the last checkpoint; false where that is not simulated.
    fn lose_metadata(&mut self) -> bool;
    /// The power went as well; `None` where that is not simulated.
    fn cut(&mut self, rng: &mut Rng) -> Option<String>;
    /// The clock that operations are carried out by.
    fn clock(&self) -> &Arc<ManualClock>;
    /// What makes the process die in the middle of something.
    fn fuse(&self) -> &Arc<Fuse>;
}

/// Everything in memory, on a disk that remembers what was flushed.
pub struct Simulated {
    disk: Arc<Recorder>,
    meta: Arc<CrashMeta>,
    clock: Arc<ManualClock>,
    fuse: Arc<Fuse>,
    options: Options,
    checkpoints: tempfile::TempDir,
    entropy: u64,
}

impl Simulated {
    /// A new store.
    pub fn create(seed: u64, options: Options) -> Result<Simulated> {
        let disk = Arc::new(Recorder::new(&MemStorage::new()));
        let clock = Arc::new(ManualClock::default());
        Store::create_on(&*disk, &*clock, &SeededEntropy::new(seed))?;
        let fuse = Arc::new(Fuse::default());
        let meta = Arc::new(CrashMeta::new(fuse.clone()));
        let checkpoints = tempfile::tempdir().map_err(vefs::Error::io("creating", "temporary folder"))?;
        Ok(Simulated { disk, meta, clock, fuse, options, checkpoints, entropy: seed })
    }

    /// The metadata as it is.
    pub fn meta(&self) -> &Arc<CrashMeta> {
        &self.meta
    }

    fn crash_meta(&mut self, rng: &mut Rng) -> String {
        let pending = self.meta.pending();
        let keep = match rng.below(3) {
            0 => 0,
            1 => pending,
            _ => rng.below(pending as u64 + 1) as usize,
        };
        self.meta = Arc::new(self.meta.after_crash(keep));
        format!("{keep} of {pending} batches of metadata")
    }
}

impl World for Simulated {
    fn open(&mut self) -> Result<Arc<Store>> {
        self.entropy = self.entropy.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
        let parts = Parts {
            storage: Arc::new(Fused::new(self.disk.clone(), self.fuse.clone())),
            meta: self.meta.clone(),
            clock: self.clock.clone(),
            entropy: Arc::new(SeededEntropy::new(self.entropy)),
            checkpoints: self.checkpoints.path().to_owned(),
            options: self.options.clone(),
        };
        Ok(Arc::new(Store::open_with(parts)?))
    }

    fn kill(&mut self, rng: &mut Rng) -> String {
        self.fuse.disarm();
        if rng.percent(30) {
            // As if long ago: everything written has reached the disk, and the record begins anew.
            self.disk = Arc::new(Recorder::new(&self.disk.now()));
        }
        self.crash_meta(rng)
    }

    fn lose_metadata(&mut self) -> bool {
        self.meta = Arc::new(self.meta.from_checkpoint());
        true
    }

    fn cut(&mut self, rng: &mut Rng) -> Option<String> {
        self.fuse.disarm();
        let log = self.disk.log();
        let states = self.disk.states(&log).seed(rng.next_u64()).per_class(2).at_the_end();
        let all: Vec<_> = states.collect();
        let count = all.len() as u64;
        let state = all.into_iter().nth(rng.below(count.max(1)) as usize)?;
        self.disk = Arc::new(Recorder::new(&state.storage));
        let meta = self.crash_meta(rng);
        Some(format!("{:?}, {}; {meta}", state.class, state.description))
    }

    fn clock(&self) -> &Arc<ManualClock> {
        &self.clock
    }

    fn fuse(&self) -> &Arc<Fuse> {
        &self.fuse
    }
}

/// A folder of the machine's own file system with RocksDB. A kill either drops the process's handles without closing the store, or
/// goes on in a copy of the folder that was made while the process still ran.
pub struct OnDisk {
    root: tempfile::TempDir,
    number: u64,
    clock: Arc<ManualClock>,
    fuse: Arc<Fuse>,
    options: Options,
    entropy: u64,
}

impl OnDisk {
    /// A new store in a new folder.
    pub fn create(seed: u64, options: Options) -> Result<OnDisk> {
        let root = tempfile::tempdir().map_err(vefs::Error::io("creating", "temporary folder"))?;
        let world = OnDisk { root, number: 0, clock: Arc::default(), fuse: Arc::default(), options, entropy: seed };
        Store::create(&world.path())?;
        Ok(world)
    }

    fn path(&self) -> PathBuf {
        self.root.path().join(self.number.to_string())
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// All files below a folder with their lengths.
fn listing(folder: &Path) -> std::collections::BTreeMap<PathBuf, u64> {
    let mut all = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(m) if m.is_dir() => all.extend(listing(&entry.path())),
            Ok(m) => drop(all.insert(entry.path(), m.len())),
            Err(_) => drop(all.insert(entry.path(), u64::MAX)),
        }
    }
    all
}

impl World for OnDisk {
    fn open(&mut self) -> Result<Arc<Store>> {
        self.entropy = self.entropy.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
        let path = self.path();
        let io = vefs::Error::io("opening", path.display().to_string());
        let storage: Arc<dyn Storage> = Arc::new(DiskStorage::open(&path).map_err(io)?);
        let meta: Arc<dyn MetaStore> = Arc::new(RocksMeta::open(&path.join("meta"))?);
        let parts = Parts {
            storage: Arc::new(Fused::new(storage, self.fuse.clone())),
            meta,
            clock: self.clock.clone(),
            entropy: Arc::new(SeededEntropy::new(self.entropy)),
            checkpoints: path.join("checkpoints"),
            options: self.options.clone(),
        };
        Ok(Arc::new(Store::open_with(parts)?))
    }

    fn dying(&mut self, rng: &mut Rng) {
        if rng.percent(50) {
            let from = self.path();
            self.number += 1;
            let to = self.path();
            // RocksDB may still be tidying up behind the last call: only a copy of a folder at rest is what a kill leaves.
            for _ in 0..100 {
                let before = listing(&from);
                let copied = copy(&from, &to);
                if copied.is_ok() && before == listing(&from) {
                    return;
                }
                let _ = std::fs::remove_dir_all(&to);
            }
            panic!("the store's folder does not come to rest");
        }
    }

    fn kill(&mut self, _rng: &mut Rng) -> String {
        self.fuse.disarm();
        if let Some(old) = self.number.checked_sub(1) {
            let _ = std::fs::remove_dir_all(self.root.path().join(old.to_string()));
        }
        "what was not closed".to_owned()
    }

    fn lose_metadata(&mut self) -> bool {
        false
    }

    fn cut(&mut self, _rng: &mut Rng) -> Option<String> {
        None
    }

    fn clock(&self) -> &Arc<ManualClock> {
        &self.clock
    }

    fn fuse(&self) -> &Arc<Fuse> {
        &self.fuse
    }
}
