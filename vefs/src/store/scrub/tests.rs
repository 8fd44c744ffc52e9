#![allow(clippy::unwrap_used)]

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::Options;
use crate::Ve;
use crate::base::{Attrs, BaseBuilder};
use crate::change::Settings;
use crate::clock::ManualClock;
use crate::entropy::SeededEntropy;
use crate::format::segment::DATA_START;
use crate::meta::{MemoryMeta, MetaStore, Scan};
use crate::object::ObjectStore;
use crate::op::{Op, Owner, Reply};
use crate::storage::Storage;
use crate::storage::memory::MemStorage;
use crate::store::Parts;
use crate::types::mode;
use crate::ve::Request;

/// A store with something in every part.
struct Bed {
    storage: Arc<MemStorage>,
    meta: Arc<MemoryMeta>,
    clock: Arc<ManualClock>,
    store: Option<Arc<Store>>,
    starts: u64,
}

fn bytes(n: usize, salt: u8) -> Bytes {
    (0..n).map(|i| (i as u32).wrapping_mul(0x9e37_79b9).to_le_bytes()[2] ^ salt).collect::<Vec<u8>>().into()
}

fn file(ve: &Ve, dir: InodeNo, name: &[u8], perm: u32, content: &Bytes) -> InodeNo {
    let (name, owner) = (name.to_vec(), Owner::default());
    let create = Op::Create { parent: dir, name, mode: mode::IFREG | perm, rdev: 0, owner };
    let Reply::Inode(ino, _) = ve.execute(&create, Request::default()).unwrap() else { panic!("no inode") };
    let write = Op::Write { ino, offset: 0, data: content.clone(), kill_priv: false };
    ve.execute(&write, Request::default()).unwrap();
    ino
}

impl Bed {
    fn open(&mut self) -> Arc<Store> {
        self.store = None;
        self.starts += 1;
        let parts = Parts {
            storage: self.storage.clone(),
            meta: self.meta.clone(),
            clock: self.clock.clone(),
            entropy: Arc::new(SeededEntropy::new(self.starts << 32)),
            checkpoints: PathBuf::from("/nonexistent-checkpoints"),
            options: Options { segment_min: 64 << 10, segment_max: 64 << 10, reserve: 0, ..Options::default() },
        };
        let store = Arc::new(Store::open_with(parts).unwrap());
        store.open_all().unwrap();
        self.store = Some(store.clone());
        store
    }

    fn new() -> Bed {
        let (storage, clock) = (Arc::new(MemStorage::new()), Arc::new(ManualClock::default()));
        Store::create_on(&*storage, &*clock, &SeededEntropy::new(7)).unwrap();
        let mut bed = Bed { storage, meta: Arc::default(), clock, store: None, starts: 0 };
        let store = bed.open();
        let mut tree = BaseBuilder::new(ObjectStore::new(bed.storage.clone()));
        let attrs = Attrs { mode: mode::IFREG | 0o755, ..Attrs::default() };
        let content = tree.add_content(&mut &bytes(100_000, 1)[..], true, false).unwrap();
        tree.add_file(BaseBuilder::ROOT, b"base", &attrs, content).unwrap();
        let ve = store.create_ve(VeId(1), tree.finish().unwrap(), Settings::default()).unwrap();
        let (dir, owner) = (b"dir".to_vec(), Owner::default());
        let mkdir = Op::Create { parent: InodeNo::ROOT, name: dir, mode: mode::IFDIR | 0o755, rdev: 0, owner };
        let Reply::Inode(dir, _) = ve.execute(&mkdir, Request::default()).unwrap() else { panic!("no inode") };
        file(&ve, dir, b"small", 0o644, &bytes(3_000, 2));
        file(&ve, dir, b"bulk", 0o644, &bytes(200_000, 3));
        file(&ve, dir, b"program", 0o755, &bytes(300_000, 4));
        ve.publish().unwrap();
        bed.clock.advance(Duration::from_secs(100));
        store.housekeep(Duration::from_secs(10)).unwrap();
        ve.publish().unwrap();
        file(&ve, dir, b"late", 0o644, &bytes(2_000, 5));
        ve.commit().unwrap();
        store.persist().unwrap();
        bed
    }

    fn flip(&self, path: &str, at: u64) {
        let file = self.storage.open(path).unwrap();
        let mut byte = [0];
        file.read_at(&mut byte, at).unwrap();
        file.write_at(&[IoSlice::new(&[byte[0] ^ 0x10])], at).unwrap();
    }

    /// File and offset of the payload of this length.
    fn place_of(&self, len: u64) -> (String, u64) {
        let mut found = None;
        let mut each = |k: &[u8], v: &[u8]| {
            let (_, place) = rows::parse_place(k, v).unwrap();
            if place.len == len {
                found = Some((crate::content::extent_file::path(VeId(1), place.file), place.offset));
            }
            Scan::Next
        };
        self.meta.scan(Table::Places, &[], &[0xff; 64], &mut each).unwrap();
        found.unwrap()
    }

