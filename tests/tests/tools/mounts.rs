//! Mounting and unmounting, by `aspfs` and by mount(8). Root and `/dev/fuse` only.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use aspfs_holder::protocol::MountFlags;
use aspfs_tests::needs_mounts;
use aspfs_tests::node::{Node, Said, programs, unmount};
use aspfs_tools::client::mountinfo;
use aspfs_tools::control::message::{Id, MountRow, Request};
use vefs::ids::VeId;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The line of /proc/mounts for a mount point.
fn shown(dir: &Path) -> Option<String> {
    let all = std::fs::read_to_string("/proc/self/mounts").unwrap();
    all.lines().find(|line| line.split(' ').nth(1) == Some(text(dir))).map(str::to_owned)
}

#[test]
fn a_mount_works_and_says_what_it_is() {
    needs_mounts!();
    let node = Node::start();
    let dir = node.mounted("0000002A");
    std::fs::write(dir.join("f"), "hello").unwrap();
    assert_eq!(std::fs::read(dir.join("f")).unwrap(), b"hello");
    let line = shown(&dir).unwrap();
    assert!(line.starts_with("0000002A ") && line.contains(" fuse.vefs ") && line.contains("noatime"), "{line}");
    assert!(!line.contains("nosuid") && !line.contains("nodev"), "a root needs both: {line}");
    let room = rustix::fs::statvfs(&dir).unwrap();
    assert_eq!(room.f_blocks * room.f_frsize, 1 << 30, "df shows the quota");
    let device = mountinfo::at(&mountinfo::read().unwrap(), &dir).unwrap().device;
    let ahead = std::fs::read_to_string(format!("/sys/class/bdi/{}:{}/read_ahead_kb", device.0, device.1)).unwrap();
    assert_eq!(ahead.trim(), "1024");
    assert!(node.aspfs(&["ve", "list"]).ok().contains(text(&dir)));
    node.umount("0000002A");
    assert!(shown(&dir).is_none());
    assert!(!dir.join("f").exists());
    assert_eq!(node.aspfs(&["cat", "0000002A", "/f"]).ok(), "hello");
}

#[test]
fn what_cannot_be_mounted_is_named_and_nothing_is_mounted() {
    needs_mounts!();
    let node = Node::start();
    let dir = node.mounted("0000002A");
    let (free, file) = (node.folder("free"), node.path("file"));
    std::fs::write(&file, "").unwrap();
    node.aspfs(&["ve", "create", "0000002B"]).ok();
    node.aspfs(&["mount", "0000002B", text(&file)]).fails(1, &[text(&file), "not a directory"]);
    node.aspfs(&["mount", "0000002B", text(&node.path("none"))]).fails(1, &["none", "is not there"]);
    node.aspfs(&["mount", "0000002B", text(&dir)]).fails(1, &[text(&dir), "busy"]);
    node.aspfs(&["mount", "0000002C", text(&free)]).fails(1, &["no VE 0000002C"]);
    node.aspfs(&["mount", "0000002A", text(&free)]).fails(1, &["0000002A", "mounted at", text(&dir)]);
    node.aspfs(&["umount", "0000002B"]).fails(1, &["0000002B", "not mounted"]);
    node.aspfs(&["ve", "destroy", "0000002A"]).fails(1, &["0000002A", "mounted at"]);
    assert_eq!(node.mounts().len(), 1);
    // What was refused left nothing behind that would keep it from being done right.
    node.aspfs(&["mount", "0000002B", text(&free)]).ok();
    assert_eq!(node.mounts().len(), 2);
}

#[test]
fn a_busy_mount_stays_and_a_lazy_one_ends_with_its_user() {
    needs_mounts!();
    let mut node = Node::start();
    let dir = node.mounted("0000002A");
    std::fs::write(dir.join("f"), "x").unwrap();
    let file = std::fs::File::open(dir.join("f")).unwrap();
    node.aspfs(&["umount", "0000002A"]).fails(1, &[text(&dir), "busy", "--lazy"]);
    assert!(shown(&dir).is_some());
    node.aspfs(&["umount", "0000002A", "--lazy"]).ok();
    assert!(shown(&dir).is_none());
    assert_eq!(file.metadata().unwrap().size(), 1, "whoever has it open goes on");
    drop(file);
    node.wait_for("the end of the mount", |node| node.aspfs(&["mount", "0000002A", text(&dir)]).ok_or_none());
}

trait OkOrNone {
    fn ok_or_none(self) -> Option<()>;
}

