#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::format::{HEADER_LEN, Header, TableEntry, root_hash, tree_path};
use super::*;
use crate::clock::Timestamp;
use crate::object::ObjectStore;
use crate::object::teststore::TestStore;
use crate::types::{Extent, Kind, Source, mode};
use zerocopy::IntoBytes;

pub(super) const ROOT: NodeId = BaseBuilder::ROOT;
pub(super) const R: InodeNo = InodeNo::ROOT;

pub(super) fn objects() -> (Arc<TestStore>, ObjectStore) {
    let disk = TestStore::new();
    (disk.clone(), ObjectStore::new(disk))
}

fn at(secs: i64) -> Timestamp {
    Timestamp { secs, nanos: 7 }
}

pub(super) fn attrs(mode: u32) -> Attrs {
    Attrs { mode, uid: 10, gid: 20, rdev: 0, atime: at(1), mtime: at(2), ctime: at(3), btime: at(-4) }
}

pub(super) fn build(objects: &ObjectStore, fill: impl FnOnce(&mut BaseBuilder)) -> Arc<BaseTree> {
    let mut builder = BaseBuilder::new(objects.clone());
    fill(&mut builder);
    let hash = builder.finish().unwrap();
    BaseTree::open(&**objects.storage(), hash).unwrap()
}

pub(super) fn text(builder: &mut BaseBuilder, dir: NodeId, name: &str, bytes: &[u8]) -> NodeId {
    let content = builder.add_content(&mut &bytes[..], false, false).unwrap();
    builder.add_file(dir, name.as_bytes(), &attrs(0o644), content).unwrap()
}

