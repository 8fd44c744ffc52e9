//! The main rules of `docs/SEMANTICS.md`, each with an expectation written by hand.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;

use vefs::clock::Timestamp;
use vefs::errno::Errno::{self, *};
use vefs::ids::InodeNo;
use vefs::limits::{FILE_SIZE_MAX, LINK_MAX};
use vefs::op::{FallocMode, Op, Owner, RenameFlags, Reply, SetAttr, XattrMode};
use vefs::types::{Inode, Kind, mode};

use super::acl::{self, AclEntry};
use super::{BaseEntry, Model, Reader, Run, RunKind, compare, sample_tree};
use crate::opgen::{Rng, acl_value, next_op};

const ROOT: InodeNo = InodeNo::ROOT;

/// A model with a clock of its own, and short words for what tests do most.
struct Fs {
    model: Model,
    now: i64,
}

impl Fs {
    fn new() -> Fs {
        Fs { model: Model::new(1 << 40, 1000), now: 0 }
    }

    fn over(tree: &[BaseEntry]) -> Fs {
        Fs { model: Model::with_tree(1 << 40, 1000, tree), now: 0 }
    }

    fn time(secs: i64) -> Timestamp {
        Timestamp { secs, nanos: 1 }
    }

    /// Applies at the next second; an error must have changed nothing.
    fn apply(&mut self, op: Op) -> Result<Reply, Errno> {
        self.now += 1;
        let before = self.model.clone();
        let answer = self.model.apply(&op, Fs::time(self.now));
        assert!(answer.is_ok() || before == self.model, "{op:?} failed and changed something");
        answer
    }

    fn create(&mut self, parent: InodeNo, name: &str, mode: u32) -> Result<InodeNo, Errno> {
        let op = Op::Create { parent, name: name.into(), mode, rdev: 9, owner: Owner { uid: 5, gid: 6, umask: 0o22 } };
        match self.apply(op)? {
            Reply::Inode(ino, attr) => {
                assert_eq!(self.attr(ino), attr);
                Ok(ino)
            }
            other => panic!("{other:?}"),
        }
    }

    fn dir(&mut self, parent: InodeNo, name: &str) -> InodeNo {
        self.create(parent, name, mode::IFDIR | 0o755).unwrap()
    }

    fn file(&mut self, parent: InodeNo, name: &str) -> InodeNo {
        self.create(parent, name, mode::IFREG | 0o644).unwrap()
    }

    fn write(&mut self, ino: InodeNo, offset: u64, data: &[u8]) -> Result<Reply, Errno> {
        self.apply(Op::Write { ino, offset, data: Bytes::copy_from_slice(data), kill_priv: false })
    }

    fn rename(&mut self, from: (InodeNo, &str), to: (InodeNo, &str), flags: RenameFlags) -> Result<Reply, Errno> {
        let (parent, name) = (from.0, from.1.into());
        self.apply(Op::Rename { parent, name, new_parent: to.0, new_name: to.1.into(), flags })
    }

    fn set(&mut self, ino: InodeNo, set: SetAttr) -> Result<Reply, Errno> {
        self.apply(Op::Setattr { ino, set })
    }

    fn fallocate(&mut self, ino: InodeNo, how: FallocMode, offset: u64, len: u64) -> Result<Reply, Errno> {
        self.apply(Op::Fallocate { ino, mode: how, offset, len })
    }

    fn copy(&mut self, src: (InodeNo, u64), dst: (InodeNo, u64), len: u64) -> Result<Reply, Errno> {
        self.apply(Op::CopyRange { src: src.0, src_offset: src.1, dst: dst.0, dst_offset: dst.1, len })
    }

    fn setxattr(&mut self, ino: InodeNo, name: &[u8], value: &[u8], how: XattrMode) -> Result<Reply, Errno> {
        self.apply(Op::Setxattr { ino, name: name.to_vec(), value: value.to_vec(), mode: how })
    }

    fn attr(&self, ino: InodeNo) -> Inode {
        self.model.inode(ino).unwrap().unwrap()
    }

    fn unlink(&mut self, parent: InodeNo, name: &str) -> Result<Reply, Errno> {
        self.apply(Op::Unlink { parent, name: name.into() })
    }

    fn rmdir(&mut self, parent: InodeNo, name: &str) -> Result<Reply, Errno> {
        self.apply(Op::Rmdir { parent, name: name.into() })
    }

    /// Names of a directory with their cookies and inodes, in cookie order.
    fn list(&self, dir: InodeNo) -> Vec<(u64, String, InodeNo)> {
        let entries = self.model.entries(dir).unwrap();
        entries.into_iter().map(|(c, n, d)| (c, String::from_utf8(n).unwrap(), d.ino)).collect()
    }
}

const PLAIN: RenameFlags = RenameFlags { no_replace: false, exchange: false, whiteout: false };
const NO_REPLACE: RenameFlags = RenameFlags { no_replace: true, ..PLAIN };
const EXCHANGE: RenameFlags = RenameFlags { exchange: true, ..PLAIN };
const WHITEOUT: RenameFlags = RenameFlags { whiteout: true, ..PLAIN };
const KEEP: FallocMode = FallocMode::Allocate { keep_size: true };

fn runs(all: &[(u64, u64, RunKind)]) -> Vec<Run> {
    all.iter().map(|&(offset, len, kind)| Run { offset, len, kind }).collect()
}

