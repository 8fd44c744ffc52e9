//! Which states of one point in time are built: all of them where they are few, a drawn sample where they are many.

use super::image::{Data, Effect, Image};
use super::states::Pending;
use super::{Classes, CrashClass};

/// How a state differs from the durable one. Indices are those of the pending effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spec {
    All,
    Nothing,
    Upto(usize),
    Without(usize),
    Only(usize),
    Subset(Mask),
    /// Everything, of write `i` only what lies before `cut`, or only what lies behind it.
    Torn {
        i: usize,
        unit: u64,
        cut: u64,
        head: bool,
    },
    Misdirected {
        i: usize,
        to: u64,
    },
    /// Index of a lane.
    Dropped(usize),
}

/// A set of pending effects: given bit by bit, or drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mask {
    Bits(u64),
    Drawn(u64),
}

impl Mask {
    pub(super) fn has(self, i: usize) -> bool {
        match self {
            Mask::Bits(bits) => bits >> i & 1 == 1,
            Mask::Drawn(seed) => Rng(seed.wrapping_add(i as u64)).next() & 1 == 1,
        }
    }
}

impl Spec {
    pub(super) fn class(self) -> CrashClass {
        match self {
            Spec::All => CrashClass::KillDaemon,
            Spec::Nothing => CrashClass::Nothing,
            Spec::Upto(_) => CrashClass::Prefix,
            Spec::Without(_) => CrashClass::DropOne,
            Spec::Only(_) => CrashClass::OnlyOne,
            Spec::Subset(_) => CrashClass::Subset,
            Spec::Torn { unit, .. } => CrashClass::Torn { unit },
            Spec::Misdirected { .. } => CrashClass::Misdirected,
            Spec::Dropped(_) => CrashClass::Dropped,
        }
    }

    /// Whether pending effect `i` is there whole and in its place.
    pub(super) fn has(self, i: usize) -> bool {
        match self {
            Spec::All | Spec::Dropped(_) => true,
            Spec::Nothing => false,
            Spec::Upto(end) => i < end,
            Spec::Without(one) => i != one,
            Spec::Only(one) => i == one,
            Spec::Subset(mask) => mask.has(i),
            Spec::Torn { i: one, .. } | Spec::Misdirected { i: one, .. } => i != one,
        }
    }
}

/// Up to this many pending effects all subsets are built.
const ALL_SUBSETS: usize = 6;
/// The same, where the states are to be complete.
pub(super) const ALL_SUBSETS_COMPLETE: usize = 14;
/// Tearing below this is not in the model.
const UNITS: [u64; 2] = [512, 4096];
/// A misdirected write is off by a multiple of this.
const STRIDE: u64 = 4096;

/// What the choice at one point in time depends on.
pub(super) struct Chooser<'a> {
    pub(super) pending: &'a [Pending],
    /// The image with everything applied.
    pub(super) full: &'a Image,
    /// How many flushed writes can be left out; 0 when it is not the time for that.
    pub(super) lanes: usize,
    pub(super) classes: Classes,
    /// Most states per class, that is per point in time.
    pub(super) most: usize,
    /// Every subset, and every place where a write may tear.
    pub(super) complete: bool,
    pub(super) rng: Rng,
}

