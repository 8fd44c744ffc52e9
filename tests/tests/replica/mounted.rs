//! Versions that are held for mounts, where a node follows: they read the same whatever comes, and nothing takes their bytes away.

use aspfs_tests::model::{Model, Reader, compare};
use aspfs_tests::reader::Past;
use vefs::ids::{Epoch, TxnNo};
use vefs::ve::{Retention, Snapshot};

use crate::install::pull;
use crate::pair::{Pair, VE};

/// Nothing is kept but what somebody holds.
fn nothing() -> Retention {
    Retention { steps: vec![] }
}

/// The present state at the replica, held as a mount holds it, and what is in it.
fn hold(pair: &mut Pair, label: &str) -> (TxnNo, Snapshot, Model) {
    pair.primary.ve().commit().unwrap();
    pair.ship();
    let ve = pair.replica.ve();
    let txn = ve.position().txn;
    (txn, ve.hold_mounted(label, txn).unwrap(), pair.model.clone())
}

#[track_caller]
fn same(what: &str, model: &Model, version: &Snapshot) {
    compare(model, &Past(version, model.usage().unwrap())).unwrap_or_else(|e| panic!("{what}: {e}"));
}

/// checks G25, G26: under writes, collections, a kill, and a whole state that takes the place of the one it is a version of.
#[test]
fn a_held_version_of_a_replica_reads_the_same() {
    for seed in 0..6 {
        let mut pair = Pair::new(seed);
        pair.write(300);
        let (txn, mut version, model) = hold(&mut pair, "old");
        let slot = pair.replica.ve().slot();
        let find = |pair: &Pair| pair.replica.store.state_in(VE, slot).unwrap().hold_mounted("old", txn).unwrap();
        for round in 0..6 {
            pair.write(150);
            pair.primary.ve().commit().unwrap();
            pair.ship();
            pair.replica.ve().housekeep(std::time::Duration::ZERO).ok();
            pair.replica.store.collect_garbage(&nothing()).unwrap();
            same(&format!("seed {seed} round {round}"), &model, &version);
            if pair.rng.percent(50) {
                drop(version);
                pair.replica.kill();
                // A collection before anybody takes the mount over keeps it, too.
                pair.replica.store.collect_garbage(&nothing()).unwrap();
                version = find(&pair);
                same(&format!("seed {seed} round {round}, after a kill"), &model, &version);
            }
        }
        let (other, _, _) = hold(&mut pair, "new");
        assert!(pair.replica.ve().hold_mounted("old", other).is_err(), "the label stands for another version");

        // Another state comes, and nobody wants the old one as a branch: it becomes one all the same.
        pair.write(50);
        let from = pair.primary.ve();
        let state = from.manifest().unwrap();
        pull(&from, &pair.primary, &pair.replica, &state, None, None).0.unwrap();
        drop((state, from));
        assert_ne!(pair.replica.ve().slot(), slot);
        same(&format!("seed {seed}, replaced"), &model, &version);
        let branches = pair.replica.store.branch_names(VE).unwrap();
        assert!(branches.len() == 1 && branches[0].starts_with("mounted-"), "{branches:?}");
        for _ in 0..3 {
            pair.replica.store.collect_garbage(&nothing()).unwrap();
            same(&format!("seed {seed}, replaced and collected"), &model, &version);
        }
        assert!(pair.replica.store.remove_branch(VE, &branches[0]).is_err());
        assert!(pair.replica.store.destroy_ve(VE).is_err());
        drop(version);
        pair.replica.kill();
        pair.replica.store.collect_garbage(&nothing()).unwrap();
        same(&format!("seed {seed}, replaced and killed"), &model, &find(&pair));

        // It goes with the last of its mounts: one is released, of the other a kill left nothing but the row.
        pair.replica.store.release_mounted(VE, slot, "old").unwrap();
        assert_eq!(pair.replica.store.branch_names(VE).unwrap(), branches);
        pair.replica.kill();
        assert_eq!(pair.replica.store.release_unmounted(|_, _| false).unwrap(), 1);
        assert!(pair.replica.store.branch_names(VE).unwrap().is_empty());
        assert!(pair.replica.store.mounted_versions().unwrap().is_empty());
        assert!(pair.replica.store.state_in(VE, slot).is_err());
        pair.write(100);
        pair.primary.ve().commit().unwrap();
        pair.ship();
        pair.same();
    }
}

/// A version of a branch is held as any other, and keeps the branch.
#[test]
fn a_branch_is_not_removed_under_a_mount() {
    let mut pair = Pair::new(77);
    pair.write(300);
    let (txn, version, model) = hold(&mut pair, "before");
    drop(version);
    let slot = pair.replica.ve().slot();
    pair.replica.store.release_mounted(VE, slot, "before").unwrap();
    pair.write(100);
    let from = pair.primary.ve();
    let state = from.manifest().unwrap();
    pull(&from, &pair.primary, &pair.replica, &state, None, Some("tail")).0.unwrap();
    let store = &pair.replica.store;
    let version = store.branch(VE, "tail").unwrap().hold_mounted("tail:1", txn).unwrap();
    assert!(store.remove_branch(VE, "tail").is_err());
    store.collect_garbage(&nothing()).unwrap();
    same("a branch", &model, &version);
    drop(version);
    store.release_mounted(VE, slot, "tail:1").unwrap();
    assert_eq!(store.branch_names(VE).unwrap(), ["tail"], "it has a name of its own: it stays");
    store.remove_branch(VE, "tail").unwrap();
    assert!(store.has_ve(VE) && Epoch(1) <= store.ve(VE).unwrap().epoch());
}
