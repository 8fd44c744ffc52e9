//! The work that is done in each place: one group is one process, and brings a time for each of its steps.
//!
//! A group gets a folder of its own in the place and leaves nothing there. Where a step is *cold*, everything dirty is written and all
//! caches of the machine are dropped first.

mod database;
mod files;
mod names;
mod programs;
mod reading;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

pub use names::archive;

/// A step of a group and what its ratio to overlayfs should be at most.
pub type Step = (&'static str, Option<f64>);

/// Work that is done in one process.
pub struct Group {
    /// Its name.
    pub name: &'static str,
    /// What it measures.
    pub steps: &'static [Step],
    /// How often it is done where nothing else is said.
    pub rounds: usize,
    run: fn(&mut Work) -> Result<()>,
}

/// All groups.
pub const GROUPS: &[Group] = &[
    Group { name: "exec", steps: &[("exec /bin/true", Some(1.25))], rounds: 9, run: programs::exec },
    Group { name: "python", steps: &[("cold python", Some(1.2))], rounds: 7, run: programs::python },
    Group {
        name: "tree",
        steps: &[("untar 20k files", Some(1.8)), ("rm -rf 20k files", Some(2.0))],
        rounds: 5,
        run: names::tree,
    },
    Group {
        name: "names",
        steps: &[
            ("create", Some(1.6)),
            ("warm stat", Some(1.2)),
            ("rename", Some(1.6)),
            ("cold readdir", Some(2.0)),
            ("cold readdir and stat", None),
            ("unlink", Some(2.2)),
            ("create with 4 KiB", None),
        ],
        rounds: 7,
        run: names::names,
    },
    Group {
        name: "sequential",
        steps: &[("sequential write", Some(1.2)), ("sequential write, fsync", None)],
        rounds: 7,
        run: files::sequential,
    },
    Group {
        name: "random",
        steps: &[("4 KiB random write", Some(3.0)), ("4 KiB random write, fsync each", Some(1.0))],
        rounds: 7,
        run: files::random,
    },
    Group { name: "append", steps: &[("100-byte appends", Some(4.0))], rounds: 7, run: files::append },
    Group {
        name: "sqlite",
        steps: &[("sqlite DELETE, FULL", Some(0.9)), ("sqlite WAL, NORMAL", Some(2.2))],
        rounds: 7,
        run: database::sqlite,
    },
    Group { name: "pgbench", steps: &[("pgbench", Some(1.1))], rounds: 5, run: database::pgbench },
    Group {
        name: "read",
        steps: &[
            ("warm read of template files", Some(1.1)),
            ("warm mmap of template files", Some(1.1)),
            ("warm small template files", None),
        ],
        rounds: 9,
        run: reading::warm,
    },
];

/// What a group works with.
pub struct Work {
    /// The place's root.
    pub root: PathBuf,
    /// Its own folder, which is empty.
    pub dir: PathBuf,
    /// Things made beforehand, outside of every place.
    pub aux: PathBuf,
    /// A smoke run.
    pub quick: bool,
    times: Vec<(&'static str, Duration)>,
}

impl Work {
    /// `full`, or `quick` in a smoke run.
    pub fn size(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }

    /// Does something and counts its time as a step.
    pub fn step<T>(&mut self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let out = work().context(name)?;
        self.times.push((name, start.elapsed()));
        Ok(out)
    }

    /// A step that was timed by somebody else.
    pub fn counted(&mut self, name: &'static str, took: Duration) {
        self.times.push((name, took));
    }
}

/// Does a group in a place and prints its times, a line each: nanoseconds and the step.
pub fn child(group: &str, root: &Path, aux: &Path, quick: bool) -> Result<()> {
    let group = GROUPS.iter().find(|g| g.name == group).context("no such group")?;
    let dir = root.join("bench");
    std::fs::create_dir(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let mut work = Work { root: root.to_owned(), dir, aux: aux.to_owned(), quick, times: Vec::new() };
    let done = (group.run)(&mut work);
    // A group that has changed its root directory made nothing.
    if work.dir.exists() {
        std::fs::remove_dir_all(&work.dir)?;
    } else {
        std::fs::remove_dir_all("/bench")?;
    }
    done?;
    for (step, took) in work.times {
        println!("{} {step}", took.as_nanos());
    }
    Ok(())
}

/// Writes everything dirty and drops the caches of the whole machine (proc_sys_vm(5)).
pub fn drop_caches() -> Result<()> {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("dropping caches")
}

/// Runs a program to its end.
pub fn run(command: &mut std::process::Command) -> Result<()> {
    let shown = command.get_program().to_string_lossy().into_owned();
    let out = command.output().with_context(|| shown.clone())?;
    anyhow::ensure!(out.status.success(), "{shown}: {}: {}", out.status, String::from_utf8_lossy(&out.stderr));
    Ok(())
}

/// A name in the group's folder.
pub fn named(dir: &Path, what: impl Display, n: usize) -> PathBuf {
    dir.join(format!("{what}-{n:05}"))
}
