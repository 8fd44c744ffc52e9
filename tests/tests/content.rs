//! Bytes on a real disk: bulk is written once, equal files are one, space comes back, metadata can be rebuilt.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use vefs::change::Settings;
use vefs::ids::{InodeNo, VeId};
use vefs::op::{Op, Owner, Reply, SetAttr};
use vefs::store::{Options, Store};
use vefs::ve::{Request, Retention};
use vefs::{Error, Ve};

fn open(path: &Path, options: Options) -> Store {
    Store::open(path, options).unwrap()
}

fn create_store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    Store::create(dir.path()).unwrap();
    let store = open(dir.path(), Options::default());
    (dir, store)
}

fn new_ve(store: &Store, id: u32) -> Arc<Ve> {
    store.create_ve(VeId(id), vefs::base::BaseTree::empty().hash(), Settings::default()).unwrap()
}

fn create(ve: &Ve, name: &str) -> InodeNo {
    let (parent, name) = (InodeNo::ROOT, name.as_bytes().to_vec());
    let op = Op::Create { parent, name, mode: 0o100644, rdev: 0, owner: Owner::default() };
    match ve.execute(&op, Request::default()).unwrap() {
        Reply::Inode(ino, _) => ino,
        other => panic!("{other:?}"),
    }
}

fn write(ve: &Ve, ino: InodeNo, offset: u64, data: &[u8]) {
    let data = Bytes::copy_from_slice(data);
    let len = data.len() as u64;
    let op = Op::Write { ino, offset, data, kill_priv: false };
    assert_eq!(ve.execute(&op, Request::default()).unwrap(), Reply::Written(len));
}

/// Bytes that do not repeat within a chunk.
fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add((i >> 8) as u8).wrapping_add(seed)).collect()
}

/// Writes a file from start to end, as cp(1) does: bulk, and a tail that is none.
fn copy_in(ve: &Ve, name: &str, body: &[u8]) -> InodeNo {
    let ino = create(ve, name);
    for (n, part) in body.chunks(128 << 10).enumerate() {
        write(ve, ino, (n * (128 << 10)) as u64, part);
    }
    ino
}

fn objects(dir: &Path) -> Vec<std::fs::Metadata> {
    let mut out = Vec::new();
    let Ok(folders) = std::fs::read_dir(dir.join("objects")) else { return out };
    for folder in folders {
        for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let file = file.unwrap();
            if !file.file_name().to_string_lossy().ends_with(".sum") {
                out.push(file.metadata().unwrap());
            }
        }
    }
    out
}

/// A file written from start to end becomes an object by a second name for the same bytes: nothing bulky is written twice.
#[test]
fn a_whole_file_becomes_an_object_without_a_copy() {
    let (dir, store) = create_store();
    let ve = new_ve(&store, 1);
    let body = pattern((1 << 20) + 12_345, 1);
    let ino = copy_in(&ve, "file", &body);
    assert!(ve.seal_file(ino).unwrap());
    let found = objects(dir.path());
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].len(), found[0].nlink()), (body.len() as u64, 2));
    assert_eq!(ve.read(ino, 0, body.len()).unwrap(), body);
    // The object is immutable: what is appended now goes elsewhere.
    write(&ve, ino, body.len() as u64, b"tail");
    write(&ve, ino, 5, b"inside");
    assert_eq!(objects(dir.path())[0].len(), body.len() as u64);
    let mut want = body;
    want[5..11].copy_from_slice(b"inside");
    want.extend_from_slice(b"tail");
    assert_eq!(ve.read(ino, 0, want.len() + 10).unwrap(), want);
}

