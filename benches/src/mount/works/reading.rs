//! Reading what the template has, from the page cache.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Work;

/// From here on a file counts as large: where a VE hands it to the kernel.
const LARGE: u64 = 128 << 10;
/// Bytes of large files to be read, and small files.
const BYTES: u64 = 96 << 20;
const SMALL: usize = 2000;

/// Maps files and adds their bytes up, twice; the second time counts.
const MAP: &str = "
import sys, mmap, zlib, time
files = sys.argv[1:]
def once():
    for path in files:
        with open(path, 'rb') as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
            zlib.crc32(m)
once()
start = time.monotonic_ns()
once()
print(time.monotonic_ns() - start)
";

fn collect(work: &Work) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut large, mut small, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut folders = vec![work.root.join("usr/lib"), work.root.join("usr/share")];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        let mut entries = entries.collect::<std::io::Result<Vec<_>>>()?;
        entries.sort_by_key(|e| e.file_name());
        for entry in entries {
            let found = entry.metadata()?;
            if found.is_dir() {
                folders.push(entry.path());
            } else if found.is_file() && found.len() >= LARGE && bytes < BYTES {
                bytes += found.len();
                large.push(entry.path());
            } else if found.is_file() && found.len() > 0 && found.len() < LARGE && small.len() < SMALL {
                small.push(entry.path());
            }
        }
    }
    Ok((large, small))
}

fn read(files: &[PathBuf], buffer: &mut [u8]) -> Result<()> {
    for path in files {
        let mut file = File::open(path)?;
        while file.read(buffer)? > 0 {}
    }
    Ok(())
}

/// Everything once into the page cache, then the pass that counts.
pub fn warm(work: &mut Work) -> Result<()> {
    let (large, small) = collect(work)?;
    let mut buffer = vec![0; 128 << 10];
    read(&large, &mut buffer)?;
    work.step("warm read of template files", || (0..3).try_for_each(|_| read(&large, &mut buffer)))?;
    read(&small, &mut buffer)?;
    work.step("warm small template files", || read(&small, &mut buffer))?;
    let out = Command::new("python3").args(["-c", MAP]).args(&large).output();
    if let Ok(out) = out
        && out.status.success()
    {
        let nanos = String::from_utf8_lossy(&out.stdout).trim().parse().context("what python printed")?;
        work.counted("warm mmap of template files", Duration::from_nanos(nanos));
    }
    Ok(())
}
