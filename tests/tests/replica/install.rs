//! A whole state goes over, page by page, with kills in between; and a node that comes back with a history of its own.

use std::sync::Arc;

use vefs::Ve;
use vefs::format::role::RoleKind;
use vefs::ids::{Epoch, Hash, InodeNo, VeId};
use vefs::op::Op;
use vefs::store::Store;
use vefs::ve::{Request, Retention, Snapshot};

use crate::pair::{Pair, Side, VE, ship};

/// What a pull did.
#[derive(Debug, Default)]
pub struct Pulled {
    pages: usize,
    sent: u64,
    reused: u64,
}

/// Copies the objects that a state names and the other store lacks.
fn objects(from: &Store, to: &Store, hashes: &[Hash]) {
    for hash in hashes {
        if !to.objects().contains(*hash).unwrap() {
            let object = from.objects().open(*hash).unwrap();
            let mut bytes = vec![0; object.len() as usize];
            object.read_at(&mut bytes, 0).unwrap();
            assert_eq!(to.objects().put(&bytes).unwrap(), *hash);
        }
    }
}

/// Pulls a state; `None` when the receiver was killed, which it is after so many pages.
pub fn pull(
    from: &Arc<Ve>,
    of: &Side,
    to: &Side,
    state: &(vefs::format::incoming::Manifest, Snapshot),
    kill_after: Option<usize>,
    branch: Option<&str>,
) -> (Option<Arc<Ve>>, Pulled) {
    let mut install = to.store.install(from.id(), state.0).unwrap();
    let mut pulled = Pulled::default();
    loop {
        let page = state.1.page(install.last(), None, 8 << 10).unwrap();
        for hash in &page.objects {
            install.has_object(*hash).unwrap();
        }
        objects(&of.store, &to.store, &page.objects);
        for (id, len, hash) in &page.payloads {
            if install.has_payload(*id, *len, *hash).unwrap() {
                pulled.reused += len;
            } else {
                install.put_payload(*id, &state.1.payload(*id, 0, *len as usize).unwrap()).unwrap();
                pulled.sent += len;
            }
        }
        install.put_rows(&page.rows).unwrap();
        pulled.pages += 1;
        if page.last {
            return (Some(install.finish(Epoch(1), branch).unwrap()), pulled);
        }
        if kill_after == Some(pulled.pages) {
            return (None, pulled);
        }
    }
}

/// A store that never heard of the VE gets its state, is killed on the way again and again, and follows from there on (checks G9, G23).
#[test]
fn a_state_goes_over_and_is_followed() {
    for seed in 0..10 {
        let mut pair = Pair::new(seed);
        pair.write(400);
        pair.primary.ve().housekeep(std::time::Duration::ZERO).unwrap();
        let mut third = Side::new(seed + 500);
        let ve = pair.primary.ve();
        let state = ve.manifest().unwrap();
        // It stays what it is while the VE goes on.
        pair.write(200);
        pair.primary.ve().commit().unwrap();
        pair.primary.store.collect_garbage(&Retention { steps: vec![] }).unwrap();
        let mut kills = 0;
        let got = loop {
            let kill = (pair.rng.below(3) > 0).then_some(1 + kills / 2);
            if let (Some(ve), _) = pull(&ve, &pair.primary, &third, &state, kill, None) {
                break ve;
            }
            kills += 1;
            if pair.rng.percent(50) {
                third.store.collect_garbage(&Retention { steps: vec![] }).unwrap();
            }
            third.kill();
        };
        assert_eq!(got.position(), state.0.at);
        assert_eq!((got.usage().0 as i64, got.usage().1 as i64), (state.0.bytes, state.0.inodes));
        assert_eq!(got.role().kind, RoleKind::Replica);
        drop(state);
        drop(got);
        third.kill();
        std::mem::swap(&mut pair.replica, &mut third);
        pair.ship();
        pair.same();
    }
}

/// A replica that is far behind takes over what it has and changed nothing: only new bytes travel.
#[test]
fn only_what_is_missing_travels() {
    let mut pair = Pair::new(3);
    pair.write(1500);
    pair.primary.ve().commit().unwrap();
    pair.ship();
    pair.write(30);
    let ve = pair.primary.ve();
    let state = ve.manifest().unwrap();
    let (got, pulled) = pull(&ve, &pair.primary, &pair.replica, &state, None, None);
    assert!(pulled.sent * 4 < pulled.reused, "{pulled:?}");
    let got = got.unwrap();
    assert_eq!(got.position(), state.0.at);
    pair.same();
    // The former state is gone with all its files.
    assert_eq!(pair.replica.store.branch_names(VE).unwrap(), Vec::<String>::new());
    pair.replica.kill();
    pair.write(100);
    pair.primary.ve().commit().unwrap();
    pair.ship();
    pair.same();
}

