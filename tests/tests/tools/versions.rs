//! Versions as mounts. Root and `/dev/fuse` only.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use aspfs_tests::needs_mounts;
use aspfs_tests::node::{Node, unmount};
use aspfs_tools::control::message::Status;
use rustix::mount::UnmountFlags;

const VE: &str = "0000002A";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The newest version.
fn newest(node: &Node) -> u64 {
    let rows: serde_json::Value = serde_json::from_str(&node.aspfs(&["--json", "versions", VE]).ok()).unwrap();
    rows.as_array().and_then(|rows| rows.last()).map_or(0, |row| row["txn"].as_u64().unwrap())
}

/// Mounts a version on a new folder.
fn mounted(node: &Node, version: &str, dir: &str) -> PathBuf {
    let dir = node.folder(dir);
    node.aspfs(&["mount", &format!("{VE}@{version}"), text(&dir)]).ok();
    dir
}

/// Everything about a tree that a program can see, but for access times: attributes, names, content.
fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut out = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let content = match () {
            () if meta.is_dir() => {
                todo.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
                String::new()
            }
            () if meta.is_symlink() => std::fs::read_link(&path).unwrap().display().to_string(),
            () => vefs::ids::Hash::of(&std::fs::read(&path).unwrap()).to_hex(),
        };
        let size = if meta.is_dir() { 0 } else { meta.size() };
        let seen =
            (meta.ino(), meta.mode(), meta.uid(), meta.gid(), meta.nlink(), size, meta.mtime(), meta.mtime_nsec());
        out.insert(path.strip_prefix(root).unwrap().to_owned(), format!("{seen:?} {content}"));
    }
    out
}

fn status(node: &Node) -> Status {
    node.client().status().unwrap()
}

/// Names of holds.
fn holds(node: &Node) -> String {
    node.aspfs(&["hold", "list", VE]).ok()
}

/// A tree with one of each, in two versions.
fn fill(dir: &Path) {
    std::fs::create_dir(dir.join("d")).unwrap();
    std::fs::write(dir.join("d/small"), "first").unwrap();
    std::fs::write(dir.join("big"), vec![7; 3 << 20]).unwrap();
    std::os::unix::fs::symlink("d/small", dir.join("link")).unwrap();
    std::fs::hard_link(dir.join("big"), dir.join("d/again")).unwrap();
    for n in 0..600 {
        std::fs::write(dir.join(format!("d/many-{n}")), n.to_string()).unwrap();
    }
}

fn change(dir: &Path) {
    std::fs::write(dir.join("d/small"), "second").unwrap();
    std::fs::File::options().write(true).open(dir.join("big")).unwrap().write_all_at(b"changed", 1 << 20).unwrap();
    std::fs::remove_file(dir.join("link")).unwrap();
    std::fs::rename(dir.join("d/again"), dir.join("moved")).unwrap();
    for n in (0..600).step_by(2) {
        std::fs::remove_file(dir.join(format!("d/many-{n}"))).unwrap();
    }
    std::fs::set_permissions(dir.join("d"), PermissionsExt::from_mode(0o700)).unwrap();
}

/// checks G25: a mounted version reads the same bytes whatever happens to the VE, and refuses every change.
#[test]
fn a_version_is_mounted_beside_its_ve() {
    needs_mounts!();
    let node = Node::start();
    let dir = node.mounted(VE);
    fill(&dir);
    let (first, before) = (newest(&node), tree(&dir));
    let old = mounted(&node, &first.to_string(), "old");
    assert_eq!(tree(&old), before, "inode numbers and all");
    change(&dir);
    let (second, after) = (newest(&node), tree(&dir));
    assert_ne!(before, after);
    let new = mounted(&node, &second.to_string(), "new");
    std::fs::remove_dir_all(dir.join("d")).unwrap();
    std::fs::write(dir.join("big"), "short").unwrap();
    for _ in 0..2 {
        node.aspfs(&["gc"]).ok();
        assert_eq!(tree(&old), before);
        assert_eq!(tree(&new), after);
    }
    // A reader that goes on where it stopped: cookies are the VE's own.
    let listed = |dir: &Path| {
        let names = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
        names.collect::<Vec<_>>()
    };
    assert_eq!(listed(&old.join("d")).len(), 602);
    assert_eq!(listed(&new.join("d")).len(), 301);

    let all = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let line = all.lines().find(|line| line.split(' ').nth(1) == Some(text(&old))).unwrap();
    assert!(line.starts_with(&format!("{VE}@{first} ")) && line.contains(" fuse.vefs ro,"), "{line}");
    let shown = node.aspfs(&["status"]).ok();
    assert!(shown.contains(&format!("{VE}@{first} is mounted at {}", text(&old))), "{shown}");
    node.umount(&format!("{VE}@{first}"));
    node.umount(text(&new));
    assert_eq!(status(&node).mounts.len(), 1);
    assert_eq!(std::fs::read(dir.join("big")).unwrap(), b"short", "the VE itself never noticed");
}

