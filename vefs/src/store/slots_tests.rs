use std::io::ErrorKind;

use super::*;
use crate::ids::{InodeNo, TxnNo};
use crate::meta::MemoryMeta;
use crate::storage::cut::CutStorage;
use crate::storage::fault::{Call, FaultPlan, FaultStorage};
use crate::store::bed::{self, VE};

/// A primary with four transactions, and a follower on a disk that fails by plan and can be cut off. It has flushed the first one, and has the second
/// and the third in its page cache.
struct Pair {
    primary: Arc<Ve>,
    disk: Arc<CutStorage>,
    plan: Arc<FaultPlan>,
    meta: Arc<MemoryMeta>,
    store: Store,
    _from: Store,
}

impl Pair {
    fn new() -> Pair {
        let (from, primary, _) = bed::in_memory();
        let (disk, plan) = (Arc::new(CutStorage::default()), FaultPlan::new());
        let meta = Arc::new(MemoryMeta::default());
        let store = bed::on(Arc::new(FaultStorage::new(disk.clone(), plan.clone())), meta.clone());
        let follower = bed::create_follower(&store, &primary);
        for n in 0..3u8 {
            let ino = bed::create(&primary, &format!("f{n}"));
            bed::write(&primary, ino, 0, vec![n; 1000]).unwrap();
            bed::write(&primary, ino, 1000, vec![n; 100_000]).unwrap();
            primary.commit().unwrap();
        }
        assert_eq!(primary.position().txn, TxnNo(4));
        (0..3).for_each(|n| {
            assert!(bed::ship(&primary, &follower).unwrap());
            if n == 0 {
                follower.sync().unwrap();
            }
        });
        Pair { primary, disk, plan, meta, store, _from: from }
    }
}

/// A follower was opened anew after a failed write, took what it read for durable, and told its primary so; a power cut showed that it had lain in
/// the page cache alone (checks G11).
#[test]
fn what_a_reopened_follower_calls_durable_outlives_the_power() {
    let p = Pair::new();
    let old = p.store.ve(VE).unwrap();
    p.plan.fail(Call::Write, 3, ErrorKind::StorageFull);
    bed::ship(&p.primary, &old).unwrap_err();
    assert!(old.read_only_reason().is_some());

    let new = p.store.reopen_follower(VE).unwrap();
    let durable = new.durable_position();
    assert_eq!(durable.txn, TxnNo(3));
    let left = bed::again(Arc::new(p.disk.after_cut()), Arc::new(p.meta.after_crash()));
    assert_eq!(left.ve(VE).unwrap().position(), durable);
    // And it goes on.
    assert!(bed::ship(&p.primary, &new).unwrap());
    new.sync().unwrap();
    assert_eq!(new.durable_position(), p.primary.position());
}

/// After a failed flush the kernel takes pages for written that are not: a follower that had one was opened anew from them (checks G3).
#[test]
fn a_follower_whose_flush_failed_is_not_opened_anew() {
    let p = Pair::new();
    let old = p.store.ve(VE).unwrap();
    p.plan.fail(Call::Sync, 1, ErrorKind::Other);
    old.sync().unwrap_err();
    assert!(matches!(p.store.reopen_follower(VE), Err(Error::ReadOnly { .. })));
    // One that fails on the way tells as well.
    let p = Pair::new();
    p.store.ve(VE).unwrap().state.lock().journal.poison("for the test".into());
    p.plan.fail(Call::Sync, 1, ErrorKind::Other);
    (0..2).for_each(|_| assert!(matches!(p.store.reopen_follower(VE), Err(Error::ReadOnly { .. }))));
}

/// A thread that was about to publish a follower did so after it had been opened anew, into extent files that the new instance numbers itself: one
/// emptied the other's.
#[test]
fn what_was_frozen_is_not_published_behind_a_new_instance() {
    let p = Pair::new();
    let old = p.store.ve(VE).unwrap();
    assert!(old.state.lock().freeze());
    old.state.lock().journal.poison("for the test".into());
    let new = p.store.reopen_follower(VE).unwrap();
    let files = || p.disk.uncut().files().into_iter().map(|(path, content)| (path, content.len())).collect::<Vec<_>>();
    let before = files();
    old.publish_pending().unwrap_err();
    assert_eq!(files(), before);
    new.publish().unwrap();
}

