use std::io::ErrorKind;
use std::sync::Arc;

use super::*;
use crate::ids::InodeNo;
use crate::meta::{MemoryMeta, Table};
use crate::storage::Storage;
use crate::storage::cut::CutStorage;
use crate::storage::fault::{Call, FaultPlan, FaultStorage};
use crate::store::bed::{self, VE};
use crate::ve::Ve;

const TABLES: [Table; 5] = [Table::Current, Table::History, Table::Changes, Table::Places, Table::System];

struct Bed {
    disk: Arc<CutStorage>,
    plan: Arc<FaultPlan>,
    meta: Arc<MemoryMeta>,
    store: Arc<Store>,
    lineage: Lineage,
}

impl Bed {
    /// A follower with a branch, a note, and a state to come.
    fn new(primary: &Arc<Ve>) -> Bed {
        let (disk, plan, meta) = (Arc::new(CutStorage::default()), FaultPlan::new(), Arc::new(MemoryMeta::default()));
        let store = bed::on(Arc::new(FaultStorage::new(disk.clone(), plan.clone())), meta.clone());
        let store = Arc::new(store);
        let old = bed::create_follower(&store, primary);
        while bed::ship(primary, &old).unwrap() {}
        old.sync().unwrap();
        let new = bed::pull(&store, primary, Some("old"));
        assert!(store.branch(VE, "old").unwrap().slot() == old.slot() && new.slot() != old.slot());
        new.publish().unwrap();
        let lineage = primary.identity().lineage;
        store.put_note(lineage, Kind::ALL[0], b"a note").unwrap();
        let (mut manifest, _) = primary.manifest().unwrap();
        manifest.root = crate::ids::Hash([1; 32]);
        drop(store.install(VE, manifest).unwrap());
        store.persist().unwrap();
        disk.sync_all().unwrap();
        Bed { disk, plan, meta, store, lineage }
    }
}

/// Nothing happened to it, or nothing is left of it.
fn is_whole_or_gone(store: &Store, meta: &MemoryMeta, lineage: Lineage) -> bool {
    is_whole_or_erased(store, meta, lineage, Mark::Ve)
}

fn is_whole_or_erased(store: &Store, meta: &MemoryMeta, lineage: Lineage, mark: Mark) -> bool {
    if store.has_ve(VE) {
        assert!(!store.is_buried(lineage));
        let ve = store.ve(VE).unwrap();
        let ino = ve.lookup(InodeNo::ROOT, b"f").unwrap().0.ino;
        assert_eq!(ve.read(ino, 0, 100).unwrap(), [7; 100]);
        store.branch(VE, "old").unwrap().lookup(InodeNo::ROOT, b"f").unwrap();
        return true;
    }
    assert_eq!(store.is_buried(lineage), mark == Mark::Ve, "it would come back from a replica, or go there");
    assert_eq!((store.list().unwrap(), store.notes().unwrap()), (vec![], if mark == Mark::Ve { 0 } else { 1 }));
    let storage = store.storage();
    for slot in storage.list("ves").unwrap() {
        for dir in ["", "/journal", "/extents", "/branches"] {
            let mut left = storage.list(&format!("ves/{slot}{dir}")).unwrap();
            left.retain(|name| !["journal", "extents", "branches"].contains(&name.as_str()) && !name.ends_with(".new"));
            assert!(left.is_empty(), "{left:?} in ves/{slot}{dir}");
        }
    }
    TABLES.iter().for_each(|table| assert_eq!(meta.rows(*table), 0, "{table:?}"));
    false
}

/// A VE was destroyed identity first and tombstone last: a crash in between left none, its replica brought it back, and its rows and files stayed for
/// ever where they had a slot of their own (checks G34). Whatever the step: it is whole, or gone.
#[test]
fn a_crash_in_the_middle_of_a_destruction_leaves_a_ve_whole_or_gone() {
    let (whole, gone) = crash_at_every_step(Mark::Ve);
    assert!(whole > 4 && gone > 20, "{whole} {gone}");
}

/// Whoever erased his copy of a VE buried its lineage: asked by another replica he said that it was destroyed, and that one erased its own. Whatever the
/// step at which that is interrupted, nobody is told so, what was promised others holds, and the VE can come again (checks G34).
#[test]
fn a_crash_while_a_copy_is_erased_leaves_it_whole_or_gone_and_tells_nobody() {
    let (whole, gone) = crash_at_every_step(Mark::Copy);
    assert!(whole > 4 && gone > 20, "{whole} {gone}");
}

