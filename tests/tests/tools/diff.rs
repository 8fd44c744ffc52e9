//! Two versions compared by the client. Root and `/dev/fuse` only.

use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use aspfs_tests::needs_mounts;
use aspfs_tests::node::Node;
use rustix::fs::{CWD, FileType, Mode, RenameFlags, XattrFlags, mknodat, renameat_with, setxattr};

const VE: &str = "0000002A";

/// The newest version.
fn newest(node: &Node) -> u64 {
    let rows: serde_json::Value = serde_json::from_str(&node.aspfs(&["--json", "versions", VE]).ok()).unwrap();
    rows.as_array().and_then(|rows| rows.last()).map_or(0, |row| row["txn"].as_u64().unwrap())
}

/// What differs since a version, as lines.
fn since(node: &Node, txn: u64) -> Vec<String> {
    node.aspfs(&["diff", &format!("{VE}@{txn}")]).ok().lines().map(str::to_owned).collect()
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn write_at(path: &Path, bytes: &[u8], offset: u64) {
    std::fs::File::options().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

/// A template as a tar archive would bring it.
fn template(node: &Node) {
    let root = node.folder("template");
    std::fs::create_dir_all(root.join("etc/conf.d")).unwrap();
    std::fs::write(root.join("etc/passwd"), "root\n").unwrap();
    std::fs::write(root.join("etc/hosts"), "localhost\n").unwrap();
    std::fs::write(root.join("etc/big"), vec![7; 3 << 20]).unwrap();
    symlink("passwd", root.join("etc/link")).unwrap();
    for n in 0..1000 {
        std::fs::write(root.join(format!("etc/conf.d/{n}")), n.to_string()).unwrap();
    }
    node.aspfs(&["template", "import", "small", root.to_str().unwrap()]).ok();
    node.aspfs(&["ve", "create", VE, "--template", "small"]).ok();
}

fn edit(root: &Path) {
    std::fs::write(root.join("etc/passwd"), "root\nuser\n").unwrap();
    write_at(&root.join("etc/big"), &[7; 4096], 1 << 20);
    mode(&root.join("etc/hosts"), 0o600);
    std::os::unix::fs::chown(root.join("etc/hosts"), Some(5), Some(6)).unwrap();
    setxattr(root.join("etc"), "user.note", b"x", XattrFlags::empty()).unwrap();
    std::fs::rename(root.join("etc/conf.d"), root.join("conf")).unwrap();
    std::fs::write(root.join("conf/7"), "VII").unwrap();
    std::fs::remove_file(root.join("conf/8")).unwrap();
    std::fs::hard_link(root.join("etc/passwd"), root.join("etc/users")).unwrap();
    std::fs::remove_file(root.join("etc/link")).unwrap();
    symlink("hosts", root.join("etc/link")).unwrap();
    mknodat(CWD, root.join("null"), FileType::CharacterDevice, Mode::from(0o666), rustix::fs::makedev(1, 3)).unwrap();
    std::fs::write(root.join("new\nline"), "").unwrap();
}

/// checks G22: every kind of change, told once, and in the order of paths.
#[test]
fn what_differs_between_two_versions_is_told() {
    needs_mounts!();
    let node = Node::start();
    template(&node);
    let root = node.folder("mnt");
    node.aspfs(&["mount", VE, root.to_str().unwrap()]).ok();
    std::fs::write(root.join("here"), "before").unwrap();
    let first = newest(&node);
    let none = ["0 added, 0 removed, 0 changed, 0 renamed"];
    assert_eq!(since(&node, first), none);
    edit(&root);
    let told = [
        "R /etc/conf.d -> /conf",
        "M /conf/7  content 1 -> 3 bytes",
        "M /etc  xattr",
        "M /etc/big  mtime",
        "D /etc/conf.d/8",
        "M /etc/hosts  mode 0644 -> 0600, owner 0:0 -> 5:6",
        "M /etc/link  content 6 -> 5 bytes",
        "M /etc/passwd  content 5 -> 10 bytes",
        "A /etc/users  another name of what was there",
        "A \"/new\\x0aline\"",
        "A /null  character device",
        "3 added, 1 removed, 6 changed, 1 renamed",
    ];
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    let lines = since(&node, first);
    assert_eq!(sorted(lines.clone()), sorted(told.map(str::to_owned).to_vec()), "{lines:#?}");
    let second = newest(&node);
    let rows = node.aspfs(&["--json", "diff", &format!("{VE}@{first}"), &format!("{VE}@{second}")]).ok();
    let rows: serde_json::Value = serde_json::from_str(&rows).unwrap();
    let rows = rows.as_array().unwrap();
    let paths: Vec<&str> = rows.iter().map(|row| row["path"].as_str().unwrap()).collect();
    assert!(paths.is_sorted() && paths.len() == 11, "{paths:?}");
    let conf = &rows[paths.iter().position(|path| *path == "/conf").unwrap()];
    assert!(
        conf["change"] == "renamed" && conf["from"] == "/etc/conf.d" && conf["before"]["ino"] == conf["after"]["ino"]
    );
    let null = &rows[paths.iter().position(|path| *path == "/null").unwrap()];
    assert!(null["after"]["device"] == serde_json::json!([1, 3]) && null["before"].is_null());
    // Back again: what was added is removed.
    let back = node.aspfs(&["diff", VE, &format!("{VE}@{first}")]).ok();
    assert!(
        back.ends_with("1 added, 3 removed, 6 changed, 1 renamed\n") && back.contains("D /null  character"),
        "{back}"
    );

    node.aspfs(&["diff", &format!("{VE}@9999999")]).fails(1, &["9999999"]);
    node.aspfs(&["diff", &format!("{VE}@none")]).fails(1, &["no hold and no branch named \"none\""]);
    node.aspfs(&["diff", "0000002B@1"]).fails(1, &["0000002B"]);
    node.umount(VE);
}

/// Files removed and made again, moved over others, and left behind as whiteouts.
#[test]
fn names_that_change_hands_are_told_as_what_they_are() {
    needs_mounts!();
    let node = Node::start();
    let root = node.mounted(VE);
    for name in ["again", "conf", "conf.new", "log", "under"] {
        std::fs::write(root.join(name), name).unwrap();
    }
    let first = newest(&node);
    std::fs::remove_file(root.join("again")).unwrap();
    std::fs::write(root.join("again"), "otherwise").unwrap();
    std::fs::rename(root.join("conf.new"), root.join("conf")).unwrap();
    std::fs::rename(root.join("log"), root.join("log.1")).unwrap();
    std::fs::write(root.join("log"), "").unwrap();
    renameat_with(CWD, root.join("under"), CWD, root.join("over"), RenameFlags::WHITEOUT).unwrap();
    let told = [
        "M /again  content 5 -> 9 bytes",
        "R /conf.new -> /conf  in the place of another",
        "A /log",
        "R /log -> /log.1",
        "R /under -> /over",
        "A /under  character device",
        "2 added, 0 removed, 1 changed, 3 renamed",
    ];
    assert_eq!(since(&node, first), told);
    node.umount(VE);
}

/// A file in many pieces and a large one are tidied by the daemon after a while: nobody who asks what changed hears of it.
#[test]
fn housekeeping_is_no_difference() {
    needs_mounts!();
    let node = Node::start();
    let root = node.mounted(VE);
    std::fs::write(root.join("large"), vec![3; 4 << 20]).unwrap();
    let first = newest(&node);
    let last = |node: &Node| since(node, first).pop().unwrap();
    let begun = Instant::now();
    let mut versions = std::collections::BTreeSet::new();
    // Sealing makes a transaction of its own.
    while versions.len() < 2 && begun.elapsed() < Duration::from_secs(60) {
        versions.insert(newest(&node));
        assert_eq!(last(&node), "0 added, 0 removed, 0 changed, 0 renamed");
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(versions.len() == 2, "it was sealed");
    assert_eq!(last(&node), "0 added, 0 removed, 0 changed, 0 renamed");
    node.aspfs(&["gc"]).ok();
    std::fs::write(root.join("large"), vec![3; 4 << 20]).unwrap();
    assert_eq!(since(&node, first)[0], "M /large  mtime", "written again with the same bytes");
    node.umount(VE);
}
