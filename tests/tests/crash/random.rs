//! Longer sequences, drawn.

use aspfs_tests::crashrun::check::{Depth, sweep};
use aspfs_tests::crashrun::record::{How, Step, record};
use aspfs_tests::crashrun::sweep::all;
use aspfs_tests::crashrun::world::{Base, Rest, tiny_options};
use aspfs_tests::model::Model;
use aspfs_tests::opgen::{Rng, next_op};
use vefs::clock::{Clock, ManualClock};

/// Steps of a sequence that has `ops` operations.
pub fn draw(rng: &mut Rng, base: &Base, ops: usize) -> Vec<Step> {
    let mut model: Model = base.model.clone();
    let clock = ManualClock::default();
    clock.advance(base.time);
    let mut steps = Vec::new();
    for _ in 0..ops {
        let op = next_op(rng, &model);
        let _ = model.apply(&op, clock.wall());
        steps.push(Step::Op(op));
        match rng.below(30) {
            0 | 1 => steps.push(Step::Sync),
            2 => steps.push(Step::Tick),
            3 => steps.push(Step::Publish),
            4 => steps.push(Step::Persist),
            5 => steps.push(Step::Checkpoint),
            6 => steps.push(Step::Collect),
            7 => steps.push(Step::Reclaim),
            8 => steps.push(Step::Housekeep),
            9 => steps.push(Step::Close),
            10 | 11 => steps.push(Step::Kill),
            _ => {}
        }
    }
    steps
}

/// Checks G1, G2, G31. `ASPFS_SEED` replays one seed.
#[test]
fn random_sequences_survive_every_crash() {
    let count = if crate::nightly() { 4000 } else { 40 };
    let seeds: Vec<u64> = match std::env::var("ASPFS_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..count).collect(),
    };
    let worlds = [Rest::Journal, Rest::Published].map(|rest| Base::prepared(rest, tiny_options()).unwrap().0);
    all("random sequences", &seeds, |seed| {
        let base = &worlds[*seed as usize % 2];
        let mut rng = Rng::new(*seed);
        let ops = 5 + rng.below(30) as usize;
        let steps = draw(&mut rng, base, ops);
        let how = How { eager: seed % 3 == 0, bad_flush: None, seed: *seed };
        let run = record(base, &steps, how).map_err(|e| format!("seed {seed}: {e}"))?;
        if let Some(e) = run.ended {
            return Err(format!("seed {seed}: {e}"));
        }
        let depth = Depth { per_class: Some(2), nest_every: 211, whole_every: 1, seed: *seed };
        sweep(&run, depth).map_err(|e| format!("seed {seed}: {e}"))
    })
    .unwrap();
}
