//! A VE that is not here, whose writer greets again before its state has come.

use std::sync::Arc;
use std::time::Duration;

use aspfs_replica::runtime::with_replica;
use aspfs_replica::wire::{Message, Refusal};
use aspfs_tests::harness::empty_tree;
use vefs::change::{Policy, ReplicaOf, Settings};

use super::nodes::{VE, file, nodes, wait};
use super::strangers::Hostile;

/// Whoever greets is told that the VE is not here, and a moment later its state is pulled. A second greeting within that moment pulled it again when
/// the first pull was over: what had come, been opened and acknowledged was replaced by what might be older (checks G9, G11).
#[test]
fn a_second_greeting_pulls_no_second_state() {
    let [a, b] = nodes();
    let ve = a.store().create_ve(VE, empty_tree(), Settings::default()).unwrap();
    let replica = ReplicaOf { node: b.id().0, required: true, bandwidth: 0 };
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
