//! Archives that are damaged, or mean ill: a clear message, and nothing in the store has changed (promise G29).

use std::sync::Arc;

use aspfs_tools::template::sink::Import;
use aspfs_tools::template::source::{SourceError, read_tar};
use vefs::Store;

use crate::bed::{import, look, store};
use crate::fixture::Make::{Dir, File, Link, Symlink};
use crate::fixture::{Make, archive, pack};

fn import_bytes(store: &Arc<Store>, bytes: &[u8]) -> Result<vefs::ids::Hash, SourceError> {
    let mut import = Import::begin(store).unwrap();
    read_tar("archive", bytes, &mut |_| {}, &mut |event| Ok(import.event(event)?))?;
    Ok(import.finish().map_err(|e| SourceError::Receiver(Box::new(e)))?.hash)
}

/// Nothing has a name, and a collection finds nothing to keep.
fn nothing_is_left(store: &Store) {
    assert_eq!(store.storage().list("bases").unwrap(), Vec::<String>::new());
    assert_eq!(store.storage().list("staging").unwrap(), Vec::<String>::new());
    assert!(store.template_list().unwrap().is_empty());
    store.collect_garbage(&Default::default()).unwrap();
    assert!(store.objects().list().unwrap().is_empty());
}

fn refused(bytes: &[u8], words: &[&str]) {
    let store = store();
    let error = import_bytes(&store, bytes).expect_err(words[0]).to_string();
    assert!(words.iter().all(|w| error.contains(w)), "{error:?} does not say {words:?}");
    nothing_is_left(&store);
}

