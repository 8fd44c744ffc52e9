//! Bad input of a store: each kind of damage is named with its place, and nothing is changed by the attempt.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use aspfs_tests::harness::{World, create_ve, small_options};
use bytes::Bytes;
use vefs::base::{Attrs, BaseBuilder};
use vefs::change::Settings;
use vefs::errno::Errno;
use vefs::ids::{Hash, InodeNo, VeId};
use vefs::meta::{Batch, MetaStore, Table, rows};
use vefs::object::ObjectStore;
use vefs::op::{FallocMode, Op, Owner, SetAttr};
use vefs::state::key::Key;
use vefs::storage::Storage;
use vefs::storage::fault::{Call, FaultPlan, FaultStorage};
use vefs::storage::memory::{Content, MemStorage};
use vefs::types::mode;
use vefs::ve::Request;
use vefs::{Error, Options, Store, Ve};

type Files = BTreeMap<String, Vec<u8>>;

fn files(storage: &MemStorage) -> Files {
    storage.files().into_iter().map(|(path, content)| (path.to_string(), content.to_vec())).collect()
}

fn on_disk(folder: &Path) -> Files {
    let mut out = Files::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match path.is_dir() {
            true => out.extend(on_disk(&path).into_iter().map(|(p, b)| (format!("{name}/{p}"), b))),
            false => drop(out.insert(name, std::fs::read(&path).unwrap())),
        }
    }
    out
}

fn patch(storage: &MemStorage, path: &str, edit: impl FnOnce(&mut Vec<u8>)) -> MemStorage {
    let mut all = storage.files();
    let file = all.get_mut(path).unwrap_or_else(|| panic!("no {path}"));
    let mut bytes = file.to_vec();
    edit(&mut bytes);
    let mut content = Content::default();
    content.write_at(&bytes, 0);
    *file = Arc::new(content);
    MemStorage::from_files(all, storage.folders())
}

fn only(storage: &MemStorage, folder: &str, skip: &str) -> String {
    let found: Vec<_> = storage.files().into_keys().filter(|p| p.starts_with(folder) && !p.ends_with(skip)).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].to_string()
}

/// Puts the checksum at offset 12 right, as the fixed headers have it.
fn reseal(bytes: &mut [u8], len: usize) {
    bytes[12..16].fill(0);
    let crc = vefs::format::record::crc(0, &bytes[..len]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
}

fn create(ve: &Ve, name: &str) -> InodeNo {
    let parent = InodeNo::ROOT;
    let op = Op::Create { parent, name: name.into(), mode: mode::IFREG | 0o644, rdev: 0, owner: Owner::default() };
    match ve.execute(&op, Request::default()).unwrap() {
        vefs::op::Reply::Inode(ino, _) => ino,
        other => panic!("{other:?}"),
    }
}

fn write(ve: &Ve, ino: InodeNo, offset: u64, data: Vec<u8>) {
    ve.execute(&Op::Write { ino, offset, data: Bytes::from(data), kill_priv: false }, Request::default()).unwrap();
}

fn template(storage: Arc<dyn Storage>) -> Hash {
    let mut b = BaseBuilder::new(ObjectStore::new(storage));
    let content = b.add_content(&mut &b"from the template"[..], false, false).unwrap();
    let attrs = Attrs { mode: mode::IFREG | 0o644, ..Attrs::default() };
    b.add_file(BaseBuilder::ROOT, b"base", &attrs, content).unwrap();
    b.finish().unwrap()
}

/// A store with a VE over a template, killed; two synced transactions with a small and a large payload.
fn sample() -> (MemStorage, World) {
    let storage = Arc::new(MemStorage::new());
    let mut world = World::create(storage.clone(), 5, small_options()).unwrap();
    let base = template(storage.clone());
    let store = world.open().unwrap();
    let ve = store.create_ve(VeId(1), base, Settings::default()).unwrap();
    let ino = create(&ve, "file");
    write(&ve, ino, 0, vec![7; 1000]);
    write(&ve, ino, 1 << 20, vec![8; 70_000]);
    ve.commit().unwrap();
    write(&ve, ino, 2000, vec![9; 1000]);
    ve.commit().unwrap();
    drop((ve, store));
    (storage.snapshot(), world)
}

/// What opening the store, its VE, and reading all of it says; the files are as they were.
fn complaint(storage: &MemStorage) -> String {
    let before = files(storage);
    let storage = Arc::new(storage.snapshot());
    let mut world = World::attach(storage.clone(), 9, small_options());
    let tried = world.open().and_then(|store| store.ve(VeId(1)).map(|_| ()));
    let Err(e) = tried else { panic!("the store was opened") };
    assert!(files(&storage) == before, "the attempt changed something ({e})");
    assert_eq!(e.to_errno(), Errno::EIO);
    e.to_string()
}

fn says(text: &str, parts: &[&str]) {
    assert!(parts.iter().all(|p| text.contains(p)), "{text:?} does not say {parts:?}");
}

#[test]
fn what_is_no_store_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("letter"), "dear reader").unwrap();
    let before = on_disk(dir.path());
    let e = Store::open(dir.path(), Options::default()).err().unwrap();
    says(&e.to_string(), &["no store", "superblock"]);
    says(&Store::create(dir.path()).err().unwrap().to_string(), &["not empty"]);
    assert!(on_disk(dir.path()) == before);
    let e = Store::open(&dir.path().join("missing"), Options::default()).err().unwrap();
    says(&e.to_string(), &["missing"]);
}

