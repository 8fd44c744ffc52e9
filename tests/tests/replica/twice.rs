//! What is said twice, since the answer was slow or lost.

use std::sync::Arc;
use std::time::Duration;

use aspfs_replica::runtime::{Question, Reply, with_replica};
use aspfs_replica::wire::{Message, Refusal};
use aspfs_tests::harness::empty_tree;
use vefs::change::{AtWindow, Need, Policy, ReplicaOf, Settings};
use vefs::ids::{Epoch, Position, TxnNo};

use super::alike::noise;
use super::nodes::{VE, file, nodes, replicated, wait};
use super::strangers::Hostile;

/// Whoever greets is told that the VE is not here, and a moment later its state is pulled. A second greeting within that moment pulled it again when
/// the first pull was over: what had come, been opened and acknowledged was replaced by what might be older (checks G9, G11).
#[test]
fn a_second_greeting_pulls_no_second_state() {
    let [a, b] = nodes();
    let ve = a.store().create_ve(VE, empty_tree(), Settings::default()).unwrap();
    let replica = ReplicaOf { node: b.id().0, need: Need::Required, bandwidth: 0 };
    // It is not shipped by itself: what is said to the other node is said here.
    ve.set_policy(Policy { writer: a.id().0, ..with_replica(&Policy::default(), replica) }).unwrap();
    file(&ve, "f", b"whole").unwrap();
    ve.commit().unwrap();
    let (epoch, position, base) = (ve.epoch(), ve.durable_position(), ve.identity().base);
    let writer = Hostile::new(&a.cluster);
    std::thread::scope(|scope| {
        for delay in [0, 170] {
            let writer = &writer;
            let to = b.id();
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(delay));
                let said = writer.greet(to, epoch, position, base);
                assert!(matches!(said, Message::Refused(Refusal::NotReady, _)), "{said:?}");
            });
        }
    });
    wait("the state", || b.store().has_ve(VE) && b.ve().durable_position() == position);
    let first = b.ve();
    std::thread::sleep(Duration::from_secs(2));
    assert!(Arc::ptr_eq(&first, &b.ve()), "what had come was replaced");
}

/// Under a limit of 20 kB/s each piece of a file took five seconds, and a ping waited behind two of them: the session ended in silence, again and again
/// (checks G14, G20).
#[test]
fn a_low_limit_ends_no_session() {
    let [a, b] = nodes();
    let ve = a.store().create_ve(VE, empty_tree(), Settings::default()).unwrap();
    let replica = ReplicaOf { node: b.id().0, need: Need::Required, bandwidth: 20_000 };
    ve.set_policy(with_replica(&Policy::default(), replica)).unwrap();
    ve.commit().unwrap();
    a.runtime().refresh(&ve).unwrap();
    wait("the replica", || a.acked(b.id()));
    let noise: Vec<u8> = (0..10).flat_map(noise).collect();
    file(&ve, "f", &noise).unwrap();
    ve.commit().unwrap();
    wait("the file", || a.acked(b.id()));
    let figures = a.runtime().figures(VE).and_then(|f| f.led).unwrap();
    let connected = figures.1.iter().find_map(|r| r.link.connected);
    assert!(connected > Some(10), "one session carried it: {connected:?}");
}

/// A primary that had stepped down asked its successor once to take over, for three seconds. On a slow disk that was not enough: the successor wrote,
/// the administrator was told that none did, and asking again would have been refused, upon which the old primary wrote, too (checks G18, G19).
#[test]
fn a_second_request_to_take_over_changes_nothing() {
    let [mut a, b] = nodes();
    let ve = replicated(&a, &[&b], AtWindow::Degrade);
    file(&ve, "one", b"1").unwrap();
    ve.commit().unwrap();
    wait("the replica", || a.acked(b.id()));
    let (epoch, position) = (ve.epoch(), ve.durable_position());
    drop(ve);
    a.stop();
    let writer = Hostile::new(&a.cluster);
    let ask = |position: Position, epoch: Epoch| writer.ask(b.id(), Question::TakeOver { ve: VE, position, epoch });
    let Reply::Taken(taken) = ask(position, epoch) else { panic!("it did not take over") };
    assert_eq!(taken.term(), epoch.term() + 1);
    assert!(matches!(ask(position, epoch), Reply::Taken(e) if e == taken));
    file(&b.ve(), "two", b"2").unwrap();
    b.ve().commit().unwrap();
    assert!(matches!(ask(position, epoch), Reply::Taken(e) if e == taken));
    // What is not the position that it took over at is another matter.
    let other = Position { txn: TxnNo(position.txn.0 - 1), ..position };
    assert!(matches!(ask(other, epoch), Reply::No(_)));
    assert!(matches!(ask(position, taken), Reply::No(_)));
    assert!(b.ve().is_writer() && b.ve().epoch() == taken && b.ve().fenced().is_none());
}
