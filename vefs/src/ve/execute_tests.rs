use std::sync::Arc;

use super::*;
use crate::change::{Policy, Seal};
use crate::ids::TxnNo;
use crate::store::bed::{self, create, in_memory};
use crate::ve::feed::Feed;

fn write(ve: &Ve, ino: InodeNo, offset: u64, len: usize) {
    bed::write(ve, ino, offset, vec![7; len]).unwrap();
}

/// A file whose first 64 KiB went to a body is appended to byte by byte: each byte lies behind them, beside the journal, and its hash in the seal. With
/// all of them in one transaction the seal was larger than a replica takes in; it closed the connection, and the same transaction came again half a
/// second later, for ever (checks G14, G29).
#[test]
fn a_seal_has_so_many_hashes_and_no_more() {
    let (_store, ve, _) = in_memory();
    let ino = create(&ve, "log");
    write(&ve, ino, 0, limits::INLINE_MAX);
    let more = limits::TXN_BESIDE_MAX + 500;
    (0..more).for_each(|n| write(&ve, ino, (limits::INLINE_MAX + n) as u64, 1));
    ve.commit().unwrap();
    let (mut after, mut hashes) = (TxnNo(0), 0);
    while let Feed::Txn(txn) = ve.feed(after).unwrap() {
        let seal: Seal = codec::decode(&txn.seal).unwrap();
        assert!(seal.payloads.len() <= limits::TXN_BESIDE_MAX, "{} in {}", seal.payloads.len(), txn.position.txn);
        hashes += seal.payloads.len();
        after = txn.position.txn;
    }
    assert_eq!(hashes, 1 + more);
}

/// Who fills a transaction seals it when the lock is free again; whoever comes in between must not put one more record into it.
#[test]
fn a_full_transaction_gets_no_record_more() {
    let (_store, ve, _) = in_memory();
    let ino = create(&ve, "file");
    let changes: [&dyn Fn(); 6] = [
        &|| write(&ve, ino, 0, 1),
        &|| ve.set_policy(Policy { weight: 9, ..Policy::default() }).unwrap(),
        &|| ve.set_settings(Settings::default()).unwrap(),
        &|| _ = create(&ve, "another"),
        &|| ve.hold("kept", TxnNo(1), false, "").unwrap(),
        &|| ve.release("kept").unwrap(),
    ];
    for (n, change) in changes.iter().enumerate() {
        if ve.state.lock().open.records == 0 {
            write(&ve, ino, 0, 1);
        }
        let txn = {
            let mut s = ve.state.lock();
            s.open.payload += limits::TXN_PAYLOAD_MAX;
            s.open.txn
        };
        change();
        let s = ve.state.lock();
        assert!(s.head.txn >= txn && s.open.records <= 1 && !s.open.is_full(), "change {n}");
    }
}

/// A file in so many pieces, of one byte each, a byte apart, the last one at the end.
fn scattered(ve: &Ve, name: &str, pieces: usize) -> InodeNo {
    let ino = create(ve, name);
    (0..pieces as u64).for_each(|n| write(ve, ino, n * 2, 1));
    ino
}

fn extents(ve: &Ve, ino: InodeNo) -> usize {
    let s = ve.state.lock();
    let inode = view::inode(&s.tables, ino).unwrap().unwrap();
    view::extents(&s.tables, ino, &inode, 0, u64::MAX).unwrap().len()
}

/// Records since a transaction that take extents from a file.
fn takings(ve: &Ve, mut after: TxnNo) -> usize {
    ve.commit().unwrap();
    let mut takings = 0;
    while let Feed::Txn(txn) = ve.feed(after).unwrap() {
        let bodies = txn.records.iter().map(|r| codec::decode::<Body>(&r.body).unwrap());
        let takes = |c: &Change| matches!(c, Change::Unmap(..) | Change::DropInode(_));
        takings += bodies.filter(|b| b.changes.iter().any(takes)).count();
        after = txn.position.txn;
    }
    takings
}

const PIECES: usize = 2 * limits::EXTENTS_MOST + 100;