impl OkOrNone for Said {
    fn ok_or_none(self) -> Option<()> {
        (self.status == 0).then_some(())
    }
}

#[test]
fn umount_by_hand_releases_the_ve() {
    needs_mounts!();
    let mut node = Node::start();
    let dir = node.mounted("0000002A");
    unmount(&dir);
    node.wait_for("the VE", |node| node.aspfs(&["ve", "destroy", "0000002A"]).ok_or_none());
}

/// What was unmounted by hand can be mounted again at once, though the daemon may be about to notice: it once said that the version "is being
/// mounted, unmounted, created or destroyed".
#[test]
fn what_was_unmounted_is_mounted_again_at_once() {
    needs_mounts!();
    let node = Node::start();
    let dir = node.mounted("0000002A");
    for round in 0..40 {
        unmount(&dir);
        // The daemon looks every 100 ms: each round meets it at another point.
        std::thread::sleep(std::time::Duration::from_millis(round * 7 % 110));
        node.aspfs(&["mount", "0000002A", text(&dir)]).ok();
    }
    node.umount("0000002A");
}

/// A client that dies between the daemon's answer and the attaching leaves a mount that is nowhere: it ends by itself.
#[test]
fn a_mount_that_nobody_attached_ends() {
    needs_mounts!();
    let mut node = Node::start();
    node.aspfs(&["ve", "create", "0000002A"]).ok();
    let ve = Id(VeId(0x2a));
    let flags = MountFlags::default();
    let request = Request::Mount { ve, version: None, dir: "/nowhere".into(), source: None, flags };
    let mut client = node.client();
    let row: MountRow = client.call(&request).unwrap();
    assert_eq!(row.ve, ve);
    drop(client);
    node.wait_for("the VE", |node| node.aspfs(&["ve", "destroy", "0000002A"]).ok_or_none());
}

