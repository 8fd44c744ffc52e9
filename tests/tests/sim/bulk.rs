//! Bulk has a stream of its own: what of it comes later than the records that wait for it, and what is not waited for.

use aspfs_replica::apply::{Action, Receiver};
use aspfs_replica::log::{Follower, Log};
use aspfs_replica::session::Closed;
use aspfs_replica::ship::Event;
use aspfs_replica::wire::{Begin, Envelope, Message, Refusal, WirePayload, WireRecord};
use vefs::ids::{Epoch, Hash, PayloadId, TxnNo};

use crate::double::{Bug, Copy};
use crate::turned_away::{Side, T, VE, replica};

type Frames = Vec<(Envelope, Message)>;

/// All that the primary has to say now: records, and bulk.
fn said(side: &mut Side, log: &Copy) -> (Frames, Frames) {
    let (mut records, mut bulk) = (vec![], vec![]);
    loop {
        let (r, b) = (side.sender.poll(log, T).unwrap(), side.sender.poll_bulk(log, T).unwrap());
        if r.is_none() && b.is_none() {
            return (records, bulk);
        }
        records.extend(r);
        bulk.extend(b);
    }
}

/// The replica takes frames and flushes what came.
fn take(f: &mut Copy, r: &mut Receiver, frames: Frames) -> Vec<Action> {
    let mut all = vec![];
    for (envelope, message) in frames {
        let mut actions = r.receive(f, &envelope, message, T);
        while let Some(Action::Sync) = actions.last() {
            let outcome = f.sync();
            actions = r.synced(f, outcome);
        }
        all.extend(actions);
    }
    all
}

fn answer(side: &mut Side, log: &Copy, f: &Copy, r: &mut Receiver) -> Vec<Event> {
    let mut events = vec![];
    while let Some((envelope, message)) = r.poll(f, T) {
        events.extend(side.sender.receive(log, &envelope, message, T));
    }
    events
}

/// A session of a primary and a replica that has nothing.
fn greeted() -> (Side, Copy, Receiver) {
    let ((mut f, mut r), mut side) = (replica(), Side::new());
    side.talk(&Copy::new(Bug::None), &mut f, &mut r);
    (side, f, r)
}

/// Records that overtake their bulk wait for it, and all that comes behind them, in order (checks G10, G11).
#[test]
fn what_overtakes_its_bulk_waits_for_it() {
    let mut log = Copy::new(Bug::None);
    log.write(&[vec![1; 10], vec![2; 600_000]]);
    log.write(&[vec![3; 10]]);
    log.write(&[vec![4; 300_000], vec![5; 5000]]);
    log.flush();
    let (mut side, mut f, mut r) = greeted();
    let (records, bulk) = said(&mut side, &log);
    assert_eq!((records.len(), bulk.len()), (9, 6));

    assert_eq!(take(&mut f, &mut r, records), []);
    assert_eq!(answer(&mut side, &log, &f, &mut r), []);
    assert_eq!(f.txns.len(), 0, "nothing of a transaction is taken before its bulk");
    let mut there = vec![];
    for frame in bulk {
        take(&mut f, &mut r, vec![frame]);
        there.push(f.durable);
    }
    assert_eq!(there, [0, 0, 2, 2, 2, 3]);
    let events = answer(&mut side, &log, &f, &mut r);
    assert_eq!(events.last(), Some(&Event::Acked(Log::durable(&log))));
    assert!(f.txns == log.txns && r.refusals().is_empty(), "{:?}", r.refusals());
}

/// A small transaction does not wait for the bulk of a later one, however much of that went before it (checks G14).
#[test]
fn bulk_of_a_later_transaction_is_not_waited_for() {
    let mut log = Copy::new(Bug::None);
    log.write(&[vec![1; 10]]);
    let (mut side, mut f, mut r) = greeted();
    for (id, len) in log.write(&[vec![2; 900_000]]) {
        side.sender.written(id, len);
    }
    let early: Frames = (0..4).filter_map(|_| side.sender.poll_bulk(&log, T).unwrap()).collect();
    assert_eq!(early.len(), 4, "it travels before it is durable");
    log.durable = 1;
    let (records, more) = said(&mut side, &log);
    let begin = records.iter().find_map(|(_, m)| if let Message::Begin(b) = m { Some(b.bulk) } else { None });
    assert_eq!((begin, more.len()), (Some(0), 0));
    take(&mut f, &mut r, records);
    assert_eq!(f.durable, 1);

    log.flush();
    let (records, more) = said(&mut side, &log);
    take(&mut f, &mut r, records);
    assert_eq!((f.durable, more.len()), (1, 0), "nothing is sent twice");
    take(&mut f, &mut r, early);
    assert_eq!(f.durable, 2);
    let events = answer(&mut side, &log, &f, &mut r);
    assert_eq!(events.last(), Some(&Event::Acked(Log::durable(&log))));
}

