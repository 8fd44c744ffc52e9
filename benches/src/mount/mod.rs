//! The mount as programs meet it: the same template under the kernel's overlayfs, fuse-overlayfs (where it is installed) and a VE, on the
//! same disk, the same work in each of them in turns. What counts is the median of the ratios to overlayfs within a round.
//!
//! Invariant: the process that measures holds no store and does no work in a mount itself. Every piece of work is a process of its own,
//! which is ended when it takes too long.

pub mod density;
pub mod first_write;
pub mod prepare;
mod rig;
pub mod works;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::bed::Ground;
use crate::harness::quotient;
use crate::outcome::{Figure, Goal, Outcome};
use crate::undo;
use rig::{Daemon, Place};
pub use rig::{Programs, program};
use undo::Undo;
use works::{GROUPS, Group};

/// Name of the hidden subcommand that does a group's work.
pub const CHILD: &str = "mount-work";
/// How long a piece of work may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// What is measured, and over what.
#[derive(Args, Clone, Debug)]
pub struct MountArgs {
    /// The template: a directory with a root file system.
    #[arg(long)]
    template: PathBuf,
    /// Only these, by name; without any: everything but `density`.
    #[arg(value_name = "NAME")]
    only: Vec<String>,
    /// The folder with aspfsd, aspfs and aspfs-holder; without it: this program's.
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Leave fuse-overlayfs out.
    #[arg(long)]
    no_fuse_overlayfs: bool,
    /// VEs of `density`.
    #[arg(long, default_value_t = 1000)]
    ves: u32,
}

/// What is no comparison of places.
const OTHERS: [&str; 3] = ["first-write", "ve-creation", "density"];

impl MountArgs {
    fn wants(&self, name: &str) -> bool {
        if self.only.is_empty() { name != "density" } else { self.only.iter().any(|n| n == name) }
    }

    fn check(&self) -> Result<()> {
        let known: Vec<&str> = GROUPS.iter().map(|g| g.name).chain(OTHERS).collect();
        if let Some(unknown) = self.only.iter().find(|n| !known.contains(&n.as_str())) {
            bail!("nothing is called {unknown:?}; there are {}", known.join(", "));
        }
        let me = rustix::process::geteuid();
        ensure!(me.is_root(), "mounting needs root");
        ensure!(self.template.is_dir(), "{} is not a directory", self.template.display());
        Ok(())
    }
}

/// Measures what was asked for; `told` gets each outcome as soon as it is there.
pub fn measure(ground: &Ground, args: &MountArgs, told: &mut dyn FnMut(&Outcome)) -> Result<Vec<Outcome>> {
    args.check()?;
    let undo = Undo::watched()?;
    let done = measured(ground, args, &undo, told);
    undo.all();
    done
}

fn measured(ground: &Ground, args: &MountArgs, undo: &Undo, told: &mut dyn FnMut(&Outcome)) -> Result<Vec<Outcome>> {
    let programs = Programs::find(args.programs.as_deref())?;
    let template = args.template.canonicalize()?;
    // Where an unprivileged database server can go.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(ground.path(), open)?;
    let folder = ground.path().canonicalize()?;
    let mut outcomes = Vec::new();
    let mut tell = |outcome: Outcome| {
        told(&outcome);
        outcomes.push(outcome);
    };
    let groups: Vec<&Group> = GROUPS.iter().filter(|g| args.wants(g.name)).collect();
    if !groups.is_empty() || args.wants("ve-creation") {
        let (places, created) = places(undo, &programs, &folder, &template, args)?;
        let aux = folder.join("aux");
        std::fs::create_dir(&aux)?;
        if groups.iter().any(|g| g.name == "tree") {
            works::archive(&aux, ground.quick)?;
        }
        for group in groups {
            tell(compare(ground, &places, group, &aux)?);
        }
        if args.wants("ve-creation") {
            tell(creation(ground, &created)?);
        }
        undo.all();
    }
    if args.wants("first-write") {
        tell(first_write::measure(ground, &programs, undo, &folder.join("first-write"))?);
        undo.all();
    }
    if args.wants("density") {
        tell(density::measure(ground, &programs, undo, &folder.join("density"), &template, args.ves)?);
    }
    Ok(outcomes)
}