#[test]
fn names_are_checked_before_everything_else() {
    let mut fs = Fs::new();
    let file = fs.file(ROOT, "f");
    for (name, errno) in [("", EINVAL), (".", EINVAL), ("..", EINVAL), ("a/b", EINVAL), ("a\0", EINVAL)] {
        assert_eq!(fs.create(InodeNo(99), name, mode::IFREG), Err(errno), "{name:?}");
        assert_eq!(fs.rename((ROOT, "none"), (file, name), PLAIN), Err(errno), "{name:?}");
    }
    assert_eq!(fs.create(ROOT, &"x".repeat(256), mode::IFREG), Err(ENAMETOOLONG));
    assert!(fs.create(ROOT, &"x".repeat(255), mode::IFREG).is_ok());
    assert_eq!(fs.create(InodeNo(99), "a", mode::IFREG), Err(ENOENT));
    assert_eq!(fs.create(file, "a", mode::IFREG), Err(ENOTDIR));
    assert_eq!(fs.create(ROOT, "f", mode::IFDIR), Err(EEXIST));
    for bad in [0o644, mode::IFLNK, 0o150000] {
        assert_eq!(fs.create(ROOT, "", bad), Err(EINVAL), "a mode of {bad:o}");
    }
}

#[test]
fn creation_sets_the_attributes_of_each_kind() {
    let mut fs = Fs::new();
    let dir = fs.create(ROOT, "d", mode::IFDIR | 0o2777).unwrap();
    assert_eq!(dir, InodeNo::FIRST_PRIVATE);
    let expected = Inode {
        mode: mode::IFDIR | 0o2755,
        uid: 5,
        gid: 6,
        nlink: 2,
        rdev: 0,
        size: 4096,
        mapped: 0,
        atime: Fs::time(1),
        mtime: Fs::time(1),
        ctime: Fs::time(1),
        btime: Fs::time(1),
        parent: ROOT,
        next_cookie: 3,
        flags: 0,
    };
    assert_eq!(fs.attr(dir), expected);
    let root = fs.attr(ROOT);
    assert_eq!((root.nlink, root.next_cookie, root.mtime, root.ctime), (3, 4, Fs::time(1), Fs::time(1)));
    assert_eq!((root.atime, root.parent), (Timestamp::default(), ROOT));

    // The set-group-ID directory hands down its group, and to directories its bit.
    fs.set(dir, SetAttr { gid: Some(77), ..SetAttr::default() }).unwrap();
    let (sub, file) = (fs.dir(dir, "s"), fs.create(dir, "f", mode::IFREG | 0o6777).unwrap());
    assert_eq!((fs.attr(sub).mode, fs.attr(sub).gid), (mode::IFDIR | 0o2755, 77));
    assert_eq!((fs.attr(file).mode, fs.attr(file).gid), (mode::IFREG | 0o6755, 77));
    assert_eq!((fs.attr(file).flags, fs.attr(file).rdev, fs.attr(file).nlink), (Inode::PRIVATE_MAP, 0, 1));
    let device = fs.create(ROOT, "c", mode::IFCHR | 0o600).unwrap();
    assert_eq!((fs.attr(device).rdev, fs.attr(device).flags), (9, 0));

    let owner = Owner { uid: 1, gid: 2, umask: 0o777 };
    let symlink = |target: &[u8]| Op::Symlink { parent: dir, name: b"l".to_vec(), target: target.to_vec(), owner };
    assert_eq!(fs.apply(symlink(b"")), Err(ENOENT));
    assert_eq!(fs.apply(symlink(&[b'x'; 4096])), Err(ENAMETOOLONG));
    let Ok(Reply::Inode(ino, attr)) = fs.apply(symlink(b"../x")) else { panic!("no symlink") };
    assert_eq!((attr.mode, attr.size, attr.uid, attr.gid, attr.mapped), (mode::IFLNK | 0o777, 4, 1, 77, 0));
    assert_eq!(fs.model.target(ino), Ok(b"../x".to_vec()));
}

#[test]
fn an_unlinked_file_is_an_orphan_until_it_is_reaped() {
    let mut fs = Fs::new();
    let file = fs.file(ROOT, "f");
    fs.write(file, 0, b"hello").unwrap();
    assert_eq!(fs.apply(Op::Link { ino: file, parent: ROOT, name: b"g".to_vec() }).map(|_| fs.attr(file).nlink), Ok(2));
    fs.unlink(ROOT, "f").unwrap();
    assert_eq!(fs.apply(Op::Reap { ino: file }), Err(EBUSY));
    fs.unlink(ROOT, "g").unwrap();
    assert_eq!((fs.attr(file).nlink, fs.attr(file).ctime), (0, Fs::time(fs.now)));
    assert_eq!(fs.apply(Op::Link { ino: file, parent: ROOT, name: b"h".to_vec() }), Err(ENOENT));
    fs.write(file, 5, b"!").unwrap();
    assert_eq!(fs.model.read(file, 0, 100), Ok(b"hello!".to_vec()));
    assert_eq!(fs.model.usage(), Ok((6, 1)));
    assert_eq!(fs.apply(Op::Reap { ino: file }), Ok(Reply::Done));
    assert_eq!((fs.model.inode(file), fs.model.usage()), (Ok(None), Ok((0, 0))));
    assert_eq!(fs.apply(Op::Reap { ino: file }), Err(ENOENT));
}

#[test]
fn links_are_limited_and_not_for_directories() {
    let mut fs = Fs::new();
    let (dir, file) = (fs.dir(ROOT, "d"), fs.file(ROOT, "f"));
    let link = |ino, name: &str| Op::Link { ino, parent: dir, name: name.into() };
    assert_eq!(fs.apply(link(dir, "x")), Err(EPERM));
    assert_eq!(fs.apply(link(InodeNo(99), "x")), Err(ENOENT));
    for i in 1..LINK_MAX {
        fs.model.apply(&link(file, &i.to_string()), Timestamp::default()).unwrap();
    }
    assert_eq!(fs.apply(link(file, "x")), Err(EMLINK));
    assert_eq!(fs.apply(link(file, "1")), Err(EEXIST));
}

