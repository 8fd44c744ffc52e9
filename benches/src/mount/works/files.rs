//! Writing to one file.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;

use anyhow::Result;

use super::Work;
use crate::bed::{Rng, noise};

/// A large file from front to back.
pub fn sequential(work: &mut Work) -> Result<()> {
    let piece = noise(128 << 10, 19);
    let times = work.size(2048, 16);
    let path = work.dir.join("large");
    let mut file = File::create(&path)?;
    work.step("sequential write", || (0..times).try_for_each(|_| Ok(file.write_all(&piece)?)))?;
    drop(file);
    std::fs::remove_file(&path)?;
    rustix::fs::sync();
    let mut file = File::create(&path)?;
    work.step("sequential write, fsync", || {
        (0..times).try_for_each(|_| file.write_all(&piece))?;
        Ok(file.sync_all()?)
    })
}

/// Pages of a file that is there.
pub fn random(work: &mut Work) -> Result<()> {
    let pages = work.size(16 << 10, 64);
    let path = work.dir.join("pages");
    let mut file = File::create(&path)?;
    let piece = noise(1 << 20, 23);
    for _ in 0..pages.div_ceil(256) {
        file.write_all(&piece)?;
    }
    file.sync_all()?;
    let page = noise(4096, 29);
    let mut rng = Rng(31);
    let (many, few) = (work.size(10_000, 20), work.size(300, 3));
    work.step("4 KiB random write", || {
        (0..many).try_for_each(|_| Ok(file.write_all_at(&page, rng.below(pages) as u64 * 4096)?))
    })?;
    file.sync_all()?;
    work.step("4 KiB random write, fsync each", || {
        (0..few).try_for_each(|_| {
            file.write_all_at(&page, rng.below(pages) as u64 * 4096)?;
            Ok(file.sync_all()?)
        })
    })
}

/// A log.
pub fn append(work: &mut Work) -> Result<()> {
    let mut file = OpenOptions::new().append(true).create_new(true).open(work.dir.join("log"))?;
    let line = noise(100, 37);
    let times = work.size(20_000, 50);
    work.step("100-byte appends", || (0..times).try_for_each(|_| Ok(file.write_all(&line)?)))
}
