#![allow(clippy::unwrap_used)]

use super::*;

fn write(file: &Arc<dyn File>, data: &[u8], offset: u64) -> io::Result<()> {
    file.write_at(&[IoSlice::new(data)], offset)
}

fn read(store: &MemStorage, path: &str) -> Vec<u8> {
    store.files()[path].to_vec()
}

#[test]
fn a_snapshot_and_its_origin_go_their_own_ways() {
    let store = MemStorage::with_capacity(1000);
    let file = store.create("d/a", 4).unwrap();
    store.create("d/b", 1).unwrap();
    let copy = store.snapshot();
    write(&file, b"new", 0).unwrap();
    store.remove("d/b").unwrap();
    write(&copy.open("d/a").unwrap(), b"COPY!", 0).unwrap();
    copy.rename("d/a", "e").unwrap();
    assert_eq!(read(&store, "d/a"), b"new\0");
    assert_eq!(read(&copy, "e"), b"COPY!");
    assert_eq!(store.list("d").unwrap(), ["a"]);
    assert_eq!(copy.list("d").unwrap(), ["b"]);
    assert_eq!(copy.free_bytes().unwrap(), 1000 - 6);
}

#[test]
fn a_full_store_refuses_and_keeps_what_it_has() {
    let store = MemStorage::with_capacity(10_000);
    let file = store.create("a", 9000).unwrap();
    assert_eq!(store.free_bytes().unwrap(), 1000);
    assert_eq!(write(&file, &[1; 1001], 9000).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!((file.len().unwrap(), store.used()), (9000, 9000));
    write(&file, &[1; 9000], 0).unwrap();
    write(&file, &[1; 1000], 9000).unwrap();
    assert_eq!(store.free_bytes().unwrap(), 0);
    assert_eq!(store.create("b", 1).map(|_| ()).unwrap_err().kind(), ErrorKind::StorageFull);
    file.punch(4096, 4096).unwrap();
    assert_eq!(store.free_bytes().unwrap(), 4096);
    write(&file, b"x", 5000).unwrap();
    assert_eq!(store.free_bytes().unwrap(), 0);
    store.set_capacity(Some(20_000));
    assert_eq!(store.free_bytes().unwrap(), 10_000);
    store.set_capacity(Some(5));
    assert_eq!(store.free_bytes().unwrap(), 0);
    write(&file, b"y", 0).unwrap();
}

#[test]
fn an_open_file_without_a_name_takes_space_until_it_is_closed() {
    let store = MemStorage::with_capacity(100);
    let first = store.create("a", 60).unwrap();
    let second = store.open("a").unwrap();
    store.remove("a").unwrap();
    drop(first);
    assert_eq!(store.used(), 60);
    assert_eq!(store.create("b", 60).map(|_| ()).unwrap_err().kind(), ErrorKind::StorageFull);
    drop(second);
    assert_eq!(store.used(), 0);
    store.create("b", 60).unwrap();
}

#[test]
fn a_store_is_built_from_files_and_folders() {
    let content = Arc::new(Content::zeros(3));
    let store = MemStorage::from_files([("a/b/c".into(), content)], ["x".into()]);
    assert_eq!(read(&store, "a/b/c"), [0; 3]);
    assert_eq!(store.list("a").unwrap(), ["b"]);
    store.sync_dir("x").unwrap();
    let mut top = store.list("").unwrap();
    top.sort();
    assert_eq!(top, ["a", "x"]);
}

#[test]
fn absurd_offsets_are_refused() {
    let file = MemStorage::new().create("a", 0).unwrap();
    assert_eq!(write(&file, b"x", u64::MAX).unwrap_err().kind(), ErrorKind::FileTooLarge);
    assert_eq!(write(&file, b"x", i64::MAX as u64).unwrap_err().kind(), ErrorKind::FileTooLarge);
    write(&file, b"x", i64::MAX as u64 - 1).unwrap();
    assert_eq!(file.len().unwrap(), i64::MAX as u64);
}
