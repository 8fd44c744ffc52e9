//! The mixed load on a folder, a process of its own: an append of 5 MB/s, twenty commits a second of a real SQLite with a rollback journal and
//! full flushes, a tree of sources unpacked every eight seconds, and a stamp every ten milliseconds.
//!
//! Invariant, by which a copy is judged: one thread stamps and commits, in turns. Commit n begins after stamp 5n is written, and ends before the next.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;

use super::mix::{FILE, FILES, PART, blend};

/// Name of the hidden subcommand.
pub const CHILD: &str = "replication-load";
/// Bytes of a stamp: its number and the time since boot in nanoseconds.
pub const STAMP: usize = 32;
/// Milliseconds between two parts of the append, and between two trees.
const APPENDED: u64 = 10;
const UNPACKED: u64 = 8000;
/// Stamps between two commits.
pub const TURN: u64 = 5;

/// Commits when it is told a number, and says so.
const DATABASE: &str = "
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute('pragma journal_mode=delete')
db.execute('pragma synchronous=full')
db.execute('create table t (n integer primary key, a blob, b text)')
text = 'static int return if (->next struct inode * ' * 9
db.execute('begin')
for n in range(1, 4001):
    db.execute('insert into t values (?, ?, ?)', (-n, os.urandom(400), text))
db.execute('commit')
print(0, flush=True)
for line in sys.stdin:
    n = int(line)
    db.execute('begin')
    db.execute('insert into t values (?, ?, ?)', (n, os.urandom(400), text))
    db.execute('update t set a = ? where n = ?', (os.urandom(400), -1 - n * 7919 % 4000))
    db.execute('commit')
    print(n, flush=True)
";

/// What the load wrote and what its calls took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Bytes.
    pub written: f64,
    /// Of these, bytes that are known not to compress.
    pub noise: f64,
    /// Seconds from the first call to the last one's end.
    pub seconds: f64,
    /// Commits.
    pub commits: f64,
    /// Seconds in calls: of stamps, commits, appends, unpacking.
    pub busy: [f64; 4],
}

impl Totals {
    /// What the child printed last.
    pub fn parse(line: &str) -> Result<Totals> {
        let words: Vec<f64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [written, noise, seconds, commits, a, b, c, d] = words[..] else { anyhow::bail!("totals: {line:?}") };
        Ok(Totals { written, noise, seconds, commits, busy: [a, b, c, d] })
    }

    /// One more part.
    pub fn add(&mut self, part: &Totals) {
        self.written += part.written;
        self.noise += part.noise;
        self.seconds += part.seconds;
        self.commits += part.commits;
        self.busy.iter_mut().zip(part.busy).for_each(|(sum, part)| *sum += part);
    }
}

/// Time since boot, as every process of this machine has it.
pub fn boot() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(t.tv_sec.unsigned_abs(), t.tv_nsec as u32)
}

/// A stamp.
pub fn stamp(n: u64) -> Vec<u8> {
    format!("{n:>10} {:>20}\n", boot().as_nanos()).into_bytes()
}

/// A stamp's number and time.
pub fn parse(bytes: &[u8]) -> Option<(u64, Duration)> {
    let mut words = std::str::from_utf8(bytes.get(..STAMP)?).ok()?.strip_suffix('\n')?.split_whitespace();
    Some((words.next()?.parse().ok()?, Duration::from_nanos(words.next()?.parse().ok()?)))
}

/// The process with the database.
struct Database {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    before: u64,
}

impl Database {
    fn open(path: &Path) -> Result<Database> {
        let mut python = Command::new("python3");
        let mut child = python.args(["-c", DATABASE]).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let to = child.stdin.take().context("a pipe")?;
        let from = BufReader::new(child.stdout.take().context("a pipe")?);
        let mut database = Database { child, to, from, before: 0 };
        database.heard(0)?;
        database.before = database.wrote()?;
        Ok(database)
    }

    fn heard(&mut self, n: u64) -> Result<()> {
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        ensure!(line.trim() == n.to_string(), "the database said {line:?}");
        Ok(())
    }

    fn commit(&mut self, n: u64) -> Result<()> {
        writeln!(self.to, "{n}")?;
        self.heard(n)
    }

    /// Bytes that it wrote so far (proc_pid_io(5)).
    fn wrote(&self) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/io", self.child.id()))?;
        let line = text.lines().find_map(|l| l.strip_prefix("wchar:")).context("no wchar")?;
        Ok(line.trim().parse()?)
    }

    /// Bytes that its commits wrote since this was asked last.
    fn since(&mut self) -> Result<u64> {
        let wrote = self.wrote()?;
        Ok(wrote.saturating_sub(std::mem::replace(&mut self.before, wrote)))
    }

    fn end(self) -> Result<()> {
        let Database { mut child, to, .. } = self;
        drop(to);
        child.wait()?;
        Ok(())
    }
}

/// A part of a load, which goes on where the one before it ended.
struct Load<'a> {
    root: &'a Path,
    begun: Instant,
    /// How long the parts before took by their clocks, and how long this one is.
    before: Duration,
    length: Duration,
    written: AtomicU64,
    noise: AtomicU64,
    made: &'a Made,
}

/// What is written, made before: to make it takes more of a processor than to write it, and whoever is timed would wait for that.
struct Made {
    parts: Vec<Bytes>,
    trees: Vec<Vec<Bytes>>,
}

