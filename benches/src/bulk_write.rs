//! Writing a large file front to back in 128 KiB pieces, against the same into a plain file of the same file system.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use vefs::ids::{InodeNo, VeId};
use vefs::types::mode;

use crate::bed::{Bed, Ground, create, noise, write};
use crate::harness::{Contender, Plan, interleave};
use crate::outcome::Outcome;

/// Bytes of one write.
const PIECE: usize = 128 << 10;

/// Both without a flush, then both with one at the end.
pub fn measure(ground: &Ground) -> Result<Vec<Outcome>> {
    let bed = Bed::create(ground, "bulk")?;
    let pieces = ground.size((1 << 30) / PIECE, 64);
    let data: Vec<Bytes> = (1..=16).map(|seed| noise(PIECE, seed)).collect();
    let mut next = 0;
    let mut out = Vec::new();
    for (flush, goals) in [(false, &[("VE", 1.4)][..]), (true, &[("VE and fsync", 1.4)][..])] {
        let name = if flush { "VE and fsync" } else { "VE" };
        let plain = Contender::counted("plain file", || plain_file(ground, &bed, &data, pieces, flush));
        let ve = Contender::counted(name, || {
            next += 1;
            in_ve(&bed, next, &data, pieces, flush)
        });
        let plan = Plan { rounds: ground.rounds(5), warm_up: usize::from(!ground.quick) };
        let title = format!("bulk-write: {} MiB in 128 KiB writes", (pieces * PIECE) >> 20);
        let report = interleave(&title, plan, vec![plain, ve])?;
        let mut o = Outcome::of_report(&report, goals);
        for f in &mut o.figures {
            f.what = format!("bulk-write: {}", f.what);
        }
        o.notes.push(ground.note()?);
        out.push(o);
    }
    Ok(out)
}

fn plain_file(ground: &Ground, bed: &Bed, data: &[Bytes], pieces: usize, flush: bool) -> Result<Duration> {
    bed.settle()?;
    let path = ground.path().join("plain");
    let start = Instant::now();
    let file = File::create(&path)?;
    for i in 0..pieces {
        file.write_all_at(&data[i % data.len()], (i * PIECE) as u64)?;
    }
    if flush {
        file.sync_all()?;
    }
    let took = start.elapsed();
    bed.settle()?;
    std::fs::remove_file(path)?;
    Ok(took)
}

fn in_ve(bed: &Bed, id: u32, data: &[Bytes], pieces: usize, flush: bool) -> Result<Duration> {
    let ve = bed.ve(id)?;
    bed.settle()?;
    let start = Instant::now();
    let ino = create(&ve, InodeNo::ROOT, "file", mode::IFREG)?;
    for i in 0..pieces {
        write(&ve, ino, (i * PIECE) as u64, &data[i % data.len()])?;
    }
    if flush {
        ve.sync()?;
    }
    let took = start.elapsed();
    bed.settle()?;
    drop(ve);
    bed.store.destroy_ve(VeId(id))?;
    Ok(took)
}
