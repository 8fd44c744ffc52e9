//! Starting again: after the daemon was killed when a gigabyte of journal had been written, with its threads and sizes as a node has
//! them, in the end and at the worst moment of it; after the same with nothing published, which no node comes to and which says what a
//! frame costs; and after a clean stop.
//! Each life is a process of its own (this program, started again), so that it can be killed and its largest memory is known. Files
//! are in the page cache: what is measured is the work, not the disk.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::ValueEnum;
use vefs::ids::{InodeNo, VeId};
use vefs::meta::{MetaStore, Table, rows};
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

/// How a filling child lives and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum End {
    /// As a daemon, until everything is written; then it waits to be killed.
    Killed,
    /// As a daemon. When so much is written, it dies as soon as nearly as much has to be replayed as ever had.
    Worst,
    /// Nothing is published on the way.
    Unpublished,
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
    for end in [End::Killed, End::Worst, End::Unpublished] {
        // Bulk bytes are not in the journal: there is no worst moment.
        for load in Load::ALL.into_iter().filter(|load| (end, *load) != (End::Worst, Load::Bulk)) {
            filled(ground, load, gib, end, &mut out)?;
        }
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

/// A store that a child has filled, and what starting it takes.
fn filled(ground: &Ground, load: Load, bytes: u64, end: End, out: &mut Outcome) -> Result<()> {
    let path = ground.path().join("filled");
    let (kind, how) = (load.to_possible_value(), end.to_possible_value());
    let (kind, how) = (kind.context("a load without a name")?, how.context("an end without a name")?);
    let mut child = Command::new(std::env::current_exe()?)
        .args([FILLING_CHILD, kind.get_name(), how.get_name(), &bytes.to_string()])
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = String::new();
    BufReader::new(child.stdout.take().context("the child has no output")?).read_line(&mut said)?;
    child.kill()?;
    child.wait()?;
    let (before, goal) = match end {
        End::Killed => ("killed", Some(5000.0)),
        End::Worst => ("killed at the worst moment", Some(5000.0)),
        End::Unpublished => ("nothing published", None),
    };
    let what = format!("{before}, {}", load.title());
    let said: Vec<u64> = said.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let [frames, replayed, most] = said[..] else { anyhow::bail!("{what}: filling said {said:?}") };
    opened(ground, &what, &path, goal, out)?;
    let (frames, replayed, most) = (frames >> 20, replayed >> 20, most >> 20);
    let note = format!("{frames} MiB of frames, {replayed} MiB to be replayed, {most} MiB at most while it ran");
    out.notes.push(format!("{what}: {note}"));
    Ok(std::fs::remove_dir_all(path)?)
}

/// What has to be replayed if the process dies now, watched from beside.
struct Watch {
    bed: Bed,
    ve: Arc<Ve>,
    most: AtomicU64,
    /// From so many bytes of frames on the process dies when there is nearly as much as ever.
    deadly_from: u64,
}

impl Watch {
    fn unpersisted(&self) -> Result<u64> {
        let row = self.bed.rocks.get_persisted(Table::System, &rows::head(self.ve.id()))?;
        let persisted = row.map(|row| rows::head_row(&row)).transpose()?.map_or(0, |head| head.journal);
        Ok(self.ve.journal_position().0.saturating_sub(persisted))
    }

    fn look(&self) -> Result<()> {
        let now = self.unpersisted()?;
        let most = self.most.fetch_max(now, Ordering::Relaxed);
        if self.ve.journal_position().0 >= self.deadly_from && now >= most / 100 * 98 {
            self.tell(now)?;
            std::process::abort();
        }
        Ok(())
    }

    fn tell(&self, now: u64) -> Result<()> {
        let (frames, most) = (self.ve.journal_position().0, self.most.load(Ordering::Relaxed));
        // Not `println!`: what it keeps back would die with the process.
        Ok(std::io::stdout().write_all(format!("{frames} {now} {most}\n").as_bytes())?)
    }
}

/// What the filling child does: says how many bytes of frames it wrote, how many of them a start will replay and how many that were at
/// most, and waits to be killed or dies.
pub fn filling_child(load: Load, end: End, bytes: u64, path: &Path) -> Result<()> {
    vefs::Store::create(path)?;
    let options = if end == End::Unpublished { lazy() } else { Options::default() };
    let bed = Bed::open(path, options, |s| s)?;
    let ve = bed.ve(1)?;
    let store = Arc::clone(&bed.store);
    let deadly_from = if end == End::Worst { bytes } else { u64::MAX };
    let watch = Watch { bed, ve, most: AtomicU64::new(0), deadly_from };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let _threads = (end != End::Unpublished).then(|| Background::start(store, TICK)).transpose()?;
        let watching = scope.spawn(|| -> Result<()> {
            while !done.load(Ordering::Relaxed) {
                watch.look()?;
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        });
        let filled = (|| {
            load.fill(&watch.ve, if end == End::Worst { 4 * bytes } else { bytes })?;
            watch.ve.commit()?;
            watch.tell(watch.unpersisted()?)?;
            // Ends by the kill, or when whoever would do it has gone.
            std::io::stdin().read_line(&mut String::new())?;
            Ok(())
        })();
        done.store(true, Ordering::Relaxed);
        watching.join().unwrap_or_else(|_| anyhow::bail!("the watch panicked"))?;
        filled
    })
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