fn places(
    undo: &Undo,
    programs: &Programs,
    folder: &Path,
    template: &Path,
    args: &MountArgs,
) -> Result<(Vec<Place>, Vec<Duration>)> {
    let mut places = vec![rig::kernel_overlay(undo, &folder.join("overlayfs"), template)?];
    if !args.no_fuse_overlayfs {
        places.extend(rig::fuse_overlay(undo, &folder.join("fuse-overlayfs"), template)?);
    }
    let ours = folder.join("vefs");
    std::fs::create_dir(&ours)?;
    let (daemon, created) = Daemon::start(undo, programs, &ours, template, 20)?;
    let root = ours.join("root");
    daemon.mount(undo, 1, &root)?;
    places.push(Place { name: "vefs", root });
    Ok((places, created))
}

/// Runs a group in all places in turns.
fn compare(ground: &Ground, places: &[Place], group: &Group, aux: &Path) -> Result<Outcome> {
    let rounds = ground.rounds(group.rounds);
    let warm_up = usize::from(!ground.quick);
    // By step, then by place: one time a round.
    let mut times: BTreeMap<&str, Vec<Vec<Duration>>> =
        group.steps.iter().map(|(step, _)| (*step, vec![Vec::new(); places.len()])).collect();
    for round in 0..warm_up + rounds {
        for turn in 0..places.len() {
            let i = (round + turn) % places.len();
            let took = child(&places[i], group, aux, ground)
                .with_context(|| format!("{} on {}", group.name, places[i].name))?;
            for (step, took) in took {
                let slot = times.get_mut(step.as_str()).context("a step that is not in the table")?;
                if round >= warm_up {
                    slot[i].push(took);
                }
            }
        }
    }
    let mut out = Outcome { title: format!("mount: {} ({rounds} rounds)", group.name), ..Default::default() };
    for (step, goal) in group.steps {
        let series = &times[step];
        if series.iter().any(Vec::is_empty) {
            out.notes.push(format!("{step}: not measured, what it needs is not installed"));
            continue;
        }
        for (place, took) in places.iter().zip(series).skip(1) {
            let ratios = took.iter().zip(&series[0]).map(|(t, b)| quotient(*t, *b)).collect();
            let what = format!("{step}: {} / {}", place.name, places[0].name);
            let goal = goal.filter(|_| place.name == "vefs").map(Goal::AtMost);
            out.figures.push(Figure { what, unit: "ratio", goal, values: ratios });
        }
        for (place, took) in places.iter().zip(series) {
            let ms = took.iter().map(|t| t.as_secs_f64() * 1e3).collect();
            out.figures.push(Figure::info(format!("  {step}: {}", place.name), "ms", ms));
        }
    }
    out.notes.push(ground.note()?);
    Ok(out)
}

/// One group in one place.
fn child(place: &Place, group: &Group, aux: &Path, ground: &Ground) -> Result<Vec<(String, Duration)>> {
    // What others left to be written is not this one's burden.
    rustix::fs::syncfs(std::fs::File::open(ground.path())?)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(CHILD).arg(group.name).arg(&place.root).arg(aux);
    if ground.quick {
        command.arg("--quick");
    }
    let text = output(&mut command)?;
    text.lines()
        .map(|line| {
            let (nanos, step) = line.split_once(' ').context("a line without a step")?;
            Ok((step.to_owned(), Duration::from_nanos(nanos.parse()?)))
        })
        .collect()
}

/// A process's standard output, which is short; an error when it fails or takes too long.
fn output(command: &mut Command) -> Result<String> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
    let mut child = child.with_context(|| format!("starting {}", command.get_program().display()))?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > PATIENCE {
            // Not waited for: what hangs in a mount ends when that is taken down.
            child.kill()?;
            bail!("took longer than {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut text = String::new();
    if let Some(mut out) = child.stdout.take() {
        std::io::Read::read_to_string(&mut out, &mut text)?;
    }
    ensure!(status.success(), "{status}");
    Ok(text)
}

fn creation(ground: &Ground, created: &[Duration]) -> Result<Outcome> {
    let ms = created.iter().map(|t| t.as_secs_f64() * 1e3).collect();
    Ok(Outcome {
        title: "mount: VE creation".into(),
        figures: vec![Figure::goal("a VE over the template", "ms", Goal::AtMost(20.0), ms)],
        notes: vec![ground.note()?],
    })
}