#[test]
fn a_removed_directory_has_no_names_any_more() {
    let mut fs = Fs::new();
    let (dir, _) = (fs.dir(ROOT, "d"), fs.file(ROOT, "f"));
    let sub = fs.dir(dir, "s");
    assert_eq!(fs.rmdir(ROOT, "d"), Err(ENOTEMPTY));
    assert_eq!(fs.rmdir(ROOT, "f"), Err(ENOTDIR));
    assert_eq!(fs.unlink(ROOT, "d"), Err(EISDIR));
    fs.rmdir(dir, "s").unwrap();
    assert_eq!((fs.attr(sub).nlink, fs.attr(sub).ctime, fs.attr(dir).nlink), (0, Fs::time(fs.now), 2));
    assert_eq!(fs.create(sub, "x", mode::IFREG), Err(ENOENT));
    assert_eq!(fs.model.lookup(sub, b"x"), Err(ENOENT));
    assert_eq!(fs.rename((ROOT, "f"), (sub, "x"), PLAIN), Err(ENOENT));
    assert_eq!(fs.model.entries(sub), Ok(vec![]));
}

#[test]
fn rename_keeps_and_gives_cookies() {
    let mut fs = Fs::new();
    let (a, b, d) = (fs.file(ROOT, "a"), fs.file(ROOT, "b"), fs.dir(ROOT, "d"));
    fs.rename((ROOT, "a"), (ROOT, "c"), PLAIN).unwrap();
    assert_eq!(fs.list(ROOT), [(4, "b".into(), b), (5, "d".into(), d), (6, "c".into(), a)]);
    // Over an existing name: its cookie stays, and the one below it is an orphan.
    fs.rename((ROOT, "c"), (ROOT, "b"), PLAIN).unwrap();
    assert_eq!(fs.list(ROOT), [(4, "b".into(), a), (5, "d".into(), d)]);
    assert_eq!((fs.attr(b).nlink, fs.attr(b).ctime), (0, Fs::time(fs.now)));
    // Exchange across directories: cookies stay, links and parents follow.
    let sub = fs.dir(d, "s");
    fs.rename((ROOT, "b"), (d, "s"), EXCHANGE).unwrap();
    assert_eq!((fs.list(ROOT)[0].clone(), fs.list(d)[0].clone()), ((4, "b".into(), sub), (3, "s".into(), a)));
    assert_eq!((fs.attr(ROOT).nlink, fs.attr(d).nlink, fs.attr(sub).parent), (4, 2, ROOT));
    assert_eq!(fs.model.lookup(ROOT, b"b").map(|e| e.kind), Ok(Kind::Directory));
    // A whiteout keeps the cookie of the old name and costs an inode.
    let next = fs.model.next_ino();
    fs.rename((d, "s"), (ROOT, "z"), WHITEOUT).unwrap();
    assert_eq!(fs.list(d), [(3, "s".into(), next)]);
    let w = fs.attr(next);
    assert_eq!((w.mode, w.uid, w.gid, w.rdev, w.nlink), (mode::IFCHR, 0, 0, 0, 1));
    assert_eq!(fs.list(ROOT).last(), Some(&(7, "z".into(), a)));
}

#[test]
fn rename_refuses_in_the_stated_order() {
    let mut fs = Fs::new();
    let a = fs.dir(ROOT, "a");
    let b = fs.dir(a, "b");
    let (f, e) = (fs.file(b, "f"), fs.dir(ROOT, "e"));
    let both = RenameFlags { exchange: true, no_replace: true, whiteout: false };
    assert_eq!(fs.rename((ROOT, ""), (ROOT, ""), both), Err(EINVAL));
    assert_eq!(fs.rename((ROOT, "none"), (ROOT, "a"), NO_REPLACE), Err(ENOENT));
    assert_eq!(fs.rename((ROOT, "a"), (ROOT, "a"), NO_REPLACE), Err(EEXIST));
    assert_eq!(fs.rename((ROOT, "a"), (ROOT, "none"), EXCHANGE), Err(ENOENT));
    assert_eq!(fs.rename((ROOT, "a"), (b, "x"), PLAIN), Err(EINVAL));
    assert_eq!(fs.rename((ROOT, "a"), (a, "x"), PLAIN), Err(EINVAL));
    assert_eq!(fs.rename((b, "f"), (ROOT, "a"), PLAIN), Err(ENOTEMPTY));
    assert_eq!(fs.rename((b, "f"), (ROOT, "a"), EXCHANGE), Err(EINVAL));
    assert_eq!(fs.rename((ROOT, "e"), (b, "f"), PLAIN), Err(ENOTDIR));
    assert_eq!(fs.rename((b, "f"), (ROOT, "e"), PLAIN), Err(EISDIR));
    assert_eq!(fs.rename((ROOT, "e"), (ROOT, "a"), PLAIN), Err(ENOTEMPTY));
    // Two names of one inode: success, nothing changes.
    fs.apply(Op::Link { ino: f, parent: ROOT, name: b"g".to_vec() }).unwrap();
    let before = fs.model.digest();
    for flags in [PLAIN, EXCHANGE, WHITEOUT] {
        assert_eq!(fs.rename((b, "f"), (ROOT, "g"), flags), Ok(Reply::Done));
        assert_eq!(fs.model.digest(), before);
    }
    // A directory over an empty one.
    fs.rename((a, "b"), (ROOT, "e"), PLAIN).unwrap();
    assert_eq!((fs.attr(a).nlink, fs.attr(e).nlink, fs.attr(b).parent, fs.attr(ROOT).nlink), (2, 0, ROOT, 4));
}

