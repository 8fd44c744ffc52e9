//! The same load in other systems: lsyncd, btrfs send in a loop, GlusterFS with two bricks; each only where its programs are installed. All on one
//! machine and one disk, as the VE and its replica are.

mod btrfs;
mod gluster;
mod lsyncd;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::copies::Copies;
use super::trial::{self, Trials};
use super::{Asked, mounted};
use crate::outcome::Outcome;

/// A system that replicates a folder; it is set up when it is there, and undone from the list.
struct Peer {
    /// Where the load writes.
    root: PathBuf,
    /// What comes of it.
    copies: Box<dyn Copies>,
}

type SetUp = fn(&Asked<'_>, &Path) -> Result<Peer>;

/// Name, the programs that it needs, what is set up with replication, and without.
const PEERS: [(&str, &[&str], SetUp, Option<SetUp>); 3] = [
    ("lsyncd", &["lsyncd", "rsync"], lsyncd::set_up, None),
    ("btrfs send", &["mkfs.btrfs", "btrfs"], btrfs::set_up, Some(btrfs::alone)),
    ("GlusterFS", &["glusterfs", "glusterfsd"], gluster::set_up, None),
];

/// The figures of the VE and of each system that is there.
pub fn measure(asked: &Asked<'_>) -> Result<Outcome> {
    let mut out = Outcome { title: "replication peers: the mixed load, one machine".into(), ..Default::default() };
    if asked.wants("aspfs") {
        let (trials, _) = mounted::trials(asked, &asked.folder("aspfs")?)?;
        asked.undo.back_to(asked.mark);
        trial::tell(&mut out, "aspfs", &trials.watched, false);
        trial::tell_writer(&mut out, "aspfs", &trials, None);
    }
    for (name, programs, set_up, alone) in PEERS {
        if !asked.wants(name) {
            continue;
        }
        if let Some(missing) = programs.iter().find(|p| !crate::mount::program(p)) {
            out.notes.push(format!("{name}: left out, {missing} is not installed"));
            continue;
        }
        let measured = trials(asked, name, set_up, alone);
        asked.undo.back_to(asked.mark);
        match measured {
            Ok(trials) => {
                trial::tell(&mut out, name, &trials.watched, false);
                trial::tell_writer(&mut out, name, &trials, None);
            }
            Err(e) => out.notes.push(format!("{name}: left out, {e:#}")),
        }
    }
    Ok(out)
}

fn trials(asked: &Asked<'_>, name: &str, set_up: SetUp, alone: Option<SetUp>) -> Result<Trials> {
    let mut trials = Trials::default();
    for round in 0..asked.ground.rounds(2) {
        let folder = asked.folder(&format!("{}-{round}", name.replace(' ', "-")))?;
        let root = match alone {
            Some(alone) => alone(asked, &folder.join("alone"))?.root,
            None => plain(&folder)?,
        };
        trials.without.push(trial::run(asked.undo, &root, None, asked.seconds, &folder)?);
        asked.undo.back_to(asked.mark);
        for (watches, list) in [(false, &mut trials.with), (true, &mut trials.watched)] {
            let peer = set_up(asked, &folder.join(if watches { "watched" } else { "replicated" }))?;
            let copies = watches.then_some(&*peer.copies);
            list.push(trial::run(asked.undo, &peer.root, copies, asked.seconds, &folder)?);
            drop(peer);
            asked.undo.back_to(asked.mark);
        }
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(trials)
}

fn plain(folder: &Path) -> Result<PathBuf> {
    let root = folder.join("plain");
    std::fs::create_dir_all(&root)?;
    Ok(root)
}

/// Runs a program to its end.
fn run(command: &mut Command) -> Result<()> {
    let out = command.stdin(Stdio::null()).output();
    let out = out.with_context(|| format!("running {}", command.get_program().display()))?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "{}: {}", command.get_program().display(), said.trim());
    Ok(())
}
