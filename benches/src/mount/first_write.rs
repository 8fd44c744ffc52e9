//! The first byte written to a large file of the template: what it takes and what it costs on disk.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::rig::{Daemon, Programs, kernel_overlay};
use super::undo::Undo;
use crate::bed::{Ground, noise};
use crate::outcome::{Figure, Goal, Outcome};

/// Name of the hidden subcommand.
pub const CHILD: &str = "mount-first-write";
/// The file's name.
const NAME: &str = "large";

/// Opens, writes a byte in the middle, closes; prints nanoseconds.
pub fn child(path: &Path) -> Result<()> {
    let middle = std::fs::metadata(path)?.len() / 2;
    let start = Instant::now();
    let file = std::fs::OpenOptions::new().write(true).open(path)?;
    file.write_all_at(b"x", middle)?;
    drop(file);
    println!("{}", start.elapsed().as_nanos());
    Ok(())
}

fn write(root: &Path) -> Result<Duration> {
    let mut command = Command::new(std::env::current_exe()?);
    let text = super::output(command.arg(CHILD).arg(root.join(NAME)))?;
    Ok(Duration::from_nanos(text.trim().parse().context("nanoseconds")?))
}

/// Makes a small file, in a process of its own.
fn touch(root: &Path) -> Result<()> {
    super::output(Command::new("touch").arg(root.join("small"))).map(|_| ())
}

/// Bytes that a folder takes on disk.
fn allocated(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            // Files come and go.
            let Ok(entry) = entry else { continue };
            let Ok(found) = entry.metadata() else { continue };
            sum += found.blocks() * 512;
            if found.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(sum)
}

/// One fresh VE a round, and one fresh overlay for comparison.
pub fn measure(ground: &Ground, programs: &Programs, undo: &Undo, folder: &Path) -> Result<Outcome> {
    let template = folder.join("template");
    std::fs::create_dir_all(&template)?;
    let piece = noise(1 << 20, 41);
    let mut large = std::fs::File::create(template.join(NAME))?;
    for n in 0..ground.size(1024, 4) as u64 {
        // No two pieces are equal.
        let mut piece = piece.to_vec();
        piece[..8].copy_from_slice(&n.to_le_bytes());
        std::io::Write::write_all(&mut large, &piece)?;
    }
    large.sync_all()?;
    let rounds = ground.rounds(5) as u32;
    let (daemon, _) = Daemon::start(undo, programs, folder, &template, rounds)?;
    let (mut took, mut cost) = (Vec::new(), Vec::new());
    for ve in 1..=rounds {
        let root = folder.join(format!("root-{ve}"));
        daemon.mount(undo, ve, &root)?;
        // A VE in use: it has a journal, whose files are made ahead, whatever is written. All that is on disk by then.
        touch(&root)?;
        std::thread::sleep(Duration::from_millis(if ground.quick { 0 } else { 3000 }));
        let before = allocated(&daemon.store)?;
        took.push(write(&root)?.as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_millis(if ground.quick { 0 } else { 3000 }));
        cost.push(allocated(&daemon.store)?.saturating_sub(before) as f64 / 1024.0);
    }
    let overlay = kernel_overlay(undo, &folder.join("overlayfs"), &template)?;
    let other = write(&overlay.root)?.as_secs_f64() * 1e3;
    let copied = allocated(&folder.join("overlayfs/upper"))? as f64 / 1024.0;
    Ok(Outcome {
        title: "mount: first byte written to a template file of 1 GiB".into(),
        figures: vec![
            Figure::goal("first write: vefs", "ms", Goal::AtMost(5.0), took),
            Figure::goal("first write: vefs, disk", "KiB", Goal::AtMost(64.0), cost),
            Figure::info("first write: overlayfs", "ms", vec![other]),
            Figure::info("first write: overlayfs, disk", "KiB", vec![copied]),
        ],
        notes: vec![ground.note()?],
    })
}
