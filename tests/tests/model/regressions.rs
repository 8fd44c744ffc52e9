//! What long runs once found, each with its story.

#![allow(clippy::unwrap_used)]

use aspfs_tests::harness::{empty_tree, small_options};
use aspfs_tests::model::sample_tree;
use aspfs_tests::opgen::Rng;
use aspfs_tests::run::{Simulated, World, tree};
use vefs::Ve;
use vefs::change::Settings;
use vefs::ids::{InodeNo, VeId};
use vefs::op::{FallocMode, Op, Owner, Reply};
use vefs::types::{Kind, mode};
use vefs::ve::Request;

fn quota(bytes: u64) -> Settings {
    Settings { quota_bytes: bytes, ..Settings::default() }
}

fn mkdir(ve: &Ve, name: &str) {
    let name = name.as_bytes().to_vec();
    let op = Op::Create { parent: InodeNo::ROOT, name, mode: mode::IFDIR | 0o755, rdev: 0, owner: Owner::default() };
    ve.execute(&op, Request::default()).unwrap();
}

/// A name of the base tree that was removed and made again between two publications was there again in the versions between: that it had been
/// gone was a former value that nobody kept. Checks G25.
#[test]
fn a_base_name_that_was_gone_for_a_while_was_gone() {
    let mut world = Simulated::create(1, small_options()).unwrap();
    let store = world.open().unwrap();
    let base = tree::build(store.objects(), &sample_tree()).unwrap();
    let ve = store.create_ve(VeId(1), base, quota(1 << 20)).unwrap();
    let (_, entry) =
        ve.entries(InodeNo::ROOT, 0, 100).unwrap().into_iter().find(|(_, e)| e.kind == Kind::Regular).unwrap();
    let name = entry.name.to_vec();
    let there = |version| {
        let version = ve.version(version).unwrap();
        let listed = version.entries(InodeNo::ROOT, 0, 100).unwrap().iter().any(|(_, e)| e.name == entry.name);
        assert_eq!(listed, version.lookup(InodeNo::ROOT, &name).is_ok());
        listed
    };
    let seal = || {
        ve.seal().unwrap();
        ve.position().txn
    };
    let mut versions = vec![(seal(), true)];
    for published in [false, true, false] {
        ve.execute(&Op::Unlink { parent: InodeNo::ROOT, name: name.clone() }, Request::default()).unwrap();
        versions.push((seal(), false));
        mkdir(&ve, std::str::from_utf8(&name).unwrap());
        versions.push((seal(), true));
        ve.execute(&Op::Rmdir { parent: InodeNo::ROOT, name: name.clone() }, Request::default()).unwrap();
        versions.push((seal(), false));
        let op = Op::Create {
            parent: InodeNo::ROOT,
            name: name.clone(),
            mode: mode::IFREG | 0o644,
            rdev: 0,
            owner: Owner::default(),
        };
        ve.execute(&op, Request::default()).unwrap();
        versions.push((seal(), true));
        if published {
            ve.publish().unwrap();
        }
    }
    for (version, was_there) in versions {
        assert_eq!(there(version), was_there, "version {version}");
    }
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

/// A file of one page at the end of a terabyte that was reserved was sealed into an object of a terabyte of zeros; as one with a
/// hole was where it was asked for. Checks G33.
#[test]
fn what_is_mostly_zeros_is_not_sealed() {
    let mut world = Simulated::create(1, small_options()).unwrap();
    let store = world.open().unwrap();
    let ve = store.create_ve(VeId(1), empty_tree(), Settings::default()).unwrap();
    let do_it = |op: &Op| ve.execute(op, Request::default()).unwrap();
    for (name, reserved) in [("hole", false), ("reserved", true)] {
        let (name, owner) = (name.as_bytes().to_vec(), Owner::default());
        let made = do_it(&Op::Create { parent: InodeNo::ROOT, name, mode: mode::IFREG | 0o644, rdev: 0, owner });
        let Reply::Inode(ino, _) = made else { panic!("{made:?}") };
        if reserved {
            let mode = FallocMode::Allocate { keep_size: false };
            do_it(&Op::Fallocate { ino, mode, offset: 0, len: 1 << 40 });
        }
        do_it(&Op::Write { ino, offset: (1 << 40) - 4096, data: vec![1; 4096].into(), kill_priv: false });
        assert!(!ve.seal_file(ino).unwrap());
    }
    world.clock().advance(std::time::Duration::from_secs(100));
    assert_eq!(store.housekeep(std::time::Duration::from_secs(1)).unwrap(), 0);
}
