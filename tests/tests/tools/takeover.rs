//! The daemon dies or stops under mounts, and the next one goes on. Root and `/dev/fuse` only.

use std::io::{Read, Seek, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aspfs_tests::needs_mounts;
use aspfs_tests::node::Node;
use aspfs_tools::control::message::VeRow;

/// checks G7
#[test]
fn a_writer_goes_on_over_kills_of_the_daemon() {
    needs_mounts!();
    let mut node = Node::start();
    let dir = node.mounted("0000002A");
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = {
        let (stop, written, path) = (stop.clone(), written.clone(), dir.join("log"));
        std::thread::spawn(move || -> std::io::Result<u64> {
            let mut log = std::fs::File::options().create(true).append(true).open(path)?;
            let mut n = 0u64;
            while !stop.load(Ordering::Relaxed) {
                log.write_all(&n.to_le_bytes())?;
                n += 1;
                written.store(n, Ordering::Relaxed);
            }
            Ok(n)
        })
    };
    let holder = node.holder();
    for _ in 0..5 {
        let before = written.load(Ordering::Relaxed);
        node.wait_for("some writes", |_| (written.load(Ordering::Relaxed) > before + 50).then_some(()));
        node.kill();
        node.up();
        assert_eq!(node.holder(), holder);
    }
    stop.store(true, Ordering::Relaxed);
    let n = writer.join().unwrap().unwrap();
    let bytes = std::fs::read(dir.join("log")).unwrap();
    let wanted: Vec<u8> = (0..n).flat_map(u64::to_le_bytes).collect();
    assert!(bytes == wanted, "{} bytes of {}", bytes.len(), wanted.len());
    node.umount("0000002A");
}

/// checks G7
#[test]
fn what_is_open_survives_a_stop_and_a_kill() {
    needs_mounts!();
    let mut node = Node::start();
    let dir = node.mounted("0000002A");
    let mut file =
        std::fs::File::options().create(true).truncate(true).read(true).write(true).open(dir.join("f")).unwrap();
    file.write_all(b"before").unwrap();
    std::fs::remove_file(dir.join("f")).unwrap();
    assert_eq!(node.term(), 0);
    assert!(Node::runs(node.holder()), "the holder keeps the mount");
    assert_eq!(node.mounts().len(), 1);
    // A program that comes meanwhile waits.
    let waiting = std::thread::spawn({
        let dir = dir.clone();
        move || std::fs::write(dir.join("meanwhile"), "x")
    });
    node.up();
    waiting.join().unwrap().unwrap();
    file.write_all(b" after").unwrap();
    node.kill();
    node.up();
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "before after");
    let status = node.client().status().unwrap();
    assert_eq!(status.mounts.len(), 1);
    drop(file);
    node.umount("0000002A");
    assert!(node.mounts().is_empty());
}

/// A holder that was killed took every mount with it when the daemon was replaced later. checks G7
#[test]
fn a_killed_holder_is_replaced_and_gets_the_mounts() {
    needs_mounts!();
    let mut node = Node::start();
    let dirs: Vec<_> = (1..=3).map(|n| node.mounted(&format!("{n:08X}"))).collect();
    let mut files: Vec<_> = dirs.iter().map(|dir| std::fs::File::create_new(dir.join("f")).unwrap()).collect();
    for round in 0..3 {
        let holder = node.holder();
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(holder.cast_signed()).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        let holder = node.wait_for("a new holder", |node| {
            let status = node.client().status().unwrap();
            (status.holder != holder).then_some(status.holder)
        });
        files.iter_mut().for_each(|file| file.write_all(b"x").unwrap());
        // The status names the new holder before it has everything.
        let more = node.mounted(&format!("{:08X}", 16 + round));
        node.wait_for("the mounts", |_| {
            let fds = std::fs::read_dir(format!("/proc/{holder}/fd")).unwrap();
            let devices = fds.filter(|fd| {
                let target = std::fs::read_link(fd.as_ref().unwrap().path());
                target.is_ok_and(|t| t == std::path::Path::new("/dev/fuse"))
            });
            (devices.count() == 4 + round).then_some(())
        });
        node.kill();
        node.up();
        files.iter_mut().for_each(|file| file.write_all(b"y").unwrap());
        std::fs::write(more.join("f"), "x").unwrap();
    }
    drop(files);
    for dir in &dirs {
        assert_eq!(std::fs::read(dir.join("f")).unwrap(), b"xyxyxy");
    }
    node.aspfs(&["daemon", "stop", "--unmount"]).ok();
    assert_eq!(node.ended(), 0);
}

