//! What replication does. Without a name: two nodes in one process over 127.0.0.1, with real stores, threads and flushes: how fast a VE's bytes
//! become durable on both; how old the newest copy is under a mixed load, and what travels for it; how long a promotion takes. The named
//! questions are in rooms of their own; all but `scale` run daemons in network namespaces, and mounts.

mod cancelled;
mod copies;
pub mod failover;
mod first;
pub mod load;
mod mix;
mod mounted;
mod nodes;
mod peers;
mod scale;
mod trial;
pub mod window;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use aspfs_replica::cluster::Cluster;
use aspfs_replica::node::NodeId;
use aspfs_replica::runtime::{Runtime, Writers, with_replica};
use bytes::Bytes;
use vefs::change::{AtWindow, Need, Policy, ReplicaOf, Settings};
use vefs::clock::SystemClock;
use vefs::ids::{InodeNo, VeId};
use vefs::op::{Op, Owner, Reply};
use vefs::store::{Background, Options, Store};
use vefs::types::mode;
use vefs::ve::Request;
use vefs::{Store as Opened, Ve};

use crate::bed::{Ground, noise, process_cpu};
use crate::mount::Programs;
use crate::outcome::{Figure, Goal, Outcome};
use crate::undo::Undo;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// The mixed load on a mount, with a replica and without; what travels; a package (root).
    Mix,
    /// The mixed load in other systems too: lsyncd, btrfs send, GlusterFS, each if it is installed (root).
    Peers,
    /// 1, 10, 100 and 1,000 VEs that write a little each.
    Scale,
    /// From kill -9 to mounted on the replica (root).
    Failover,
    /// What a cut costs at most, by the stamps of a program (root).
    Window,
    /// The first full copy of a VE of many small files, beside rsync (root).
    First,
    /// What of a database's bytes travels, with a rollback journal and with a WAL (root).
    Cancelled,
}

/// How.
#[derive(clap::Args, Clone, Debug)]
pub struct ReplicationArgs {
    /// Which question; without one: two nodes in one process.
    pub what: Option<What>,
    /// The folder with aspfsd, aspfs and aspfs-holder; without it: this program's.
    #[arg(long)]
    programs: Option<PathBuf>,
    /// How long a load runs.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Of `peers`: only these (aspfs, lsyncd, "btrfs send", GlusterFS).
    #[arg(long)]
    only: Vec<String>,
    /// Of `scale`: the numbers of VEs.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 100, 1000], value_parser = clap::value_parser!(u32).range(1..=10_000))]
    ves: Vec<u32>,
}

/// A question with what its answer needs.
struct Asked<'a> {
    ground: &'a Ground,
    programs: Programs,
    undo: &'a Undo,
    /// Where the list of what is to be undone began.
    mark: usize,
    seconds: u64,
    only: &'a [String],
    ves: &'a [u32],
}

impl Asked<'_> {
    /// A new folder for one part.
    fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.ground.path().canonicalize()?.join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|n| n.eq_ignore_ascii_case(name))
    }
}

/// Answers a named question, with the rows of its table.
pub fn named(dir: &Path, quick: bool, rounds: Option<usize>, args: &ReplicationArgs, what: What) -> Result<Outcome> {
    if what != What::Scale && !rustix::process::geteuid().is_root() {
        bail!("mounts and network namespaces need root");
    }
    let undo = Undo::watched()?;
    let ground = Ground::new(dir, quick, rounds)?;
    // Removed when the run is interrupted, too: last, when nothing is mounted in it.
    undo.remove(ground.path().canonicalize()?);
    let before = load_average()?;
    let asked = Asked {
        ground: &ground,
        programs: match what {
            What::Scale => Programs { folder: PathBuf::new() },
            _ => Programs::find(args.programs.as_deref())?,
        },
        undo: &undo,
        mark: undo.mark(),
        seconds: if quick { args.seconds.min(5) } else { args.seconds },
        only: &args.only,
        ves: if quick { &[1, 3] } else { &args.ves },
    };
    let answer = match what {
        What::Mix => mounted::measure(&asked),
        What::Peers => peers::measure(&asked),
        What::Scale => scale::measure(&asked),
        What::Failover => failover::measure(&asked),
        What::Window => window::measure(&asked),
        What::First => first::measure(&asked),
        What::Cancelled => cancelled::measure(&asked),
    };
    let note = ground.note()?;
    undo.all();
    let mut out = answer?;
    out.notes.push(format!("{note}; load average before {before}, after {}", load_average()?));
    Ok(out)
}