fn crash_at_every_step(mark: Mark) -> (i32, i32) {
    let (_from, primary, _) = bed::in_memory();
    let ino = bed::create(&primary, "f");
    bed::write(&primary, ino, 0, vec![7; 100_100]).unwrap();
    primary.commit().unwrap();
    let check = |store: &Store, meta: &MemoryMeta, lineage| {
        let is_whole = is_whole_or_erased(store, meta, lineage, mark);
        if !is_whole && mark == Mark::Copy {
            let again = bed::create_follower(store, &primary);
            assert!(store.storage().list(TOMBSTONES).unwrap().iter().all(|name| name.ends_with(".new")));
            assert!(bed::ship(&primary, &again).unwrap());
        }
        is_whole
    };
    let (mut whole, mut gone) = (0, 0);
    for calls in 0.. {
        let bed = Bed::new(&primary);
        bed.plan.die_after(calls);
        let done = bed.store.destroy(VE, mark).is_ok();
        for left in [bed.disk.uncut(), bed.disk.after_cut()] {
            let meta = Arc::new(bed.meta.after_crash());
            let store = bed::again(Arc::new(left), meta.clone());
            let is_whole = check(&store, &meta, bed.lineage);
            assert!(!done || !is_whole);
            *(if is_whole { &mut whole } else { &mut gone }) += 1;
        }
        bed.plan.heal();
        if done {
            return (whole, gone);
        }
        // Nor need anybody start again: the same store goes on.
        if bed.store.has_ve(VE) {
            bed.store.destroy(VE, mark).unwrap();
        }
        assert!(!check(&bed.store, &bed.meta, bed.lineage));
    }
    unreachable!()
}

/// The word that a VE was destroyed counts also where its copy is being erased, and the other way round nothing takes it back.
#[test]
fn what_was_destroyed_for_good_stays_so() {
    let (_from, primary, _) = bed::in_memory();
    let ino = bed::create(&primary, "f");
    bed::write(&primary, ino, 0, vec![7; 100_100]).unwrap();
    primary.commit().unwrap();
    for (first, then) in [(Mark::Copy, Mark::Ve), (Mark::Ve, Mark::Copy)] {
        let bed = Bed::new(&primary);
        bed.plan.fail_from(Call::Remove, 3, ErrorKind::Other);
        bed.store.destroy(VE, first).unwrap_err();
        bed.plan.heal();
        assert!(bed.store.has_ve(VE) && bed.store.ve(VE).is_err());
        match then {
            Mark::Ve => bed.store.bury_ve(VE, bed.lineage).unwrap(),
            Mark::Copy => bed.store.destroy_copy(VE).unwrap(),
        }
        assert!(!is_whole_or_gone(&bed.store, &bed.meta, bed.lineage));
    }
}

/// A state that was being made when the copy was erased is not put in its place: its slot is erased.
#[test]
fn what_was_being_made_of_an_erased_copy_is_not_put_in_its_place() {
    let (_from, primary, _) = bed::in_memory();
    bed::create(&primary, "f");
    primary.commit().unwrap();
    let bed = Bed::new(&primary);
    let store = Arc::new(bed.store);
    let install = bed::install(&store, &primary);
    store.destroy_copy(VE).unwrap();
    assert!(install.finish(crate::ids::Epoch(1), None).is_err());
    assert!(!store.has_ve(VE));
    bed::pull(&store, &primary, None).lookup(InodeNo::ROOT, b"f").unwrap();
}

/// What is left of a VE whose destruction failed half-way is not opened, and is made by nobody, under this name or another.
#[test]
fn a_half_destroyed_ve_is_not_opened() {
    let (_from, primary, _) = bed::in_memory();
    let ino = bed::create(&primary, "f");
    bed::write(&primary, ino, 0, vec![7; 100_100]).unwrap();
    primary.commit().unwrap();
    let bed = Bed::new(&primary);
    // The notes are gone by then, and nothing else.
    bed.plan.fail_from(Call::Remove, 3, ErrorKind::Other);
    bed.store.destroy_ve(VE).unwrap_err();
    bed.plan.heal();
    assert!(bed.store.has_ve(VE) && bed.store.is_buried(bed.lineage));
    assert!(bed.store.ve(VE).is_err());
    bed.store.destroy_ve(VE).unwrap();
    let base = primary.identity().base;
    assert!(bed.store.create_follower(VE, bed.lineage, base, crate::ids::Epoch(1)).is_err());
    assert!(!is_whole_or_gone(&bed.store, &bed.meta, bed.lineage));
    bed::create_ve(&bed.store, VE);
}
