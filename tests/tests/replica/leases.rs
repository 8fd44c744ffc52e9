//! Writers named by the required replicas: nobody is asked, nothing is configured but the same on every node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aspfs_replica::runtime::{NamedBy, OperateError, Writers, with_replica};
use aspfs_replica::window::State;
use aspfs_tests::harness::empty_tree;
use vefs::Ve;
use vefs::change::{AtWindow, Need, Policy, ReplicaOf, Settings};
use vefs::ids::{InodeNo, VeId};
use vefs::ve::Verdict;

use super::nodes::{Node, VE, file, nodes_with, same, wait};

fn by_replicas(fail_over: bool) -> Writers {
    Writers { by: NamedBy::Replicas(Duration::from_secs(1)), fail_over, on_promotion: None }
}

fn required(node: &Node) -> ReplicaOf {
    ReplicaOf { node: node.id().0, need: Need::Required, bandwidth: 0 }
}

/// A VE on a node, with required replicas that came one after the other.
fn replicated(from: &Node, to: &[&Node]) -> Arc<Ve> {
    let ve = from.store().create_ve(VE, empty_tree(), Settings::default()).unwrap();
    let mut policy = Policy { window_ms: 2000, at_window: AtWindow::Stall, ..Policy::default() };
    for node in to {
        policy = with_replica(&policy, required(node));
        from.runtime().change_policy(&ve, Policy { writer: ve.policy().unwrap().writer, ..policy.clone() }).unwrap();
    }
    ve
}

/// Whether an operation would complete here now.
fn writes(node: &Node) -> bool {
    let Some(ve) = node.store().has_ve(VE).then(|| node.ve()) else { return false };
    ve.is_writer() && ve.fenced().is_none() && !matches!(ve.admit(1), Verdict::Wait | Verdict::Fenced)
}

fn put(node: &Node, name: &str) {
    wait("the right to write", || writes(node));
    file(&node.ve(), name, name.as_bytes()).unwrap();
    node.ve().commit().unwrap();
}

/// Two nodes, of which the second was promoted when the first, which wrote before, was off.
fn taken_over() -> [Node; 2] {
    let [mut a, b] = nodes_with(&by_replicas(false));
    let ve = replicated(&a, &[&b]);
    put(&a, "one");
    wait("the replica", || a.acked(b.id()));
    a.stop();
    drop(ve);
    b.runtime().promote(VE, false, false).unwrap();
    put(&b, "two");
    [a, b]
}

fn requires(node: &Node) -> Vec<[u8; 16]> {
    let mut all: Vec<_> =
        node.ve().policy().unwrap().replicas.iter().filter(|r| r.is_required()).map(|r| r.node).collect();
    all.sort_unstable();
    all
}

/// The primary dies; one of its replicas writes after a lease, and nobody was asked. The old one follows when it is back, and has a say again. Then
/// the same with the new one (checks G16, G18, G19, G21).
#[test]
fn a_silent_primary_is_replaced_by_itself() {
    let told = Arc::new(AtomicU64::new(0));
    let count = told.clone();
    let on_promotion = move |_, _| _ = count.fetch_add(1, Ordering::Relaxed);
    let writers = Writers { on_promotion: Some(Arc::new(on_promotion)), ..by_replicas(true) };
    let mut nodes: [Node; 3] = nodes_with(&writers);
    let ids = [0, 1, 2].map(|n| nodes[n].id());
    replicated(&nodes[0], &[&nodes[1], &nodes[2]]);
    let mut primary = 0;
    for round in 0..3 {
        put(&nodes[primary], &format!("round-{round}"));
        let others: Vec<usize> = (0..3).filter(|n| *n != primary).collect();
        wait("everything everywhere", || others.iter().all(|n| nodes[primary].acked(ids[*n])));
        wait("both to have a say", || requires(&nodes[primary]).len() == 2);
        put(&nodes[primary], &format!("known-{round}"));
        wait("both to know it", || others.iter().all(|n| nodes[primary].acked(ids[*n])));
        nodes[primary].stop();
        wait("another writer", || others.iter().any(|n| writes(&nodes[*n])));
        let next = others.into_iter().find(|n| nodes[*n].ve().is_writer()).unwrap();
        put(&nodes[next], &format!("after-{round}"));
        nodes[primary].start();
        wait("the old one to follow", || nodes[next].acked(ids[primary]));
        assert!(!nodes[primary].ve().is_writer());
        primary = next;
    }
    put(&nodes[primary], "last");
    for n in (0..3).filter(|n| *n != primary) {
        wait("everything everywhere", || nodes[primary].acked(ids[n]));
        same(&nodes[primary], &nodes[n]);
        for round in 0..3 {
            assert!(nodes[n].ve().lookup(InodeNo::ROOT, format!("known-{round}").as_bytes()).is_ok());
        }
    }
    assert!(nodes[primary].ve().epoch().term() >= 3 && told.load(Ordering::Relaxed) >= 3);
}

