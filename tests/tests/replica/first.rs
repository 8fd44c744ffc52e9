//! A node that wrote a VE starts again.

use vefs::change::AtWindow;
use vefs::format::role::RoleKind;
use vefs::ve::Verdict;

use super::nodes::{Node, VE, file, nodes, replicated, same, wait};

/// Two nodes, of which the first wrote a VE that the second has all of, and is off.
fn stopped() -> [Node; 2] {
    let [mut a, b] = nodes();
    let ve = replicated(&a, &[&b], AtWindow::Degrade);
    file(&ve, "before", &[1; 1000]).unwrap();
    ve.commit().unwrap();
    wait("the replica", || a.acked(b.id()));
    drop(ve);
    a.stop();
    [a, b]
}

/// A node was off, and another one was promoted. When it was back it had programs write until it was greeted: what they had been answered was put aside as a
/// branch (checks G18, G22).
#[test]
fn who_was_away_asks_before_it_writes() {
    let [mut a, b] = stopped();
    b.runtime().promote(VE, true, false).unwrap();
    file(&b.ve(), "after", &[2; 1000]).unwrap();
    b.ve().commit().unwrap();
    a.start();
    let mut looks = 0;
    wait("that it follows", || {
        let ve = a.ve();
        // As whoever mounts does first.
        a.runtime().refresh(&ve).unwrap();
        assert_ne!(ve.admit(1), Verdict::Go, "look {looks}: programs write in epoch {}", ve.epoch().0);
        looks += 1;
        ve.role().kind == RoleKind::Replica
    });
    wait("the new writer's changes", || b.acked(a.id()));
    same(&a, &b);
}

/// With nobody to ask it writes: its replicas may be away.
#[test]
fn who_finds_nobody_writes() {
    let [mut a, mut b] = stopped();
    b.stop();
    a.start();
    a.runtime().refresh(&a.ve()).unwrap();
    wait("the right to write", || a.ve().admit(1) == Verdict::Go);
    file(&a.ve(), "alone", b"answered").unwrap();
    a.ve().commit().unwrap();
    b.start();
    wait("the replica again", || a.acked(b.id()));
    same(&a, &b);
}
