#![allow(clippy::unwrap_used)]

use std::os::unix::fs::{MetadataExt, symlink};

use super::*;

#[test]
fn symbolic_links_below_the_store_are_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), b"secret").unwrap();
    let folder = tempfile::tempdir().unwrap();
    symlink(outside.path(), folder.path().join("dir")).unwrap();
    symlink(outside.path().join("secret"), folder.path().join("file")).unwrap();
    let store = DiskStorage::open(folder.path()).unwrap();
    for path in ["dir/secret", "file"] {
        assert!(store.open(path).is_err(), "{path}");
        assert!(store.create(path, 1).is_err(), "{path}");
    }
    assert!(store.list("dir").is_err());
    assert!(store.sync_dir("dir").is_err());
    assert!(store.rename("file", "dir/new").is_err());
    assert_eq!(std::fs::read(outside.path().join("secret")).unwrap(), b"secret");
    store.remove("file").unwrap();
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn a_store_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (DiskStorage::open(folder.path()).unwrap(), DiskStorage::open(folder.path()).unwrap());
    let lock = one.lock().unwrap();
    assert_eq!(two.lock().unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    assert_eq!(one.lock().unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    drop(lock);
    two.lock().unwrap();
}

#[test]
fn a_new_file_takes_its_space_and_a_hole_gives_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = DiskStorage::open(folder.path()).unwrap();
    let file = store.create("a", (3 << 20) + 17).unwrap();
    file.sync().unwrap();
    let space = || std::fs::metadata(folder.path().join("a")).unwrap().blocks() * 512;
    let full = space();
    assert!(full >= 3 << 20, "{full} bytes taken");
    assert_eq!(file.len().unwrap(), (3 << 20) + 17);
    file.punch(1 << 20, 1 << 20).unwrap();
    assert_eq!(space(), full - (1 << 20));
    assert_eq!(file.len().unwrap(), (3 << 20) + 17);
}

#[test]
fn files_are_for_the_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = DiskStorage::open(folder.path()).unwrap();
    store.create("dir/file", 0).unwrap();
    let mode = |path| std::fs::metadata(folder.path().join(path)).unwrap().mode() & 0o077;
    assert_eq!((mode("dir"), mode("dir/file")), (0, 0));
}

#[test]
fn a_missing_root_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let missing = DiskStorage::open(&folder.path().join("none"));
    assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
}