    fn paths(&self, begin: &str, end: &str) -> Vec<String> {
        let all = self.storage.files().into_keys().map(|p| p.to_string());
        let found: Vec<_> = all.filter(|p| p.starts_with(begin) && p.ends_with(end)).collect();
        assert!(!found.is_empty(), "nothing in {begin}");
        found
    }
}

fn pass(store: &Store, budget: u64) -> Scrub {
    let mut scrub = store.scrub_begin().unwrap();
    while scrub.is_running() {
        scrub = store.scrub_step(budget).unwrap();
    }
    scrub
}

/// The one thing that is damaged.
fn only(scrub: &Scrub) -> &Bad {
    assert_eq!((scrub.found, scrub.damage.len()), (1, 1), "{:?}", scrub.damage);
    &scrub.damage[0]
}

fn read_paths(bad: &Bad) -> Vec<String> {
    bad.readers.iter().map(|r| String::from_utf8(r.path.clone().unwrap_or_default()).unwrap()).collect()
}

/// Checks G24: a pass reads everything, however small its steps are, and finds nothing where nothing is wrong.
#[test]
fn a_pass_goes_through_all_parts_in_small_steps_and_over_restarts() {
    let mut bed = Bed::new();
    let store = bed.store.clone().unwrap();
    let whole = pass(&store, u64::MAX);
    assert_eq!((whole.pass, whole.found, whole.damage.len()), (1, 0, 0));
    assert!(whole.bytes > 600_000 && whole.ended.is_some(), "{whole:?}");
    drop(store);
    let mut store = bed.open();
    let mut parts = Vec::new();
    let mut scrub = store.scrub_begin().unwrap();
    while scrub.is_running() {
        if !parts.contains(&scrub.part) {
            parts.push(scrub.part);
            drop(store);
            store = bed.open();
            assert_eq!(store.scrub_status().unwrap(), scrub, "it stands in its row");
        }
        scrub = store.scrub_step(1).unwrap();
    }
    assert_eq!(parts, [Part::Trees, Part::Objects, Part::Payloads, Part::Journals, Part::Rows]);
    assert_eq!((scrub.pass, scrub.found), (2, 0));
    assert!(scrub.bytes >= whole.bytes, "{scrub:?} {whole:?}");
    assert_eq!(store.scrub_step(1).unwrap(), scrub, "nothing happens between passes");
}

/// Checks G24: a flipped bit anywhere in what is used is found, with the files that read it, and forgotten when it is whole again.
#[test]
fn a_flipped_bit_of_every_kind_of_file_is_found() {
    let bed = Bed::new();
    let store = bed.store.clone().unwrap();
    let mut places = Vec::new();
    let all = |k: &[u8], v: &[u8]| {
        let (id, place) = rows::parse_place(k, v).unwrap();
        places.push((crate::content::extent_file::path(VeId(1), place.file), place.offset, place.len, id));
        Scan::Next
    };
    let mut all = all;
    bed.meta.scan(Table::Places, &[], &[0xff; 64], &mut all).unwrap();
    assert!(places.len() >= 2);
    let mut spots: Vec<(String, u64)> = Vec::new();
    for path in bed.paths("objects/", "").into_iter().chain(bed.paths("bases/", "")) {
        let len = bed.storage.open(&path).unwrap().len().unwrap();
        spots.extend([0, len / 2, len - 1].map(|at| (path.clone(), at)));
    }
    for (path, offset, len, _) in &places {
        spots.extend([*offset, offset + len / 2, offset + len - 1].map(|at| (path.clone(), at)));
    }
    for path in bed.paths("ves/00000001/journal/", "") {
        // The first frame's header and body; a file that nothing was written to is no journal yet.
        let mut begin = [0; 4];
        bed.storage.open(&path).unwrap().read_at(&mut begin, DATA_START).unwrap();
        if begin != [0; 4] {
            spots.extend([DATA_START, DATA_START + 40, DATA_START + 80].map(|at| (path.clone(), at)));
        }
    }
    for (path, at) in spots {
        bed.flip(&path, at);
        let scrub = pass(&store, 100_000);
        assert!(scrub.found >= 1, "byte {at} of {path} flipped unnoticed");
        bed.flip(&path, at);
        let after = pass(&store, u64::MAX);
        assert_eq!((after.found, &after.damage[..]), (0, &[][..]), "byte {at} of {path} put back");
    }
}