/// With no replica that promises nothing completes when the last promise has ended; with one of two it goes on (checks G19).
#[test]
fn too_few_promises_stop_the_writers() {
    let [a, mut b, mut c] = nodes_with(&by_replicas(false));
    let ve = replicated(&a, &[&b, &c]);
    put(&a, "one");
    wait("both", || a.acked(b.id()) && a.acked(c.id()));
    // It would start again in it.
    assert!(ve.note_epoch(ve.epoch().promoted()).is_err() && ve.role().epoch == ve.epoch());
    let lease = || a.runtime().figures(VE).unwrap().led.unwrap().0.lease.unwrap();
    wait("a lease", || lease() > Duration::ZERO && lease() <= Duration::from_secs(1));
    c.stop();
    std::thread::sleep(Duration::from_millis(1500));
    wait("the right to write: one of two is enough", || writes(&a));
    b.stop();
    wait("the end of the lease", || !writes(&a));
    assert_eq!(ve.admit(1), Verdict::Wait);
    assert_eq!(a.runtime().figures(VE).unwrap().led.unwrap().0.state, State::Stalled);
    assert!(ve.fenced().is_none() && ve.lookup(InodeNo::ROOT, b"one").is_ok(), "reads go on");
    // Nobody is promoted who has no majority, whatever a person wants to know of it.
    c.start();
    wait("the right to write", || writes(&a));
    put(&a, "two");
    b.start();
    wait("both again", || a.acked(b.id()) && a.acked(c.id()));
    // One that is gone for good is removed without a word: the other one hears of it.
    c.stop();
    a.runtime().remove_replica(&ve, c.id(), false).unwrap();
    assert_eq!(requires(&a), [b.id().0]);
    put(&a, "three");
    wait("the other one", || a.acked(b.id()));
}

/// A person promotes: not while the primary lives, and without a word about it when it is silent. One node of three has no majority (checks G18).
#[test]
fn a_promotion_by_hand_needs_a_majority_or_a_word() {
    let [mut a, b, mut c] = nodes_with(&by_replicas(false));
    replicated(&a, &[&b, &c]);
    put(&a, "one");
    wait("both", || a.acked(b.id()) && a.acked(c.id()));
    let alive = b.runtime().promote(VE, false, false).unwrap_err();
    assert!(matches!(&alive, OperateError::Unsafe(t) if t.contains("is written by node")), "{alive}");
    a.stop();
    c.stop();
    let alone = b.runtime().promote(VE, false, false).unwrap_err();
    assert!(matches!(&alone, OperateError::Unsafe(t) if t.contains("no majority")), "{alone}");
    assert!(!b.ve().is_writer());
    c.start();
    wait("the third to be there", || c.runtime().figures(VE).is_some());
    let promoted = b.runtime().promote(VE, false, false).unwrap();
    assert!(promoted.epoch > promoted.fork.epoch && promoted.others.iter().any(|(n, p)| *n == c.id() && p.is_some()));
    put(&b, "two");
    wait("the third", || b.acked(c.id()));
    a.start();
    wait("the old one", || b.acked(a.id()));
    same(&b, &a);
    wait("all to have a say", || requires(&b).len() == 2);
}

