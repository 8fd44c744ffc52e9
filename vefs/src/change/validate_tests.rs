//! Absurd records are refused, sensible ones are not; and what passes can be applied.

use super::*;
use crate::change::{PayloadRef, Purpose, Settings};
use crate::clock::Timestamp;
use crate::ids::{Hash, PayloadId};

const TXN: TxnNo = TxnNo(5);

fn file() -> Inode {
    let t = Timestamp { secs: 1, nanos: 2 };
    Inode {
        mode: mode::IFREG | 0o644,
        uid: 0,
        gid: 0,
        nlink: 1,
        rdev: 0,
        size: 10,
        mapped: 10,
        atime: t,
        mtime: t,
        ctime: t,
        btime: t,
        parent: InodeNo(0),
        next_cookie: 0,
        flags: Inode::PRIVATE_MAP,
    }
}

fn refused(change: Change) -> &'static str {
    let body = Body { purpose: Purpose::Operation, changes: vec![Change::Usage(1, 1), change.clone()], payload: None };
    match validate(&body, TXN) {
        Err(Invalid::Change(1, what)) => what,
        other => panic!("{change:?}: {other:?}"),
    }
}

fn taken(change: Change) {
    let body = Body { purpose: Purpose::Operation, changes: vec![change], payload: None };
    assert_eq!(validate(&body, TXN), Ok(()), "{body:?}");
}

fn with(edit: impl FnOnce(&mut Inode)) -> Change {
    let mut inode = file();
    edit(&mut inode);
    Change::PutInode(InodeNo(9), inode)
}

/// An inode number of 2^64 - 1 had no successor: applying it panicked (checks G29).
#[test]
fn inodes() {
    taken(with(|_| {}));
    taken(Change::PutInode(InodeNo(limits::COUNTER_MAX), file()));
    assert_eq!(refused(Change::PutInode(InodeNo(u64::MAX), file())), "inode number");
    assert_eq!(refused(Change::DropInode(InodeNo(0))), "inode number");
    assert_eq!(refused(with(|i| i.mode = 0o644)), "mode");
    assert_eq!(refused(with(|i| i.mode = 0o150_644)), "mode");
    assert_eq!(refused(with(|i| i.mode |= 1 << 31)), "mode");
    assert_eq!(refused(with(|i| i.nlink = limits::LINK_MAX + 1)), "link count");
    taken(with(|i| (i.mode, i.nlink) = (mode::IFDIR, u32::MAX)));
    assert_eq!(refused(with(|i| i.size = limits::FILE_SIZE_MAX + 1)), "size");
    assert_eq!(refused(with(|i| (i.mode, i.size) = (mode::IFLNK, 4096))), "size");
    assert_eq!(refused(with(|i| i.mapped = u64::MAX)), "mapped bytes");
    assert_eq!(refused(with(|i| i.mtime.nanos = 1_000_000_000)), "time");
    assert_eq!(refused(with(|i| i.parent = InodeNo(u64::MAX))), "parent");
    assert_eq!(refused(with(|i| i.next_cookie = u64::MAX)), "cookie");
    assert_eq!(refused(with(|i| i.flags = Inode::FLAGS + 1)), "flags");
}

/// A name of 300 bytes made a key that no reader takes back (checks G29).
#[test]
fn names_and_values() {
    let d = Dentry { ino: InodeNo(9), kind: Kind::Regular, cookie: 3 };
    let put = |name: &[u8], d| Change::PutDentry(InodeNo(1), name.to_vec(), d);
    taken(put(&[b'x'; 255], d));
    for bad in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'x'; 300]] {
        assert_eq!(refused(put(bad, d)), "name");
        assert_eq!(refused(Change::DropDentry(InodeNo(1), bad.to_vec(), 3)), "name");
    }
    assert_eq!(refused(put(b"a", Dentry { cookie: u64::MAX, ..d })), "cookie");
    assert_eq!(refused(put(b"a", Dentry { ino: InodeNo(0), ..d })), "inode number");
    assert_eq!(refused(Change::DropDentry(InodeNo(1), b"a".to_vec(), u64::MAX)), "cookie");
    taken(Change::PutTarget(InodeNo(9), vec![b't'; limits::SYMLINK_MAX]));
    for bad in [vec![], b"a\0".to_vec(), vec![b't'; limits::SYMLINK_MAX + 1]] {
        assert_eq!(refused(Change::PutTarget(InodeNo(9), bad)), "link target");
    }
    taken(Change::PutXattr(InodeNo(9), b"user.a".to_vec(), vec![0; limits::XATTR_VALUE_MAX]));
    assert_eq!(refused(Change::PutXattr(InodeNo(9), vec![b'x'; 256], vec![])), "attribute name");
    assert_eq!(refused(Change::DropXattr(InodeNo(9), b"user.\0".to_vec())), "attribute name");
    let large = vec![0; limits::XATTR_VALUE_MAX + 1];
    assert_eq!(refused(Change::PutXattr(InodeNo(9), b"user.a".to_vec(), large)), "attribute value");
}

