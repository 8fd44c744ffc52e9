use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use parking_lot::Mutex;

use super::*;
use crate::change::Settings;
use crate::errno::Errno;
use crate::ids::InodeNo;
use crate::limits;
use crate::op::{Op, Owner, Reply};
use crate::store::Store;
use crate::store::bed::in_memory;
use crate::types::mode;
use crate::ve::Request;

/// What a watcher was told.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Accepted(TxnNo, u64),
    Bulk(PayloadId, u64),
    Durable,
}

#[derive(Default)]
struct Script {
    told: Mutex<Vec<Told>>,
    verdict: Mutex<Option<Verdict>>,
}

impl Script {
    fn take(&self) -> Vec<Told> {
        std::mem::take(&mut self.told.lock())
    }
}

impl Watcher for Script {
    fn admit(&self, _bytes: u64) -> Verdict {
        self.verdict.lock().unwrap_or(Verdict::Go)
    }

    fn complete(&self) -> Verdict {
        self.admit(0)
    }

    fn accepted(&self, txn: TxnNo, bytes: u64) {
        self.told.lock().push(Told::Accepted(txn, bytes));
    }

    fn bulk(&self, id: PayloadId, len: u64) {
        self.told.lock().push(Told::Bulk(id, len));
    }

    fn durable(&self) {
        self.told.lock().push(Told::Durable);
    }
}

fn ve() -> (Arc<Store>, Arc<Ve>) {
    let (store, ve, _) = in_memory();
    let store = Arc::new(store);
    (store, ve)
}

fn create(ve: &Ve, name: &str) -> Result<InodeNo> {
    let parent = InodeNo::ROOT;
    let op = Op::Create { parent, name: name.into(), mode: mode::IFREG | 0o600, rdev: 0, owner: Owner::default() };
    match ve.execute(&op, Request::default())? {
        Reply::Inode(ino, _) => Ok(ino),
        other => panic!("{other:?}"),
    }
}

fn write(ve: &Ve, ino: InodeNo, len: usize) -> Result<()> {
    let op = Op::Write { ino, offset: 0, data: Bytes::from(vec![1; len]), kill_priv: false };
    ve.execute(&op, Request::default()).map(drop)
}

/// checks G14: no change is accepted, and none becomes durable, without a word to who measures the exposure.
#[test]
fn a_watcher_hears_of_every_change_and_of_what_is_durable() {
    let (_store, ve) = ve();
    ve.commit().unwrap();
    let script = Arc::new(Script::default());
    ve.set_watcher(Some(script.clone()));
    let txn = ve.position().txn.next();

    let ino = create(&ve, "f").unwrap();
    let told = script.take();
    assert!(matches!(told[..], [Told::Accepted(t, n)] if t == txn && n > 0), "{told:?}");

    write(&ve, ino, limits::INLINE_MAX - 1).unwrap();
    let told = script.take();
    assert!(matches!(told[..], [Told::Accepted(t, n)] if t == txn && n >= limits::INLINE_MAX as u64), "{told:?}");

    // Bulk is named before the record that needs it, by the id that the record uses.
    write(&ve, ino, limits::INLINE_MAX).unwrap();
    let told = script.take();
    let id = PayloadId { txn, offset: limits::INLINE_MAX as u64 - 1 };
    assert!(
        matches!(told[..], [Told::Bulk(i, n), Told::Accepted(t, m)] if i == id && n == limits::INLINE_MAX as u64 && t == txn && m > n),
        "{told:?}"
    );

    // What changes nothing, or was refused, is no change.
    assert!(matches!(create(&ve, "f"), Err(Error::Posix(Errno::EEXIST))));
    assert_eq!(script.take(), []);

    // A flush of an open transaction makes nothing durable that could be shipped; a sealed one does.
    ve.sync().unwrap();
    assert_eq!(script.take(), []);
    ve.commit().unwrap();
    assert_eq!(script.take(), [Told::Durable]);
    ve.commit().unwrap();
    assert_eq!(script.take(), []);

    ve.set_settings(Settings::default()).unwrap();
    let told = script.take();
    assert!(matches!(told[..], [Told::Accepted(..), Told::Durable]), "{told:?}");

    ve.set_watcher(None);
    create(&ve, "g").unwrap();
    assert_eq!(script.take(), []);
}

/// checks G14: housekeeping is no exposure, but its bulk bytes have to be sent as well.
#[test]
fn housekeeping_is_told_by_its_bulk_only() {
    let (_store, ve) = ve();
    let ino = create(&ve, "f").unwrap();
    // From the end on: pieces whose payload ids follow each other would be one already.
    for n in (0..20).rev() {
        let data = Bytes::from(vec![n as u8; 40 << 10]);
        ve.execute(&Op::Write { ino, offset: n * (40 << 10), data, kill_priv: false }, Request::default()).unwrap();
    }
    let script = Arc::new(Script::default());
    ve.set_watcher(Some(script.clone()));
    assert!(ve.coalesce(ino).unwrap());
    let told = script.take();
    assert!(!told.is_empty() && told.iter().all(|t| matches!(t, Told::Bulk(..))), "{told:?}");
}

/// checks G20
#[test]
fn a_fenced_ve_takes_no_change_and_wakes_who_waits() {
    let (_store, ve) = ve();
    let ino = create(&ve, "f").unwrap();
    let woken = Arc::new(AtomicU64::new(0));
    let counter = woken.clone();
    ve.set_waker(Some(Box::new(move || _ = counter.fetch_add(1, Ordering::Relaxed))));
    assert_eq!((ve.admit(1), ve.complete()), (Verdict::Go, Verdict::Go));

    ve.fence("its lease ended");
    assert_eq!(woken.load(Ordering::Relaxed), 1);
    assert_eq!((ve.admit(1), ve.complete()), (Verdict::Fenced, Verdict::Fenced));
    let refused = |done: Result<()>| match done {
        Err(e @ Error::ReadOnly { .. }) => {
            assert_eq!(e.to_errno(), Errno::EROFS);
            assert!(e.to_string().contains("its lease ended"), "{e}");
        }
        other => panic!("{other:?}"),
    };
    refused(create(&ve, "g").map(drop));
    refused(write(&ve, ino, 10));
    refused(ve.set_settings(Settings::default()));
    assert_eq!(ve.housekeep(Duration::ZERO).unwrap(), 0);

    // What was accepted before becomes a version and durable, and can be read.
    let before = ve.position().txn;
    ve.commit().unwrap();
    assert_eq!(ve.position().txn, before.next());
    assert!(ve.inode(ino).is_ok());

    ve.unfence();
    assert_eq!(ve.fenced(), None);
    create(&ve, "g").unwrap();
}

/// checks G16: the verdict is the watcher's, and a delay is no answer to the question whether something may be answered.
#[test]
fn a_watcher_s_verdicts_come_through() {
    let (_store, ve) = ve();
    let script = Arc::new(Script::default());
    ve.set_watcher(Some(script.clone()));
    let delay = Verdict::Delay(Duration::from_secs(1));
    for (said, admit, complete) in [
        (Verdict::Go, Verdict::Go, Verdict::Go),
        (delay, delay, Verdict::Go),
        (Verdict::Wait, Verdict::Wait, Verdict::Wait),
    ] {
        *script.verdict.lock() = Some(said);
        assert_eq!((ve.admit(1), ve.complete()), (admit, complete));
    }
    ve.fence("test");
    assert_eq!(ve.admit(1), Verdict::Fenced);
    ve.unfence();
    assert_eq!(ve.admit(1), Verdict::Wait);
}
