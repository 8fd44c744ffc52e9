//! Starting again: after the daemon was killed when a gigabyte of journal had been written, with its threads and sizes as a node has
//! them; after the same with nothing published, which no node comes to and which says what a frame costs; and after a clean stop.
//! Each life is a process of its own (this program, started again), so that it can be killed and its largest memory is known. Files
//! are in the page cache: what is measured is the work, not the disk.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use vefs::ids::{InodeNo, VeId};
use vefs::store::Background;
use vefs::types::mode;
use vefs::{Options, Ve};

use crate::bed::{Bed, Ground, Rng, TICK, create, noise, peak_mib, process_cpu, timed, write};
use crate::metadata::Mix;
use crate::outcome::{Figure, Goal, Outcome};

/// Name of the subcommand that a child is.
pub const CHILD: &str = "open-store";
/// Name of the subcommand that fills a store and waits for its end.
pub const FILLING_CHILD: &str = "fill-store";

/// What a journal is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Load {
    /// 4 KiB writes at random places of 64 files.
    Writes,
    /// The mix of `metadata`.
    Metadata,
    /// 128 KiB writes; bytes written count, not frames.
    Bulk,
}

impl Load {
    const ALL: [Load; 3] = [Load::Writes, Load::Metadata, Load::Bulk];

    fn title(self) -> &'static str {
        match self {
            Load::Writes => "1 GiB of journal, 4 KiB writes",
            Load::Metadata => "1 GiB of journal, metadata",
            Load::Bulk => "1 GiB written, 128 KiB writes",
        }
    }

    fn fill(self, ve: &Ve, bytes: u64) -> Result<()> {
        match self {
            Load::Writes => small_writes(ve, bytes),
            Load::Metadata => metadata(ve, bytes),
            Load::Bulk => bulk(ve, bytes),
        }
    }
}

/// All cases.
pub fn measure(ground: &Ground) -> Result<Outcome> {
    let mut out = Outcome { title: "recovery: opening a store with its VEs".into(), ..Default::default() };
    let gib = ground.size(1 << 30, 1 << 20) as u64;
    for load in Load::ALL {
        killed(ground, load, gib, &mut out)?;
    }
    for load in Load::ALL {
        unpublished(ground, load, gib, &mut out)?;
    }
    clean_stop(ground, &mut out)?;
    out.notes.push("page cache warm; peak memory is VmHWM of the process that opens".into());
    out.notes.push(ground.note()?);
    Ok(out)
}

/// Nothing is published on the way.
fn lazy() -> Options {
    Options {
        overlay_soft: usize::MAX,
        overlay_hard: usize::MAX,
        persist_bytes: u64::MAX,
        checkpoint_bytes: u64::MAX,
        ..Default::default()
    }
}

/// A node's store, killed.
fn killed(ground: &Ground, load: Load, bytes: u64, out: &mut Outcome) -> Result<()> {
    let path = ground.path().join("killed");
    vefs::Store::create(&path)?;
    let kind = clap::ValueEnum::to_possible_value(&load).context("a load without a name")?;
    let mut child = Command::new(std::env::current_exe()?)
        .args([FILLING_CHILD, kind.get_name(), &bytes.to_string()])
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = String::new();
    BufReader::new(child.stdout.take().context("the child has no output")?).read_line(&mut said)?;
    child.kill()?;
    child.wait()?;
    let what = format!("killed, {}", load.title());
    let frames: u64 = said.trim().parse().with_context(|| format!("{what}: filling said {said:?}"))?;
    opened(ground, &what, &path, Some(5000.0), out)?;
    out.notes.push(format!("{what}: {} MiB of frames", frames >> 20));
    Ok(std::fs::remove_dir_all(path)?)
}

