//! Nodes with real stores, threads and QUIC over the loopback, in this process: streams, whole states, promotion, hand-over, return.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aspfs_replica::cluster::Cluster;
use aspfs_replica::node::NodeId;
use aspfs_replica::runtime::{OperateError, Runtime, Writers, with_replica};
use aspfs_replica::window::State;
use aspfs_tests::harness::empty_tree;
use bytes::Bytes;
use vefs::change::{AtWindow, Need, Policy, ReplicaOf, Settings};
use vefs::clock::SystemClock;
use vefs::ids::{InodeNo, VeId};
use vefs::op::{Op, Owner, Reply};
use vefs::store::{Background, Options, Store};
use vefs::types::mode;
use vefs::ve::{Request, Verdict};
use vefs::{Error, Ve};

pub(super) const VE: VeId = VeId(0x2A);

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

#[track_caller]
pub(super) fn wait(what: &str, mut until: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !until() {
        assert!(begin.elapsed() < PATIENCE, "waited for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A node whose store outlives its daemon.
pub(super) struct Node {
    pub(super) dir: tempfile::TempDir,
    pub(super) cluster: Arc<Cluster>,
    up: Option<Up>,
    pub(super) writers: Writers,
}

struct Up {
    runtime: Runtime,
    background: Background,
    store: Arc<Store>,
}

impl Node {
    pub(super) fn id(&self) -> NodeId {
        self.cluster.node()
    }

    pub(super) fn store(&self) -> &Arc<Store> {
        &self.up.as_ref().unwrap().store
    }

    pub(super) fn runtime(&self) -> &Runtime {
        &self.up.as_ref().unwrap().runtime
    }

    pub(super) fn ve(&self) -> Arc<Ve> {
        self.store().ve(VE).unwrap()
    }

    pub(super) fn start(&mut self) {
        let path = self.dir.path().join("store");
        if !path.exists() {
            Store::create(&path).unwrap();
        }
        let options = Options { reserve: 0, ..Options::default() };
        let store = Arc::new(Store::open(&path, options).unwrap());
        let background = Background::start(store.clone(), Duration::from_millis(500)).unwrap();
        let here = self.cluster.list();
        let me = here.list.node(self.id()).unwrap();
        let listen = me.addresses.first().map_or("127.0.0.1:0".into(), |a| a.as_str().to_owned());
        let clock = Arc::new(SystemClock);
        let runtime =
            Runtime::start(store.clone(), self.cluster.clone(), listen.parse().unwrap(), clock, &self.writers).unwrap();
        self.up = Some(Up { runtime, background, store });
    }

    /// The daemon ends without a word: nothing is sealed, published or closed.
    pub(super) fn stop(&mut self) {
        if let Some(Up { runtime, background, store }) = self.up.take() {
            drop(runtime);
            drop(background);
            drop(store);
        }
    }

    pub(super) fn acked(&self, by: NodeId) -> bool {
        let Some(figures) = self.runtime().figures(VE) else { return false };
        let Some((_, replicas)) = figures.led else { return false };
        let ve = self.ve();
        let head = ve.durable_position();
        !ve.is_dirty() && replicas.iter().any(|r| r.status.node == by && r.link.acked == Some(head))
    }

    fn state(&self) -> State {
        self.runtime().figures(VE).unwrap().led.unwrap().0.state
    }
}

pub(super) fn nodes<const N: usize>() -> [Node; N] {
    nodes_with(&Writers::default())
}

pub(super) fn nodes_with<const N: usize>(writers: &Writers) -> [Node; N] {
    let clock = Arc::new(SystemClock);
    let dirs: [tempfile::TempDir; N] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let names: [String; N] = std::array::from_fn(|n| format!("node-{n}"));
    let address = || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().to_string()
    };
    let addresses: [String; N] = std::array::from_fn(|_| address());
    let first = Cluster::init(
        &dirs[0].path().join("cluster"),
        &"test".parse().unwrap(),
        &names[0].parse().unwrap(),
        &[addresses[0].parse().unwrap()],
        clock.clone(),
    );
    let first = Arc::new(first.unwrap());
    let bundles: Vec<_> =
        (1..N).map(|n| first.add_node(&names[n].parse().unwrap(), &[addresses[n].parse().unwrap()]).unwrap()).collect();
    let mut at = 0;
    dirs.map(|dir| {
        let cluster = match at {
            0 => first.clone(),
            n => Arc::new(Cluster::join(&dir.path().join("cluster"), &bundles[n - 1], clock.clone()).unwrap()),
        };
        at += 1;
        let mut node = Node { dir, cluster, up: None, writers: writers.clone() };
        node.start();
        node
    })
}

pub(super) fn file(ve: &Ve, name: &str, data: &[u8]) -> vefs::Result<InodeNo> {
    let owner = Owner { uid: 0, gid: 0, umask: 0 };
    let op = Op::Create { parent: InodeNo::ROOT, name: name.into(), mode: mode::IFREG | 0o644, owner, rdev: 0 };
    let Reply::Inode(ino, _) = ve.execute(&op, Request::default())? else { panic!("no inode") };
    for (i, part) in data.chunks(100_000).enumerate() {
        let (offset, data) = (i as u64 * 100_000, Bytes::copy_from_slice(part));
        ve.execute(&Op::Write { ino, offset, data, kill_priv: false }, Request::default())?;
    }
    Ok(ino)
}

pub(super) fn replicated(from: &Node, to: &[&Node], at_window: AtWindow) -> Arc<Ve> {
    let ve = from.store().create_ve(VE, empty_tree(), Settings::default()).unwrap();
    let mut policy = Policy { window_ms: 2000, at_window, ..Policy::default() };
    for node in to {
        policy = with_replica(&policy, ReplicaOf { node: node.id().0, need: Need::Required, bandwidth: 0 });
    }
    ve.set_policy(policy).unwrap();
    ve.commit().unwrap();
    from.runtime().refresh(&ve).unwrap();
    ve
}

pub(super) fn same(a: &Node, b: &Node) {
    let (x, y) = (a.ve(), b.ve());
    assert_eq!(x.durable_position(), y.durable_position());
    let txn = y.position().txn;
    assert_eq!(x.version(txn).unwrap().state_root().unwrap().root, y.version(txn).unwrap().state_root().unwrap().root);
}

/// A VE's history goes to two nodes, through restarts of all of them (checks G9, G11, G13).
#[test]
fn history_goes_to_every_replica() {
    let [mut a, mut b, mut c] = nodes();
    let ve = replicated(&a, &[&b, &c], AtWindow::Degrade);
    for i in 0..50u32 {
        let data: Vec<u8> = (0..i * 9000).map(|n| (n / 100) as u8).collect();
        file(&ve, &format!("file-{i}"), &data).unwrap();
    }
    ve.commit().unwrap();
    wait("both replicas", || a.acked(b.id()) && a.acked(c.id()));
    same(&a, &b);
    same(&a, &c);
    assert_eq!(a.state(), State::Protected);
    let refused = file(&b.ve(), "mine", b"").unwrap_err();
    assert!(matches!(refused, Error::ReadOnly { .. }), "{refused}");
    drop(ve);
    for round in 0..3 {
        match round {
            0 => b.stop(),
            1 => c.stop(),
            _ => a.stop(),
        }
        if a.up.is_none() {
            a.start();
        }
        file(&a.ve(), &format!("round-{round}"), &[round; 200_000]).unwrap();
        a.ve().commit().unwrap();
        for node in [&mut b, &mut c] {
            if node.up.is_none() {
                node.start();
            }
        }
        wait("both replicas again", || a.acked(b.id()) && a.acked(c.id()));
        same(&a, &b);
        same(&a, &c);
    }
}

/// A VE with a past longer than its journal goes over as a whole state while it is written, and a replica whose cursor was lost too.
#[test]
fn a_whole_state_is_pulled_where_the_journal_does_not_reach_back() {
    let [a, mut b] = nodes();
    let ve = a.store().create_ve(VE, empty_tree(), Settings::default()).unwrap();
    for i in 0..40u8 {
        file(&ve, &format!("old-{i}"), &vec![i; 300_000]).unwrap();
    }
    ve.commit().unwrap();
    a.store().checkpoint().unwrap();
    // The journal is given back up to here.
    for _ in 0..4 {
        for i in 0..40u8 {
            let op = Op::Setxattr {
                ino: InodeNo::ROOT,
                name: b"user.k".to_vec(),
                value: vec![i; 60_000],
                mode: vefs::op::XattrMode::Set,
            };
            ve.execute(&op, Request::default()).unwrap();
        }
        a.store().tick().unwrap();
        a.store().checkpoint().unwrap();
    }
    assert_eq!(ve.feed(vefs::ids::TxnNo(0)).unwrap(), vefs::ve::Feed::Gone);
    let policy = with_replica(&Policy::default(), ReplicaOf { node: b.id().0, need: Need::Required, bandwidth: 0 });
    ve.set_policy(policy).unwrap();
    ve.commit().unwrap();
    a.runtime().refresh(&ve).unwrap();
    for i in 0..20u8 {
        file(&ve, &format!("new-{i}"), &vec![i; 100_000]).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    ve.commit().unwrap();
    wait("the replica", || a.acked(b.id()));
    same(&a, &b);
    // Far behind again.
    b.stop();
    ve.drop_cursor(b.id().0).unwrap();
    for i in 0..20u8 {
        file(&ve, &format!("newer-{i}"), &vec![i; 100_000]).unwrap();
        let op = Op::Setxattr {
            ino: InodeNo::ROOT,
            name: b"user.k".to_vec(),
            value: vec![i; 60_000],
            mode: vefs::op::XattrMode::Set,
        };
        ve.execute(&op, Request::default()).unwrap();
        a.store().tick().unwrap();
        a.store().checkpoint().unwrap();
    }
    b.start();
    wait("the replica once more", || a.acked(b.id()));
    same(&a, &b);
}

/// The primary is gone; its replica is promoted, and when the old one comes back it writes no more, keeps its tail as a branch and follows
/// (checks G18, G21, G22).
#[test]
fn a_promoted_replica_and_the_return_of_the_old_primary() {
    let [mut a, b] = nodes();
    let ve = replicated(&a, &[&b], AtWindow::Degrade);
    file(&ve, "shipped", &[1; 150_000]).unwrap();
    ve.commit().unwrap();
    wait("the replica", || a.acked(b.id()));
    let alive = b.runtime().promote(VE, true, false).unwrap_err();
    assert!(matches!(&alive, OperateError::Unsafe(t) if t.contains("is written by node")), "{alive}");
    drop(ve);
    a.stop();
    wait("the connection to go", || !b.runtime().figures(VE).unwrap().followed.unwrap().connected);
    // Meanwhile it starts without a network, so to speak, and writes something that nobody gets.
    {
        let options = Options { reserve: 0, ..Options::default() };
        let store = Store::open(&a.dir.path().join("store"), options).unwrap();
        let ve = store.ve(VE).unwrap();
        file(&ve, "tail", b"nobody has this").unwrap();
        ve.commit().unwrap();
    }
    let unsaid = b.runtime().promote(VE, false, false).unwrap_err();
    assert!(unsaid.to_string().contains("--old-primary-is-off"), "{unsaid}");
    let promoted = b.runtime().promote(VE, true, false).unwrap();
    assert_eq!(promoted.epoch.term(), 1);
    file(&b.ve(), "written by the new primary", &[2; 250_000]).unwrap();
    b.ve().commit().unwrap();
    a.start();
    wait("the old primary to follow", || b.acked(a.id()));
    same(&b, &a);
    assert!(!a.ve().is_writer());
    assert!(matches!(file(&a.ve(), "mine", b""), Err(Error::ReadOnly { .. })));
    let branches = a.store().branch_names(VE).unwrap();
    assert_eq!(branches.len(), 1, "{branches:?}");
    let branch = a.store().branch(VE, &branches[0]).unwrap();
    assert_eq!(branch.lookup(InodeNo::ROOT, b"tail").unwrap().1.size, 15);
    assert!(a.ve().lookup(InodeNo::ROOT, b"tail").is_err());
}

/// A planned hand-over: nothing is lost, the old node follows, and back again (checks G18).
#[test]
fn a_ve_is_handed_over_and_back() {
    let [a, b] = nodes();
    let ve = replicated(&a, &[&b], AtWindow::Stall);
    file(&ve, "one", &[1; 150_000]).unwrap();
    drop(ve);
    wait("the replica to be known", || b.runtime().figures(VE).is_some());
    let epoch = a.runtime().switchover(VE, b.id()).unwrap();
    assert_eq!(epoch.term(), 1);
    assert!(matches!(file(&a.ve(), "mine", b""), Err(Error::ReadOnly { .. })));
    file(&b.ve(), "two", &[2; 150_000]).unwrap();
    b.ve().commit().unwrap();
    wait("the old primary to follow", || b.acked(a.id()));
    same(&b, &a);
    let back = b.runtime().switchover(VE, a.id()).unwrap();
    assert_eq!(back.term(), 2);
    file(&a.ve(), "three", &[3; 150_000]).unwrap();
    a.ve().commit().unwrap();
    wait("the other to follow again", || a.acked(b.id()));
    same(&a, &b);
    for name in ["one", "two", "three"] {
        assert!(b.ve().lookup(InodeNo::ROOT, name.as_bytes()).is_ok(), "{name}");
    }
}

/// Without its replica a VE is lagging, loudly, or stalls, as its policy says; it is protected again only when the replica has everything
/// (checks G14, G16, G17).
#[test]
fn the_window_follows_the_policy() {
    let [a, mut b] = nodes();
    let ve = replicated(&a, &[&b], AtWindow::Stall);
    file(&ve, "one", b"1").unwrap();
    ve.commit().unwrap();
    wait("the replica", || a.acked(b.id()));
    assert_eq!(a.state(), State::Protected);
    b.stop();
    file(&ve, "two", b"2").unwrap();
    ve.commit().unwrap();
    wait("the stall", || a.state() == State::Stalled);
    assert_eq!(ve.admit(10), Verdict::Wait);
    let policy = Policy { at_window: AtWindow::Degrade, ..ve.policy().unwrap() };
    ve.set_policy(policy).unwrap();
    ve.commit().unwrap();
    a.runtime().refresh(&ve).unwrap();
    wait("lagging", || a.state() == State::Lagging);
    assert_eq!(ve.admit(10), Verdict::Go);
    b.start();
    wait("the replica again", || a.acked(b.id()));
    wait("protection", || a.state() == State::Protected);
    let counters = a.runtime().figures(VE).unwrap().led.unwrap().0.counters;
    assert!(counters.breaches >= 1 && counters.stalled > Duration::ZERO, "{counters:?}");
}

/// A VE that was destroyed is destroyed everywhere, also on a node that was away (checks G34).
#[test]
fn a_destroyed_ve_is_gone_everywhere() {
    let [a, b, mut c] = nodes();
    let ve = replicated(&a, &[&b, &c], AtWindow::Degrade);
    file(&ve, "one", b"1").unwrap();
    ve.commit().unwrap();
    wait("both replicas", || a.acked(b.id()) && a.acked(c.id()));
    c.stop();
    let told = a.runtime().destroy(ve).unwrap();
    assert!(told.iter().any(|(n, o)| *n == b.id() && o.is_ok()), "{told:?}");
    assert!(told.iter().any(|(n, o)| *n == c.id() && o.is_err()), "{told:?}");
    assert!(!a.store().has_ve(VE) && !b.store().has_ve(VE));
    c.start();
    wait("the node to hear of it", || !c.store().has_ve(VE));
}

/// The replicas were told before it was known whether the VE can be destroyed at all: a mounted version kept it, and they had buried it for good. What
/// is refused changes nothing, and the VE goes on being replicated.
#[test]
fn a_ve_that_cannot_be_destroyed_stays_everywhere() {
    let [a, b] = nodes();
    let ve = replicated(&a, &[&b], AtWindow::Degrade);
    file(&ve, "one", b"1").unwrap();
    ve.commit().unwrap();
    wait("the replica", || a.acked(b.id()));
    let lineage = ve.identity().lineage;
    drop(ve.hold_mounted("kept", ve.position().txn).unwrap());
    assert!(a.runtime().destroy(ve.clone()).is_err());
    assert!(b.store().has_ve(VE) && !b.store().is_buried(lineage) && !a.store().is_buried(lineage));
    file(&ve, "two", b"2").unwrap();
    ve.commit().unwrap();
    wait("the replica to follow", || a.acked(b.id()));
    let slot = a.store().mounted_versions().unwrap()[0].0;
    a.store().release_mounted(VE, slot, "kept").unwrap();
    a.runtime().destroy(ve).unwrap();
    assert!(!b.store().has_ve(VE) && b.store().is_buried(lineage));
}

/// Erasing the copy on a node that had been removed from the list buried the VE there: a replica that was away asked it when it was back, was told that
/// the VE was destroyed, and erased its own copy with the writer down (checks G34). The copy alone goes, and may come again.
#[test]
fn erasing_a_copy_on_one_node_erases_no_other() {
    let [mut a, b, mut c] = nodes();
    let ve = replicated(&a, &[&b, &c], AtWindow::Degrade);
    file(&ve, "one", b"1").unwrap();
    ve.commit().unwrap();
    wait("both replicas", || a.acked(b.id()) && a.acked(c.id()));
    let lineage = ve.identity().lineage;
    c.stop();
    let both = ve.policy().unwrap();
    let mut without = both.clone();
    without.replicas.retain(|r| r.node != b.id().0);
    ve.set_policy(without).unwrap();
    ve.commit().unwrap();
    a.runtime().refresh(&ve).unwrap();
    assert!(b.runtime().destroy(b.ve()).unwrap().is_empty());
    assert!(!b.store().has_ve(VE) && !b.store().is_buried(lineage));
    drop(ve);
    a.stop();
    c.start();
    // It asks as soon as it is there.
    std::thread::sleep(Duration::from_secs(2));
    assert!(c.store().has_ve(VE) && !c.store().is_buried(lineage));
    a.start();
    let ve = a.ve();
    ve.set_policy(both).unwrap();
    ve.commit().unwrap();
    a.runtime().refresh(&ve).unwrap();
    wait("both replicas again", || a.acked(b.id()) && a.acked(c.id()));
    same(&a, &b);
    same(&a, &c);
}