#[test]
fn every_change_of_a_version_is_refused() {
    needs_mounts!();
    let node = Node::start();
    let dir = node.mounted(VE);
    fill(&dir);
    let old = mounted(&node, &newest(&node).to_string(), "old");
    // Read-only it stays, whatever is done about its mount point.
    let made = Command::new("mount").args(["-o", "remount,rw,bind", text(&old)]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let erofs = |done: std::io::Result<()>| assert_eq!(done.unwrap_err().raw_os_error(), Some(libc_erofs()));
    let small = old.join("d/small");
    erofs(std::fs::write(&small, "x"));
    erofs(std::fs::File::options().append(true).open(&small).map(drop));
    erofs(std::fs::write(old.join("new"), "x"));
    erofs(std::fs::create_dir(old.join("dir")));
    erofs(std::fs::remove_file(&small));
    erofs(std::fs::remove_dir(old.join("d")));
    erofs(std::fs::rename(&small, old.join("there")));
    erofs(std::fs::hard_link(&small, old.join("there")));
    erofs(std::os::unix::fs::symlink("x", old.join("there")));
    erofs(std::fs::set_permissions(&small, PermissionsExt::from_mode(0o600)));
    erofs(std::os::unix::fs::chown(&small, Some(1), None));
    let value = rustix::fs::setxattr(&small, "user.a", b"x", rustix::fs::XattrFlags::empty());
    erofs(value.map_err(Into::into));
    let file = std::fs::File::open(&small).unwrap();
    erofs(file.set_times(std::fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH)));
    file.sync_all().unwrap();
    let room = rustix::fs::statvfs(&old).unwrap();
    assert!(room.f_bavail == 0 && room.f_blocks > 0, "no room, and what its VE uses");
    assert_eq!(room.f_blocks * room.f_frsize / 4096, status_bytes(&node).div_ceil(4096));
}

fn libc_erofs() -> i32 {
    rustix::io::Errno::ROFS.raw_os_error()
}

fn status_bytes(node: &Node) -> u64 {
    let row: serde_json::Value = serde_json::from_str(&node.aspfs(&["--json", "ve", "show", VE]).ok()).unwrap();
    row["bytes_used"].as_u64().unwrap()
}

#[test]
fn versions_have_many_names() {
    needs_mounts!();
    let node = Node::start();
    let dir = node.mounted(VE);
    std::fs::write(dir.join("f"), "first").unwrap();
    let first = newest(&node);
    node.aspfs(&["hold", "add", VE, "before-upgrade"]).ok();
    let kept: u64 = serde_json::from_str::<serde_json::Value>(&node.aspfs(&["--json", "hold", "list", VE]).ok())
        .unwrap()[0]["txn"]
        .as_u64()
        .unwrap();
    assert!(kept >= first);
    std::fs::write(dir.join("f"), "second").unwrap();
    newest(&node);
    let old = mounted(&node, "before-upgrade", "old");
    assert_eq!(std::fs::read_to_string(old.join("f")).unwrap(), "first");
    let free = node.folder("free");
    node.aspfs(&["mount", &format!("{VE}@{kept}"), text(&free)])
        .fails(1, &[&format!("{VE}@{kept}"), "mounted at", text(&old)]);
    let by_mount = Command::new("mount")
        .args(["-t", "fuse.vefs", &format!("{VE}@now"), text(&free), "-o"])
        .arg(format!("socket={}", text(&node.socket())))
        .output()
        .unwrap();
    if by_mount.status.success() {
        assert_eq!(std::fs::read_to_string(free.join("f")).unwrap(), "second");
        node.umount(text(&free));
    } else {
        // The helper is not installed here: it is called by its name.
        let helper = node.path("mount.fuse.vefs");
        std::os::unix::fs::symlink(aspfs_tests::node::programs().join("aspfs"), &helper).unwrap();
        let done = Command::new(helper)
            .args([&format!("{VE}@now"), text(&free), "-o"])
            .arg(format!("socket={}", text(&node.socket())))
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        assert_eq!(std::fs::read_to_string(free.join("f")).unwrap(), "second");
        node.umount(text(&free));
    }
    node.aspfs(&["mount", &format!("{VE}@999999"), text(&free)]).fails(1, &["no version 999999"]);
    node.aspfs(&["mount", &format!("{VE}@nothing"), text(&free)]).fails(1, &["no hold and no branch", "nothing"]);
    node.aspfs(&["mount", &format!("{VE}@b:7"), text(&free)]).fails(1, &["no branch", "b"]);
    node.aspfs(&["mount", &format!("{VE}@1000 days ago"), text(&free)]).fails(1, &["no version of"]);
    node.aspfs(&["mount", &format!("{VE}@"), text(&free)]).fails(2, &["is no version"]);
    node.aspfs(&["umount", &format!("{VE}@{first}999")]).fails(1, &["not mounted", &format!("{VE}@{kept}")]);
    node.aspfs(&["umount", text(&free)]).fails(1, &[text(&free), "no VE"]);
    node.umount(&format!("{VE}@before-upgrade"));
    assert!(!holds(&node).contains("mount"));
}

