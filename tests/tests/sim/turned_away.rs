//! What a replica and a primary refuse, with the reason's name, and that nothing changes by it.

use std::time::Duration;

use aspfs_replica::apply::{Action, Receiver};
use aspfs_replica::log::{Follower, Log};
use aspfs_replica::node::NodeId;
use aspfs_replica::session::Closed;
use aspfs_replica::ship::{Event, Sender};
use aspfs_replica::wire::{Envelope, Message, Refusal};
use vefs::ids::{Epoch, Hash, Lineage, TxnNo, VeId};

use crate::double::{Bug, Copy};

pub(super) const VE: VeId = VeId(7);
type Edit = fn(&mut Envelope, &mut Message);

pub(super) const T: Duration = Duration::ZERO;

/// Carries frames until neither side has anything to say. `edit` may change what the primary sends.
fn converse(
    log: &Copy,
    sender: &mut Sender,
    follower: &mut Copy,
    receiver: &mut Receiver,
    edit: &mut dyn FnMut(&mut Envelope, &mut Message),
) -> (Vec<Event>, Vec<Action>) {
    let (mut events, mut all) = (vec![], vec![]);
    for _ in 0..1000 {
        let mut quiet = true;
        let next = sender.poll(log, T).unwrap();
        if let Some((mut envelope, mut message)) = next.or_else(|| sender.poll_bulk(log, T).unwrap()) {
            quiet = false;
            edit(&mut envelope, &mut message);
            let mut actions = receiver.receive(follower, &envelope, message, T);
            while let Some(Action::Sync) = actions.last() {
                let outcome = follower.sync();
                actions = receiver.synced(follower, outcome);
            }
            all.extend(actions);
        }
        while let Some((envelope, message)) = receiver.poll(follower, T) {
            quiet = false;
            events.extend(sender.receive(log, &envelope, message, T));
        }
        if quiet {
            break;
        }
    }
    (events, all)
}

fn primary(epoch: u64, txns: u8, byte: u8) -> Copy {
    let mut log = Copy::new(Bug::None);
    log.epoch = Epoch(epoch);
    (0..txns).for_each(|n| drop(log.write(&[vec![n; 10], vec![byte; 5000]])));
    log.flush();
    log
}

pub(super) struct Side {
    pub sender: Sender,
    session: u64,
}

impl Side {
    pub fn new() -> Side {
        Side { sender: Sender::new(NodeId([1; 16]), VE, 1 << 20), session: 0 }
    }

    pub fn talk(&mut self, log: &Copy, f: &mut Copy, r: &mut Receiver) -> (Vec<Event>, Vec<Action>) {
        self.talk_edited(log, f, r, &mut |_, _| {})
    }

    pub fn talk_edited(
        &mut self,
        log: &Copy,
        f: &mut Copy,
        r: &mut Receiver,
        edit: &mut dyn FnMut(&mut Envelope, &mut Message),
    ) -> (Vec<Event>, Vec<Action>) {
        self.session += 1;
        self.sender.connect(log, self.session, T);
        converse(log, &mut self.sender, f, r, edit)
    }
}

pub(super) fn replica() -> (Copy, Receiver) {
    (Copy::new(Bug::None), Receiver::new(NodeId([2; 16]), VE))
}

/// An old primary that comes back is told so, and nothing of its tail is taken (checks G10, G18).
#[test]
fn a_lower_epoch_is_turned_away() {
    let (mut f, mut r) = replica();
    let mut new = primary(4, 3, 1);
    new.epoch = Epoch(5);
    Side::new().talk(&new, &mut f, &mut r);
    assert_eq!((f.durable, f.epoch), (3, Epoch(5)));
    let old = primary(4, 4, 1);
    let (events, _) = Side::new().talk(&old, &mut f, &mut r);
    assert!(events.contains(&Event::HigherEpoch(Epoch(5))), "{events:?}");
    assert_eq!((f.txns.len(), r.refusals()[&Refusal::OldEpoch]), (3, 1));
    // With the check left out the tail is taken: what the test above would see.
    f.bug = Bug::SkipEpoch;
    Side::new().talk(&old, &mut f, &mut r);
    assert_eq!(f.txns.len(), 4, "the planted bug does nothing");
}

/// A tail written before a restart keeps its epoch and is shipped in the new one.
#[test]
fn a_restarted_primary_ships_its_old_tail() {
    let (mut f, mut r) = replica();
    let mut log = primary(1, 4, 1);
    log.epoch = Epoch(2);
    drop(log.write(&[vec![1; 10]]));
    log.flush();
    let (events, _) = Side::new().talk(&log, &mut f, &mut r);
    assert_eq!(events.last(), Some(&Event::Acked(Log::durable(&log))));
    assert_eq!((f.durable, f.epoch), (5, Epoch(2)));
}

