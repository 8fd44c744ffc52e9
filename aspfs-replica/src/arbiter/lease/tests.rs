//! What a primary and its lessors may do when.

use std::collections::BTreeSet;

use super::*;
use crate::node::NodeId;
use vefs::ids::{Epoch, TxnNo};

const P: NodeId = NodeId([9; 16]);
const A: NodeId = NodeId([1; 16]);
const B: NodeId = NodeId([2; 16]);
const C: NodeId = NodeId([3; 16]);
const TTL: Duration = Duration::from_secs(10);

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[derive(Default)]
struct Disk {
    saved: Promised,
    full: bool,
}

impl Promises for Disk {
    fn save(&mut self, promised: &Promised) -> Result<(), String> {
        if self.full {
            return Err("no space".into());
        }
        self.saved = *promised;
        Ok(())
    }
}

fn set(nodes: &[NodeId]) -> BTreeSet<NodeId> {
    nodes.iter().copied().collect()
}

fn lessee(required: &[NodeId]) -> Lessee {
    Lessee::new((Epoch(5), P), Needs::Replicas, Terms::new(TTL), set(required), Duration::ZERO)
}

fn number_for(actions: &[Action], node: NodeId) -> Option<u64> {
    actions.iter().find_map(|a| match a {
        Action::Ask(Whom::Replica(n), number) if *n == node => Some(*number),
        _ => None,
    })
}

/// A lease is measured from the sending of the request, and ends by itself (checks G19).
#[test]
fn a_lease_counts_from_its_sending() {
    let mut l = lessee(&[A]);
    assert!(!l.may_write(s(1)));
    let asked = l.tick(s(1));
    let number = number_for(&asked, A).unwrap();
    assert_eq!(l.granted(Whom::Replica(A), number, s(8)), [Action::Renewed], "seven seconds on its way");
    assert!(l.may_write(Duration::from_millis(8999)) && !l.may_write(s(9)), "1 + 10 - 2");
    assert_eq!(l.granted(Whom::Replica(A), number, s(8)), [], "an answer counts once");
    // The process was stopped: the first thing it finds is that it may not write.
    assert!(!l.may_write(s(100)));
    assert_eq!(l.tick(s(100))[0], Action::Lapsed);
    assert!(!l.may_write(s(5)), "a clock that goes back does not bring the lease back");
    assert_eq!(l.refused(Epoch(5)), [], "its own epoch is none above");
    assert_eq!(l.refused(Epoch(6)), [Action::Superseded(Epoch(6))]);
    assert_eq!(l.until(), None);
}

/// Of n lessors so many that no majority is without one (checks G18).
#[test]
fn a_primary_and_a_candidate_need_a_common_lessor() {
    for n in 1..=7u8 {
        let nodes: Vec<NodeId> = (1..=n).map(|i| NodeId([i; 16])).collect();
        let mut l = lessee(&nodes);
        let asked = l.tick(s(1));
        let need = usize::from(n - n / 2);
        for (i, node) in nodes.iter().enumerate() {
            assert_eq!(l.may_write(s(2)), i >= need, "{i} of {n}");
            let number = number_for(&asked, *node).unwrap();
            l.granted(Whom::Replica(*node), number, s(2));
        }
        assert!(need + usize::from(n / 2 + 1) > usize::from(n));
    }
    let mut alone = lessee(&[]);
    assert_eq!(alone.tick(s(1)), [Action::Renewed], "nobody can be promoted by leases");
}

/// Those that are no lessors any more count until enough of them know (checks G18).
#[test]
fn a_change_of_lessors_needs_both_sets() {
    let mut l = lessee(&[A]);
    let grant = |l: &mut Lessee, node, now| {
        let asked = l.tick(now);
        number_for(&asked, node).map(|number| l.granted(Whom::Replica(node), number, now));
    };
    l.set_required(set(&[B, C]), TxnNo(50));
    grant(&mut l, B, s(1));
    assert!(!l.may_write(s(1)), "A may still join a candidate that has never heard of B and C");
    l.acked(A, TxnNo(49));
    assert!(!l.may_write(s(1)));
    l.acked(A, TxnNo(50));
    assert!(l.may_write(s(1)), "A knows");
}

