//! The files of the real metadata store: copies of a whole store folder at many moments, its metadata cut back to its last
//! persist, cut off in the middle of a file, or gone.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aspfs_tests::crashrun::probe::Probe;
use aspfs_tests::crashrun::world::{VE, both, tiny_options};
use aspfs_tests::harness::create_ve;
use aspfs_tests::model::Model;
use aspfs_tests::opgen::{Rng, next_op};
use tempfile::TempDir;
use vefs::clock::ManualClock;
use vefs::entropy::SystemEntropy;
use vefs::meta::RocksMeta;
use vefs::storage::disk::DiskStorage;
use vefs::store::{Options, Parts};
use vefs::ve::Retention;
use vefs::{Error, Store, Ve};

const QUOTA: (u64, u64) = (8 << 20, 300);

/// Names and lengths of a folder's files.
fn listing(folder: &Path) -> BTreeMap<OsString, u64> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries.filter_map(|e| Some((e.file_name(), e.metadata().ok()?.len()))).collect()
}

/// Copies the folder of running metadata as it lies at one moment. RocksDB compacts of its own accord: a manifest from before and
/// tables from after that are no state that a kill can leave, and a slow machine once copied just that.
fn copy_running(from: &Path, to: &Path) {
    loop {
        let before = listing(from);
        copy(from, to);
        if listing(from) == before && listing(to) == before {
            return;
        }
        std::fs::remove_dir_all(to).unwrap();
    }
}

/// Copies a folder as it lies there. What goes while it is copied is left out.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if let Err(e) = std::fs::copy(entry.path(), target) {
            assert_eq!(e.kind(), std::io::ErrorKind::NotFound, "{}: {e}", entry.path().display());
        }
    }
}

/// A store on disk, used by one daemon, and what its VE holds.
struct World {
    folder: TempDir,
    store: Store,
    ve: Arc<Ve>,
    clock: Arc<ManualClock>,
    model: Model,
    /// The metadata's files right after its last persist.
    persisted: TempDir,
}