impl Made {
    /// `seed`: no two loads write the same, which would not travel twice.
    fn new(seconds: u64, seed: u64) -> Made {
        let parts = (0..seconds * 1000 / APPENDED).map(|n| blend(PART, PART / 2, seed + n)).collect();
        let file = |n: u64| blend(FILE, FILE / 5, seed + n);
        let tree = |n: u64| (0..FILES as u64).map(|i| file(n * FILES as u64 + i)).collect();
        Made { parts, trees: (0..(seconds * 1000).div_ceil(UNPACKED)).map(tree).collect() }
    }
}

/// Loads a folder, for as many milliseconds as each line that it is told has, in all at most so many seconds; prints the totals of each such part. Its
/// files and its database are the same in all of them.
pub fn child(root: &Path, seconds: u64) -> Result<()> {
    let mut database = Database::open(&root.join("db"))?;
    let made = Made::new(seconds, u64::from(std::process::id()) << 32);
    println!("ready");
    let mut before = Duration::ZERO;
    for line in std::io::stdin().lines() {
        let length = Duration::from_millis(line?.trim().parse().context("milliseconds")?);
        let begun = Instant::now();
        let (written, noise) = Default::default();
        let load = Load { root, begun, before, length, written, noise, made: &made };
        println!("{}", load.run(&mut database)?);
        before += length;
    }
    database.end()
}

impl Load<'_> {
    /// The totals, as [`Totals::parse`] reads them.
    fn run(&self, database: &mut Database) -> Result<String> {
        let (busy, commits) = std::thread::scope(|scope| -> Result<([f64; 4], u64)> {
            let append = scope.spawn(|| self.append());
            let unpack = scope.spawn(|| self.unpack());
            let (stamps, committing, commits) = self.stamp(database)?;
            let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Duration>>| {
                thread.join().map_err(|_| anyhow::anyhow!("a writer panicked"))?
            };
            let busy = [stamps, committing, join(append)?, join(unpack)?];
            Ok((busy.map(|busy| busy.as_secs_f64()), commits))
        })?;
        let seconds = self.begun.elapsed().as_secs_f64();
        self.written.fetch_add(database.since()?, Ordering::Relaxed);
        let (written, noise) = (self.written.load(Ordering::Relaxed), self.noise.load(Ordering::Relaxed));
        let [a, b, c, d] = busy;
        Ok(format!("{written} {noise} {seconds} {commits} {a} {b} {c} {d}"))
    }

    /// Does something every so many milliseconds, by the clock: what was late is made up for. So each load does the same, however long it takes.
    fn every(&self, millis: u64, mut work: impl FnMut(u64) -> Result<()>) -> Result<()> {
        let first = (self.before.as_millis() as u64).div_ceil(millis);
        for n in first.. {
            let at = Duration::from_millis(millis * n).saturating_sub(self.before);
            if at >= self.length {
                break;
            }
            std::thread::sleep((self.begun + at).saturating_duration_since(Instant::now()));
            work(n)?;
        }
        Ok(())
    }

    fn count(&self, len: usize, noise: usize) {
        self.written.fetch_add(len as u64, Ordering::Relaxed);
        self.noise.fetch_add(noise as u64, Ordering::Relaxed);
    }

    /// Stamps, and commits after every fifth stamp; the time of both, and how many commits there were.
    fn stamp(&self, database: &mut Database) -> Result<(Duration, Duration, u64)> {
        let mut all = File::options().create(true).append(true).open(self.root.join("stamps"))?;
        let newest = File::options().create(true).truncate(false).write(true).open(self.root.join("now"))?;
        let (mut stamping, mut committing, mut commits) = (Duration::ZERO, Duration::ZERO, 0);
        self.every(10, |n| {
            let n = n + 1;
            let begun = Instant::now();
            let stamp = stamp(n);
            all.write_all(&stamp)?;
            newest.write_all_at(&stamp, 0)?;
            stamping += begun.elapsed();
            self.count(2 * STAMP, 0);
            if n % TURN == 0 {
                let begun = Instant::now();
                database.commit(n / TURN)?;
                committing += begun.elapsed();
                commits += 1;
            }
            Ok(())
        })?;
        Ok((stamping, committing, commits))
    }

    fn append(&self) -> Result<Duration> {
        let mut log = File::options().create(true).append(true).open(self.root.join("log"))?;
        let mut busy = Duration::ZERO;
        self.every(APPENDED, |n| {
            let part = self.made.parts.get(n as usize).context("more parts than were made")?;
            let begun = Instant::now();
            log.write_all(part)?;
            busy += begun.elapsed();
            self.count(PART, PART / 2);
            Ok(())
        })?;
        Ok(busy)
    }

    fn unpack(&self) -> Result<Duration> {
        let mut busy = Duration::ZERO;
        self.every(UNPACKED, |n| {
            let files = self.made.trees.get(n as usize).context("more trees than were made")?;
            let begun = Instant::now();
            package(&self.root.join(format!("tree-{n}")), files)?;
            busy += begun.elapsed();
            self.count(FILES * FILE, FILES * FILE / 5);
            Ok(())
        })?;
        Ok(busy)
    }
}

/// Unpacks files in a new folder.
fn package(dir: &Path, files: &[Bytes]) -> Result<()> {
    std::fs::create_dir(dir)?;
    for (i, file) in files.iter().enumerate() {
        std::fs::write(dir.join(format!("file-{i}.c")), file)?;
    }
    Ok(())
}
