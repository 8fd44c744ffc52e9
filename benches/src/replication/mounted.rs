//! The mixed load on the mount of a followed VE, in turns with the same load on one that nobody follows; and what a package costs that is at the
//! replica already.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vefs::ids::VeId;

use super::Asked;
use super::copies::Followed;
use super::mix::blend;
use super::nodes::Nodes;
use super::trial::{self, Loading, Trial, Trials};
use crate::outcome::{Figure, Goal, Outcome};

/// The settings of a followed VE: a window that the load does not meet.
const SETTINGS: [&str; 4] = ["--quota", "100G", "--window", "30s"];

/// How long a place is left alone after copies were watched: files that were quiet for ten seconds become objects, which must not be a part of what is
/// timed next.
const SETTLED: Duration = Duration::from_secs(15);
/// Pairs of parts in a round, without and with a replica, and how long each part is. One machine does the same thing half as fast in one minute as in the
/// next: what is compared must be near in time, and often.
const PAIRS: usize = 16;
const PART: Duration = Duration::from_secs(2);
/// So many parts have everything that the load has: a tree is unpacked in one of them.
const WHOLE: usize = 4;

/// Loads without and with a replica, part by part in turns; trials whose copies are watched; and bytes on
/// the link per byte written in those.
pub fn trials(asked: &Asked<'_>, folder: &Path) -> Result<(Trials, Vec<f64>)> {
    let nodes = Nodes::start(asked.undo, &asked.programs, folder)?;
    let (mut trials, mut travelled) = (Trials::default(), vec![]);
    for round in 0..asked.ground.rounds(2) as u32 {
        let (alone, followed) = (VeId(2 * round + 1), VeId(2 * round + 2));
        nodes.one.aspfs(&["ve", "create", &alone.to_string(), "--quota", "100G"])?;
        let lonely = nodes.one.mount(&alone.to_string(), &format!("alone-{round}"))?;
        nodes.replicated(followed, &SETTINGS)?;
        let root = nodes.one.mount(&followed.to_string(), &format!("followed-{round}"))?;
        pairs(asked, &nodes, (&lonely, &root, followed), &mut trials)?;
        settle(asked);
        let before = nodes.travelled()?;
        let copies = Followed { node: &nodes.two, ve: followed };
        let trial = trial::run(asked.undo, &root, Some(&copies), asked.seconds, folder)?;
        nodes.one.drained(followed)?;
        travelled.push((nodes.travelled()? - before) as f64 / trial.totals.written);
        trials.watched.push(trial);
        settle(asked);
        for ve in [alone, followed] {
            nodes.one.aspfs(&["umount", &ve.to_string()])?;
        }
    }
    Ok((trials, travelled))
}

/// The load on a VE that nobody follows and on one that is followed, in turns: what one of them wrote has arrived before the next part begins. Parts that
/// make a whole load are told together.
fn pairs(
    asked: &Asked<'_>,
    nodes: &Nodes,
    (lonely, root, followed): (&Path, &Path, VeId),
    trials: &mut Trials,
) -> Result<()> {
    let (mark, pairs) = (asked.undo.mark(), asked.ground.size(PAIRS, WHOLE));
    let prepare = |root: &Path| {
        let place = root.join("pairs");
        std::fs::create_dir(&place)?;
        Loading::prepare(asked.undo, &place, (PART * pairs as u32).as_secs())
    };
    let (mut without, mut with) = (prepare(lonely)?, prepare(root)?);
    for pair in 0..pairs {
        // Each is the first one as often, of parts in which a tree is unpacked too.
        let first = (pair + pair / WHOLE) % 2 == 1;
        for is_with in [first, !first] {
            let (loading, list) =
                if is_with { (&mut with, &mut trials.with) } else { (&mut without, &mut trials.without) };
            nodes.one.drained(followed)?;
            let totals = loading.part(PART)?;
            match list.last_mut().filter(|_| pair % WHOLE != 0) {
                Some(whole) => whole.totals.add(&totals),
                None => list.push(Trial { totals, ..Trial::default() }),
            }
        }
    }
    nodes.one.drained(followed)?;
    drop((without, with));
    asked.undo.back_to(mark);
    Ok(())
}

