//! A node is lost, another one takes over, the first comes back.

use std::io::Write;

use crate::cluster_of;
use crate::setup::{Cluster, VE, Writer, boot, records};

/// The primary's daemon is killed under a writer and its link is cut; the replica is promoted. What it has is whole and not older than the
/// window, the old primary's tail is a branch, and it follows (checks G9, G14, G18, G21, G22).
#[test]
fn a_replica_takes_over_from_a_killed_node() {
    let mut cluster = cluster_of!(2);
    let root = cluster.replicated(&["--window", "5s"]);
    let writer = Writer::start(&root.join("stamps"), 64);
    std::thread::sleep(std::time::Duration::from_secs(2));
    cluster.wait(0, "protection under load", |rows| rows.iter().all(|r| r.state == "protected"));
    cluster.network.set_link(1, false);
    let cut = boot();
    cluster.nodes[0].kill();
    let two = &cluster.nodes[1];
    two.aspfs(&["promote", VE]).fails(1, &["--old-primary-is-off"]);
    two.aspfs(&["promote", VE, "--old-primary-is-off"]).ok();
    let there = cluster.mount(1);
    let stamps = records(&there.join("stamps"));
    let newest = stamps.last().copied().expect("something was shipped");
    assert!(cut.saturating_sub(newest).as_secs() < 5, "the newest change is {:?} old", cut - newest);
    std::fs::write(there.join("after"), "written by the second node").unwrap();

    cluster.network.set_link(1, true);
    cluster.nodes[0].up();
    let answered = writer.end();
    assert!(answered.len() >= stamps.len(), "more came over than was answered or under way");
    cluster.wait(1, "the old primary to follow", |rows| rows.iter().all(|r| r.state == "protected" && r.connected));
    let one = &cluster.nodes[0];
    let show = one.aspfs(&["ve", "show", VE]).ok();
    assert!(show.contains("replica"), "{show}");
    assert!(std::fs::write(root.join("mine"), "no").is_err(), "the old mount takes no changes");
    let branches = one.aspfs(&["--json", "branch", "list", VE]).ok();
    assert!(branches.contains("epoch-0."), "{branches}");
    let after = one.aspfs(&["cat", VE, "/after"]).ok();
    assert_eq!(after, "written by the second node");
    one.aspfs(&["mount", VE, "/mnt"]).fails(1, &["follows another node"]);
}

/// Another replica has more: a promotion is refused, and with `--force` it says how much that is, exactly, before it does anything (checks G21).
#[test]
fn what_a_forced_promotion_loses_is_listed_first() {
    let mut cluster = cluster_of!(3);
    let root = cluster.replicated(&["--window", "60s"]);
    std::fs::write(root.join("both"), "on both").unwrap();
    cluster.wait(0, "the file", |rows| rows.iter().all(|r| r.behind_txns == Some(0)));
    cluster.network.set_link(2, false);
    for n in 0..3 {
        std::fs::write(root.join(format!("lost-{n}")), vec![b'x'; 1000]).unwrap();
    }
    cluster.wait(0, "the third node", |rows| {
        rows.iter().any(|r| r.node.as_deref() == Some("node-3") && r.behind_txns == Some(0))
    });
    cluster.network.set_link(1, false);
    cluster.nodes[0].kill();
    cluster.network.set_link(2, true);
    let two = &cluster.nodes[1];
    two.aspfs(&["promote", VE, "--old-primary-is-off"]).fails(1, &["has more"]);
    // Three files, and the folder that they are in.
    let lost = ["node-3", "4 files", "2.93K", "node-1 (wrote it)", "does not answer"];
    two.aspfs(&["promote", VE, "--old-primary-is-off", "--force"]).fails(2, &[&lost[..], &["--yes"]].concat());
    assert!(two.aspfs(&["ve", "show", VE]).ok().contains("replica"), "it was promoted without an answer");
    let done = two.aspfs(&["promote", VE, "--old-primary-is-off", "--force", "--yes"]);
    assert!(lost.iter().all(|part| done.err.contains(part)), "{done:?}");
    done.ok();
    let there = cluster.mount(1);
    assert!(there.join("both").exists() && !there.join("lost-0").exists());
    cluster.wait(1, "the third node to follow", |rows| {
        rows.iter().any(|r| r.node.as_deref() == Some("node-3") && r.connected && r.behind_txns == Some(0))
    });
    assert!(cluster.nodes[2].aspfs(&["--json", "branch", "list", VE]).ok().contains("epoch-0."));
}

/// A planned hand-over under a writer: it is refused at some point, and everything that was answered is on the other node (checks G18).
#[test]
fn nothing_is_lost_by_a_hand_over() {
    let cluster = cluster_of!(2);
    let root = cluster.replicated(&["--window", "10s", "--at-window", "stall"]);
    let writer = Writer::start(&root.join("stamps"), 200);
    std::thread::sleep(std::time::Duration::from_secs(1));
    cluster.nodes[0].aspfs(&["switchover", VE, "node-3"]).fails(1, &["node-3"]);
    cluster.nodes[0].aspfs(&["switchover", VE, "node-2"]).ok();
    let answered = writer.end();
    let there = cluster.mount(1);
    let stamps = records(&there.join("stamps"));
    assert!(!answered.is_empty() && stamps.len() >= answered.len(), "{} of {} are there", stamps.len(), answered.len());
    cluster.wait(1, "the old primary to follow", |rows| rows.iter().all(|r| r.state == "protected" && r.connected));
    std::fs::write(there.join("more"), "more").unwrap();
    // After a pass of its scrub the follower has compared itself with the writer (checks G13).
    cluster.nodes[0].aspfs(&["scrub", "--now"]).ok();
    cluster.wait(0, "a comparison", |rows| rows.iter().any(|r| r.compared_equal.is_some()));
    let rows = cluster.status(0);
    assert!(rows.iter().all(|r| r.compared_equal != Some(false) && r.differences == 0), "{rows:?}");
}

