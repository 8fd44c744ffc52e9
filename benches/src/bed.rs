//! The test bed: a folder for one run, real stores in it with their background threads, and what the process costs.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use vefs::base::BaseTree;
use vefs::change::Settings;
use vefs::clock::SystemClock;
use vefs::entropy::SystemEntropy;
use vefs::ids::{InodeNo, VeId};
use vefs::meta::RocksMeta;
use vefs::op::{Op, Owner, Reply};
use vefs::storage::Storage;
use vefs::storage::disk::DiskStorage;
use vefs::store::{Background, Parts};
use vefs::types::mode;
use vefs::ve::Request;
use vefs::{Options, Store, Ve};

/// Time between commit ticks of the stores measured here.
pub const TICK: Duration = Duration::from_secs(1);
/// `EXT4_SUPER_MAGIC` of linux/magic.h.
const EXT4: i64 = 0xef53;

/// Where and how much to measure.
pub struct Ground {
    root: tempfile::TempDir,
    /// A smoke run: seconds, figures without meaning.
    pub quick: bool,
    rounds: Option<usize>,
}

impl Ground {
    /// A new folder below `dir`, which is made when missing; removed with everything in it at the end.
    pub fn new(dir: &Path, quick: bool, rounds: Option<usize>) -> Result<Ground> {
        std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let root = tempfile::Builder::new().prefix("aspfs-bench-").tempdir_in(dir)?;
        Ok(Ground { root, quick, rounds })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// Rounds that count: what was asked for, or one in a smoke run, or `usual`.
    pub fn rounds(&self, usual: usize) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { usual })
    }

    /// `full`, or `quick` in a smoke run.
    pub fn size(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }

    /// What the figures rest on: file system and processors.
    pub fn note(&self) -> Result<String> {
        let kind = rustix::fs::statfs(self.path())?.f_type as i64;
        let name =
            if kind == EXT4 { "ext4".to_owned() } else { format!("type {kind:#x}, not ext4: ratios mean little") };
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        let quick = if self.quick { "; smoke run, figures mean nothing" } else { "" };
        Ok(format!("file system: {name}; processors: {cpus}{quick}"))
    }
}

/// A store with its threads.
pub struct Bed {
    // Before the store: its threads end first.
    background: Option<Background>,
    /// The store.
    pub store: Arc<Store>,
    /// Its metadata store.
    pub rocks: Arc<RocksMeta>,
}

impl Bed {
    /// Makes a store in a new folder `name` and opens it with its background threads.
    pub fn create(ground: &Ground, name: &str) -> Result<Bed> {
        Bed::create_with(ground, name, Options::default(), |s| s)
    }

    /// The same with other options, and with something put between the store and its files.
    pub fn create_with(
        ground: &Ground,
        name: &str,
        options: Options,
        wrap: impl FnOnce(Arc<dyn Storage>) -> Arc<dyn Storage>,
    ) -> Result<Bed> {
        let path = ground.path().join(name);
        Store::create(&path)?;
        let mut bed = Bed::open(&path, options, wrap)?;
        bed.background = Some(Background::start(bed.store.clone(), TICK)?);
        Ok(bed)
    }

    /// Opens a store that is there, without background threads.
    pub fn open(path: &Path, options: Options, wrap: impl FnOnce(Arc<dyn Storage>) -> Arc<dyn Storage>) -> Result<Bed> {
        let rocks = Arc::new(RocksMeta::open(&path.join("meta"))?);
        let parts = Parts {
            storage: wrap(Arc::new(DiskStorage::open(path)?)),
            meta: rocks.clone(),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            checkpoints: path.join("checkpoints"),
            options,
        };
        let store = Arc::new(Store::open_with(parts)?);
        Ok(Bed { background: None, store, rocks })
    }

    /// A new VE over the empty base tree.
    pub fn ve(&self, id: u32) -> Result<Arc<Ve>> {
        Ok(self.store.create_ve(VeId(id), BaseTree::empty().hash(), Settings::default())?)
    }

    /// Waits until everything is on disk, so that what comes next does not pay for what came before.
    pub fn settle(&self) -> Result<()> {
        Ok(self.store.storage().sync_all()?)
    }
}

/// Carries an operation out for nobody in particular.
pub fn run(ve: &Ve, op: &Op) -> Result<Reply> {
    Ok(ve.execute(op, Request::default())?)
}

/// Makes a file or, with `mode::IFDIR`, a directory.
pub fn create(ve: &Ve, parent: InodeNo, name: &str, kind: u32) -> Result<InodeNo> {
    let bits = if kind == mode::IFDIR { 0o755 } else { 0o644 };
    let op = Op::Create { parent, name: name.into(), mode: kind | bits, rdev: 0, owner: Owner::default() };
    match run(ve, &op)? {
        Reply::Inode(ino, _) => Ok(ino),
        other => anyhow::bail!("creating answered {other:?}"),
    }
}

/// Writes bytes of a file.
pub fn write(ve: &Ve, ino: InodeNo, offset: u64, data: &Bytes) -> Result<()> {
    run(ve, &Op::Write { ino, offset, data: data.clone(), kill_priv: false }).map(|_| ())
}

/// Bytes that do not repeat within a page, different for each `seed`.
pub fn noise(len: usize, seed: u64) -> Bytes {
    let mut rng = Rng(seed | 1);
    let mut v = Vec::with_capacity(len + 8);
    while v.len() < len {
        v.extend_from_slice(&rng.next().to_le_bytes());
    }
    v.truncate(len);
    v.into()
}

/// A small generator (xorshift64*, Vigna 2016): the same choices in each run.
pub struct Rng(pub u64);

impl Rng {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`, which is at least 1.
    pub fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 32) as usize) % n
    }
}

/// CPU time of the calling thread.
pub fn cpu() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec.unsigned_abs(), t.tv_nsec as u32)
}

/// CPU time of the whole process.
pub fn process_cpu() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(t.tv_sec.unsigned_abs(), t.tv_nsec as u32)
}

/// How long something takes.
pub fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

/// Largest memory of this process so far, in MiB (`VmHWM` of proc_pid_status(5)).
pub fn peak_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib / 1024.0)
}
