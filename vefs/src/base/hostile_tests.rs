//! Trees whose bytes are damaged, unknown, or forged by somebody who can compute checksums.
// checks G28, G29
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::format::{Entry, HEADER_LEN, Head, Header, Run, Xattr, tree_path};
use super::tests::*;
use super::write::PageWriter;
use super::*;
use crate::clock::Timestamp;
use crate::types::{Kind, mode};

fn sample_bytes() -> (Vec<u8>, Hash) {
    let (disk, objects) = objects();
    let hash = build(&objects, sample).hash();
    (disk.bytes(&tree_path(hash)), hash)
}

/// The pages of a tree's file, one after the other, and the number of its inodes.
fn body(bytes: &[u8]) -> (Vec<u8>, u32) {
    let header = Header::decode(bytes.first_chunk().unwrap(), bytes.len() as u64).unwrap();
    (bytes[HEADER_LEN..header.table as usize].to_vec(), header.inodes as u32)
}

#[test]
fn every_flipped_byte_and_every_cut_is_refused() {
    let (bytes, hash) = sample_bytes();
    load_bytes(&bytes, hash).unwrap();
    for at in 0..bytes.len() {
        for mask in [1, 0x10, 0x80, 0xFF] {
            let mut bad = bytes.clone();
            bad[at] ^= mask;
            assert!(load_bytes(&bad, hash).is_err(), "byte {at} ^ {mask:#x} went unnoticed");
        }
        assert!(load_bytes(&bytes[..at], hash).is_err(), "a cut at {at} went unnoticed");
    }
    assert!(load_bytes(&[&bytes[..], &[0]].concat(), hash).is_err());
    assert!(matches!(load_bytes(&bytes, Hash::of(b"other")), Err(TreeError::RootHash(h)) if h == hash));
}

#[test]
fn another_tree_under_this_name_is_refused() {
    let (bytes, hash) = sample_bytes();
    let (mut page, inodes) = body(&bytes);
    // The value of an attribute: everything but the root hash is in order.
    let at = page.windows(6).position(|w| w == b"opaque").unwrap() + 7;
    assert_eq!(page[at], b'y');
    page[at] = b'n';
    let (other, root) = sealed(&[(page, inodes)]);
    load_bytes(&other, root).unwrap();
    let mut header = Header::decode(other.first_chunk().unwrap(), other.len() as u64).unwrap();
    assert_eq!(header.root, root);
    header.root = hash;
    let renamed = [&header.encode(), &other[HEADER_LEN..]].concat();
    assert!(matches!(load_bytes(&renamed, hash), Err(TreeError::RootHash(h)) if h == root));
}

#[test]
fn what_is_unknown_is_refused_by_name() {
    let with = |at: usize, value: u8| {
        let (mut bytes, hash) = sample_bytes();
        bytes[at] = value;
        let crc = crc32fast::hash(&bytes[..HEADER_LEN - 4]).to_le_bytes();
        bytes[HEADER_LEN - 4..HEADER_LEN].copy_from_slice(&crc);
        load_bytes(&bytes, hash).unwrap_err().to_string()
    };
    assert!(with(8, 2).contains("format 2 is unknown"));
    assert!(with(12, 95).contains("header length 95"));
    assert!(with(36, 7).contains("cipher 7 is unknown"));
    assert!(with(40, 8).contains("key 8 is unknown"));
    assert!(with(84, 9).contains("reserved bytes hold 9"));
    assert!(with(16, 0).contains("do not fit"), "no inodes");
    assert!(with(23, 1).contains("do not fit"), "2^56 inodes");
    assert!(with(32, 9).contains("do not fit"), "pages");
    assert!(with(31, 0xFF).contains("do not fit"), "table beyond the file");
}

#[test]
fn changed_pages_under_right_checksums_never_panic() {
    let (bytes, _) = sample_bytes();
    let (page, inodes) = body(&bytes);
    let mut refused = 0;
    for at in 0..page.len() {
        for value in [0, 1, 2, 0x7F, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF, page[at] ^ 1, page[at].wrapping_add(1)] {
            let mut changed = page.clone();
            changed[at] = value;
            let (bytes, root) = sealed(&[(changed, inodes)]);
            match load_bytes(&bytes, root) {
                Ok(tree) => exercise(&tree),
                Err(_) => refused += 1,
            }
        }
        let (bytes, root) = sealed(&[(page[..at].to_vec(), inodes)]);
        assert!(load_bytes(&bytes, root).is_err(), "a page cut at {at} was accepted");
    }
    assert!(refused > page.len(), "{refused}");
}

