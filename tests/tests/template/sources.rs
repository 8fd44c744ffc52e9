//! The same tree from every kind of source: as it was, and with the same hash.

use crate::bed::{Seen, import, import_told, look, store};
use crate::fixture::{ACL, CAPABILITY, FULL, everything, is_root, look_at, pack, tar};
use aspfs_tools::template::event::Event;
use aspfs_tools::template::source::{self, Options};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

fn comparable(mut tree: BTreeMap<Vec<u8>, Seen>) -> BTreeMap<Vec<u8>, Seen> {
    for seen in tree.values_mut() {
        (seen.ino, seen.mapped) = (0, 0);
    }
    tree
}

#[test]
fn a_directory_comes_back_as_it_was() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    everything(dir.path());
    let (store, want) = (store(), look_at(dir.path()));
    let done = import(&store, dir.path()).unwrap();
    let got = look(&store, done.hash);
    let names = |tree: &BTreeMap<Vec<u8>, Seen>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&got), names(&want));
    for (path, want) in &want {
        let mut got = got[path].clone();
        (got.ino, got.mapped) = (0, 0);
        assert_eq!(&got, want, "{}", String::from_utf8_lossy(path));
    }
    let xattr = |path: &str, name: &str| got[path.as_bytes()].xattrs[name.as_bytes()].clone();
    assert_eq!(xattr("suid", "security.capability"), CAPABILITY);
    assert_eq!(xattr("dir/below", "system.posix_acl_default"), ACL);
    assert_eq!(got[&b"dir/big"[..]].ino, got[&b"zz-last"[..]].ino);
    assert_eq!(got[&b"hole"[..]].mapped, 0);
    assert_eq!(got[&b"sparse"[..]].mapped, 128 << 10, "two chunks have bytes");
    assert_eq!((done.inodes, done.bytes), (got.len() as u64 - 2, done.new_bytes));
}

#[test]
fn every_kind_of_archive_gives_the_same_tree() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (tree, plain) = (dir.path().join("tree"), dir.path().join("plain"));
    everything(&tree);
    let store = store();
    let want = import(&store, &tree).unwrap();
    tar(&tree, &plain, &FULL);
    let bytes = std::fs::read(&plain).unwrap();
    for how in ["gz", "xz", "zst"] {
        std::fs::write(dir.path().join(how), pack(&bytes, how)).unwrap();
    }
    for how in ["plain", "gz", "xz", "zst"] {
        let got = import(&store, &dir.path().join(how)).unwrap();
        assert_eq!(look(&store, got.hash), look(&store, want.hash), "{how}");
        assert_eq!((got.hash, got.new_bytes), (want.hash, 0), "{how}");
    }
    for version in ["0.0", "0.1", "1.0"] {
        let how = dir.path().join(version);
        tar(&tree, &how, &[&FULL[..], &[&format!("--sparse-version={version}")]].concat());
        assert_eq!(import(&store, &how).unwrap().hash, want.hash, "sparse format {version}");
    }
}

/// GNU's own format has whole seconds, no attributes, and forms of its own for long names and for holes.
#[test]
fn the_old_format_gives_the_same_but_for_what_it_lacks() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (tree, archive) = (dir.path().join("tree"), dir.path().join("archive"));
    everything(&tree);
    tar(&tree, &archive, &["--format=gnu", "--sparse"]);
    let store = store();
    let whole = |mut tree: BTreeMap<Vec<u8>, Seen>| {
        for seen in tree.values_mut() {
            (seen.mtime.1, seen.xattrs) = (0, BTreeMap::new());
        }
        comparable(tree)
    };
    let got = whole(look(&store, import(&store, &archive).unwrap().hash));
    assert_eq!(got, whole(look_at(&tree)));
}

/// An ACL in words, as tar writes it when it is not asked for attributes as well.
#[test]
fn acls_in_words_are_read_where_they_name_numbers() {
    let member = |key: &str, value: &str| {
        let body = format!(" {key}={value}\n");
        let record = format!("{}{body}", body.len() + 2);
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::XHeader);
        header.set_size(record.len() as u64);
        header.set_cksum();
        let mut out = header.as_bytes().to_vec();
        out.extend_from_slice(record.as_bytes());
        out.resize(1024, 0);
        out.extend(crate::fixture::archive(&[("f", crate::fixture::Make::File(b"x"))]));
        out
    };
    let (dir, store) = (tempfile::tempdir().unwrap(), store());
    let path = dir.path().join("a");
    std::fs::write(&path, member("SCHILY.acl.access", "user::rw-\nuser:1000:r--\ngroup::r--\nmask::r--\nother::---\n"))
        .unwrap();
    let seen = look(&store, import(&store, &path).unwrap().hash);
    assert_eq!(seen[&b"f"[..]].xattrs[&b"system.posix_acl_access"[..]], ACL);
    std::fs::write(
        &path,
        member("SCHILY.acl.access", "user::rw-\nuser:nobody:r--\ngroup::r--\nmask::r--\nother::---\n"),
    )
    .unwrap();
    let error = import(&store, &path).unwrap_err().to_string();
    assert!(error.contains("\"f\"") && error.contains("nobody"), "{error}");
}

