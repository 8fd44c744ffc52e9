use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::ids::InodeNo;
use crate::op::{Op, Owner, Reply};
use crate::store::Store;
use crate::store::bed::in_memory;
use crate::types::mode;
use crate::ve::Request;

fn store() -> (Store, Arc<Ve>) {
    let (store, ve, _) = in_memory();
    (store, ve)
}

fn create(ve: &Ve, name: &str) -> InodeNo {
    let parent = InodeNo::ROOT;
    let op = Op::Create { parent, name: name.into(), mode: mode::IFREG | 0o600, rdev: 0, owner: Owner::default() };
    let Reply::Inode(ino, _) = ve.execute(&op, Request::default()).unwrap() else { panic!("no inode") };
    let op = Op::Write { ino, offset: 0, data: Bytes::from(name.to_owned()), kill_priv: false };
    ve.execute(&op, Request::default()).unwrap();
    ino
}

fn ticks(store: &Store, n: u32) {
    (0..n).for_each(|_| store.tick().unwrap());
}

/// What a node with a thousand quiet VEs kept of each: the state of its busiest minute, unpublished, and what it had looked up.
#[test]
fn a_quiet_ve_keeps_little_and_loses_nothing() {
    let (store, ve) = store();
    let files: Vec<InodeNo> = (0..200).map(|n| create(&ve, &format!("f{n}"))).collect();
    ticks(&store, PERIOD);
    // Written in this period: more than a little is unpublished, but it may go on.
    assert!(ve.overlay_bytes() > KEPT);
    store.housekeep(Duration::from_secs(3600)).unwrap();
    assert!(ve.overlay_bytes() > KEPT);
    (0..=2048).for_each(|n| assert!(ve.lookup(InodeNo::ROOT, format!("g{n}").as_bytes()).is_err()));
    assert!(ve.state.lock().tables.forget_found() > 0);
    ve.lookup(InodeNo::ROOT, b"none").unwrap_err();

    ticks(&store, 2 * PERIOD);
    store.housekeep(Duration::from_secs(3600)).unwrap();
    assert_eq!(ve.overlay_bytes(), 0);
    assert!(store.take_given_back() > 0);
    let mut s = ve.state.lock();
    assert_eq!((s.tables.forget_found(), s.tables.shrink()), (0, 0));
    drop(s);
    for (n, ino) in files.iter().enumerate() {
        let name = format!("f{n}");
        assert_eq!(ve.lookup(InodeNo::ROOT, name.as_bytes()).unwrap().0.ino, *ino);
        assert_eq!(ve.read(*ino, 0, 10).unwrap(), name.as_bytes());
    }
}

/// A VE that writes a line now and then is never quiet, and must not fill memory for that.
#[test]
fn a_ve_that_always_writes_a_little_has_a_bound() {
    let (store, ve) = store();
    let mut most = 0;
    for n in 0..4000 {
        create(&ve, &format!("f{n}"));
        if n % 4 == 0 {
            ticks(&store, 1);
            store.housekeep(Duration::from_secs(3600)).unwrap();
        }
        most = most.max(ve.overlay_bytes());
    }
    assert!(most > KEPT_WRITING && most < 2 * KEPT_WRITING, "{most}");
}

/// One that is busy is left alone.
#[test]
fn what_a_busy_ve_has_looked_up_stays() {
    let (store, ve) = store();
    for n in 0..PERIOD * 3 {
        (0..ASKED).for_each(|k| drop(ve.lookup(InodeNo::ROOT, format!("{n}-{k}").as_bytes())));
        store.tick().unwrap();
    }
    assert_eq!(store.take_given_back(), 0);
    assert!(ve.state.lock().tables.forget_found() > 0);
}
