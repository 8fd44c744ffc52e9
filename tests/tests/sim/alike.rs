//! Payloads that the replica has already: their hashes travel.

use aspfs_replica::apply::Action;
use aspfs_replica::log::{Follower, Log};
use aspfs_replica::session::Closed;
use aspfs_replica::ship::Event;
use aspfs_replica::wire::{Envelope, Message, Refusal, WirePayload};
use vefs::ids::{Epoch, Hash, TxnNo};

use crate::double::{Bug, Copy};
use crate::turned_away::{Side, T, VE, replica};

/// A primary whose `txns` transactions have the same payload each, beside one of its own, both inline.
fn primary(txns: u8) -> Copy {
    let mut log = Copy::new(Bug::None);
    (0..txns).for_each(|n| drop(log.write(&[vec![77; 800], vec![n; 700]])));
    log.flush();
    log
}

/// Counts payloads that travel as bytes and as hashes.
fn count(message: &Message, bytes: &mut usize, hashes: &mut usize) {
    let Message::Records(records) = message else { return };
    for record in records {
        match record.payload {
            Some(WirePayload::Inline(_)) => *bytes += 1,
            Some(WirePayload::Held(..)) => *hashes += 1,
            _ => {}
        }
    }
}

/// What came once is not sent again, whatever was forgotten meanwhile (checks G9, G13).
#[test]
fn what_is_there_does_not_travel() {
    let (mut f, mut r) = replica();
    let (mut side, log) = (Side::new(), primary(4));
    let (mut bytes, mut hashes) = (0, 0);
    side.talk_edited(&log, &mut f, &mut r, &mut |_, m| count(m, &mut bytes, &mut hashes));
    assert_eq!((f.durable, bytes, hashes), (4, 5, 3));
    assert!(f.txns == log.txns, "other records");

    // Neither knows what it had: the primary has nothing to ask for.
    let mut log = primary(6);
    log.forget();
    f.forget();
    (bytes, hashes) = (0, 0);
    side.talk_edited(&log, &mut f, &mut r, &mut |_, m| count(m, &mut bytes, &mut hashes));
    assert_eq!((f.durable, bytes, hashes), (6, 4, 0));

    // Only the replica: it says so.
    let log = primary(7);
    f.forget();
    (bytes, hashes) = (0, 0);
    side.talk_edited(&log, &mut f, &mut r, &mut |_, m| count(m, &mut bytes, &mut hashes));
    assert_eq!((f.durable, bytes, hashes), (7, 2, 0));
    assert!(f.txns == log.txns, "other records");
}

/// Bytes that were said to be there and are not end the session; in the next one those of that transaction travel.
#[test]
fn what_is_missing_comes_as_bytes() {
    let (mut f, mut r) = replica();
    let (mut side, log) = (Side::new(), primary(2));
    side.talk(&log, &mut f, &mut r);
    f.rotten = true;
    let log = primary(4);
    for done in [2, 3] {
        let (events, actions) = side.talk(&log, &mut f, &mut r);
        let missing = Closed::TheyRefused(Refusal::PayloadMissing, TxnNo(done));
        assert!(events.contains(&Event::Closed(missing)), "{events:?}");
        let told = Closed::Refused(Refusal::PayloadMissing, TxnNo(done));
        assert!(actions.contains(&Action::Closed(told)), "{actions:?}");
        assert_eq!(f.txns.len() as u64, done, "one more in each session");
    }
    side.talk(&log, &mut f, &mut r);
    assert!(f.durable == 4 && f.txns == log.txns);
    assert_eq!(r.refusals()[&Refusal::PayloadMissing], 2);
}

/// What is held stays until the transaction has come, whatever happens to where it was.
#[test]
fn what_is_held_is_kept() {
    let (mut f, _) = replica();
    let log = primary(1);
    f.receive(&log.txns[0]).unwrap();
    let (here, not) = (Hash::of(&[77; 800]), Hash::of(b"nothing"));
    assert_eq!(f.hold(&[(here, 800), (here, 799), (not, 7)]), [true, false, false]);
    f.forget();
    assert_eq!((f.held(here).unwrap().len(), f.held(not)), (800, None));
    f.release();
    assert_eq!(f.held(here), None);
}

/// An answer to no question, or of another length, ends the session (checks G29).
#[test]
fn a_false_answer_ends_the_session() {
    let log = primary(3);
    let answer = |seq| Envelope { ve: Some(VE), epoch: Epoch(1), session: 1, seq };
    // Welcome, three answers and three acknowledgements have passed.
    let (mut f, mut r) = replica();
    let mut side = Side::new();
    side.talk(&log, &mut f, &mut r);
    let events = side.sender.receive(&log, &answer(7), Message::Held(vec![true]), T);
    assert!(matches!(events[..], [Event::Closed(Closed::Refused(Refusal::OutOfTurn, _))]), "{events:?}");

    let (f, _) = replica();
    let mut side = Side::new();
    side.sender.connect(&log, 1, T);
    side.sender.poll(&log, T).unwrap();
    let position = Follower::durable(&f);
    let welcome = aspfs_replica::wire::Welcome { node: aspfs_replica::node::NodeId([2; 16]), position, staged: vec![] };
    side.sender.receive(&log, &answer(0), Message::Welcome(welcome), T);
    let (_, asked) = side.sender.poll(&log, T).unwrap().unwrap();
    let Message::Have(wanted) = asked else { panic!("{asked:?}") };
    assert!(side.sender.poll(&log, T).unwrap().is_none(), "it waits for the answer");
    let held = vec![true; wanted.len() + 1];
    let events = side.sender.receive(&log, &answer(1), Message::Held(held), T);
    assert!(matches!(events[..], [Event::Closed(Closed::Refused(Refusal::OutOfTurn, _))]), "{events:?}");
    assert_eq!(Log::durable(&log).txn, TxnNo(3));
}

/// A question in the middle of a transaction, or before the replica has said how far it is, is out of turn.
#[test]
fn a_question_out_of_turn_is_refused() {
    let (mut f, mut r) = replica();
    let (mut side, log) = (Side::new(), primary(2));
    let edit = &mut |_: &mut Envelope, m: &mut Message| {
        if matches!(m, Message::Records(_)) {
            *m = Message::Have(vec![(Hash([1; 32]), 9000)]);
        }
    };
    let (_, actions) = side.talk_edited(&log, &mut f, &mut r, edit);
    assert!(matches!(actions[..], [Action::Closed(Closed::Refused(Refusal::OutOfTurn, _))]), "{actions:?}");
    assert_eq!(f.txns.len(), 0);
}