fn head(mode: u32, nlink: u32) -> Head<'static> {
    let t = Timestamp::default();
    let size = if mode & mode::IFMT == mode::IFDIR { 4096 } else { 0 };
    let (uid, gid, rdev, target) = (0, 0, 0, &b""[..]);
    let (atime, mtime, ctime, btime) = (t, t, t, t);
    Head { mode, uid, gid, nlink, rdev, size, atime, mtime, ctime, btime, target, xattrs: 0, entries: 0, runs: 0 }
}

type Parts<'a> = (Head<'a>, Vec<Xattr<'a>>, Vec<Entry<'a>>, Vec<Run>);

fn dir(nlink: u32, entries: &[(&'static str, u32, Kind)]) -> Parts<'static> {
    let entry = |&(name, ino, kind): &(&'static str, u32, Kind)| Entry { name: name.as_bytes(), ino, kind };
    (head(mode::IFDIR | 0o755, nlink), vec![], entries.iter().map(entry).collect(), vec![])
}

fn file(nlink: u32) -> Parts<'static> {
    (head(mode::IFREG, nlink), vec![], vec![], vec![])
}

/// Writes inodes that nobody has checked and loads them.
fn forged(inodes: &[Parts<'_>]) -> Result<BaseTree, String> {
    let mut bytes = Vec::new();
    let mut sink = |offset: u64, part: &[u8]| {
        let end = offset as usize + part.len();
        bytes.resize(end.max(bytes.len()), 0);
        bytes[offset as usize..end].copy_from_slice(part);
        Ok(())
    };
    let mut pages = PageWriter::new(&mut sink);
    for (head, xattrs, entries, runs) in inodes {
        assert!(pages.inode(head.clone(), xattrs, entries, runs).is_ok());
    }
    let Ok(root) = pages.finish() else { panic!("cannot fail") };
    load_bytes(&bytes, root).map_err(|e| e.to_string())
}

#[test]
fn forged_structures_are_refused() {
    use Kind::{Directory as D, Regular as F};
    exercise(&forged(&[dir(3, &[("a", 2, D), ("b", 3, F)]), dir(2, &[]), file(1)]).unwrap());
    let refused = |what: &str, inodes: &[Parts<'_>]| {
        let error = forged(inodes).map(drop).expect_err(what);
        assert!(error.contains(what), "{error:?} instead of {what:?}");
    };
    refused("its mode", &[file(1)]);
    refused("its mode", &[dir(2, &[("a", 2, F)]), (head(0o644, 1), vec![], vec![], vec![])]);
    refused("its mode", &[dir(2, &[("a", 2, F)]), (head(1 << 17 | mode::IFREG, 1), vec![], vec![], vec![])]);
    refused("another name already", &[dir(3, &[("a", 1, D)])]);
    refused("another name already", &[dir(3, &[("a", 2, D)]), dir(3, &[("loop", 2, D)])]);
    refused("another name already", &[dir(4, &[("a", 2, D), ("b", 2, D)]), dir(2, &[])]);
    refused("can be reached", &[dir(2, &[]), file(1)]);
    refused("out of order", &[dir(2, &[("a", 3, F), ("b", 2, F)]), file(1), file(1)]);
    refused("out of order", &[dir(2, &[("a", 0, F)])]);
    refused("out of order", &[dir(2, &[("a", u32::MAX, F)])]);
    refused("entry's kind", &[dir(2, &[("a", 2, D)]), file(1)]);
    refused("link count", &[dir(2, &[("a", 2, F)]), file(2)]);
    refused("link count", &[dir(3, &[("a", 2, F)]), file(1)]);
    refused("entries are not in order", &[dir(2, &[("b", 2, F), ("a", 3, F)]), file(1), file(1)]);
    refused("entries are not in order", &[dir(2, &[("a", 2, F), ("a", 3, F)]), file(1), file(1)]);
    for bad in ["", ".", "..", "a/b", "a\0"] {
        refused("a name is not valid", &[dir(2, &[(bad, 2, F)]), file(1)]);
    }
    let entries_of_a_file = (head(mode::IFREG, 1), vec![], dir(2, &[("a", 2, F)]).2, vec![]);
    refused("parts that its kind", &[dir(2, &[("a", 2, F)]), entries_of_a_file]);
}

#[test]
fn forged_attributes_are_refused() {
    let with = |what: &str, change: &dyn Fn(&mut Parts<'_>)| {
        let mut inode = file(1);
        change(&mut inode);
        let root = dir(2, &[("a", 2, Kind::of_mode(inode.0.mode).unwrap_or(Kind::Regular))]);
        let error = forged(&[root, inode]).map(drop).expect_err(what);
        assert!(error.contains(what), "{error:?} instead of {what:?}");
    };
    let x = |name: &'static [u8], value: &'static [u8]| Xattr { name, value };
    let long: &'static [u8] = Box::leak(vec![b'n'; 256].into());
    let large: &'static [u8] = Box::leak(vec![0; (64 << 10) + 1].into());
    let run = |offset, len, place| Run { offset, len, hash: Hash::default(), place };
    with("one of its times", &|i| i.0.btime.nanos = 1_000_000_000);
    with("device number", &|i| i.0.rdev = 1);
    with("its size", &|i| i.0.size = i64::MAX as u64);
    with("its size", &|i| (i.0.mode, i.0.size) = (mode::IFIFO, 1));
    with("link target", &|i| i.0.target = b"x");
    with("link target", &|i| i.0.mode = mode::IFLNK);
    with("link target", &|i| (i.0.mode, i.0.size, i.0.target) = (mode::IFLNK, 2, b"x\0"));
    with("its size", &|i| (i.0.mode, i.0.size, i.0.target) = (mode::IFLNK, 2, b"x"));
    with("extended attribute is not", &|i| i.1 = vec![x(b"", b"")]);
    with("extended attribute is not", &|i| i.1 = vec![x(b"a\0", b"")]);
    with("extended attribute is not", &|i| i.1 = vec![x(long, b"")]);
    with("extended attribute is not", &|i| i.1 = vec![x(b"user.x", large)]);
    with("attributes are not in order", &|i| i.1 = vec![x(b"user.b", b""), x(b"user.a", b"")]);
    with("attributes are not in order", &|i| i.1 = vec![x(b"user.a", b""), x(b"user.a", b"")]);
    with("parts that its kind", &|i| (i.0.mode, i.3) = (mode::IFIFO, vec![run(0, 1, 0)]));
    with("content is not in order", &|i| (i.0.size, i.3) = (9, vec![run(0, 10, 0)]));
    with("content is not in order", &|i| (i.0.size, i.3) = (9, vec![run(0, 0, 0)]));
    with("content is not in order", &|i| (i.0.size, i.3) = (9, vec![run(3, 3, 0), run(0, 3, 0)]));
    with("content is not in order", &|i| (i.0.size, i.3) = (9, vec![run(0, 3, 0), run(2, 3, 0)]));
    with("content is not in order", &|i| (i.0.size, i.3) = (9, vec![run(u64::MAX, 3, 0)]));
    with("place in an object", &|i| (i.0.size, i.3) = (9, vec![run(0, 3, u64::MAX)]));
}

#[test]
fn pages_end_only_where_they_are_full() {
    let (_disk, objects) = objects();
    let tree = build(&objects, |b| {
        for i in 0..600 {
            b.add_node(ROOT, format!("{i:04}").as_bytes(), &attrs(mode::IFIFO)).unwrap();
        }
    });
    assert_eq!(tree.inode_count(), 601);
    exercise(&tree);
    // The same inodes in pages that are cut elsewhere would be another hash for the same tree.
    let file = objects.storage().open(&tree_path(tree.hash())).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    let (body, inodes) = body(&bytes);
    // All inodes but the root have the same length.
    let fifo = 20;
    let cut_before_last = |n: usize| body.split_at(body.len() - n * fifo);
    let load = |pages: &[(&[u8], u32)]| {
        let pages: Vec<_> = pages.iter().map(|(page, inodes)| (page.to_vec(), *inodes)).collect();
        let (bytes, root) = sealed(&pages);
        load_bytes(&bytes, root).map(|tree| tree.hash())
    };
    let (start, end) = cut_before_last(601 - 256);
    let (middle, last) = end.split_at(256 * fifo);
    assert_eq!(load(&[(start, 256), (middle, 256), (last, 89)]).unwrap(), tree.hash());
    assert!(matches!(load(&[(&body, inodes)]), Err(TreeError::PageEnd(0))), "a page too long");
    let (short, rest) = last.split_at(2 * fifo);
    let cut_short = load(&[(start, 256), (middle, 256), (short, 2), (rest, 87)]);
    assert!(matches!(cut_short, Err(TreeError::PageEnd(2))), "a page too short");
    assert!(
        matches!(load(&[(start, 256), (middle, 255), (last, 90)]), Err(TreeError::PageEnd(1))),
        "a wrong first inode"
    );
    let empty_page = load(&[(start, 256), (middle, 256), (last, 89), (b"", 0)]);
    assert!(matches!(empty_page, Err(TreeError::PageEnd(_))), "an empty page");
}

#[test]
fn an_attribute_of_the_largest_size_fits() {
    let (_disk, objects) = objects();
    let value = vec![7; 64 << 10];
    let name = [&b"user."[..], &[b'n'; 250]].concat();
    let tree = build(&objects, |b| b.set_xattr(ROOT, &name, &value).unwrap());
    assert_eq!(tree.xattr(R, &name), Some(&value[..]));
}