/// The same with two nodes: whoever is left runs alone after a promotion, and the word of a person takes the place of a promise that cannot be had.
#[test]
fn two_nodes_and_a_word() {
    let [mut a, mut b] = taken_over();
    let standing = b.runtime().figures(VE).unwrap().led.unwrap().0;
    assert_eq!((standing.state, standing.lease), (State::Unprotected, None), "it writes alone");
    a.start();
    wait("the old one", || b.acked(a.id()));
    wait("it to have a say", || requires(&b) == [a.id().0]);
    put(&b, "three");
    wait("the old one once more", || b.acked(a.id()));
    // Now the replica is lost for good.
    a.stop();
    wait("the end of the lease", || !writes(&b));
    b.runtime().remove_replica(&b.ve(), a.id(), true).unwrap();
    put(&b, "four");
    assert!(b.ve().policy().unwrap().replicas.is_empty());
    b.stop();
    b.start();
    put(&b, "five");
}

/// Who was required before a promotion is required again when it is back, unless an administrator has said since what it is to be: it was required
/// nevertheless, and its silence held the writers of a VE that was to do without it (checks G16, G19).
#[test]
fn the_last_word_about_a_replica_counts() {
    let [mut a, b] = taken_over();
    b.runtime().set_replica(&b.ve(), ReplicaOf { need: Need::Optional, ..required(&a) }).unwrap();
    a.start();
    wait("the old one", || b.acked(a.id()));
    // Without that word it is required after a twelfth of a second: many times as long as that.
    for n in 0..20 {
        put(&b, &format!("more-{n}"));
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(requires(&b), [[0; 16]; 0], "after {n} writes");
    }
    a.stop();
    std::thread::sleep(Duration::from_millis(1500));
    put(&b, "nobody is waited for");
    // Another word, and it is.
    a.start();
    wait("the old one", || b.acked(a.id()));
    b.runtime().set_replica(&b.ve(), required(&a)).unwrap();
    assert_eq!(requires(&b), [a.id().0]);
}

/// Who is to be required again is known to whoever is promoted next, too. It stood beside the promotion in a note of the node that had been promoted:
/// when that one was lost before the node was back, nobody required it ever again, and after a few failures a VE that was to have two required
/// replicas ran on with none, unprotected, until somebody looked (checks G16, G19).
#[test]
fn who_is_to_be_required_again_is_known_to_the_next_writer() {
    let [mut a, mut b, mut c] = nodes_with(&by_replicas(false));
    let ve = replicated(&a, &[&b, &c]);
    put(&a, "one");
    wait("both", || a.acked(b.id()) && a.acked(c.id()));
    drop(ve);
    a.stop();
    b.runtime().promote(VE, false, false).unwrap();
    put(&b, "two");
    wait("the one that is left", || b.acked(c.id()));
    assert_eq!(requires(&b), [c.id().0]);
    b.stop();
    c.runtime().promote(VE, false, false).unwrap();
    put(&c, "three");
    assert_eq!(requires(&c), [[0; 16]; 0]);
    // Not one of them was there when it was promoted, and it was restarted since.
    c.stop();
    c.start();
    put(&c, "four");
    a.start();
    wait("the first writer", || requires(&c) == [a.id().0]);
    // Handed over before the second one is back.
    put(&c, "five");
    wait("it to know", || c.acked(a.id()));
    c.runtime().switchover(VE, a.id()).unwrap();
    put(&a, "six");
    b.start();
    wait("all to have a say", || requires(&a).len() == 2);
    put(&a, "seven");
    wait("all to know it", || a.acked(b.id()) && a.acked(c.id()));
    same(&a, &b);
    same(&a, &c);
}

/// A hand-over ends the promises and takes a majority along; where it would not have one, nothing happens (checks G18).
#[test]
fn a_hand_over_takes_the_promises_along() {
    let [a, b, mut c] = nodes_with(&by_replicas(false));
    let ve = replicated(&a, &[&b, &c]);
    put(&a, "one");
    wait("both", || a.acked(b.id()) && a.acked(c.id()));
    c.stop();
    let alone = a.runtime().switchover(VE, b.id()).unwrap_err().to_string();
    assert!(
        alone.contains("1 of its 2 required replicas answer") && alone.contains("nothing was handed over"),
        "{alone}"
    );
    put(&a, "still here");
    c.start();
    wait("both", || a.acked(b.id()) && a.acked(c.id()));
    drop(ve);
    let epoch = a.runtime().switchover(VE, b.id()).unwrap();
    assert_eq!((epoch.term(), a.ve().is_writer()), (1, false));
    put(&b, "two");
    wait("all", || b.acked(a.id()) && b.acked(c.id()));
    wait("the old one to have a say", || requires(&b).len() == 2);
    put(&b, "three");
    wait("all to know it", || b.acked(a.id()) && b.acked(c.id()));
    assert_eq!(b.runtime().switchover(VE, a.id()).unwrap().term(), 2);
    put(&a, "four");
    wait("all", || a.acked(b.id()) && a.acked(c.id()));
    same(&a, &b);
    same(&a, &c);
}

