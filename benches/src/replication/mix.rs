//! The mixed load on a followed VE, below its mount: an append of 5 MB/s, twenty commits a second as SQLite makes them with a rollback journal, a tree
//! of sources unpacked every eight seconds, and a stamp by which the newest copy's age is read on the replica. How old that copy is, when it is
//! oldest, and how many bytes travel per byte written.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use vefs::Ve;
use vefs::ids::InodeNo;
use vefs::types::mode;

use super::{Pair, VE};
use crate::bed::{Ground, Rng, create, noise, write};
use crate::outcome::{Figure, Goal, Outcome};

/// Bytes of an append, a hundred times a second.
pub(super) const PART: usize = 50_000;
/// Pages of the database, and how many of them a commit changes.
const PAGES: usize = 4096;
const CHANGED: usize = 3;
const PAGE: usize = 4096;
/// Files of the tree, of this many bytes each.
pub(super) const FILES: usize = 300;
pub(super) const FILE: usize = 9_000;
/// An age far above the goal, of which it is said when it was seen.
const OLD: f64 = 1.0;

/// What the load's threads share.
struct Load<'a> {
    ve: &'a Ve,
    origin: Instant,
    over: AtomicBool,
    written: AtomicU64,
    noise: AtomicU64,
}

/// Runs the load for a while and adds its figures.
pub(super) fn mixed(ground: &Ground, pair: &Pair, out: &mut Outcome) -> Result<()> {
    let load = Load {
        ve: &pair.ve,
        origin: Instant::now(),
        over: AtomicBool::new(false),
        written: AtomicU64::new(0),
        noise: AtomicU64::new(0),
    };
    let stamp = create(load.ve, InodeNo::ROOT, "stamp", mode::IFREG)?;
    load.stamp(stamp)?;
    pair.ve.commit()?;
    pair.drained()?;
    let there = pair.two.store.ve(VE)?;
    let (before, shipped) = (load.written.load(Ordering::Relaxed), travelled(pair)?);
    let until = Duration::from_secs(ground.size(40, 1) as u64);
    let ages = std::thread::scope(|scope| -> Result<Vec<(f64, f64)>> {
        let threads = load.start(scope, stamp);
        let ages = load.watch(&there, stamp, until);
        // Whatever was read or not: the threads end before the scope does.
        load.over.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
        }
        ages
    })?;
    pair.ve.commit()?;
    pair.drained()?;
    let written = (load.written.load(Ordering::Relaxed) - before) as f64;
    let travelled = (travelled(pair)? - shipped) as f64;
    tell_ages(ages, out);
    out.figures.push(Figure::goal(
        "mix: bytes travelled / written",
        "ratio",
        Goal::AtMost(0.8),
        vec![travelled / written],
    ));
    let share = load.noise.load(Ordering::Relaxed) as f64 / written;
    out.figures.push(Figure::info("mix: incompressible share", "ratio", vec![share]));
    out.figures.push(Figure::info("mix: written", "MB/s", vec![written / 1e6 / until.as_secs_f64()]));
    Ok(())
}

/// Bytes of UDP payloads both ways.
pub(super) fn travelled(pair: &Pair) -> Result<u64> {
    let peers = pair.one.runtime.as_ref().context("it runs")?.traffic();
    Ok(peers.iter().map(|p| p.udp.sent + p.udp.received).sum())
}

fn tell_ages(mut ages: Vec<(f64, f64)>, out: &mut Outcome) {
    let old: Vec<String> =
        ages.chunk_by(|a, b| (a.1 > OLD) == (b.1 > OLD)).filter(|span| span[0].1 > OLD).map(tell_span).collect();
    if !old.is_empty() {
        out.notes.push(format!("copies older than {OLD} s: {}", old.join("; ")));
    }
    ages.sort_by(|a, b| f64::total_cmp(&a.1, &b.1));
    let at = |share: f64| vec![ages[((ages.len() - 1) as f64 * share) as usize].1];
    out.figures.push(Figure::goal("age of the newest copy: median", "s", Goal::AtMost(0.5), at(0.5)));
    out.figures.push(Figure::goal("age of the newest copy: p99", "s", Goal::AtMost(1.0), at(0.99)));
    out.figures.push(Figure::info("age of the newest copy: oldest", "s", at(1.0)));
}

fn tell_span(span: &[(f64, f64)]) -> String {
    let oldest = span.iter().map(|s| s.1).fold(0.0, f64::max);
    format!("{:.1} to {:.1} s, up to {oldest:.2}", span[0].0, span[span.len() - 1].0)
}