/// A bit that rotted before a file became an object got a good name: the object's hash was made from the bytes as they lay on disk. Checks G24.
#[test]
fn what_rotted_does_not_become_an_object() {
    let (dir, store) = create_store();
    let ve = new_ve(&store, 1);
    let ino = copy_in(&ve, "file", &pattern(2 << 20, 1));
    ve.sync().unwrap();
    let mut bodies = Vec::new();
    for folder in std::fs::read_dir(dir.path().join("ves")).unwrap() {
        let extents = folder.unwrap().path().join("extents");
        let files = std::fs::read_dir(extents).into_iter().flatten().map(|f| f.unwrap().path());
        bodies.extend(files.filter(|f| f.metadata().unwrap().len() == 2 << 20));
    }
    let [body] = bodies.as_slice() else { panic!("{bodies:?}") };
    let flip = || {
        let mut bytes = std::fs::read(body).unwrap();
        bytes[1_234_567] ^= 4;
        std::fs::write(body, bytes).unwrap();
    };
    flip();
    let sealed = ve.seal_file(ino);
    assert!(matches!(sealed, Err(vefs::Error::Damage { .. })), "{sealed:?}");
    assert_eq!(objects(dir.path()).len(), 0);
    flip();
    assert!(ve.seal_file(ino).unwrap());
}

/// Ten seconds after somebody changed a page of a large file, all of it was copied for a new object: a gibibyte for 4 KiB, at the replicas as well,
/// and again after the next page. Now that happens when half of it has been written.
#[test]
fn a_page_of_a_large_file_costs_a_page() {
    let (dir, store) = create_store();
    let ve = new_ve(&store, 1);
    let mut body = pattern(4 << 20, 1);
    let ino = copy_in(&ve, "file", &body);
    let now = std::time::Duration::ZERO;
    assert_eq!(store.housekeep(now).unwrap(), 1);
    let before = objects(dir.path()).len();
    let step = 64 << 10;
    for (n, at) in (0..body.len()).step_by(step).enumerate() {
        assert_eq!(objects(dir.path()).len(), before, "after {n} of 64 pieces");
        body[at..at + step].fill(n as u8);
        write(&ve, ino, at as u64, &body[at..at + step]);
        store.housekeep(now).unwrap();
        if n == 31 {
            break;
        }
    }
    assert_eq!(objects(dir.path()).len(), before + 1, "half of it is new");
    assert_eq!(ve.read(ino, 0, body.len()).unwrap(), body);
}

/// Equal files of two VEs are one object; it stays while either VE names it, and goes when none does (checks G26).
#[test]
fn equal_files_are_one_object_and_space_comes_back() {
    let (dir, store) = create_store();
    let body = pattern(3 << 20, 7);
    let ves = [new_ve(&store, 1), new_ve(&store, 2)];
    let inodes = ves.each_ref().map(|ve| copy_in(ve, "same", &body));
    for (ve, ino) in ves.iter().zip(inodes) {
        assert!(ve.seal_file(ino).unwrap());
    }
    assert_eq!(objects(dir.path()).len(), 1);
    let forget = Retention { steps: vec![] };
    store.collect_garbage(&forget).unwrap();
    // The extent files that held the body are gone, the object is all there is.
    assert_eq!(objects(dir.path())[0].nlink(), 1);
    for (n, (ve, ino)) in ves.iter().zip(inodes).enumerate() {
        assert_eq!(ve.read(ino, 0, body.len()).unwrap(), body);
        let op = Op::Unlink { parent: InodeNo::ROOT, name: b"same".to_vec() };
        ve.execute(&op, Request::default()).unwrap();
        ve.execute(&Op::Reap { ino }, Request::default()).unwrap();
        store.collect_garbage(&forget).unwrap();
        assert_eq!(objects(dir.path()).len(), 1 - n, "after VE {n} let go");
    }
}

