#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use proptest::prelude::*;

use super::reader::{body_path, sum_path};
use super::teststore::TestStore;
use super::*;
use crate::storage::Storage;

const C: usize = crate::limits::OBJECT_CHUNK;

fn store() -> (Arc<TestStore>, ObjectStore) {
    let disk = TestStore::new();
    (disk.clone(), ObjectStore::new(disk))
}

fn body(len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    let mut xof = blake3::Hasher::new().update(&(len as u64).to_le_bytes()).finalize_xof();
    xof.fill(&mut out);
    out
}

fn read(store: &ObjectStore, hash: Hash, offset: u64, len: usize) -> Result<Vec<u8>, ObjectError> {
    let mut buf = vec![0xEE; len];
    store.open(hash)?.read_at(&mut buf, offset).map(|()| buf)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn a_body_is_named_by_its_blake3_at_every_chunk_boundary() {
    let (disk, store) = store();
    for len in [0, 1, 1023, 1024, 1025, C - 1, C, C + 1, 2 * C, 2 * C + 1, 3 * C, 5 * C - 7, 8 * C, 9 * C + 1] {
        let bytes = body(len);
        let hash = store.put(&bytes).unwrap();
        assert_eq!(hash, Hash::of(&bytes), "{len} bytes");
        assert_eq!(disk.bytes(&body_path(hash)), bytes, "the body's file is exactly the body");
        assert_eq!(read(&store, hash, 0, len).unwrap(), bytes, "{len} bytes");
        assert_eq!(store.open(hash).unwrap().len(), len as u64);
        store.verify(hash).unwrap();
    }
}

#[test]
fn golden_sidecars() {
    let (disk, store) = store();
    let cases: [(Vec<u8>, &str); 3] =
        [(vec![], GOLDEN_EMPTY), (b"hello, object\n".to_vec(), GOLDEN_SMALL), (vec![0xA5; C + 1], GOLDEN_TWO_CHUNKS)];
    for (bytes, golden) in cases {
        let hash = store.put(&bytes).unwrap();
        let got = hex(&disk.bytes(&sum_path(hash)));
        assert_eq!(
            got,
            golden.replace(char::is_whitespace, ""),
            "the sidecar's bytes changed: raise the format number"
        );
    }
}

const GOLDEN_EMPTY: &str = "
    41535046534f424a010000005000000000000000000000000000010000000000
    0000000000000000af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7
    cc9a93cae41f3262000000000fe513f7";
const GOLDEN_SMALL: &str = "
    41535046534f424a01000000500000000e000000000000000000010000000000
    000000000000000047a2556b31e100e49f284fddab3f503f4d89361f00bd5abb
    a0a39a7570d7bb4c00000000804735da47a2556b31e100e49f284fddab3f503f
    4d89361f00bd5abba0a39a7570d7bb4c";
const GOLDEN_TWO_CHUNKS: &str = "
    41535046534f424a010000005000000001000100000000000000010000000000
    00000000000000007b5383b5097a1c3dbc86b052379c0059190530fb19620faf
    752579e2f7b9f70c000000002905be8247179f05a19cbcd7324e6afcb3478f44
    005986d983b6ee37eb4ac1d12d6c21ec22386324ef3dc71f020b5df7d81fa487
    30571808a9ab58f6195113ef145f6bea";

#[test]
fn names_become_durable_sidecar_first() {
    let (disk, store) = store();
    let hash = store.put(b"x").unwrap();
    let dir = format!("objects/{}", &hash.to_hex()[..2]);
    let expected = [
        "sync staging/obj-0".to_owned(),
        "sync staging/obj-1.sum".to_owned(),
        format!("rename {}", sum_path(hash)),
        format!("sync_dir {dir}"),
        format!("rename {}", body_path(hash)),
        format!("sync_dir {dir}"),
    ];
    assert_eq!(disk.take_log(), expected);
}

#[test]
fn an_equal_object_is_kept_and_the_staging_removed() {
    let (disk, store) = store();
    let hash = store.put(b"same").unwrap();
    let before = disk.open(&body_path(hash)).unwrap();
    assert_eq!(store.put(b"same").unwrap(), hash);
    let after = disk.open(&body_path(hash)).unwrap();
    assert!(Arc::ptr_eq(&before, &after), "the body was replaced");
    assert_eq!(disk.paths(), [body_path(hash), sum_path(hash)]);
}

#[test]
fn many_are_placed_with_three_flushes() {
    let (disk, store) = store();
    let bodies: Vec<_> = (0..10).map(|i| body(i * 1000)).chain([body(1000)]).collect();
    let stage = |bytes: &Vec<u8>| {
        let mut w = store.writer().unwrap();
        w.write(bytes).unwrap();
        w.seal().unwrap()
    };
    store.place(bodies.iter().map(stage).collect()).unwrap();
    let log = disk.take_log();
    assert_eq!(log.iter().filter(|l| *l == "sync_all").count(), 3, "{log:?}");
    assert!(log.iter().all(|l| !l.starts_with("sync ") && !l.starts_with("sync_dir")));
    for bytes in &bodies {
        assert_eq!(&read(&store, Hash::of(bytes), 0, bytes.len()).unwrap(), bytes);
    }
    assert!(disk.paths().iter().all(|p| p.starts_with("objects/")), "staging is left");
}

#[test]
fn a_writer_given_up_leaves_nothing() {
    let (disk, store) = store();
    let mut w = store.writer().unwrap();
    w.write(&body(C * 9)).unwrap();
    drop(w);
    drop({
        let mut w = store.writer().unwrap();
        w.write(b"sealed").unwrap();
        w.seal().unwrap()
    });
    assert!(disk.paths().is_empty(), "{:?}", disk.paths());
}

// checks G3: bytes after a failed write are not trusted
#[test]
fn a_writer_that_failed_once_never_finishes() {
    let (disk, store) = store();
    let mut w = store.writer().unwrap();
    disk.fail_after(Some(0));
    assert!(matches!(w.write(&body(C * 9)), Err(ObjectError::Io { .. })));
    disk.fail_after(None);
    assert!(matches!(w.write(b"more"), Err(ObjectError::WriterFailed)));
    assert!(matches!(w.finish(), Err(ObjectError::WriterFailed)));
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn a_failure_at_any_step_leaves_no_half_object() {
    let bytes = body(3 * C);
    let hash = Hash::of(&bytes);
    let mut steps = 0;
    loop {
        let (disk, store) = store();
        disk.fail_after(Some(steps));
        let put = store.put(&bytes);
        disk.fail_after(None);
        drop(store);
        let store = ObjectStore::new(disk.clone());
        if store.contains(hash).unwrap() {
            assert_eq!(read(&store, hash, 0, bytes.len()).unwrap(), bytes, "after {steps} steps");
        }
        store.clean_staging().unwrap();
        store.list().unwrap();
        let left = disk.paths().len();
        assert!(left == 0 || left == 2, "after {steps} steps: {:?}", disk.paths());
        if put.is_ok() {
            assert!(steps > 6);
            return;
        }
        assert_eq!(store.put(&bytes).unwrap(), hash);
        steps += 1;
    }
}

#[test]
fn adopting_moves_the_file() {
    let (disk, store) = store();
    let bytes = body(2 * C + 5);
    disk.put("staging/copy", &bytes);
    let file = disk.open("staging/copy").unwrap();
    let wrong = store.adopt("staging/copy", 5).unwrap_err();
    assert!(matches!(wrong, ObjectError::AdoptLength { expected: 5, got, .. } if got == bytes.len() as u64));
    let hash = store.adopt("staging/copy", bytes.len() as u64).unwrap();
    assert_eq!(hash, Hash::of(&bytes));
    assert!(Arc::ptr_eq(&file, &disk.open(&body_path(hash)).unwrap()), "the file was copied");
    assert_eq!(disk.paths().len(), 2);

    disk.put("staging/again", &bytes);
    assert_eq!(store.adopt("staging/again", bytes.len() as u64).unwrap(), hash);
    assert_eq!(disk.paths().len(), 2, "an adopted duplicate stayed behind");
}

// checks G24
#[test]
fn every_flipped_bit_of_a_body_is_found_in_its_chunk() {
    for len in [1000, C, 2 * C + 100] {
        let (disk, store) = store();
        let bytes = body(len);
        let hash = store.put(&bytes).unwrap();
        for at in (0..len).step_by(997).chain([len - 1]) {
            disk.flip(&body_path(hash), at, 1 << (at % 8));
            let chunk = (at / C) as u64;
            let mut buf = [7];
            let error = store.open(hash).unwrap().read_at(&mut buf, at as u64).unwrap_err();
            assert_eq!(buf, [0], "unchecked bytes came out");
            assert!(
                matches!(error, ObjectError::Damaged { hash: h, chunk: c, offset } if (h, c, offset) == (hash, chunk, chunk * C as u64)),
                "{error}"
            );
            let mut all = vec![7; len];
            assert!(store.open(hash).unwrap().read_at(&mut all, 0).is_err());
            assert!(all.iter().all(|b| *b == 0));
            assert!(matches!(store.verify(hash), Err(ObjectError::Damaged { .. })));
            disk.flip(&body_path(hash), at, 1 << (at % 8));
        }
        assert_eq!(read(&store, hash, 0, len).unwrap(), bytes);
    }
}

#[test]
fn a_body_of_another_length_is_damage() {
    let (disk, store) = store();
    let bytes = body(C + 1);
    let hash = store.put(&bytes).unwrap();
    let open = store.open(hash).unwrap();
    disk.put(&body_path(hash), &bytes[..C]);
    let fresh = ObjectStore::new(disk.clone());
    assert!(matches!(fresh.open(hash), Err(ObjectError::BodyLength { expected, got, .. }) if expected == got + 1));
    open.verify().expect("an open object does not depend on its name");
}

// checks G29, G24
#[test]
fn every_flipped_byte_of_a_sidecar_is_refused() {
    for len in [0, 10, 2 * C + 1] {
        let (disk, store) = store();
        let hash = store.put(&body(len)).unwrap();
        let sidecar = disk.bytes(&sum_path(hash));
        for at in 0..sidecar.len() {
            for mask in [1, 0x80, 0xFF] {
                disk.flip(&sum_path(hash), at, mask);
                let error = ObjectStore::new(disk.clone()).open(hash).unwrap_err();
                assert!(matches!(error, ObjectError::Sidecar { .. }), "byte {at}: {error}");
                disk.flip(&sum_path(hash), at, mask);
            }
        }
        for cut in 0..sidecar.len() {
            disk.put(&sum_path(hash), &sidecar[..cut]);
            let error = ObjectStore::new(disk.clone()).open(hash).unwrap_err();
            assert!(matches!(error, ObjectError::Sidecar { .. }), "cut at {cut}: {error}");
        }
        disk.put(&sum_path(hash), &[&sidecar[..], &[0]].concat());
        assert!(ObjectStore::new(disk.clone()).open(hash).is_err(), "a trailing byte was accepted");
    }
}

fn with_header(change: impl FnOnce(&mut Vec<u8>)) -> String {
    let (disk, store) = store();
    let hash = store.put(b"abc").unwrap();
    let mut bytes = disk.bytes(&sum_path(hash));
    change(&mut bytes);
    let crc = crc32fast::hash(&bytes[..76]).to_le_bytes();
    bytes[76..80].copy_from_slice(&crc);
    disk.put(&sum_path(hash), &bytes);
    ObjectStore::new(disk).open(hash).unwrap_err().to_string()
}

// checks G28
#[test]
fn what_is_unknown_is_refused_by_name() {
    assert!(with_header(|b| b[8] = 9).contains("format 9 is unknown"));
    assert!(with_header(|b| b[12] = 96).contains("header length 96"));
    assert!(with_header(|b| b[24] = 1).contains("chunk size 65537"));
    assert!(with_header(|b| b[28] = 3).contains("cipher 3 is unknown"));
    assert!(with_header(|b| b[32] = 4).contains("key 4 is unknown"));
    assert!(with_header(|b| b[72] = 5).contains("reserved bytes hold 5"));
    assert!(with_header(|b| b[23] = 0xFF).contains("over the limit"));
    assert!(with_header(|b| b[40] ^= 1).contains("sidecar of object"));
}

#[test]
fn a_damaged_object_is_healed_by_its_bytes() {
    let (disk, store) = store();
    let bytes = body(C * 2);
    let hash = store.put(&bytes).unwrap();
    disk.flip(&sum_path(hash), 90, 1);
    disk.flip(&body_path(hash), 5, 1);
    assert!(store.verify(hash).is_err());
    // A damaged sidecar is seen when the bytes come again.
    store.put(&bytes).unwrap();
    assert_eq!(read(&store, hash, 0, bytes.len()).unwrap(), bytes);
    // A damaged body is not; whoever knows of it says so.
    disk.flip(&body_path(hash), 5, 1);
    let mut w = store.writer().unwrap();
    w.write(&bytes).unwrap();
    w.finish_over().unwrap();
    assert_eq!(read(&store, hash, 0, bytes.len()).unwrap(), bytes);
}

#[test]
fn reads_past_the_end_are_refused() {
    let (_disk, store) = store();
    let hash = store.put(&body(C + 10)).unwrap();
    for (offset, len) in [(0, C + 11), (C as u64 + 10, 1), (u64::MAX, 1), (u64::MAX - 1, 5)] {
        assert!(matches!(read(&store, hash, offset, len), Err(ObjectError::PastEnd { .. })), "{offset} {len}");
    }
    assert!(read(&store, hash, C as u64 + 10, 0).unwrap().is_empty());
}

#[test]
fn what_is_missing_is_not_found() {
    let (_disk, store) = store();
    let hash = Hash::of(b"nowhere");
    assert!(!store.contains(hash).unwrap());
    for error in [store.open(hash).map(drop).unwrap_err(), store.verify(hash).unwrap_err()] {
        assert!(matches!(error, ObjectError::NotFound { hash: h } if h == hash));
    }
}

// checks G26
#[test]
fn removal_is_two_phase() {
    let (disk, store) = store();
    let hashes: Vec<Hash> = (0..7u8).map(|i| store.put(&[i; 10]).unwrap()).collect();
    let early_pin = store.pin(hashes[5]);
    store.condemn(hashes.iter().copied());
    store.open(hashes[0]).unwrap();
    store.put(&[1; 10]).unwrap();
    assert!(store.contains(hashes[2]).unwrap());
    drop(store.pin(hashes[3]));
    let referenced = |h: &Hash| *h == hashes[4];
    assert_eq!(store.sweep_condemned(referenced).unwrap(), 10 + 80 + 32, "only the last is removed");
    let mut left = hashes[..6].to_vec();
    left.sort();
    assert_eq!(store.list().unwrap(), left);
    assert!(!disk.paths().contains(&sum_path(hashes[6])));

    assert_eq!(store.sweep_condemned(|_| false).unwrap(), 0, "a pinned object was removed");
    drop(early_pin);
    assert_eq!(store.sweep_condemned(|_| false).unwrap(), 0, "who pinned it may have written a reference");
    store.condemn([hashes[5]]);
    assert_eq!(store.sweep_condemned(|_| false).unwrap(), 10 + 80 + 32);
    assert!(matches!(store.open(hashes[5]), Err(ObjectError::NotFound { .. })));
    assert_eq!(store.sweep_condemned(|_| false).unwrap(), 0);
}

/// A bit of an object had rotted, and a file that was equal to it was sealed, or its template imported once more: the good bytes were given up for the
/// rotten ones (checks G24).
#[test]
fn good_bytes_are_not_given_up_for_rotten_ones() {
    let (disk, store) = store();
    let bytes = body(3 * C);
    let hash = store.put(&bytes).unwrap();
    type Put = fn(&ObjectStore, &[u8]);
    let again: [Put; 2] = [
        |store, bytes| _ = store.put(bytes).unwrap(),
        |store, bytes| {
            let mut writer = store.writer().unwrap();
            writer.write(bytes).unwrap();
            let (_pin, staged) = writer.seal_unless_known().unwrap();
            store.place(staged.into_iter().collect()).unwrap();
        },
    ];
    for put in again {
        disk.flip(&body_path(hash), C + 9, 1);
        assert!(read(&store, hash, 0, 3 * C).is_err());
        let repairs = store.repairs();
        put(&store, &bytes);
        assert_eq!(read(&store, hash, 0, 3 * C).unwrap(), bytes);
        assert_eq!(store.repairs(), repairs + 1, "who has it open opens it anew");
        put(&store, &bytes);
        assert_eq!(store.repairs(), repairs + 1);
    }
}

#[test]
fn placing_resurrects_what_was_condemned_after_sealing() {
    let (_disk, store) = store();
    let hash = store.put(b"late").unwrap();
    let mut w = store.writer().unwrap();
    w.write(b"late").unwrap();
    let staged = w.seal().unwrap();
    store.condemn([hash]);
    store.place(vec![staged]).unwrap();
    assert_eq!(store.sweep_condemned(|_| false).unwrap(), 0);
    assert!(store.contains(hash).unwrap());
}

#[test]
fn pins_count() {
    let (_disk, store) = store();
    let hash = store.put(b"p").unwrap();
    let (one, two) = (store.pin(hash), store.pin(hash));
    store.condemn([hash]);
    drop(one);
    store.sweep_condemned(|_| false).unwrap();
    assert!(store.list().unwrap() == [hash]);
    drop(two);
    store.condemn([hash]);
    store.sweep_condemned(|_| false).unwrap();
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn an_object_removed_is_no_longer_served_but_readable_where_open() {
    let (_disk, store) = store();
    let hash = store.put(b"gone").unwrap();
    let open = store.open(hash).unwrap();
    store.condemn([hash]);
    store.sweep_condemned(|_| false).unwrap();
    assert!(matches!(store.open(hash), Err(ObjectError::NotFound { .. })));
    let mut buf = [0; 4];
    open.read_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"gone");
}

#[test]
fn bodies_go_before_sidecars() {
    let (disk, store) = store();
    let hash = store.put(b"order").unwrap();
    disk.take_log();
    store.condemn([hash]);
    store.sweep_condemned(|_| false).unwrap();
    let dir = format!("sync_dir objects/{}", &hash.to_hex()[..2]);
    assert_eq!(disk.take_log(), [format!("remove {}", body_path(hash)), dir, format!("remove {}", sum_path(hash))]);
}

#[test]
fn orphaned_sidecars_and_strangers_are_not_listed() {
    let (disk, store) = store();
    let hash = store.put(b"keep").unwrap();
    let orphan = Hash::of(b"orphan");
    disk.put(&sum_path(orphan), b"rest");
    let upper = format!("objects/{}/{}", &hash.to_hex()[..2], hash.to_hex().to_uppercase());
    for stranger in ["objects/zz/readme", "objects/00/abc.sum", &upper] {
        disk.put(stranger, b"?");
    }
    let placing = store.pin(orphan);
    assert_eq!(store.list().unwrap(), [hash]);
    assert!(disk.paths().contains(&sum_path(orphan)), "the sidecar of an object being placed was taken");
    drop(placing);
    assert_eq!(store.list().unwrap(), [hash]);
    assert!(!disk.paths().contains(&sum_path(orphan)));
    assert!(disk.paths().contains(&upper), "a file of somebody else was removed");
}

#[test]
fn staging_is_cleaned_of_what_nobody_writes() {
    let (disk, store) = store();
    for path in ["staging/obj-77", "staging/obj-78.sum", "staging/journal-owned"] {
        disk.put(path, b"left");
    }
    let mut w = store.writer().unwrap();
    w.write(b"live").unwrap();
    assert_eq!(store.clean_staging().unwrap(), 2);
    let hash = w.finish().unwrap();
    assert_eq!(read(&store, hash, 0, 4).unwrap(), b"live");
    assert!(disk.paths().contains(&"staging/journal-owned".to_owned()));
}

#[test]
fn the_cache_is_bounded() {
    let (_disk, store) = store();
    for i in 0..1100u32 {
        let hash = store.put(&i.to_le_bytes()).unwrap();
        store.open(hash).unwrap();
    }
    assert_eq!(store.shared.marks().cache.len(), 1024);
    assert_eq!(read(&store, Hash::of(&0u32.to_le_bytes()), 0, 4).unwrap(), [0; 4]);
}

#[test]
fn putting_and_sweeping_at_once_loses_nothing_that_was_put() {
    let (_disk, store) = store();
    let hash = Hash::of(b"contested");
    std::thread::scope(|scope| {
        let sweeper = store.clone();
        scope.spawn(move || {
            for _ in 0..500 {
                sweeper.condemn([hash]);
                sweeper.sweep_condemned(|_| false).unwrap();
                sweeper.list().unwrap();
            }
        });
        for _ in 0..500 {
            let _pin = store.pin(hash);
            store.put(b"contested").unwrap();
            assert_eq!(read(&store, hash, 0, 9).unwrap(), b"contested");
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_pieces_any_ranges(pieces in prop::collection::vec(0usize..150_000, 0..6), reads in prop::collection::vec((0.0..1.0f64, 0.0..1.0f64), 1..6)) {
        let (_disk, store) = store();
        let whole = body(pieces.iter().sum());
        let mut w = store.writer().unwrap();
        let mut rest = &whole[..];
        for n in pieces {
            let (part, tail) = rest.split_at(n);
            w.write(part).unwrap();
            rest = tail;
        }
        let hash = w.finish().unwrap();
        prop_assert_eq!(hash, Hash::of(&whole));
        for (a, b) in reads {
            let (a, b) = ((a.min(b) * whole.len() as f64) as usize, (a.max(b) * whole.len() as f64) as usize);
            prop_assert_eq!(&read(&store, hash, a as u64, b - a).unwrap(), &whole[a..b]);
        }
    }
}

// checks G26: a pin keeps a tree, also after it is gone, until it is condemned anew
#[test]
fn trees_are_removed_when_marked_and_neither_pinned_nor_named() {
    let (_disk, store) = store();
    let [a, b, c, d]: [Hash; 4] = std::array::from_fn(|i| Hash([i as u8; 32]));
    let _pin = store.pin(a);
    store.condemn_trees([a, b, c, d]);
    drop(store.pin(b));
    let mut gone = Vec::new();
    let mut remove = |hash| -> Result<(), ()> {
        gone.push(hash);
        Ok(())
    };
    assert_eq!(store.sweep_trees(|hash| *hash == c, &mut remove), Ok(1));
    assert_eq!(store.sweep_trees(|_| false, &mut remove), Ok(0), "marks are for one sweep");
    assert_eq!(gone, [d]);
}