/// A link may be slower than a chunk in the time after which the other side counts as silent. On one stream nothing was heard behind the chunk: the
/// session ended, the next one began with the same chunk, and a VE with bulk was never shipped (checks G14, G20).
#[test]
fn a_slow_chunk_is_no_silence() {
    let mut log = Copy::new(Bug::None);
    log.write(&[vec![1; 200_000]]);
    log.flush();
    let (mut side, mut f, mut r) = greeted();
    let (records, bulk) = said(&mut side, &log);
    take(&mut f, &mut r, records);
    // The chunk is under way for half a minute.
    for second in 1..=30 {
        let now = std::time::Duration::from_secs(second);
        let events = side.sender.tick(now);
        assert!(events.is_empty() && r.tick(now).is_empty(), "second {second}: {events:?}");
        while let Some((envelope, message)) = side.sender.poll(&log, now).unwrap() {
            r.receive(&mut f, &envelope, message, now);
        }
        while let Some((envelope, message)) = r.poll(&f, now) {
            side.sender.receive(&log, &envelope, message, now);
        }
    }
    take(&mut f, &mut r, bulk);
    assert_eq!(f.durable, 1);
}

/// That a payload was written may be told after its transaction has been read: its bytes were sent behind the transaction, which the replica
/// refused, and the session ended (checks G10).
#[test]
fn what_is_told_late_is_not_sent_again() {
    let mut log = Copy::new(Bug::None);
    let (mut side, mut f, mut r) = greeted();
    for len in [600_000, 5000] {
        let written = log.write(&[vec![1; len]]);
        log.flush();
        let (records, bulk) = said(&mut side, &log);
        take(&mut f, &mut r, bulk);
        take(&mut f, &mut r, records);
        answer(&mut side, &log, &f, &mut r);
        written.into_iter().for_each(|(id, len)| side.sender.written(id, len));
        assert_eq!(said(&mut side, &log), (vec![], vec![]), "after {len} bytes");
    }
    assert_eq!(f.durable, 2);
}

/// A chunk that is lost while its stream goes on shows by the number of the next one; behind the last chunk there was none, and the transaction
/// waited for it for ever (checks G10, G14).
#[test]
fn the_last_chunk_lost_is_noticed() {
    let mut log = Copy::new(Bug::None);
    log.write(&[vec![1; 300_000]]);
    log.flush();
    let (mut side, mut f, mut r) = greeted();
    let (records, mut bulk) = said(&mut side, &log);
    bulk.pop();
    take(&mut f, &mut r, records);
    take(&mut f, &mut r, bulk);
    let now = std::time::Duration::from_secs(1);
    side.sender.tick(now);
    let ping = side.sender.poll_bulk(&log, now).unwrap();
    let actions = take(&mut f, &mut r, ping.into_iter().collect());
    assert!(matches!(actions[..], [Action::Closed(Closed::Refused(Refusal::Gap, _))]), "{actions:?}");
    side.talk(&log, &mut f, &mut r);
    assert_eq!(f.durable, 1);
    // Where all has come nobody asks.
    side.sender.tick(now * 9);
    assert_eq!(side.sender.poll_bulk(&log, now * 9).unwrap(), None);
}

/// A session's end takes what was parked with it; the next one begins anew, with other numbers (checks G10).
#[test]
fn what_is_parked_goes_with_its_session() {
    let mut log = Copy::new(Bug::None);
    log.write(&[vec![1; 600_000]]);
    log.flush();
    let (mut side, mut f, mut r) = greeted();
    let (records, bulk) = said(&mut side, &log);
    take(&mut f, &mut r, records);
    r.disconnected();
    side.talk(&log, &mut f, &mut r);
    assert_eq!(f.durable, 1);
    take(&mut f, &mut r, bulk);
    assert!(f.txns == log.txns && r.refusals().is_empty(), "{:?}", r.refusals());
}