#[test]
fn a_mount_that_ended_without_a_daemon_is_forgotten() {
    needs_mounts!();
    let mut node = Node::start();
    let (a, _b) = (node.mounted("0000002A"), node.mounted("0000002B"));
    std::fs::write(a.join("f"), "x").unwrap();
    node.kill();
    // Detached, as nobody could answer for what an orderly unmount asks.
    rustix::mount::unmount(&a, rustix::mount::UnmountFlags::DETACH).unwrap();
    node.up();
    node.wait_for("the end of the mount", |node| {
        let status = node.client().status().unwrap();
        (status.mounts.len() == 1).then_some(())
    });
    assert_eq!(node.aspfs(&["cat", "0000002A", "/f"]).ok(), "x");
    node.aspfs(&["ve", "destroy", "0000002A"]).ok();
}

/// A daemon with three threads a mount takes a while to end when it is killed; one that was started at once found the store in use, gave up,
/// and left every mount waiting.
#[test]
fn a_daemon_may_be_started_before_the_one_before_it_has_ended() {
    needs_mounts!();
    let mut node = Node::start();
    let dirs: Vec<_> = (1..=8).map(|n| node.mounted(&format!("{n:08X}"))).collect();
    for _ in 0..3 {
        let killed = node.kill_and_run();
        node.up();
        killed.unwrap().wait().unwrap();
        dirs.iter().for_each(|dir| std::fs::write(dir.join("f"), "x").unwrap());
    }
}

#[test]
fn many_mounts_are_taken_over() {
    needs_mounts!();
    let mut node = Node::start();
    let dirs: Vec<_> = (1..=20).map(|n| node.mounted(&format!("{n:08X}"))).collect();
    for (n, dir) in dirs.iter().enumerate() {
        std::fs::write(dir.join("n"), n.to_string()).unwrap();
    }
    node.kill();
    node.up();
    for (n, dir) in dirs.iter().enumerate() {
        assert_eq!(std::fs::read_to_string(dir.join("n")).unwrap(), n.to_string());
        std::fs::write(dir.join("more"), "x").unwrap();
    }
    node.aspfs(&["daemon", "stop", "--unmount"]).ok();
    assert_eq!(node.ended(), 0);
}

/// A VE whose identity cannot be read was in the way of everything: `aspfs ve list` showed none at all, and its mount, which nobody served, could not be
/// unmounted by name or place.
#[test]
fn a_ve_that_does_not_open_is_listed_and_unmounted() {
    needs_mounts!();
    let mut node = Node::start();
    let (bad, good) = (node.mounted("0000002A"), node.mounted("0000002B"));
    std::fs::write(good.join("file"), "good").unwrap();
    node.kill();
    let identity = node.path("store").join("ves/0000002A/identity");
    let mut bytes = std::fs::read(&identity).unwrap();
    bytes[20] ^= 0xff;
    std::fs::write(&identity, bytes).unwrap();
    node.up();
    let rows: Vec<VeRow> = serde_json::from_str(&node.aspfs(&["--json", "ve", "list"]).ok()).unwrap();
    let shown: Vec<(String, &str, bool)> =
        rows.iter().map(|r| (r.ve.to_string(), r.role.as_str(), r.read_only.is_some())).collect();
    assert_eq!(shown, [("0000002A".into(), "damaged", true), ("0000002B".into(), "primary", false)]);
    assert!(node.aspfs(&["ve", "list"]).ok().contains("read-only"));
    assert_eq!(std::fs::read_to_string(good.join("file")).unwrap(), "good");
    node.aspfs(&["umount", bad.to_str().unwrap()]).ok();
    node.umount("0000002B");
}