/// The order of members decided what the packs were, and so the tree's hash.
#[test]
fn order_in_an_archive_does_not_matter() {
    use crate::fixture::{Make, archive};
    let files: Vec<(String, Vec<u8>)> = (0..50u8).map(|i| (format!("f{i}"), vec![i; 50_000])).collect();
    let members: Vec<(&str, Make<'_>)> = files.iter().map(|(name, bytes)| (&**name, Make::File(bytes))).collect();
    let reversed: Vec<_> = members.iter().rev().copied().collect();
    let (dir, store) = (tempfile::tempdir().unwrap(), store());
    let hashes = [members, reversed].map(|members| {
        std::fs::write(dir.path().join("a"), archive(&members)).unwrap();
        import(&store, &dir.path().join("a")).unwrap().hash
    });
    assert_eq!(hashes[0], hashes[1]);
}

#[test]
fn importing_again_stores_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..300u32 {
        std::fs::write(dir.path().join(format!("f{i}")), i.to_le_bytes().repeat(1 + i as usize * 100)).unwrap();
    }
    let store = store();
    let first = import(&store, dir.path()).unwrap();
    assert_eq!(first.new_bytes, first.bytes);
    let before = store.objects().list().unwrap();
    let again = import(&store, dir.path()).unwrap();
    assert_eq!((again.hash, again.new_bytes, again.bytes), (first.hash, 0, first.bytes));
    assert_eq!(store.objects().list().unwrap(), before);
    assert_eq!(store.storage().list("staging").unwrap(), Vec::<String>::new());
}

/// A hole at the end of a file and the end of one that became shorter meanwhile look the same when data is sought: the template had a file of
/// the old size with zeros at its end, and nobody was told. Nor was it when bytes were written over that had been read.
#[test]
fn a_file_that_changes_while_it_is_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("changing");
    type Change = fn(&File);
    let changes: [(&str, Change); 3] = [
        ("shorter", |file: &File| file.set_len(5 << 20).unwrap()),
        ("written", |file: &File| file.write_all_at(b"x", 0).unwrap()),
        ("longer", |file: &File| file.set_len(30 << 20).unwrap()),
    ];
    for (what, change) in changes {
        let file = File::create(&path).unwrap();
        file.set_len(20 << 20).unwrap();
        file.write_all_at(b"start", 0).unwrap();
        file.write_all_at(b"middle", 10 << 20).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1000)).unwrap();
        let told = source::read(dir.path(), &Options::default(), &mut |_| {}, &mut |event| {
            if matches!(event, Event::Data { .. }) {
                change(&file);
            }
            Ok(())
        });
        let error = told.expect_err(what).to_string();
        assert!(error.contains("/changing") && error.contains("while it was being read"), "{what}: {error}");
    }
    assert!(import(&store(), dir.path()).is_ok(), "what nobody changes is read");
}

/// What is mounted in the directory is left out and counted, unless it is asked for; a mount point that is a directory stays.
#[test]
fn mounts_are_crossed_only_when_asked() {
    let mounts = "mkdir tree/mnt && touch tree/over && mount -t tmpfs tmpfs tree/mnt && echo x > tree/mnt/inside \
        && mount --bind tree/mnt/inside tree/over";
    told_in_a_namespace(mounts, "mnt, skipped 2 | mnt mnt/inside over, skipped 0");
}

/// Mounts were told apart by device as well as by number. The files of an overlayfs have the devices of its layers, other than the directory they
/// are in: all of them were left out without a word, as if each were mounted there.
#[test]
fn files_of_an_overlay_are_no_mounts() {
    let mounts = "mkdir a b && mount -t tmpfs tmpfs a && mount -t tmpfs tmpfs b && echo 1 > a/f && mkdir b/d \
        && echo 2 > b/d/g && mount -t overlay overlay -o lowerdir=a:b,xino=off tree";
    told_in_a_namespace(mounts, "d d/g f, skipped 0 | d d/g f, skipped 0");
}

/// What the child below tells of the directory `tree` after these commands; where there can be no such mounts, nothing is checked.
fn told_in_a_namespace(mounts: &str, want: &str) {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    match in_a_namespace(dir.path(), mounts) {
        Ok(told) => assert_eq!(told, want),
        Err(e) => eprintln!("skipped: no such mounts in a namespace of our own: {e}"),
    }
}

/// A child in a mount namespace of its own does the work: the test's process mounts nothing.
fn in_a_namespace(dir: &Path, mounts: &str) -> std::io::Result<String> {
    let (tree, told) = (dir.join("tree"), dir.join("told"));
    std::fs::create_dir_all(&tree)?;
    let script = format!(
        "mount --make-rprivate / && cd {} && {mounts} && exec {} --exact sources::import_for_mounts --nocapture",
        dir.display(),
        std::env::current_exe()?.display()
    );
    let out = std::process::Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .env("ASPFS_TEST_TREE", &tree)
        .env("ASPFS_TEST_OUT", &told)
        .output()?;
    if !out.status.success() {
        return Err(std::io::Error::other(String::from_utf8_lossy(&out.stderr).into_owned()));
    }
    std::fs::read_to_string(&told)
}

/// The child of the tests above; by itself it does nothing.
#[test]
fn import_for_mounts() {
    let (Some(tree), Some(out)) = (std::env::var_os("ASPFS_TEST_TREE"), std::env::var_os("ASPFS_TEST_OUT")) else {
        return;
    };
    let store = store();
    let names = |cross_mounts| {
        let options = Options { cross_mounts, ..Options::default() };
        let (done, told) = import_told(&store, tree.as_ref(), &options).unwrap();
        let paths = look(&store, done.hash).into_keys().filter(|p| !p.is_empty());
        let paths = paths.map(|p| String::from_utf8(p).unwrap()).collect::<Vec<_>>().join(" ");
        format!("{paths}, skipped {}", told.skipped)
    };
    std::fs::write(out, format!("{} | {}", names(false), names(true))).unwrap();
}