/// A state whose rows are not those of its root is refused, and the present one stays (checks G9, G23).
#[test]
fn a_state_with_another_root_changes_nothing() {
    let mut pair = Pair::new(4);
    pair.write(100);
    pair.primary.ve().commit().unwrap();
    pair.ship();
    let before = pair.replica.ve().position();
    pair.write(100);
    let ve = pair.primary.ve();
    let (mut manifest, snapshot) = ve.manifest().unwrap();
    manifest.root = Hash([3; 32]);
    let mut install = pair.replica.store.install(VE, manifest).unwrap();
    let page = snapshot.page(None, None, usize::MAX).unwrap();
    objects(&pair.primary.store, &pair.replica.store, &page.objects);
    assert!(install.put_rows(&page.rows).is_err(), "bytes that were not sent");
    drop(install);
    let mut install = pair.replica.store.install(VE, manifest).unwrap();
    for (id, len, _) in &page.payloads {
        install.put_payload(*id, &snapshot.payload(*id, 0, *len as usize).unwrap()).unwrap();
    }
    install.put_rows(&page.rows).unwrap();
    let refused = install.finish(Epoch(1), None).map(|_| ());
    assert!(refused.unwrap_err().to_string().contains("state root"));
    assert_eq!(pair.replica.ve().position(), before);
    pair.replica.kill();
    assert_eq!(pair.replica.ve().position(), before);
    pair.ship();
    pair.same();
}

/// A primary is lost with a tail that nobody has; its replica is promoted. When it comes back its tail stays as a branch that can be read,
/// and it follows (checks G22, G23).
#[test]
fn a_returning_node_keeps_its_tail_as_a_branch() {
    let mut pair = Pair::new(8);
    pair.write(200);
    pair.primary.ve().commit().unwrap();
    pair.ship();
    let fork = pair.replica.ve().position();
    let op = Op::Symlink {
        parent: InodeNo::ROOT,
        name: b"tail".to_vec(),
        target: b"was here".to_vec(),
        owner: vefs::op::Owner { uid: 0, gid: 0, umask: 0 },
    };
    pair.primary.ve().execute(&op, Request::default()).unwrap();
    pair.primary.ve().commit().unwrap();
    let tail = pair.primary.ve().position();
    let new = pair.replica.ve();
    new.promote(new.epoch().promoted()).unwrap();
    let other = Op::Unlink { parent: InodeNo::ROOT, name: b"tail".to_vec() };
    assert!(new.execute(&other, Request::default()).is_err(), "the tail is not here");
    new.set_policy(vefs::change::Policy { window_ms: 2000, ..Default::default() }).unwrap();
    let state = new.manifest().unwrap();
    let old = pair.primary.ve();
    let (got, _) = pull(&new, &pair.replica, &pair.primary, &state, None, Some("epoch-1-txn-9"));
    drop(got);
    assert!(old.execute(&other, Request::default()).is_err(), "whoever still has it");
    drop(old);
    drop(state);
    for _ in 0..2 {
        let branch = pair.primary.store.branch(VE, "epoch-1-txn-9").unwrap();
        assert_eq!((branch.position().txn, branch.position().chain), (tail.txn, tail.chain));
        let (_, inode) = branch.lookup(InodeNo::ROOT, b"tail").unwrap();
        assert_eq!(inode.size, 8);
        assert!(branch.execute(&other, Request::default()).is_err());
        drop(branch);
        pair.primary.store.collect_garbage(&Retention { steps: vec![] }).unwrap();
        pair.primary.kill();
    }
    let (new, old) = (pair.replica.ve(), pair.primary.ve());
    assert_eq!(old.position().txn, fork.txn.next());
    assert_eq!(old.policy().unwrap().window_ms, 2000);
    new.execute(&op, Request::default()).unwrap();
    new.commit().unwrap();
    let vefs::ve::Feed::Txn(txn) = new.feed(old.position().txn).unwrap() else { panic!("nothing to ship") };
    ship(&new, &old, &txn).unwrap();
    assert_eq!(old.position(), new.position());
    // A VE of the number that the branch has as its slot gets another slot.
    pair.primary.store.remove_branch(VE, "epoch-1-txn-9").unwrap();
    assert!(pair.primary.store.branch(VE, "epoch-1-txn-9").is_err());
    let lineage = pair.primary.ve().identity().lineage;
    pair.primary.store.destroy_ve(VE).unwrap();
    assert!(pair.primary.store.is_buried(lineage) && !pair.replica.store.is_buried(lineage));
    pair.replica.store.bury_ve(VE, lineage).unwrap();
    assert!(pair.replica.store.is_buried(lineage) && !pair.replica.store.has_ve(VE));
    aspfs_tests::harness::create_ve(&pair.primary.store, VE.0, 1 << 20, 100).unwrap();
    assert_eq!(pair.primary.store.list().unwrap(), [VE]);
    assert_eq!(pair.primary.ve().id(), VeId(7));
}