/// A small tree with one of everything.
pub(super) fn sample(builder: &mut BaseBuilder) {
    builder.set_attrs(ROOT, &attrs(mode::IFDIR | 0o1755)).unwrap();
    let etc = builder.add_dir(ROOT, b"etc", &attrs(0o755)).unwrap();
    let hosts = text(builder, etc, "hosts", b"127.0.0.1 localhost\n");
    builder.add_link(ROOT, b"zz-hosts", hosts).unwrap();
    text(builder, etc, "empty", b"");
    builder.add_symlink(etc, b"alias", &attrs(0), b"hosts").unwrap();
    builder.add_node(ROOT, b"null", &Attrs { rdev: 0x103, ..attrs(mode::IFCHR | 0o666) }).unwrap();
    builder.set_xattr(hosts, b"user.b", b"2").unwrap();
    builder.set_xattr(hosts, b"user.a", b"").unwrap();
    builder.set_xattr(ROOT, b"trusted.overlay.opaque", b"y").unwrap();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Reads a file of a tree as a program would.
fn read(objects: &ObjectStore, tree: &BaseTree, ino: InodeNo) -> Vec<u8> {
    let mut out = vec![0; tree.inode(ino).unwrap().size as usize];
    for (offset, extent) in tree.content(ino) {
        let Source::Base { hash, offset: place } = extent.source else { panic!("{extent:?}") };
        let range = *offset as usize..(*offset + extent.len) as usize;
        objects.open(hash).unwrap().read_at(&mut out[range], place).unwrap();
    }
    out
}

fn path(tree: &BaseTree, path: &str) -> Option<InodeNo> {
    path.split('/').try_fold(R, |dir, name| Some(tree.lookup(dir, name.as_bytes())?.ino))
}

pub(super) fn load_bytes(bytes: &[u8], hash: Hash) -> Result<BaseTree, TreeError> {
    let read = |buf: &mut [u8], offset: u64| {
        let part = bytes.get(offset as usize..).and_then(|b| b.get(..buf.len()));
        buf.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    };
    load::load(&read, bytes.len() as u64, hash)
}

/// Asks a tree everything: nothing may panic, and what it says must hold together.
pub(super) fn exercise(tree: &BaseTree) {
    let mut entries = 0;
    for ino in (0..=tree.inode_count() + 1).map(InodeNo) {
        let Some(inode) = tree.inode(ino) else { continue };
        for (name, dentry) in tree.entries(ino, 0) {
            entries += 1;
            assert_eq!(tree.lookup(ino, name), Some(dentry));
            assert_eq!(tree.entry_by_cookie(ino, dentry.cookie), Some((name, dentry)));
            assert_eq!(tree.inode(dentry.ino).unwrap().kind(), dentry.kind);
        }
        let mapped: u64 = tree.content(ino).iter().map(|(_, extent)| extent.len).sum();
        assert_eq!(inode.mapped, mapped);
        assert_eq!(tree.target(ino).is_some(), inode.kind() == Kind::Symlink);
        assert!(tree.xattrs(ino).all(|name| tree.xattr(ino, name).is_some()));
    }
    assert!(entries + 1 >= tree.inode_count());
}

/// The file that these pages make, each with its number of inodes: every checksum in it is right.
pub(super) fn sealed(pages: &[(Vec<u8>, u32)]) -> (Vec<u8>, Hash) {
    let mut bytes = vec![0; HEADER_LEN];
    let (mut first, mut table) = (1, Vec::new());
    for (page, inodes) in pages {
        table.push(TableEntry {
            offset: (bytes.len() as u64).into(),
            len: (page.len() as u32).into(),
            first: first.into(),
            hash: *blake3::hash(page).as_bytes(),
        });
        bytes.extend_from_slice(page);
        first += inodes;
    }
    let root = root_hash(table.iter());
    let header = Header { inodes: u64::from(first - 1), table: bytes.len() as u64, pages: table.len() as u32, root };
    bytes[..HEADER_LEN].copy_from_slice(&header.encode());
    bytes.extend_from_slice(table.as_bytes());
    (bytes, root)
}

#[test]
fn golden_empty_tree() {
    let (disk, objects) = objects();
    let hash = BaseBuilder::new(objects).finish().unwrap();
    let got = hex(&disk.bytes(&tree_path(hash)));
    assert_eq!(got, GOLDEN_EMPTY.replace(char::is_whitespace, ""), "the tree's bytes changed: raise the format number");
    assert_eq!(hash, BaseTree::empty().hash(), "the empty tree's hash changed: raise the format number");
}

#[test]
fn golden_sample_tree() {
    let (disk, objects) = objects();
    let hash = build(&objects, sample).hash();
    let got = hex(&disk.bytes(&tree_path(hash)));
    assert_eq!(
        got,
        GOLDEN_SAMPLE.replace(char::is_whitespace, ""),
        "the tree's bytes changed: raise the format number"
    );
    assert_eq!(hash.to_hex(), GOLDEN_SAMPLE_HASH);
}

const GOLDEN_EMPTY: &str = "
    415350465342415301000000600000000100000000000000760000000000000001000000000000000000000000000000329a
    4953af13f903a080b30e8036e113ab626f1c9516872d9ebbc2dd111c8170000000000000000000000000ad87c824fbed4100
    000200fb00100000000000000000000000006000000000000000160000000100000043fae0102c6a41397ed22da9f55a795c
    96ff2c5c25978823972bb220a491fe34";
const GOLDEN_SAMPLE: &str = "
    4153504653424153010000006000000006000000000000006001000000000000010000000000000000000000000000007fe3
    5e7dd4af5e6b4bcba7631f21281f676969c37e4b0139a59c8beaa1c36be9000000000000000000000000a0112e45fbed430a
    140300fb001002070407060707070001030016747275737465642e6f7665726c61792e6f7061717565017903657463020104
    6e756c6c0605087a7a2d686f7374730500fbed410a140200fb001002070407060707070000030005616c696173030205656d
    707479040005686f7374730500fbffa10a14010005020704070607070705686f737473000000fba4810a1401000002070407
    0607070700000000fba4810a1402001402070407060707070002000106757365722e610006757365722e6201320014f16092
    148f84b2eef72591be103e155d66601471464dfeb35590c334f45e85f000fbb6210a1401fb03010002070407060707070000
    00006000000000000000000100000100000032a12f7d2853d911f6704f1274df61605f94014176ce99b33887040ff544e75c";
const GOLDEN_SAMPLE_HASH: &str = "7fe35e7dd4af5e6b4bcba7631f21281f676969c37e4b0139a59c8beaa1c36be9";

#[test]
fn the_empty_tree_is_the_one_that_is_built() {
    let (disk, objects) = objects();
    let hash = BaseBuilder::new(objects).finish().unwrap();
    let bytes = disk.bytes(&tree_path(hash));
    let loaded = load_bytes(&bytes, hash).unwrap();
    let empty = BaseTree::empty();
    assert_eq!(loaded.inode(R), empty.inode(R));
    assert_eq!((empty.inode_count(), empty.child_count(R), empty.objects().len()), (1, 0, 0));
    let without_files = TestStore::new();
    assert_eq!(BaseTree::open(&*without_files, hash).unwrap().hash(), hash);
}

#[test]
fn a_tree_answers_what_was_put_in() {
    let (disk, objects) = objects();
    let tree = build(&objects, sample);
    let root = tree.inode(R).unwrap();
    assert_eq!((root.mode, root.nlink, root.size, root.mapped), (mode::IFDIR | 0o1755, 3, 4096, 0));
    assert_eq!((root.parent, root.next_cookie, root.flags), (R, 6, 0));
    let names: Vec<_> = tree.entries(R, 0).map(|(n, d)| (n.to_vec(), d.ino.0, d.kind, d.cookie)).collect();
    let expected = [
        (b"etc".to_vec(), 2, Kind::Directory, 3),
        (b"null".to_vec(), 6, Kind::CharDevice, 4),
        (b"zz-hosts".to_vec(), 5, Kind::Regular, 5),
    ];
    assert_eq!(names, expected);
    assert_eq!(tree.entries(R, 3).count(), 2);
    assert_eq!(tree.entries(R, u64::MAX).count(), 0);
    assert_eq!(tree.entry_by_cookie(R, 4).unwrap().0, b"null");
    for missing in [0, 2, 6, u64::MAX] {
        assert!(tree.entry_by_cookie(R, missing).is_none(), "cookie {missing}");
    }
    let etc = InodeNo(2);
    assert_eq!(tree.inode(etc).unwrap().parent, R);
    assert_eq!(tree.child_count(etc), 3);
    assert_eq!(tree.lookup(etc, b"host"), None);
    assert_eq!(tree.lookup(InodeNo(5), b"x"), None, "a file has no entries");

    let hosts = tree.inode(InodeNo(5)).unwrap();
    assert_eq!((hosts.mode, hosts.nlink, hosts.size, hosts.mapped), (mode::IFREG | 0o644, 2, 20, 20));
    assert_eq!((hosts.parent, hosts.next_cookie), (InodeNo(0), 0));
    assert_eq!((hosts.atime, hosts.mtime, hosts.ctime, hosts.btime), (at(1), at(2), at(3), at(-4)));
    assert_eq!(read(&objects, &tree, InodeNo(5)), b"127.0.0.1 localhost\n");
    assert_eq!(tree.xattrs(InodeNo(5)).collect::<Vec<_>>(), [b"user.a", b"user.b"]);
    assert_eq!(tree.xattr(InodeNo(5), b"user.b"), Some(&b"2"[..]));
    assert_eq!(tree.xattr(InodeNo(5), b"user.c"), None);
    assert_eq!(tree.xattrs(etc).count(), 0);

    let alias = path(&tree, "etc/alias").unwrap();
    assert_eq!(tree.target(alias), Some(&b"hosts"[..]));
    assert_eq!(tree.inode(alias).unwrap().mode, mode::IFLNK | 0o777);
    assert_eq!(tree.target(R), None);
    let null = tree.inode(InodeNo(6)).unwrap();
    assert_eq!((null.rdev, null.size), (0x103, 0));
    for missing in [0, 7, 1 << 32, u64::MAX] {
        assert!(tree.inode(InodeNo(missing)).is_none());
        assert!(tree.content(InodeNo(missing)).is_empty());
    }
    assert_eq!(tree.objects().len(), 1);
    assert!(disk.paths().iter().all(|p| !p.starts_with("staging/")), "{:?}", disk.paths());
}

#[test]
fn the_file_gets_its_name_when_it_is_flushed() {
    let (disk, objects) = objects();
    let hash = BaseBuilder::new(objects).finish().unwrap();
    let log = disk.take_log();
    assert_eq!(log.len(), 3, "{log:?}");
    assert!(log[0].starts_with("sync staging/"));
    assert_eq!(log[1..], [format!("rename {}", tree_path(hash)), "sync_dir bases".to_owned()]);
}

#[test]
fn order_of_adding_does_not_matter() {
    let (_disk, objects) = objects();
    let names = ["b", "a", "c", "ab", "B"];
    let tree = |order: &mut dyn Iterator<Item = &&str>| {
        let mut b = BaseBuilder::new(objects.clone());
        for name in order {
            b.add_dir(ROOT, name.as_bytes(), &attrs(0o755)).unwrap();
        }
        b.finish().unwrap()
    };
    assert_eq!(tree(&mut names.iter()), tree(&mut names.iter().rev()));
}

#[test]
fn contents_go_where_their_size_calls_for() {
    let (_disk, objects) = objects();
    let big = vec![1u8; 64 << 10];
    let mut small_files = Vec::new();
    let tree = build(&objects, |b| {
        for i in 0..10u8 {
            small_files.push(vec![i; 1000 + usize::from(i)]);
            text(b, ROOT, &format!("small{i}"), &small_files[usize::from(i)]);
        }
        text(b, ROOT, "again", &[3; 1003]);
        text(b, ROOT, "big", &big);
        let content = b.add_content(&mut &b"#!/bin/sh\n"[..], true, false).unwrap();
        b.add_file(ROOT, b"run", &attrs(0o755), content).unwrap();
    });
    assert_eq!(tree.objects().len(), 3, "a pack, the big one, the executable");
    for (i, bytes) in small_files.iter().enumerate() {
        assert_eq!(&read(&objects, &tree, path(&tree, &format!("small{i}")).unwrap()), bytes);
    }
    let content = |name| tree.content(path(&tree, name).unwrap());
    assert_eq!(content("again"), content("small3"), "equal small contents are one");
    let own = |bytes: &[u8]| {
        let source = Source::Base { hash: Hash::of(bytes), offset: 0 };
        [(0, Extent { len: bytes.len() as u64, source })]
    };
    assert_eq!(content("big"), own(&big));
    assert_eq!(content("run"), own(b"#!/bin/sh\n"));
}

#[test]
fn a_pack_is_closed_before_it_is_too_large() {
    let (_disk, objects) = objects();
    let len = 60_000;
    let files: Vec<Vec<u8>> = (0..300u32).map(|i| i.to_le_bytes().repeat(len / 4)).collect();
    let tree = build(&objects, |b| {
        for (i, bytes) in files.iter().enumerate() {
            text(b, ROOT, &format!("{i}"), bytes);
        }
    });
    let packs = tree.objects();
    assert_eq!(packs.len(), 2);
    for hash in packs {
        assert!(objects.open(hash).unwrap().len() <= PACK_MAX);
    }
    for (i, bytes) in files.iter().enumerate() {
        assert_eq!(&read(&objects, &tree, path(&tree, &i.to_string()).unwrap()), bytes);
    }
}

#[test]
fn holes_stay_holes_only_where_there_were_some() {
    let (_disk, objects) = objects();
    let mut bytes = vec![0u8; 5 * (64 << 10) + 10];
    bytes[70_000] = 1;
    bytes[4 * (64 << 10)] = 2;
    let tree = build(&objects, |b| {
        for (name, sparse) in [("sparse", true), ("dense", false)] {
            let content = b.add_content(&mut &bytes[..], false, sparse).unwrap();
            b.add_file(ROOT, name.as_bytes(), &attrs(0o644), content).unwrap();
        }
        let zeros = vec![0; 200_000];
        let content = b.add_content(&mut &zeros[..], false, true).unwrap();
        b.add_file(ROOT, b"hole", &attrs(0o644), content).unwrap();
    });
    let stat = |name| tree.inode(path(&tree, name).unwrap()).unwrap();
    assert_eq!((stat("sparse").size, stat("sparse").mapped), (bytes.len() as u64, 2 * (64 << 10)));
    assert_eq!(stat("dense").mapped, bytes.len() as u64);
    assert_eq!((stat("hole").size, stat("hole").mapped), (200_000, 0));
    assert_eq!(read(&objects, &tree, path(&tree, "sparse").unwrap()), bytes);
    assert_eq!(read(&objects, &tree, path(&tree, "dense").unwrap()), bytes);
}

#[test]
fn a_builder_refuses_what_no_tree_may_have() {
    let (_disk, objects) = objects();
    let mut b = BaseBuilder::new(objects.clone());
    let dir = b.add_dir(ROOT, b"d", &attrs(0o755)).unwrap();
    let file = text(&mut b, dir, "f", b"x");
    let long = [b'n'; 256];
    for bad in [&b""[..], b".", b"..", b"a/b", b"a\0b", &long] {
        assert!(matches!(b.add_dir(ROOT, bad, &attrs(0o755)), Err(BaseError::Rule(RuleError::Name))), "{bad:?}");
        assert!(b.add_link(ROOT, bad, file).is_err());
    }
    assert!(matches!(b.add_dir(ROOT, b"d", &attrs(0o755)), Err(BaseError::Exists)));
    assert!(matches!(b.add_dir(file, b"x", &attrs(0o755)), Err(BaseError::NotADirectory)));
    assert!(matches!(b.add_link(ROOT, b"l", dir), Err(BaseError::LinkToDirectory)));
    let rule = |r: Result<NodeId, BaseError>| match r {
        Err(BaseError::Rule(rule)) => rule,
        other => panic!("{other:?}"),
    };
    assert_eq!(rule(b.add_dir(ROOT, b"x", &attrs(mode::IFREG | 0o644))), RuleError::Mode);
    assert_eq!(rule(b.add_node(ROOT, b"x", &attrs(0o644))), RuleError::Mode);
    assert_eq!(rule(b.add_dir(ROOT, b"x", &attrs(1 << 20))), RuleError::Mode);
    assert_eq!(rule(b.add_symlink(ROOT, b"x", &attrs(0), b"")), RuleError::Target);
    let late = Timestamp { secs: 0, nanos: 1_000_000_000 };
    assert_eq!(rule(b.add_dir(ROOT, b"x", &Attrs { mtime: late, ..attrs(0o755) })), RuleError::Time);
    assert!(b.set_xattr(file, b"", b"").is_err());
    assert!(b.set_xattr(file, b"user.big", &vec![0; (64 << 10) + 1]).is_err());
    for i in 0..300u32 {
        let name = format!("user.{i:0245}");
        assert_eq!(b.set_xattr(file, name.as_bytes(), b"").is_ok(), i < 261, "attribute {i}");
    }
    let runs = |runs: &[(u64, u64, Hash, u64)]| Content::from_runs(100, runs.iter().copied());
    let h = Hash::of(b"x");
    assert!(runs(&[(0, 50, h, 0), (50, 50, h, 9)]).is_ok());
    for bad in [
        &[(0, 0, h, 0)][..],
        &[(0, 101, h, 0)],
        &[(50, 10, h, 0), (40, 5, h, 0)],
        &[(0, 10, h, 0), (9, 5, h, 0)],
        &[(u64::MAX, 2, h, 0)],
        &[(0, 10, h, u64::MAX)],
    ] {
        assert!(runs(bad).is_err(), "{bad:?}");
    }
    let absent = runs(&[(0, 1, Hash::of(b"absent"), 0)]).unwrap();
    let error = b.add_file(ROOT, b"x", &attrs(0), absent).unwrap_err();
    assert!(matches!(error, BaseError::Object(ObjectError::NotFound { .. })), "{error}");
    b.finish().expect("nothing refused has left a trace");
}

// checks G26: a running import pins its objects
#[test]
fn objects_of_a_builder_survive_a_sweep() {
    let (_disk, objects) = objects();
    let hash = objects.put(b"kept").unwrap();
    let mut b = BaseBuilder::new(objects.clone());
    let content = Content::from_runs(4, [(0, 4, hash, 0)]).unwrap();
    b.add_file(ROOT, b"f", &attrs(0o644), content).unwrap();
    objects.condemn([hash]);
    assert_eq!(objects.sweep_condemned(|_| false).unwrap(), 0);
    let tree = BaseTree::open(&**objects.storage(), b.finish().unwrap()).unwrap();
    assert_eq!(read(&objects, &tree, InodeNo(2)), b"kept");
    objects.condemn([hash]);
    assert!(objects.sweep_condemned(|_| false).unwrap() > 0, "pins outlive the builder");
}

#[test]
fn deep_trees_need_no_stack() {
    let (_disk, objects) = objects();
    let tree = build(&objects, |b| {
        let mut dir = ROOT;
        for _ in 0..20_000 {
            dir = b.add_dir(dir, b"d", &attrs(0o755)).unwrap();
        }
    });
    assert_eq!(tree.inode(InodeNo(20_001)).unwrap().parent, InodeNo(20_000));
    assert_eq!(compose(&objects, &[tree.clone(), tree.clone()]).unwrap().finish().unwrap(), tree.hash());
}

// ---- composing

fn names(tree: &BaseTree, dir: InodeNo) -> Vec<String> {
    tree.entries(dir, 0).map(|(n, _)| String::from_utf8_lossy(n).into_owned()).collect()
}

fn composed(objects: &ObjectStore, trees: &[Arc<BaseTree>]) -> Arc<BaseTree> {
    let hash = compose(objects, trees).unwrap().finish().unwrap();
    BaseTree::open(&**objects.storage(), hash).unwrap()
}

#[test]
fn one_tree_composes_to_itself() {
    let (_disk, objects) = objects();
    let tree = build(&objects, sample);
    assert_eq!(composed(&objects, std::slice::from_ref(&tree)).hash(), tree.hash());
    assert_eq!(composed(&objects, &[tree.clone(), tree.clone()]).hash(), tree.hash());
    assert_eq!(composed(&objects, &[BaseTree::empty(), tree.clone()]).hash(), tree.hash());
    assert!(matches!(compose(&objects, &[]).map(drop), Err(BaseError::Count(0))));
    assert!(matches!(compose(&objects, &vec![tree; 65]).map(drop), Err(BaseError::Count(65))));
}

#[test]
fn later_trees_win_and_directories_merge() {
    let (_disk, objects) = objects();
    let lower = build(&objects, |b| {
        let etc = b.add_dir(ROOT, b"etc", &attrs(0o700)).unwrap();
        b.set_xattr(etc, b"user.old", b"1").unwrap();
        text(b, etc, "only-lower", b"l");
        text(b, etc, "both", b"lower");
        let gone = b.add_dir(ROOT, b"dir-to-file", &attrs(0o755)).unwrap();
        text(b, gone, "below", b"x");
        text(b, ROOT, "file-to-dir", b"x");
        let linked = text(b, ROOT, "link-a", b"linked");
        b.add_link(ROOT, b"link-b", linked).unwrap();
    });
    let upper = build(&objects, |b| {
        b.set_attrs(ROOT, &attrs(0o711)).unwrap();
        let etc = b.add_dir(ROOT, b"etc", &attrs(0o755)).unwrap();
        b.set_xattr(etc, b"trusted.overlay.opaque", b"y").unwrap();
        text(b, etc, "both", b"upper");
        text(b, etc, ".wh.only-lower", b"");
        text(b, ROOT, "dir-to-file", b"now a file");
        let dir = b.add_dir(ROOT, b"file-to-dir", &attrs(0o755)).unwrap();
        text(b, dir, "new", b"n");
        text(b, ROOT, "link-a", b"alone");
        b.add_node(ROOT, b"whiteout", &attrs(mode::IFCHR)).unwrap();
        let twins = text(b, ROOT, "twin-a", b"t");
        b.add_link(etc, b"twin-b", twins).unwrap();
    });
    let tree = composed(&objects, &[lower, upper]);
    let expected = ["dir-to-file", "etc", "file-to-dir", "link-a", "link-b", "twin-a", "whiteout"];
    assert_eq!(names(&tree, R), expected);
    let ino = |p: &str| path(&tree, p).unwrap();
    assert_eq!(names(&tree, ino("etc")), [".wh.only-lower", "both", "only-lower", "twin-b"]);
    assert_eq!(names(&tree, ino("file-to-dir")), ["new"]);
    assert_eq!(tree.inode(R).unwrap().mode, mode::IFDIR | 0o711);
    assert_eq!(tree.inode(ino("etc")).unwrap().mode, mode::IFDIR | 0o755);
    assert_eq!(tree.xattrs(ino("etc")).collect::<Vec<_>>(), [b"trusted.overlay.opaque"]);
    let content = |p: &str| read(&objects, &tree, ino(p));
    assert_eq!(content("etc/both"), b"upper");
    assert_eq!(content("dir-to-file"), b"now a file");
    assert_eq!((content("link-a"), content("link-b")), (b"alone".to_vec(), b"linked".to_vec()));
    let nlink = |p: &str| tree.inode(ino(p)).unwrap().nlink;
    assert_eq!((nlink("link-a"), nlink("link-b"), nlink("twin-a")), (1, 1, 2));
    assert_eq!(ino("twin-a"), ino("etc/twin-b"));
}

// ---- any tree

#[derive(Clone, Debug)]
struct Step {
    parent: prop::sample::Index,
    name: Vec<u8>,
    what: u8,
    value: u8,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = prop::collection::vec(prop::sample::select(&b"ab\x01\xff.-"[..]), 1..4);
    let step = (any::<prop::sample::Index>(), name, 0u8..6, any::<u8>()).prop_map(|(parent, name, what, value)| Step {
        parent,
        name,
        what,
        value,
    });
    prop::collection::vec(step, 0..60)
}

/// What the tree has to be: by path, in components, the inode (a number of the model's own) and its kind and value.
type Model = BTreeMap<Vec<Vec<u8>>, (usize, Kind, u8)>;

fn apply(b: &mut BaseBuilder, steps: &[Step]) -> Model {
    let mut model = Model::new();
    let (mut dirs, mut files) = (vec![(ROOT, vec![])], Vec::new());
    for (i, step) in steps.iter().enumerate() {
        let (parent, above) = dirs[step.parent.index(dirs.len())].clone();
        let path = [above, vec![step.name.clone()]].concat();
        let a = Attrs { uid: step.value.into(), ..attrs(0o700) };
        let (kind, id) = match step.what {
            0 | 1 => (Kind::Directory, b.add_dir(parent, &step.name, &a)),
            2 => (Kind::Symlink, b.add_symlink(parent, &step.name, &a, &[step.value.max(1)])),
            3 => (Kind::Socket, b.add_node(parent, &step.name, &Attrs { mode: mode::IFSOCK, ..a })),
            4 if !files.is_empty() => {
                let (id, at, kind, value): (_, usize, _, u8) = files[usize::from(step.value) % files.len()];
                if b.add_link(parent, &step.name, id).is_ok() {
                    assert!(model.insert(path, (at, kind, value)).is_none());
                }
                continue;
            }
            _ => {
                let bytes = vec![step.value; usize::from(step.value)];
                let content = b.add_content(&mut &bytes[..], step.value % 7 == 0, false).unwrap();
                (Kind::Regular, b.add_file(parent, &step.name, &a, content))
            }
        };
        let valid = !matches!(&step.name[..], b"." | b"..");
        assert_eq!(id.is_ok(), valid && !model.contains_key(&path), "{step:?}");
        let Ok(id) = id else { continue };
        match kind {
            Kind::Directory => dirs.push((id, path.clone())),
            _ => files.push((id, i, kind, step.value)),
        }
        model.insert(path, (i, kind, step.value));
    }
    model
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_tree_comes_back(steps in steps()) {
        let (disk, objects) = objects();
        let mut b = BaseBuilder::new(objects.clone());
        let model = apply(&mut b, &steps);
        let hash = b.finish().unwrap();
        let tree = match model.is_empty() {
            true => load_bytes(&disk.bytes(&tree_path(hash)), hash).unwrap(),
            false => Arc::into_inner(BaseTree::open(&*disk, hash).unwrap()).unwrap(),
        };
        exercise(&tree);
        // Paths in order of their components are the depth-first order.
        let mut numbers: BTreeMap<usize, u64> = BTreeMap::new();
        for (path, (id, kind, value)) in &model {
            let next = numbers.len() as u64 + 2;
            let number = *numbers.entry(*id).or_insert(next);
            let (name, above) = path.split_last().unwrap();
            let parent = above.iter().fold(R, |dir, name| tree.lookup(dir, name).unwrap().ino);
            let dentry = tree.lookup(parent, name).unwrap();
            prop_assert_eq!((dentry.ino, dentry.kind), (InodeNo(number), *kind));
            let inode = tree.inode(dentry.ino).unwrap();
            prop_assert_eq!((inode.uid, inode.kind()), (u32::from(*value), *kind));
            let links = match kind {
                Kind::Directory => {
                    let inside = |p: &Vec<Vec<u8>>| p.len() == path.len() + 1 && p.starts_with(path);
                    2 + model.iter().filter(|(p, m)| inside(p) && m.1 == Kind::Directory).count()
                }
                _ => model.values().filter(|m| m.0 == *id).count(),
            };
            prop_assert_eq!(inode.nlink as usize, links);
            if *kind == Kind::Regular {
                prop_assert_eq!(read(&objects, &tree, dentry.ino), vec![*value; usize::from(*value)]);
            }
        }
        prop_assert_eq!(tree.inode_count(), numbers.len() as u64 + 1);
        let names: u64 = (1..=tree.inode_count()).map(|i| tree.child_count(InodeNo(i))).sum();
        prop_assert_eq!(names, model.len() as u64);
    }

    #[test]
    fn any_two_trees_compose_by_paths(lower in steps(), upper in steps()) {
        let (_disk, objects) = objects();
        let mut models = Vec::new();
        let trees: Vec<_> = [&lower, &upper].map(|steps| build(&objects, |b| models.push(apply(b, steps)))).into();
        let tree = composed(&objects, &trees);
        exercise(&tree);
        let mut expected = models.remove(0);
        for (path, (id, kind, value)) in models.remove(0) {
            if kind != Kind::Directory || expected.get(&path).is_some_and(|below| below.1 != kind) {
                expected.retain(|p, _| !p.starts_with(&path));
            }
            expected.insert(path, (id + 1000, kind, value));
        }
        let mut got = Vec::new();
        let mut todo = vec![(R, Vec::new())];
        while let Some((dir, above)) = todo.pop() {
            for (name, dentry) in tree.entries(dir, 0) {
                let path = [above.clone(), vec![name.to_vec()]].concat();
                let uid = tree.inode(dentry.ino).unwrap().uid;
                got.push((path.clone(), dentry.kind, uid));
                if dentry.kind == Kind::Directory {
                    todo.push((dentry.ino, path));
                }
            }
        }
        got.sort_by(|a, b| a.0.cmp(&b.0));
        let expected: Vec<_> = expected.into_iter().map(|(p, (_, kind, value))| (p, kind, u32::from(value))).collect();
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn no_bytes_make_it_panic(page in prop::collection::vec(any::<u8>(), 0..400), inodes in 1u32..10) {
        let (bytes, root) = sealed(&[(page.clone(), inodes)]);
        if let Ok(tree) = load_bytes(&bytes, root) {
            exercise(&tree);
        }
        let _ = load_bytes(&page, root);
    }
}

/// A collection that looks for uses before a tree is there, and removes after the import's pins are gone, took the tree's objects
/// away: its marks outlived the pins. Checks G26.
#[test]
fn marks_made_during_an_import_do_not_outlive_it() {
    let (_disk, objects) = objects();
    let bytes = vec![1u8; 100_000];
    let hash = objects.put(&bytes).unwrap();
    let mut b = BaseBuilder::new(objects.clone());
    text(&mut b, ROOT, "f", &bytes);
    // What came into being here is marked as well, between its placing and the end.
    for i in 0..100u8 {
        text(&mut b, ROOT, &format!("g{i}"), &vec![i + 2; 70_000]);
    }
    objects.condemn([hash, Hash::of(&vec![2; 70_000])]);
    let built = b.build().unwrap();
    assert_eq!((built.inodes, built.bytes, built.new_bytes), (102, 7_100_000, 7_000_000));
    let tree = BaseTree::open(&**objects.storage(), built.hash).unwrap();
    drop(built);
    assert_eq!(objects.sweep_condemned(|_| false).unwrap(), 0);
    assert_eq!(read(&objects, &tree, path(&tree, "f").unwrap()), bytes);
    assert_eq!(read(&objects, &tree, path(&tree, "g0").unwrap()), [2; 70_000]);
}

/// The order in which small contents came decided what the packs were, and so the hash.
#[test]
fn order_of_small_contents_does_not_matter() {
    let (disk, objects) = objects();
    // More than is held in memory, so that some wait in a file; two packs.
    let files: Vec<(String, Vec<u8>)> =
        (0..320u32).map(|i| (format!("{i:03}"), i.to_le_bytes().repeat(14_000))).collect();
    let tree = |order: &mut dyn Iterator<Item = &(String, Vec<u8>)>| {
        let mut b = BaseBuilder::new(objects.clone());
        for (name, bytes) in order {
            text(&mut b, ROOT, name, bytes);
        }
        b.build().unwrap()
    };
    let (one, two) = (tree(&mut files.iter()), tree(&mut files.iter().rev()));
    assert_eq!(one.hash, two.hash);
    assert_eq!((one.new_bytes, two.new_bytes), (320 * 56_000, 0), "nothing is stored twice");
    let loaded = BaseTree::open(&*disk, one.hash).unwrap();
    assert_eq!(loaded.objects().len(), 2);
    for (name, bytes) in &files {
        assert_eq!(&read(&objects, &loaded, path(&loaded, name).unwrap()), bytes);
    }
    assert!(disk.paths().iter().all(|path| !path.starts_with("staging/")));
}

#[test]
fn equal_contents_are_counted_and_stored_once() {
    let (disk, objects) = objects();
    let bytes = vec![3u8; 70_000];
    let twice = || {
        let mut b = BaseBuilder::new(objects.clone());
        for name in ["a", "b"] {
            text(&mut b, ROOT, name, &bytes);
        }
        b.build().unwrap()
    };
    assert_eq!((twice().new_bytes, twice().new_bytes), (70_000, 0));
    assert!(disk.paths().iter().all(|path| !path.starts_with("staging/")));
}

#[test]
fn a_small_library_has_an_object_of_its_own() {
    let (_disk, objects) = objects();
    let tree = build(&objects, |b| {
        text(b, ROOT, "lib", b"\x7fELF...");
        text(b, ROOT, "text", b"...");
    });
    assert_eq!(tree.objects().len(), 2);
    assert_eq!(read(&objects, &tree, path(&tree, "lib").unwrap()), b"\x7fELF...");
}

/// Pieces with holes between them make what the same bytes make in one go, wherever they are cut.
#[test]
fn pieces_make_what_the_whole_makes() {
    const CHUNK: u64 = 64 << 10;
    let (_disk, objects) = objects();
    for (size, parts) in [
        (0, &[][..]),
        (10, &[(3, 4)]),
        (CHUNK, &[(0, 1)]),
        (CHUNK + 1, &[(CHUNK, 1)]),
        (10 * CHUNK, &[(5, 10), (3 * CHUNK - 1, 2), (7 * CHUNK, CHUNK)]),
        (10 * CHUNK + 7, &[(CHUNK, CHUNK), (10 * CHUNK, 3)]),
        (3 * CHUNK, &[(0, 3 * CHUNK)]),
    ] {
        let mut whole = vec![0u8; size as usize];
        parts.iter().for_each(|(at, len): &(u64, u64)| whole[*at as usize..(at + len) as usize].fill(7));
        for cut in [1_000_000, 1000] {
            let mut b = BaseBuilder::new(objects.clone());
            let want = b.add_content(&mut &whole[..], false, true).unwrap();
            let mut pieces = b.begin_content(false, true);
            for (at, len) in parts {
                for (i, part) in whole[*at as usize..(at + len) as usize].chunks(cut).enumerate() {
                    pieces.write(at + (i * cut) as u64, part).unwrap();
                }
            }
            assert_eq!(b.end_content(pieces, size).unwrap(), want, "{size} {parts:?} {cut}");
        }
    }
}

#[test]
fn pieces_out_of_order_or_bounds_are_refused() {
    let (_disk, objects) = objects();
    let mut b = BaseBuilder::new(objects);
    let mut dense = b.begin_content(false, false);
    dense.write(0, b"abc").unwrap();
    assert!(matches!(dense.write(4, b"x"), Err(BaseError::Rule(RuleError::Runs))), "a hole");
    assert!(matches!(dense.write(2, b"x"), Err(BaseError::Rule(RuleError::Runs))), "once more");
    assert!(matches!(b.end_content(dense, 5), Err(BaseError::Rule(RuleError::Runs))), "too short");
    let mut sparse = b.begin_content(false, true);
    assert!(matches!(sparse.write(u64::MAX, b"xx"), Err(BaseError::Rule(RuleError::Size))));
    sparse.write(1 << 61, b"x").unwrap();
    assert!(matches!(b.end_content(sparse, 10), Err(BaseError::Rule(RuleError::Runs))), "shorter than what came");
    let hole = b.begin_content(false, true);
    let content = b.end_content(hole, crate::limits::FILE_SIZE_MAX).unwrap();
    assert_eq!(content.size(), crate::limits::FILE_SIZE_MAX);
    let other = b.begin_content(false, true);
    assert!(matches!(b.end_content(other, u64::MAX), Err(BaseError::Rule(RuleError::Size))));
}