/// Of the last minute, five and fifteen (proc_loadavg(5)).
fn load_average() -> Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
}

const VE: VeId = VeId(1);
/// Bytes of one write.
const WRITE: usize = 1 << 20;

struct Node {
    runtime: Option<Runtime>,
    store: Arc<Opened>,
    _background: Background,
    id: NodeId,
}

fn node(dir: &Path, cluster: Arc<Cluster>) -> Result<Node> {
    let path = dir.join("store");
    Store::create(&path)?;
    let store = Arc::new(Store::open(&path, Options { reserve: 0, ..Options::default() })?);
    let background = Background::start(store.clone(), Duration::from_secs(1))?;
    let id = cluster.node();
    let clock = Arc::new(SystemClock);
    let runtime = Runtime::start(store.clone(), cluster.clone(), "127.0.0.1:0".parse()?, clock, &Writers::default())?;
    let address = runtime.local_addr().context("an address")?.to_string();
    if cluster.has_authority() {
        cluster.set_addresses(&id.to_string(), &[address.parse()?])?;
    }
    Ok(Node { runtime: Some(runtime), store, _background: background, id })
}

/// Two nodes and a VE on the first, followed by the second.
struct Pair {
    one: Node,
    two: Node,
    ve: Arc<Ve>,
}

fn pair(dir: &Path) -> Result<Pair> {
    let clock = Arc::new(SystemClock);
    for part in ["1", "2"] {
        std::fs::create_dir_all(dir.join(part))?;
    }
    let first = Cluster::init(&dir.join("1").join("c"), &"bench".parse()?, &"one".parse()?, &[], clock.clone())?;
    let first = Arc::new(first);
    let bundle = first.add_node(&"two".parse()?, &[])?;
    let second = Arc::new(Cluster::join(&dir.join("2").join("c"), &bundle, clock)?);
    let one = node(&dir.join("1"), first.clone())?;
    let two = node(&dir.join("2"), second)?;
    let at = two.runtime.as_ref().and_then(Runtime::local_addr).context("an address")?.to_string();
    first.set_addresses("two", &[at.parse()?])?;
    let ve = follow(&one, &two, VE)?;
    let pair = Pair { one, two, ve };
    pair.drained()?;
    Ok(pair)
}

/// A new VE on the first node, followed by the second.
fn follow(one: &Node, two: &Node, id: VeId) -> Result<Arc<Ve>> {
    let ve = one.store.create_ve(id, vefs::base::BaseTree::empty().hash(), Settings::default())?;
    let policy = Policy { window_ms: 60_000, at_window: AtWindow::Alarm, ..Policy::default() };
    ve.set_policy(with_replica(&policy, ReplicaOf { node: two.id.0, need: Need::Required, bandwidth: 0 }))?;
    ve.commit()?;
    one.runtime.as_ref().context("it runs")?.refresh(&ve)?;
    Ok(ve)
}

impl Pair {
    /// One VE more.
    fn follow(&self, id: VeId) -> Result<Arc<Ve>> {
        follow(&self.one, &self.two, id)
    }

    /// Until the replica has everything, durably.
    fn drained(&self) -> Result<()> {
        self.drained_ve(&self.ve)
    }

