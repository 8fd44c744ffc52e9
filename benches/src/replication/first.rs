//! The first full copy of a VE: its template's tree and objects, and what it has written itself; beside rsync of the same files over the same link.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use vefs::ids::VeId;

use super::Asked;
use super::mix::blend;
use super::nodes::Nodes;
use crate::outcome::{Figure, Outcome};

/// Files of a folder, and bytes of a file, of which so many are noise.
const FOLDER: usize = 100;
const FILE: usize = 9000;
const NOISE: usize = 2000;
/// Where rsync listens on the second node's host.
const PORT: &str = "8730";

/// One copy: seconds, and bytes on the link.
type Copied = (f64, f64);

/// The figures.
pub(super) fn measure(asked: &Asked<'_>) -> Result<Outcome> {
    let files = asked.ground.size(20_000, 200);
    let title = format!("replication first: the first full copy of {files} files of {FILE} bytes");
    let mut out = Outcome { title, ..Default::default() };
    let source = asked.folder("source")?;
    make(&source, files)?;
    let bytes = (files * FILE) as f64;
    let rsync = Command::new("rsync").arg("--version").stdout(Stdio::null()).status().is_ok_and(|s| s.success());
    let (mut ours, mut theirs) = (vec![], vec![]);
    for round in 0..asked.ground.rounds(3) {
        let folder = asked.folder(&format!("first-{round}"))?;
        ours.push(replica(asked, &folder, &source)?);
        asked.undo.back_to(asked.mark);
        std::fs::remove_dir_all(&folder)?;
        if rsync {
            let folder = asked.folder(&format!("rsync-{round}"))?;
            theirs.push(peer(asked, &folder, &source)?);
            asked.undo.back_to(asked.mark);
            std::fs::remove_dir_all(&folder)?;
        }
    }
    let seconds = |of: &[Copied]| of.iter().map(|c| c.0).collect::<Vec<f64>>();
    let travelled = |of: &[Copied]| of.iter().map(|c| c.1 / bytes).collect::<Vec<f64>>();
    out.figures = vec![
        Figure::info("replica add until protected", "s", seconds(&ours)),
        Figure::info("bytes on the link / bytes of the files", "ratio", travelled(&ours)),
    ];
    if rsync {
        let ratios = ours.iter().zip(&theirs).map(|(a, b)| a.0 / b.0).collect();
        out.figures.push(Figure::info("rsync -a and syncfs", "s", seconds(&theirs)));
        out.figures.push(Figure::info("bytes on the link / bytes of the files: rsync", "ratio", travelled(&theirs)));
        out.figures.push(Figure::info("replica add until protected / rsync", "ratio", ratios));
    } else {
        out.notes.push("rsync is not installed: there is nothing to compare with".into());
    }
    Ok(out)
}

fn make(dir: &Path, files: usize) -> Result<()> {
    for n in 0..files {
        let folder = dir.join(format!("{}", n / FOLDER));
        if n % FOLDER == 0 {
            std::fs::create_dir_all(&folder)?;
        }
        std::fs::write(folder.join(format!("file-{n}")), blend(FILE, NOISE, n as u64))?;
    }
    Ok(())
}

/// The files as a template's, and a VE of it that gets a replica.
fn replica(asked: &Asked<'_>, folder: &Path, source: &Path) -> Result<Copied> {
    let nodes = Nodes::start(asked.undo, &asked.programs, folder)?;
    nodes.one.aspfs(&["template", "import", "files", &source.display().to_string()])?;
    let ve = VeId(1);
    nodes.one.aspfs(&["ve", "create", &ve.to_string(), "--template", "files"])?;
    let (before, begun) = (nodes.travelled()?, Instant::now());
    nodes.follow(ve)?;
    let took = begun.elapsed().as_secs_f64();
    Ok((took, (nodes.travelled()? - before) as f64))
}

/// The same files by rsync's own protocol, without a shell between.
fn peer(asked: &Asked<'_>, folder: &Path, source: &Path) -> Result<Copied> {
    let nodes = Nodes::start(asked.undo, &asked.programs, folder)?;
    let there = folder.join("there");
    std::fs::create_dir_all(&there)?;
    let settings = folder.join("rsyncd.conf");
    let text = format!(
        "pid file = {}\nuse chroot = no\nuid = root\ngid = root\n[there]\npath = {}\nread only = no\n",
        folder.join("pid").display(),
        there.display()
    );
    std::fs::write(&settings, text)?;
    let mut daemon = nodes.on(2, "rsync")?;
    daemon.args(["--daemon", "--no-detach", "--port", PORT, "--config"]).arg(&settings);
    let log = std::fs::File::create(folder.join("log"))?;
    asked.undo.kill(daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().context("rsync")?);
    let address = format!("rsync://{}:{PORT}/there/", nodes.address(2));
    let begun = Instant::now();
    while !nodes.on(1, "rsync")?.arg(&address).stdout(Stdio::null()).stderr(Stdio::null()).status()?.success() {
        if begun.elapsed() > Duration::from_secs(20) {
            bail!("rsync does not listen");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let (before, begun) = (nodes.travelled()?, Instant::now());
    let copied = nodes.on(1, "rsync")?.args(["-a", &format!("{}/", source.display()), &address]).status()?;
    ensure!(copied.success(), "rsync: {copied}");
    rustix::fs::syncfs(std::fs::File::open(&there)?)?;
    Ok((begun.elapsed().as_secs_f64(), (nodes.travelled()? - before) as f64))
}
