//! What cancels out within a transaction does not travel, and nobody misses it: neither the replica, nor whoever follows that when it is promoted.

use std::sync::Arc;

use bytes::Bytes;
use vefs::Ve;
use vefs::ids::{InodeNo, TxnNo};
use vefs::op::{Op, Owner, Reply, SetAttr};
use vefs::ve::{Feed, FeedPayload, FeedTxn, ReceiveError, Request};

use crate::pair::{Pair, Side, VE, ship, stage};

fn create(ve: &Ve, name: &str) -> InodeNo {
    let owner = Owner { uid: 0, gid: 0, umask: 0 };
    let op = Op::Create { parent: InodeNo::ROOT, name: name.into(), mode: 0o100_644, owner, rdev: 0 };
    let Reply::Inode(ino, _) = ve.execute(&op, Request::default()).unwrap() else { panic!("no inode") };
    ino
}

fn write(ve: &Ve, ino: InodeNo, offset: u64, byte: u8, len: usize) {
    let data = Bytes::from(vec![byte; len]);
    ve.execute(&Op::Write { ino, offset, data, kill_priv: false }, Request::default()).unwrap();
}

fn remove(ve: &Ve, name: &str, ino: InodeNo) {
    ve.execute(&Op::Unlink { parent: InodeNo::ROOT, name: name.into() }, Request::default()).unwrap();
    ve.execute(&Op::Reap { ino }, Request::default()).unwrap();
}

/// What a database does with a rollback journal, five times within a tick: pages saved, pages written, the journal deleted.
fn database(ve: &Ve, db: InodeNo) {
    for round in 0..5u8 {
        let journal = create(ve, "db-journal");
        write(ve, journal, 0, 100 + round, 4096);
        write(ve, journal, 4096, 100 + round, 200_000);
        ve.sync().unwrap();
        write(ve, db, 0, round, 8192);
        write(ve, db, 65_536, round, 100_000);
        ve.sync().unwrap();
        remove(ve, "db-journal", journal);
    }
}

fn next(from: &Ve, to: &Ve) -> FeedTxn {
    let Feed::Txn(txn) = from.feed(to.position().txn).unwrap() else { panic!("nothing to ship") };
    txn
}

/// Payloads that travel, and bytes of those that do not.
fn counted(txn: &FeedTxn) -> (usize, u64) {
    let payloads = || txn.records.iter().filter_map(|r| r.payload.as_ref());
    let cancelled = payloads().map(|p| if let FeedPayload::Cancelled(len) = p { *len } else { 0 });
    (payloads().filter(|p| !matches!(p, FeedPayload::Cancelled(_))).count(), cancelled.sum())
}

fn equal(a: &Arc<Ve>, b: &Arc<Ve>) {
    assert_eq!(a.position(), b.position());
    let txn = b.position().txn;
    let root = |ve: &Arc<Ve>| {
        let version = ve.version(txn).unwrap();
        (version.state_root().unwrap().root, version.logical_root().unwrap())
    };
    assert_eq!(root(a), root(b), "roots at {txn}");
}

/// Of five rounds one is left: that travels, and the replica has what the primary has, also after it was killed, and so has a third node that the replica
/// feeds when it is promoted (checks G9, G13).
#[test]
fn what_cancels_out_does_not_travel() {
    let mut pair = Pair::new(77);
    let ve = pair.primary.ve();
    let db = create(&ve, "db");
    write(&ve, db, 0, 9, 300_000);
    ve.commit().unwrap();
    pair.ship();
    database(&ve, db);
    ve.commit().unwrap();
    let txn = next(&ve, &pair.replica.ve());
    let all = 5 * (4096 + 200_000 + 8192 + 100_000);
    assert_eq!(counted(&txn), (2, all - (8192 + 100_000)), "of 20 payloads the last two of the database are left");
    pair.ship();
    pair.same();

    pair.replica.kill();
    pair.same();
    let replica = pair.replica.ve();
    assert_eq!(replica.read(db, 0, 300_000).unwrap(), ve.read(db, 0, 300_000).unwrap());

    let third = Side::new(5000);
    let identity = replica.identity();
    third.store.create_follower(VE, identity.lineage, identity.base, identity.epoch).unwrap();
    replica.set_cursor([3; 16], TxnNo(0)).unwrap();
    replica.promote(replica.epoch().promoted()).unwrap();
    database(&replica, db);
    replica.commit().unwrap();
    let to = third.ve();
    while let Feed::Txn(txn) = replica.feed(to.position().txn).unwrap() {
        ship(&replica, &to, &txn).unwrap();
    }
    to.sync().unwrap();
    equal(&replica, &to);
    assert_eq!(to.read(db, 0, 300_000).unwrap(), replica.read(db, 0, 300_000).unwrap());
    // All states that can be named are the same, also those on both sides of what cancelled out.
    for row in replica.versions().unwrap() {
        let root = |ve: &Arc<Ve>| ve.version(row.position.txn).unwrap().state_root().unwrap().root;
        assert_eq!(root(&replica), root(&to), "{row:?}");
    }
}

/// Bytes that are cut off, punched out or partly overwritten: what is left of a payload keeps all of it, and a copy keeps what it was copied from.
#[test]
fn what_is_left_in_part_travels() {
    let mut pair = Pair::new(78);
    let ve = pair.primary.ve();
    ve.commit().unwrap();
    pair.ship();
    let (a, b) = (create(&ve, "a"), create(&ve, "b"));
    write(&ve, a, 0, 1, 10_000);
    write(&ve, a, 5000, 2, 10_000);
    write(&ve, b, 0, 3, 70_000);
    let copy = Op::CopyRange { src: b, src_offset: 100, dst: a, dst_offset: 20_000, len: 50 };
    ve.execute(&copy, Request::default()).unwrap();
    remove(&ve, "b", b);
    let set = SetAttr { size: Some(20_020), ..SetAttr::default() };
    ve.execute(&Op::Setattr { ino: a, set }, Request::default()).unwrap();
    ve.commit().unwrap();
    let txn = next(&ve, &pair.replica.ve());
    assert_eq!(counted(&txn), (3, 0));
    pair.ship();
    pair.same();
    assert_eq!(pair.replica.ve().read(a, 0, 30_000).unwrap(), ve.read(a, 0, 30_000).unwrap());
}

/// A primary that leaves out what is needed is refused, and nothing is changed (checks G10).
#[test]
fn what_is_needed_may_not_be_left_out() {
    let mut pair = Pair::new(79);
    let ve = pair.primary.ve();
    let db = create(&ve, "db");
    ve.commit().unwrap();
    pair.ship();
    database(&ve, db);
    ve.commit().unwrap();
    let (from, to) = (pair.primary.ve(), pair.replica.ve());
    let txn = next(&from, &to);
    let before = (to.position(), to.journal_position(), to.usage());
    for n in 0..txn.records.len() {
        stage(&from, &to, &txn);
        let mut bad = txn.clone();
        let Some(payload) = &mut bad.records[n].payload else { continue };
        let was_cancelled = matches!(payload, FeedPayload::Cancelled(_));
        *payload = FeedPayload::Cancelled(payload.size() + u64::from(was_cancelled));
        let refused = to.receive(&bad);
        assert!(matches!(refused, Err(ReceiveError::Corrupt { .. })), "record {n}: {refused:?}");
        assert_eq!((to.position(), to.journal_position(), to.usage()), before, "record {n}");
        to.unstage_all();
    }
    // All bytes may come as well.
    pair.ship();
    pair.same();
}