/// Lagging is permitted when no majority is without one that knows (checks G16).
#[test]
fn lagging_is_recorded_before_it_begins() {
    let mut l = lessee(&[A, B, C]);
    assert!(!l.tick(s(1)).iter().any(|a| matches!(a, Action::Tell(..))), "what was recorded before stays");
    l.set_lagging(Some(7));
    assert_eq!(l.tick(s(2)).iter().filter(|a| matches!(a, Action::Tell(_, Some(7)))).count(), 3);
    assert_eq!(l.told(Whom::Replica(A), Some(7)), []);
    assert_eq!(l.told(Whom::Replica(A), Some(7)), [], "twice the same");
    assert_eq!(l.told(Whom::Replica(B), Some(6)), [], "an older one");
    assert_eq!(l.told(Whom::Replica(C), Some(7)), [Action::Permitted(7)]);
    assert_eq!(l.told(Whom::Replica(B), Some(7)), [], "once");
}

/// A promise keeps a lessor from joining, over a restart too, and a vote from joining another (checks G18).
#[test]
fn a_lessor_keeps_its_word() {
    let mut disk = Disk::default();
    let mut l = Lessor::new(Promised::default(), s(0));
    assert_eq!(l.lease(&mut disk, (Epoch(5), P, TTL), Epoch(5), s(1)), Grant::Granted);
    assert_eq!(l.join(&mut disk, Epoch(9), A, Epoch(5), s(6)), Join::NotYet(s(5)));
    assert_eq!(l.lease(&mut disk, (Epoch(6), P, TTL), Epoch(5), s(6)), Grant::Granted, "its own restart");
    // Nobody knows when the promise was given: a whole lease from the start on.
    let mut l = Lessor::new(disk.saved, s(50));
    assert_eq!(l.join(&mut disk, Epoch(9), A, Epoch(6), s(51)), Join::NotYet(s(9)));
    disk.full = true;
    assert_eq!(l.join(&mut disk, Epoch(9), A, Epoch(6), s(61)), Join::Failed);
    disk.full = false;
    assert_eq!(l.join(&mut disk, Epoch(9), A, Epoch(6), s(61)), Join::Joined);
    assert_eq!(l.join(&mut disk, Epoch(9), A, Epoch(9), s(62)), Join::Joined, "asked again");
    let mut l = Lessor::new(disk.saved, s(0));
    assert_eq!(l.join(&mut disk, Epoch(9), B, Epoch(9), s(1)), Join::Refused(Epoch(10)), "one in an epoch");
    assert_eq!(l.lease(&mut disk, (Epoch(6), P, TTL), Epoch(6), s(1)), Grant::Refused(Epoch(9)));
    assert_eq!(l.lease(&mut disk, (Epoch(9), B, TTL), Epoch(9), s(1)), Grant::Refused(Epoch(10)));
    assert_eq!(l.lease(&mut disk, (Epoch(9), A, TTL), Epoch(9), s(1)), Grant::Granted);
    assert_eq!(l.join(&mut disk, Epoch(12), B, Epoch(9), s(2)), Join::NotYet(s(9)));
    l.over(&mut disk, P, Epoch(9)).unwrap();
    assert_eq!(l.join(&mut disk, Epoch(12), B, Epoch(9), s(2)), Join::NotYet(s(9)), "about another node");
    l.over(&mut disk, A, Epoch(8)).unwrap();
    assert_eq!(l.join(&mut disk, Epoch(12), B, Epoch(9), s(2)), Join::NotYet(s(9)), "about an earlier epoch");
    l.over(&mut disk, A, Epoch(9)).unwrap();
    assert_eq!(l.join(&mut disk, Epoch(12), B, Epoch(9), s(2)), Join::Joined);
}

fn grant(l: &mut Lessee, node: NodeId, at: u64) {
    let number = number_for(&l.tick(s(at)), node).unwrap();
    l.granted(Whom::Replica(node), number, s(at));
}

