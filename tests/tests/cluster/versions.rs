//! Versions mounted where a VE is not written: on a replica, and of what a returning node had put aside.

use std::path::{Path, PathBuf};

use aspfs_tests::node::Node;

use crate::cluster_of;
use crate::setup::VE;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn newest(node: &Node) -> u64 {
    let rows: serde_json::Value = serde_json::from_str(&node.aspfs(&["--json", "versions", VE]).ok()).unwrap();
    rows.as_array().and_then(|rows| rows.last()).map_or(0, |row| row["txn"].as_u64().unwrap())
}

fn mounted(node: &Node, version: &str, dir: &str) -> PathBuf {
    let dir = node.folder(dir);
    node.aspfs(&["mount", &format!("{VE}@{version}"), text(&dir)]).ok();
    dir
}

fn read(path: PathBuf) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// A version is mounted on a replica while the VE goes on elsewhere, over a kill of the replica's daemon; and on the node that wrote it, over
/// the loss of that node, its return and the rewind of what it had. The tail that it had alone is mounted as a branch (checks G22, G25).
#[test]
fn versions_are_mounted_on_replicas_and_of_branches() {
    let mut cluster = cluster_of!(2);
    let root = cluster.replicated(&[]);
    std::fs::write(root.join("f"), "first").unwrap();
    std::fs::write(root.join("big"), vec![b'1'; 2 << 20]).unwrap();
    let first = newest(&cluster.nodes[0]);
    cluster.wait(0, "the replica", |rows| rows.iter().all(|r| r.acked_txn.is_some_and(|txn| txn >= first)));
    let here = mounted(&cluster.nodes[0], &first.to_string(), "here");
    let there = mounted(&cluster.nodes[1], &first.to_string(), "there");
    let same = |dir: &Path| {
        assert_eq!(read(dir.join("f")), "first");
        assert!(std::fs::read(dir.join("big")).unwrap() == vec![b'1'; 2 << 20]);
        assert!(std::fs::write(dir.join("f"), "no").is_err());
    };
    same(&there);
    let listed = cluster.nodes[1].aspfs(&["hold", "list", VE]).ok();
    assert!(listed.contains(&format!("mount {first}")), "{listed}");
    assert!(!cluster.nodes[1].aspfs(&["hold", "list", VE]).ok().contains("node-1"), "holds of mounts do not travel");
    std::fs::write(root.join("f"), "second").unwrap();
    std::fs::write(root.join("big"), vec![b'2'; 2 << 20]).unwrap();
    let second = newest(&cluster.nodes[0]);
    cluster.wait(0, "the replica", |rows| rows.iter().all(|r| r.acked_txn.is_some_and(|txn| txn >= second)));
    cluster.nodes[1].aspfs(&["gc"]).ok();
    same(&there);
    cluster.nodes[1].kill();
    cluster.nodes[1].up();
    cluster.nodes[1].aspfs(&["gc"]).ok();
    same(&there);

    // The first node is cut off, goes on alone for a while, and dies.
    cluster.network.set_link(1, false);
    std::fs::write(root.join("f"), "the tail").unwrap();
    newest(&cluster.nodes[0]);
    cluster.nodes[0].kill();
    cluster.nodes[1].aspfs(&["promote", VE, "--old-primary-is-off"]).ok();
    let written = cluster.mount(1);
    assert_eq!(read(written.join("f")), "second");
    same(&there);
    std::fs::write(written.join("f"), "third").unwrap();
    cluster.network.set_link(1, true);
    cluster.nodes[0].up();
    cluster.wait(1, "the old primary to follow", |rows| rows.iter().all(|r| r.state == "protected" && r.connected));
    let one = &cluster.nodes[0];
    // What it is a version of has another name by now.
    same(&here);
    one.aspfs(&["gc"]).ok();
    same(&here);
    let branches: serde_json::Value = serde_json::from_str(&one.aspfs(&["--json", "branch", "list", VE]).ok()).unwrap();
    let branch = branches[0]["name"].as_str().unwrap().to_owned();
    let end = branches[0]["txn"].as_u64().unwrap();
    let tail = mounted(one, &branch, "tail");
    assert_eq!(read(tail.join("f")), "the tail");
    let of_branch = format!("{VE}@{branch}");
    assert_eq!(one.aspfs(&["cat", &of_branch, "/f"]).ok(), "the tail");
    assert_eq!(one.aspfs(&["cat", &format!("{of_branch}:{first}"), "/f"]).ok(), "first");
    let listed = one.aspfs(&["versions", &of_branch]).ok();
    assert!(listed.contains(&first.to_string()) && listed.contains(&end.to_string()), "{listed}");
    one.aspfs(&["cat", &of_branch, "/f", "--at", "1"]).fails(2, &["one version"]);
    let fork = mounted(one, &format!("{branch}:{first}"), "fork");
    same(&fork);
    let now = mounted(one, &newest(one).to_string(), "now");
    assert_eq!(read(now.join("f")), "third");
    let shown = one.aspfs(&["status"]).ok();
    assert!(shown.contains(&format!("{VE}@{branch}:{end} is mounted at {}", text(&tail))), "{shown}");

    one.aspfs(&["branch", "remove", VE, &branch]).fails(1, &["is mounted"]);
    cluster.nodes[0].kill();
    cluster.nodes[0].up();
    let one = &cluster.nodes[0];
    same(&here);
    same(&fork);
    assert_eq!(read(tail.join("f")), "the tail");
    for what in [format!("{VE}@{branch}"), format!("{VE}@{branch}:{first}"), text(&here).into(), text(&now).into()] {
        one.umount(&what);
    }
    one.aspfs(&["branch", "remove", VE, &branch]).ok();
    assert!(!one.aspfs(&["hold", "list", VE]).ok().contains("mount"));
}