#[test]
fn writes_leave_holes_and_set_times() {
    let mut fs = Fs::new();
    let f = fs.create(ROOT, "f", mode::IFREG | 0o6755).unwrap();
    fs.write(f, 10, b"abcdef").unwrap();
    assert_eq!(fs.write(f, 12, b"XY"), Ok(Reply::Written(2)));
    assert_eq!(fs.model.read(f, 8, 100), Ok(b"\0\0abXYef".to_vec()));
    assert_eq!((fs.attr(f).size, fs.attr(f).mapped, fs.attr(f).mtime), (16, 6, Fs::time(fs.now)));
    assert_eq!(fs.attr(f).mode & 0o7000, 0o6000);
    let before = fs.model.digest();
    assert_eq!(fs.write(f, u64::MAX, b""), Ok(Reply::Written(0)));
    assert_eq!(fs.model.digest(), before);
    assert_eq!(fs.write(f, FILE_SIZE_MAX, b"x"), Err(EFBIG));
    assert_eq!(fs.write(f, u64::MAX, b"x"), Err(EFBIG));
    assert_eq!(fs.write(ROOT, u64::MAX, b"x"), Err(EISDIR));
    fs.write(f, FILE_SIZE_MAX - 1, b"x").unwrap();
    assert_eq!(fs.model.seek_data(f, 16), Ok(FILE_SIZE_MAX - 1));
    fs.apply(Op::Write { ino: f, offset: 0, data: Bytes::from_static(b"x"), kill_priv: true }).unwrap();
    assert_eq!(fs.attr(f).mode, mode::IFREG | 0o755);
    let p = fs.create(ROOT, "p", mode::IFIFO | 0o600).unwrap();
    assert_eq!(fs.write(p, 0, b"x"), Err(EINVAL));
}

#[test]
fn truncation_cuts_and_grows_with_zeros() {
    let mut fs = Fs::new();
    let f = fs.create(ROOT, "f", mode::IFREG | 0o6655).unwrap();
    fs.write(f, 0, b"abcdef").unwrap();
    let size = |s| SetAttr { size: Some(s), ..SetAttr::default() };
    fs.set(f, size(6)).unwrap();
    assert_eq!((fs.attr(f).mode & 0o7777, fs.attr(f).mtime), (0o6655, Fs::time(fs.now)));
    fs.set(f, size(3)).unwrap();
    fs.set(f, size(6)).unwrap();
    assert_eq!((fs.model.read(f, 0, 9), fs.attr(f).mapped), (Ok(b"abc\0\0\0".to_vec()), 3));
    assert_eq!(fs.attr(f).mode & 0o7777, 0o655, "any change of the size clears both bits");
    assert_eq!(fs.set(f, size(FILE_SIZE_MAX + 1)), Err(EFBIG));
    assert_eq!(fs.set(ROOT, size(1)), Err(EISDIR));
    let mtime = Some(Fs::time(-5));
    fs.set(f, SetAttr { mtime, ..size(FILE_SIZE_MAX) }).unwrap();
    assert_eq!((fs.attr(f).mtime, fs.attr(f).ctime, fs.attr(f).mapped), (Fs::time(-5), Fs::time(fs.now), 3));
}

#[test]
fn fallocate_reserves_punches_and_zeroes() {
    use RunKind::{Data, Reserved};
    let mut fs = Fs::new();
    let f = fs.create(ROOT, "f", mode::IFREG | 0o4755).unwrap();
    fs.write(f, 10, &[1; 10]).unwrap();
    fs.fallocate(f, KEEP, 5, 100).unwrap();
    let expected = runs(&[(5, 5, Reserved), (10, 10, Data), (20, 85, Reserved)]);
    assert_eq!((fs.model.mapped_runs(f), fs.attr(f).size, fs.attr(f).mapped), (Ok(expected), 20, 100));
    assert_eq!(fs.attr(f).mode & mode::ISUID, 0);
    assert_eq!(
        (fs.model.seek_data(f, 0), fs.model.seek_hole(f, 10), fs.model.seek_hole(f, 5)),
        (Ok(10), Ok(20), Ok(5))
    );
    assert_eq!((fs.model.seek_data(f, 20), fs.model.seek_hole(f, 20)), (Err(ENXIO), Err(ENXIO)));
    fs.fallocate(f, FallocMode::PunchHole, 15, 85).unwrap();
    let expected = runs(&[(5, 5, Reserved), (10, 5, Data), (100, 5, Reserved)]);
    assert_eq!((fs.model.mapped_runs(f), fs.attr(f).size), (Ok(expected), 20));
    fs.fallocate(f, FallocMode::ZeroRange { keep_size: false }, 12, 48).unwrap();
    assert_eq!((fs.attr(f).size, fs.model.read(f, 8, 6)), (60, Ok(vec![0, 0, 1, 1, 0, 0])));
    fs.fallocate(f, FallocMode::Allocate { keep_size: false }, 0, 70).unwrap();
    assert_eq!((fs.attr(f).size, fs.attr(f).mapped), (70, 75));
    assert_eq!(fs.fallocate(f, KEEP, 0, 0), Err(EINVAL));
    assert_eq!(fs.fallocate(f, FallocMode::PunchHole, 1, u64::MAX), Err(EFBIG));
    assert_eq!(fs.fallocate(ROOT, KEEP, 0, 1), Err(EISDIR));
}