#[test]
fn another_history_is_not_continued() {
    let (mut f, mut r) = replica();
    Side::new().talk(&primary(1, 3, 1), &mut f, &mut r);
    let before = f.txns.clone();
    let (events, _) = Side::new().talk(&primary(2, 5, 2), &mut f, &mut r);
    assert!(matches!(events[0], Event::Diverged(_)), "{events:?}");
    // A primary that lost what its replica has is no prefix's owner either.
    let (events, _) = Side::new().talk(&primary(3, 2, 1), &mut f, &mut r);
    assert!(matches!(events[0], Event::Diverged(_)), "{events:?}");
    let mut log = primary(4, 9, 1);
    log.floor = 5;
    let (events, _) = Side::new().talk(&log, &mut f, &mut r);
    assert!(matches!(events[..], [Event::NeedsCatchUp(_), Event::Closed(_)]), "{events:?}");
    assert_eq!(f.txns, before);
}

/// A stranger is refused before its epoch is noted (checks G10, G23).
#[test]
fn a_stranger_raises_no_epoch() {
    let (mut f, mut r) = replica();
    let log = primary(1000, 1, 1);
    let edits: [(Edit, Refusal); 2] = [
        (
            |_, m| {
                if let Message::Hello(h) = m {
                    h.position.lineage = Lineage([1; 16])
                }
            },
            Refusal::ForeignLineage,
        ),
        (
            |_, m| {
                if let Message::Hello(h) = m {
                    h.base = Hash([7; 32])
                }
            },
            Refusal::ForeignBase,
        ),
    ];
    for (edit, why) in edits {
        let (_, actions) = Side::new().talk_edited(&log, &mut f, &mut r, &mut { edit });
        assert_eq!(actions, [Action::TurnedAway(1, why)]);
        assert_eq!((f.epoch, f.txns.len()), (Epoch(1), 0));
    }
    Side::new().talk(&primary(1, 2, 1), &mut f, &mut r);
    assert_eq!(f.durable, 2, "the rightful primary is served");
}

/// Every way to say something wrong within a session has its name, and takes nothing (checks G10, G29). A payload that had come in damaged
/// was kept staged, announced in the next session and so found corrupt for ever.
#[test]
fn hostile_sessions_are_closed_by_name() {
    let cases: [(Edit, Refusal); 9] = [
        (|e, _| e.seq += u64::from(e.seq > 1), Refusal::Gap),
        (
            |_, m| {
                if let Message::Begin(b) = m {
                    b.position.txn.0 += 1
                }
            },
            Refusal::NotNext,
        ),
        (
            |_, m| {
                if let Message::Begin(b) = m {
                    b.previous = Hash([3; 32])
                }
            },
            Refusal::NotNext,
        ),
        (
            |_, m| {
                if let Message::Begin(b) = m {
                    b.position.epoch = Epoch(99)
                }
            },
            Refusal::NotNext,
        ),
        (
            |_, m| {
                if let Message::Begin(b) = m {
                    b.position.lineage = Lineage([3; 16])
                }
            },
            Refusal::ForeignLineage,
        ),
        (
            |_, m| {
                if let Message::Begin(b) = m {
                    b.records = 1
                }
            },
            Refusal::TooLarge,
        ),
        (
            |_, m| {
                if let Message::Chunk(c) = m {
                    c.id.offset += 1
                }
            },
            Refusal::PayloadMissing,
        ),
        (
            |_, m| {
                if let Message::Chunk(c) = m {
                    c.bytes[0] ^= 1
                }
            },
            Refusal::Corrupt,
        ),
        (
            |_, m| {
                if let Message::Records(_) = m {
                    *m = Message::End(vec![])
                }
            },
            Refusal::OutOfTurn,
        ),
    ];
    for (n, (edit, why)) in cases.into_iter().enumerate() {
        let (mut f, mut r) = replica();
        Side::new().talk_edited(&primary(1, 2, 1), &mut f, &mut r, &mut { edit });
        assert_eq!(r.refusals().keys().collect::<Vec<_>>(), [&why], "case {n}");
        assert_eq!(f.txns.len(), 0, "case {n}");
        let mut again = Side { session: 10, ..Side::new() };
        again.talk(&primary(1, 2, 1), &mut f, &mut r);
        assert_eq!(f.durable, 2, "case {n}: the next session goes on");
    }
}

/// An acknowledgement of what was never sent ends the session (checks G11).
#[test]
fn a_false_ack_counts_nothing() {
    let log = primary(1, 2, 1);
    let (mut f, mut r) = replica();
    let mut side = Side::new();
    side.talk(&log, &mut f, &mut r);
    let mut lie = Log::durable(&log);
    lie.chain = Hash([0; 32]);
    // Hello, Welcome and two acknowledgements have passed: the next frame of the replica is number 3.
    let envelope = Envelope { ve: Some(VE), epoch: Epoch(1), session: 1, seq: 3 };
    let events = side.sender.receive(&log, &envelope, Message::Ack(lie), T);
    assert!(matches!(events[..], [Event::Closed(_)]), "{events:?}");
    assert_eq!(side.sender.acked(), Some(Log::durable(&log)));
}

