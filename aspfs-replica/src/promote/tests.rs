//! What is decided on what was heard. The orders of events, losses and crashes are the simulator's.

use std::time::Duration;

use super::*;
use crate::member::{No, Part, Question, Reply, Standing};
use vefs::ids::{Lineage, TxnNo, VeId};

const ME: NodeId = NodeId([1; 16]);
const OLD: NodeId = NodeId([2; 16]);
const OTHER: NodeId = NodeId([3; 16]);
const T: Duration = Duration::ZERO;

fn position(epoch: u64, txn: u64) -> Position {
    Position { lineage: Lineage([5; 16]), epoch: Epoch(epoch), txn: TxnNo(txn), chain: Hash([txn as u8; 32]) }
}

fn standing(part: Part, epoch: u64, txn: u64) -> Standing {
    Standing { part, position: position(epoch, txn), epoch: Epoch(epoch), successor: None, lagging: None }
}

fn candidate(txn: u64) -> Candidate {
    Candidate {
        ve: VeId(7),
        me: ME,
        mine: standing(Part::Replica, 1, txn),
        members: [ME, OLD, OTHER].into(),
        lessors: [ME, OTHER].into(),
        known: Some(position(1, 12)),
        leases: false,
    }
}

fn statement(above: u64) -> Grounds {
    Grounds::Statement { old: OLD, above: Epoch(above) }
}

fn hear(p: &mut Promotion, node: NodeId, s: Option<Standing>) -> Vec<Action> {
    p.step(Event::Replied(node, s.map(Reply::Standing)), T)
}

/// The word is recorded, the objects are looked at, the role is durable, and only then is anything written (checks G21).
#[test]
fn a_promotion_goes_step_by_step() {
    let mut p = Promotion::new(candidate(10), statement(0), false);
    assert_eq!(p.step(Event::Tick, T).len(), 2, "both others are asked");
    assert_eq!(p.step(Event::Tick, T), []);
    assert_eq!(hear(&mut p, OTHER, Some(standing(Part::Replica, 1, 9))), []);
    assert_eq!(hear(&mut p, OLD, None), [Action::Record(OLD)]);
    assert_eq!(p.step(Event::Recorded, T), [Action::Verify]);
    let role = p.step(Event::Verified(true), T);
    let [Action::WriteRole(epoch, fork)] = role[..] else { panic!("{role:?}") };
    assert_eq!((epoch.term(), fork), (1, position(1, 10)));
    let opened = p.step(Event::RoleWritten, T);
    assert_eq!(opened[0], Action::Open(Chosen { epoch, fork, lost: Some(2) }), "the old one was heard of at 12");
    assert!(matches!(opened[1..], [Action::Ask(_, Question::Promoted(..)), Action::Ask(_, Question::Promoted(..))]));
    assert_eq!(p.step(Event::RoleWritten, T), [], "once");
    let mut p = Promotion::new(candidate(10), statement(0), false);
    hear(&mut p, OTHER, None);
    hear(&mut p, OLD, None);
    p.step(Event::Recorded, T);
    assert_eq!(p.step(Event::Verified(false), T), [Action::Refuse(Refused::ObjectMissing)]);
}

/// The longest history is chosen, by epoch and then by number, and a primary that answers is none to be replaced (checks G18, G21).
#[test]
fn a_later_head_is_promoted_instead() {
    let refused = |s: Standing, forced| {
        let mut p = Promotion::new(candidate(10), statement(0), forced);
        hear(&mut p, OLD, None);
        hear(&mut p, OTHER, Some(s))
    };
    let later = standing(Part::Replica, 1, 11);
    assert_eq!(refused(later, false), [Action::Refuse(Refused::Later(OTHER, later.position))]);
    assert_eq!(refused(later, true), [Action::Record(OLD)], "a person insists");
    let higher = standing(Part::Superseded, 2, 5);
    assert_eq!(refused(higher, false), [Action::Refuse(Refused::Later(OTHER, higher.position))]);
    let writes = standing(Part::Primary, 1, 5);
    assert_eq!(refused(writes, false), [Action::Refuse(Refused::Written(OTHER, Epoch(1)))]);
}

