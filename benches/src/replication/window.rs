//! The window from outside (promise G14): a writer that wants far more than the link takes stamps every change and notes what was answered. The
//! link is cut and the node killed at some moment; the replica is promoted, and what survived is compared with what had been answered.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use vefs::ids::VeId;

use super::Asked;
use super::load::{STAMP, boot, parse, stamp};
use super::nodes::Nodes;
use crate::bed::{Rng, noise};
use crate::outcome::{Figure, Goal, Outcome};

/// Name of the hidden subcommand.
pub const CHILD: &str = "replication-stamps";
/// The window in seconds.
const WINDOW: f64 = 2.0;
/// What the link takes, in kilobits a second.
const LINK: u32 = 1000;
/// Bytes a second that the writer tries.
const RATE: usize = 50_000_000;
/// Bytes of a change.
const CHANGE: usize = 4096;
const VE: VeId = VeId(1);

/// Appends stamped changes of so many bytes at a rate, and notes each one's number and time when it was answered.
pub fn child(file: &Path, notes: &Path, size: usize, rate: usize) -> Result<()> {
    let mut file = File::options().create(true).append(true).open(file)?;
    let mut notes = File::create(notes)?;
    let mut change = noise(size, 77).to_vec();
    let begun = Instant::now();
    for n in 1.. {
        // What was late is not made up for: after a wait it is no burst.
        let due = begun + Duration::from_secs_f64((n as usize * size) as f64 / rate as f64);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        change[..STAMP].copy_from_slice(&stamp(n));
        // Other bytes each time (a seed counts as an odd number): nothing of it compresses.
        change[STAMP..].copy_from_slice(&noise(size - STAMP, 2 * n));
        file.write_all(&change)?;
        notes.write_all(&stamp(n))?;
    }
    Ok(())
}

/// Starts [`child`]; it ends with what is undone.
pub(super) fn writer(asked: &Asked<'_>, file: &Path, notes: &Path, size: usize, rate: usize) -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(CHILD).arg(file).arg(notes).arg(size.to_string()).arg(rate.to_string());
    // It fails when its mount is taken away.
    let child: Child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().context("the writer")?;
    asked.undo.kill(child);
    Ok(())
}

/// All stamps of a file of changes of this size, which have to be numbered without a gap.
pub fn stamps(bytes: &[u8], size: usize) -> Result<Vec<Duration>> {
    let mut times = vec![];
    for change in bytes.chunks(size) {
        // The last note may be under way.
        let Some((n, at)) = parse(change).filter(|_| change.len() == size) else {
            ensure!(times.len() + 1 == bytes.len().div_ceil(size), "change {} is torn", times.len() + 1);
            break;
        };
        ensure!(n == times.len() as u64 + 1, "change {n} after {}", times.len());
        times.push(at);
    }
    Ok(times)
}

/// One cut.
struct Cut {
    /// Seconds between the last answered change and the newest one that survived.
    age: f64,
    /// The same to the oldest answered change that was lost; 0: none was.
    lost: f64,
    answered: f64,
    /// Seconds of answers.
    seconds: f64,
    stalled: f64,
}

/// The figures of so many cuts.
pub(super) fn measure(asked: &Asked<'_>) -> Result<Outcome> {
    let title = format!("replication window: W = {WINDOW} s, a link of 1 Mbit/s, a writer that tries 50 MB/s");
    let mut out = Outcome { title, ..Default::default() };
    let mut rng = Rng(boot().as_nanos() as u64 | 1);
    let mut cuts = vec![];
    for round in 0..asked.ground.rounds(10) {
        let after = Duration::from_millis(4000 + rng.below(8000) as u64);
        let folder = asked.folder(&format!("window-{round}"))?;
        let done = cut(asked, &folder, after);
        asked.undo.back_to(asked.mark);
        cuts.push(done.with_context(|| format!("cut {}", round + 1))?);
        std::fs::remove_dir_all(&folder)?;
    }
    let all = |of: fn(&Cut) -> f64| cuts.iter().map(of).collect::<Vec<f64>>();
    let worst = |of: fn(&Cut) -> f64| vec![all(of).into_iter().fold(0.0, f64::max)];
    out.figures = vec![
        Figure::goal("oldest answered change that was lost, worst cut", "s", Goal::AtMost(WINDOW), worst(|c| c.lost)),
        Figure::info(format!("age of the newest surviving change, {} cuts", cuts.len()), "s", all(|c| c.age)),
        Figure::info("answered", "MB/s", all(|c| c.answered * CHANGE as f64 / 1e6 / c.seconds)),
        Figure::info("time stalled at the window, as the node says", "s", all(|c| c.stalled)),
    ];
    out.notes.push(
        "what is newest may be older than W where the next change was held for long: nothing was answered between"
            .into(),
    );
    let beyond = cuts.iter().filter(|c| c.lost > WINDOW).count();
    out.notes.push(format!("{beyond} of {} cuts lost an answered change older than the window", cuts.len()));
    Ok(out)
}

fn cut(asked: &Asked<'_>, folder: &Path, after: Duration) -> Result<Cut> {
    let nodes = Nodes::start(asked.undo, &asked.programs, folder)?;
    nodes.replicated(VE, &["--quota", "10G", "--window", "2s", "--at-window", "stall"])?;
    let root = nodes.one.mount(&VE.to_string(), "root")?;
    nodes.limit(LINK)?;
    let (file, notes): (PathBuf, PathBuf) = (root.join("changes"), folder.join("notes"));
    writer(asked, &file, &notes, CHANGE, RATE)?;
    std::thread::sleep(after);
    let stalled = nodes.one.rows(VE)?.first().map_or(0, |r| r.stall_ms);
    nodes.cut()?;
    nodes.one.signal(Signal::SIGKILL)?;
    let lost = boot();
    nodes.two.aspfs(&["promote", &VE.to_string(), "--old-primary-is-off"])?;
    let there = nodes.two.mount(&VE.to_string(), "root")?;
    let survived = stamps(&std::fs::read(there.join("changes"))?, CHANGE)?.len();
    let mut answered = stamps(&std::fs::read(&notes)?, STAMP)?;
    answered.retain(|at| *at <= lost);
    let last = *answered.last().context("nothing was answered")?;
    let back = |at: Option<&Duration>| at.map_or(Duration::ZERO, |at| last.saturating_sub(*at)).as_secs_f64();
    let newest = survived.min(answered.len()).checked_sub(1).and_then(|n| answered.get(n));
    newest.context("nothing survived")?;
    let begun = answered.first().context("nothing was answered")?;
    Ok(Cut {
        age: back(newest),
        lost: back(answered.get(survived)),
        answered: answered.len() as f64,
        seconds: last.saturating_sub(*begun).as_secs_f64(),
        stalled: stalled as f64 / 1e3,
    })
}