fn set_size(ino: InodeNo, size: u64) -> Op {
    Op::Setattr { ino, set: crate::op::SetAttr { size: Some(size), ..Default::default() } }
}

/// A program gives a file millions of extents, of a byte each, and removes it, cuts it or punches a hole into it: one record took them all away, and took
/// some 300 bytes of the daemon's memory for each, at once, again at each start and on each replica (checks G8, tenet 3).
#[test]
fn no_record_takes_away_more_than_so_many_extents() {
    let (_store, ve, _) = in_memory();
    let fallocate = |ino, mode| Op::Fallocate { ino, mode, offset: 0, len: 2 * PIECES as u64 };
    let keep_size = true;
    let allocate = crate::op::FallocMode::Allocate { keep_size };
    let zero = crate::op::FallocMode::ZeroRange { keep_size };
    type Way<'a> = (&'a str, &'a dyn Fn(InodeNo) -> Op, usize, usize);
    let ways: [Way; 4] = [
        ("cut", &|ino| set_size(ino, 0), 0, 4),
        ("punch", &|ino| fallocate(ino, crate::op::FallocMode::PunchHole), 0, 3),
        ("zero", &|ino| fallocate(ino, zero), 1, 0),
        ("allocate", &|ino| fallocate(ino, allocate), 2 * PIECES, 0),
    ];
    for (name, op, left, records) in ways {
        let ino = scattered(&ve, name, PIECES);
        ve.commit().unwrap();
        let (before, size) = (ve.position().txn, ve.inode(ino).unwrap().size);
        ve.execute(&op(ino), Request::default()).unwrap();
        assert_eq!((extents(&ve, ino), takings(&ve, before)), (left, records), "{name}");
        let inode = ve.inode(ino).unwrap();
        assert_eq!(inode.size, if name == "cut" { 0 } else { size }, "{name}");
        assert_eq!(inode.flags & crate::types::Inode::CUT, 0, "{name}");
        assert_eq!(ve.usage().0, inode.mapped, "{name}");
        ve.execute(&Op::Unlink { parent: InodeNo::ROOT, name: name.into() }, Request::default()).unwrap();
        ve.reap(&[ino]).unwrap();
        assert_eq!(ve.usage().0, 0, "{name}");
    }
    let both = [scattered(&ve, "a", PIECES), scattered(&ve, "b", 10)];
    for name in ["a", "b"] {
        ve.execute(&Op::Unlink { parent: InodeNo::ROOT, name: name.into() }, Request::default()).unwrap();
    }
    ve.commit().unwrap();
    let before = ve.position().txn;
    ve.reap(&both).unwrap();
    assert_eq!(takings(&ve, before), 6, "the small one, four parts of the large one, and the large one");
    assert!(both.iter().all(|ino| ve.inode(*ino).is_err()));
    let alone = scattered(&ve, "alone", PIECES);
    ve.execute(&Op::Unlink { parent: InodeNo::ROOT, name: "alone".into() }, Request::default()).unwrap();
    assert_eq!(ve.execute(&Op::Reap { ino: alone }, Request::default()).unwrap(), Reply::Done);
    assert!(ve.inode(alone).is_err());
    assert_eq!(ve.usage(), (0, 0));
}