#[test]
fn copies_share_bytes_and_turn_reserved_ranges_into_holes() {
    let mut fs = Fs::new();
    let (a, b) = (fs.file(ROOT, "a"), fs.create(ROOT, "b", mode::IFREG | 0o4755).unwrap());
    fs.write(a, 0, b"0123456789").unwrap();
    fs.fallocate(a, KEEP, 10, 100).unwrap();
    fs.set(a, SetAttr { size: Some(20), ..SetAttr::default() }).unwrap();
    fs.write(b, 0, &[b'x'; 40]).unwrap();
    assert_eq!(fs.copy((a, 20), (b, 0), 5), Ok(Reply::Written(0)));
    assert_eq!(fs.attr(b).mode & mode::ISUID, mode::ISUID);
    assert_eq!(fs.copy((a, 8), (b, 30), u64::MAX), Ok(Reply::Written(12)));
    assert_eq!(fs.model.read(b, 29, 100), Ok(b"x89\0\0\0\0\0\0\0\0\0\0".to_vec()));
    assert_eq!((fs.attr(b).size, fs.attr(b).mapped, fs.attr(b).mode & mode::ISUID), (42, 32, 0));
    assert_eq!(fs.copy((a, 0), (a, 5), 6), Err(EINVAL));
    assert_eq!(fs.copy((a, 0), (a, 5), 5), Ok(Reply::Written(5)));
    assert_eq!(fs.model.read(a, 0, 10), Ok(b"0123401234".to_vec()));
    assert_eq!(fs.copy((a, 0), (b, FILE_SIZE_MAX - 4), 5), Err(EFBIG));
    assert_eq!(fs.copy((ROOT, 0), (b, 0), 5), Err(EISDIR));
}

#[test]
fn chown_and_chmod_clear_and_set_bits() {
    let mut fs = Fs::new();
    let f = fs.create(ROOT, "f", mode::IFREG | 0o6755).unwrap();
    fs.set(f, SetAttr { uid: Some(5), ..SetAttr::default() }).unwrap();
    assert_eq!(fs.attr(f).mode & mode::PERM, 0o755);
    fs.set(f, SetAttr { gid: Some(1), mode: Some(0o6644), ..SetAttr::default() }).unwrap();
    assert_eq!(fs.attr(f).mode, mode::IFREG | 0o6644);
    fs.set(f, SetAttr { gid: Some(1), ..SetAttr::default() }).unwrap();
    assert_eq!(fs.attr(f).mode & mode::PERM, 0o2644, "without group execution the bit means locking");
    let d = fs.create(ROOT, "d", mode::IFDIR | 0o2755).unwrap();
    fs.set(d, SetAttr { uid: Some(1), ..SetAttr::default() }).unwrap();
    assert_eq!(fs.attr(d).mode & mode::PERM, 0o2755);
    let before = fs.model.digest();
    fs.set(d, SetAttr { kill_priv: true, ..SetAttr::default() }).unwrap();
    assert_eq!(fs.model.digest(), before);
    let op = Op::Symlink { parent: ROOT, name: b"l".to_vec(), target: b"x".to_vec(), owner: Owner::default() };
    let Ok(Reply::Inode(l, _)) = fs.apply(op) else { panic!("no symlink") };
    assert_eq!(fs.set(l, SetAttr { mode: Some(0), ..SetAttr::default() }), Err(EOPNOTSUPP));
    fs.set(l, SetAttr { uid: Some(3), atime: Some(Fs::time(7)), ..SetAttr::default() }).unwrap();
    assert_eq!((fs.attr(l).uid, fs.attr(l).atime, fs.attr(l).ctime), (3, Fs::time(7), Fs::time(fs.now)));
}

#[test]
fn extended_attributes_follow_their_namespaces() {
    let mut fs = Fs::new();
    let (f, p) = (fs.file(ROOT, "f"), fs.create(ROOT, "p", mode::IFIFO | 0o600).unwrap());
    let long = [b"user.".as_slice(), &[b'x'; 251]].concat();
    let table: [(&[u8], Errno); 7] = [
        (b"", EINVAL),
        (b"user.\0", EINVAL),
        (b"user.", EOPNOTSUPP),
        (b"os2.x", EOPNOTSUPP),
        (b"system.x", EOPNOTSUPP),
        (b"system.posix_acl_", EOPNOTSUPP),
        (&long, ERANGE),
    ];
    for (name, errno) in table {
        assert_eq!(fs.setxattr(InodeNo(99), name, b"", XattrMode::Set), Err(errno), "{name:?}");
    }
    assert_eq!(fs.setxattr(InodeNo(99), b"user.a", &[0; 65537], XattrMode::Set), Err(ERANGE));
    assert_eq!(fs.setxattr(p, b"user.a", b"", XattrMode::Set), Err(EPERM));
    assert!(fs.setxattr(p, b"trusted.a", b"", XattrMode::Set).is_ok());
    assert_eq!(fs.setxattr(f, b"user.a", b"1", XattrMode::Replace), Err(ENODATA));
    fs.setxattr(f, b"user.a", b"1", XattrMode::Create).unwrap();
    assert_eq!(fs.attr(f).ctime, Fs::time(fs.now));
    assert_eq!(fs.setxattr(f, b"user.a", b"2", XattrMode::Create), Err(EEXIST));
    fs.setxattr(f, b"user.a", &[3; 65536], XattrMode::Replace).unwrap();
    assert_eq!(fs.model.xattr(f, b"user.a"), Ok(vec![3; 65536]));
    let remove = |name: &[u8]| Op::Removexattr { ino: f, name: name.to_vec() };
    fs.apply(remove(b"user.a")).unwrap();
    assert_eq!(fs.apply(remove(b"user.a")), Err(ENODATA));
    assert_eq!(fs.apply(remove(acl::ACCESS)), Ok(Reply::Done));
    assert_eq!(fs.attr(f).ctime, Fs::time(fs.now));
    // 256 names of 256 bytes with their NUL fill the list.
    for i in 0..256 {
        let name = format!("user.{i:0250}").into_bytes();
        fs.setxattr(f, &name, b"", XattrMode::Set).unwrap();
    }
    assert_eq!(fs.setxattr(f, b"user.a", b"", XattrMode::Set), Err(ENOSPC));
    assert!(fs.setxattr(f, format!("user.{:0250}", 3).as_bytes(), b"x", XattrMode::Set).is_ok());
}

fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    acl::encode(&entries.iter().map(|&(tag, perm, id)| AclEntry::new(tag, perm, id)).collect::<Vec<_>>())
}

#[test]
fn an_access_acl_and_the_mode_are_one() {
    let mut fs = Fs::new();
    let f = fs.file(ROOT, "f");
    let full = |user, mask, other| {
        list(&[
            (acl::USER_OBJ, user, 0),
            (acl::USER, 7, 100),
            (acl::GROUP_OBJ, 4, 0),
            (acl::MASK, mask, 0),
            (acl::OTHER, other, 0),
        ])
    };
    fs.setxattr(f, acl::ACCESS, &full(6, 5, 1), XattrMode::Replace).unwrap();
    assert_eq!(fs.attr(f).mode & mode::PERM, 0o651);
    fs.set(f, SetAttr { mode: Some(0o4732), ..SetAttr::default() }).unwrap();
    assert_eq!(fs.model.xattr(f, acl::ACCESS), Ok(full(7, 3, 2)));
    // One that the mode can say is not stored, and takes the old one away.
    let minimal = list(&[(acl::USER_OBJ, 6, 0), (acl::GROUP_OBJ, 4, 0), (acl::OTHER, 0, 0)]);
    fs.setxattr(f, acl::ACCESS, &minimal, XattrMode::Set).unwrap();
    assert_eq!((fs.attr(f).mode & mode::PERM, fs.model.xattr_names(f)), (0o4640, Ok(vec![])));
    assert_eq!(fs.setxattr(f, acl::DEFAULT, &minimal, XattrMode::Set), Err(EINVAL));
    // Removing by a header leaves the mode alone.
    fs.setxattr(f, acl::ACCESS, &full(6, 5, 1), XattrMode::Set).unwrap();
    fs.setxattr(f, acl::ACCESS, &list(&[]), XattrMode::Set).unwrap();
    assert_eq!((fs.attr(f).mode & mode::PERM, fs.model.xattr_names(f)), (0o4651, Ok(vec![])));
}

#[test]
fn malformed_acls_are_refused() {
    let mut fs = Fs::new();
    let f = fs.file(ROOT, "f");
    let (u, g, o) = ((acl::USER_OBJ, 7, 0), (acl::GROUP_OBJ, 7, 0), (acl::OTHER, 7, 0));
    let mut bad = vec![
        list(&[u, g]),
        list(&[g, o]),
        list(&[u, g, o, o]),
        list(&[u, o, g]),
        list(&[u, (acl::USER, 7, 1), g, o]),
        list(&[u, (acl::USER, 7, acl::NO_ID), g, (acl::MASK, 7, 0), o]),
        list(&[u, g, (acl::GROUP, 7, 1), o]),
        list(&[u, g, (acl::MASK, 7, 0), (acl::MASK, 7, 0), o]),
        list(&[u, g, (acl::OTHER, 8, 0)]),
        list(&[u, g, o, (0x40, 7, 0)]),
        b"".to_vec(),
        vec![2, 0, 0],
        vec![1, 0, 0, 0],
    ];
    bad.push(list(&[u, g, o])[..27].to_vec());
    for value in bad {
        assert_eq!(fs.setxattr(f, acl::ACCESS, &value, XattrMode::Set), Err(EINVAL), "{value:?}");
    }
    let many: Vec<_> = [u].into_iter().chain((0..1021).map(|i| (acl::USER, 7, i))).collect();
    let tail = [g, (acl::MASK, 7, 0), o];
    assert_eq!(fs.setxattr(f, acl::ACCESS, &list(&[&many[..], &tail].concat()), XattrMode::Set), Err(ENOSPC));
    assert!(fs.setxattr(f, acl::ACCESS, &list(&[&many[1..], &tail].concat()), XattrMode::Set).is_err());
    assert!(fs.setxattr(f, acl::ACCESS, &list(&[&many[..1021], &tail].concat()), XattrMode::Set).is_ok());
}

#[test]
fn a_default_acl_replaces_the_umask() {
    let mut fs = Fs::new();
    let d = fs.dir(ROOT, "d");
    let named =
        [(acl::USER_OBJ, 7, 0), (acl::USER, 6, 100), (acl::GROUP_OBJ, 7, 0), (acl::MASK, 7, 0), (acl::OTHER, 2, 0)];
    fs.setxattr(d, acl::DEFAULT, &list(&named), XattrMode::Set).unwrap();
    let f = fs.create(d, "f", mode::IFREG | 0o4666).unwrap();
    assert_eq!(fs.attr(f).mode & mode::PERM, 0o4662);
    let mut cut = named;
    (cut[0].1, cut[3].1) = (6, 6);
    assert_eq!(fs.model.xattr(f, acl::ACCESS), Ok(list(&cut)));
    assert_eq!(fs.model.xattr(f, acl::DEFAULT), Err(ENODATA));
    let s = fs.dir(d, "s");
    assert_eq!((fs.attr(s).mode & mode::PERM, fs.model.xattr(s, acl::DEFAULT)), (0o750, Ok(list(&named))));
    // A minimal default ACL leaves no access ACL behind.
    let plain = list(&[(acl::USER_OBJ, 6, 0), (acl::GROUP_OBJ, 6, 0), (acl::OTHER, 6, 0)]);
    fs.setxattr(d, acl::DEFAULT, &plain, XattrMode::Set).unwrap();
    let g = fs.create(d, "g", mode::IFREG | 0o777).unwrap();
    assert_eq!((fs.attr(g).mode & mode::PERM, fs.model.xattr_names(g)), (0o666, Ok(vec![])));
}

