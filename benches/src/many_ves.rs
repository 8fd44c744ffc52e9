//! A node with many busy VEs on a slow disk: how long the fsync of one of them takes, in flushes of that disk, and how many
//! flushes all of them cost. Flushes take 2 ms more than they would, beside each other or one after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use vefs::ids::InodeNo;
use vefs::storage::Storage;
use vefs::storage::fault::{FaultPlan, FaultStorage};
use vefs::types::mode;
use vefs::{Options, Ve};

use crate::bed::{Bed, Ground, create, noise, timed, write};
use crate::harness::percentile;
use crate::outcome::{Figure, Goal, Outcome};
use crate::traced::{MEASURES, Span, Trace, Traced, What};

/// What a flush takes longer than it would.
const LATENCY: Duration = Duration::from_millis(2);
/// Threads that keep the VEs dirty.
const WRITERS: usize = 2;

/// Both kinds of device.
pub fn measure(ground: &Ground) -> Result<Outcome> {
    let mut out = Outcome { title: "many-ves: one fsyncs, the others write".into(), ..Default::default() };
    for one_queue in [true, false] {
        case(ground, one_queue, &mut out)?;
    }
    out.notes.push(ground.note()?);
    Ok(out)
}

fn case(ground: &Ground, one_queue: bool, out: &mut Outcome) -> Result<()> {
    let plan = FaultPlan::new();
    let faults = plan.clone();
    let trace = Arc::new(Trace::default());
    let notes = trace.clone();
    let name = if one_queue { "one queue" } else { "parallel" };
    let bed = Bed::create_with(ground, &format!("many {name}"), Options::default(), |below| {
        let slow: Arc<dyn Storage> = Arc::new(FaultStorage::new(below, faults));
        Arc::new(Traced::new(slow, notes)) as Arc<dyn Storage>
    })?;
    let ves = (1..=ground.size(200, 4) as u32).map(|id| bed.ve(id)).collect::<Result<Vec<_>>>()?;
    let busy = bed.ve(10_000)?;
    bed.settle()?;
    plan.flush_latency(LATENCY, one_queue);
    let unit = one_flush(&bed)?;
    let stop = AtomicBool::new(false);
    let written = AtomicU64::new(0);
    let (mut waits, mut flushes, mut ran) = (Vec::new(), 0, Duration::ZERO);
    std::thread::scope(|scope| -> Result<()> {
        let share = ves.len().div_ceil(WRITERS);
        let threads: Vec<_> = ves.chunks(share).map(|part| scope.spawn(|| keep_dirty(part, &stop, &written))).collect();
        let result = (|| {
            let ino = create(&busy, InodeNo::ROOT, "file", mode::IFREG)?;
            let data = noise(4096, 6);
            MEASURES.set(true);
            drop(trace.take());
            let (start, before) = (Instant::now(), flush_count(&plan));
            let time = Duration::from_millis(ground.size(15_000, 300) as u64);
            let mut at = 0;
            while start.elapsed() < time {
                write(&busy, ino, at, &data)?;
                at += 4096;
                let begin = Instant::now();
                busy.sync()?;
                waits.push((begin, begin.elapsed().as_secs_f64()));
            }
            flushes = flush_count(&plan) - before;
            ran = start.elapsed();
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        for t in threads {
            t.join().unwrap_or_else(|_| anyhow::bail!("a writer panicked"))?;
        }
        result
    })?;
    plan.flush_latency(Duration::ZERO, false);
    MEASURES.set(false);
    out.notes.push(format!("{name}: {}", explain(&waits, &trace.take(), unit)));
    let mut waits: Vec<f64> = waits.into_iter().map(|(_, took)| took).collect();
    waits.sort_by(f64::total_cmp);
    let in_flushes = |p| percentile(&waits, p) / unit;
    let what = |w: &str| format!("many-ves, {name}: {w}");
    out.figures.push(Figure::info(what("fsync p50"), "flushes", vec![in_flushes(50.0)]));
    out.figures.push(Figure::goal(what("fsync p99"), "flushes", Goal::AtMost(3.0), vec![in_flushes(99.0)]));
    out.figures.push(Figure::info(what("fsync longest"), "flushes", vec![in_flushes(100.0)]));
    out.figures.push(Figure::info(what("flushes"), "1/s", vec![flushes as f64 / ran.as_secs_f64()]));
    let rate = written.load(Ordering::Relaxed) as f64 / ran.as_secs_f64();
    let n = waits.len();
    out.notes.push(format!(
        "{name}: a flush of an idle disk {:.2} ms; {n} fsyncs; {rate:.0} writes/s by {} other VEs",
        unit * 1e3,
        ves.len()
    ));
    Ok(())
}

/// What the fsyncs that took more than three flushes waited for.
fn explain(waits: &[(Instant, f64)], spans: &[Span], unit: f64) -> String {
    let slow: Vec<_> = waits.iter().filter(|(_, took)| *took > 3.0 * unit).collect();
    let (mut all, mut names, mut others, mut twice, mut alone) = (0, 0, 0, 0, 0);
    let mut own_share = Vec::new();
    for (begin, took) in &slow {
        let end = *begin + Duration::from_secs_f64(*took);
        let here = || spans.iter().filter(|s| s.begin < end && s.end > *begin);
        let own: Vec<_> = here().filter(|s| s.own).collect();
        own_share.push(own.iter().map(|s| (s.end - s.begin).as_secs_f64()).sum::<f64>() / took);
        let beside = |what| here().any(|s| !s.own && s.what == what);
        // The first that fits: each is counted once.
        match () {
            () if own.len() > 1 => twice += 1,
            () if beside(What::All) => all += 1,
            () if beside(What::Names) => names += 1,
            () if beside(What::File) => others += 1,
            () => alone += 1,
        }
    }
    own_share.sort_by(f64::total_cmp);
    let share = if own_share.is_empty() { 0.0 } else { percentile(&own_share, 50.0) * 100.0 };
    format!(
        "{} of {} fsyncs took more than 3 flushes: {twice} flushed more than one file, {all} ran beside a flush of everything, {names} \
         beside one of names, {others} beside one of another file, {alone} beside none; their own flushes are {share:.0} % of their time",
        slow.len(),
        waits.len()
    )
}

/// What flushing a page takes while nothing else happens: the median of some, in seconds.
fn one_flush(bed: &Bed) -> Result<f64> {
    let file = bed.store.storage().create("staging/flush", 1 << 20)?;
    file.sync()?;
    let page = noise(4096, 9);
    let mut took = Vec::new();
    for i in 0..21 {
        file.write_at(&[std::io::IoSlice::new(&page)], i * 4096)?;
        took.push(timed(|| Ok(file.sync()?))?.as_secs_f64());
    }
    Ok(crate::harness::median(&took))
}

fn flush_count(plan: &FaultPlan) -> u64 {
    let c = plan.counts();
    c.syncs + c.sync_dirs + c.sync_alls
}

/// Writes a little to one VE after the other, slowly enough to leave the processors alone.
fn keep_dirty(ves: &[Arc<Ve>], stop: &AtomicBool, written: &AtomicU64) -> Result<()> {
    let data = noise(500, 8);
    let mut inos = Vec::new();
    for ve in ves {
        inos.push(create(ve, InodeNo::ROOT, "log", mode::IFREG)?);
    }
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        for (ve, ino) in ves.iter().zip(&inos) {
            write(ve, *ino, at, &data)?;
            written.fetch_add(1, Ordering::Relaxed);
        }
        at += data.len() as u64;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