#[test]
fn versions_can_be_read_and_links_lead_nowhere_else() {
    needs_mounts!();
    let mut node = Node::start();
    let dir = node.mounted("0000002A");
    let newest = |node: &mut Node| -> u64 {
        let rows: serde_json::Value =
            serde_json::from_str(&node.aspfs(&["--json", "versions", "0000002A"]).ok()).unwrap();
        rows.as_array().and_then(|rows| rows.last()).map_or(0, |row| row["txn"].as_u64().unwrap())
    };
    std::fs::write(dir.join("f"), "first").unwrap();
    std::os::unix::fs::symlink("/f", dir.join("absolute")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", dir.join("outside")).unwrap();
    std::os::unix::fs::symlink("../../../../../../etc/hostname", dir.join("above")).unwrap();
    let first = newest(&mut node);
    std::fs::write(dir.join("f"), "second").unwrap();
    std::fs::write(dir.join("big"), vec![b'x'; 3 << 20]).unwrap();
    assert!(newest(&mut node) > first);
    let first = first.to_string();
    let cat = |args: &[&str]| node.aspfs(&[&["cat", "0000002A"], args].concat());
    assert_eq!(cat(&["/f"]).ok(), "second");
    assert_eq!(cat(&["/f", "--at", &first]).ok(), "first");
    assert_eq!(cat(&["f", "--at", "now"]).ok(), "second");
    assert_eq!(cat(&["/absolute", "--at", &first]).ok(), "first");
    assert_eq!(cat(&["/big"]).ok().len(), 3 << 20);
    for link in ["/outside", "/above"] {
        cat(&[link]).fails(1, &[link, "no such file"]);
    }
    cat(&["/big", "--at", &first]).fails(1, &["/big", &first, "no such file"]);
    cat(&["/"]).fails(1, &["is a directory"]);
    cat(&["/f", "--at", "1 day ago"]).fails(1, &["no version", "oldest"]);
    cat(&["/f", "--at", "999999"]).fails(1, &["no version 999999"]);
}

/// A mount namespace of its own in which mount(8) finds the helper, without touching the machine's own folders.
fn with_helper(node: &Node, script: &str) -> Said {
    let extra = node.folder("helpers");
    std::os::unix::fs::symlink(programs().join("aspfs"), extra.join("mount.fuse.vefs")).unwrap();
    let sbin = std::fs::canonicalize("/sbin").unwrap();
    let setup = format!("mount -t overlay overlay -o lowerdir={}:{} {}", text(&extra), text(&sbin), text(&sbin));
    let script = format!("set -e; {setup}\n{script}");
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", &script]);
    command
        .env("ASPFS_SOCKET", node.socket())
        .env("D", node.path("mnt"))
        .env("NODE", node.path(""))
        .output()
        .unwrap()
        .into()
}

#[test]
fn mount_8_finds_the_helper_and_its_options_are_honoured() {
    needs_mounts!();
    let node = Node::start();
    if let Err(e) = Command::new("unshare").arg("--version").output() {
        eprintln!("skipped: unshare: {e}");
        return;
    }
    node.aspfs(&["ve", "create", "0000002A"]).ok();
    let dir = node.folder("mnt");
    let said = with_helper(
        &node,
        r#"
        mount -t fuse.vefs 0000002A "$D" -o nosuid,fsname=web
        grep " $D " /proc/self/mounts
        echo data > "$D/f"
        mount -o remount,ro "$D"
        grep " $D " /proc/self/mounts
        if touch "$D/g" 2>/dev/null; then exit 10; fi
        mount -o remount,rw,nodev "$D"
        touch "$D/g"
        umount "$D"
        echo "0000002A $D fuse.vefs noauto,nodev,x-systemd.requires=aspfsd.service 0 0" > "$NODE/fstab"
        for i in 1 2 3 4 5 6 7 8 9; do if mount --fstab "$NODE/fstab" "$D" 2>/dev/null; then break; fi; sleep 0.2; done
        grep " $D " /proc/self/mounts
        cat "$D/f"
        umount "$D"
        set +e
        mount -t fuse.vefs 0000002A "$D" -o bogus; echo "status $?"
        mount -t fuse.vefs 0000002C "$D"; echo "status $?"
        "#,
    );
    assert_eq!(said.status, 0, "{said:?}");
    let lines: Vec<&str> = said.out.lines().collect();
    let has = |line: usize, parts: &[&str]| {
        let line = lines.get(line).copied().unwrap_or_default();
        assert!(parts.iter().all(|p| line.contains(p)), "{line:?} lacks {parts:?}: {said:?}");
    };
    has(0, &["web ", " fuse.vefs rw", "nosuid"]);
    has(1, &["web ", " fuse.vefs ro", "nosuid"]);
    has(2, &["0000002A ", " fuse.vefs rw", "nodev"]);
    has(3, &["data"]);
    has(4, &["status 2"]);
    has(5, &["status 1"]);
    assert!(said.err.contains("bogus") && said.err.contains("no VE 0000002C"), "{said:?}");
    assert!(shown(&dir).is_none(), "it was mounted in that namespace only");
}

#[test]
fn a_ve_in_another_namespace_is_not_unmounted_from_here() {
    needs_mounts!();
    let node = Node::start();
    node.aspfs(&["ve", "create", "0000002A"]).ok();
    node.folder("mnt");
    let program = text(&programs().join("aspfs")).to_owned();
    let said = with_helper(
        &node,
        &format!(
            "mount -t fuse.vefs 0000002A $D; nsenter -t 1 -m {program} umount 0000002A; echo status $?; umount $D"
        ),
    );
    assert!(said.status == 0 || said.err.contains("nsenter"), "{said:?}");
    assert!(said.err.contains("not mounted in this mount namespace") || said.err.contains("nsenter"), "{said:?}");
}

#[test]
fn stop_with_unmount_ends_everything_or_nothing() {
    needs_mounts!();
    let mut node = Node::start();
    let dirs = [node.mounted("0000002A"), node.mounted("0000002B")];
    let file = std::fs::File::create(dirs[1].join("f")).unwrap();
    node.aspfs(&["daemon", "stop", "--unmount"]).fails(1, &["0000002B", "busy", "1 of 2"]);
    assert!(Node::runs(node.pid()));
    drop(file);
    node.aspfs(&["daemon", "stop", "--unmount"]).ok();
    assert_eq!(node.ended(), 0);
    assert!(node.mounts().is_empty());
    assert!(!Node::runs(node.holder()));
}

/// A VE that was detached a moment ago was listed, and could not be unmounted because it was gone already: the daemon ran on.
#[test]
fn stop_goes_well_while_a_mount_ends() {
    needs_mounts!();
    let mut node = Node::start();
    let dir = node.mounted("0000002A");
    for _ in 0..8 {
        node.aspfs(&["umount", "0000002A", "--lazy"]).ok();
        node.aspfs(&["daemon", "stop", "--unmount"]).ok();
        assert_eq!(node.ended(), 0);
        node.up();
        node.aspfs(&["mount", "0000002A", dir.to_str().unwrap()]).ok();
    }
    node.umount("0000002A");
}