/// What the filling child does: lives as a daemon does, says how many bytes of frames it wrote and waits to be killed.
pub fn filling_child(load: Load, bytes: u64, path: &Path) -> Result<()> {
    let bed = Bed::open(path, Options::default(), |s| s)?;
    let _threads = Background::start(Arc::clone(&bed.store), TICK)?;
    let ve = bed.ve(1)?;
    load.fill(&ve, bytes)?;
    ve.sync()?;
    println!("{}", ve.journal_position().0);
    // Ends by the kill, or when whoever would do it has gone.
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// Everything is still in the journal.
fn unpublished(ground: &Ground, load: Load, bytes: u64, out: &mut Outcome) -> Result<()> {
    let path = ground.path().join("crashed");
    vefs::Store::create(&path)?;
    let bed = Bed::open(&path, lazy(), |s| s)?;
    let ve = bed.ve(1)?;
    load.fill(&ve, bytes)?;
    ve.commit()?;
    bed.settle()?;
    let journal = ve.journal_position().0;
    drop(ve);
    drop(bed);
    let what = format!("nothing published, {}", load.title());
    opened(ground, &what, &path, None, out)?;
    out.notes.push(format!("{what}: {} MiB of frames", journal >> 20));
    Ok(std::fs::remove_dir_all(path)?)
}

fn clean_stop(ground: &Ground, out: &mut Outcome) -> Result<()> {
    let path = ground.path().join("stopped");
    vefs::Store::create(&path)?;
    let bed = Bed::open(&path, Options::default(), |s| s)?;
    let (ves, files) = (10, ground.size(10_000, 20));
    for id in 1..=ves {
        let ve = bed.ve(id)?;
        for i in 0..files {
            create(&ve, InodeNo::ROOT, &format!("file-{i:06}"), mode::IFREG)?;
        }
    }
    bed.store.close()?;
    drop(bed);
    let what = format!("clean stop, {ves} VEs, {} files", ves as usize * files);
    opened(ground, &what, &path, Some(200.0), out)
}

/// Opens the store in processes of their own. A start after a crash changes the journal by little, so that it can be repeated.
fn opened(ground: &Ground, what: &str, path: &Path, goal: Option<f64>, out: &mut Outcome) -> Result<()> {
    let (mut times, mut busy, mut peaks) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ground.rounds(3) {
        let child = Command::new(std::env::current_exe()?).arg(CHILD).arg(path).output()?;
        let text = String::from_utf8_lossy(&child.stdout);
        anyhow::ensure!(child.status.success(), "opening failed: {}", String::from_utf8_lossy(&child.stderr));
        let mut words = text.split_whitespace();
        for values in [&mut times, &mut busy, &mut peaks] {
            values.push(words.next().context("the child said too little")?.parse()?);
        }
    }
    let name = format!("recovery, {what}");
    out.figures.push(match goal {
        Some(goal) => Figure::goal(name, "ms", Goal::AtMost(goal), times),
        None => Figure::info(name, "ms", times),
    });
    out.figures.push(Figure::info(format!("recovery, {what}: CPU time"), "ms", busy));
    out.figures.push(Figure::info(format!("recovery, {what}: memory"), "MiB", peaks));
    Ok(())
}

/// What the child does: opens a store and all its VEs, and says how long it took and how much processor time in ms, and how much memory in MiB. Nothing is closed.
pub fn child(path: &Path) -> Result<()> {
    let took = timed(|| {
        let bed = Bed::open(path, Options::default(), |s| s)?;
        bed.store.open_all()?;
        let ids = bed.store.list()?;
        anyhow::ensure!(ids.contains(&VeId(1)), "the VE is missing");
        std::mem::forget(bed);
        Ok(())
    })?;
    println!("{:.3} {:.3} {:.1}", took.as_secs_f64() * 1e3, process_cpu().as_secs_f64() * 1e3, peak_mib()?);
    Ok(())
}

/// Calls until there is so much journal, with a transaction every thousand calls: about what a tick would do.
fn until(ve: &Ve, journal: u64, mut step: impl FnMut(u64) -> Result<()>) -> Result<()> {
    for i in 0.. {
        step(i)?;
        if i % 1000 == 999 {
            ve.seal()?;
        }
        if ve.journal_position().0 >= journal {
            break;
        }
    }
    Ok(())
}

fn small_writes(ve: &Ve, journal: u64) -> Result<()> {
    let data: Vec<Bytes> = (1..=16).map(|s| noise(4096, s)).collect();
    let inos = (0..64)
        .map(|i| create(ve, InodeNo::ROOT, &format!("file-{i}"), mode::IFREG))
        .collect::<Result<Vec<InodeNo>>>()?;
    let mut rng = Rng(13);
    until(ve, journal, |i| {
        let at = (rng.below(4096) * 4096) as u64;
        write(ve, inos[i as usize % inos.len()], at, &data[i as usize % data.len()])
    })
}

fn metadata(ve: &Ve, journal: u64) -> Result<()> {
    let mut mix = Mix::new(ve, 20)?;
    until(ve, journal, |_| mix.cycle())
}

fn bulk(ve: &Ve, bytes: u64) -> Result<()> {
    let data: Vec<Bytes> = (1..=16).map(|s| noise(128 << 10, s)).collect();
    let ino = create(ve, InodeNo::ROOT, "file", mode::IFREG)?;
    for i in 0..bytes >> 17 {
        write(ve, ino, i << 17, &data[i as usize % data.len()])?;
        if i % 1000 == 999 {
            ve.seal()?;
        }
    }
    Ok(())
}