#[test]
fn a_store_in_use_is_not_opened_twice() {
    let dir = tempfile::tempdir().unwrap();
    Store::create(dir.path()).unwrap();
    let first = Store::open(dir.path(), Options::default()).unwrap();
    let e = Store::open(dir.path(), Options::default()).err().unwrap();
    says(&e.to_string(), &["in use", &dir.path().display().to_string()]);
    drop(first);
    Store::open(dir.path(), Options::default()).unwrap();
}

/// checks G28
#[test]
fn a_store_of_an_unknown_format_stays_untouched() {
    let dir = tempfile::tempdir().unwrap();
    Store::create(dir.path()).unwrap();
    let path = dir.path().join("superblock");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 2;
    reseal(&mut bytes, 64);
    // A later format may be longer.
    bytes.extend_from_slice(&[1; 64]);
    std::fs::write(&path, &bytes).unwrap();
    let before = on_disk(dir.path());
    let e = Store::open(dir.path(), Options::default()).err().unwrap();
    assert!(matches!(e, Error::Format { found: 2, known: 1, .. }), "{e}");
    says(&e.to_string(), &["superblock", "format 2", "knows 1"]);
    assert!(on_disk(dir.path()) == before);
}

/// Each structure of the next format is refused by its number, and nothing is written (checks G28).
#[test]
fn every_structure_of_an_unknown_format_is_named() {
    let (storage, _) = sample();
    let segment = only(&storage, "ves/00000001/journal/", ".none");
    let headers = [("superblock", 64), ("ves/00000001/identity", 112), (segment.as_str(), 96)];
    for (path, len) in headers {
        let changed = patch(&storage, path, |b| {
            b[8] = 2;
            reseal(b, len);
        });
        says(&complaint(&changed), &[path, "format 2", "knows 1"]);
    }
    let tree = only(&storage, "bases/", ".none");
    let changed = patch(&storage, &tree, |b| {
        b[8] = 2;
        let crc = vefs::format::record::crc(0, &b[..92]);
        b[92..96].copy_from_slice(&crc.to_le_bytes());
    });
    says(&complaint(&changed), &["base tree", "format 2"]);
    let incarnation = u64::from_le_bytes(storage.files()[segment.as_str()].to_vec()[48..56].try_into().unwrap());
    let changed = patch(&storage, &segment, |b| {
        let frame = &mut b[4096..4096 + 72];
        frame[4] = 2;
        frame[8..12].fill(0);
        let crc = vefs::format::record::crc(incarnation, frame);
        frame[8..12].copy_from_slice(&crc.to_le_bytes());
    });
    says(&complaint(&changed), &["journal frame", &segment, "format 2", "knows 1"]);
}

