//! How the cost of following grows with the number of VEs: each appends a little every second, and all of them write the same amount in bulk. Two
//! nodes in one process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use vefs::Ve;
use vefs::ids::{InodeNo, VeId};
use vefs::types::mode;

use super::trial::share;
use super::{Asked, Pair};
use crate::bed::{create, noise, process_cpu, write};
use crate::outcome::{Figure, Goal, Outcome};

/// Bytes of an append, one a second in each VE.
const LITTLE: usize = 100;
/// Bytes of a write in bulk, and of all of them.
const BULK: usize = 64 << 10;
const ALL: usize = 256 << 20;

/// VEs and the file of each.
struct Fleet {
    pair: Pair,
    ves: Vec<(Arc<Ve>, InodeNo)>,
}

/// The figures of each number of VEs.
pub fn measure(asked: &Asked<'_>) -> Result<Outcome> {
    let mut out = Outcome { title: "replication scale: two nodes in one process".into(), ..Default::default() };
    for n in asked.ves {
        let folder = asked.folder(&format!("scale-{n}"))?;
        // What was measured before is told all the same.
        if let Err(e) = some(asked, &folder, *n, &mut out) {
            out.notes.push(format!("{n} VEs: {e:#}"));
        }
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(out)
}

fn some(asked: &Asked<'_>, folder: &std::path::Path, n: u32, out: &mut Outcome) -> Result<()> {
    let begun = Instant::now();
    let fleet = fleet(folder, n)?;
    let each = begun.elapsed().as_secs_f64() / f64::from(n) * 1e3;
    out.figures.push(Figure::info(format!("{n} VEs: created and followed, each"), "ms", vec![each]));
    little(&fleet, n, asked.seconds, out)?;
    bulk(&fleet, n, asked.ground.size(ALL, BULK * 4), out)
}

fn fleet(folder: &std::path::Path, n: u32) -> Result<Fleet> {
    let pair = super::pair(folder)?;
    let mut ves = vec![];
    for id in 1..=n {
        let ve = if id == 1 { pair.ve.clone() } else { pair.follow(VeId(id))? };
        let ino = create(&ve, InodeNo::ROOT, "little", mode::IFREG)?;
        ves.push((ve, ino));
    }
    let fleet = Fleet { pair, ves };
    fleet.drained()?;
    Ok(fleet)
}

impl Fleet {
    /// The copies as the replica's store has them.
    fn there(&self) -> Result<Vec<Arc<Ve>>> {
        self.ves.iter().map(|(ve, _)| Ok(self.pair.two.store.ve(ve.id())?)).collect()
    }

    fn drained(&self) -> Result<()> {
        for (ve, _) in &self.ves {
            ve.commit()?;
        }
        self.ves.iter().try_for_each(|(ve, _)| self.pair.drained_ve(ve))
    }
}

/// Appends a little to each VE every second, spread over it; the stamps in it are read at the replica.
fn little(fleet: &Fleet, n: u32, seconds: u64, out: &mut Outcome) -> Result<()> {
    let acknowledged = fleet.there()?;
    let origin = Instant::now();
    let (used, travelled) = (process_cpu(), super::mix::travelled(&fleet.pair)?);
    let over = AtomicBool::new(false);
    let ages = std::thread::scope(|scope| -> Result<Vec<f64>> {
        let writer = scope.spawn(|| append(fleet, origin, seconds, &over));
        let ages = ages(fleet, origin, &over);
        over.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
        ages
    })?;
    let took = origin.elapsed().as_secs_f64();
    fleet.drained()?;
    let what = format!("{n} VEs: those whose copy lacks what it acknowledged");
    out.figures.push(Figure::goal(what, "VEs", Goal::AtMost(0.0), vec![lacking(fleet)? as f64]));
    let replaced = fleet.there()?.iter().zip(&acknowledged).filter(|(now, then)| !Arc::ptr_eq(now, then)).count();
    let what = format!("{n} VEs: those whose copy was pulled once more after it was complete");
    out.figures.push(Figure::goal(what, "VEs", Goal::AtMost(0.0), vec![replaced as f64]));
    let cpu = (process_cpu() - used).as_secs_f64() / took;
    let bytes = (super::mix::travelled(&fleet.pair)? - travelled) as f64 / took / f64::from(n);
    let mut info = |what: &str, unit, value| {
        out.figures.push(Figure::info(format!("{n} VEs: {what}"), unit, vec![value]));
    };
    info("a little in each: processors of both nodes", "CPUs", cpu);
    info("a little in each: bytes travelled, a VE and second", "B/s", bytes);
    for (what, part) in [("median", 0.5), ("p99", 0.99), ("oldest", 1.0)] {
        let age = share(&ages, part).context("no ages")?;
        info(&format!("a little in each: oldest change missing, {what}"), "s", age);
    }
    Ok(())
}

fn append(fleet: &Fleet, origin: Instant, seconds: u64, over: &AtomicBool) -> Result<()> {
    let step = Duration::from_secs(1) / fleet.ves.len() as u32;
    let mut bytes = vec![b'.'; LITTLE];
    'all: for round in 0..seconds {
        for (i, (ve, ino)) in fleet.ves.iter().enumerate() {
            let due = Duration::from_secs(round) + step * i as u32;
            std::thread::sleep(due.saturating_sub(origin.elapsed()));
            if over.load(Ordering::Relaxed) {
                break 'all;
            }
            bytes[..8].copy_from_slice(&(origin.elapsed().as_nanos() as u64).to_le_bytes());
            write(ve, *ino, round * LITTLE as u64, &Bytes::copy_from_slice(&bytes))?;
        }
    }
    over.store(true, Ordering::Relaxed);
    Ok(())
}

