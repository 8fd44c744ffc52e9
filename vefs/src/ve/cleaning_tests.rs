use std::io::ErrorKind;
use std::sync::Arc;

use super::*;
use crate::ids::InodeNo;
use crate::meta::MemoryMeta;
use crate::storage::fault::{Call, FaultPlan, FaultStorage};
use crate::storage::memory::MemStorage;
use crate::storage::{File, Storage};
use crate::store::Store;
use crate::store::bed::{self, VE};
use crate::ve::Retention;

/// Nothing but the present state.
const NOW: Retention = Retention { steps: Vec::new() };
const LEN: u64 = 400_000;

struct Bed {
    plan: Arc<FaultPlan>,
    store: Store,
    ve: Arc<Ve>,
    /// Each in an extent file of its own, of which most is dead.
    files: Vec<InodeNo>,
}

fn bed(files: usize) -> Bed {
    let plan = FaultPlan::new();
    let storage = FaultStorage::new(Arc::new(MemStorage::new()), plan.clone());
    let store = bed::on(Arc::new(storage), Arc::new(MemoryMeta::default()));
    let ve = bed::create_ve(&store, VE);
    let files: Vec<_> = (0..files)
        .map(|n| {
            let ino = bed::create(&ve, &format!("f{n}"));
            (0..4).for_each(|part| bed::write(&ve, ino, part * LEN / 4, vec![n as u8; LEN as usize / 4]).unwrap());
            ino
        })
        .collect();
    ve.commit().unwrap();
    // The bodies end: what comes is written elsewhere.
    files.iter().for_each(|ino| ve.state.lock().files.end_body(*ino));
    for (n, ino) in files.iter().enumerate() {
        bed::write(&ve, *ino, 0, vec![n as u8; 3 * LEN as usize / 4]).unwrap();
    }
    ve.publish().unwrap();
    Bed { plan, store, ve, files }
}

impl Bed {
    /// Extent files that rows name.
    fn named(&self) -> BTreeSet<u64> {
        let mut named = BTreeSet::new();
        let each = &mut |k: &[u8], v: &[u8]| {
            named.insert(rows::parse_place(k, v)?.1.file);
            Ok(())
        };
        self.ve.each(Table::Places, each).unwrap();
        named
    }

    fn all_read(&self) {
        for (n, ino) in self.files.iter().enumerate() {
            assert_eq!(self.ve.read(*ino, 0, LEN as usize).unwrap(), vec![n as u8; LEN as usize]);
        }
    }
}

/// A file was called garbage when its live bytes had been copied, before any row named the copies. The collection failed then, and the file stayed
/// garbage (checks G26).
#[test]
fn a_collection_that_breaks_off_calls_nothing_garbage_that_is_named() {
    let mut failed = 0;
    for nth in 1.. {
        let bed = bed(3);
        bed.plan.fail(Call::Write, nth, ErrorKind::StorageFull);
        let done = bed.ve.collect(&NOW);
        bed.plan.heal();
        let garbage: BTreeSet<u64> = bed.ve.state.lock().garbage.iter().copied().collect();
        assert!(garbage.is_disjoint(&bed.named()), "{garbage:?} after write {nth} failed");
        if done.is_ok() {
            assert_eq!(garbage.len(), 3);
            break;
        }
        assert!(garbage.is_empty());
        failed += 1;
        bed.store.collect_garbage(&NOW).unwrap();
        bed.all_read();
    }
    assert!(failed >= 3, "{failed}");
}

/// One payload that did not read back ended the collection of the whole VE, each time: it filled up (checks G33).
#[test]
fn an_extent_file_that_does_not_read_stops_no_other() {
    let bed = bed(3);
    let hit = {
        let mut s = bed.ve.state.lock();
        let number = *s.files.closed().lengths().unwrap().keys().nth(1).unwrap();
        let file = s.files.file(number).unwrap();
        file.write_at(&[std::io::IoSlice::new(&[0xff; 100])], file.len().unwrap() - 100).unwrap();
        number
    };
    for _ in 0..2 {
        let before = bed.ve.state.lock().files.appended();
        bed.ve.collect(&NOW).unwrap();
        let s = bed.ve.state.lock();
        assert!(s.garbage.len() == 2 && !s.garbage.contains(&hit), "{:?}", s.garbage);
        // What is copied in vain would be garbage of its own.
        assert!(s.files.appended() - before <= 3);
    }
    assert!(bed.named().contains(&hit));
    bed.store.collect_garbage(&NOW).unwrap();
    bed.ve.read(bed.files[0], 0, LEN as usize).unwrap();
    bed.ve.read(bed.files[2], 0, LEN as usize).unwrap();
}