/// checks G24
#[test]
fn damaged_headers_are_named() {
    let (storage, _) = sample();
    for path in ["superblock", "ves/00000001/identity"] {
        for at in [0, 8, 20] {
            says(&complaint(&patch(&storage, path, |b| b[at] ^= 1)), &["damage", path]);
        }
        says(&complaint(&patch(&storage, path, |b| b.truncate(40))), &["damage", path, "40 bytes"]);
        says(&complaint(&patch(&storage, path, |b| b.push(0))), &["damage", path]);
    }
    let tree = only(&storage, "bases/", ".none");
    says(&complaint(&patch(&storage, &tree, |b| b[100] ^= 1)), &["base tree", &tree[6..70]]);
}

/// A flipped bit in what a later frame says was durable is damage, not a torn tail (checks G5).
#[test]
fn damage_in_the_journal_is_named_and_not_truncated() {
    let (storage, _) = sample();
    let segment = only(&storage, "ves/00000001/journal/", ".none");
    let text = complaint(&patch(&storage, &segment, |b| b[4096 + 80] ^= 1));
    says(&text, &["damage", &segment, "4096", "was durable"]);
}

/// A VE's identity under another VE's name is not taken for it.
#[test]
fn an_identity_of_another_ve_is_refused() {
    let (storage, _) = sample();
    let changed = patch(&storage, "ves/00000001/identity", |b| {
        b[88] = 2;
        reseal(b, 112);
    });
    says(&complaint(&changed), &["damage", "identity", "00000002"]);
}

/// Reading damaged bytes is an error that names the file, never the bytes (checks G24).
#[test]
fn damaged_content_is_never_read() {
    let (storage, world) = sample();
    let extents = only(&storage, "ves/00000001/extents/", ".none");
    let object = only(&storage, "objects/", ".sum");
    let at = |path: &str, offset: usize| patch(&storage, path, |b| b[offset] ^= 1);
    let object_name = object.rsplit('/').next().unwrap();
    let sidecar = format!("{object}.sum");
    let file = InodeNo::FIRST_PRIVATE;
    let base = InodeNo(2);
    for (damaged, ino, offset, parts) in [
        (
            at(&extents, storage.files()[extents.as_str()].len() as usize - 100),
            file,
            1 << 20,
            ["damage", "extent file"],
        ),
        (at(&object, 3), base, 0, ["damaged", object_name]),
        (at(&sidecar, 100), base, 0, ["sidecar", object_name]),
        (at(&sidecar, 9), base, 0, ["checksum", object_name]),
    ] {
        let before = files(&damaged);
        let damaged = Arc::new(damaged);
        let mut world = World::attach(damaged.clone(), 9, world.options.clone());
        // Nothing says that the last bytes were flushed, unless a later frame does: here one does.
        let store = world.open().unwrap();
        let ve = store.ve(VeId(1)).unwrap();
        let e = ve.read(ino, offset, 70_000).err().unwrap();
        says(&e.to_string(), &parts);
        assert_eq!(e.to_errno(), Errno::EIO);
        assert!(files(&damaged) == before);
    }
}