fn settle(asked: &Asked<'_>) {
    if !asked.ground.quick {
        std::thread::sleep(SETTLED);
    }
}

/// The figures of the load.
pub fn measure(asked: &Asked<'_>) -> Result<Outcome> {
    let mut out =
        Outcome { title: "replication mix: the mixed load on a mount, two nodes".into(), ..Default::default() };
    let (trials, travelled) = trials(asked, &asked.folder("mix")?)?;
    trial::tell(&mut out, "VE", &trials.watched, true);
    trial::tell_writer(&mut out, "VE", &trials, Some(1.1));
    out.figures.push(Figure::goal("bytes on the link / written", "ratio", Goal::AtMost(0.8), travelled));
    let noise = trials.watched.iter().map(|t| t.totals.noise / t.totals.written).collect();
    out.figures.push(Figure::goal("incompressible share, at least", "ratio", Goal::AtLeast(0.3), noise));
    asked.undo.back_to(asked.mark);
    package(asked, &asked.folder("package")?, &mut out)?;
    Ok(out)
}

/// A package as a template that another VE brought to the replica, in a VE more; and its files unpacked in VEs once more.
fn package(asked: &Asked<'_>, folder: &Path, out: &mut Outcome) -> Result<()> {
    let source = folder.join("package");
    let bytes = make(&source, asked.ground.size(1000, 10))?;
    let nodes = Nodes::start(asked.undo, &asked.programs, folder)?;
    nodes.one.aspfs(&["template", "import", "package", &source.display().to_string()])?;
    let mut travelled = vec![];
    for ve in 1..=2 {
        let before = nodes.travelled()?;
        nodes.one.aspfs(&["ve", "create", &VeId(ve).to_string(), "--template", "package"])?;
        nodes.follow(VeId(ve))?;
        nodes.one.drained(VeId(ve))?;
        travelled.push((nodes.travelled()? - before) as f64 / bytes as f64);
    }
    let whats = ["package as a template, new at the replica", "the same, already at the replica"];
    let goals = [None, Some(Goal::AtMost(0.05))];
    for ((what, goal), value) in whats.into_iter().zip(goals).zip(travelled) {
        let what = format!("bytes on the link / package: {what}");
        out.figures.push(Figure { what, unit: "ratio", goal, values: vec![value] });
    }
    for (ve, what) in [(2, "its files written again by a VE over it"), (1, "and by another VE")] {
        let root = nodes.one.mount(&VeId(ve).to_string(), &format!("root-{ve}"))?;
        // With a VE's first change both nodes begin to read its template.
        std::fs::write(root.join("first"), "change")?;
        nodes.one.drained(VeId(ve))?;
        std::thread::sleep(Duration::from_secs(2));
        let before = nodes.travelled()?;
        let copied = Command::new("cp").arg("-r").arg(&source).arg(root.join("again")).status().context("cp")?;
        ensure!(copied.success(), "cp: {copied}");
        nodes.one.drained(VeId(ve))?;
        let again = (nodes.travelled()? - before) as f64 / bytes as f64;
        let what = format!("bytes on the link / package: {what}");
        out.figures.push(Figure { what, unit: "ratio", goal: Some(Goal::AtMost(0.05)), values: vec![again] });
    }
    asked.undo.back_to(asked.mark);
    Ok(())
}

/// A package's files, a third of them noise; how many bytes they have.
fn make(dir: &Path, files: usize) -> Result<u64> {
    std::fs::create_dir_all(dir)?;
    let mut bytes = 0;
    for n in 0..files {
        let file = blend(20_000, 7_000, n as u64 + 1_000_000);
        bytes += file.len() as u64;
        std::fs::write(dir.join(format!("file-{n}")), file)?;
    }
    Ok(bytes)
}
