//! A replica's history is its primary's, through kills of both, damage and whatever a primary should not send.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use vefs::content::InBody;
use vefs::format::role::RoleKind;
use vefs::ids::{Epoch, Hash, InodeNo, TxnNo};
use vefs::op::{Op, Owner};
use vefs::storage::disk::DiskStorage;
use vefs::ve::{Feed, FeedPayload, FeedTxn, Known, ReceiveError, Request, Retention};

use crate::pair::{Pair, Side, ship, stage};

/// Random operations, commits, publishing, sealing, collecting and kills on both sides, and the replica is always a version of the
/// primary (checks G9, G11, G12, G13).
#[test]
fn a_replica_has_what_its_primary_had() {
    for seed in 0..30 {
        let mut pair = Pair::new(seed);
        for _ in 0..40 {
            let n = pair.rng.below(30) as usize;
            pair.write(n);
            match pair.rng.below(10) {
                0 => pair.primary.ve().publish().unwrap(),
                1 => drop(pair.primary.ve().housekeep(Duration::ZERO).unwrap()),
                2 => drop(pair.primary.store.collect_garbage(&Retention { steps: vec![] }).unwrap()),
                3 => drop(pair.replica.store.collect_garbage(&Retention { steps: vec![] }).unwrap()),
                4 => pair.replica.kill(),
                5 => pair.replica.ve().publish().unwrap(),
                6 => pair.primary.store.checkpoint().unwrap(),
                7 => drop(pair.replica.ve().housekeep(Duration::ZERO).unwrap()),
                _ => {}
            }
            if pair.rng.percent(70) {
                pair.primary.store.tick().unwrap();
                pair.ship();
                pair.is_a_version();
            }
        }
        pair.primary.ve().commit().unwrap();
        pair.ship();
        pair.same();
    }
}

/// A replica made the object of a sealed file when the record came, and nothing else came meanwhile: copying half a gibibyte left the newest copy three
/// seconds old. Now it is there before, and no collection takes it.
#[test]
fn an_object_is_there_before_its_record() {
    let mut pair = Pair::new(98);
    let ve = pair.primary.ve();
    let ino = file(&ve, "large");
    let body: Vec<u8> = (0..2u32 << 20).map(|n| (n / 7) as u8).collect();
    write(&ve, ino, 0, &body);
    ve.commit().unwrap();
    pair.ship();
    let before = objects(&pair.replica);
    assert_eq!(pair.replica.ve().housekeep(Duration::ZERO).unwrap(), 0, "a follower changes nothing");
    let ahead = objects(&pair.replica);
    assert_eq!(ahead.len(), before.len() + 1);
    for _ in 0..3 {
        pair.replica.store.collect_garbage(&Retention { steps: vec![] }).unwrap();
    }
    assert_eq!(objects(&pair.replica), ahead, "it waits for its record");
    assert_eq!(ve.housekeep(Duration::ZERO).unwrap(), 1);
    ve.commit().unwrap();
    pair.ship();
    assert_eq!(objects(&pair.replica), ahead, "the record names it");
    assert_eq!(objects(&pair.primary), ahead);
    assert_eq!(pair.replica.ve().read(ino, 0, body.len()).unwrap(), body);
}