fn members(list: &[(&str, Make<'_>)], words: &[&str]) {
    refused(&archive(list), words);
}

#[test]
fn names_that_lead_out_of_the_tree_are_refused() {
    members(&[("../x", File(b"1"))], &["archive", "\"../x\"", ".."]);
    members(&[("a/../../x", File(b"1"))], &["\"a/../../x\"", ".."]);
    members(&[("a/..", Dir(0o755))], &[".."]);
    members(&[("a", File(b"1")), ("b", Link("../a"))], &["\"b\"", "\"../a\"", "out of the tree"]);
    members(&[("b", Link("/etc/passwd"))], &["\"b\"", "\"/etc/passwd\"", "not there"]);
    members(&[("b", Link("b"))], &["not there"]);
    members(&[("d", Dir(0o755)), ("b", Link("d"))], &["hard link to the directory"]);
}

#[test]
fn members_below_what_is_no_directory_are_refused() {
    members(&[("l", Symlink("/etc")), ("l/passwd", File(b"1"))], &["\"l/passwd\"", "\"l\" is a symbolic link"]);
    members(&[("d", Dir(0o755)), ("d/l", Symlink(".")), ("d/l/x/y", File(b"1"))], &["symbolic link"]);
    members(&[("f", File(b"1")), ("f/x", File(b"2"))], &["\"f\" is not a directory"]);
    members(&[(".", File(b"1"))], &["name of the root"]);
}

#[test]
fn absolute_names_are_made_relative_and_links_are_strings() {
    let store = store();
    let list: &[_] =
        &[("/etc/passwd", File(b"1")), ("//x", Link("/etc/passwd")), ("out", Symlink("../../../etc/shadow"))];
    let seen = look(&store, import_bytes(&store, &archive(list)).unwrap());
    assert_eq!(seen[&b"etc/passwd"[..]], seen[&b"x"[..]]);
    assert_eq!(seen[&b"out"[..]].bytes, b"../../../etc/shadow");
    assert_eq!(seen[&b"etc"[..]].mode, 0o040755);
}

#[test]
fn a_later_member_replaces_an_earlier_one() {
    let store = store();
    let list: &[_] = &[
        ("a", File(b"1")),
        ("b", Link("a")),
        ("a", File(b"2")),
        ("d/x", File(b"3")),
        ("d", Dir(0o700)),
        ("d", Dir(0o711)),
    ];
    let seen = look(&store, import_bytes(&store, &archive(list)).unwrap());
    let text = |name: &str| seen[name.as_bytes()].bytes.clone();
    assert_eq!((text("a"), text("b"), text("d/x")), (b"2".to_vec(), b"1".to_vec(), b"3".to_vec()));
    assert_eq!((seen[&b"d"[..]].mode, seen[&b"a"[..]].nlink), (0o040711, 1));
}

/// Wherever an archive is cut, compressed or not, it is not taken for a whole one.
#[test]
fn an_archive_without_its_end_is_refused() {
    let whole = archive(&[("d", Dir(0o755)), ("d/f", File(&[5; 2000])), ("l", Symlink("d"))]);
    let store = store();
    for at in (0..whole.len() - 1024).step_by(100).chain([512, 1024, 512 * 6, 512 * 7, whole.len() - 1024]) {
        let error = import_bytes(&store, &whole[..at]).expect_err("cut").to_string();
        assert!(error.contains("cut off") || error.contains("not a tar archive"), "at {at}: {error}");
    }
    for how in ["gz", "xz", "zst"] {
        let packed = pack(&whole, how);
        assert!(import_bytes(&store, &packed).is_ok(), "{how}");
        for at in [1, packed.len() / 2, packed.len() - 1] {
            assert!(import_bytes(&store, &packed[..at]).is_err(), "{how} at {at} of {}", packed.len());
        }
        let mut flipped = packed.clone();
        *flipped.last_mut().unwrap() ^= 0x55;
        assert!(import_bytes(&store, &flipped).is_err(), "{how}: the checksum at its end");
    }
}

#[test]
fn what_is_no_archive_is_refused() {
    refused(b"", &["cut off"]);
    refused(&[b'x'; 5000], &["not a tar archive"]);
    refused(b"BZh91AY&SY", &["bzip2"]);
    let mut damaged = archive(&[("f", File(b"1"))]);
    damaged[0] = b'g';
    refused(&damaged, &["checksum"]);
    let dir = tempfile::tempdir().unwrap();
    let store = store();
    let error = import(&store, &dir.path().join("absent")).unwrap_err().to_string();
    assert!(error.contains("absent") && error.contains("No such file"), "{error}");
    let error = import(&store, std::path::Path::new("/dev/null")).unwrap_err().to_string();
    assert!(error.contains("neither a directory nor a file"), "{error}");
    nothing_is_left(&store);
}

/// A header with fields as they should not be.
fn header(change: impl FnOnce(&mut tar::Header)) -> Vec<u8> {
    let mut bytes = archive(&[("f", File(b""))]);
    let mut header = tar::Header::from_byte_slice(&bytes[..512]).clone();
    change(&mut header);
    header.set_cksum();
    bytes[..512].copy_from_slice(header.as_bytes());
    bytes
}

#[test]
fn absurd_sizes_are_refused_before_anything_is_allocated() {
    let big = |size: u64| header(|h| h.set_size(size));
    refused(&big(1 << 40), &["cut off"]);
    refused(&big(1 << 62), &["cut off"]);
    refused(&big(i64::MAX as u64), &["over the limit"]);
    refused(&big(u64::MAX), &["absurd"]);
    for kind in [b'L', b'K', b'x', b'g'] {
        refused(
            &header(|h| {
                h.as_mut_bytes()[156] = kind;
                h.set_size(1 << 40);
            }),
            &["extended header", "over the limit"],
        );
    }
    refused(&header(|h| h.set_uid(u64::from(u32::MAX))), &["owner", "out of range"]);
    refused(&header(|h| h.as_mut_bytes()[156] = b'M'), &["another volume"]);
    refused(&header(|h| h.as_mut_bytes()[156] = b'?'), &["type '?' is unknown"]);
    refused(&header(|h| h.as_mut_bytes()[124..136].fill(b'z')), &["not a number"]);
}

fn sparse(real: u64, parts: &[(u64, u64)]) -> Vec<u8> {
    let stored: u64 = parts.iter().map(|(_, len)| *len).fold(0, u64::wrapping_add);
    let mut bytes = header(|h| {
        h.as_mut_bytes()[156] = b'S';
        h.set_size(stored.min(512));
        let gnu = h.as_gnu_mut().unwrap();
        gnu.set_real_size(real);
        for (field, (offset, len)) in gnu.sparse.iter_mut().zip(parts) {
            field.set_offset(*offset);
            field.set_length(*len);
        }
    });
    bytes.splice(512..512, [7; 512]);
    bytes
}

#[test]
fn maps_of_holes_are_checked() {
    let store = store();
    let seen = look(&store, import_bytes(&store, &sparse(1 << 62, &[(0, 100), (1 << 61, 412)])).unwrap());
    assert_eq!((seen[&b"f"[..]].size, seen[&b"f"[..]].mapped), (1 << 62, 128 << 10), "a huge hole costs nothing");
    refused(&sparse(100, &[(0, 512)]), &["map of holes"]);
    refused(&sparse(1000, &[(500, 256), (0, 256)]), &["map of holes"]);
    refused(&sparse(1000, &[(0, 300), (200, 212)]), &["map of holes"]);
    refused(&sparse(u64::MAX, &[(u64::MAX - 5, 512)]), &["over the limit"]);
    refused(&sparse(1 << 62, &[(1 << 61, u64::MAX)]), &["map of holes"]);
}

#[test]
fn names_are_bounded() {
    let long = |len: usize| {
        let name = vec![b'n'; len];
        let mut out = header(|h| {
            h.as_mut_bytes()[156] = b'L';
            h.set_size(len as u64);
        });
        out.truncate(512);
        out.extend_from_slice(&name);
        out.resize(out.len().next_multiple_of(512), 0);
        out.extend(archive(&[("short", File(b"1"))]));
        out
    };
    refused(&long(256), &["255 bytes"]);
    refused(&long(40_000), &["32768 bytes"]);
    let store = store();
    assert!(import_bytes(&store, &long(255)).is_ok());
}

/// A directory, link, device or FIFO may state a size, of which no bytes follow: so many were skipped, and the members in them were lost.
#[test]
fn only_files_have_bytes_whatever_size_others_state() {
    for kind in b'1'..=b'6' {
        let mut bytes = archive(&[("t", File(b"1"))]);
        bytes.truncate(1024);
        let odd = header(|h| {
            h.as_mut_bytes()[156] = kind;
            h.as_old_mut().linkname[0] = b't';
            h.set_size(700);
        });
        bytes.extend_from_slice(&odd[..512]);
        bytes.extend(archive(&[("next", File(b"2")), ("last", File(b"3"))]));
        let store = store();
        let seen = look(&store, import_bytes(&store, &bytes).unwrap());
        let names: Vec<_> = seen.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
        assert_eq!(names, ["", "f", "last", "next", "t"], "type {}", char::from(kind));
    }
}

/// A device number that could not be read became 0, and one that Linux does not have another one on its way through FUSE's 32 bits.
#[test]
fn device_numbers_are_read_or_refused() {
    let made = |kind: u8, change: &dyn Fn(&mut tar::Header)| {
        header(|h| {
            h.as_mut_bytes()[156] = kind;
            change(h);
        })
    };
    let numbers = |major: u32, minor: u32| {
        made(b'4', &move |h| {
            h.set_device_major(major).unwrap();
            h.set_device_minor(minor).unwrap();
        })
    };
    refused(&made(b'3', &|h| h.as_mut_bytes()[329..337].fill(b'z')), &["\"f\"", "major device number", "read"]);
    refused(&made(b'4', &|h| h.as_mut_bytes()[337..345].fill(0x80)), &["\"f\"", "minor device number", "read"]);
    // A header of before 1988 has no such fields.
    refused(&made(b'4', &|h| h.as_mut_bytes()[257..265].fill(0)), &["device number", "missing"]);
    refused(&numbers(4096, 0), &["4096:0", "out of range"]);
    refused(&numbers(0, 1 << 20), &["0:1048576", "out of range"]);
    let store = store();
    for (bytes, number) in [(numbers(4095, (1 << 20) - 1), u64::from(u32::MAX)), (made(b'3', &|_| {}), 0)] {
        let seen = look(&store, import_bytes(&store, &bytes).unwrap());
        assert_eq!(seen[&b"f"[..]].rdev, number);
    }
}
