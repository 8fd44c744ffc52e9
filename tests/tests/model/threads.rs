//! A store as it runs: with its background threads, several VEs written at once, killed in between.

use std::sync::Arc;
use std::time::Duration;

use aspfs_tests::harness::{World, as_answered, create_ve, piecemeal_options, small_options};
use aspfs_tests::model::{Model, compare};
use aspfs_tests::opgen::{Rng, next_op};
use bytes::Bytes;
use vefs::clock::ManualClock;
use vefs::ids::{InodeNo, VeId};
use vefs::op::{Op, Owner, Reply, SetAttr};
use vefs::storage::memory::MemStorage;
use vefs::store::{Background, Options};
use vefs::types::mode;
use vefs::ve::{Memo, Request, Retention};
use vefs::{Error, Store, Ve};

const PERIOD: Duration = Duration::from_millis(2);

/// One VE, its oracle, and what drives both.
struct Pair {
    id: VeId,
    ve: Arc<Ve>,
    model: Model,
    rng: Rng,
}

impl Pair {
    fn new(store: &Store, id: u32, seed: u64) -> Pair {
        let ve = create_ve(store, id, 8 << 20, 400).unwrap();
        Pair { id: VeId(id), ve, model: Model::new(8 << 20, 400), rng: Rng::new(seed + u64::from(id)) }
    }

    fn step(&mut self, clock: &ManualClock, context: &str) {
        use vefs::clock::Clock;
        let op = next_op(&mut self.rng, &self.model);
        let now = clock.wall();
        let got = self.ve.execute(&op, Request::default()).map_err(|e| match e {
            Error::Posix(e) => e,
            other => panic!("{context} {op:?}: {other}"),
        });
        let want = self.model.apply(&as_answered(&op, &got), now);
        assert_eq!(got, want, "{context}: {op:?}");
        match self.rng.below(400) {
            0 => self.ve.sync().unwrap(),
            1 => drop(self.ve.collect(&Retention { steps: vec![(1, 0)] }).unwrap()),
            2 => drop(self.ve.housekeep(Duration::ZERO).unwrap()),
            _ => {}
        }
    }

    fn check(&self, context: &str) {
        compare(&self.model, &*self.ve).unwrap_or_else(|e| panic!("{context}, VE {}: {e}", self.id));
    }
}

/// Sizes at which every thread of the store has something to do all the time.
fn restless() -> Options {
    Options { overlay_soft: 32 << 10, persist_bytes: 128 << 10, checkpoint_bytes: 512 << 10, ..piecemeal_options() }
}

/// What ticks, publishing, hashing, preparing and housekeeping do beside the operations changes no answer and no state, nor does
/// a kill in the middle of it (checks G31).
#[test]
fn background_threads_change_nothing() {
    for seed in 0..4 {
        let mut world = World::create(Arc::new(MemStorage::new()), seed, restless()).unwrap();
        let mut store = world.open().unwrap();
        let mut pair = Pair::new(&store, 1, seed);
        for life in 0..4 {
            let context = format!("seed {seed} life {life}");
            let threads = Background::start(store.clone(), PERIOD).unwrap();
            for _ in 0..1500 {
                world.clock.advance(Duration::from_millis(7));
                pair.step(&world.clock, &context);
            }
            pair.check(&context);
            drop(threads);
            world.lose_unpersisted();
            store = world.open().unwrap();
            pair.ve = store.ve(pair.id).unwrap();
            pair.check(&format!("{context}, killed"));
        }
    }
}

/// Two VEs on two threads, under the threads of the store: each is as its own model, before and after a restart.
#[test]
fn two_ves_on_two_threads_are_as_their_models() {
    for seed in 10..13 {
        let mut world = World::create(Arc::new(MemStorage::new()), seed, restless()).unwrap();
        let store = world.open().unwrap();
        let threads = Background::start(store.clone(), PERIOD).unwrap();
        let mut pairs = [1, 2].map(|id| Pair::new(&store, id, seed));
        let clock = &world.clock;
        std::thread::scope(|scope| {
            for pair in &mut pairs {
                // Only its own thread moves a model's time, or an operation and its oracle could see different ones.
                scope.spawn(move || {
                    for n in 0..3000 {
                        pair.step(clock, &format!("seed {seed} VE {} op {n}", pair.id));
                    }
                });
            }
        });
        drop((threads, store));
        world.lose_unpersisted();
        let store = world.open().unwrap();
        for pair in &mut pairs {
            pair.check("before the kill");
            pair.ve = store.ve(pair.id).unwrap();
            pair.check("after it");
        }
    }
}

fn request(ve: &Ve, unique: u64, op: &Op) -> Reply {
    ve.execute(op, Request::numbered(unique)).unwrap()
}

/// Answers are remembered until the daemon says that the kernel has asked again for what it wanted: over a kill, over a kill after
/// they were published, and when the metadata lost what it had not persisted (checks G7).
#[test]
fn answers_are_remembered_over_every_kind_of_restart() {
    let mut world = World::create(Arc::new(MemStorage::new()), 3, small_options()).unwrap();
    let mut store = world.open().unwrap();
    let mut ve = create_ve(&store, 1, u64::MAX, u64::MAX).unwrap();
    let name = b"file".to_vec();
    let mode = mode::IFREG | 0o644;
    let create = Op::Create { parent: InodeNo::ROOT, name, mode, rdev: 0, owner: Owner::default() };
    let Reply::Inode(ino, _) = request(&ve, 11, &create) else { panic!("no inode") };
    let mut want = vec![(11, Memo::Inode(ino))];
    for round in 0..6u64 {
        let data = Bytes::from(vec![round as u8; 500]);
        let len = data.len() as u64;
        request(&ve, 100 + round, &Op::Write { ino, offset: 0, data, kill_priv: false });
        want.push((100 + round, Memo::Written(len)));
        // In the journal only; published; persisted; with an unsealed tail behind either.
        match round % 3 {
            0 => {}
            1 => ve.publish().unwrap(),
            _ => store.checkpoint().unwrap(),
        }
        request(&ve, 200 + round, &Op::Setattr { ino, set: SetAttr { size: Some(round), ..SetAttr::default() } });
        want.push((200 + round, Memo::Inode(ino)));
        drop((ve, store));
        if round >= 3 {
            world.lose_unpersisted();
        }
        store = world.open().unwrap();
        ve = store.ve(VeId(1)).unwrap();
        for (unique, memo) in &want {
            assert_eq!(ve.answered(*unique).as_ref(), Some(memo), "request {unique}, round {round}");
        }
        assert_eq!(ve.answered(999), None);
        assert_eq!(ve.inode(ino).unwrap().size, round);
    }
    ve.forget_answers().unwrap();
    assert!(want.iter().all(|(unique, _)| ve.answered(*unique).is_none()));
}