/// A row that does not decode, or says what cannot be, is named with its table (checks G29).
#[test]
fn damaged_metadata_rows_are_named() {
    for (value, says_what) in [
        (vec![1, 255, 255, 255], "malformed"),
        (vec![2, 0], "format 2"),
        (
            vefs::codec::encode(&rows::Current { birth: vefs::ids::TxnNo(1), value: vefs::state::key::Value::Mark }),
            "kind of value",
        ),
    ] {
        let storage = Arc::new(MemStorage::new());
        let mut world = World::create(storage.clone(), 5, small_options()).unwrap();
        let store = world.open().unwrap();
        let ve = create_ve(&store, 1, u64::MAX, u64::MAX).unwrap();
        let ino = create(&ve, "file");
        store.close().unwrap();
        let row = rows::current(VeId(1), Key::inode(ino).as_bytes());
        let mut batch = Batch::default();
        batch.put(Table::Current, row, value);
        world.meta.write(batch).unwrap();
        world.meta.persist().unwrap();
        drop((ve, store));
        let before = files(&storage);
        let store = world.open().unwrap();
        let e = store.ve(VeId(1)).and_then(|ve| ve.inode(ino)).err().unwrap();
        says(&e.to_string(), &["metadata store", "current", says_what]);
        assert!(files(&storage) == before);
    }
}

/// Three files of 2^62 reserved bytes under a quota without a limit: the sum passed 2^63 and applying it panicked. A sum that
/// overflows is above every quota.
#[test]
fn a_sum_that_overflows_is_above_every_quota() {
    let mut world = World::create(Arc::new(MemStorage::new()), 5, small_options()).unwrap();
    let ve = create_ve(&world.open().unwrap(), 1, u64::MAX, u64::MAX).unwrap();
    let reserve = |ino| {
        let mode = FallocMode::Allocate { keep_size: true };
        ve.execute(&Op::Fallocate { ino, mode, offset: 0, len: 1 << 62 }, Request::default())
    };
    let inodes = ["a", "b", "c"].map(|n| create(&ve, n));
    reserve(inodes[0]).unwrap();
    assert!(matches!(reserve(inodes[1]), Err(Error::Posix(Errno::EDQUOT))));
    assert!(matches!(reserve(inodes[2]), Err(Error::Posix(Errno::EDQUOT))));
    assert_eq!(ve.usage(), (1 << 62, 3));
}

/// A time of 10^9 nanoseconds went into the journal, where recovery would have refused the record.
#[test]
fn an_impossible_time_is_refused_before_it_is_written() {
    let mut world = World::create(Arc::new(MemStorage::new()), 5, small_options()).unwrap();
    let ve = create_ve(&world.open().unwrap(), 1, u64::MAX, u64::MAX).unwrap();
    let atime = Some(vefs::clock::Timestamp { secs: 0, nanos: 1_000_000_000 });
    let set = SetAttr { atime, ..SetAttr::default() };
    let got = ve.execute(&Op::Setattr { ino: InodeNo::ROOT, set }, Request::default());
    assert!(matches!(got, Err(Error::Posix(Errno::EINVAL))), "{got:?}");
}

/// A daemon that was killed about every second replayed everything since the last start that had lived long enough to persist: what a replay had
/// read did not count as written, so each life began its count anew and the journal grew with every kill.
#[test]
fn what_was_replayed_is_persisted_by_the_next_tick() {
    let mut world = World::create(Arc::new(MemStorage::new()), 1, small_options()).unwrap();
    let store = world.open().unwrap();
    create_ve(&store, 1, u64::MAX, u64::MAX).unwrap();
    drop(store);
    let begun = journal_begin(&world);
    for life in 0..3 {
        let store = world.open().unwrap();
        let ve = store.ve(VeId(1)).unwrap();
        let ino = create(&ve, &format!("f{life}"));
        // Less than what a single life persists at.
        (0..50).for_each(|n| write(&ve, ino, n * 4000, vec![life; 4000]));
        drop((ve, store));
        world.lose_unpersisted();
    }
    assert_eq!(journal_begin(&world), begun, "one life writes too little to persist");
    let store = world.open().unwrap();
    store.ve(VeId(1)).unwrap();
    store.tick().unwrap();
    world.lose_unpersisted();
    assert!(journal_begin(&world) > begun + 500_000, "{} after {begun}", journal_begin(&world));
}

