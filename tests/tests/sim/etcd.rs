//! A real etcd, where one is installed (Debian's etcd-server): two clients and one VE.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aspfs_replica::arbiter::etcd::Etcd;
use aspfs_replica::arbiter::{Arbiter, Refused, Reply, Request};
use aspfs_replica::net::HttpClient;
use aspfs_replica::node::NodeId;
use vefs::ids::{Epoch, VeId};

const VE: VeId = VeId(7);
const A: NodeId = NodeId([1; 16]);
const B: NodeId = NodeId([2; 16]);

struct Server {
    child: Child,
    url: String,
    _dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn start() -> Option<Server> {
    let dir = tempfile::tempdir().unwrap();
    let (client, peer) = (format!("http://127.0.0.1:{}", free_port()), format!("http://127.0.0.1:{}", free_port()));
    let mut command = Command::new("etcd");
    command.arg("--data-dir").arg(dir.path().join("data")).args(["--name", "a", "--initial-cluster"]);
    command.arg(format!("a={peer}"));
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
    Some(Server { child, url: client, _dir: dir })
}

fn propose(node: NodeId, expected: u64, epoch: u64) -> Request {
    Request::Propose { ve: VE, node, expected: Epoch(expected), epoch: Epoch(epoch), forced: false }
}

/// checks G18
#[test]
fn a_real_etcd_gives_an_epoch_to_one_node() {
    let Some(server) = start() else {
        eprintln!("skipped: etcd is not installed");
        return;
    };
    let client = || Etcd::new(HttpClient::new(vec![server.url.clone()]), "/aspfs/test");
    let (mut a, mut b) = (client(), client());
    let patience = Duration::from_secs(10);
    let begun = Instant::now();
    while a.ask(&Request::Read { ve: VE }, Duration::from_secs(1)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "etcd does not answer");
        std::thread::sleep(Duration::from_millis(50));
    }
    let ask = |etcd: &mut Etcd<HttpClient>, request| etcd.ask(&request, patience).unwrap();
    assert!(matches!(ask(&mut a, propose(A, 0, 5)), Reply::Record(r, false) if r.owner == A));
    let lease = |node, epoch| Request::Lease { ve: VE, node, epoch: Epoch(epoch), ttl_ms: 1500 };
    assert!(matches!(ask(&mut a, lease(A, 5)), Reply::Record(_, true)));
    assert!(matches!(ask(&mut a, lease(A, 5)), Reply::Record(_, true)), "renewed");
    assert!(matches!(ask(&mut b, propose(B, 5, 6)), Reply::Refused(Refused::LeaseRuns, _)));
    // It ends by itself: until then it is refused, and nothing else comes in between.
    let taken = loop {
        match ask(&mut b, propose(B, 5, 6)) {
            Reply::Refused(Refused::LeaseRuns, _) => std::thread::sleep(Duration::from_millis(100)),
            other => break other,
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "the lease does not end");
    };
    assert!(matches!(taken, Reply::Record(r, false) if r.owner == B && r.epoch == Epoch(6)), "{taken:?}");
    assert!(matches!(ask(&mut a, lease(A, 5)), Reply::Refused(Refused::Superseded, _)));
    let lagging = Request::Lagging { ve: VE, node: B, epoch: Epoch(6), lagging: true };
    assert!(matches!(ask(&mut b, lagging), Reply::Record(r, _) if r.lagging == Some(B)));
    assert!(matches!(ask(&mut a, propose(A, 6, 7)), Reply::Refused(Refused::Lags, _)));
}