/// What keeps a mounted version is seen among the holds, cannot be taken away from there, and goes with the mount, however that ends.
#[test]
fn a_mount_keeps_its_version_and_no_longer() {
    needs_mounts!();
    let mut node = Node::start();
    let dir = node.mounted(VE);
    std::fs::write(dir.join("f"), "first").unwrap();
    let first = newest(&node);
    let old = mounted(&node, &first.to_string(), "old");
    let listed = holds(&node);
    assert!(listed.contains(&format!("mount {first}")), "{listed}");
    node.aspfs(&["hold", "release", VE, &format!("mount {first}")]).fails(1, &["mounted", "unmount"]);
    node.aspfs(&["ve", "destroy", VE]).fails(1, &["mounted at"]);
    node.umount(VE);
    node.aspfs(&["ve", "destroy", VE]).fails(1, &[&format!("{VE}@{first}"), "mounted at", text(&old)]);
    unmount(&old);
    node.wait_for("the release", |node| (!holds(node).contains("mount")).then_some(()));
    // Unmounted while there is no daemon: the next one finds no mount for it.
    node.aspfs(&["mount", &format!("{VE}@{first}"), text(&old)]).ok();
    assert!(holds(&node).contains("mount"));
    node.kill();
    unmount(&old);
    node.up();
    assert!(!holds(&node).contains("mount"));
    assert!(status(&node).mounts.is_empty());
    // Nor for one whose holder is gone with it.
    node.aspfs(&["mount", &format!("{VE}@{first}"), text(&old)]).ok();
    let holder = node.holder();
    node.kill();
    let pid = rustix::process::Pid::from_raw(holder.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    node.wait_for("the holder's end", |_| (!Node::runs(holder)).then_some(()));
    node.up();
    assert!(!holds(&node).contains("mount"));
    rustix::mount::unmount(&old, UnmountFlags::DETACH).unwrap();
    node.aspfs(&["ve", "destroy", VE]).ok();
}

/// checks G7, G25: a kill of the daemon leaves open files of a version open, and its bytes the same.
#[test]
fn a_mounted_version_survives_kills_of_the_daemon() {
    needs_mounts!();
    let mut node = Node::start();
    let dir = node.mounted(VE);
    fill(&dir);
    let (first, before) = (newest(&node), tree(&dir));
    let old = mounted(&node, &first.to_string(), "old");
    change(&dir);
    let (second, after) = (newest(&node), tree(&dir));
    let new = mounted(&node, &second.to_string(), "new");
    let file = std::fs::File::open(old.join("d/small")).unwrap();
    for round in 0..3 {
        let reading = {
            let old = old.clone();
            std::thread::spawn(move || (0..3).map(|_| tree(&old)).collect::<Vec<_>>())
        };
        node.kill();
        node.up();
        std::fs::write(dir.join(format!("round-{round}")), "the VE goes on").unwrap();
        node.aspfs(&["gc"]).ok();
        assert!(reading.join().unwrap().iter().all(|seen| *seen == before));
        assert_eq!(tree(&new), after);
    }
    let mut bytes = [0; 5];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"first");
    drop(file);
    assert_eq!(status(&node).mounts.len(), 3);
    assert_eq!(node.term(), 0);
    node.up();
    assert_eq!(tree(&old), before);
    for what in [format!("{VE}@{first}"), format!("{VE}@{second}"), VE.to_owned()] {
        node.umount(&what);
    }
    assert!(!holds(&node).contains("mount"));
}
