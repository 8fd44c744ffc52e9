//! A cluster of daemons, and a program that stamps every change.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aspfs_tests::netns::Network;
use aspfs_tests::node::Node;
use aspfs_tools::control::replication::ReplicaRow;

pub const VE: &str = "0000002A";

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ends a test that needs what there is not.
#[macro_export]
macro_rules! cluster_of {
    ($n:literal) => {
        match $crate::setup::Cluster::<$n>::new() {
            Ok(cluster) => cluster,
            Err(why) => {
                eprintln!("skipped: {why}");
                return;
            }
        }
    };
}

/// Nodes that know each other. The network goes last.
pub struct Cluster<const N: usize> {
    pub nodes: [Node; N],
    pub network: Network,
}

impl<const N: usize> Cluster<N> {
    pub fn new() -> Result<Cluster<N>, String> {
        Cluster::with(Cluster::<N>::network(N)?, &[])
    }

    /// A network of so many hosts, of which the first are to be the nodes.
    pub fn network(hosts: usize) -> Result<Network, String> {
        match aspfs_tests::node::cannot_mount() {
            Some(why) => Err(why),
            None => Network::new(hosts),
        }
    }

    /// Nodes whose daemons are given these flags.
    pub fn with(network: Network, flags: &[String]) -> Result<Cluster<N>, String> {
        let nodes: [Node; N] = std::array::from_fn(|n| Node::on(network.enter(n + 1), flags));
        let first = network.address(1);
        nodes[0].aspfs(&["cluster", "init", "test", "--node", "node-1", "--address", &first]).ok();
        for (n, node) in nodes.iter().enumerate().skip(1) {
            let (name, address) = (format!("node-{}", n + 1), network.address(n + 1));
            let bundle = node.path("bundle.pem");
            nodes[0].aspfs(&["node", "add", &name, "--address", &address, "--output", bundle.to_str().unwrap()]).ok();
            node.aspfs(&["cluster", "join", bundle.to_str().unwrap()]).ok();
        }
        Ok(Cluster { nodes, network })
    }

    /// A VE on the first node, followed by all others, mounted.
    pub fn replicated(&self, settings: &[&str]) -> PathBuf {
        self.nodes[0].aspfs(&[&["ve", "create", VE], settings].concat()).ok();
        for n in 1..N {
            self.nodes[0].aspfs(&["replica", "add", VE, &format!("node-{}", n + 1), "--required"]).ok();
        }
        self.wait(0, "protection", |rows| rows.iter().all(|r| r.state == "protected"));
        self.mount(0)
    }

    /// Mounts the VE on a node.
    pub fn mount(&self, node: usize) -> PathBuf {
        let dir = self.nodes[node].path("root");
        if let Err(e) = std::fs::create_dir(&dir) {
            assert_eq!(e.kind(), std::io::ErrorKind::AlreadyExists, "{e}");
        }
        self.nodes[node].aspfs(&["mount", VE, dir.to_str().unwrap()]).ok();
        dir
    }

    pub fn status(&self, node: usize) -> Vec<ReplicaRow> {
        let said = self.nodes[node].aspfs(&["--json", "replica", "status", VE]);
        if said.status == 0 { serde_json::from_str(&said.out).unwrap() } else { vec![] }
    }

    #[track_caller]
    pub fn wait(&self, node: usize, what: &str, until: impl Fn(&[ReplicaRow]) -> bool) {
        let begin = Instant::now();
        loop {
            let rows = self.status(node);
            if !rows.is_empty() && until(&rows) {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "waited for {what}: {rows:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Time since boot, as every process of this machine has it.
pub fn boot() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// Appends records of `size` bytes that begin with a number and a time, one write(2) each, as fast as it can.
pub struct Writer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<(u64, Duration)>>>,
}

impl Writer {
    pub fn start(path: &Path, size: usize) -> Writer {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, path) = (stop.clone(), path.to_owned());
        let thread = std::thread::spawn(move || {
            let mut done = vec![];
            let Ok(mut file) = File::options().create(true).append(true).open(path) else { return done };
            for n in 1.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let mut record = format!("{n} {}", boot().as_nanos()).into_bytes();
                record.resize(size - 1, b' ');
                record.push(b'\n');
                if file.write_all(&record).is_err() {
                    break;
                }
                done.push((n, boot()));
            }
            done
        });
        Writer { stop, thread: Some(thread) }
    }

    /// Ends it: the numbers of the writes that were answered, and when.
    pub fn end(mut self) -> Vec<(u64, Duration)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

/// The records of a file: numbers without a gap from 1, each with the time at which its write began.
#[track_caller]
pub fn records(path: &Path) -> Vec<Duration> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut out = vec![];
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let n: usize = words.next().unwrap_or_default().parse().unwrap_or_else(|_| panic!("record {line:?}"));
        assert_eq!(n, out.len() + 1, "a record is missing or torn");
        let nanos: u64 = words.next().unwrap().parse().unwrap();
        out.push(Duration::from_nanos(nanos));
    }
    out
}
