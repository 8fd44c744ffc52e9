//! Catching up: a puller and a source over a link that breaks, repeats, flips and loses, while both nodes die now and then.

use std::collections::BTreeMap;
use std::time::Duration;

use aspfs_replica::catchup::{Action, Answer, Ask, GiveUp, Puller, Refused, Serving};
use aspfs_replica::node::NodeId;
use vefs::format::role::RoleKind;
use vefs::ids::{Epoch, Lineage, Position, VeId};

use super::content::State;
use super::incoming::Serve;
use super::store::{Bug, Store};
use crate::random::Random;

const VE: VeId = VeId(7);
const LINEAGE: Lineage = Lineage([9; 16]);
const PEER: NodeId = NodeId([2; 16]);

struct Pull {
    random: Random,
    now: Duration,
    from: Store,
    holds: BTreeMap<NodeId, (Position, State)>,
    to: Store,
    puller: Puller,
    stream: Option<(u64, Serving)>,
    /// One in so many answers comes to harm.
    faults: u64,
    /// Bits that are flipped where no checksum of the link sees it.
    deep: bool,
    installed: bool,
    over: Option<Result<(), GiveUp>>,
}

fn fill(store: &mut Store, random: &mut Random, txns: u64) {
    for _ in 0..txns {
        let mut sets = vec![];
        for _ in 0..1 + random.below(3) {
            let len = [5, 150, 700, 5000][random.below(4) as usize] + random.below(40);
            sets.push((random.below(24) as u8, vec![random.below(256) as u8; len as usize]));
        }
        let seals: Vec<(u8, u8)> =
            (0..random.below(2)).map(|_| (30 + random.below(4) as u8, 10 + random.below(9) as u8)).collect();
        store.write(sets, &seals, None);
    }
    store.flush();
}

impl Pull {
    fn new(seed: u64) -> Pull {
        let mut random = Random::new(seed);
        let mut from = Store::new(LINEAGE, RoleKind::Primary, true, Bug::None);
        let txns = 3 + random.below(30);
        fill(&mut from, &mut random, txns);
        let mut to = Store::new(LINEAGE, RoleKind::Replica, random.one_in(2), Bug::None);
        if random.one_in(2) {
            // A history of its own, with the same numbers.
            fill(&mut to, &mut random, 5);
        }
        let puller = Puller::new(VE, LINEAGE, to.head());
        let (now, holds) = Default::default();
        Pull {
            random,
            now,
            from,
            holds,
            to,
            puller,
            stream: None,
            faults: 0,
            deep: false,
            installed: false,
            over: None,
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Ask(number, ask) => {
                let blob = ask.encode();
                assert_eq!(Ask::decode(&blob).unwrap(), ask);
                self.stream = Some((number, Serving::of(PEER, &blob).unwrap()));
            }
            Action::Wait(until) => self.now = self.now.max(until),
            Action::Again => {}
            Action::Installed(at) => {
                assert_eq!(self.to.head(), at);
                self.installed = true;
            }
            Action::Over => self.over = Some(Ok(())),
            Action::GiveUp(why) => self.over = Some(Err(why)),
        }
    }

    fn restart(&mut self) {
        self.to.power_cut();
        self.stream = None;
        self.puller = Puller::new(VE, LINEAGE, self.to.head());
    }

    fn step(&mut self) {
        let odd = self.faults > 0 && self.random.one_in(self.faults);
        if odd && self.random.one_in(6) {
            return self.restart();
        }
        if odd && self.random.one_in(8) {
            fill(&mut self.from, &mut self.random, 2);
            self.holds.clear();
        }
        let Some((number, serving)) = &mut self.stream else {
            let action = self.puller.poll(&mut self.to, self.now);
            return self.act(action);
        };
        let number = *number;
        let mut source = Serve { ve: VE, store: &mut self.from, holds: &mut self.holds };
        let answer = serving.next(&mut source);
        let Some(mut answer) = answer.filter(|_| !odd || self.random.one_in(3)) else {
            self.stream = None;
            return self.puller.ended(&mut self.to, number, self.now);
        };
        if odd && self.deep {
            spoil(&mut answer, &mut self.random);
        }
        let mut blob = answer.encode(self.random.one_in(2));
        if odd && !self.deep {
            let bit = self.random.below(blob.len() as u64 * 8) as usize;
            blob[bit / 8] ^= 1 << (bit % 8);
        }
        match Answer::decode(&blob) {
            Ok(answer) => {
                let given_up = self.puller.answer(&mut self.to, number, answer, self.now);
                given_up.into_iter().for_each(|action| self.act(action));
            }
            Err(_) => {
                self.stream = None;
                self.puller.ended(&mut self.to, number, self.now);
            }
        }
        if self.stream.is_some() && !self.is_asking(number) {
            self.stream = None;
        }
    }

    /// Whether the machine still waits for this question's answer.
    fn is_asking(&mut self, number: u64) -> bool {
        let before = self.puller.clone().poll(&mut self.to.clone(), self.now);
        matches!(before, Action::Wait(t) if t > self.now) && number > 0 && self.stream.is_some()
    }