/// Where a replay of the VE begins.
fn journal_begin(world: &World) -> u64 {
    let row = world.meta.get(Table::System, &rows::head(VeId(1))).unwrap();
    row.map_or(0, |row| rows::head_row(&row).unwrap().journal)
}

/// A segment whose header is gone holds frames that nobody can check. It is neither taken for a spare and removed, nor for a VE
/// that never began (checks G5).
#[test]
fn a_segment_without_a_header_is_damage_and_stays() {
    let (storage, _) = sample();
    let segment = only(&storage, "ves/00000001/journal/", ".none");
    let headless = patch(&storage, &segment, |b| b[..4096].fill(0));
    says(&complaint(&headless), &["damage", "journal", "position 0"]);
    let one_left = Arc::new(patch(&storage, &segment, |b| b[..2048].fill(0)));
    let mut world = World::attach(one_left, 9, small_options());
    let ve = world.open().unwrap().ve(VeId(1)).unwrap();
    assert_eq!(ve.read(InodeNo::FIRST_PRIVATE, 2000, 1000).unwrap(), vec![9; 1000]);
}

/// A journal that is gone as a whole is damage as well, not a new VE.
#[test]
fn a_ve_without_a_journal_is_damage() {
    let (storage, _) = sample();
    let mut files = storage.files();
    files.retain(|path, _| !path.starts_with("ves/00000001/journal/"));
    let gone = MemStorage::from_files(files, storage.folders());
    says(&complaint(&gone), &["damage", "journal", "position 0"]);
}

/// An opening that failed in its last step kept the space for bytes that nobody was ever going to publish: after enough of them
/// writers met ENOSPC on an empty disk.
#[test]
fn an_opening_that_fails_holds_no_space() {
    let disk = Arc::new(MemStorage::with_capacity(4 << 20));
    let mut world = World::create(disk.clone(), 5, small_options()).unwrap();
    let store = world.open().unwrap();
    let ve = create_ve(&store, 1, u64::MAX, u64::MAX).unwrap();
    let ino = create(&ve, "file");
    for n in 0..4 {
        write(&ve, ino, n * 50_000, vec![7; 50_000]);
    }
    ve.sync().unwrap();
    drop((ve, store));
    let plan = FaultPlan::new();
    world.storage = Arc::new(FaultStorage::new(disk, plan.clone()));
    let store = world.open().unwrap();
    for _ in 0..50 {
        // The seal of the tail needs a segment.
        plan.fail(Call::Create, 1, ErrorKind::PermissionDenied);
        assert!(store.ve(VeId(1)).is_err());
    }
    plan.heal();
    let ve = store.ve(VeId(1)).unwrap();
    store.tick().unwrap();
    write(&ve, ino, 0, vec![8; 1000]);
    assert_eq!(ve.read(ino, 0, 2000).unwrap(), [vec![8; 1000], vec![7; 1000]].concat());
}

/// A spare segment that could not be made for want of rights, or because its VE was being destroyed, stopped the writers of all VEs
/// with ENOSPC until the next tick.
#[test]
fn a_spare_that_fails_is_no_full_disk() {
    let plan = FaultPlan::new();
    let storage = Arc::new(FaultStorage::new(Arc::new(MemStorage::new()), plan.clone()));
    let mut world = World::create(storage, 5, small_options()).unwrap();
    let store = world.open().unwrap();
    let ve = create_ve(&store, 1, u64::MAX, u64::MAX).unwrap();
    plan.fail(Call::Create, 1, ErrorKind::PermissionDenied);
    store.tick().unwrap();
    plan.heal();
    create(&ve, "file");
}