/// A file that is written from start to end lies in one piece at the replica too, whatever is written meanwhile, and becomes its object as it is: the
/// copies of three files of half a gibibyte kept a slow disk busy until the newest state was 2.6 seconds old.
#[test]
fn what_a_replica_has_in_one_piece_is_not_copied() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(DiskStorage::open(dir.path()).unwrap());
    let mut pair = Pair::of(Side::new(97), Side::on(disk, 1097), 97);
    let ve = pair.primary.ve();
    let (a, b) = (file(&ve, "a"), file(&ve, "b"));
    let bodies = [3u32, 5].map(|k| (0..4u32 << 20).map(|n| (n / k) as u8).collect::<Vec<u8>>());
    for part in 0..8 {
        let at = part * (512 << 10);
        for (ino, body) in [(a, &bodies[0]), (b, &bodies[1])] {
            // The last one is so small that it would be in the journal if it did not continue the file.
            let cut = if part == 7 { (512 << 10) - 100 } else { 200_000 };
            write(&ve, ino, at, &body[at..at + cut]);
            write(&ve, ino, at + cut, &body[at + cut..at + (512 << 10)]);
        }
        if part % 3 == 2 {
            ve.commit().unwrap();
            pair.ship();
        }
    }
    ve.commit().unwrap();
    pair.ship();
    pair.replica.ve().housekeep(Duration::ZERO).unwrap();
    let ahead = objects(&pair.replica);
    assert_eq!(ahead.len(), 2);
    for hash in &ahead {
        let hex = hash.to_hex();
        let body = std::fs::metadata(dir.path().join("objects").join(&hex[..2]).join(&hex)).unwrap();
        assert_eq!((body.len(), body.nlink()), (4 << 20, 2), "the object and what the file is made of are one");
    }
    // What follows is not written behind the bytes that are an object now.
    write(&ve, a, 4 << 20, &[9; 300_000]);
    ve.commit().unwrap();
    pair.ship();
    assert_eq!(ve.housekeep(Duration::ZERO).unwrap(), 2);
    ve.commit().unwrap();
    pair.ship();
    pair.same();
    for hash in ahead {
        let object = pair.replica.store.objects().open(hash).unwrap();
        let mut bytes = vec![0; object.len() as usize];
        object.read_at(&mut bytes, 0).unwrap();
        assert_eq!(Hash::of(&bytes), hash);
    }
    let longer = [&bodies[0][..], &[9; 300_000]].concat();
    assert_eq!(pair.replica.ve().read(a, 0, 8 << 20).unwrap(), longer);
    assert_eq!(pair.replica.ve().read(b, 0, 8 << 20).unwrap(), bodies[1]);
}

/// A file that is written every few seconds is never quiet for long enough to be sealed. Its followers copied it each time, in vain; now they do it
/// twice a minute at most.
#[test]
fn what_was_made_in_vain_is_not_made_every_time() {
    let mut pair = Pair::new(95);
    let ve = pair.primary.ve();
    let ino = file(&ve, "busy");
    let quiet = Duration::from_secs(10);
    let write_again = |pair: &mut Pair, n: u8| {
        write(&ve, ino, 0, &vec![n; 2 << 20]);
        ve.commit().unwrap();
        pair.ship();
    };
    let later = |pair: &Pair, seconds: u64| {
        pair.replica.world.clock.advance(Duration::from_secs(seconds));
        pair.replica.ve().housekeep(quiet).unwrap();
        objects(&pair.replica).len()
    };
    write_again(&mut pair, 1);
    let before = later(&pair, 2);
    assert_eq!(later(&pair, 2), before + 1, "the first time after a third of the time");
    write_again(&mut pair, 2);
    assert_eq!(later(&pair, 5), before + 1);
    assert_eq!(later(&pair, 2), before + 2, "then after two thirds");
    for n in 3..9 {
        write_again(&mut pair, n);
        assert_eq!(later(&pair, 9), before + 2, "then not");
    }
    assert_eq!(later(&pair, 60), before + 3, "until a minute has gone by");
}