impl World {
    fn new() -> World {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("store");
        Store::create(&path).unwrap();
        let clock = Arc::new(ManualClock::default());
        let parts = Parts {
            storage: Arc::new(DiskStorage::open(&path).unwrap()),
            meta: Arc::new(RocksMeta::open(&path.join("meta")).unwrap()),
            clock: clock.clone(),
            entropy: Arc::new(SystemEntropy),
            checkpoints: path.join("checkpoints"),
            options: Options { persist_bytes: u64::MAX, checkpoint_bytes: u64::MAX, ..tiny_options() },
        };
        let store = Store::open_with(parts).unwrap();
        let ve = create_ve(&store, VE.0, QUOTA.0, QUOTA.1).unwrap();
        let mut world =
            World { folder, store, ve, clock, model: Model::new(QUOTA.0, QUOTA.1), persisted: TempDir::new().unwrap() };
        world.store.persist().unwrap();
        world.keep_meta();
        world
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn keep_meta(&mut self) {
        self.persisted = TempDir::new().unwrap();
        copy_running(&self.path().join("meta"), &self.persisted.path().join("meta"));
    }

    /// A few operations, and what a store does now and then.
    fn go_on(&mut self, rng: &mut Rng) {
        for _ in 0..25 {
            self.clock.advance(Duration::from_millis(5));
            let op = next_op(rng, &self.model);
            both(&self.ve, &mut self.model, &op, &self.clock).unwrap().unwrap();
        }
        match rng.below(7) {
            0 => self.store.tick().unwrap(),
            1 => self.ve.sync().unwrap(),
            2 => self.ve.publish().unwrap(),
            3 => {
                self.ve.publish().unwrap();
                self.store.persist().unwrap();
                self.keep_meta();
            }
            4 => {
                self.store.checkpoint().unwrap();
                self.keep_meta();
            }
            5 => {
                self.store.collect_garbage(&Retention { steps: vec![(1, 0)] }).unwrap();
                self.keep_meta();
            }
            _ => {}
        }
    }

    /// A copy of everything, as a killed daemon leaves it.
    fn killed(&self) -> TempDir {
        let to = TempDir::new().unwrap();
        let copied = to.path().join("store");
        copy(&self.path(), &copied);
        // Nothing but the metadata changes while nobody asks for anything.
        std::fs::remove_dir_all(copied.join("meta")).unwrap();
        copy_running(&self.path().join("meta"), &copied.join("meta"));
        to
    }

    /// What a daemon that starts on a copy finds.
    fn start(&self, copy: &TempDir, rebuild: bool) -> Result<Result<(), String>, Error> {
        let options = Options { rebuild, ..tiny_options() };
        let store = Store::open(&copy.path().join("store"), options)?;
        let ve = store.ve(VE)?;
        Ok(match Probe::new(&ve, &self.model).run() {
            (Ok(()), 0) => Ok(()),
            (found, damaged) => Err(format!("{found:?}, {damaged} reads answered damage")),
        })
    }

    fn must_start(&self, copy: &TempDir, rebuild: bool, what: &str) {
        match self.start(copy, rebuild) {
            Ok(Ok(())) => {}
            other => panic!("{what}: {other:?}"),
        }
    }
}

/// Cuts a file of the metadata off at a drawn point; its name.
fn cut(meta: &Path, rng: &mut Rng) -> Option<String> {
    let wanted = |name: &str| name.ends_with(".sst") || name.starts_with("MANIFEST");
    let mut files: Vec<(PathBuf, u64)> = std::fs::read_dir(meta)
        .unwrap()
        .flatten()
        .filter(|e| e.file_name().to_str().is_some_and(wanted))
        .map(|e| (e.path(), e.metadata().unwrap().len()))
        .filter(|(_, len)| *len > 0)
        .collect();
    files.sort();
    if files.is_empty() {
        return None;
    }
    let (path, len) = &files[files.len() - 1 - rng.below(2.min(files.len() as u64)) as usize];
    let to = rng.below(*len);
    std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(to).unwrap();
    Some(format!("{} cut from {len} to {to}", path.file_name()?.to_string_lossy()))
}

/// Checks G31, G32: whatever becomes of the metadata's files, the state is found or can be rebuilt, or it is said that it cannot be
/// read; never another state.
#[test]
fn metadata_files_may_be_lost() {
    let (seeds, moments) = if crate::nightly() { (12, 60) } else { (2, 14) };
    for seed in 0..seeds {
        let mut world = World::new();
        let mut rng = Rng::new(seed);
        let (mut refused, mut read) = (0, 0);
        for moment in 0..moments {
            let at = format!("seed {seed}, moment {moment}");
            world.go_on(&mut rng);
            let copy_of_all = world.killed();
            world.must_start(&copy_of_all, false, &format!("{at}, killed"));

            let older = world.killed();
            let meta = older.path().join("store/meta");
            std::fs::remove_dir_all(&meta).unwrap();
            copy(&world.persisted.path().join("meta"), &meta);
            world.must_start(&older, false, &format!("{at}, metadata of the last persist"));

            let torn = world.killed();
            if let Some(what) = cut(&torn.path().join("store/meta"), &mut rng) {
                match world.start(&torn, false) {
                    Ok(Ok(())) => read += 1,
                    Ok(Err(wrong)) => panic!("{at}, {what}: {wrong}"),
                    Err(_) => refused += 1,
                }
                world.must_start(&torn, true, &format!("{at}, {what}, rebuilt"));
            }

            let gone = world.killed();
            std::fs::remove_dir_all(gone.path().join("store/meta")).unwrap();
            match world.start(&gone, false) {
                Ok(Ok(())) | Err(Error::Damage { .. }) => {}
                other => panic!("{at}, without metadata: {other:?}"),
            }
            world.must_start(&gone, true, &format!("{at}, without metadata, rebuilt"));
        }
        println!("metadata files, seed {seed}: {moments} moments, cut files {refused} refused, {read} harmless");
    }
}