#[test]
fn readers_of_a_damaged_thing_are_named() {
    let bed = Bed::new();
    let store = bed.store.clone().unwrap();
    let ve = store.ve(VeId(1)).unwrap();
    let (dir, _) = ve.lookup(InodeNo::ROOT, b"dir").unwrap();
    let (program, _) = ve.lookup(dir.ino, b"program").unwrap();
    let sealed = Hash::of(&bytes(300_000, 4));
    let body = ObjectStore::body_path(sealed);
    bed.flip(&body, 5);
    let scrub = pass(&store, u64::MAX);
    let bad = scrub.damage.iter().find(|bad| bad.thing == Thing::Object(sealed)).unwrap();
    assert_eq!(read_paths(bad), ["/dir/program"]);
    assert_eq!(bad.readers[0].ino, program.ino);
    bed.flip(&body, 5);
    let (path, offset) = bed.place_of(3_000);
    bed.flip(&path, offset + 100);
    let scrub = pass(&store, u64::MAX);
    assert!(matches!(only(&scrub).thing, Thing::Payload(VeId(1), _)), "{scrub:?}");
    assert_eq!(read_paths(only(&scrub)), ["/dir/small"]);
}

/// A root that nests directories without end made the names of damaged files as long as it liked, and all of them were held: now the end of such
/// a name is told.
#[test]
fn of_a_name_without_end_the_end_is_told() {
    let bed = Bed::new();
    let store = bed.store.clone().unwrap();
    let ve = store.ve(VeId(1)).unwrap();
    let mut dir = InodeNo::ROOT;
    for _ in 0..100 {
        let (name, owner) = (vec![b'd'; 200], Owner::default());
        let mkdir = Op::Create { parent: dir, name, mode: mode::IFDIR | 0o755, rdev: 0, owner };
        let Reply::Inode(ino, _) = ve.execute(&mkdir, Request::default()).unwrap() else { panic!("no inode") };
        dir = ino;
    }
    file(&ve, dir, b"deep", 0o644, &bytes(2_500, 6));
    ve.commit().unwrap();
    ve.publish().unwrap();
    let place = bed.place_of(2_500);
    bed.flip(&place.0, place.1 + 100);
    let told = read_paths(only(&pass(&store, u64::MAX))).remove(0);
    assert!(told.starts_with("…/ddd") && told.ends_with("d/deep") && told.len() <= 4096 + "…".len(), "{told}");
}

/// A damaged object, and one that is gone, are put back from good bytes and from no others.
#[test]
fn an_object_is_repaired_from_its_own_bytes_only() {
    let bed = Bed::new();
    let store = bed.store.clone().unwrap();
    let ve = store.ve(VeId(1)).unwrap();
    let good = bytes(100_000, 1);
    let hash = Hash::of(&good);
    let (base, _) = ve.lookup(InodeNo::ROOT, b"base").unwrap();
    let read = || ve.read(base.ino, 0, 100_000);
    bed.flip(&ObjectStore::body_path(hash), 70_000);
    assert_eq!(only(&pass(&store, u64::MAX)).thing, Thing::Object(hash));
    assert!(read().is_err());
    assert!(store.repair_object(hash, &mut &bytes(100_000, 9)[..]).is_err());
    assert!(read().is_err(), "wrong bytes change nothing");
    store.repair_object(hash, &mut &good[..]).unwrap();
    assert!(store.scrub_status().unwrap().damage.is_empty());
    assert_eq!(read().unwrap(), good);
    assert_eq!(pass(&store, u64::MAX).found, 0);
    bed.storage.remove(&ObjectStore::body_path(hash)).unwrap();
    let scrub = pass(&store, u64::MAX);
    assert!(scrub.damage.iter().any(|bad| bad.thing == Thing::Object(hash)), "{scrub:?}");
    store.repair_object(hash, &mut &good[..]).unwrap();
    assert_eq!(pass(&store, u64::MAX).found, 0);
}

/// A damaged base tree is put back from its own bytes and from no others; what is listed goes with it.
#[test]
fn a_tree_is_repaired_from_its_own_bytes_only() {
    let bed = Bed::new();
    let store = bed.store.clone().unwrap();
    let path = bed.paths("bases/", ".tree").remove(0);
    let file = bed.storage.open(&path).unwrap();
    let mut good = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut good, 0).unwrap();
    bed.flip(&path, good.len() as u64 / 2);
    let scrub = pass(&store, u64::MAX);
    let Thing::Tree(hash) = only(&scrub).thing else { panic!("{scrub:?}") };
    let copy = |bytes: &[u8]| {
        let mut copy = store.copy_tree().unwrap();
        bytes.chunks(1000).for_each(|part| copy.write(part).unwrap());
        copy
    };
    assert!(store.repair_tree(hash, copy(&good[1..])).is_err());
    assert_eq!(pass(&store, u64::MAX).found, 1, "wrong bytes change nothing");
    store.repair_tree(hash, copy(&good)).unwrap();
    assert!(store.scrub_status().unwrap().damage.is_empty());
    assert_eq!(pass(&store, u64::MAX).found, 0);
}