/// What a record says was written becomes an inode's row like any other: one with a time of a billion nanoseconds was journalled, applied and published, and
/// was no row to any reader (checks G29).
#[test]
fn what_was_written() {
    let wrote = |size, mapped, nanos| Change::Wrote(InodeNo(9), size, mapped, Timestamp { secs: 1, nanos });
    taken(wrote(limits::FILE_SIZE_MAX, 10, 999_999_999));
    assert_eq!(refused(wrote(10, 10, 1_000_000_000)), "time");
    assert_eq!(refused(wrote(limits::FILE_SIZE_MAX + 1, 10, 0)), "size");
    assert_eq!(refused(wrote(10, u64::MAX, 0)), "mapped bytes");
}

/// A symbolic link of a terabyte was no row that anybody could read; the record does not say that it is about one (checks G29).
#[test]
fn a_link_keeps_a_size_that_a_row_may_have() {
    use crate::op::{Op, Owner, Reply};
    let (_store, ve, _) = crate::store::bed::in_memory();
    let (parent, target) = (InodeNo::ROOT, b"target".to_vec());
    let op = Op::Symlink { parent, name: b"l".to_vec(), target, owner: Owner::default() };
    let Reply::Inode(ino, _) = ve.execute(&op, Default::default()).unwrap() else { panic!("no inode") };
    for size in [6, 1 << 40] {
        let mut s = ve.state.lock();
        let wrote = Change::Wrote(ino, size, 0, Timestamp { secs: 5, nanos: 0 });
        s.record(&ve.shared, Purpose::Operation, vec![wrote], None, Default::default()).unwrap();
        drop(s);
        ve.publish().unwrap();
        assert_eq!(ve.lookup(parent, b"l").unwrap().1.size, 6);
    }
}

/// Sums of offsets and lengths overflowed when the extent was cut or joined (checks G29).
#[test]
fn extents() {
    let map = |offset, len, source| Change::Map(InodeNo(9), offset, Extent { len, source });
    let payload = |txn, offset| Source::Payload(PayloadId { txn: TxnNo(txn), offset });
    let object = |offset| Source::Object { hash: Hash::default(), offset };
    taken(map(0, limits::FILE_SIZE_MAX, Source::Unwritten));
    taken(map(7, 3, payload(5, 100)));
    assert_eq!(refused(map(7, 0, payload(5, 100))), "extent");
    assert_eq!(refused(map(limits::FILE_SIZE_MAX, 1, Source::Unwritten)), "extent");
    assert_eq!(refused(map(u64::MAX, u64::MAX, Source::Unwritten)), "extent");
    assert_eq!(refused(map(0, 10, payload(5, u64::MAX - 5))), "payload id");
    assert_eq!(refused(map(0, 10, payload(6, 0))), "payload of a later transaction");
    assert_eq!(refused(map(0, 10, object(u64::MAX - 5))), "range of an object");
    assert_eq!(refused(map(0, 10, object(OBJECT_LEN_MAX - 9))), "range of an object");
    taken(Change::Unmap(InodeNo(9), 100, u64::MAX - 100));
    assert_eq!(refused(Change::Unmap(InodeNo(9), 101, u64::MAX - 100)), "range to unmap");
}

#[test]
fn holds_and_settings() {
    let hold = |txn, owner: &str| Hold { txn: TxnNo(txn), onwards: false, owner: owner.into(), since: file().atime };
    taken(Change::PutHold("backup".into(), hold(3, "")));
    taken(Change::PutSettings(Settings { quota_bytes: u64::MAX, quota_inodes: 0, history_bytes: u64::MAX }));
    for bad in ["", "a\0b", &"x".repeat(limits::LABEL_MAX + 1)] {
        assert_eq!(refused(Change::PutHold(bad.into(), hold(3, ""))), "name of a hold");
        assert_eq!(refused(Change::DropHold(bad.into())), "name of a hold");
    }
    assert_eq!(refused(Change::PutHold("a".into(), hold(u64::MAX, ""))), "version of a hold");
    assert_eq!(refused(Change::PutHold("a".into(), hold(3, &"x".repeat(300)))), "owner of a hold");
}

#[test]
fn whole_records() {
    let body = |changes, len| Body {
        purpose: Purpose::Operation,
        changes: vec![Change::Usage(i64::MAX, i64::MIN); changes],
        payload: Some(PayloadRef { len, hash: None }),
    };
    assert_eq!(validate(&body(limits::CHANGES_MAX, limits::WRITE_MAX as u64), TXN), Ok(()));
    assert_eq!(validate(&body(limits::CHANGES_MAX + 1, 1), TXN), Err(Invalid::Value("number of changes")));
    for len in [0, limits::WRITE_MAX as u64 + 1, u64::MAX] {
        assert_eq!(validate(&body(1, len), TXN), Err(Invalid::Value("payload length")));
    }
}