/// Who has a say changes by one node at a time, and a node that does not answer gets none.
#[test]
fn those_who_have_a_say_change_one_by_one() {
    let [a, b, mut c] = nodes_with(&by_replicas(false));
    let ve = replicated(&a, &[&b]);
    put(&a, "one");
    c.stop();
    let policy = ve.policy().unwrap();
    let absent = a.runtime().change_policy(&ve, with_replica(&policy, required(&c))).unwrap_err().to_string();
    assert!(absent.contains("does not answer"), "{absent}");
    let mut swapped = with_replica(&policy, required(&c));
    swapped.replicas.retain(|r| r.node == c.id().0);
    let two = a.runtime().change_policy(&ve, swapped).unwrap_err().to_string();
    assert!(two.contains("one required replica at a time"), "{two}");
    assert_eq!(ve.policy().unwrap(), policy);
    c.start();
    a.runtime().change_policy(&ve, with_replica(&policy, required(&c))).unwrap();
    put(&a, "two");
    wait("both", || a.acked(b.id()) && a.acked(c.id()));
    a.runtime().remove_replica(&ve, b.id(), false).unwrap();
    put(&a, "three");
    wait("the other one", || a.acked(c.id()));
    assert_eq!(requires(&a), [c.id().0]);
}

/// A node dies that was the primary of many VEs: each gets a writer, and none two.
#[test]
fn a_node_with_many_ves_dies() {
    const MANY: u32 = 60;
    let ids = || (0..MANY).map(|n| VeId(0x100 + n));
    let [mut a, b, c] = nodes_with(&by_replicas(true));
    for id in ids() {
        let ve = a.store().create_ve(id, empty_tree(), Settings::default()).unwrap();
        let mut policy = Policy { window_ms: 2000, at_window: AtWindow::Stall, ..Policy::default() };
        policy.replicas = vec![required(&b), required(&c)];
        ve.set_policy(policy).unwrap();
        ve.commit().unwrap();
        a.runtime().refresh(&ve).unwrap();
        wait("the right to write", || ve.admit(1) == Verdict::Go);
        file(&ve, "one", b"1").unwrap();
        ve.commit().unwrap();
    }
    let has = |node: &Node, id: VeId| {
        node.store().has_ve(id) && node.store().ve(id).unwrap().lookup(InodeNo::ROOT, b"one").is_ok()
    };
    wait("both", || ids().all(|id| has(&b, id) && has(&c, id)));
    a.stop();
    let begin = std::time::Instant::now();
    let written = |node: &Node, id: VeId| {
        let ve = node.store().ve(id).unwrap();
        ve.is_writer() && ve.fenced().is_none() && ve.admit(1) == Verdict::Go
    };
    wait("a writer of each", || ids().all(|id| written(&b, id) || written(&c, id)));
    eprintln!("{MANY} VEs have a writer {:?} after the death, with a lease of 1 s", begin.elapsed());
    // One that another one was faster than steps down when it hears of it.
    wait("one writer of each", || {
        ids().all(|id| [&b, &c].into_iter().filter(|n| n.store().ve(id).unwrap().is_writer()).count() == 1)
    });
    wait("the other one to follow each", || {
        let followed = |n: &Node, id| {
            n.runtime()
                .figures(id)
                .is_some_and(|f| f.led.is_some_and(|(_, r)| r.iter().any(|r| r.link.acked.is_some())))
        };
        ids().all(|id| followed(&b, id) || followed(&c, id))
    });
}
