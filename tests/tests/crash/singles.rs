//! Short sequences: every operation with every flag and mode on a prepared world, followed by everything that makes it durable or moves it.
//!
//! One operation is complete: every point in time, every metadata batch that may be found, and of what is pending every prefix, every subset, everything but one
//! and exactly one, and each write torn at every multiple of 512 and of 4096 bytes, either side of it. Crashes of a recovery are sampled (one state of 211).
//! Two operations are sampled, with `ASPFS_NIGHTLY=1`.

use aspfs_tests::crashrun::check::{Depth, Tally, sweep};
use aspfs_tests::crashrun::ops;
use aspfs_tests::crashrun::record::{How, Step, record};
use aspfs_tests::crashrun::sweep::all;
use aspfs_tests::crashrun::world::{Base, Rest, Things, tiny_options};

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

/// Checks G1, G2, G31 for pairs of operations, with a flush before, between, after and nowhere.
#[test]
fn every_pair_of_operations_survives_every_crash() {
    if !crate::nightly() {
        return;
    }
    let worlds = prepared();
    let mut jobs = Vec::new();
    for (base, things) in &worlds {
        for first in ops::few(things) {
            for second in ops::few(things) {
                let (a, b) = (Step::Op(first.clone()), Step::Op(second));
                for between in [None, Some(Step::Sync), Some(Step::Publish), Some(Step::Collect)] {
                    let steps: Vec<Step> =
                        [Some(a.clone()), between, Some(b.clone()), Some(Step::Tick)].into_iter().flatten().collect();
                    jobs.push((base, steps));
                }
            }
        }
    }
    let depth = Depth { per_class: Some(12), nest_every: 499, seed: 2 };
    all("pairs of operations", &jobs, |(base, steps)| run(base, steps, depth)).unwrap();
}
