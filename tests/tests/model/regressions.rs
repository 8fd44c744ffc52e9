//! What long runs once found, each with its story.

use aspfs_tests::harness::{empty_tree, small_options};
use aspfs_tests::opgen::Rng;
use aspfs_tests::run::{Simulated, World};
use vefs::Ve;
use vefs::change::Settings;
use vefs::ids::{InodeNo, VeId};
use vefs::op::{Op, Owner};
use vefs::types::mode;
use vefs::ve::Request;

fn quota(bytes: u64) -> Settings {
    Settings { quota_bytes: bytes, ..Settings::default() }
}

fn mkdir(ve: &Ve, name: &str) {
    let name = name.as_bytes().to_vec();
    let op = Op::Create { parent: InodeNo::ROOT, name, mode: mode::IFDIR | 0o755, rdev: 0, owner: Owner::default() };
    ve.execute(&op, Request::default()).unwrap();
}

fn has(ve: &Ve, name: &str) -> bool {
    ve.lookup(InodeNo::ROOT, name.as_bytes()).is_ok()
}

/// The identity was written first, the settings after it: a process that died in between left a VE without any quota, and a power
/// cut could give it the journal of an erased VE. Checks G33, G34.
#[test]
fn a_ve_is_made_whole_or_not_at_all() {
    let mut seen = [0, 0];
    for calls in 0..40 {
        for power in [false, true] {
            let mut rng = Rng::new(u64::from(calls));
            let mut world = Simulated::create(1, small_options()).unwrap();
            let store = world.open().unwrap();
            let old = store.create_ve(VeId(1), empty_tree(), quota(1000)).unwrap();
            mkdir(&old, "old");
            old.commit().unwrap();
            store.destroy_ve(VeId(1)).unwrap();
            world.fuse().arm(calls);
            let made = store.create_ve(VeId(1), empty_tree(), quota(2000)).is_ok();
            drop((store, old));
            if power {
                world.cut(&mut rng).unwrap();
            } else {
                world.kill(&mut rng);
            }
            let store = world.open().unwrap();
            let there = store.list().unwrap() == [VeId(1)];
            assert!(there || !made, "calls {calls}: a VE was made and is gone");
            seen[usize::from(there)] += 1;
            if there {
                let ve = store.ve(VeId(1)).unwrap();
                assert_eq!(ve.settings().quota_bytes, 2000, "calls {calls}, power {power}");
                assert!(!has(&ve, "old"), "calls {calls}, power {power}: an erased VE came back");
            }
        }
    }
    assert!(seen.iter().all(|n| *n > 0), "{seen:?}");
}

/// A checkpoint still had a VE that was erased and made anew since: rebuilding from it took the old rows for damage. Checks G32.
#[test]
fn a_checkpoint_of_an_erased_ve_is_of_no_use() {
    let mut world = Simulated::create(1, small_options()).unwrap();
    let store = world.open().unwrap();
    mkdir(&store.create_ve(VeId(1), empty_tree(), quota(1000)).unwrap(), "old");
    store.checkpoint().unwrap();
    store.destroy_ve(VeId(1)).unwrap();
    let ve = store.create_ve(VeId(1), empty_tree(), quota(2000)).unwrap();
    mkdir(&ve, "new");
    drop((ve, store));
    world.kill(&mut Rng::new(1));
    assert!(world.lose_metadata());
    let ve = world.open().unwrap().ve(VeId(1)).unwrap();
    assert!(has(&ve, "new") && !has(&ve, "old"));
    assert_eq!(ve.settings().quota_bytes, 2000);
}

/// What the last checkpoint covers was kept by identifier: a VE that was made anew lost the journal that only it had, as its
/// predecessor's was covered. Checks G32.
#[test]
fn a_checkpoint_covers_nothing_of_a_later_ve() {
    let mut world = Simulated::create(1, small_options()).unwrap();
    let store = world.open().unwrap();
    let fill = |ve: &Ve, tag: &str| (0..2000).for_each(|n| mkdir(ve, &format!("{tag}{n}")));
    fill(&store.create_ve(VeId(1), empty_tree(), quota(1000)).unwrap(), "old");
    store.checkpoint().unwrap();
    store.destroy_ve(VeId(1)).unwrap();
    let ve = store.create_ve(VeId(1), empty_tree(), quota(2000)).unwrap();
    fill(&ve, "new");
    ve.publish().unwrap();
    store.persist().unwrap();
    drop((ve, store));
    world.kill(&mut Rng::new(1));
    assert!(world.lose_metadata());
    let ve = world.open().unwrap().ve(VeId(1)).unwrap();
    assert!((0..2000).all(|n| has(&ve, &format!("new{n}"))));
}