/// Overwritten bytes give their space back once no version reads them, mostly dead files are cleaned, and what is alive moves along.
#[test]
fn overwritten_bytes_give_their_space_back() {
    let dir = tempfile::tempdir().unwrap();
    Store::create(dir.path()).unwrap();
    let store = open(dir.path(), Options { extent_target: 1 << 20, ..Options::default() });
    let ve = new_ve(&store, 1);
    let ino = create(&ve, "file");
    let piece = pattern(256 << 10, 3);
    write(&ve, ino, 0, b"x");
    for n in 0..40u64 {
        write(&ve, ino, (n % 4) << 20, &piece);
        ve.commit().unwrap();
    }
    let extents = dir.path().join("ves/00000001/extents");
    let size = || std::fs::read_dir(&extents).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum::<u64>();
    let before = size();
    store.collect_garbage(&Retention { steps: vec![] }).unwrap();
    assert!(before > 9 << 20, "{before}");
    assert!(size() < 4 << 20, "{} of {before} left", size());
    for n in 0..4 {
        assert_eq!(ve.read(ino, n << 20, piece.len()).unwrap(), piece);
    }
}

/// All derived state can be rebuilt from the last checkpoint and the journals since (checks G32).
#[test]
fn metadata_is_rebuilt_from_checkpoint_and_journal() {
    let (dir, store) = create_store();
    let ve = new_ve(&store, 1);
    let body = pattern(200_000, 9);
    let old = copy_in(&ve, "before", &body);
    ve.commit().unwrap();
    store.checkpoint().unwrap();
    let new = copy_in(&ve, "after", &body[..150_000]);
    write(&ve, old, 100, b"changed");
    ve.commit().unwrap();
    store.publish_all().unwrap();
    store.persist().unwrap();
    let roots = |ve: &Arc<Ve>, txn| {
        let version = ve.version(txn).unwrap();
        (version.state_root().unwrap(), version.logical_root().unwrap())
    };
    let position = ve.position();
    let before = roots(&ve, position.txn);
    assert_ne!(before.0.root, before.1.root);
    drop((ve, store));
    std::fs::remove_dir_all(dir.path().join("meta")).unwrap();
    let store = open(dir.path(), Options { rebuild: true, ..Options::default() });
    let ve = store.ve(VeId(1)).unwrap();
    assert_eq!(ve.position(), position);
    assert_eq!(roots(&ve, position.txn), before);
    assert_eq!(ve.read(new, 0, 200_000).unwrap(), &body[..150_000]);
    assert_eq!(ve.read(old, 100, 7).unwrap(), b"changed");
}

/// Metadata that was lost without a rebuild being asked for is damage, not an empty VE.
#[test]
fn lost_metadata_is_not_taken_for_an_empty_ve() {
    let (dir, store) = create_store();
    let ve = new_ve(&store, 1);
    create(&ve, "file");
    ve.commit().unwrap();
    // Twice, so that the journal no longer reaches back to the beginning.
    for n in 0..2 {
        for i in 0..8000 {
            create(&ve, &format!("{n}-{i}"));
        }
        store.checkpoint().unwrap();
    }
    drop((ve, store));
    std::fs::remove_dir_all(dir.path().join("meta")).unwrap();
    let store = open(dir.path(), Options::default());
    assert!(matches!(store.ve(VeId(1)), Err(Error::Damage { what: "journal", .. })));
}

/// A clean stop leaves nothing to replay, and what is written after it is found by the next start all the same.
#[test]
fn a_clean_stop_is_not_taken_for_the_end_of_what_follows() {
    let (dir, store) = create_store();
    let ve = new_ve(&store, 1);
    create(&ve, "one");
    store.close().unwrap();
    create(&ve, "two");
    ve.commit().unwrap();
    drop((ve, store));
    let store = open(dir.path(), Options::default());
    let ve = store.ve(VeId(1)).unwrap();
    assert!(ve.lookup(InodeNo::ROOT, b"one").is_ok());
    assert!(ve.lookup(InodeNo::ROOT, b"two").is_ok());
}

