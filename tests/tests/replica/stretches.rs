//! A whole state goes over by questions and answers, without a wire between: what both sides have in common stays where it is.

use std::sync::Arc;
use std::time::Duration;

use aspfs_replica::catchup::{Action, Answer, Puller, Serving};
use aspfs_replica::local::{HeldStates, LocalInstall, LocalSource};
use aspfs_replica::node::NodeId;
use aspfs_tests::harness::create_ve;
use bytes::Bytes;
use vefs::Ve;
use vefs::clock::{Clock, SystemClock};
use vefs::ids::{Epoch, InodeNo, Position};
use vefs::op::{Op, Owner, Reply};
use vefs::types::mode;
use vefs::ve::Request;

use crate::pair::{NODE, Pair, Side, VE};

/// What a pull did.
#[derive(Debug)]
struct Pulled {
    asked: u64,
    rows: u64,
    /// Rows that were here.
    kept: u64,
    /// Bytes of all answers.
    sent: u64,
}

fn pull(from: &Side, to: &Side, have: Position, branch: Option<&str>) -> Pulled {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let held = Arc::new(HeldStates::default());
    let mut source = LocalSource::new(from.store.clone(), clock, held);
    let mut install = LocalInstall::new(to.store.clone(), VE, from.ve().epoch(), branch.map(str::to_owned));
    let mut machine = Puller::new(VE, from.ve().identity().lineage, have);
    let mut sent = 0;
    for now in (0..).map(Duration::from_millis) {
        match machine.poll(&mut install, now) {
            Action::Ask(number, ask) => {
                let mut serving = Serving::new(NodeId(NODE), ask);
                while let Some(answer) = serving.next(&mut source) {
                    let blob = answer.encode(false);
                    sent += blob.len() as u64;
                    let answer = Answer::decode(&blob).unwrap();
                    assert_eq!(machine.answer(&mut install, number, answer, now), None);
                }
            }
            Action::Again | Action::Installed(_) => {}
            Action::Over => break,
            other => panic!("{other:?}"),
        }
    }
    let progress = machine.progress();
    Pulled { asked: progress.asked, rows: progress.rows, kept: progress.kept, sent }
}

fn create(ve: &Ve, name: &str) -> InodeNo {
    let (parent, owner) = (InodeNo::ROOT, Owner::default());
    let op = Op::Create { parent, name: name.into(), mode: mode::IFREG | 0o755, owner, rdev: 0 };
    let Reply::Inode(ino, _) = ve.execute(&op, Request::default()).unwrap() else { panic!("no inode") };
    ino
}

fn write(ve: &Ve, ino: InodeNo, offset: u64, byte: u8, len: usize) {
    let op = Op::Write { ino, offset, data: Bytes::from(vec![byte; len]), kill_priv: false };
    ve.execute(&op, Request::default()).unwrap();
}

/// A replica that is behind by a little gets the rows in which the states differ, those that came, those that went, and no others.
#[test]
fn only_rows_that_differ_travel() {
    let mut pair = Pair::new(21);
    let ve = pair.primary.ve();
    let files: Vec<InodeNo> = (0..3000).map(|n| create(&ve, &format!("file-{n}"))).collect();
    for (n, ino) in files.iter().enumerate() {
        write(&ve, *ino, 0, n as u8, 500);
    }
    ve.commit().unwrap();
    pair.ship();
    for n in [700, 701, 2999] {
        ve.execute(&Op::Unlink { parent: InodeNo::ROOT, name: format!("file-{n}").into_bytes() }, Request::default())
            .unwrap();
    }
    write(&ve, files[1500], 200, 0xFF, 10);
    let new = create(&ve, "new");
    write(&ve, new, 0, 1, 100_000);
    ve.commit().unwrap();
    let have = pair.replica.ve().position();
    let pulled = pull(&pair.primary, &pair.replica, have, None);
    assert!(pulled.rows > 9000 && pulled.kept * 4 > pulled.rows * 3, "{pulled:?}");
    assert!(pulled.sent < 100_000 + 200_000, "{pulled:?}");
    pair.same();
    drop(ve);
    pair.replica.kill();
    pair.write(50);
    pair.primary.ve().commit().unwrap();
    pair.ship();
    pair.same();
}

/// After a fork both sides number their payloads alike: rows that name other bytes look the same. The bytes that are here are not taken for the
/// writer's (checks G22, G23).
#[test]
fn rows_alike_that_name_other_bytes_come_over() {
    let mut pair = Pair::new(22);
    let old = pair.primary.ve();
    let ino = create(&old, "file");
    old.commit().unwrap();
    pair.ship();
    let new = pair.replica.ve();
    new.promote(new.epoch().promoted()).unwrap();
    // Pieces that do not touch each other: so many rows that a stretch has nothing else in it.
    for (ve, byte) in [(&old, b'o'), (&new, b'n')] {
        for piece in 0..2000 {
            write(ve, ino, piece * 8192, byte, 100);
        }
        ve.commit().unwrap();
    }
    assert_eq!(old.position().txn, new.position().txn, "the tails are not alike");
    let have = old.position();
    drop(old);
    let pulled = pull(&pair.replica, &pair.primary, have, Some("tail"));
    assert!(pulled.rows > 2000, "{pulled:?}");
    let got = pair.primary.ve();
    assert_eq!(got.position(), new.position());
    for piece in [0, 1, 999, 1999] {
        assert_eq!(got.read(ino, piece * 8192, 100).unwrap().as_slice(), [b'n'; 100]);
    }
    let branch = pair.primary.store.branch(VE, "tail").unwrap();
    assert_eq!(branch.read(ino, 8192, 100).unwrap().as_slice(), [b'o'; 100]);
}

/// A thousand small objects are one question, and are all there after it, whatever happens then.
#[test]
fn objects_are_asked_for_together() {
    let (from, mut to) = (Side::new(23), Side::new(24));
    let ve = create_ve(&from.store, VE.0, 1 << 30, 10_000).unwrap();
    // Executables from 64 KiB on are worth an object.
    let files: Vec<InodeNo> = (0..1500).map(|n| create(&ve, &format!("file-{n}"))).collect();
    for (n, ino) in files.iter().enumerate() {
        write(&ve, *ino, 0, 0, 70_000);
        write(&ve, *ino, 0, 1, n % 256 + 1);
        write(&ve, *ino, 60_000, 2, n / 256 + 1);
    }
    ve.commit().unwrap();
    ve.housekeep(Duration::ZERO).unwrap();
    ve.commit().unwrap();
    let named: std::collections::BTreeSet<_> =
        ve.manifest().unwrap().1.page(None, None, usize::MAX).unwrap().objects.into_iter().collect();
    assert!(named.len() >= 1400, "{} objects", named.len());
    let pulled = pull(&from, &to, Position { lineage: ve.identity().lineage, ..Position::default() }, None);
    assert!(pulled.asked < 40, "{pulled:?}");
    to.kill();
    for hash in named {
        assert!(to.store.objects().contains(hash).unwrap(), "{hash}");
    }
    for (n, ino) in files.iter().enumerate() {
        let bytes = to.ve().read(*ino, 59_999, 2).unwrap();
        assert_eq!(bytes.as_slice(), [0, 2], "file {n}");
    }
    assert_eq!(to.ve().epoch(), Epoch(1));
}
