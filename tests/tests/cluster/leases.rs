//! The required replicas name the writer, by themselves: real daemons, no arbiter, nothing said by people.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use aspfs_tools::control::replication::ReplicaRow;
use rustix::process::{Pid, Signal, kill_process};

use crate::setup::{Cluster, VE, Writer, boot, records};

/// How long a lease is in these tests.
const LEASE: Duration = Duration::from_secs(3);

/// Three nodes, and the file in which each writes down that it was promoted.
fn bed() -> Option<(Cluster<3>, tempfile::TempDir)> {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("promoted");
    let script = format!("#!/bin/sh\nprintf '%s %s\\n' \"$1\" \"$2\" >> {}\n", dir.path().join("said").display());
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let flags = ["--writers", "replicas", "--lease", "3s", "--fail-over", "by-itself", "--on-promotion"];
    let mut flags: Vec<String> = flags.map(str::to_owned).to_vec();
    flags.push(program.to_str().unwrap().to_owned());
    let made = Cluster::<3>::network(3).and_then(|network| Cluster::with(network, &flags));
    made.inspect_err(|why| eprintln!("skipped: {why}")).ok().map(|cluster| (cluster, dir))
}

/// Waits until one of the other nodes writes the VE; which one.
fn successor(cluster: &Cluster<3>) -> usize {
    let begin = boot();
    loop {
        let writes = |n: &usize| cluster.status(*n).iter().any(|r| r.role == "primary" && r.state != "stalled");
        if let Some(n) = [1, 2].into_iter().find(writes) {
            return n;
        }
        assert!(boot() - begin < Duration::from_secs(60), "nobody was promoted");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Mounts the VE where it is written now: at one that another node was faster than it is mounted no more. Where that is.
fn mounted(cluster: &Cluster<3>) -> (usize, PathBuf) {
    let begin = boot();
    loop {
        let next = successor(cluster);
        let dir = cluster.nodes[next].folder("root");
        let said = cluster.nodes[next].aspfs(&["mount", VE, dir.to_str().unwrap()]);
        if said.status == 0 {
            return (next, dir);
        }
        assert!(boot() - begin < Duration::from_secs(60), "{said:?}");
    }
}

fn protected(cluster: &Cluster<3>, node: usize) {
    cluster.wait(node, "protection", |rows| {
        rows.len() == 2 && rows.iter().all(|r| r.state == "protected" && r.connected && r.required)
    });
}

/// The primary is killed with its host: another node writes when the lease is over and not before, its program is run, and the old one follows and
/// has a say again when it is back (checks G9, G14, G18, G20, G22).
#[test]
fn a_killed_primary_is_replaced_by_itself() {
    let Some((mut cluster, dir)) = bed() else { return };
    let root = cluster.replicated(&["--window", "5s"]);
    protected(&cluster, 0);
    let writer = Writer::start(&root.join("stamps"), 64);
    std::thread::sleep(Duration::from_secs(2));
    protected(&cluster, 0);
    cluster.network.set_link(1, false);
    cluster.nodes[0].kill();
    let killed = boot();
    successor(&cluster);
    eprintln!("promoted by itself {:?} after the kill, with a lease of {LEASE:?}", boot() - killed);
    // The lease was renewed no more than a third of it before the kill. It cannot be over earlier.
    assert!(boot() - killed >= LEASE - LEASE / 3 - Duration::from_millis(500), "promoted under a lease");
    let (next, there) = mounted(&cluster);
    let newest = records(&there.join("stamps")).last().copied().expect("something was shipped");
    assert!(killed.saturating_sub(newest).as_secs() < 5, "the newest change is {:?} old", killed - newest);
    std::fs::write(there.join("after"), "written by another node").unwrap();
    cluster.wait(next, "the program that is told", |_| dir.path().join("said").exists());
    let said = std::fs::read_to_string(dir.path().join("said")).unwrap();
    assert!(said.starts_with(&format!("{VE} ")) && said.ends_with('\n'), "{said}");

    cluster.network.set_link(1, true);
    cluster.nodes[0].up();
    let answered = writer.end();
    assert!(answered.iter().all(|(_, at)| *at <= killed), "the old primary wrote after it was superseded");
    protected(&cluster, next);
    assert!(std::fs::write(root.join("mine"), "no").is_err(), "the old mount takes no changes");
    assert_eq!(cluster.nodes[0].aspfs(&["cat", VE, "/after"]).ok(), "written by another node");
}

/// How a primary is lost without being killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    Cut,
    /// Cut off, and its daemon stopped until another one has written.
    Stopped,
    /// Nobody hears it.
    Mute,
    /// It hears nobody.
    Deaf,
}

impl Lost {
    fn begin(self, cluster: &Cluster<3>) {
        let network = &cluster.network;
        match self {
            Lost::Cut => network.set_link(1, false),
            Lost::Stopped => {
                network.set_link(1, false);
                signal(cluster, Signal::STOP);
            }
            Lost::Mute => [2, 3].into_iter().for_each(|other| network.set_mute(1, other, true)),
            Lost::Deaf => [2, 3].into_iter().for_each(|other| network.set_mute(other, 1, true)),
        }
    }

    /// The network is whole again.
    fn end(self, cluster: &Cluster<3>) {
        let network = &cluster.network;
        match self {
            Lost::Cut | Lost::Stopped => network.set_link(1, true),
            Lost::Mute => [2, 3].into_iter().for_each(|other| network.set_mute(1, other, false)),
            Lost::Deaf => [2, 3].into_iter().for_each(|other| network.set_mute(other, 1, false)),
        }
    }
}

fn signal(cluster: &Cluster<3>, signal: Signal) {
    kill_process(Pid::from_raw(cluster.nodes[0].pid() as i32).unwrap(), signal).unwrap();
}

/// A primary that nobody hears, or that hears nobody, or both, completes nothing once another one may write; and so does one that was stopped for longer
/// than its lease (checks G18, G19).
#[test]
fn a_primary_that_is_cut_off_completes_nothing() {
    for how in [Lost::Cut, Lost::Stopped, Lost::Mute, Lost::Deaf] {
        let Some((cluster, _dir)) = bed() else { return };
        let root = cluster.replicated(&["--window", "60s"]);
        let writer = Writer::start(&root.join("stamps"), 64);
        std::thread::sleep(Duration::from_secs(1));
        protected(&cluster, 0);
        how.begin(&cluster);
        let (next, there) = mounted(&cluster);
        std::fs::write(there.join("after"), "written by another node").unwrap();
        let promoted = boot();
        if how == Lost::Stopped {
            signal(&cluster, Signal::CONT);
        }
        // One that is mute hears that it is superseded, on connections that were there.
        let over = |r: &ReplicaRow| r.role == "replica" || (r.lease_ms == Some(0) && r.state == "stalled");
        cluster.wait(0, "the end of the lease", |rows| rows.iter().all(over));
        eprintln!("{how:?}: {}", cluster.status(0)[0].role);
        std::thread::sleep(Duration::from_secs(1));
        how.end(&cluster);
        let answered = writer.end();
        let late = answered.iter().find(|(_, at)| *at > promoted);
        assert!(late.is_none(), "{how:?}: {late:?} was answered after {promoted:?}");
        protected(&cluster, next);
        let survived = records(&there.join("stamps")).len();
        assert!(survived > 0 && survived <= answered.len() + 1, "{survived} of {}", answered.len());
        assert_eq!(cluster.nodes[0].aspfs(&["cat", VE, "/after"]).ok(), "written by another node");
    }
}

/// One of three is away: writing goes on. The daemon of the primary starts anew: it writes on, and nobody was promoted. A second one goes: writers wait
/// until a person says that it is off.
#[test]
fn one_may_be_away_and_a_word_stands_for_the_second() {
    let Some((mut cluster, dir)) = bed() else { return };
    let root = cluster.replicated(&["--window", "60s"]);
    protected(&cluster, 0);
    cluster.network.set_link(3, false);
    std::thread::sleep(LEASE + Duration::from_secs(1));
    std::fs::write(root.join("with-two"), "written").unwrap();
    cluster.nodes[0].kill();
    cluster.nodes[0].up();
    std::fs::write(root.join("after-a-restart"), "written").unwrap();
    cluster.network.set_link(2, false);
    cluster.wait(0, "the end of the lease", |rows| rows.iter().all(|r| r.lease_ms == Some(0) && r.state == "stalled"));
    let told = cluster.nodes[0].aspfs(&["replica", "status", VE]).ok();
    assert!(told.contains("no lease"), "{told}");
    assert_eq!(std::fs::read_to_string(root.join("with-two")).unwrap(), "written", "reads go on");
    cluster.nodes[0].aspfs(&["replica", "remove", VE, "node-3", "--node-is-off"]).ok();
    cluster.nodes[0].aspfs(&["replica", "remove", VE, "node-2", "--node-is-off"]).ok();
    std::fs::write(root.join("alone"), "written").unwrap();
    assert!(!dir.path().join("said").exists(), "somebody was promoted");
}

/// A VE that lags, since one of its replicas is away, is promoted by nobody by itself where the primary that has everything is gone: its required
/// replicas were told before it lagged. A person may insist (checks G16).
#[test]
fn a_ve_that_lags_is_not_promoted_by_itself() {
    let Some((mut cluster, dir)) = bed() else { return };
    let root = cluster.replicated(&["--window", "1s", "--at-window", "degrade"]);
    protected(&cluster, 0);
    cluster.network.set_link(3, false);
    let writer = Writer::start(&root.join("stamps"), 64);
    cluster.wait(0, "lagging", |rows| rows.iter().all(|r| r.state == "lagging"));
    cluster.network.set_link(1, false);
    cluster.nodes[0].kill();
    cluster.network.set_link(3, true);
    std::thread::sleep(LEASE * 4);
    assert!(!dir.path().join("said").exists(), "promoted though it lagged");
    cluster.nodes[1].aspfs(&["promote", VE]).fails(1, &["lags", "--force"]);
    cluster.nodes[1].aspfs(&["promote", VE, "--force", "--yes"]).ok();
    let there = cluster.mount(1);
    std::fs::write(there.join("after"), "written by another node").unwrap();
    cluster.network.set_link(1, true);
    cluster.nodes[0].up();
    writer.end();
    protected(&cluster, 1);
}

/// A node started before it had the address on which its replicas are to find it: nobody could allow its writes, so its mount was not served; and it stayed so when
/// the address had come, until the daemon was started anew (checks G18).
#[test]
fn a_mount_that_waited_for_replication_is_served() {
    let flags = ["--writers", "replicas", "--lease", "3s"].map(str::to_owned);
    let made = Cluster::<3>::network(3).and_then(|network| Cluster::<3>::with(network, &flags));
    let Ok(mut cluster) = made.inspect_err(|why| eprintln!("skipped: {why}")) else { return };
    let root = cluster.replicated(&["--window", "10s"]);
    std::fs::write(root.join("before"), "before").unwrap();
    cluster.nodes[0].kill();
    cluster.network.set_address(1, false);
    let listen = format!("{}:7447", cluster.network.address(1));
    cluster.nodes[0].flags().extend(["--listen".into(), listen]);
    cluster.nodes[0].up();
    let status = cluster.nodes[0].aspfs(&["--json", "status"]).ok();
    assert!(status.contains("its mount is not served: other nodes follow it"), "{status}");
    let after = root.join("after");
    let writer = std::thread::spawn(move || std::fs::write(after, "after"));
    cluster.network.set_address(1, true);
    writer.join().unwrap().unwrap();
    cluster.wait(0, "the replicas", |rows| rows.iter().all(|r| r.connected && r.behind_txns == Some(0)));
    assert_eq!(cluster.nodes[1].aspfs(&["cat", VE, "/after"]).ok(), "after");
    assert!(!cluster.nodes[0].aspfs(&["--json", "status"]).ok().contains("not served"));
}