/// Bytes that publishing moved out of the journal were named by the metadata store while they were not flushed yet, when another
/// flush happened to be running: a sync waited for frames only.
#[test]
fn a_sync_covers_moved_bytes() {
    let (_dir, store) = create_store();
    let ve = new_ve(&store, 1);
    let ino = create(&ve, "small");
    for n in 0..100 {
        write(&ve, ino, n * 10, b"0123456789");
    }
    ve.publish().unwrap();
    assert!(!ve.is_dirty());
    let set = SetAttr { size: Some(0), ..SetAttr::default() };
    ve.execute(&Op::Setattr { ino, set }, Request::default()).unwrap();
    assert!(ve.is_dirty());
    ve.sync().unwrap();
    // Durable, but its transaction is still open.
    assert!(ve.is_dirty());
    ve.commit().unwrap();
    assert!(!ve.is_dirty());
}

/// History over its cap goes, the oldest first, until it fits, in one collection; what is held stays readable, and so does the present
/// (checks G25, G33).
#[test]
fn history_stays_below_its_cap() {
    const CAP: u64 = 256 << 10;
    let (_dir, store) = create_store();
    let ve = new_ve(&store, 1);
    ve.set_settings(Settings { history_bytes: CAP, ..Settings::default() }).unwrap();
    let ino = create(&ve, "file");
    let body = |n: u8| pattern(16 << 10, n);
    let mut held = None;
    for n in 0..100 {
        write(&ve, ino, 0, &body(n));
        ve.commit().unwrap();
        if n == 3 {
            let txn = ve.position().txn;
            ve.hold("backup", txn, false, "test").unwrap();
            held = Some(txn);
        }
    }
    let before = ve.versions().unwrap().len();
    // The retention would keep all of them.
    let done = store.collect_garbage(&Retention::default()).unwrap();
    assert!(done.ves.history <= CAP, "{done:?}");
    let left = ve.versions().unwrap();
    assert!(left.len() < before / 4, "{} of {before} are left", left.len());
    assert!(left.len() > 2, "more went than had to: {left:?}");
    let snapshot = ve.version(held.unwrap()).unwrap();
    assert_eq!(snapshot.read(ino, 0, 16 << 10).unwrap(), body(3));
    assert_eq!(ve.read(ino, 0, 16 << 10).unwrap(), body(99));
}

/// Publishing everything up to now went on for as long as somebody wrote: each round found something new. A busy VE's metadata was never
/// persisted then, its journal grew, and so did the time that its next start takes.
#[test]
fn publishing_ends_although_somebody_writes() {
    const MOST: u64 = 2_000_000;
    let (_dir, store) = create_store();
    let ve = new_ve(&store, 1);
    let ino = create(&ve, "log");
    let (begun, stop) = (std::sync::Barrier::new(2), std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for i in 0..MOST {
                write(&ve, ino, i % 1000, b"x");
                if i == 100 {
                    begun.wait();
                }
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    return true;
                }
            }
            false
        });
        begun.wait();
        for _ in 0..3 {
            let before = ve.position().txn;
            ve.publish().unwrap();
            assert!(ve.published().unwrap() >= before);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(writer.join().unwrap(), "publishing waited for the writer's end");
    });
}

/// Payloads in the journal count against the bounds of unpublished state: a VE that writes little metadata and many bytes must not
/// make its next start read all of them.
#[test]
fn many_bytes_in_the_journal_are_published_before_there_are_many_rows() {
    let dir = tempfile::tempdir().unwrap();
    Store::create(dir.path()).unwrap();
    let store = open(dir.path(), Options { overlay_soft: 1 << 20, overlay_hard: 4 << 20, ..Options::default() });
    let ve = new_ve(&store, 1);
    let ino = create(&ve, "data");
    let piece = pattern(60_000, 1);
    for i in 0..400 {
        write(&ve, ino, i % 4 * 60_000, &piece);
    }
    let unpublished = ve.position().txn.0 - ve.published().unwrap().0;
    assert!(ve.published().unwrap().0 > 0, "24 MB of payloads, and nothing was published ({unpublished} transactions)");
}
