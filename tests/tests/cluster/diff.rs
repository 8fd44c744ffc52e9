//! Versions compared where a VE is not written: on a replica, and between what a returning node had put aside and what replaced it.

use aspfs_tests::node::Node;

use crate::cluster_of;
use crate::setup::VE;

fn newest(node: &Node) -> u64 {
    let rows: serde_json::Value = serde_json::from_str(&node.aspfs(&["--json", "versions", VE]).ok()).unwrap();
    rows.as_array().and_then(|rows| rows.last()).map_or(0, |row| row["txn"].as_u64().unwrap())
}

fn diff(node: &Node, from: &str, to: &str) -> Vec<String> {
    node.aspfs(&["diff", &format!("{VE}{from}"), &format!("{VE}{to}")]).ok().lines().map(str::to_owned).collect()
}

/// checks G22: the branch of a node that comes back, compared with the fork, is what that node had alone, and nothing else.
#[test]
fn the_lost_tail_is_told_path_by_path() {
    let mut cluster = cluster_of!(2);
    let root = cluster.replicated(&[]);
    std::fs::create_dir(root.join("d")).unwrap();
    for n in 0..200 {
        std::fs::write(root.join(format!("d/{n}")), n.to_string()).unwrap();
    }
    std::fs::write(root.join("big"), vec![b'1'; 2 << 20]).unwrap();
    std::fs::write(root.join("small"), "before").unwrap();
    let first = newest(&cluster.nodes[0]);
    std::fs::write(root.join("d/7"), "seven").unwrap();
    let second = newest(&cluster.nodes[0]);
    cluster.wait(0, "the replica", |rows| rows.iter().all(|r| r.acked_txn.is_some_and(|txn| txn >= second)));
    let told = ["M /d/7  content 1 -> 5 bytes", "0 added, 0 removed, 1 changed, 0 renamed"];
    for node in &cluster.nodes {
        assert_eq!(diff(node, &format!("@{first}"), &format!("@{second}")), told);
        assert_eq!(diff(node, &format!("@{first}"), ""), told);
    }

    // The first node is cut off, goes on alone for a while, and dies.
    cluster.network.set_link(1, false);
    std::fs::write(root.join("lost"), "nobody else has it").unwrap();
    std::fs::rename(root.join("small"), root.join("d/moved")).unwrap();
    std::fs::write(root.join("big"), vec![b'2'; 2 << 20]).unwrap();
    std::fs::remove_file(root.join("d/8")).unwrap();
    newest(&cluster.nodes[0]);
    cluster.nodes[0].kill();
    let promoted = cluster.nodes[1].aspfs(&["--json", "promote", VE, "--old-primary-is-off"]).ok();
    let promoted: serde_json::Value = serde_json::from_str(&promoted).unwrap();
    let fork = promoted["fork_txn"].as_u64().unwrap();
    let there = cluster.mount(1);
    // It gets the inode number that the lost one had.
    std::fs::write(there.join("new"), "written by the second node").unwrap();
    std::fs::write(there.join("d/9"), "nine").unwrap();
    cluster.network.set_link(1, true);
    cluster.nodes[0].up();
    cluster.wait(1, "the old primary to follow", |rows| rows.iter().all(|r| r.state == "protected" && r.connected));

    let one = &cluster.nodes[0];
    let branches: serde_json::Value = serde_json::from_str(&one.aspfs(&["--json", "branch", "list", VE]).ok()).unwrap();
    let branch = branches[0]["name"].as_str().unwrap();
    let tail =
        ["M /big  content", "D /d/8", "R /small -> /d/moved", "A /lost", "1 added, 1 removed, 1 changed, 1 renamed"];
    assert_eq!(diff(one, &format!("@{branch}:{fork}"), &format!("@{branch}")), tail);
    let apart = [
        "M /big  content",
        "A /d/8",
        "M /d/9  content 1 -> 4 bytes",
        "D /lost",
        "A /new",
        "R /d/moved -> /small",
        "2 added, 1 removed, 2 changed, 1 renamed",
    ];
    assert_eq!(diff(one, &format!("@{branch}"), ""), apart);
    let theirs = ["M /d/9  content 1 -> 4 bytes", "A /new", "1 added, 0 removed, 1 changed, 0 renamed"];
    assert_eq!(diff(one, &format!("@{branch}:{fork}"), ""), theirs);
    one.aspfs(&["branch", "remove", VE, branch]).ok();
    one.aspfs(&["diff", &format!("{VE}@{branch}")]).fails(1, &["no hold and no branch"]);
}