/// An extent file without a byte, as a crash leaves it, stayed for ever: none of it was less than half alive.
#[test]
fn an_empty_extent_file_goes() {
    let bed = bed(1);
    // The first number went to a body: no packed file has it.
    let path = crate::content::extent_file::path(VE, 1);
    bed.store.storage().create(&path, 0).unwrap();
    bed.store.collect_garbage(&NOW).unwrap();
    assert_eq!(bed.store.storage().open(&path).err().map(|e| e.kind()), Some(ErrorKind::NotFound));
    bed.all_read();
}

/// A state was replaced while its collection made a checkpoint, and its slot went to another state, whose files have numbers from 1 on, too: what was garbage of
/// the one was removed of the other (checks G26).
#[test]
fn nothing_is_removed_of_a_state_that_was_replaced() {
    let bed = bed(3);
    bed.ve.collect(&NOW).unwrap();
    let garbage = bed.ve.take_garbage();
    assert!(!garbage.is_empty());
    bed.ve.retire("its state was replaced", bed.ve.epoch()).unwrap();
    assert!(bed.ve.remove_files(&garbage).is_err());
    let there = |n: &u64| bed.store.storage().open(&crate::content::extent_file::path(VE, *n)).is_ok();
    assert!(garbage.iter().all(there));
}

/// Looks whether a VE is locked while its extent files are listed and removed.
#[derive(Default)]
struct Watched {
    below: MemStorage,
    ve: std::sync::OnceLock<std::sync::Weak<Ve>>,
    /// Calls, and those with the VE locked.
    calls: std::sync::atomic::AtomicUsize,
    locked: std::sync::atomic::AtomicUsize,
}

impl Watched {
    fn look(&self, path: &str) {
        let Some(ve) = self.ve.get().and_then(std::sync::Weak::upgrade).filter(|_| path.contains("extents")) else {
            return;
        };
        self.calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if ve.state.try_lock().is_none() {
            self.locked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

impl Storage for Arc<Watched> {
    fn open(&self, path: &str) -> std::io::Result<Arc<dyn File>> {
        self.below.open(path)
    }

    fn create(&self, path: &str, zeros: u64) -> std::io::Result<Arc<dyn File>> {
        self.below.create(path, zeros)
    }

    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.below.rename(from, to)
    }

    fn remove(&self, path: &str) -> std::io::Result<()> {
        self.look(path);
        self.below.remove(path)
    }

    fn list(&self, dir: &str) -> std::io::Result<Vec<String>> {
        self.look(dir);
        self.below.list(dir)
    }

    fn sync_dir(&self, dir: &str) -> std::io::Result<()> {
        self.below.sync_dir(dir)
    }

    fn sync_all(&self) -> std::io::Result<()> {
        self.below.sync_all()
    }

    fn free_bytes(&self) -> std::io::Result<u64> {
        self.below.free_bytes()
    }
}

/// A collection opened every extent file of a VE, and removed those that were free, with the VE locked: with half a million files of 100 KB the VE stood still for
/// seconds each minute, and the tick, which looks at every VE, with it.
#[test]
fn a_ve_is_not_locked_while_its_extent_files_are_looked_at() {
    let storage = Arc::new(Watched::default());
    let store = bed::on(Arc::new(storage.clone()), Arc::new(MemoryMeta::default()));
    let ve = bed::create_ve(&store, VE);
    for n in 0..4 {
        let ino = bed::create(&ve, &format!("f{n}"));
        bed::write(&ve, ino, 0, vec![n; LEN as usize]).unwrap();
        ve.commit().unwrap();
        ve.state.lock().files.end_body(ino);
        bed::write(&ve, ino, 0, vec![n + 1; LEN as usize]).unwrap();
        ve.commit().unwrap();
    }
    storage.ve.set(Arc::downgrade(&ve)).unwrap();
    store.collect_garbage(&NOW).unwrap();
    let count = |n: &std::sync::atomic::AtomicUsize| n.load(std::sync::atomic::Ordering::Relaxed);
    assert!(count(&storage.calls) >= 3, "listed once, and some removed: {}", count(&storage.calls));
    assert_eq!(count(&storage.locked), 0);
}
