//! The mixed load in one place, with its copies watched meanwhile.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::copies::{Copies, age, judge};
use super::load::{self, Totals, boot};
use crate::outcome::{Figure, Goal, Outcome};
use crate::undo::Undo;

/// How often the newest stamp is read.
const LOOK: Duration = Duration::from_millis(20);
/// How often a whole copy is judged.
const JUDGE: Duration = Duration::from_secs(1);
/// What is not counted at the load's beginning.
const WARM_UP: Duration = Duration::from_secs(3);

/// One run.
#[derive(Clone, Debug, Default)]
pub struct Trial {
    /// What was written and how long it took.
    pub totals: Totals,
    /// Ages of the newest stamp in seconds, at regular moments.
    pub ages: Vec<f64>,
    /// Ages of whole copies in seconds; infinite where there was none that the writer ever had.
    pub judged: Vec<f64>,
    /// What was wrong with copies.
    pub wrong: Vec<String>,
}

/// The same load in a place that is not replicated and in one that is, which the writer's calls are compared in, and once more with its copies
/// watched: to watch them takes processors and disk too.
#[derive(Clone, Debug, Default)]
pub struct Trials {
    /// Without replication.
    pub without: Vec<Trial>,
    /// With it, while nobody looks.
    pub with: Vec<Trial>,
    /// With copies that are watched.
    pub watched: Vec<Trial>,
}

/// A load that is there, and does nothing between its parts.
pub struct Loading {
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Loading {
    /// Prepares one for a folder, whose parts take at most so many seconds.
    pub fn prepare(undo: &Undo, root: &Path, seconds: u64) -> Result<Loading> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(load::CHILD).arg(root).arg(seconds.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("the load")?;
        let (to, from) = (child.stdin.take(), child.stdout.take());
        undo.kill(child);
        let mut loading = Loading { to: to.context("a pipe")?, from: BufReader::new(from.context("a pipe")?) };
        let said = loading.line()?;
        anyhow::ensure!(said.trim() == "ready", "the load said {said:?}");
        Ok(loading)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        Ok(line)
    }

    /// Does a part of it.
    pub fn part(&mut self, length: Duration) -> Result<Totals> {
        writeln!(self.to, "{}", length.as_millis())?;
        Totals::parse(&self.line()?)
    }
}

/// Runs the load in a folder.
pub fn run(undo: &Undo, root: &Path, copies: Option<&dyn Copies>, seconds: u64, scratch: &Path) -> Result<Trial> {
    let mark = undo.mark();
    let mut loading = Loading::prepare(undo, root, seconds)?;
    // What was prepared arrives first.
    std::thread::sleep(Duration::from_secs(2));
    let over = AtomicBool::new(false);
    let trial = std::thread::scope(|scope| -> Result<Trial> {
        let over = &over;
        let ages = scope.spawn(move || copies.map_or_else(Vec::new, |copies| look(copies, over)));
        let judged = scope.spawn(move || copies.map_or_else(|| Ok(Judged::default()), |c| judges(c, over, scratch)));
        let totals = loading.part(Duration::from_secs(seconds));
        over.store(true, Ordering::Relaxed);
        let ages = ages.join().map_err(|_| anyhow::anyhow!("a reader panicked"))?;
        let judged = judged.join().map_err(|_| anyhow::anyhow!("a judge panicked"))??;
        Ok(Trial { totals: totals?, ages, judged: judged.ages, wrong: judged.wrong })
    });
    undo.back_to(mark);
    trial
}

/// Reads the newest stamp until the load is over.
fn look(copies: &dyn Copies, over: &AtomicBool) -> Vec<f64> {
    let begun = Instant::now();
    let mut ages = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let age = age(copies);
        if begun.elapsed() > WARM_UP {
            ages.push(age);
        }
        std::thread::sleep(LOOK);
    }
    ages
}

#[derive(Default)]
struct Judged {
    ages: Vec<f64>,
    wrong: Vec<String>,
}