    fn run(&mut self) -> Result<(), GiveUp> {
        for _ in 0..100_000 {
            let before = (self.to.history.base, self.to.state.clone(), self.to.head());
            self.step();
            if !self.installed {
                let now = (self.to.history.base, self.to.state.clone(), self.to.head());
                assert!(before == now || self.faults > 0 && before.0 == now.0, "the present state is not touched");
            }
            if let Some(over) = self.over.take() {
                return over;
            }
        }
        panic!("it takes too long: {:?}", self.puller);
    }
}

/// A lie that the link's checksum does not see: the source's disk or memory is wrong.
fn spoil(answer: &mut Answer, random: &mut Random) {
    match answer {
        Answer::Bytes { bytes, .. } if !bytes.is_empty() => {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1;
        }
        Answer::Parts(parts) => {
            let at = random.below(parts.len() as u64) as usize;
            if let Some(byte) = parts[at].bytes.last_mut() {
                *byte ^= 1;
            }
        }
        Answer::Rows(page) if !page.rows.is_empty() => {
            let at = random.below(page.rows.len() as u64) as usize;
            let value = &mut page.rows[at].1;
            let byte = value.len() - 1;
            value[byte] ^= 1;
        }
        _ => {}
    }
}

/// Whatever breaks off, comes twice or is damaged, and whoever loses power: in the end the state is there, or the old one is (checks G9, G23).
#[test]
fn a_state_comes_over() {
    let (mut asked, mut restarts) = (0, 0);
    for seed in 0..300 {
        for (faults, deep) in [(0, false), (30, false), (30, true)] {
            let mut pull = Pull::new(seed);
            (pull.faults, pull.deep) = (faults, deep);
            let before = (pull.to.head(), pull.to.state.clone());
            let outcome = pull.run();
            match outcome {
                Ok(()) => {
                    let at = pull.to.head();
                    assert!(at.txn <= pull.from.head().txn && pull.installed, "seed {seed}");
                    if at == pull.from.head() {
                        assert_eq!(pull.to.state.root(), pull.from.state.root(), "seed {seed}");
                    }
                    for (id, bytes) in &pull.to.state.bytes {
                        assert!(pull.from.state.bytes.get(id).is_none_or(|b| b == bytes), "seed {seed}");
                    }
                }
                Err(why) => {
                    assert!(deep, "seed {seed}: {why}");
                    assert!(before == (pull.to.head(), pull.to.state.clone()), "seed {seed}: it changed something");
                }
            }
            asked += pull.puller.progress().asked;
            restarts += pull.puller.progress().restarts;
        }
    }
    assert!(asked > 1000 && restarts > 10, "{asked} questions, {restarts} restarts: nothing was tried");
}

/// With the proof left out, a state that is wrong gets in: what the test above would see.
#[test]
fn an_unproved_state_would_get_in() {
    let wrong = (0..300).filter(|seed| {
        let mut pull = Pull::new(*seed);
        (pull.faults, pull.deep, pull.to.bug) = (10, true, Bug::Unproved);
        pull.run().is_ok() && pull.to.head() == pull.from.head() && pull.to.state.root() != pull.from.state.root()
    });
    assert!(wrong.count() > 0, "the planted bug does nothing");
}

/// Bytes that the old state has are not sent again; its numbers alone say nothing (checks G23).
#[test]
fn what_is_here_is_not_sent() {
    let mut pull = Pull::new(1);
    pull.to = pull.from.clone();
    pull.to.role.kind = RoleKind::Replica;
    fill(&mut pull.from, &mut pull.random, 1);
    pull.puller = Puller::new(VE, LINEAGE, pull.to.head());
    pull.run().unwrap();
    let progress = pull.puller.progress();
    assert!(progress.reused > 10 * progress.bytes.max(1) || progress.bytes < 16_000, "{progress:?}");
    assert!(progress.reused > 0);
    assert!(progress.kept > 0 && progress.kept < progress.rows, "{progress:?}");
    assert_eq!(pull.to.state, pull.from.state);
}

/// A primary that was superseded gives no state, and one that is superseded meanwhile gives none either (checks G10, G18).
#[test]
fn an_old_epoch_gives_nothing() {
    let mut pull = Pull::new(2);
    pull.to.role.epoch = Epoch(9);
    let before = pull.to.state.clone();
    assert_eq!(pull.run(), Err(GiveUp::Refused(Refused::OldEpoch)));
    let mut pull2 = Pull::new(2);
    for _ in 0..10_000 {
        if pull2.to.incoming.as_ref().is_some_and(|i| i.state.rows.len() > 2) {
            pull2.to.role.epoch = Epoch(9);
        }
        pull2.step();
        if let Some(over) = pull2.over.take() {
            assert!(matches!(over, Err(GiveUp::OldEpoch | GiveUp::Refused(Refused::OldEpoch))), "{over:?}");
            assert!(!pull2.installed && pull2.to.state == before);
            return;
        }
    }
    panic!("it takes too long");
}

/// A stranger's history is refused before anything is changed (checks G23).
#[test]
fn a_stranger_gives_nothing() {
    let mut pull = Pull::new(3);
    pull.from = Store::new(Lineage([1; 16]), RoleKind::Primary, true, Bug::None);
    assert_eq!(pull.run(), Err(GiveUp::Refused(Refused::ForeignLineage)));
    let mut pull = Pull::new(3);
    pull.puller = Puller::new(VeId(8), LINEAGE, pull.to.head());
    assert_eq!(pull.run(), Err(GiveUp::Refused(Refused::UnknownVe)));
}