/// A follower was promoted while a whole state of the former primary's was about to be put in its place: that erased what the new primary had acknowledged
/// (checks G9, G11). The promotion stands, whenever it came, and what was being made goes.
#[test]
fn a_promotion_is_not_overwritten_by_a_state_of_before_it() {
    let p = Pair::new();
    let (ve, store) = (p.store.ve(VE).unwrap(), Arc::new(p.store));
    let install = bed::install(&store, &p.primary);
    ve.promote(Epoch(2)).unwrap();
    let ino = bed::create(&ve, "acknowledged");
    bed::write(&ve, ino, 0, vec![9; 1000]).unwrap();
    ve.sync().unwrap();
    let (slot, role) = (ve.slot(), ve.role());
    let refused = install.finish(Epoch(1), Some("old")).map(drop).unwrap_err().to_string();
    assert!(refused.contains("is written here in epoch 2"), "{refused}");
    // The last moment is the same.
    ve.retire("for the test", Epoch(1)).unwrap_err();
    assert!(ve.read_only_reason().is_none() && Arc::ptr_eq(&ve, &store.ve(VE).unwrap()));
    assert!(store.under_way(VE).unwrap().is_none() && store.branch_names(VE).unwrap().is_empty());
    bed::create(&ve, "more");
    ve.sync().unwrap();
    let left = bed::again(Arc::new(p.disk.after_cut()), Arc::new(p.meta.after_crash()));
    let ve = left.ve(VE).unwrap();
    assert_eq!((ve.slot(), ve.role()), (slot, role));
    assert_eq!(ve.read(ino, 0, 1000).unwrap(), [9; 1000]);
    ve.lookup(InodeNo::ROOT, b"more").unwrap();
    // One that comes from a node which has seen the promotion is let in.
    ve.step_down(RoleKind::Replica, Epoch(3)).unwrap();
    assert_eq!(bed::pull(&Arc::new(left), &p.primary, None).epoch(), Epoch(3));
}

/// A crash behind the branch's file and before the identity left a branch that was the present state: whoever removed it, or the next start where it was there
/// for mounts, erased the VE (checks G23).
#[test]
fn a_branch_that_a_crash_left_does_not_take_the_ve_with_it() {
    let mut half = 0;
    for (calls, branch) in (0..).flat_map(|calls| [(calls, Some("old")), (calls, None)]) {
        let p = Pair::new();
        let (old, store) = (p.store.ve(VE).unwrap(), Arc::new(p.store));
        drop(old.hold_mounted("kept", old.position().txn).unwrap());
        let install = bed::install(&store, &p.primary);
        p.plan.die_after(calls);
        let done = install.finish(Epoch(1), branch).is_ok();
        for left in [p.disk.uncut(), p.disk.after_cut()] {
            let meta = Arc::new(p.meta.after_crash());
            let left = Arc::new(left);
            let again = bed::again(left.clone(), meta.clone());
            let files = again.branch_files(VE).unwrap();
            let named = again.branch_names(VE).unwrap();
            half += usize::from(files != named);
            again.release_unmounted(|_, _| false).unwrap();
            again.open_branches().unwrap();
            for name in again.branch_files(VE).unwrap() {
                again.remove_branch(VE, &name).unwrap();
            }
            assert!(again.branch_files(VE).unwrap().is_empty());
            again.persist().unwrap();
            drop(again);
            let ve = bed::again(left, meta).ve(VE).unwrap();
            let ino = ve.lookup(InodeNo::ROOT, b"f0").unwrap().0.ino;
            assert_eq!(ve.read(ino, 1000, 1000).unwrap(), [0; 1000]);
        }
        if done {
            break;
        }
    }
    assert!(half > 2, "{half}");
}

/// A second state that was put aside under a name took it from the first one, which nobody found again (checks G22).
#[test]
fn two_states_that_are_put_aside_under_one_name_both_stay() {
    let p = Pair::new();
    let store = Arc::new(p.store);
    let first = store.ve(VE).unwrap().slot();
    let second = bed::pull(&store, &p.primary, Some("differs")).slot();
    let third = bed::pull(&store, &p.primary, Some("differs")).slot();
    assert_eq!(store.branch_names(VE).unwrap(), ["differs", "differs-2"]);
    let slot = |name| store.read_branch(VE, name).unwrap().unwrap().slot;
    assert_eq!((slot("differs"), slot("differs-2"), store.ve(VE).unwrap().slot()), (first, second, third));
    // The second one came whole, and went before anything followed it: it has no journal. That was taken for damage, and every collection ended there.
    let position = |name| store.branch(VE, name).unwrap().position();
    assert_eq!((position("differs").txn, position("differs-2")), (TxnNo(3), store.ve(VE).unwrap().position()));
    let reclaimed = store.collect_garbage(&crate::ve::Retention::default()).unwrap();
    assert_eq!(reclaimed.skipped, 0);
}
