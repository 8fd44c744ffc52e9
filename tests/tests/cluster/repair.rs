//! What rots on one node is put right with another one's bytes.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aspfs_tests::node::Node;
use aspfs_tools::control::scrub::ScrubRow;

use crate::cluster_of;
use crate::setup::VE;

/// How long a repair may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => files(&entry.path(), out),
            false => out.push(entry.path()),
        }
    }
}

/// The one file in a folder of a node's store that is like this.
fn one(node: &Node, dir: &str, like: impl Fn(&Path) -> bool) -> PathBuf {
    let mut all = vec![];
    files(&node.path("store").join(dir), &mut all);
    all.retain(|path| like(path));
    assert_eq!(all.len(), 1, "{dir}: {all:?}");
    all.remove(0)
}

fn flip(path: &Path, at: u64) {
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

/// Lets the node check itself, again and again, until something more was repaired and nothing is damaged.
fn repaired(node: &Node, more_than: u64) -> ScrubRow {
    let begin = Instant::now();
    loop {
        let row: ScrubRow = serde_json::from_str(&node.aspfs(&["--json", "scrub", "--now"]).ok()).unwrap();
        if row.repaired > more_than && row.damage.is_empty() {
            return row;
        }
        assert!(begin.elapsed() < PATIENCE, "not repaired: {row:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A bit of an object and one of a base tree flip, on the replica and on the primary: the scrub finds them, and the other node's bytes take their
/// place (checks G24).
#[test]
fn what_rots_on_one_node_is_repaired_from_the_other() {
    let cluster = cluster_of!(2);
    let source = cluster.nodes[0].folder("source");
    let body: String = (0..60_000u32).map(|n| format!("{:05}", n.wrapping_mul(2_654_435_761) % 99_991)).collect();
    std::fs::write(source.join("big"), &body).unwrap();
    cluster.nodes[0].aspfs(&["template", "import", "t", source.to_str().unwrap()]).ok();
    let root = cluster.replicated(&["--template", "t"]);
    for node in [&cluster.nodes[1], &cluster.nodes[0]] {
        let object = one(node, "objects", |path| path.metadata().unwrap().len() == body.len() as u64);
        let tree = one(node, "bases", |path| path.extension().is_some_and(|e| e == "tree"));
        for (before, path) in [object, tree].into_iter().enumerate() {
            let good = std::fs::read(&path).unwrap();
            flip(&path, good.len() as u64 / 2);
            let row = repaired(node, before as u64);
            assert_eq!(row.repaired, before as u64 + 1);
            assert!(std::fs::read(&path).unwrap() == good, "{path:?} is not what it was");
        }
        assert!(node.aspfs(&["cat", VE, "/big"]).ok() == body, "the file reads otherwise");
    }
    assert!(std::fs::read_to_string(root.join("big")).unwrap() == body, "the mounted file reads otherwise");
}

/// What no other node has whole stays damaged, is listed, and answers an error, never wrong bytes (checks G24).
#[test]
fn what_is_damaged_everywhere_stays_so() {
    let cluster = cluster_of!(2);
    let source = cluster.nodes[0].folder("source");
    let body = "0123456789".repeat(30_000);
    std::fs::write(source.join("big"), &body).unwrap();
    cluster.nodes[0].aspfs(&["template", "import", "t", source.to_str().unwrap()]).ok();
    cluster.replicated(&["--template", "t"]);
    let objects: Vec<PathBuf> = (cluster.nodes.iter())
        .map(|node| one(node, "objects", |path| path.metadata().unwrap().len() == body.len() as u64))
        .collect();
    objects.iter().for_each(|path| flip(path, 5));
    let node = &cluster.nodes[1];
    let begin = Instant::now();
    loop {
        let row: ScrubRow = serde_json::from_str(&node.aspfs(&["--json", "scrub", "--now"]).ok()).unwrap();
        // The log has it once the other node was asked.
        let log = std::fs::read_to_string(node.path("log")).unwrap();
        let asked = log.contains("no other node that answers has it whole");
        if asked && row.damage.iter().any(|bad| bad.kind == "object") {
            assert_eq!(row.repaired, 0);
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "not found: {row:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_ne!(node.aspfs(&["cat", VE, "/big"]).status, 0, "damaged bytes were read");
}