/// A VE was handed over and came back while its mount stayed where it was. Neither a program that mounts what this node writes again, nor anybody who typed
/// `aspfs mount`, could do so until somebody had unmounted what was left, which is attached in mount namespaces that nobody sees. What was left answers errors, and
/// the kernel's names, sizes and pages of before are not those of the next mount (checks G2, G11).
#[test]
fn a_mount_that_was_left_makes_room() {
    let mut cluster = cluster_of!(2);
    let root = cluster.replicated(&["--window", "10s"]);
    std::fs::write(root.join("log"), "one\n").unwrap();
    let mut open = std::fs::File::options().append(true).open(root.join("log")).unwrap();
    let stays = |open: &mut std::fs::File| open.write_all(b"lost\n").and_then(|()| open.sync_all());
    let there_and_back = |cluster: &mut Cluster<2>, line: &str| {
        cluster.nodes[0].aspfs(&["switchover", VE, "node-2"]).ok();
        let there = cluster.mount(1);
        let log = std::fs::read_to_string(there.join("log")).unwrap();
        std::fs::write(there.join("log"), log + line).unwrap();
        cluster.nodes[1].aspfs(&["umount", VE]).ok();
        cluster.nodes[1].aspfs(&["switchover", VE, "node-1"]).ok();
    };
    there_and_back(&mut cluster, "two\n");
    assert_eq!(std::fs::read(root.join("log")).unwrap_err().raw_os_error(), Some(libc::EIO));
    let status = cluster.nodes[0].aspfs(&["--json", "status"]).ok();
    assert!(status.contains("another node has changed it"), "{status}");
    // At the same place.
    assert_eq!(cluster.mount(0), root);
    assert!(stays(&mut open).is_err(), "a file of the mount that was left can be written");
    let append = |line: &str| {
        let mut log = std::fs::File::options().append(true).open(root.join("log")).unwrap();
        log.write_all(line.as_bytes()).unwrap();
    };
    append("three\n");
    there_and_back(&mut cluster, "four\n");
    // Nor does it come back with the next daemon.
    cluster.nodes[0].kill();
    cluster.nodes[0].up();
    // At another place: nothing stays at the one before.
    let dir = cluster.nodes[0].folder("elsewhere");
    cluster.nodes[0].aspfs(&["mount", VE, dir.to_str().unwrap()]).ok();
    assert_eq!(std::fs::read_to_string(dir.join("log")).unwrap(), "one\ntwo\nthree\nfour\n");
    assert_eq!(
        std::fs::read_dir(&root).unwrap().count(),
        0,
        "the place is as it was before anything was mounted there"
    );
    cluster.nodes[0].aspfs(&["mount", VE, root.to_str().unwrap()]).fails(1, &["is mounted at", "elsewhere"]);
    cluster.nodes[0].aspfs(&["umount", VE]).ok();
}

/// A daemon began before its node had the address on which others are to find it, as at boot: it never replicated anything until somebody started it anew.
#[test]
fn an_address_that_comes_late_is_listened_on() {
    let mut cluster = cluster_of!(2);
    let root = cluster.replicated(&["--window", "10s"]);
    cluster.nodes[1].kill();
    cluster.network.set_address(2, false);
    let listen = format!("{}:7447", cluster.network.address(2));
    cluster.nodes[1].flags().extend(["--listen".into(), listen]);
    cluster.nodes[1].up();
    cluster.nodes[1].aspfs(&["node", "list"]).fails(1, &["replication did not start"]);
    std::fs::write(root.join("after"), "after").unwrap();
    cluster.network.set_address(2, true);
    cluster.wait(0, "the replica", |rows| rows.iter().all(|r| r.connected && r.behind_txns == Some(0)));
    assert_eq!(cluster.nodes[1].aspfs(&["cat", VE, "/after"]).ok(), "after");
}

/// A node that was thrown out of the cluster gets nothing any more (checks G30).
#[test]
fn a_revoked_node_gets_nothing() {
    let cluster = cluster_of!(3);
    let root = cluster.replicated(&["--window", "10s"]);
    cluster.nodes[0].aspfs(&["node", "revoke", "node-3"]).ok();
    std::fs::write(root.join("secret"), "not for node 3").unwrap();
    cluster.wait(0, "the second node", |rows| {
        rows.iter().any(|r| r.node.as_deref() == Some("node-2") && r.behind_txns == Some(0))
    });
    cluster.nodes[2].aspfs(&["cat", VE, "/secret"]).fails(1, &["secret"]);
    assert_eq!(cluster.nodes[1].aspfs(&["cat", VE, "/secret"]).ok(), "not for node 3");
    let rows = cluster.status(0);
    let thrown = rows.iter().find(|r| r.node.as_deref() != Some("node-2")).unwrap();
    assert!(!thrown.connected, "{thrown:?}");
}
