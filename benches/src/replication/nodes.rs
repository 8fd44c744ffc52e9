//! Two nodes as they are used: a daemon each in a network namespace of its own, mounts, and a link that can be cut, limited and counted.
//! Everything is entered for undoing before it is there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use aspfs_tools::client::{Client, ClientError};
use aspfs_tools::control::message::{At, Done, FileRow, Id, Request};
use aspfs_tools::control::path::Path as Inside;
use aspfs_tools::control::replication::ReplicaRow;
use aspfs_tools::control::versions::Which;
use aspfs_tools::control::{conn::Frame, frame::Kind};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;
use vefs::ids::VeId;

use crate::mount::Programs;
use crate::undo::Undo;

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// Distinguishes the networks of one run.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Two hosts and the link between them.
struct Network {
    tag: String,
}

fn run(args: &[&str]) -> Result<String> {
    let (program, args) = args.split_first().context("no command")?;
    let out = Command::new(program).args(args).stdin(Stdio::null()).output().with_context(|| (*program).to_owned())?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "{program} {}: {}", args.join(" "), said.trim());
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

impl Network {
    fn new(undo: &Undo) -> Result<Network> {
        let tag = format!("b{:x}{:x}", std::process::id() & 0xf_ffff, NUMBER.fetch_add(1, Ordering::Relaxed));
        let network = Network { tag };
        for host in [1, 2] {
            undo.run(&["ip", "netns", "del", &network.name(host)]);
            run(&["ip", "netns", "add", &network.name(host)])?;
            run(&["ip", "-n", &network.name(host), "link", "set", "lo", "up"])?;
        }
        let (one, two) = (network.name(1), network.name(2));
        run(&["ip", "-n", &one, "link", "add", "eth", "type", "veth", "peer", "name", "eth", "netns", &two])?;
        for host in [1, 2] {
            let address = format!("{}/24", address(host));
            run(&["ip", "-n", &network.name(host), "addr", "add", &address, "dev", "eth"])?;
            run(&["ip", "-n", &network.name(host), "link", "set", "eth", "up"])?;
        }
        Ok(network)
    }

    fn name(&self, host: usize) -> String {
        format!("{}-{host}", self.tag)
    }

    /// What a command is begun with to run on a host. The mount namespace stays this one.
    fn enter(&self, host: usize) -> Vec<String> {
        ["nsenter", &format!("--net=/run/netns/{}", self.name(host)), "--"].map(str::to_owned).to_vec()
    }
}

fn address(host: usize) -> String {
    format!("10.97.0.{host}")
}

/// A daemon on its host.
pub struct Node {
    dir: PathBuf,
    runtime: PathBuf,
    prefix: Vec<String>,
    programs: Programs,
    undo: Undo,
    holders: Arc<Mutex<Vec<i32>>>,
    pid: i32,
}

impl Node {
    fn start(undo: &Undo, programs: &Programs, dir: PathBuf, prefix: Vec<String>) -> Result<Node> {
        std::fs::create_dir_all(&dir)?;
        // A socket's path is short.
        let runtime = tempfile::Builder::new().prefix("aspfs-bench-").tempdir()?.keep();
        undo.remove(runtime.clone());
        let holders = undo.holders();
        let mut node = Node { dir, runtime, prefix, programs: programs.clone(), undo: undo.clone(), holders, pid: 0 };
        node.up()?;
        Ok(node)
    }

    fn socket(&self) -> PathBuf {
        self.runtime.join("control")
    }