#[test]
fn quotas_refuse_growth_only() {
    let mut fs = Fs::new();
    fs.model.set_quota(100, 2);
    let f = fs.file(ROOT, "f");
    fs.write(f, 0, &[1; 90]).unwrap();
    assert_eq!(fs.write(f, 85, &[2; 16]), Err(EDQUOT));
    fs.write(f, 85, &[2; 15]).unwrap();
    assert_eq!(fs.fallocate(f, KEEP, 50, 51), Err(EDQUOT));
    assert_eq!(fs.copy((f, 0), (f, 100), 1), Err(EDQUOT));
    fs.model.set_quota(10, 2);
    fs.write(f, 0, &[3; 100]).unwrap();
    fs.fallocate(f, FallocMode::ZeroRange { keep_size: true }, 0, 100).unwrap();
    fs.file(ROOT, "g");
    assert_eq!(fs.create(ROOT, "h", mode::IFREG), Err(EDQUOT));
    assert_eq!(fs.create(ROOT, "g", mode::IFREG), Err(EEXIST));
    assert_eq!(fs.rename((ROOT, "g"), (ROOT, "h"), WHITEOUT), Err(EDQUOT));
    fs.unlink(ROOT, "g").unwrap();
    assert_eq!(fs.create(ROOT, "h", mode::IFREG), Err(EDQUOT), "an orphan counts");
}

#[test]
fn base_content_is_free_until_overwritten() {
    let mut fs = Fs::over(&sample_tree());
    let lookup =
        |fs: &Fs, path: &[&str]| path.iter().fold(ROOT, |at, name| fs.model.lookup(at, name.as_bytes()).unwrap().ino);
    // Depth first, names in byte order: a, a/b, a/b/c, a/b/c/d, a/b/e, a/f …
    assert_eq!(lookup(&fs, &["a", "b", "c", "d"]), InodeNo(5));
    let e = lookup(&fs, &["a", "b", "e"]);
    assert_eq!((e, lookup(&fs, &["a", "f"]), lookup(&fs, &["b"])), (InodeNo(6), InodeNo(7), InodeNo(9)));
    assert_eq!((fs.attr(ROOT).nlink, fs.attr(ROOT).next_cookie, fs.attr(e).flags), (5, 11, 0));
    assert_eq!((fs.model.usage(), fs.attr(e).mapped), (Ok((0, 0)), 70_000));
    fs.set(e, SetAttr { size: Some(70_000), mode: Some(0o4755), ..SetAttr::default() }).unwrap();
    assert_eq!(fs.attr(e).flags, 0);
    fs.write(e, 10, b"xyz").unwrap();
    assert_eq!((fs.model.usage(), fs.attr(e).flags), (Ok((3, 0)), Inode::PRIVATE_MAP));
    let expected = runs(&[(0, 10, RunKind::Base), (10, 3, RunKind::Data), (13, 69_987, RunKind::Base)]);
    assert_eq!(fs.model.mapped_runs(e), Ok(expected));
    // A copy of base bytes stays free.
    let f = fs.file(ROOT, "new");
    fs.copy((e, 5), (f, 0), 10).unwrap();
    assert_eq!((fs.model.usage(), fs.attr(f).mapped), (Ok((6, 1)), 10));
    let d = lookup(&fs, &["a", "b", "c"]);
    fs.unlink(d, "d").unwrap();
    fs.apply(Op::Reap { ino: InodeNo(5) }).unwrap();
    assert_eq!(fs.model.usage(), Ok((6, 1)));
}

/// What the model's own bookkeeping promises, recounted from the nodes.
fn check_invariants(model: &Model) {
    let (mut bytes, mut inodes) = (0, 0);
    for ino in model.all_inodes().unwrap().unwrap() {
        let attr = model.inode(ino).unwrap().unwrap();
        inodes += u64::from(!ino.is_base());
        match attr.kind() {
            Kind::Regular => {
                let all = model.mapped_runs(ino).unwrap();
                assert_eq!(attr.mapped, all.iter().map(|r| r.len).sum::<u64>());
                bytes += all.iter().filter(|r| r.kind != RunKind::Base).map(|r| r.len).sum::<u64>();
                let beyond = all.iter().find(|r| r.kind != RunKind::Reserved && r.offset + r.len > attr.size);
                assert_eq!(beyond, None, "bytes beyond the size of inode {ino}");
            }
            Kind::Directory => {
                let entries = model.entries(ino).unwrap();
                let subs = entries.iter().filter(|(_, _, d)| d.kind == Kind::Directory);
                assert!(attr.nlink == 0 && entries.is_empty() || attr.nlink == 2 + subs.count() as u32);
                assert!(entries.windows(2).all(|w| w[0].0 < w[1].0) && entries.iter().all(|e| e.0 < attr.next_cookie));
                for (.., d) in entries {
                    let target = model.inode(d.ino).unwrap().expect("a name leads to an inode");
                    assert_eq!(target.kind(), d.kind);
                    assert!(!target.is_dir() || target.parent == ino);
                }
            }
            _ => assert_eq!(attr.mapped, 0),
        }
    }
    assert_eq!(model.usage(), Ok((bytes, inodes)));
}