impl Chooser<'_> {
    /// The states to build, honest ones first.
    pub(super) fn choose(mut self) -> Vec<Spec> {
        let n = self.pending.len();
        let mut specs = vec![Spec::All, Spec::Nothing];
        specs.extend(self.sample(1, n).map(Spec::Upto));
        specs.extend(self.sample(0, n).map(Spec::Without));
        specs.extend(self.sample(0, n).map(Spec::Only));
        self.tear(&mut specs);
        let all = if self.complete { ALL_SUBSETS_COMPLETE } else { ALL_SUBSETS };
        if n <= all {
            specs.extend((0..1 << n).map(|bits| Spec::Subset(Mask::Bits(bits))));
        } else {
            let draw =
                (0..self.most.min(1 << ALL_SUBSETS_COMPLETE)).map(|_| Spec::Subset(Mask::Drawn(self.rng.next())));
            specs.extend(draw);
        }
        self.misdirect(&mut specs);
        specs.extend(self.sample(0, self.lanes).map(Spec::Dropped));
        specs.retain(|spec| self.classes.contains(spec.class().bit()));
        specs
    }

    /// Numbers of `from..to`: all when they are few, else the first, the last and some drawn ones.
    fn sample(&mut self, from: usize, to: usize) -> impl Iterator<Item = usize> + use<> {
        let all = to.saturating_sub(from);
        let mut picked: Vec<usize> = (from..to).collect();
        if all > self.most {
            let edge = self.most / 3;
            let drawn = (0..self.most - 2 * edge).map(|_| self.rng.below(all as u64) as usize + from);
            picked = (from..from + edge).chain(drawn).chain(to - edge..to).collect();
            picked.sort_unstable();
            picked.dedup();
        }
        picked.into_iter()
    }

    /// The pending writes of bytes: index, offset, length.
    fn writes(&self) -> Vec<(usize, u64, u64)> {
        let write = |(i, pending): (usize, &Pending)| match &pending.effect {
            Effect::Bytes { offset, data, .. } if !pending.settled => Some((i, *offset, data.len())),
            _ => None,
        };
        self.pending.iter().enumerate().filter_map(write).collect()
    }

    fn tear(&mut self, specs: &mut Vec<Spec>) {
        let writes = self.writes();
        let Some((last, earlier)) = writes.split_last() else { return };
        if self.complete {
            writes.iter().for_each(|write| tears(*write, every_cut, specs));
            return;
        }
        tears(*last, cuts, specs);
        if earlier.is_empty() {
            return;
        }
        let (i, offset, len) = earlier[self.rng.below(earlier.len() as u64) as usize];
        for unit in UNITS {
            let cuts = cuts(offset, len, unit);
            if !cuts.is_empty() {
                let cut = cuts[self.rng.below(cuts.len() as u64) as usize];
                specs.push(Spec::Torn { i, unit, cut, head: self.rng.below(2) == 0 });
            }
        }
    }

    fn misdirect(&mut self, specs: &mut Vec<Spec>) {
        let writes = self.writes();
        for at in self.sample(0, writes.len()) {
            let (i, offset, len) = writes[at];
            let Effect::Bytes { file, data: Data::Given(_), .. } = &self.pending[i].effect else { continue };
            let phase = offset % STRIDE;
            let Some(room) = self.full.len(*file).checked_sub(phase + len) else { continue };
            let (places, own) = (room / STRIDE + 1, offset / STRIDE);
            if places < 2 {
                continue;
            }
            let next = if own + 1 < places { own + 1 } else { own.saturating_sub(1) };
            let drawn = self.rng.below(places);
            let targets = [next, drawn].into_iter().filter(|place| *place != own);
            specs.extend(targets.map(|place| Spec::Misdirected { i, to: place * STRIDE + phase }));
        }
    }
}

/// Both sides of every tear of a write: index, offset, length.
fn tears((i, offset, len): (usize, u64, u64), cuts: impl Fn(u64, u64, u64) -> Vec<u64>, specs: &mut Vec<Spec>) {
    for unit in UNITS {
        for cut in cuts(offset, len, unit) {
            specs.extend([true, false].map(|head| Spec::Torn { i, unit, cut, head }));
        }
    }
}

/// All offsets where a write may tear: the multiples of `unit` inside it.
fn every_cut(offset: u64, len: u64, unit: u64) -> Vec<u64> {
    let first = (offset / unit + 1) * unit;
    (first..offset + len).step_by(unit as usize).collect()
}

/// Offsets where a write may tear: the first, the middle and the last multiple of `unit` inside it.
fn cuts(offset: u64, len: u64, unit: u64) -> Vec<u64> {
    let (first, last) = (offset / unit + 1, (offset + len).div_ceil(unit).saturating_sub(1));
    if first > last {
        return Vec::new();
    }
    let mut cuts = vec![first * unit, first.midpoint(last) * unit, last * unit];
    cuts.dedup();
    cuts
}

/// SplitMix64: small, and the same everywhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}
