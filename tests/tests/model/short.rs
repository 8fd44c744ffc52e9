//! Short sequences for one VE that proptest shrinks: each step is a number from which an operation on the state then is drawn,
//! or something that happens to the store.

use std::sync::Arc;
use std::time::Duration;

use aspfs_tests::harness::{World, as_answered, create_ve, piecemeal_options};
use aspfs_tests::model::{Model, compare};
use aspfs_tests::opgen::{Rng, next_op};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use vefs::Error;
use vefs::ids::VeId;
use vefs::storage::memory::MemStorage;
use vefs::ve::{Request, Retention};

#[derive(Clone, Debug)]
enum Step {
    Operation(u32),
    Sync,
    Tick,
    Publish,
    Persist,
    Collect,
    Seal(u32),
    Coalesce(u32),
    /// The process dies; with `true` the metadata store loses what it did not persist.
    KillDaemon(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => any::<u32>().prop_map(Step::Operation),
        1 => Just(Step::Sync),
        1 => Just(Step::Tick),
        2 => Just(Step::Publish),
        1 => Just(Step::Persist),
        1 => Just(Step::Collect),
        1 => any::<u32>().prop_map(Step::Seal),
        1 => any::<u32>().prop_map(Step::Coalesce),
        2 => any::<bool>().prop_map(Step::KillDaemon),
    ]
}

fn run(steps: &[Step]) -> Result<(), TestCaseError> {
    let fail = |e: Error| TestCaseError::fail(e.to_string());
    let mut world = World::create(Arc::new(MemStorage::new()), 1, piecemeal_options()).map_err(fail)?;
    let mut store = world.open().map_err(fail)?;
    let mut ve = create_ve(&store, 1, 1 << 20, 60).map_err(fail)?;
    let mut model = Model::new(1 << 20, 60);
    for step in steps {
        world.clock.advance(Duration::from_millis(700));
        let file = |model: &Model, n: u32| model.find(n as usize, usize::MAX, |_, a| a.is_file());
        match step {
            Step::Operation(n) => {
                let op = next_op(&mut Rng::new(u64::from(*n)), &model);
                let now = world.now();
                let got = match ve.execute(&op, Request::default()) {
                    Err(Error::Posix(e)) => Err(e),
                    other => Ok(other.map_err(fail)?),
                };
                let want = model.apply(&as_answered(&op, &got), now);
                prop_assert_eq!(got, want, "{:?}", op);
            }
            Step::Sync => ve.sync().map_err(fail)?,
            Step::Tick => store.tick().map_err(fail)?,
            Step::Publish => ve.publish().map_err(fail)?,
            Step::Persist => store.persist().map_err(fail)?,
            Step::Collect => drop(ve.collect(&Retention { steps: vec![(5, 0)] }).map_err(fail)?),
            Step::Seal(n) => drop(file(&model, *n).map(|ino| ve.seal_file(ino)).transpose().map_err(fail)?),
            Step::Coalesce(n) => drop(file(&model, *n).map(|ino| ve.coalesce(ino)).transpose().map_err(fail)?),
            Step::KillDaemon(loses) => {
                if *loses {
                    world.lose_unpersisted();
                }
                drop((ve, store));
                store = world.open().map_err(fail)?;
                ve = store.ve(VeId(1)).map_err(fail)?;
            }
        }
        if !matches!(step, Step::Operation(_)) {
            compare(&model, &*ve).map_err(|e| TestCaseError::fail(format!("after {step:?}: {e}")))?;
        }
    }
    compare(&model, &*ve).map_err(TestCaseError::fail)
}

fn cases() -> u32 {
    if std::env::var_os("ASPFS_NIGHTLY").is_some() { 5000 } else { 250 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 4000, ..ProptestConfig::default() })]

    /// Checks G31.
    #[test]
    fn one_ve_is_as_the_model(steps in prop::collection::vec(step(), 1..120)) {
        run(&steps)?;
    }
}