/// A replica whose store was lost says that it is not ready, and pulls a state, for hours maybe: what it had acknowledged counted on (checks G14).
#[test]
fn a_replica_that_has_nothing_acknowledged_nothing() {
    let log = primary(1, 2, 1);
    let (mut f, mut r) = replica();
    let mut side = Side::new();
    side.talk(&log, &mut f, &mut r);
    assert_eq!(side.sender.acked(), Some(Log::durable(&log)));
    let mut not_ready = |session, at| {
        side.sender.connect(&log, session, T);
        let envelope = Envelope { ve: Some(VE), epoch: Epoch(1), session, seq: 0 };
        let events = side.sender.receive(&log, &envelope, Message::Refused(Refusal::NotReady, at), T);
        (events, side.sender.acked())
    };
    // One that has its state until another one is there has what it acknowledged.
    let (events, acked) = not_ready(2, Log::durable(&log).txn);
    assert!(matches!(events[..], [Event::Closed(Closed::TheyRefused(..))]), "{events:?}");
    assert_eq!(acked, Some(Log::durable(&log)));
    let (events, acked) = not_ready(3, TxnNo(0));
    assert!(matches!(events[..], [Event::HasNothing, Event::Closed(Closed::TheyRefused(..))]), "{events:?}");
    assert_eq!(acked, None);
}

/// A replica that sends pings and takes nothing had the primary keep an answer to each: it keeps the newest one (checks G29).
#[test]
fn pings_that_are_not_answered_yet_take_no_room() {
    let log = primary(1, 0, 1);
    let (mut f, mut r) = replica();
    let mut side = Side::new();
    side.talk(&log, &mut f, &mut r);
    for n in 0..1000 {
        // Its Welcome has passed.
        let envelope = Envelope { ve: Some(VE), epoch: Epoch(1), session: 1, seq: 1 + n };
        assert_eq!(side.sender.receive(&log, &envelope, Message::Ping(n), T), []);
    }
    let said: Vec<_> = std::iter::from_fn(|| side.sender.poll(&log, T).unwrap()).map(|(_, m)| m).collect();
    assert_eq!(said, [Message::Pong(999)]);
}

/// A refusal at the highest number that there is ended the task that ships by an overflow: nothing was shipped to that replica any more, and nobody said so
/// (checks G29).
#[test]
fn a_refusal_at_the_highest_transaction_is_one_like_others() {
    let log = primary(1, 2, 1);
    let (mut f, mut r) = replica();
    let mut side = Side::new();
    side.sender.connect(&log, 1, T);
    let envelope = Envelope { ve: Some(VE), epoch: Epoch(1), session: 1, seq: 0 };
    let refused = Message::Refused(Refusal::Corrupt, TxnNo(u64::MAX));
    let events = side.sender.receive(&log, &envelope, refused, T);
    assert!(matches!(events[..], [Event::Closed(Closed::TheyRefused(Refusal::Corrupt, _))]), "{events:?}");
    side.session = 1;
    side.talk(&log, &mut f, &mut r);
    assert_eq!(f.durable, 2);
}

/// The journal is recycled under a replica that is slow, and whose cursor lost its hold: the session ended in silence, with pings for ever.
/// It is told, and so is the primary (checks G17).
#[test]
fn a_history_recycled_under_a_session_ends_it() {
    let (mut f, mut r) = replica();
    let mut log = primary(1, 2, 1);
    let mut side = Side::new();
    side.talk(&log, &mut f, &mut r);
    assert_eq!(f.durable, 2);
    (0..4).for_each(|n| drop(log.write(&[vec![n; 10]])));
    log.flush();
    log.floor = 5;
    let (events, actions) = converse(&log, &mut side.sender, &mut f, &mut r, &mut |_, _| {});
    let late = side.sender.tick(T);
    assert!(events.is_empty() && matches!(late[..], [Event::NeedsCatchUp(_), Event::Closed(_)]), "{events:?} {late:?}");
    assert!(matches!(actions[..], [Action::Closed(Closed::TheyRefused(Refusal::TooOld, _))]), "{actions:?}");
    assert_eq!(f.txns.len(), 2);
}

/// A store that made a transaction durable by itself, when what it had in memory became too much, needed no flush any more, and the replica said
/// nothing until the next transaction came: the primary counted it as exposed for as long as nobody wrote (checks G11, G14).
#[test]
fn what_the_store_makes_durable_is_acknowledged() {
    let (mut f, mut r) = replica();
    f.eager = true;
    let log = primary(1, 3, 1);
    let mut side = Side::new();
    let (_, actions) = side.talk(&log, &mut f, &mut r);
    assert!(actions.is_empty(), "{actions:?}");
    assert_eq!(side.sender.acked(), Some(Log::durable(&log)));
}