/// A cut may be a program's commit: it happens whole. What is still mapped beyond the size after a crash must never be seen again, whatever the file
/// does next (checks G1).
#[test]
fn a_cut_happens_at_once_and_what_was_cut_off_never_comes_back() {
    type Way<'a> = &'a dyn Fn(&Ve, InodeNo);
    let ways: [Way; 4] = [
        &|ve, ino| bed::write(ve, ino, 1000, vec![8]).unwrap(),
        &|ve, ino| _ = ve.execute(&set_size(ino, 1001), Request::default()).unwrap(),
        &|ve, ino| {
            let mode = crate::op::FallocMode::Allocate { keep_size: false };
            ve.execute(&Op::Fallocate { ino, mode, offset: 500, len: 501 }, Request::default()).unwrap();
        },
        &|ve, ino| {
            let src = create(ve, "source");
            write(ve, src, 0, 1);
            let op = Op::CopyRange { src, src_offset: 0, dst: ino, dst_offset: 1000, len: 1 };
            ve.execute(&op, Request::default()).unwrap();
        },
    ];
    for (n, way) in ways.iter().enumerate() {
        let storage = Arc::new(crate::storage::memory::MemStorage::default());
        let meta = Arc::new(crate::meta::MemoryMeta::default());
        let ino = {
            let store = bed::on(storage.clone(), meta.clone());
            let ve = bed::create_ve(&store, bed::VE);
            let ino = scattered(&ve, "file", PIECES);
            // The first record, and then no other.
            let (_, then) = ve.step(&set_size(ino, 3), Request::default(), false).unwrap();
            assert_eq!(then, Then::Trim(ino));
            ino
        };
        let store = bed::again(storage, meta);
        let ve = store.ve(bed::VE).unwrap();
        assert_eq!(ve.inode(ino).unwrap().size, 3);
        assert_eq!(ve.read(ino, 0, 10).unwrap(), [7, 0, 7]);
        way(&ve, ino);
        let bytes = ve.read(ino, 0, 2000).unwrap();
        assert_eq!((bytes.len(), &bytes[..3]), (1001, &[7, 0, 7][..]), "way {n}");
        assert!(bytes[3..1000].iter().all(|b| *b == 0), "way {n}");
        let inode = ve.inode(ino).unwrap();
        assert_eq!(inode.flags & crate::types::Inode::CUT, 0, "way {n}");
        assert!(extents(&ve, ino) <= 4, "way {n}");
    }
}

/// Operations that happen in parts are asked beforehand whether there is room for the whole.
#[test]
fn what_happens_in_parts_is_refused_whole() {
    let (_store, ve, _) = in_memory();
    let quota = |bytes| ve.set_settings(Settings { quota_bytes: bytes, ..Settings::default() }).unwrap();
    let keep_size = true;
    let (allocate, zero) =
        (crate::op::FallocMode::Allocate { keep_size }, crate::op::FallocMode::ZeroRange { keep_size });
    for (name, mode) in [("allocate", allocate), ("zero", zero)] {
        quota(u64::MAX);
        let ino = scattered(&ve, name, PIECES);
        quota(2 * PIECES as u64 - 1);
        let op = Op::Fallocate { ino, mode, offset: 0, len: 2 * PIECES as u64 };
        let refused = ve.execute(&op, Request::default());
        assert!(matches!(refused, Err(Error::Posix(Errno::EDQUOT))));
        assert_eq!((extents(&ve, ino), ve.usage().0), (PIECES, PIECES as u64));
        quota(2 * PIECES as u64);
        assert_eq!(ve.execute(&op, Request::default()).unwrap(), Reply::Done);
        ve.execute(&Op::Unlink { parent: InodeNo::ROOT, name: name.into() }, Request::default()).unwrap();
        ve.reap(&[ino]).unwrap();
    }
}

/// copy_file_range(2) of more than 65,528 pieces was EINVAL. It may copy less than was asked for, and the program goes on from there.
#[test]
fn a_copy_of_many_pieces_is_a_short_one() {
    let (_store, ve, _) = in_memory();
    let (src, dst) = (scattered(&ve, "source", PIECES), scattered(&ve, "target", PIECES));
    let whole = ve.inode(src).unwrap().size;
    let (mut at, mut calls) = (0, 0);
    while at < whole {
        let op = Op::CopyRange { src, src_offset: at, dst, dst_offset: at, len: whole - at };
        let Reply::Written(n) = ve.execute(&op, Request::default()).unwrap() else { panic!("no count") };
        assert!(n > 0);
        (at, calls) = (at + n, calls + 1);
    }
    assert_eq!((at, calls), (whole, 3));
    assert_eq!(ve.read(dst, 0, 100_000).unwrap(), ve.read(src, 0, 100_000).unwrap());
    let few = create(&ve, "few");
    let op = Op::CopyRange { src, src_offset: 0, dst: few, dst_offset: 0, len: limits::EXTENTS_MOST as u64 };
    assert_eq!(ve.execute(&op, Request::default()).unwrap(), Reply::Written(limits::EXTENTS_MOST as u64));
}
