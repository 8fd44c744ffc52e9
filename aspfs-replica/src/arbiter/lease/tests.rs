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
    l.over(&mut disk, P).unwrap();
    assert_eq!(l.join(&mut disk, Epoch(12), B, Epoch(9), s(2)), Join::NotYet(s(9)), "about another node");
    l.over(&mut disk, A).unwrap();
    assert_eq!(l.join(&mut disk, Epoch(12), B, Epoch(9), s(2)), Join::Joined);
}