/// How old the oldest change is that a VE's copy lacks, in seconds, of one VE after another: 0 where it has all.
fn ages(fleet: &Fleet, origin: Instant, over: &AtomicBool) -> Result<Vec<f64>> {
    let mut ages = vec![];
    for n in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        // A stride that meets all VEs at all phases of the second.
        let (ve, ino) = &fleet.ves[n * 7919 % fleet.ves.len()];
        // As the store has it now, whatever its streams go to.
        let has = fleet.pair.two.store.ve(ve.id())?.inode(*ino)?.size;
        let now = origin.elapsed();
        let lacks = has < ve.inode(*ino)?.size;
        let age = if lacks { now.saturating_sub(written(ve, *ino, has)?) } else { Duration::ZERO };
        ages.push(age.as_secs_f64());
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(ages)
}

/// VEs of which the replica's store lacks what the replica has acknowledged.
fn lacking(fleet: &Fleet) -> Result<usize> {
    let mut lacking = 0;
    for (ve, ino) in &fleet.ves {
        let there = fleet.pair.two.store.ve(ve.id())?;
        let has = there.inode(*ino).map(|i| i.size).unwrap_or(0);
        if has < ve.inode(*ino)?.size || there.durable_position() != ve.durable_position() {
            lacking += 1;
        }
    }
    Ok(lacking)
}

fn written(ve: &Ve, ino: InodeNo, at: u64) -> Result<Duration> {
    let bytes = ve.read(ino, at, 8)?;
    Ok(Duration::from_nanos(u64::from_le_bytes(bytes.as_slice().try_into().context("eight bytes")?)))
}

/// The same amount in large writes, to one VE after another, until it is durable on both sides.
fn bulk(fleet: &Fleet, n: u32, all: usize, out: &mut Outcome) -> Result<()> {
    let data = noise(BULK, 5);
    let files: Vec<InodeNo> =
        fleet.ves.iter().map(|(ve, _)| create(ve, InodeNo::ROOT, "bulk", mode::IFREG)).collect::<Result<_>>()?;
    let (begun, used) = (Instant::now(), process_cpu());
    for i in 0..all / BULK {
        let ve = i % files.len();
        write(&fleet.ves[ve].0, files[ve], (i / files.len() * BULK) as u64, &data)?;
    }
    fleet.drained()?;
    if all == 0 {
        bail!("nothing was written");
    }
    let rate = all as f64 / 1e6 / begun.elapsed().as_secs_f64();
    let cpu = (process_cpu() - used).as_secs_f64() * (1u64 << 30) as f64 / all as f64;
    out.figures.push(Figure::info(format!("{n} VEs: in bulk, durable on both sides"), "MB/s", vec![rate]));
    out.figures.push(Figure::info(format!("{n} VEs: in bulk, processor time of both nodes"), "s/GiB", vec![cpu]));
    Ok(())
}