/// An epoch is above every one heard of, one that a successor may have taken included, and differs between nodes (checks G13, G18).
#[test]
fn an_epoch_is_above_all() {
    let epoch = |s: Standing, above| {
        let mut p = Promotion::new(candidate(10), statement(above), false);
        hear(&mut p, OLD, None);
        hear(&mut p, OTHER, Some(s));
        p.step(Event::Recorded, T);
        match p.step(Event::Verified(true), T)[..] {
            [Action::WriteRole(epoch, _)] => epoch,
            ref other => panic!("{other:?}"),
        }
    };
    let heard = Standing { epoch: Epoch(3 << 32), ..standing(Part::Replica, 1, 9) };
    assert_eq!(epoch(heard, 0).term(), 4);
    assert_eq!(epoch(heard, 7 << 32).term(), 8);
    let named = Standing { successor: Some(OLD), ..heard };
    assert!(epoch(named, 0) > next_epoch(Epoch(3 << 32), OLD));
    assert_ne!(next_epoch(Epoch(1), ME), next_epoch(Epoch(1), OTHER));
    assert!(next_epoch(Epoch(u64::from(u32::MAX)), ME).0 >> 32 == 1, "restarts stay within a term");
}

/// While a VE lags only the node that has everything is promoted by itself, or one that has as much (checks G16).
#[test]
fn lagging_keeps_others_back() {
    let outcome = |lagging, heard: Option<Standing>, grounds, forced| {
        let mut p = Promotion::new(candidate(10), grounds, forced);
        hear(&mut p, OLD, heard);
        hear(&mut p, OTHER, Some(Standing { lagging, ..standing(Part::Replica, 1, 9) }))
    };
    let old = |txn| Some(standing(Part::Superseded, 1, txn));
    assert_eq!(outcome(Some(OLD), None, Grounds::Leases, false), [Action::Refuse(Refused::Lags(Some(2)))]);
    let goes_on = |actions: Vec<Action>| matches!(actions[..], [Action::Ask(OTHER, Question::Join(_))]);
    assert!(goes_on(outcome(Some(OLD), old(10), Grounds::Leases, false)));
    assert!(matches!(outcome(Some(OLD), old(11), Grounds::Leases, false)[..], [Action::Refuse(Refused::Later(..))]));
    assert!(goes_on(outcome(Some(ME), None, Grounds::Leases, false)));
    assert!(goes_on(outcome(Some(OLD), None, Grounds::Leases, true)));
    assert_eq!(outcome(Some(OLD), None, statement(0), false), [Action::Record(OLD)], "a person's word");
}

/// Joining freezes heads: one that was later than it seemed, or lagging that was recorded meanwhile, ends it (checks G16, G21).
#[test]
fn lessors_are_heard_again_when_they_join() {
    let joined = |position, lagging| {
        let mut p = Promotion::new(candidate(10), Grounds::Leases, false);
        hear(&mut p, OLD, None);
        hear(&mut p, OTHER, Some(standing(Part::Replica, 1, 9)));
        // This node joins last: an epoch that it joined and does not get would keep it from whoever gets his.
        let last = p.step(Event::Replied(OTHER, Some(Reply::Joined(position, lagging))), T);
        assert!(matches!(last[..], [Action::JoinHere(_)]), "{last:?}");
        p.step(Event::JoinedHere(Reply::Joined(candidate(10).mine.position, None)), T)
    };
    assert_eq!(joined(position(1, 10), None), [Action::Verify]);
    assert_eq!(joined(position(1, 11), None), [Action::Refuse(Refused::Later(OTHER, position(1, 11)))]);
    assert_eq!(joined(position(1, 9), Some(OLD)), [Action::Refuse(Refused::Lags(Some(2)))]);
    let mut p = Promotion::new(candidate(10), Grounds::Leases, false);
    hear(&mut p, OLD, None);
    hear(&mut p, OTHER, None);
    let first = p.epoch();
    p.step(Event::Replied(OTHER, Some(Reply::Joined(position(1, 9), None))), T);
    let higher = p.step(Event::JoinedHere(Reply::No(No::Epoch(Epoch(8 << 32)))), T);
    assert!(matches!(higher[..], [Action::Ask(OTHER, Question::Join(e))] if e.term() == 9 && p.epoch() == Some(e)));
    assert!(first < p.epoch(), "who joined before is asked anew");
}