/// Where a payload is said to lie decides only where it is kept: whatever a primary says of it, files read as they are, and objects are what their
/// names say (checks G10).
#[test]
fn a_wrong_place_in_a_body_changes_nothing() {
    for wrong in [(1, 0), (1, 512 << 10), (2, 512 << 10), (2, 7), (u64::MAX, u64::MAX)] {
        let mut pair = Pair::new(96);
        let (ve, to) = (pair.primary.ve(), pair.replica.ve());
        ve.commit().unwrap();
        pair.ship();
        let ino = file(&ve, "a");
        let body: Vec<u8> = (0..2u32 << 20).map(|n| (n / 3) as u8).collect();
        for part in 0..4 {
            let at = part * (512 << 10);
            write(&ve, ino, at, &body[at..at + (512 << 10)]);
        }
        ve.commit().unwrap();
        let Feed::Txn(txn) = ve.feed(to.position().txn).unwrap() else { panic!("nothing to ship") };
        for (n, record) in txn.records.iter().enumerate() {
            if let Some(FeedPayload::Bulk(id, len)) = &record.payload {
                let bytes = ve.payload(*id, 0, *len as usize).unwrap();
                let right = ve.in_body(*id).unwrap().unwrap();
                let said = if n % 2 == 0 { InBody { body: wrong.0, offset: wrong.1 } } else { right };
                to.stage(*id, &bytes, Some(said)).unwrap();
            }
        }
        to.receive(&txn).unwrap();
        to.sync().unwrap();
        assert_eq!(to.read(ino, 0, body.len()).unwrap(), body, "{wrong:?}");
        assert_eq!(ve.housekeep(Duration::ZERO).unwrap(), 1);
        ve.commit().unwrap();
        pair.ship();
        pair.same();
        assert_eq!(objects(&pair.replica), objects(&pair.primary));
        assert_eq!(to.read(ino, 0, body.len()).unwrap(), body, "{wrong:?}");
    }
}

fn objects(side: &crate::pair::Side) -> Vec<Hash> {
    side.store.objects().list().unwrap()
}

fn file(ve: &vefs::Ve, name: &str) -> InodeNo {
    let owner = Owner { uid: 0, gid: 0, umask: 0 };
    let op = Op::Create { parent: InodeNo::ROOT, name: name.into(), mode: 0o100_644, owner, rdev: 0 };
    let vefs::op::Reply::Inode(ino, _) = ve.execute(&op, Request::default()).unwrap() else { panic!("no inode") };
    ino
}

fn write(ve: &vefs::Ve, ino: InodeNo, offset: usize, data: &[u8]) {
    let data = Bytes::copy_from_slice(data);
    ve.execute(&Op::Write { ino, offset: offset as u64, data, kill_priv: false }, Request::default()).unwrap();
}

fn written() -> (Pair, FeedTxn) {
    let mut pair = Pair::new(99);
    pair.write(50);
    pair.primary.ve().commit().unwrap();
    pair.ship();
    let ve = pair.primary.ve();
    let ino = file(&ve, "bulk");
    for offset in [0, 100_000] {
        write(&ve, ino, offset, &[offset as u8 + 1; 100_000]);
    }
    ve.commit().unwrap();
    let Feed::Txn(txn) = ve.feed(pair.replica.ve().position().txn).unwrap() else { panic!("nothing to ship") };
    (pair, txn)
}

/// Whatever of a transaction is not what its hashes say, the replica takes nothing of it, and takes the right one afterwards (checks G10).
#[test]
fn what_is_not_what_its_hashes_say_changes_nothing() {
    type Spoil = fn(&mut FeedTxn);
    let cases: [(&str, Spoil); 8] = [
        ("a body", |t| t.records[0].body = [&t.records[0].body[..], &[0]].concat().into()),
        ("a record less", |t| drop(t.records.pop())),
        ("another order", |t| t.records.swap(0, 1)),
        ("another chain", |t| t.position.chain = Hash([7; 32])),
        ("another epoch", |t| t.position.epoch = Epoch(9)),
        ("another predecessor", |t| t.previous = Hash([7; 32])),
        ("a seal", |t| t.seal = Bytes::from_static(&[1, 2, 3])),
        ("a payload of another id", |t| {
            for r in &mut t.records {
                if let Some(FeedPayload::Bulk(id, _)) = &mut r.payload {
                    id.offset += 1;
                }
            }
        }),
    ];
    let (pair, txn) = written();
    let (from, to) = (pair.primary.ve(), pair.replica.ve());
    let before = (to.position(), to.journal_position(), to.usage());
    for (what, spoil) in cases {
        stage(&from, &to, &txn);
        let mut bad = txn.clone();
        spoil(&mut bad);
        let refused = to.receive(&bad);
        assert!(matches!(refused, Err(ReceiveError::Corrupt { .. })), "{what}: {refused:?}");
        assert_eq!((to.position(), to.journal_position(), to.usage()), before, "{what}");
        to.unstage_all();
    }
    // Bytes that are not those of the hash.
    for record in &txn.records {
        if let Some(FeedPayload::Bulk(id, len)) = &record.payload {
            to.stage(*id, &vec![0; *len as usize], None).unwrap();
        }
    }
    assert!(matches!(to.receive(&txn), Err(ReceiveError::Corrupt { .. })));
    to.unstage_all();
    ship(&from, &to, &txn).unwrap();
    to.sync().unwrap();
    pair.same();
    // Twice is refused as well.
    assert!(matches!(ship(&from, &to, &txn), Err(ReceiveError::Corrupt { .. })));
    pair.same();
}