impl<'a> Load<'a> {
    fn start<'s>(&'s self, scope: &'s Scope<'s, '_>, stamp: InodeNo) -> Vec<ScopedJoinHandle<'s, Result<()>>> {
        vec![
            scope.spawn(move || self.every(5, |_| self.stamp(stamp))),
            scope.spawn(move || self.append()),
            scope.spawn(move || self.database()),
            scope.spawn(move || self.every(8000, |n| self.unpack(n))),
        ]
    }

    /// Does something every so many milliseconds, by the clock: what was late is made up for.
    fn every(&self, millis: u64, mut work: impl FnMut(u64) -> Result<()>) -> Result<()> {
        let begun = Instant::now();
        for n in 0.. {
            while begun.elapsed() < Duration::from_millis(millis * n) {
                if self.over.load(Ordering::Relaxed) {
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            if self.over.load(Ordering::Relaxed) {
                return Ok(());
            }
            work(n)?;
        }
        Ok(())
    }

    /// Writes bytes of which a part is noise, and counts them.
    fn put(&self, ino: InodeNo, offset: u64, data: &Bytes, noise: usize) -> Result<()> {
        write(self.ve, ino, offset, data)?;
        self.written.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.noise.fetch_add(noise as u64, Ordering::Relaxed);
        Ok(())
    }

    fn stamp(&self, ino: InodeNo) -> Result<()> {
        let now = self.origin.elapsed().as_nanos() as u64;
        self.put(ino, 0, &Bytes::copy_from_slice(&now.to_le_bytes()), 0)
    }

    fn append(&self) -> Result<()> {
        let log = create(self.ve, InodeNo::ROOT, "log", mode::IFREG)?;
        self.every(10, |n| self.put(log, n * PART as u64, &blend(PART, PART / 2, n), PART / 2))
    }

    /// Each commit keeps the pages' former content in a journal, flushes it, writes them, flushes them, and empties the journal.
    fn database(&self) -> Result<()> {
        let file = create(self.ve, InodeNo::ROOT, "db", mode::IFREG)?;
        let journal = create(self.ve, InodeNo::ROOT, "db-journal", mode::IFREG)?;
        let mut rng = Rng(7);
        let mut now = vec![blend(PAGE, 0, 0); PAGES];
        self.every(50, |n| {
            let pages: Vec<usize> = (0..CHANGED).map(|_| rng.below(PAGES)).collect();
            for (i, page) in pages.iter().enumerate() {
                self.put(journal, 512 + (i * PAGE) as u64, &now[*page], 0)?;
            }
            self.put(journal, 0, &blend(512, 8, n), 8)?;
            self.ve.sync()?;
            for page in pages {
                now[page] = blend(PAGE, PAGE / 2, n);
                self.put(file, (page * PAGE) as u64, &now[page], PAGE / 2)?;
            }
            self.ve.sync()?;
            self.put(journal, 0, &Bytes::from_static(&[0; 28]), 0)?;
            Ok(self.ve.sync()?)
        })
    }

    fn unpack(&self, n: u64) -> Result<()> {
        let dir = create(self.ve, InodeNo::ROOT, &format!("tree-{n}"), mode::IFDIR)?;
        for i in 0..FILES {
            let ino = create(self.ve, dir, &format!("file-{i}.c"), mode::IFREG)?;
            self.put(ino, 0, &blend(FILE, FILE / 5, n * FILES as u64 + i as u64), FILE / 5)?;
        }
        Ok(())
    }

    /// Reads the stamp on the replica all the time: moments, and the ages then, in seconds.
    fn watch(&self, there: &Ve, stamp: InodeNo, until: Duration) -> Result<Vec<(f64, f64)>> {
        let mut ages = vec![];
        while ages.is_empty() || self.origin.elapsed() < until {
            let bytes = there.read(stamp, 0, 8)?;
            let stamp = Duration::from_nanos(u64::from_le_bytes(bytes.as_slice().try_into().context("eight bytes")?));
            let now = self.origin.elapsed();
            ages.push((now.as_secs_f64(), now.saturating_sub(stamp).as_secs_f64()));
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(ages)
    }
}

/// Text of few words with so many bytes of noise in front.
pub(super) fn blend(len: usize, random: usize, seed: u64) -> Bytes {
    let mut bytes = noise(random, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1).to_vec();
    let mut rng = Rng(seed.wrapping_mul(2) + 1);
    let words = ["static int ", "return ", "if (", "->next", "struct inode *", ");\n\t", "for (i = 0; i < "];
    while bytes.len() < len {
        bytes.extend_from_slice(words[rng.below(words.len())].as_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}