/// {B} became {B, C}, and it is not known whether B has heard of it: with C's promise alone B could be promoted by itself, and both would write
/// (checks G18).
#[test]
fn a_set_that_others_may_not_know_needs_a_majority() {
    let mut l = lessee(&[B, C]);
    l.unsettled(TxnNo(7));
    grant(&mut l, C, 1);
    assert!(!l.may_write(s(2)) && !l.is_settled());
    grant(&mut l, B, 6);
    assert!(l.may_write(s(7)));
    // When both have what says so, one is enough.
    l.acked(B, TxnNo(7));
    l.acked(C, TxnNo(7));
    assert!(l.is_settled());
    grant(&mut l, C, 12);
    assert!(l.may_write(s(19)), "B's lease ended at 14");
}

/// A primary that had its only required replica removed started again before that one had heard of it. Nobody has to promise any more, it was told, while
/// the replica could be promoted by itself (checks G18).
#[test]
fn the_last_one_that_was_removed_promises_until_it_knows() {
    let mut l = lessee(&[B]);
    l.unsettled(TxnNo(7));
    l.set_required(set(&[]), TxnNo(7));
    assert!(!l.may_write(s(1)));
    grant(&mut l, B, 1);
    assert!(l.may_write(s(2)) && !l.may_write(s(10)));
    // A person says that it is off.
    l.excuse(B);
    assert!(l.may_write(s(1000)) && l.is_settled());
}

/// A node that was promoted is one of the three that had a say, and counts itself: with one of the others it writes, though the third is away (checks G18).
#[test]
fn a_promoted_node_counts_itself() {
    let mut l = lessee(&[P, A, B]);
    l.unsettled(TxnNo(7));
    l.set_required(set(&[A, B]), TxnNo(8));
    assert!(!l.may_write(s(1)));
    grant(&mut l, A, 1);
    assert!(l.may_write(s(2)));
    l.acked(A, TxnNo(8));
    assert!(l.is_settled() && l.may_write(s(2)));
}

/// A set is announced before it is journalled: from then on it promises, and only what is journalled can be known (checks G19).
#[test]
fn an_announced_set_promises_at_once() {
    let mut l = lessee(&[]);
    assert!(l.may_write(s(1)));
    l.set_required(set(&[A]), TxnNo(vefs::limits::COUNTER_MAX));
    assert!(!l.may_write(s(1)));
    l.set_required(set(&[A]), TxnNo(4));
    grant(&mut l, A, 2);
    assert!(l.may_write(s(3)));
    let mut l = lessee(&[B]);
    l.set_required(set(&[B, C]), TxnNo(vefs::limits::COUNTER_MAX));
    l.acked(B, TxnNo(9));
    assert!(!l.is_settled(), "nobody knows it yet");
    l.set_required(set(&[B, C]), TxnNo(10));
    l.acked(B, TxnNo(10));
    assert!(l.is_settled());
    // What was announced and then not written down is forgotten.
    l.set_required(set(&[A, B, C]), TxnNo(vefs::limits::COUNTER_MAX));
    assert!(!l.is_settled());
    l.set_required(set(&[B, C]), TxnNo(11));
    assert!(l.is_settled());
}

/// A primary says that it lags no more, gets no answer in time, and soon says that it may lag: when the first saying came last, replicas believed
/// that they had everything, and one of them was promoted by itself without what the window says (checks G16).
#[test]
fn what_comes_late_about_lagging_does_not_count() {
    let (mut disk, e) = (Disk::default(), Epoch(6));
    let mut l = Lessor::new(disk.saved, s(0));
    let stamp = |process, number| crate::member::Stamp { process, number };
    let mut say = |l: &mut Lessor, epoch, lagging, stamp| l.lagging(&mut disk, (epoch, P), (lagging, stamp), e);
    assert_eq!(say(&mut l, e, true, stamp(1, 7)), Grant::Granted);
    assert_eq!(say(&mut l, e, false, stamp(1, 6)), Grant::Failed);
    assert_eq!(l.promised().lagging, Some(P));
    assert_eq!(say(&mut l, e, true, stamp(1, 7)), Grant::Granted, "asked again");
    assert_eq!(say(&mut l, e, false, stamp(1, 8)), Grant::Granted);
    assert_eq!(say(&mut l, e, true, stamp(2, 1)), Grant::Granted, "its daemon started anew");
    assert_eq!(say(&mut l, Epoch(7), false, stamp(2, 0)), Grant::Granted, "in another epoch nothing was said yet");
}
