//! What every [`Storage`] does alike, run against each implementation.

#![allow(clippy::unwrap_used)]

use std::io::{ErrorKind, IoSlice};
use std::sync::Arc;

use super::disk::DiskStorage;
use super::fault::{FaultPlan, FaultStorage};
use super::memory::MemStorage;
use super::{File, Storage};

fn each(check: impl Fn(&dyn Storage)) {
    let folder = tempfile::tempdir().unwrap();
    check(&DiskStorage::open(folder.path()).unwrap());
    check(&MemStorage::new());
    check(&FaultStorage::new(Arc::new(MemStorage::new()), FaultPlan::new()));
}

fn bytes(file: &Arc<dyn File>) -> Vec<u8> {
    let mut bytes = vec![0xee; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

fn names(store: &dyn Storage, dir: &str) -> Vec<String> {
    let mut names = store.list(dir).unwrap();
    names.sort();
    names
}

fn kind<T>(result: std::io::Result<T>) -> ErrorKind {
    result.map(|_| ()).unwrap_err().kind()
}

#[test]
fn what_is_written_is_read() {
    each(|store| {
        let file = store.create("a", 5).unwrap();
        assert_eq!(bytes(&file), [0; 5]);
        assert!(!file.is_empty().unwrap());
        file.write_at(&[IoSlice::new(b"he"), IoSlice::new(b""), IoSlice::new(b"llo!")], 1).unwrap();
        assert_eq!(bytes(&file), b"\0hello!");
        file.write_at(&[], 100).unwrap();
        assert_eq!(file.len().unwrap(), 7);
        file.write_at(&[IoSlice::new(b"x")], 9000).unwrap();
        let all = bytes(&store.open("a").unwrap());
        assert_eq!((all.len(), &all[..7], all[9000]), (9001, &b"\0hello!"[..], b'x'));
        assert!(all[7..9000].iter().all(|byte| *byte == 0));
        file.sync().unwrap();
        store.sync_all().unwrap();
    });
}

#[test]
fn more_parts_than_one_call_takes() {
    each(|store| {
        let data: Vec<[u8; 3]> = (0..2500_u32).map(|i| [i as u8, (i >> 8) as u8, 7]).collect();
        let parts: Vec<_> = data.iter().map(|part| IoSlice::new(part)).collect();
        let file = store.create("many", 0).unwrap();
        file.write_at(&parts, 11).unwrap();
        assert_eq!(&bytes(&file)[11..], data.concat());
    });
}

#[test]
fn reading_past_the_end_is_an_error() {
    each(|store| {
        let file = store.create("a", 10).unwrap();
        assert_eq!(kind(file.read_at(&mut [0; 4], 7)), ErrorKind::UnexpectedEof);
        assert_eq!(kind(file.read_at(&mut [0; 1], 1 << 40)), ErrorKind::UnexpectedEof);
        file.read_at(&mut [], 10).unwrap();
    });
}

#[test]
fn create_empties_what_is_there_and_open_files_see_it() {
    each(|store| {
        let old = store.create("a", 0).unwrap();
        old.write_at(&[IoSlice::new(b"old bytes")], 0).unwrap();
        let new = store.create("a", 3).unwrap();
        assert_eq!(bytes(&new), [0; 3]);
        assert_eq!(bytes(&old), [0; 3]);
    });
}

#[test]
fn folders_come_with_their_files_and_stay() {
    each(|store| {
        assert_eq!(names(store, "a/b"), [""; 0]);
        assert_eq!(kind(store.sync_dir("a/b")), ErrorKind::NotFound);
        store.create("a/b/c", 0).unwrap();
        store.create("a-", 0).unwrap();
        store.sync_dir("a/b").unwrap();
        store.sync_dir("").unwrap();
        assert_eq!(names(store, ""), ["a", "a-"]);
        assert_eq!(names(store, "a"), ["b"]);
        assert_eq!(names(store, "a/b"), ["c"]);
        store.remove("a/b/c").unwrap();
        assert_eq!(names(store, "a/b"), [""; 0]);
        assert_eq!(names(store, "a"), ["b"]);
        store.sync_dir("a/b").unwrap();
    });
}

#[test]
fn rename_replaces_and_open_files_go_on() {
    each(|store| {
        let old = store.create("x/target", 0).unwrap();
        old.write_at(&[IoSlice::new(b"old")], 0).unwrap();
        let new = store.create("tmp", 0).unwrap();
        new.write_at(&[IoSlice::new(b"new")], 0).unwrap();
        store.rename("tmp", "x/target").unwrap();
        assert_eq!(kind(store.open("tmp")), ErrorKind::NotFound);
        assert_eq!(bytes(&old), b"old");
        new.write_at(&[IoSlice::new(b"er")], 3).unwrap();
        assert_eq!(bytes(&store.open("x/target").unwrap()), b"newer");
        store.rename("x/target", "made/by/rename").unwrap();
        assert_eq!(bytes(&store.open("made/by/rename").unwrap()), b"newer");
        store.rename("made/by/rename", "made/by/rename").unwrap();
        assert_eq!(names(store, "made/by"), ["rename"]);
    });
}

#[test]
fn an_open_file_survives_its_removal() {
    each(|store| {
        let file = store.create("a", 0).unwrap();
        store.remove("a").unwrap();
        file.write_at(&[IoSlice::new(b"still")], 0).unwrap();
        assert_eq!(bytes(&file), b"still");
        assert_eq!(kind(store.open("a")), ErrorKind::NotFound);
        assert_eq!(kind(store.remove("a")), ErrorKind::NotFound);
        assert_eq!(kind(store.rename("a", "b")), ErrorKind::NotFound);
    });
}

#[test]
fn files_and_folders_are_not_mixed_up() {
    each(|store| {
        store.create("file", 0).unwrap();
        store.create("dir/file", 0).unwrap();
        assert_eq!(kind(store.create("file/below", 0)), ErrorKind::NotADirectory);
        assert_eq!(kind(store.open("file/below")), ErrorKind::NotADirectory);
        assert_eq!(kind(store.list("file")), ErrorKind::NotADirectory);
        assert_eq!(kind(store.sync_dir("file")), ErrorKind::NotADirectory);
        assert_eq!(kind(store.create("dir", 0)), ErrorKind::IsADirectory);
        assert_eq!(kind(store.open("dir")), ErrorKind::IsADirectory);
        assert_eq!(kind(store.remove("dir")), ErrorKind::IsADirectory);
        assert_eq!(kind(store.rename("file", "dir")), ErrorKind::IsADirectory);
    });
}

#[test]
fn paths_out_of_the_store_are_refused() {
    each(|store| {
        for bad in ["/etc/passwd", "../x", "a/../../x", "", "a/"] {
            assert_eq!(kind(store.create(bad, 0)), ErrorKind::InvalidInput, "{bad:?}");
            assert_eq!(kind(store.open(bad)), ErrorKind::InvalidInput);
            assert_eq!(kind(store.rename("a", bad)), ErrorKind::InvalidInput);
            assert_eq!(kind(store.rename(bad, "a")), ErrorKind::InvalidInput);
            assert_eq!(kind(store.remove(bad)), ErrorKind::InvalidInput);
        }
        for bad in ["/", "..", "a/.."] {
            assert_eq!(kind(store.list(bad)), ErrorKind::InvalidInput);
            assert_eq!(kind(store.sync_dir(bad)), ErrorKind::InvalidInput);
        }
    });
}

#[test]
fn a_punched_range_reads_as_zeros() {
    each(|store| {
        let file = store.create("a", 0).unwrap();
        file.write_at(&[IoSlice::new(&[7; 20_000])], 0).unwrap();
        file.punch(5000, 10_000).unwrap();
        file.punch(19_000, 1 << 20).unwrap();
        file.punch(3, 0).unwrap();
        let all = bytes(&file);
        assert_eq!(all.len(), 20_000);
        for (at, byte) in all.iter().enumerate() {
            let punched = (5000..15_000).contains(&at) || at >= 19_000;
            assert_eq!(*byte, if punched { 0 } else { 7 }, "at {at}");
        }
        assert!(store.free_bytes().unwrap() > 0);
    });
}