fn judges(copies: &dyn Copies, over: &AtomicBool, scratch: &Path) -> Result<Judged> {
    let begun = Instant::now();
    let mut judged = Judged::default();
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(JUDGE);
        if begun.elapsed() < WARM_UP || over.load(Ordering::Relaxed) {
            continue;
        }
        let folder = fresh(scratch)?;
        let taken = boot();
        match copies.take(&folder).and_then(|()| judge(&folder, taken)) {
            Ok(age) => judged.ages.push(age.as_secs_f64()),
            Err(e) => {
                judged.ages.push(f64::INFINITY);
                judged.wrong.push(format!("{e:#}"));
            }
        }
    }
    Ok(judged)
}

fn fresh(scratch: &Path) -> Result<PathBuf> {
    let folder = scratch.join("copy");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// The value below which such a share of all is.
pub fn share(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get((sorted.len().saturating_sub(1) as f64 * share) as usize).copied()
}

/// The figures of a place's copies.
pub fn tell(out: &mut Outcome, place: &str, trials: &[Trial], goals: bool) {
    let all = |of: fn(&Trial) -> &Vec<f64>| trials.iter().flat_map(|t| of(t).clone()).collect::<Vec<f64>>();
    let (ages, judged) = (all(|t| &t.ages), all(|t| &t.judged));
    let mut tell = |what: &str, value: Option<f64>, goal: f64| {
        let goal = goals.then_some(Goal::AtMost(goal));
        if let Some(value) = value {
            out.figures.push(Figure { what: format!("{place}: {what}"), unit: "s", goal, values: vec![value] });
        }
    };
    tell("age of the newest copy, median", share(&ages, 0.5), 0.5);
    tell("age of the newest copy, p99", share(&ages, 0.99), 1.0);
    let good: Vec<f64> = judged.iter().copied().filter(|a| a.is_finite()).collect();
    tell("age of whole copies that were consistent, median", share(&good, 0.5), 0.5);
    let part = good.len() as f64 / judged.len().max(1) as f64;
    let what = format!("{place}: consistent, of {} copies", judged.len());
    let goal = goals.then_some(Goal::AtLeast(1.0));
    out.figures.push(Figure { what, unit: "ratio", goal, values: vec![part] });
    let mut wrong: Vec<String> = trials.iter().flat_map(|t| t.wrong.clone()).collect();
    wrong.dedup_by_key(|w| w.chars().take_while(|c| !c.is_ascii_digit()).collect::<String>());
    if !wrong.is_empty() {
        wrong.truncate(4);
        out.notes.push(format!("{place}: copies that were not consistent: {}", wrong.join("; ")));
    }
}

/// What the writer got, and what its calls took beside the same load without replication.
pub fn tell_writer(out: &mut Outcome, place: &str, trials: &Trials, goal: Option<f64>) {
    let (trials, without) = (&trials.with, &trials.without);
    let rates = trials.iter().map(|t| t.totals.written / 1e6 / t.totals.seconds).collect();
    out.figures.push(Figure::info(format!("{place}: written"), "MB/s", rates));
    for (what, trials) in [("a commit", trials), ("a commit, without replication", without)] {
        let each = trials.iter().map(|t| t.totals.busy[1] / t.totals.commits * 1e3).collect();
        out.figures.push(Figure::info(format!("{place}: {what}"), "ms", each));
    }
    let pairs = || trials.iter().zip(without).map(|(t, w)| (&t.totals, &w.totals));
    let seconds = pairs().map(|(t, w)| t.seconds / w.seconds).collect::<Vec<_>>();
    let what = format!("{place}: the whole load takes, with replication / without");
    out.figures.push(Figure::info(what, "ratio", seconds));
    let busy = pairs().map(|(t, w)| t.busy.iter().sum::<f64>() / w.busy.iter().sum::<f64>()).collect();
    let (what, goal) = (format!("{place}: the writer's calls take, with / without"), goal.map(Goal::AtMost));
    out.figures.push(Figure { what, unit: "ratio", goal, values: busy });
    let sum = |trials: &[Trial]| trials.iter().flat_map(|t| t.totals.busy).sum::<f64>();
    let what = format!("{place}: all of them together");
    out.figures.push(Figure::info(what, "ratio", vec![sum(trials) / sum(without)]));
    for (i, name) in ["a stamp", "a commit", "an append", "unpacking a tree"].into_iter().enumerate() {
        let part = pairs().map(|(t, w)| t.busy[i] / w.busy[i].max(1e-9)).collect();
        out.figures.push(Figure::info(format!("{place}:   of this, {name}"), "ratio", part));
    }
}