/// A successor takes what it was given; by leases it needs the majority like everybody (checks G18). Without that, a third node that was promoted
/// meanwhile and wrote was buried by the successor's higher epoch.
#[test]
fn a_successor_asks_whoever_may_know() {
    let named = Standing { successor: Some(ME), ..standing(Part::Replica, 1, 10) };
    let outcome = |leases, other: Option<Standing>| {
        let candidate = Candidate { leases, ..candidate(10) };
        let mut p = Promotion::new(candidate, Grounds::SteppedDown, false);
        hear(&mut p, OLD, Some(named));
        hear(&mut p, OTHER, other)
    };
    assert_eq!(outcome(false, Some(standing(Part::Replica, 1, 9))), [Action::Verify]);
    assert_eq!(outcome(false, None), [Action::Refuse(Refused::NoMajority)]);
    let joins = outcome(true, None);
    let epoch = next_epoch(Epoch(1), ME);
    assert_eq!(joins, [Action::Ask(OTHER, Question::Join(epoch))]);
    let other = Standing { successor: Some(OTHER), ..named };
    let mut p = Promotion::new(candidate(10), Grounds::SteppedDown, false);
    hear(&mut p, OLD, Some(other));
    assert_eq!(hear(&mut p, OTHER, None), [Action::Refuse(Refused::NotForUs)]);
}

/// A primary that starts asks everybody, and a higher epoch ends it (checks G18).
#[test]
fn a_primary_that_starts_asks_first() {
    let mut boot = Boot::new(Lineage([5; 16]), Epoch(4), [OTHER, OLD]);
    assert_eq!(boot.tick(T).len(), 2);
    assert_eq!(boot.replied(OTHER, &Reply::Standing(standing(Part::Replica, 4, 9))), []);
    assert_eq!(boot.replied(OTHER, &Reply::Standing(standing(Part::Replica, 4, 9))), []);
    let last = Reply::Standing(standing(Part::Replica, 4, 9));
    assert_eq!(boot.replied(OLD, &last), [BootAction::Open(Epoch(5))]);
    assert_eq!((boot.stated(), boot.tick(T)), (vec![], vec![]), "once");
    let mut boot = Boot::new(Lineage([5; 16]), Epoch(4), [OTHER]);
    let higher = Reply::Standing(standing(Part::Primary, 5, 9));
    assert_eq!(boot.replied(OTHER, &higher), [BootAction::Superseded(OTHER, Epoch(5))]);
    assert_eq!(boot.stated(), [], "no word helps against what is known");
}

/// A tail is kept unless it is known to be none (checks G22).
#[test]
fn a_tail_gets_a_name() {
    use back::{Back, branch_name, decide};
    let own = position(7 << 32 | 2, 30);
    let name = Some("epoch-7.2-txn-30".to_owned());
    assert_eq!(branch_name(&own), name.clone().unwrap());
    let at = |position, beyond, fork| decide(&own, &Reply::At { position, beyond, fork });
    let fork = position(7 << 32 | 2, 40);
    assert_eq!(at(Some(own), false, fork), Back::Follow);
    assert_eq!(at(Some(position(8 << 32, 30)), false, fork), Back::Pull(name.clone()));
    assert_eq!(at(None, true, fork), Back::Pull(name.clone()));
    assert_eq!(at(None, false, fork), Back::Pull(None), "written by the same writer, before the fork");
    assert_eq!(at(None, false, position(7 << 32 | 2, 29)), Back::Pull(name.clone()), "behind the fork");
    assert_eq!(at(None, false, position(7 << 32 | 3, 40)), Back::Pull(name), "nobody knows");
    assert_eq!(decide(&own, &Reply::No(No::Part)), Back::Ask);
}

/// Who is asked to take over does so at the very head, once, and only if nobody can have been promoted meanwhile (checks G18, G21).
#[test]
fn taking_over_is_for_the_one_at_the_head() {
    let own = standing(Part::Replica, 1, 10);
    let next = next_epoch(Epoch(1), ME);
    assert_eq!(take(&own, next, &position(1, 10), true), Take::Begin(next));
    assert_eq!(take(&own, next, &position(1, 10), false), Take::Ask);
    assert_eq!(take(&own, next, &position(1, 11), true), Take::No(No::Position));
    assert_eq!(take(&own, Epoch(1), &position(1, 10), true), Take::No(No::Epoch(Epoch(1))));
    let writes = Standing { epoch: next.restarted(), ..standing(Part::Primary, 1, 12) };
    assert_eq!(take(&writes, next, &position(1, 10), true), Take::Already);
    let stranger = Position { lineage: Lineage([6; 16]), ..position(1, 10) };
    assert_eq!(take(&own, next, &stranger, true), Take::No(No::Stranger));
}
