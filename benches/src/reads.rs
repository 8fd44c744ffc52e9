//! Reading a file of a VE's own, whose bytes are checked on the way, against pread(2) of a plain file. Both are in the page cache.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;

use anyhow::Result;
use vefs::ids::InodeNo;
use vefs::types::mode;

use crate::bed::{Bed, Ground, Rng, create, noise, write};
use crate::harness::{Contender, Plan, interleave};
use crate::outcome::Outcome;

/// Bytes of one sequential read, and of each write that made the file.
const PIECE: usize = 128 << 10;
/// Bytes of one random read.
const PAGE: usize = 4096;

/// 4 KiB at random places.
pub fn random(ground: &Ground) -> Result<Outcome> {
    compare(ground, "random-read: 4 KiB each", PAGE, true)
}

/// 128 KiB, front to back.
pub fn sequential(ground: &Ground) -> Result<Outcome> {
    compare(ground, "seq-read: 128 KiB each", PIECE, false)
}

fn compare(ground: &Ground, title: &str, len: usize, random: bool) -> Result<Outcome> {
    let bed = Bed::create(ground, if random { "random" } else { "sequential" })?;
    let ve = bed.ve(1)?;
    let size = ground.size(1 << 30, 4 << 20);
    let plain = File::create_new(ground.path().join("to-read"))?;
    let ino = create(&ve, InodeNo::ROOT, "to-read", mode::IFREG)?;
    for i in 0..size / PIECE {
        let data = noise(PIECE, i as u64);
        plain.write_all_at(&data, (i * PIECE) as u64)?;
        write(&ve, ino, (i * PIECE) as u64, &data)?;
    }
    ve.publish()?;
    bed.settle()?;
    let path = ground.path().join("to-read");
    let plain = File::open(&path)?;
    let places: Vec<u64> = if random {
        let mut rng = Rng(11);
        (0..ground.size(20_000, 200)).map(|_| (rng.below(size / PAGE) * PAGE) as u64).collect()
    } else {
        (0..size / len).map(|i| (i * len) as u64).collect()
    };
    let mut buf = vec![0; len];
    let by_pread = Contender::timed("pread", || {
        for at in &places {
            plain.read_exact_at(&mut buf, *at)?;
            black_box(&buf);
        }
        Ok(())
    });
    let by_ve = Contender::timed("VE", || {
        for at in &places {
            anyhow::ensure!(black_box(ve.read(ino, *at, len)?).len() == len, "a short read");
        }
        anyhow::Ok(())
    });
    let plan = Plan { rounds: ground.rounds(5), warm_up: 1 };
    let mut o = Outcome::of_report(&interleave(title, plan, vec![by_pread, by_ve])?, &[]);
    let name = title.split(':').next().unwrap_or(title);
    for f in &mut o.figures {
        f.what = format!("{name}: {}", f.what);
    }
    o.notes.push(ground.note()?);
    std::fs::remove_file(path)?;
    Ok(o)
}
