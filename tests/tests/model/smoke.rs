//! The core against the oracle: the same random operations, the same answers, the same state.

use std::sync::Arc;
use std::time::Duration;

use aspfs_tests::harness::{World, as_answered, create_ve, piecemeal_options};
use aspfs_tests::model::{Model, compare};
use aspfs_tests::opgen::{Rng, next_op};
use vefs::Error;
use vefs::storage::memory::MemStorage;
use vefs::ve::Request;

#[test]
fn smoke() {
    for seed in 0..20 {
        let mut world = World::create(Arc::new(MemStorage::new()), seed, piecemeal_options()).unwrap();
        let mut store = world.open().unwrap();
        let mut ve = create_ve(&store, 1, 8 << 20, 400).unwrap();
        let mut model = Model::new(8 << 20, 400);
        let mut rng = Rng::new(seed);
        for n in 0..3000 {
            world.clock.advance(Duration::from_millis(7));
            let op = next_op(&mut rng, &model);
            let now = world.now();
            let got = ve.execute(&op, Request::default()).map_err(|e| match e {
                Error::Posix(e) => e,
                other => panic!("seed {seed} op {n} {op:?}: {other}"),
            });
            let want = model.apply(&as_answered(&op, &got), now);
            assert_eq!(got, want, "seed {seed} op {n}: {op:?}");
            if rng.below(100) == 0 {
                store.tick().unwrap();
            }
            match rng.below(150) {
                0 => {
                    ve.collect(&vefs::ve::Retention { steps: vec![(rng.below(3) as i64, 0)] }).unwrap();
                }
                1 => {
                    world.clock.advance(Duration::from_secs(20));
                    ve.housekeep(Duration::from_secs(1)).unwrap();
                }
                2 => {
                    let ino = vefs::ids::InodeNo(vefs::ids::InodeNo::FIRST_PRIVATE.0 + rng.below(400));
                    ve.seal_file(ino).unwrap();
                    ve.coalesce(ino).unwrap();
                }
                3 => drop(store.collect_garbage(&vefs::ve::Retention::default()).unwrap()),
                _ => {}
            }
            if rng.below(300) == 0 {
                compare(&model, &*ve).unwrap_or_else(|e| panic!("seed {seed} op {n}: {e}"));
            }
            if rng.below(200) == 0 {
                world.lose_unpersisted();
                store = world.open().unwrap();
                ve = store.ve(vefs::ids::VeId(1)).unwrap();
                compare(&model, &*ve).unwrap_or_else(|e| panic!("after kill, seed {seed} op {n}: {e}"));
            }
        }
        compare(&model, &*ve).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
}