    /// Until it has everything of one VE.
    fn drained_ve(&self, ve: &Ve) -> Result<()> {
        let begun = Instant::now();
        loop {
            let figures = self.one.runtime.as_ref().and_then(|r| r.figures(ve.id()));
            let acked = figures.and_then(|f| f.led).and_then(|(_, r)| r.first().and_then(|r| r.link.acked));
            if !ve.is_dirty() && acked == Some(ve.durable_position()) {
                return Ok(());
            }
            if begun.elapsed() > Duration::from_secs(300) {
                let led = self.one.runtime.as_ref().and_then(|r| r.figures(ve.id()));
                let followed = self.two.runtime.as_ref().and_then(|r| r.figures(ve.id())).and_then(|f| f.followed);
                let at = ve.durable_position().txn;
                bail!("VE {}: the replica does not come along to {at}: {led:?}; there {followed:?}", ve.id());
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }
}

fn create(ve: &Ve, name: &str) -> Result<InodeNo> {
    let owner = Owner { uid: 0, gid: 0, umask: 0 };
    let op = Op::Create { parent: InodeNo::ROOT, name: name.into(), mode: mode::IFREG | 0o644, owner, rdev: 0 };
    match ve.execute(&op, Request::default())? {
        Reply::Inode(ino, _) => Ok(ino),
        _ => bail!("no inode"),
    }
}

fn write(ve: &Ve, ino: InodeNo, offset: u64, data: &Bytes) -> Result<()> {
    ve.execute(&Op::Write { ino, offset, data: data.clone(), kill_priv: false }, Request::default())?;
    Ok(())
}

/// All of it.
pub fn measure(ground: &Ground) -> Result<Outcome> {
    let mut out = Outcome { title: "replication: two nodes in one process over loopback".into(), ..Default::default() };
    let dir = ground.path().join("replication");
    std::fs::create_dir_all(&dir)?;
    let mut pair = pair(&dir)?;
    bulk(ground, &pair, &mut out)?;
    mix::mixed(ground, &pair, &mut out)?;
    promotion(&mut pair, &mut out)?;
    drop(pair);
    std::fs::remove_dir_all(&dir)?;
    out.notes.push(ground.note()?);
    Ok(out)
}

fn bulk(ground: &Ground, pair: &Pair, out: &mut Outcome) -> Result<()> {
    let writes = ground.size(512, 8);
    let (mut rates, mut cpus) = (vec![], vec![]);
    for round in 0..ground.rounds(3) {
        let data = noise(WRITE, round as u64 + 9);
        let ino = create(&pair.ve, &format!("bulk-{round}"))?;
        let (begun, used) = (Instant::now(), process_cpu());
        for n in 0..writes {
            write(&pair.ve, ino, (n * WRITE) as u64, &data)?;
        }
        pair.ve.commit()?;
        pair.drained()?;
        let megabytes = (writes * WRITE) as f64 / 1e6;
        rates.push(megabytes / begun.elapsed().as_secs_f64());
        cpus.push((process_cpu() - used).as_secs_f64() * 1024.0 / (megabytes / 1.048_576));
    }
    out.figures.push(Figure::goal("bulk, durable on both sides", "MB/s", Goal::AtLeast(150.0), rates));
    out.figures.push(Figure::info("CPU of both nodes", "s/GiB", cpus));
    Ok(())
}

fn promotion(pair: &mut Pair, out: &mut Outcome) -> Result<()> {
    for n in 0..1000 {
        create(&pair.ve, &format!("file-{n}"))?;
    }
    pair.ve.commit()?;
    pair.drained()?;
    pair.one.runtime = None;
    let begun = Instant::now();
    pair.two.runtime.as_ref().context("it runs")?.promote(VE, true, true)?;
    let there = pair.two.store.ve(VE)?;
    create(&there, "written by the other node")?;
    let took = begun.elapsed().as_secs_f64();
    out.figures.push(Figure::goal("promotion until the first write", "s", Goal::AtMost(1.0), vec![took]));
    Ok(())
}