    /// Starts the daemon and waits until it answers.
    pub fn up(&mut self) -> Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.join("log"))?;
        let (first, rest) = self.prefix.split_first().context("a prefix")?;
        let mut command = Command::new(first);
        command.args(rest).arg(self.programs.folder.join("aspfsd"));
        command.arg("--store").arg(self.dir.join("store")).arg("--socket").arg(self.socket());
        command.arg("--runtime-dir").arg(self.runtime.join("run")).args(["--log", "warn"]);
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().context("starting aspfsd")?;
        self.pid = child.id().cast_signed();
        self.undo.stop(child);
        let begun = Instant::now();
        loop {
            let status = Client::connect(&self.socket()).and_then(|mut c| c.status());
            if let Ok(status) = status {
                self.holders.lock().push(status.holder.cast_signed());
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!("aspfsd was not ready: {}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What the daemon said.
    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Sends the daemon a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.pid), signal)?)
    }

    /// Waits until a daemon that was told to end has ended. It stays a remnant until it is undone.
    pub fn ended(&self) -> Result<()> {
        let begun = Instant::now();
        let stat = format!("/proc/{}/stat", self.pid);
        let runs = || {
            let text = std::fs::read_to_string(&stat).unwrap_or_default();
            text.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
        };
        while runs() {
            ensure!(begun.elapsed() < PATIENCE, "aspfsd does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Runs the client.
    pub fn aspfs(&self, args: &[&str]) -> Result<String> {
        let client = self.programs.folder.join("aspfs");
        let out = Command::new(client).arg("--socket").arg(self.socket()).args(args).stdin(Stdio::null()).output()?;
        ensure!(out.status.success(), "aspfs {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr));
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// Mounts a VE, or a version of one, in a new folder.
    pub fn mount(&self, what: &str, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        std::fs::create_dir_all(&dir)?;
        self.undo.unmount(dir.clone());
        self.aspfs(&["mount", what, &dir.display().to_string()])?;
        Ok(dir)
    }

    /// How a VE is replicated, as this node sees it.
    pub fn rows(&self, ve: VeId) -> Result<Vec<ReplicaRow>> {
        Ok(Client::connect(&self.socket())?.ask::<_, Done>(&Request::ReplicaStatus { ve: Some(Id(ve)) })?.0)
    }

    /// Waits until a VE's replicas are as wanted.
    pub fn wait(&self, ve: VeId, what: &str, until: impl Fn(&[ReplicaRow]) -> bool) -> Result<()> {
        let begun = Instant::now();
        loop {
            let rows = self.rows(ve)?;
            if !rows.is_empty() && until(&rows) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!("waited for {what}: {rows:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Until the replicas have everything that was written up to now.
    pub fn drained(&self, ve: VeId) -> Result<()> {
        // What was written is sealed within a tick of followed VEs, five a second.
        std::thread::sleep(Duration::from_millis(1500));
        self.wait(ve, "the replica to have everything", |rows| {
            rows.iter().all(|r| r.state == "protected" && r.behind_txns == Some(0) && r.exposure_ms == Some(0))
        })
    }

    /// A file of a VE, as it is or as it was after a transaction.
    pub fn cat(&self, ve: VeId, path: &str, txn: Option<u64>) -> Result<Vec<u8>> {
        let at = txn.map(|txn| Which::At(At::Txn(txn)));
        let request = Request::Cat { ve: Id(ve), path: Inside::new(path.as_bytes()), at };
        let mut bytes = Vec::new();
        let mut each = |frame: Frame| -> Result<(), ClientError> {
            match frame.kind {
                Kind::Row => drop(frame.parse::<FileRow>()?),
                _ => bytes.extend_from_slice(&frame.body),
            }
            Ok(())
        };
        let _: Done = Client::connect(&self.socket())?.ask_with(&request, &mut |_| {}, &mut each)?;
        Ok(bytes)
    }
}

/// Two nodes that know each other. The first writes.
pub struct Nodes {
    network: Network,
    /// Where VEs are written.
    pub one: Node,
    /// Where they are followed.
    pub two: Node,
}

impl Nodes {
    /// Starts them in a new folder.
    pub fn start(undo: &Undo, programs: &Programs, folder: &Path) -> Result<Nodes> {
        let network = Network::new(undo)?;
        let one = Node::start(undo, programs, folder.join("1"), network.enter(1))?;
        let two = Node::start(undo, programs, folder.join("2"), network.enter(2))?;
        let bundle = folder.join("bundle.pem").display().to_string();
        one.aspfs(&["cluster", "init", "bench", "--node", "one", "--address", &address(1)])?;
        one.aspfs(&["node", "add", "two", "--address", &address(2), "--output", &bundle])?;
        two.aspfs(&["cluster", "join", &bundle])?;
        Ok(Nodes { network, one, two })
    }

    /// A new VE on the first node, followed by the second.
    pub fn replicated(&self, ve: VeId, settings: &[&str]) -> Result<()> {
        let name = ve.to_string();
        self.one.aspfs(&[&["ve", "create", &name], settings].concat())?;
        self.follow(ve)
    }

    /// Has a VE followed by the second node, and waits until it is protected.
    pub fn follow(&self, ve: VeId) -> Result<()> {
        self.one.aspfs(&["replica", "add", &ve.to_string(), "two", "--required"])?;
        self.one.wait(ve, "protection", |rows| rows.iter().all(|r| r.state == "protected"))
    }

    /// Bytes on the link so far, both ways, with all headers.
    pub fn travelled(&self) -> Result<u64> {
        let mut command = self.network.enter(1);
        command.extend(["cat", "/proc/net/dev"].map(str::to_owned));
        let text = run(&command.iter().map(String::as_str).collect::<Vec<_>>())?;
        let line = text.lines().find_map(|l| l.trim().strip_prefix("eth:")).context("no link")?;
        let words: Vec<u64> = line.split_whitespace().filter_map(|w| w.parse().ok()).collect();
        // Received bytes stand first and sent bytes ninth (proc_pid_net(5)).
        Ok(words.first().context("a count")? + words.get(8).context("a count")?)
    }

    /// A command on a node's host.
    pub fn on(&self, host: usize, program: &str) -> Result<Command> {
        let prefix = self.network.enter(host);
        let (first, rest) = prefix.split_first().context("a prefix")?;
        let mut command = Command::new(first);
        command.args(rest).arg(program);
        Ok(command)
    }

    /// The address of a node's host.
    pub fn address(&self, host: usize) -> String {
        address(host)
    }

    /// Cuts the link.
    pub fn cut(&self) -> Result<()> {
        run(&["ip", "-n", &self.network.name(1), "link", "set", "eth", "down"]).map(|_| ())
    }

    /// Lets the first node send so many kilobits a second.
    pub fn limit(&self, kbit: u32) -> Result<()> {
        let (name, rate) = (self.network.name(1), format!("{kbit}kbit"));
        let limit = ["tc", "-n", &name, "qdisc", "replace", "dev", "eth", "root", "tbf", "rate", &rate];
        run(&[&limit[..], &["burst", "16kb", "latency", "50ms"]].concat()).map(|_| ())
    }
}
