//! Making, looking at, renaming and removing many files.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Work, drop_caches, named, run};
use crate::bed::{Rng, noise};

/// The archive's name among the things made beforehand.
const ARCHIVE: &str = "tree.tar";
/// Files of a folder.
const FILES: usize = 5000;

/// Makes the archive: files of a source tree's sizes, 50 in a folder.
pub fn archive(aux: &Path, quick: bool) -> Result<()> {
    let tree = aux.join("tree");
    let bytes = noise(64 << 10, 11);
    let mut rng = Rng(13);
    for n in 0..if quick { 200 } else { 20_000 } {
        let dir = tree.join(format!("part-{:02}/group-{:03}", n / 1000, n / 50));
        if n % 50 == 0 {
            fs::create_dir_all(&dir)?;
        }
        let len = match rng.below(10) {
            0..=3 => 100 + rng.below(1900),
            4..=7 => 2000 + rng.below(6000),
            _ => 8000 + rng.below(16_000),
        };
        fs::write(dir.join(format!("file-{n:05}.txt")), &bytes[..len])?;
    }
    run(Command::new("tar").arg("-cf").arg(aux.join(ARCHIVE)).arg("-C").arg(aux).arg("tree"))?;
    Ok(fs::remove_dir_all(tree)?)
}

/// Unpacking and removing.
pub fn tree(work: &mut Work) -> Result<()> {
    let archive = work.aux.join(ARCHIVE);
    // Into the page cache.
    std::io::copy(&mut fs::File::open(&archive)?, &mut std::io::sink())?;
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(&archive).arg("-C").arg(&work.dir);
    work.step("untar 20k files", || run(&mut tar))?;
    let mut rm = Command::new("rm");
    rm.arg("-rf").arg(work.dir.join("tree"));
    work.step("rm -rf 20k files", || run(&mut rm))
}

fn create(path: &Path, data: &[u8]) -> Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    if !data.is_empty() {
        file.write_all(data)?;
    }
    Ok(())
}

/// One system call after the other on the files of one folder.
pub fn names(work: &mut Work) -> Result<()> {
    let dir = work.dir.join("names");
    fs::create_dir(&dir)?;
    let n = work.size(FILES, 50);
    let files = |what: &str| (0..n).map(|i| named(&dir, what, i)).collect::<Vec<_>>();
    let (old, new) = (files("old"), files("new"));
    work.step("create", || old.iter().try_for_each(|f| create(f, &[])))?;
    let stat = || old.iter().try_for_each(|f| fs::symlink_metadata(f).map(|_| ()).context("stat"));
    stat()?;
    work.step("warm stat", || (0..4).try_for_each(|_| stat()))?;
    work.step("rename", || old.iter().zip(&new).try_for_each(|(a, b)| fs::rename(a, b).context("rename")))?;
    drop_caches()?;
    let found = work.step("cold readdir", || Ok(fs::read_dir(&dir)?.count()))?;
    ensure!(found == n, "{found} entries of {n}");
    drop_caches()?;
    work.step("cold readdir and stat", || {
        for entry in fs::read_dir(&dir)? {
            entry?.metadata()?;
        }
        Ok(())
    })?;
    work.step("unlink", || new.iter().try_for_each(|f| fs::remove_file(f).context("unlink")))?;
    let page = noise(4096, 17);
    work.step("create with 4 KiB", || old.iter().try_for_each(|f| create(f, &page)))
}