/// A node that follows takes no changes of its own, and what it had of a transaction without a seal is nothing after a restart.
#[test]
fn a_follower_is_written_by_its_primary_alone() {
    let (mut pair, _) = written();
    let ve = pair.replica.ve();
    let op = Op::Unlink { parent: InodeNo::ROOT, name: b"bulk".to_vec() };
    assert!(ve.execute(&op, Request::default()).is_err());
    assert!(ve.set_settings(ve.settings()).is_err());
    assert!(ve.hold("h", ve.position().txn, false, "me").is_err());
    assert_eq!(ve.housekeep(Duration::ZERO).unwrap(), 0);
    let before = ve.position();
    drop(ve);
    pair.replica.kill();
    assert_eq!(pair.replica.ve().position(), before, "a restart of a follower makes no epoch of its own");
}

/// Roles and epochs survive; a promotion's epoch is above all of the old primary's, and its history goes on at the fork (checks G10, G18, G21).
#[test]
fn a_replica_is_promoted_and_writes_on() {
    let (mut pair, txn) = written();
    ship(&pair.primary.ve(), &pair.replica.ve(), &txn).unwrap();
    pair.replica.ve().sync().unwrap();
    let ve = pair.replica.ve();
    ve.note_epoch(Epoch(5)).unwrap();
    ve.note_epoch(Epoch(3)).unwrap();
    drop(ve);
    pair.replica.kill();
    let ve = pair.replica.ve();
    assert_eq!(ve.epoch(), Epoch(5));
    let head = ve.position();
    assert!(ve.promote(Epoch(5)).is_err(), "an epoch that was seen");
    assert!(ve.promote_joined(Epoch(4)).is_err(), "an epoch below one that was seen");
    let role = ve.promote(ve.epoch().promoted()).unwrap();
    assert_eq!(
        (role.kind, role.epoch, role.fork.txn, role.fork.chain),
        (RoleKind::Primary, Epoch(1 << 32), head.txn, head.chain)
    );
    let op = Op::Unlink { parent: InodeNo::ROOT, name: b"bulk".to_vec() };
    ve.execute(&op, Request::default()).unwrap();
    ve.commit().unwrap();
    assert_eq!((ve.position().epoch, ve.position().txn), (Epoch(1 << 32), head.txn.next()));
    drop(ve);
    pair.replica.kill();
    let ve = pair.replica.ve();
    assert!(ve.is_writer());
    assert!(ve.epoch() >= Epoch(1 << 32));
    // The old primary comes back and would write: its epochs stay below.
    pair.primary.kill();
    let old = pair.primary.ve();
    assert!(old.epoch() < Epoch(1 << 32));
    old.step_down(RoleKind::Superseded, Epoch(1 << 32)).unwrap();
    assert!(old.execute(&op, Request::default()).is_err());
    drop(old);
    pair.primary.kill();
    assert!(!pair.primary.ve().is_writer());
    // It follows what was shipped so far and refuses a history that does not go on from its own.
    pair.primary.ve().step_down(RoleKind::Replica, Epoch(1 << 32)).unwrap();
    let Feed::Txn(next) = ve.feed(head.txn).unwrap() else { panic!("nothing to ship") };
    ship(&ve, &pair.primary.ve(), &next).unwrap();
}

