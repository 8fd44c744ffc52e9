//! Short sequences: every operation with every flag and mode on a prepared world, followed by everything that makes it durable or moves it.
//!
//! One operation is complete: every point in time, every metadata batch that may be found, and of what is pending every prefix, every subset, everything but one
//! and exactly one, and each write torn at every multiple of 512 and of 4096 bytes, either side of it. Crashes of a recovery are sampled (one state of 211).
//! Two operations are complete in the same way, with `ASPFS_NIGHTLY=1`: each night all pairs of kinds, and a part of all pairs of all operations, whose
//! parts follow each other.

use aspfs_tests::crashrun::check::{Depth, Tally, sweep};
use aspfs_tests::crashrun::ops;
use aspfs_tests::crashrun::record::{How, Step, record};
use aspfs_tests::crashrun::sweep::all;
use aspfs_tests::crashrun::world::{Base, Rest, Things, tiny_options};
use vefs::op::Op;

/// Parts of all pairs of operations, one of them a night.
const PARTS: usize = 32;

fn prepared() -> Vec<(Base, Things)> {
    [Rest::Journal, Rest::Published].map(|rest| Base::prepared(rest, tiny_options()).unwrap()).into()
}

fn run(base: &Base, steps: &[Step], depth: Depth) -> Result<Tally, String> {
    let name = |e: String| format!("{steps:?}\n  {}", e.chars().take(4000).collect::<String>());
    let run = record(base, steps, How::default()).map_err(name)?;
    if let Some(e) = &run.ended {
        return Err(name(e.to_string()));
    }
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
    let depth = Depth { per_class: None, nest_every: 211, seed: 1 };
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

/// Checks G1, G2, G31 for pairs of all operations: of all that there are, the part that is this day's, or that `ASPFS_PAIRS` says.
#[test]
fn every_pair_of_operations_survives_every_crash() {
    if !crate::nightly() {
        return;
    }
    let part = match std::env::var("ASPFS_PAIRS") {
        Ok(part) => part.parse::<usize>().ok().filter(|p| *p < PARTS).expect("ASPFS_PAIRS is the number of a part"),
        Err(_) => {
            let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
            (since.as_secs() / 86_400) as usize % PARTS
        }
    };
    println!("pairs of operations: part {part} of 0 to {}", PARTS - 1);
    let worlds = prepared();
    pairs("pairs of operations", &worlds, ops::all, |n| n % PARTS == part);
}

/// Runs those pairs that are chosen by their number.
fn pairs(what: &str, worlds: &[(Base, Things)], of: fn(&Things) -> Vec<Op>, chosen: impl Fn(usize) -> bool) {
    let (mut jobs, mut n) = (Vec::new(), 0);
    for (base, things) in worlds {
        let ops = of(things);
        for (first, second) in ops.iter().flat_map(|a| ops.iter().map(move |b| (a, b))) {
            for between in [None, Some(Step::Sync), Some(Step::Publish), Some(Step::Collect)] {
                if chosen(n) {
                    let (a, b) = (Step::Op(first.clone()), Step::Op(second.clone()));
                    let steps: Vec<Step> =
                        [Some(a), between, Some(b), Some(Step::Tick)].into_iter().flatten().collect();
                    jobs.push((base, steps));
                }
                n += 1;
            }
        }
    }
    let depth = Depth { per_class: None, nest_every: 499, seed: 2 };
    let done = all(what, &jobs, |(base, steps)| run(base, steps, depth)).unwrap();
    assert_eq!(done.sampled, 0, "not complete");
}
