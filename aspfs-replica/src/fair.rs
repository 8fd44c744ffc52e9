//! Whose turn it is on a link: deficit round robin over VEs (Shreedhar and Varghese 1995), so that one with gigabytes to send does not
//! delay another's kilobytes.
//!
//! A VE sends while its deficit is positive and is charged afterwards, so that nobody needs to know a message's size before. Invariant: between
//! two turns of a VE that has something to send, every other one sends at most its quantum and one message.

use std::collections::{BTreeMap, VecDeque};

use vefs::ids::VeId;

/// Bytes that a VE of weight 1 may send in a turn.
pub const QUANTUM: u64 = 64 << 10;

#[derive(Clone, Copy, Debug)]
struct Share {
    weight: u32,
    deficit: i64,
}

/// The turns on one link.
#[derive(Clone, Debug, Default)]
pub struct Fair {
    turns: VecDeque<VeId>,
    shares: BTreeMap<VeId, Share>,
}

impl Fair {
    /// The VE has something to send, with this weight (1 or more). It joins at the end; one that is in already keeps its place.
    pub fn wake(&mut self, ve: VeId, weight: u32) {
        let weight = weight.max(1);
        match self.shares.get_mut(&ve) {
            Some(share) => share.weight = weight,
            None => {
                self.shares.insert(ve, Share { weight, deficit: quantum(weight) });
                self.turns.push_back(ve);
            }
        }
    }

    /// The VE has nothing to send. It takes no credit along for later.
    pub fn rest(&mut self, ve: VeId) {
        if self.shares.remove(&ve).is_some() {
            self.turns.retain(|v| *v != ve);
        }
    }

    /// Whose turn it is.
    pub fn next(&self) -> Option<VeId> {
        self.turns.front().copied()
    }

    /// The VE whose turn it is sent this many bytes. Those whose deficit is used up go to the end, with a new quantum.
    pub fn sent(&mut self, ve: VeId, bytes: u64) {
        if let Some(share) = self.shares.get_mut(&ve) {
            share.deficit = share.deficit.saturating_sub_unsigned(bytes);
        }
        while let Some(ve) = self.turns.front().copied() {
            match self.shares.get_mut(&ve) {
                Some(share) if share.deficit <= 0 => share.deficit += quantum(share.weight),
                _ => break,
            }
            self.turns.rotate_left(1);
        }
    }
}

fn quantum(weight: u32) -> i64 {
    (QUANTUM * u64::from(weight)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Between two turns of a small sender nobody sends more than a quantum and a message.
        #[test]
        fn nobody_waits_long(sizes in prop::collection::vec(1..300_000u64, 10..400), others in 1..20u32) {
            let mut fair = Fair::default();
            (0..=others).for_each(|ve| fair.wake(VeId(ve), 1));
            let largest = sizes.iter().copied().max().unwrap_or(0);
            let mut between = BTreeMap::<VeId, u64>::new();
            for size in sizes {
                let ve = fair.next().unwrap();
                if ve == VeId(0) {
                    between.clear();
                    fair.sent(ve, 1000);
                    continue;
                }
                fair.sent(ve, size);
                *between.entry(ve).or_default() += size;
                prop_assert!(between[&ve] <= QUANTUM + largest, "{between:?}");
            }
        }
    }

    #[test]
    fn weights_share_the_link_and_rest_gives_no_credit() {
        let mut fair = Fair::default();
        let (a, b) = (VeId(1), VeId(2));
        fair.wake(a, 1);
        fair.wake(b, 3);
        let mut sent = BTreeMap::<VeId, u64>::new();
        for _ in 0..4000 {
            let ve = fair.next().unwrap();
            fair.sent(ve, 10_000);
            *sent.entry(ve).or_default() += 10_000;
        }
        let ratio = sent[&b] as f64 / sent[&a] as f64;
        assert!((2.8..3.2).contains(&ratio), "{ratio}");
        fair.rest(b);
        fair.rest(b);
        fair.sent(a, 10_000_000);
        assert_eq!(fair.next(), Some(a), "alone, it is always its turn");
        fair.rest(a);
        assert_eq!(fair.next(), None);
    }
}
