//! Short sequences: every operation with every flag and mode on a prepared world, followed by everything that makes it durable or moves it.
//!
//! One operation is complete: every point in time, every metadata batch that may be found, and of what is pending every prefix, every subset, everything but one
//! and exactly one, and each write torn at every multiple of 512 and of 4096 bytes, either side of it. Crashes of a recovery are sampled (one state of 211).
//! Two operations are complete in the same way, with `ASPFS_NIGHTLY=1`: all pairs of all operations, in parts that can be run one at a time. There
//! crashes of one recovery of 1999 are looked into, and of eight recovered stores one is asked by lseek(2), too, and compared as a whole when it went on, the others where they did.

use aspfs_tests::crash::Event;
use aspfs_tests::crashrun::check::{Depth, Known, Tally, begin_of, sweep, sweep_on};
use aspfs_tests::crashrun::ops;
use aspfs_tests::crashrun::record::{How, Recording, Step, record};
use aspfs_tests::crashrun::sweep::all;
use aspfs_tests::crashrun::world::{Base, Rest, Things, tiny_options};
use vefs::op::Op;

/// Parts of all pairs of operations.
const PARTS: usize = 15;

fn prepared() -> Vec<(Base, Things)> {
    [Rest::Journal, Rest::Published].map(|rest| Base::prepared(rest, tiny_options()).unwrap()).into()
}

/// Records a run that must not end early, and what to put before an error.
fn recorded(base: &Base, steps: &[Step]) -> Result<(Recording, impl Fn(String) -> String), String> {
    let name = {
        let steps = format!("{steps:?}");
        move |e: String| format!("{steps}\n  {}", e.chars().take(4000).collect::<String>())
    };
    let run = record(base, steps, How::default()).map_err(&name)?;
    match &run.ended {
        Some(e) => Err(name(e.to_string())),
        None => Ok((run, name)),
    }
}

fn run(base: &Base, steps: &[Step], depth: Depth) -> Result<Tally, String> {
    let (run, name) = recorded(base, steps)?;
    sweep(&run, depth).map_err(name)
}

/// Checks G1, G2, G31 for each single operation.
#[test]
fn every_operation_survives_every_crash() {
    let worlds = prepared();
    let afters: [&[Step]; 6] =
        [&[], &[Step::Sync], &[Step::Tick], &[Step::Persist], &[Step::Checkpoint], &[Step::Collect]];
    let mut jobs = Vec::new();
    for (base, things) in &worlds {
        for op in ops::all(things) {
            for after in afters {
                jobs.push((base, [&[Step::Op(op.clone())], after].concat()));
            }
        }
    }
    let depth = Depth { per_class: None, nest_every: 211, whole_every: 1, seed: 1 };
    let done = all("single operations", &jobs, |(base, steps)| run(base, steps, depth)).unwrap();
    assert_eq!(done.sampled, 0, "not complete");
}

/// Checks G1, G2, G31 for pairs of one operation of each kind of record, with a flush before, between, after and nowhere: all of them.
#[test]
fn every_pair_of_kinds_survives_every_crash() {
    if !crate::nightly() {
        return;
    }
    let worlds = prepared();
    pairs("pairs of kinds", &worlds, ops::few, |_| true);
}

/// Checks G1, G2, G31 for pairs of all operations: all that there are, or the part that `ASPFS_PAIRS` says.
#[test]
fn every_pair_of_operations_survives_every_crash() {
    if !crate::nightly() {
        return;
    }
    let part = std::env::var("ASPFS_PAIRS").ok();
    let part = part.map(|p| p.parse().ok().filter(|p| *p < PARTS).expect("ASPFS_PAIRS is the number of a part"));
    let worlds = prepared();
    for part in part.map_or(0..PARTS, |p| p..p + 1) {
        pairs(&format!("pairs of operations, part {part} of 0 to {}", PARTS - 1), &worlds, ops::all, |n| {
            n % PARTS == part
        });
    }
}

/// What begins alike: an operation and what happens after it, followed by each operation in turn.
struct Group<'a> {
    base: &'a Base,
    begin: Vec<Step>,
    seconds: Vec<Op>,
}

impl Group<'_> {
    /// Every state of every run. What they have in common is looked at in the first one.
    fn run(&self, depth: Depth) -> Result<Tally, String> {
        let mut tally = Tally::default();
        let (mut known, mut common) = (Known::default(), None::<Vec<Event>>);
        for second in &self.seconds {
            let steps: Vec<Step> = [self.begin.as_slice(), &[Step::Op(second.clone()), Step::Tick]].concat();
            let (run, name) = recorded(self.base, &steps)?;
            let begin = &run.log[..begin_of(&run.log, 2)];
            match &common {
                Some(before) if before != begin => return Err(name("it does not begin like the runs before".into())),
                Some(_) => {}
                None => common = Some(begin.to_vec()),
            }
            tally.add(sweep_on(&run, depth, &mut known).map_err(&name)?);
            known.keep_before(&run, 2);
        }
        Ok(tally)
    }
}

/// Runs the pairs whose beginnings are chosen by their number.
fn pairs(what: &str, worlds: &[(Base, Things)], of: fn(&Things) -> Vec<Op>, chosen: impl Fn(usize) -> bool) {
    let mut jobs = Vec::new();
    for (base, things) in worlds {
        let ops = of(things);
        for first in &ops {
            for between in [None, Some(Step::Sync), Some(Step::Publish), Some(Step::Collect)] {
                let begin = [Some(Step::Op(first.clone())), between].into_iter().flatten().collect();
                jobs.push(Group { base, begin, seconds: ops.clone() });
            }
        }
    }
    let chosen: Vec<Group<'_>> =
        jobs.into_iter().enumerate().filter(|(n, _)| chosen(*n)).map(|(_, group)| group).collect();
    let depth = Depth { per_class: None, nest_every: 1999, whole_every: 8, seed: 2 };
    let done = all(what, &chosen, |group| group.run(depth)).unwrap();
    assert_eq!(done.sampled, 0, "not complete");
}