/// Segments grow under load, but not towards the reserve: one of 1 MiB could have taken all of it at once.
#[test]
fn segments_grow_within_what_is_free() {
    let largest = |capacity: u64| {
        let disk = Arc::new(MemStorage::with_capacity(capacity));
        let options = Options { reserve: 1 << 20, ..small_options() };
        let mut world = World::create(disk.clone(), 5, options).unwrap();
        let store = world.open().unwrap();
        let ve = create_ve(&store, 1, u64::MAX, u64::MAX).unwrap();
        let ino = create(&ve, "file");
        for _ in 0..60 {
            write(&ve, ino, 0, vec![7; 20_000]);
            store.tick().unwrap();
        }
        let files = disk.files().into_iter().filter(|(path, _)| path.contains("/journal/"));
        files.map(|(_, content)| content.len()).max().unwrap()
    };
    assert!(largest(64 << 20) >= 1 << 20);
    let small = largest(4 << 20);
    assert!(small < 768 << 10, "a segment of {small} bytes");
}

/// A collection aborted with an error when a VE was destroyed in the middle of it; and of a VE that was made anew under the same identifier
/// meanwhile it would have removed extent files, which go by number.
#[test]
fn ves_come_and_go_during_collections() {
    let mut world = World::create(Arc::new(MemStorage::new()), 1, small_options()).unwrap();
    let store = world.open().unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                store.collect_garbage(&Default::default()).unwrap();
            }
        });
        for round in 0..150u8 {
            let ve = create_ve(&store, 1, u64::MAX, u64::MAX).unwrap();
            let ino = create(&ve, "f");
            (0..4).for_each(|part| write(&ve, ino, part * 100_000, vec![round; 100_000]));
            write(&ve, ino, 0, vec![round; 100_000]);
            ve.commit().unwrap();
            assert_eq!(ve.read(ino, 0, 400_000).unwrap(), vec![round; 400_000]);
            store.destroy_ve(VeId(1)).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        collector.join().unwrap();
    });
}

/// The tick and a collection made checkpoints at the same time, in the same folder.
#[test]
fn checkpoints_exclude_each_other() {
    let folder = tempfile::tempdir().unwrap();
    Store::create(folder.path()).unwrap();
    let store = Store::open(folder.path(), small_options()).unwrap();
    let ve = create_ve(&store, 1, u64::MAX, u64::MAX).unwrap();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|thread| {
                let (store, ve) = (&store, &ve);
                scope.spawn(move || {
                    for round in 0..8 {
                        create(ve, &format!("{thread}-{round}"));
                        store.checkpoint().unwrap();
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
    });
    assert_eq!(std::fs::read_dir(folder.path().join("checkpoints")).unwrap().count(), 1);
}

/// One VE that an error had made read-only stopped the collection of all: the node filled up.
#[test]
fn a_read_only_ve_does_not_stop_the_collection_of_others() {
    let plan = FaultPlan::new();
    let storage = Arc::new(FaultStorage::new(Arc::new(MemStorage::new()), plan.clone()));
    let mut world = World::create(storage, 5, small_options()).unwrap();
    let store = world.open().unwrap();
    let (bad, good) =
        (create_ve(&store, 1, u64::MAX, u64::MAX).unwrap(), create_ve(&store, 2, u64::MAX, u64::MAX).unwrap());
    let kept = create(&bad, "kept");
    write(&bad, kept, 0, vec![3; 100_000]);
    bad.commit().unwrap();
    let ino = create(&good, "file");
    for n in 0..20u8 {
        write(&good, ino, 0, vec![n; 100_000]);
        good.commit().unwrap();
    }
    plan.fail(Call::Write, 1, ErrorKind::Other);
    let op = Op::Unlink { parent: InodeNo::ROOT, name: b"kept".to_vec() };
    assert!(bad.execute(&op, Request::default()).is_err());
    plan.heal();
    assert!(bad.read_only_reason().is_some());
    let retention = vefs::ve::Retention { steps: Vec::new() };
    let done = store.collect_garbage(&retention).unwrap();
    assert_eq!(done.skipped, 1);
    assert!(done.ves.files > 0, "{done:?}");
    assert_eq!(bad.read(kept, 0, 100_000).unwrap(), vec![3; 100_000]);
    assert_eq!(good.read(ino, 0, 100_000).unwrap(), vec![19; 100_000]);
}
