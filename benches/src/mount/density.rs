//! Many VEs in one daemon: how long until they are mounted, and what each costs in memory after it was used; and whether a program that
//! runs in many of them is in memory once.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::rig::{Daemon, Programs};
use super::undo::Undo;
use crate::bed::{Ground, noise};
use crate::outcome::{Figure, Goal, Outcome};

/// Name of the hidden subcommand that uses a VE.
pub const CHILD: &str = "mount-use";
/// How long all are left alone then.
const QUIET: Duration = Duration::from_secs(45);
/// VEs in which the same program runs.
const SAME: u32 = 100;
/// A program that stays and has much mapped.
const PROGRAM: &str = "import sqlite3, ssl, json, ctypes, hashlib, sys, time; print(1, flush=True); time.sleep(600)";

/// What each VE is used for: everything is found, one large write, a hundred small ones.
pub fn child(root: &Path) -> Result<()> {
    let found = Command::new("find").arg(root).arg("-xdev").stdout(Stdio::null()).status()?;
    anyhow::ensure!(found.success(), "find: {found}");
    std::fs::write(root.join("large"), noise(1 << 20, 43))?;
    for n in 0..100 {
        std::fs::write(root.join(format!("small-{n}")), noise(200, n + 1))?;
    }
    Ok(())
}

/// A figure of proc_pid_status(5) in MiB.
fn memory(pid: u32, field: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the daemon is gone")?;
    kib(&status, field).map(|k| k / 1024.0)
}

fn kib(text: &str, field: &str) -> Result<f64> {
    let line = text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':')).context("a missing field")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}

/// The page cache of the machine in MiB.
fn cached() -> Result<f64> {
    kib(&std::fs::read_to_string("/proc/meminfo")?, "Cached").map(|k| k / 1024.0)
}

/// All of it.
pub fn measure(
    ground: &Ground,
    programs: &Programs,
    undo: &Undo,
    folder: &Path,
    template: &Path,
    ves: u32,
) -> Result<Outcome> {
    let ves = if ground.quick { 3 } else { ves };
    std::fs::create_dir_all(folder)?;
    let (mut daemon, created) = Daemon::start(undo, programs, folder, template, ves)?;
    let creating: Duration = created.iter().sum();
    let idle = memory(daemon.pid, "VmRSS")?;
    let start = Instant::now();
    for ve in 1..=ves {
        daemon.mount(undo, ve, &folder.join(format!("root-{ve}")))?;
    }
    let mounting = start.elapsed();
    let mounted = memory(daemon.pid, "VmRSS")?;
    let same = same_program(undo, folder, ves.min(SAME))?;
    for ve in 1..=ves {
        let mut command = Command::new(std::env::current_exe()?);
        super::output(command.arg(CHILD).arg(folder.join(format!("root-{ve}"))))?;
    }
    let each = |mib: f64| vec![(mib - idle) / f64::from(ves)];
    let used = memory(daemon.pid, "VmRSS")?;
    let anonymous = memory(daemon.pid, "RssAnon")?;
    std::thread::sleep(if ground.quick { Duration::ZERO } else { QUIET });
    let quiet = memory(daemon.pid, "VmRSS")?;
    let replaced = replace(&mut daemon, undo, folder, ves)?;
    let mut figures = vec![
        Figure::goal(
            format!("density: {ves} VEs created and mounted"),
            "s",
            Goal::AtMost(60.0),
            vec![(creating + mounting).as_secs_f64()],
        ),
        Figure::info("density: of this, mounting", "s", vec![mounting.as_secs_f64()]),
        Figure::info("density: daemon's memory a VE, mounted", "MiB", each(mounted)),
        Figure::goal("density: daemon's memory a VE, used", "MiB", Goal::AtMost(1.0), each(used)),
        Figure::info("density: daemon's memory a VE, after 45 s of quiet", "MiB", each(quiet)),
        Figure::info("density: daemon's memory, all", "MiB", vec![used]),
        Figure::info("density: daemon's anonymous memory, all", "MiB", vec![anonymous]),
    ];
    figures.extend(replaced);
    figures.extend(same);
    Ok(Outcome { title: format!("mount: {ves} VEs in one daemon"), figures, notes: vec![ground.note()?] })
}

/// Kills the daemon and starts another one, until the first and the last mount answer what the kernel cannot.
fn replace(daemon: &mut Daemon, undo: &Undo, folder: &Path, ves: u32) -> Result<Vec<Figure>> {
    let start = Instant::now();
    let ready = daemon.replace(undo)?;
    for ve in [1, ves] {
        super::output(Command::new("stat").arg("-f").arg(folder.join(format!("root-{ve}"))))?;
    }
    let after = memory(daemon.pid, "VmRSS")? / f64::from(ves);
    Ok(vec![
        Figure::info("density: takeover of all, ready", "s", vec![ready.as_secs_f64()]),
        Figure::info("density: takeover of all, answered", "s", vec![start.elapsed().as_secs_f64()]),
        Figure::info("density: the new daemon's memory a VE", "MiB", vec![after]),
    ])
}

/// Starts the same program in several VEs and leaves it running until all have been looked at.
fn same_program(undo: &Undo, folder: &Path, ves: u32) -> Result<Vec<Figure>> {
    if !folder.join("root-1/usr/bin/python3").exists() {
        return Ok(Vec::new());
    }
    super::works::drop_caches()?;
    let before = cached()?;
    let mark = undo.mark();
    begin(undo, folder, 1)?;
    let first = cached()? - before;
    (2..=ves).try_for_each(|ve| begin(undo, folder, ve))?;
    let rest = cached()? - before - first;
    undo.back_to(mark);
    let one = if first > 0.0 { rest / f64::from(ves.max(2) - 1) / first } else { f64::INFINITY };
    Ok(vec![
        Figure::info("same program: page cache of the first VE", "MiB", vec![first]),
        Figure::info(format!("same program: page cache of {} more", ves - 1), "MiB", vec![rest]),
        Figure::goal("same program: page cache of each more / first", "ratio", Goal::AtMost(0.1), vec![one]),
    ])
}

fn begin(undo: &Undo, folder: &Path, ve: u32) -> Result<()> {
    let mut command = Command::new("chroot");
    command.arg(folder.join(format!("root-{ve}"))).args(["/usr/bin/python3", "-B", "-c", PROGRAM]);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("chroot")?;
    let out = child.stdout.take().context("no output");
    undo.kill(child);
    let mut byte = [0];
    std::io::Read::read_exact(&mut out?, &mut byte).context("the program did not start")
}