/// Under a limit of a few kilobytes a second a piece of 256 KiB took longer than a session may be silent, and a ping waited behind it: the session ended, the
/// next one began with the same piece, and the transaction never went. Pieces are as small as the limit wants, and a ping goes before what waits
/// (checks G14, G20).
#[test]
fn under_a_limit_pieces_are_small_and_pings_go_first() {
    let mut log = Copy::new(Bug::None);
    let records: Vec<Vec<u8>> = (0..100).map(|n| vec![n; 900]).collect();
    log.write(&records);
    log.elsewhere.clear();
    log.write(&[vec![2; 200_000]]);
    log.flush();
    let (mut side, mut f, mut r) = greeted();
    side.sender.set_piece(5000);
    let first = side.sender.poll(&log, T).unwrap();
    assert!(matches!(first, Some((_, Message::Begin(_)))) && !side.sender.has_word());
    let now = std::time::Duration::from_secs(1);
    assert_eq!(side.sender.tick(now), []);
    assert!(side.sender.has_word());
    let ping = side.sender.poll(&log, now).unwrap();
    assert!(matches!(ping, Some((_, Message::Ping(_)))) && !side.sender.has_word());
    let (rest, bulk) = said(&mut side, &log);
    let sizes = |frames: &Frames| frames.iter().map(|(_, m)| m.cost()).max();
    assert!(sizes(&rest) < Some(5500) && sizes(&bulk) < Some(5500), "{:?} {:?}", sizes(&rest), sizes(&bulk));
    take(&mut f, &mut r, bulk);
    take(&mut f, &mut r, first.into_iter().chain(ping).chain(rest).collect());
    assert!(f.durable == 2 && r.refusals().is_empty(), "{:?}", r.refusals());
    // The limit is a session's.
    side.talk(&log, &mut f, &mut r);
    log.write(&[vec![3; 200_000]]);
    log.flush();
    let (_, bulk) = said(&mut side, &log);
    assert_eq!(bulk.len(), 1);
}

/// A state that was pulled took the place of one with bulk put aside, and the primary was told that this is there still: it was not sent, and the transaction
/// was refused (checks G10).
#[test]
fn what_is_put_aside_goes_with_its_store() {
    let mut log = Copy::new(Bug::None);
    let (mut side, mut f, mut r) = greeted();
    log.write(&[vec![1; 100_000]]).into_iter().for_each(|(id, len)| side.sender.written(id, len));
    let (_, early) = said(&mut side, &log);
    assert_eq!(early.len(), 1);
    take(&mut f, &mut r, early);
    log.flush();
    let (mut f, _) = replica();
    r.replaced();
    side.talk(&log, &mut f, &mut r);
    assert!(f.durable == 1 && r.refusals().is_empty(), "{:?}", r.refusals());
}

/// A primary that lets transactions wait for chunks that never come is held to a number of bytes (checks G29).
#[test]
fn what_is_parked_is_bounded() {
    let (_, mut f, mut r) = greeted();
    let head = f.head();
    let envelope = |seq| Envelope { ve: Some(VE), epoch: Epoch(1), session: 1, seq };
    let position = vefs::ids::Position { txn: TxnNo(1), epoch: Epoch(1), ..head };
    let begin = Begin { position, previous: head.chain, records: 100_000, bulk: 1 };
    assert_eq!(r.receive(&mut f, &envelope(1), Message::Begin(begin), T), []);
    let large = || WireRecord { body: vec![1], payload: Some(WirePayload::Inline(vec![0; 4 << 20])) };
    let refused = |n: &u64| !r.receive(&mut f, &envelope(1 + n), Message::Records(vec![large()]), T).is_empty();
    let taken = (1..).find(refused);
    assert_eq!(taken, Some(384 / 4), "64 MiB that may be under way, and the largest transaction of 320 MiB");
    assert_eq!(r.refusals()[&Refusal::TooLarge], 1);
}

/// A payload that is named and was not sent is missing, whatever number of chunks came (checks G10).
#[test]
fn a_payload_that_never_came_is_missing() {
    let (mut f, mut r) = replica();
    let mut log = Copy::new(Bug::None);
    log.write(&[vec![1; 5000]]);
    log.flush();
    Side::new().talk_edited(&log, &mut f, &mut r, &mut |_, m| {
        if let Message::Chunk(c) = m {
            c.id = PayloadId { offset: c.id.offset + 1, ..c.id };
        }
    });
    assert_eq!(r.refusals().keys().collect::<Vec<_>>(), [&Refusal::PayloadMissing]);
    assert_eq!((f.txns.len(), f.head().chain), (0, Hash([0; 32])));
}
