//! How long a VE of many files is away when its node is killed: the exposure is half of the window, the replica has not taken up what has arrived,
//! and nothing of its metadata is in memory.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use vefs::ids::VeId;

use super::Asked;
use super::load::STAMP;
use super::nodes::Nodes;
use super::window::{stamps, writer};
use crate::outcome::{Figure, Goal, Outcome};

/// Name of the hidden subcommand.
pub const CHILD: &str = "replication-files";
const VE: VeId = VeId(1);
/// Half of the window, in milliseconds.
const HALF: u64 = 5000;
/// What the link takes while the backlog grows, in kilobits a second.
const LINK: u32 = 50_000;
/// Files of a folder.
const FOLDER: usize = 1000;
/// Bytes of a change of the backlog, and how many a second.
const CHANGE: usize = 64 << 10;
const RATE: usize = 50_000_000;
/// How long the replica stands still before the kill, so that what arrives waits.
const STILL: Duration = Duration::from_secs(1);

/// Makes many small files.
pub fn child(root: &Path, files: usize) -> Result<()> {
    for n in 0..files {
        if n % FOLDER == 0 {
            std::fs::create_dir(root.join(format!("{}", n / FOLDER)))?;
        }
        std::fs::write(name(root, n), format!("file {n}"))?;
    }
    Ok(())
}

fn name(root: &Path, n: usize) -> std::path::PathBuf {
    root.join(format!("{}/file-{n}", n / FOLDER))
}

/// One failover, in seconds from the kill.
struct Times {
    promoted: f64,
    mounted: f64,
    read: f64,
    exposure: f64,
    lost: f64,
}

/// The figures.
pub(super) fn measure(asked: &Asked<'_>) -> Result<Outcome> {
    let files = asked.ground.size(100_000, 100);
    let title = format!("replication failover: {files} files, E = W/2, cold metadata");
    let mut out = Outcome { title, ..Default::default() };
    let mut all = vec![];
    for round in 0..asked.ground.rounds(3) {
        let folder = asked.folder(&format!("failover-{round}"))?;
        let done = failover(asked, &folder, files);
        asked.undo.back_to(asked.mark);
        all.push(done?);
        std::fs::remove_dir_all(&folder)?;
    }
    let each = |of: fn(&Times) -> f64| all.iter().map(of).collect::<Vec<f64>>();
    out.figures = vec![
        Figure::info("kill -9 until promoted", "s", each(|t| t.promoted)),
        Figure::goal("kill -9 until mounted", "s", Goal::AtMost(1.0), each(|t| t.mounted)),
        Figure::info("kill -9 until the first file is read", "s", each(|t| t.read)),
        Figure::info("exposure before, as the node says", "s", each(|t| t.exposure)),
        Figure::info("last answered change less the newest surviving one", "s", each(|t| t.lost)),
    ];
    Ok(out)
}

fn failover(asked: &Asked<'_>, folder: &Path, files: usize) -> Result<Times> {
    let mut nodes = Nodes::start(asked.undo, &asked.programs, folder)?;
    nodes.replicated(VE, &["--quota", "100G", "--window", "10s"])?;
    let root = nodes.one.mount(&VE.to_string(), "root")?;
    let mut make = Command::new(std::env::current_exe()?);
    let made = make.arg(CHILD).arg(&root).arg(files.to_string()).status()?;
    ensure!(made.success(), "making files: {made}");
    nodes.one.drained(VE)?;
    // What the replica has in memory goes.
    nodes.two.signal(Signal::SIGTERM)?;
    nodes.two.ended()?;
    nodes.two.up()?;
    nodes.one.drained(VE)?;
    nodes.limit(LINK)?;
    let notes = folder.join("notes");
    writer(asked, &root.join("changes"), &notes, CHANGE, RATE)?;
    nodes.one.wait(VE, "the exposure", |rows| rows.iter().any(|r| r.exposure_ms >= Some(HALF - 1000)))?;
    drop_caches()?;
    nodes.two.signal(Signal::SIGSTOP)?;
    std::thread::sleep(STILL);
    let exposure = nodes.one.rows(VE)?.first().and_then(|r| r.exposure_ms).context("an exposure")?;
    drop_caches()?;
    nodes.one.signal(Signal::SIGKILL)?;
    let killed = Instant::now();
    nodes.two.signal(Signal::SIGCONT)?;
    nodes.two.aspfs(&["promote", &VE.to_string(), "--old-primary-is-off"])?;
    let promoted = killed.elapsed().as_secs_f64();
    let there = nodes.two.mount(&VE.to_string(), "root")?;
    let mounted = killed.elapsed().as_secs_f64();
    let text = std::fs::read_to_string(name(&there, files / 2))?;
    let read = killed.elapsed().as_secs_f64();
    ensure!(text == format!("file {}", files / 2), "a file reads {text:?}");
    for n in 0..files {
        let len = std::fs::metadata(name(&there, n)).with_context(|| format!("file {n}"))?.len();
        ensure!(len == format!("file {n}").len() as u64, "file {n} has {len} bytes");
    }
    let survived = stamps(&std::fs::read(there.join("changes"))?, CHANGE)?.len();
    let answered = stamps(&std::fs::read(&notes)?, STAMP)?;
    let last = answered.last().context("nothing was answered")?;
    let newest =
        survived.min(answered.len()).checked_sub(1).and_then(|n| answered.get(n)).context("nothing survived")?;
    let lost = last.saturating_sub(*newest).as_secs_f64();
    Ok(Times { promoted, mounted, read, exposure: exposure as f64 / 1e3, lost })
}

/// Empties the page cache, and that of names and inodes (proc(5), vm/drop_caches).
fn drop_caches() -> Result<()> {
    rustix::fs::sync();
    Ok(std::fs::write("/proc/sys/vm/drop_caches", "3")?)
}
