//! The window, from outside.

use std::time::Duration;

use crate::cluster_of;
use crate::setup::{VE, Writer, boot, records};

/// A writer that wants far more than the link takes is slowed, not walled in, and when the node is lost everything that was answered more than
/// a window before is on the replica: by the stamps of a program that knows nothing of replication (checks G14, G15).
#[test]
fn a_slow_link_bounds_what_is_lost() {
    let mut cluster = cluster_of!(2);
    let root = cluster.replicated(&["--window", "2s", "--at-window", "stall"]);
    cluster.network.limit(1, 1000);
    let writer = Writer::start(&root.join("stamps"), 4096);
    std::thread::sleep(Duration::from_secs(12));
    let rows = cluster.status(0);
    assert!(rows.iter().all(|r| ["protected", "stalled"].contains(&r.state.as_str())), "{rows:?}");
    cluster.network.set_link(1, false);
    cluster.nodes[0].kill();
    let lost = boot();
    cluster.nodes[1].aspfs(&["promote", VE, "--old-primary-is-off"]).ok();
    let there = cluster.mount(1);
    let survived = records(&there.join("stamps")).len() as u64;
    // The writer still waits on the old mount: it is answered when its node is back and hears that another one writes.
    cluster.network.set_link(1, true);
    cluster.nodes[0].up();
    let answered: Vec<(u64, Duration)> = writer.end().into_iter().filter(|(_, at)| *at <= lost).collect();
    let last = answered.last().map(|(_, at)| *at).expect("something was written");
    let bound = last.saturating_sub(Duration::from_secs(2));
    let missing = answered.iter().find(|(n, at)| *n > survived && *at < bound);
    assert!(missing.is_none(), "{missing:?} is lost, the last answer was at {last:?}");
    assert!(survived > 100, "{survived} records");
}

/// Without its replica a VE that stalls holds its writers and no reader; when the replica is back they go on (checks G16).
#[test]
fn a_stalled_ve_is_read_and_goes_on() {
    let cluster = cluster_of!(2);
    let root = cluster.replicated(&["--window", "1s", "--at-window", "stall"]);
    std::fs::write(root.join("before"), "readable").unwrap();
    cluster.network.set_link(2, false);
    let writer = Writer::start(&root.join("stamps"), 64);
    cluster.wait(0, "the stall", |rows| rows.iter().any(|r| r.state == "stalled"));
    assert_eq!(std::fs::read_to_string(root.join("before")).unwrap(), "readable");
    cluster.network.set_link(2, true);
    cluster.wait(0, "protection", |rows| rows.iter().all(|r| r.state == "protected"));
    let before = std::fs::metadata(root.join("stamps")).unwrap().len();
    cluster.wait(0, "more", |_| std::fs::metadata(root.join("stamps")).unwrap().len() > before);
    let answered = writer.end();
    assert!(records(&root.join("stamps")).len() >= answered.len());
}

/// On a link where a piece of a large write takes longer than the time after which a node counts as silent, the piece arrives nevertheless, and what
/// is written after it is not kept from the replica by it: bulk has its own stream. On one stream every session ended within the piece (checks G14).
#[test]
fn a_piece_of_bulk_may_take_longer_than_silence() {
    let mut cluster = cluster_of!(2);
    let root = cluster.replicated(&["--window", "60s"]);
    cluster.network.limit(1, 150);
    let bytes: Vec<u8> = (0..8192u32).flat_map(|n| vefs::ids::Hash::of(&n.to_le_bytes()).0).collect();
    let begin = boot();
    std::fs::write(root.join("bulk"), &bytes).unwrap();
    cluster.wait(0, "exposure", |rows| rows.iter().any(|r| r.behind_bytes.is_some_and(|b| b > 0)));
    cluster.wait(0, "bulk", |rows| rows.iter().all(|r| r.behind_bytes == Some(0)));
    assert!(boot() - begin > Duration::from_secs(8), "the link was not slow");
    cluster.network.limit(1, 1_000_000);
    cluster.nodes[0].kill();
    cluster.nodes[1].aspfs(&["promote", VE, "--old-primary-is-off"]).ok();
    assert!(std::fs::read(cluster.mount(1).join("bulk")).unwrap() == bytes, "other bytes");
}