#[test]
fn random_operations_keep_the_books_and_reach_every_answer() {
    let mut answers = std::collections::BTreeMap::<(String, String), u32>::new();
    let mut written = (0u64, 0u64);
    for seed in 0..12u64 {
        let mut rng = Rng::new(seed);
        let tree = if seed % 2 == 0 { sample_tree() } else { Vec::new() };
        let mut model = Model::with_tree(1 << (18 + seed % 4), 310, &tree);
        for step in 0..4000 {
            let op = next_op(&mut rng, &model);
            if let Op::Write { data, .. } = &op {
                written = (written.0 + 1, written.1 + data.len() as u64);
            }
            let before = (step % 16 == 0).then(|| model.clone());
            let answer = model.apply(&op, Fs::time(step));
            if let (Some(before), Err(_)) = (before, &answer) {
                assert_eq!(
                    before.digest(),
                    model.digest(),
                    "seed {seed}, step {step}: {op:?} failed and changed something"
                );
            }
            let text = format!("{op:?}");
            let kind = text.split(' ').next().unwrap_or_default().to_owned();
            *answers.entry((kind, format!("{:?}", answer.map(|_| ())))).or_default() += 1;
            if step % 200 == 0 {
                check_invariants(&model);
                let other = model.clone();
                compare(&model, &other).unwrap();
            }
        }
    }
    assert!((500..2000).contains(&(written.1 / written.0)), "mean size of a write: {}", written.1 / written.0);
    let wanted = "Create ENOENT EEXIST ENOTDIR EINVAL EDQUOT ENAMETOOLONG,Symlink ENOENT EEXIST,Link EPERM ENOENT EEXIST,\
        Unlink EISDIR ENOENT,Rmdir ENOTDIR ENOTEMPTY,Rename EINVAL EEXIST ENOENT ENOTEMPTY EISDIR ENOTDIR,\
        Write EFBIG EISDIR EINVAL EDQUOT,Setattr EFBIG EISDIR EINVAL EOPNOTSUPP ENOENT,Fallocate EINVAL EFBIG EDQUOT EISDIR,\
        CopyRange EINVAL EISDIR EFBIG EDQUOT,Setxattr EINVAL ERANGE EOPNOTSUPP EEXIST ENODATA EPERM,\
        Removexattr ENODATA EOPNOTSUPP EPERM,Reap EBUSY ENOENT";
    for group in wanted.split(',') {
        let (op, errors) = group.trim().split_once(' ').unwrap();
        for answer in errors.split(' ').map(|e| format!("Err({e})")).chain(["Ok(())".to_owned()]) {
            assert!(
                answers.contains_key(&(op.to_owned(), answer.clone())),
                "{op} never answered {answer}: {answers:#?}"
            );
        }
    }
}

#[test]
fn generation_is_deterministic() {
    let ops = |seed| {
        let (mut rng, mut model) = (Rng::new(seed), Model::new(1 << 20, 100));
        let step = |i| {
            let op = next_op(&mut rng, &model);
            let _ = model.apply(&op, Fs::time(i));
            op
        };
        (0..300).map(step).collect::<Vec<_>>()
    };
    assert_eq!(ops(5), ops(5));
    assert_ne!(ops(5), ops(6));
    let mut rng = Rng::new(1);
    let sound = (0..1000).filter(|_| acl::parse(&acl_value(&mut rng)).is_ok()).count();
    assert!((500..950).contains(&sound), "{sound} sound ACLs of 1000");
}

#[test]
fn comparison_names_the_first_difference() {
    let mut fs = Fs::over(&sample_tree());
    let f = fs.file(ROOT, "zz");
    fs.write(f, 3, b"abc").unwrap();
    fs.setxattr(f, b"user.a", b"1", XattrMode::Set).unwrap();
    let plant: [(Op, &str); 6] = [
        (Op::Write { ino: f, offset: 4, data: Bytes::from_static(b"X"), kill_priv: false }, "(/zz), byte 4"),
        (Op::Setattr { ino: f, set: SetAttr { uid: Some(9), ..SetAttr::default() } }, "model uid: 5, real uid: 9,"),
        (Op::Unlink { parent: ROOT, name: b"zz".to_vec() }, "inode 1 (/), lookup of \"zz\""),
        (Op::Removexattr { ino: f, name: b"user.a".to_vec() }, "(/zz), names of extended attributes"),
        (Op::Fallocate { ino: f, mode: FallocMode::ZeroRange { keep_size: true }, offset: 3, len: 3 }, "mapped runs"),
        (Op::Reap { ino: f }, "list of all inodes: missing Some(4294967296)"),
    ];
    for (op, expected) in plant {
        let mut other = fs.model.clone();
        let reap = matches!(op, Op::Reap { .. });
        if reap {
            other.nodes.remove(&f.0);
        } else {
            other.apply(&op, Fs::time(3)).unwrap();
        }
        // Times would differ first.
        if let Some(node) = other.nodes.get_mut(&f.0) {
            let ours = fs.attr(f);
            (node.attr.mtime, node.attr.ctime, node.attr.nlink) = (ours.mtime, ours.ctime, ours.nlink);
        }
        let root = fs.attr(ROOT);
        let theirs = other.known(ROOT);
        (theirs.attr.mtime, theirs.attr.ctime) = (root.mtime, root.ctime);
        let said = compare(&fs.model, &other).unwrap_err();
        assert!(said.contains(expected), "{said:?} does not say {expected:?}");
    }
}