/// What a cursor holds is there whatever was published, checkpointed and collected since; past its cap it says that it lost it (checks G33).
#[test]
fn cursors_hold_history_up_to_a_cap() {
    let mut pair = Pair::new(5);
    pair.write(300);
    pair.primary.store.tick().unwrap();
    let first = pair.replica.ve().position().txn;
    for _ in 0..30 {
        pair.write(100);
        pair.primary.store.tick().unwrap();
        pair.primary.store.checkpoint().unwrap();
        pair.primary.store.collect_garbage(&Retention { steps: vec![] }).unwrap();
    }
    assert!(matches!(pair.primary.ve().feed(first).unwrap(), Feed::Txn(_)));
    pair.primary.kill();
    pair.primary.store.checkpoint().unwrap();
    pair.ship();
    pair.primary.ve().commit().unwrap();
    pair.ship();
    pair.same();
    // Without the cursor the same history is given back.
    let shipped = pair.replica.ve().position().txn;
    pair.primary.ve().drop_cursor(crate::pair::NODE).unwrap();
    let slow = [9; 16];
    pair.primary.ve().set_cursor(slow, shipped).unwrap();
    let (before, _) = pair.primary.ve().journal_position();
    while pair.primary.ve().journal_position().0 - before < 20 << 20 {
        let ve = pair.primary.ve();
        for _ in 0..200 {
            let op = Op::Setxattr {
                ino: InodeNo::ROOT,
                name: b"user.k".to_vec(),
                value: vec![1; 4000],
                mode: vefs::op::XattrMode::Set,
            };
            ve.execute(&op, Request::default()).unwrap();
        }
        pair.primary.store.tick().unwrap();
    }
    pair.primary.store.checkpoint().unwrap();
    let cursors = pair.primary.ve().cursors();
    assert!(cursors.iter().any(|(n, c, _)| *n == slow && c.lost), "{cursors:?}");
    assert_eq!(pair.primary.ve().feed(shipped).unwrap(), Feed::Gone);
}

/// Positions of the past are known while the journal or a version's row has them, and never wrong.
#[test]
fn positions_of_the_past() {
    let mut pair = Pair::new(6);
    let mut seen = vec![];
    for _ in 0..20 {
        pair.write(20);
        pair.primary.ve().commit().unwrap();
        seen.push(pair.primary.ve().position());
        if seen.len() % 7 == 0 {
            pair.primary.store.checkpoint().unwrap();
            pair.primary.kill();
        }
    }
    let ve = pair.primary.ve();
    for p in &seen {
        assert_eq!(ve.position_at(p.txn).unwrap(), Known::Here(*p));
    }
    assert_eq!(ve.position_at(TxnNo(ve.position().txn.0 + 1)).unwrap(), Known::Beyond);
}

/// A follower comes back after its primary was killed, wherever the journal was given back up to. Three things went wrong: a segment that had been
/// given back still had its header, and a start took it for history, with a gap behind it that nothing could be read over; where the journal
/// begins right behind the follower, nobody knew its position any more; and the cursor that was set anew then lost its hold (checks G17).
#[test]
fn a_killed_primary_knows_its_follower() {
    for seed in 200..230 {
        let mut pair = Pair::new(seed);
        for round in 0..12 {
            pair.write(40);
            pair.primary.ve().commit().unwrap();
            let behind = round % 3 == 2;
            if !behind {
                pair.ship();
            }
            // No version's row helps.
            pair.primary.store.collect_garbage(&Retention { steps: vec![] }).unwrap();
            pair.primary.store.checkpoint().unwrap();
            pair.primary.kill();
            let (ve, at) = (pair.primary.ve(), pair.replica.ve().durable_position());
            assert_eq!(ve.position_at(at.txn).unwrap(), Known::Here(at), "seed {seed}, round {round}");
            ve.set_cursor(crate::pair::NODE, at.txn).unwrap();
            assert!(ve.cursors().iter().all(|(_, cursor, _)| !cursor.lost), "seed {seed}, round {round}");
            pair.ship();
            pair.is_a_version();
        }
        pair.same();
    }
}
