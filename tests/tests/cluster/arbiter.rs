//! etcd names the writer: real daemons, a real etcd on a host of its own, nothing said by people.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aspfs_tests::netns::Network;
use rustix::process::{Pid, Signal, kill_process};

use crate::setup::{Cluster, VE, Writer, boot, records};

/// How long a lease is in these tests.
const LEASE: Duration = Duration::from_secs(3);

/// An etcd on the third host, which can be stopped and started; it ends when this is dropped.
struct Etcd {
    dir: tempfile::TempDir,
    child: Option<Child>,
    prefix: Vec<String>,
    address: String,
}

impl Etcd {
    fn new(network: &Network, host: usize) -> Result<Etcd, String> {
        let dir = tempfile::tempdir().unwrap();
        if Command::new("etcd").arg("--version").output().is_err() {
            return Err("etcd is not installed".into());
        }
        let (prefix, address) = (network.enter(host), network.address(host));
        let mut etcd = Etcd { dir, child: None, prefix, address };
        etcd.start();
        Ok(etcd)
    }

    fn start(&mut self) {
        let url = |port: u16| format!("http://{}:{port}", self.address);
        let mut command = Command::new(&self.prefix[0]);
        command
            .args(&self.prefix[1..])
            .arg("etcd")
            .args(["--name", "a", "--data-dir"])
            .arg(self.dir.path().join("data"));
        command.args(["--initial-cluster", &format!("a={}", url(2380))]);
        command.args(["--listen-client-urls", &url(2379), "--advertise-client-urls", &url(2379)]);
        command.args(["--listen-peer-urls", &url(2380), "--initial-advertise-peer-urls", &url(2380)]);
        self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().unwrap().id();
        kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Two nodes and an etcd; etcd goes before the network does.
struct Bed {
    etcd: Etcd,
    cluster: Cluster<2>,
}

fn bed() -> Option<Bed> {
    bed_with(&[])
}

fn bed_with(more: &[&str]) -> Option<Bed> {
    let made = Cluster::<2>::network(3).and_then(|network| {
        let etcd = Etcd::new(&network, 3)?;
        let url = format!("http://{}:2379", etcd.address);
        let flags: Vec<String> =
            ["--etcd", &url, "--lease", "3s"].iter().chain(more).map(|s| (*s).to_owned()).collect();
        Ok(Bed { etcd, cluster: Cluster::with(network, &flags)? })
    });
    made.inspect_err(|why| eprintln!("skipped: {why}")).ok()
}

fn signal(node: &aspfs_tests::node::Node, signal: Signal) {
    kill_process(Pid::from_raw(node.pid() as i32).unwrap(), signal).unwrap();
}

/// A node is killed; the other one is promoted without anybody's word, when the lease is over and not before. The old one follows when it is back,
/// though the holder kept its mount (checks G9, G14, G18, G22).
#[test]
fn a_promotion_waits_for_the_lease_and_needs_no_word() {
    let Some(Bed { etcd: _etcd, mut cluster }) = bed() else { return };
    let root = cluster.replicated(&["--window", "5s"]);
    cluster.nodes[1].aspfs(&["promote", VE]).fails(1, &["written by node"]);
    let writer = Writer::start(&root.join("stamps"), 64);
    std::thread::sleep(Duration::from_secs(2));
    cluster.wait(0, "protection", |rows| rows.iter().all(|r| r.state == "protected" && r.lease_ms > Some(0)));
    cluster.network.set_link(1, false);
    cluster.nodes[0].kill();
    let killed = boot();
    cluster.nodes[1].aspfs(&["promote", VE]).ok();
    // The lease was renewed no more than a third of it before the kill. It cannot be over earlier.
    assert!(boot() - killed >= LEASE - LEASE / 3 - Duration::from_millis(500), "promoted under a lease");
    let there = cluster.mount(1);
    let stamps = records(&there.join("stamps"));
    let newest = stamps.last().copied().expect("something was shipped");
    assert!(killed.saturating_sub(newest).as_secs() < 5, "the newest change is {:?} old", killed - newest);
    std::fs::write(there.join("after"), "written by the second node").unwrap();

    cluster.network.set_link(1, true);
    cluster.nodes[0].up();
    let answered = writer.end();
    assert!(answered.iter().all(|(_, at)| *at <= killed), "the old primary wrote after it was superseded");
    cluster.wait(1, "the old primary to follow", |rows| rows.iter().all(|r| r.state == "protected" && r.connected));
    assert!(std::fs::write(root.join("mine"), "no").is_err(), "the old mount takes no changes");
    assert_eq!(cluster.nodes[0].aspfs(&["cat", VE, "/after"]).ok(), "written by the second node");
}

/// With etcd, too, a replica is promoted by itself when the lease is over (checks G18, G19).
#[test]
fn a_silent_primary_is_replaced_by_itself() {
    let Some(Bed { etcd: _etcd, mut cluster }) = bed_with(&["--fail-over", "by-itself"]) else { return };
    let root = cluster.replicated(&["--window", "30s"]);
    std::fs::write(root.join("before"), "on both").unwrap();
    cluster.wait(0, "protection", |rows| rows.iter().all(|r| r.state == "protected" && r.behind_txns == Some(0)));
    cluster.network.set_link(1, false);
    cluster.nodes[0].kill();
    let killed = boot();
    cluster.wait(1, "the promotion", |rows| rows.iter().any(|r| r.role == "primary" && r.lease_ms > Some(0)));
    eprintln!("promoted by itself {:?} after the kill, with a lease of {LEASE:?}", boot() - killed);
    assert!(boot() - killed >= LEASE - LEASE / 3 - Duration::from_millis(500), "promoted under a lease");
    let there = cluster.mount(1);
    assert_eq!(std::fs::read_to_string(there.join("before")).unwrap(), "on both");
    std::fs::write(there.join("after"), "written by the second node").unwrap();
    cluster.network.set_link(1, true);
    cluster.nodes[0].up();
    cluster.wait(1, "the old primary to follow", |rows| rows.iter().all(|r| r.state == "protected" && r.connected));
    assert_eq!(cluster.nodes[0].aspfs(&["cat", VE, "/after"]).ok(), "written by the second node");
}

/// A daemon that is stopped for longer than its lease, and goes on when another node writes, completes nothing, though it hears of nobody (checks
/// G19).
#[test]
fn a_paused_primary_completes_nothing() {
    let Some(Bed { etcd: _etcd, cluster }) = bed() else { return };
    let root = cluster.replicated(&["--window", "30s"]);
    let writer = Writer::start(&root.join("stamps"), 64);
    std::thread::sleep(Duration::from_secs(1));
    cluster.wait(0, "protection", |rows| rows.iter().all(|r| r.state == "protected"));
    // Nothing is left in its sockets from which it could learn anything.
    cluster.network.set_link(1, false);
    signal(&cluster.nodes[0], Signal::STOP);
    cluster.nodes[1].aspfs(&["promote", VE]).ok();
    let there = cluster.mount(1);
    std::fs::write(there.join("after"), "written by the second node").unwrap();
    let promoted = boot();
    signal(&cluster.nodes[0], Signal::CONT);
    // Its own clock is all that it has now.
    cluster.wait(0, "the end of the lease", |rows| rows.iter().all(|r| r.lease_ms == Some(0) && r.state == "stalled"));
    std::thread::sleep(Duration::from_secs(2));
    cluster.network.set_link(1, true);
    let answered = writer.end();
    let late = answered.iter().find(|(_, at)| *at > promoted);
    assert!(late.is_none(), "{late:?} was answered after {promoted:?}");
    cluster.wait(1, "the old primary to follow", |rows| rows.iter().all(|r| r.state == "protected" && r.connected));
    let survived = records(&there.join("stamps")).len();
    assert!(survived > 0 && survived <= answered.len() + 1, "{survived} of {}", answered.len());
}

/// Without etcd nobody can know who writes: writers wait when the lease is over, readers do not, and all goes on when etcd is back, with the same
/// writer (checks G16, G18).
#[test]
fn without_etcd_writers_wait_and_readers_do_not() {
    let Some(Bed { mut etcd, cluster }) = bed() else { return };
    let root = cluster.replicated(&["--window", "30s"]);
    std::fs::write(root.join("before"), "readable").unwrap();
    let writer = Writer::start(&root.join("stamps"), 64);
    etcd.stop();
    cluster.wait(0, "the end of the lease", |rows| rows.iter().all(|r| r.state == "stalled"));
    let stalled = std::fs::metadata(root.join("stamps")).unwrap().len();
    assert_eq!(std::fs::read_to_string(root.join("before")).unwrap(), "readable");
    // What was written last is under way still, and a replica that lacks it is refused for that.
    cluster.wait(0, "the last changes", |rows| rows.iter().all(|r| r.behind_txns == Some(0)));
    cluster.nodes[1].aspfs(&["promote", VE]).fails(1, &["arbiter"]);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(std::fs::metadata(root.join("stamps")).unwrap().len(), stalled, "somebody wrote without a lease");
    etcd.start();
    cluster.wait(0, "the lease", |rows| rows.iter().all(|r| r.state == "protected"));
    cluster.wait(0, "more", |_| std::fs::metadata(root.join("stamps")).unwrap().len() > stalled);
    let answered = writer.end();
    assert_eq!(records(&root.join("stamps")).len(), answered.len());
}

/// That a VE lags is recorded with etcd before it does: no promotion by itself loses what is older than the window, and while etcd does not
/// answer the VE waits instead (checks G16).
#[test]
fn lagging_is_recorded_first() {
    let Some(Bed { etcd, mut cluster }) = bed() else { return };
    let root = cluster.replicated(&["--window", "1s", "--at-window", "degrade"]);
    std::fs::write(root.join("old"), "on both").unwrap();
    cluster.wait(0, "protection", |rows| rows.iter().all(|r| r.behind_txns == Some(0)));
    cluster.network.set_link(2, false);
    // It hears nothing, and answers nothing.
    etcd.signal(Signal::STOP);
    let writer = Writer::start(&root.join("stamps"), 64);
    cluster.wait(0, "the window", |rows| rows.iter().all(|r| r.exposure_ms > Some(1000)));
    assert!(cluster.status(0).iter().all(|r| r.state == "stalled"), "{:?}", cluster.status(0));
    etcd.signal(Signal::CONT);
    cluster.wait(0, "lagging", |rows| rows.iter().all(|r| r.state == "lagging"));
    let before = std::fs::metadata(root.join("stamps")).unwrap().len();
    cluster.wait(0, "more", |_| std::fs::metadata(root.join("stamps")).unwrap().len() > before);
    cluster.network.set_link(1, false);
    cluster.nodes[0].kill();
    cluster.network.set_link(2, true);
    let begin = Instant::now();
    cluster.nodes[1].aspfs(&["promote", VE]).fails(1, &["lags", "--force"]);
    assert!(begin.elapsed() < Duration::from_secs(60));
    let told = cluster.nodes[1].aspfs(&["promote", VE, "--force", "--yes"]);
    assert!(told.err.contains("node-1 (wrote it)") && told.err.contains("does not answer"), "{told:?}");
    told.ok();
    let there = cluster.mount(1);
    assert_eq!(std::fs::read_to_string(there.join("old")).unwrap(), "on both");
    assert!(!there.join("stamps").exists());
    cluster.network.set_link(1, true);
    cluster.nodes[0].up();
    writer.end();
    cluster.wait(1, "the old primary to follow", |rows| rows.iter().all(|r| r.state == "protected" && r.connected));
    assert!(cluster.nodes[0].aspfs(&["--json", "branch", "list", VE]).ok().contains("epoch-0."));
}

/// A planned hand-over, there and back, takes the epoch along and waits for no lease; a restart of the daemon keeps the VE (checks G18).
#[test]
fn a_hand_over_takes_the_epoch_along() {
    let Some(Bed { etcd: _etcd, mut cluster }) = bed() else { return };
    let root = cluster.replicated(&["--window", "10s"]);
    let writer = Writer::start(&root.join("stamps"), 200);
    std::thread::sleep(Duration::from_secs(1));
    cluster.nodes[0].aspfs(&["switchover", VE, "node-2"]).ok();
    let answered = writer.end();
    let there = cluster.mount(1);
    assert!(!answered.is_empty() && records(&there.join("stamps")).len() >= answered.len());
    std::fs::write(there.join("more"), "more").unwrap();
    cluster.wait(1, "the old primary to follow", |rows| rows.iter().all(|r| r.state == "protected" && r.connected));
    cluster.nodes[1].kill();
    cluster.nodes[1].up();
    std::fs::write(there.join("again"), "after a restart").unwrap();
    cluster.wait(1, "protection", |rows| rows.iter().all(|r| r.state == "protected" && r.connected));
    cluster.nodes[1].aspfs(&["switchover", VE, "node-1"]).ok();
    assert_eq!(cluster.nodes[0].aspfs(&["cat", VE, "/again"]).ok(), "after a restart");
}

/// A replica that was removed keeps its copy. It cannot have the VE by force while its writer lives, though nobody follows that one any more
/// (checks G18).
#[test]
fn a_removed_replica_is_not_given_the_ve() {
    let Some(Bed { etcd: _etcd, cluster }) = bed() else { return };
    let root = cluster.replicated(&["--window", "10s"]);
    cluster.nodes[0].aspfs(&["replica", "remove", VE, "node-2"]).ok();
    std::fs::write(root.join("mine"), "written after the removal").unwrap();
    let two = &cluster.nodes[1];
    two.aspfs(&["promote", VE]).fails(1, &["does not count this node in"]);
    two.aspfs(&["promote", VE, "--force", "--yes"]).fails(1, &["its lease goes on"]);
    std::fs::write(root.join("mine"), "written still").unwrap();
    assert!(two.aspfs(&["ve", "show", VE]).ok().contains("replica"));
}
