use std::time::Duration;

use super::*;
use crate::store::bed::{self, VE};

/// A VE with a file that is an object, which nothing else names.
fn sealed() -> (Store, Hash) {
    let (store, ve, _) = bed::in_memory();
    let ino = bed::create(&ve, "f");
    bed::write(&ve, ino, 0, vec![7; 1 << 20]).unwrap();
    assert_eq!(ve.housekeep(Duration::ZERO).unwrap(), 1);
    ve.publish().unwrap();
    let hash = Hash::of(&vec![7; 1 << 20]);
    assert!(store.objects_in_use().unwrap().contains(&hash));
    (store, hash)
}

/// A collection looked at the VEs that were open. One that was just being opened anew, or replaced, lost the objects that only it named (checks G26).
#[test]
fn a_ve_that_is_being_opened_anew_keeps_its_objects() {
    let (store, hash) = sealed();
    let mut claim = store.ves.seize(VE);
    claim.gone();
    std::thread::scope(|scope| {
        let used = scope.spawn(|| store.objects_in_use().unwrap());
        std::thread::sleep(Duration::from_millis(50));
        drop(claim);
        assert!(used.join().unwrap().contains(&hash));
    });
}

/// One that closed in the middle of a collection and does not open: what it names is not known.
#[test]
fn no_object_goes_while_a_ve_does_not_open() {
    let (store, hash) = sealed();
    store.ves.seize(VE).gone();
    let role = crate::ve::role::path(VE);
    crate::store::files::write_whole(&**store.storage(), &role, &[0; 128]).unwrap();
    assert!(store.known_uses().is_none() && !store.condemn_objects().unwrap());
    let done = store.collect_garbage(&Retention::default()).unwrap();
    assert_eq!((done.skipped, done.objects), (1, 0));
    assert!(store.objects().contains(hash).unwrap());

    store.storage().remove(&role).unwrap();
    let ve = store.ve(VE).unwrap();
    assert_eq!(store.collect_garbage(&Retention::default()).unwrap().objects, 0);
    let ino = ve.lookup(crate::ids::InodeNo::ROOT, b"f").unwrap().0.ino;
    assert_eq!(ve.read(ino, 0, 1 << 20).unwrap(), vec![7; 1 << 20]);
}

/// One VE's identity, or a branch of it, cannot be read: the others got none of their space back, since nobody knew which base trees are in use (checks G33).
#[test]
fn what_cannot_be_read_of_one_ve_ends_no_collection() {
    let (store, bad, clock) = bed::in_memory();
    let good = bed::create_ve(&store, crate::ids::VeId(8));
    let ino = bed::create(&good, "f");
    let write = || {
        for n in 0..20u8 {
            bed::write(&good, ino, 0, vec![n; 70_000]).unwrap();
            good.commit().unwrap();
            clock.advance(Duration::from_secs(10));
        }
        good.publish().unwrap();
    };
    let collects = || {
        let before = good.versions().unwrap().len();
        let retention = Retention { steps: vec![(1, 0)] };
        let done = store.collect_garbage(&retention).unwrap();
        (done.skipped, done.trees, done.ves.versions > 0, good.versions().unwrap().len() < before)
    };
    write();
    let branch = crate::store::slots::branch_path(VE, "old");
    let put = |path: &str| crate::store::files::write_whole(&**store.storage(), path, &[0; 128]).unwrap();
    put(&branch);
    assert_eq!(collects(), (1, 0, true, true));
    write();
    drop(bad);
    store.ves.seize(VE).gone();
    put(&crate::store::identity_path(VE));
    assert_eq!(collects(), (2, 0, true, true));
}
