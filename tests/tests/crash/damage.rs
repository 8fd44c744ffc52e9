//! Disks that lie: what they did is noticed, never taken for right.

use aspfs_tests::crashrun::check::Depth;
use aspfs_tests::crashrun::damage::{flip, sweep};
use aspfs_tests::crashrun::record::{How, Recording, Step, record};
use aspfs_tests::crashrun::sweep::all;
use aspfs_tests::crashrun::world::{Base, Rest, tiny_options};
use aspfs_tests::opgen::Rng;

use crate::random::draw;

/// A run from an empty VE on, so that every byte was written in it.
fn run(seed: u64, ops: usize) -> Result<Recording, String> {
    let base = match seed % 2 {
        0 => Base::empty(tiny_options()).map_err(|e| e.to_string())?,
        _ => Base::prepared(Rest::Journal, tiny_options())?.0,
    };
    let mut steps = draw(&mut Rng::new(seed), &base, ops);
    steps.extend([Step::Sync, Step::Tick]);
    let run = record(&base, &steps, How { seed, ..How::default() })?;
    match &run.ended {
        Some(e) => Err(e.to_string()),
        None => Ok(run),
    }
}

/// Checks G5, G24: writes that went elsewhere, flushed writes that are lost.
#[test]
fn lying_disks_are_noticed() {
    let count = if crate::nightly() { 2000 } else { 60 };
    let seeds: Vec<u64> = (0..count).collect();
    let depth = Depth { per_class: Some(4), nest_every: 0, whole_every: 1, seed: 3 };
    let tally = all("lying disks", &seeds, |seed| {
        run(*seed, 30).and_then(|run| sweep(&run, depth)).map_err(|e| format!("seed {seed}: {e}"))
    });
    assert!(tally.unwrap().damaged > 100);
}

/// Checks G5, G24, G29: any flipped bit of any file.
#[test]
fn flipped_bits_are_noticed() {
    let count = if crate::nightly() { 1000 } else { 40 };
    let seeds: Vec<u64> = (0..count).collect();
    let tally = all("flipped bits", &seeds, |seed| {
        let told = |e: String| format!("seed {seed}: {e}");
        let run = run(*seed, 40).map_err(told)?;
        let mut rng = Rng::new(seed ^ 0xF11B);
        let files = run.recorder.now().files();
        let mut tally = Default::default();
        for (path, content) in files.iter().filter(|(_, content)| !content.is_empty()) {
            // Headers are small: half of the flips go there.
            let near = [64, 4096 + 2000, content.len(), content.len()];
            for most in near.repeat(4) {
                let byte = rng.below(most.min(content.len()));
                aspfs_tests::crashrun::check::Tally::add(
                    &mut tally,
                    flip(&run, path, byte, rng.below(8) as u32).map_err(told)?,
                );
            }
        }
        Ok(tally)
    });
    assert!(tally.unwrap().damaged > 100);
}
