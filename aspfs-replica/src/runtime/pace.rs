//! How fast a stream goes: what of it is compressed, and a limit of bytes a second.

use std::time::Duration;

use tokio::time::Instant;

/// After so many frames that compression did not make smaller, as many go as they are.
const POINTLESS: u32 = 8;
/// Frames that then go as they are.
const PLAIN: u32 = 64;

/// Whether compressing frames is worth the time: not while it does not make them smaller.
#[derive(Default)]
pub(super) struct Pays {
    pointless: u32,
    plain: u32,
}

impl Pays {
    /// Whether the next frame is to be compressed.
    pub fn try_it(&self) -> bool {
        self.plain == 0
    }

    /// A frame with so many bytes of the VE became so many.
    pub fn took(&mut self, carried: u64, sent: u64) {
        // Small frames say nothing about what a VE writes.
        if carried < 4096 {
            return;
        }
        if self.plain > 0 {
            self.plain -= 1;
        } else if sent * 8 > carried * 7 {
            self.pointless += 1;
            if self.pointless >= POINTLESS {
                (self.pointless, self.plain) = (0, PLAIN);
            }
        } else {
            self.pointless = 0;
        }
    }
}

/// The lowest limit of bytes a second; a lower one is taken as this. What keeps a session going takes about a tenth of it.
const RATE_MIN: u64 = 1024;

/// A limit of bytes a second, with a tenth of a second's worth at once.
///
/// What waits is not made before its turn comes: a word that keeps the session going is said meanwhile, and counts in it.
pub(super) struct Pace {
    rate: u64,
    free_at: Instant,
}

impl Pace {
    /// So many bytes a second; 0: no limit.
    pub fn new(rate: u64) -> Pace {
        Pace { rate: bounded(rate), free_at: Instant::now() }
    }

    /// Another limit from now on; 0: none. What is owed by the one before is forgotten.
    pub fn set_rate(&mut self, rate: u64) {
        (self.rate, self.free_at) = (bounded(rate), self.free_at.min(Instant::now()));
    }

    /// What goes in half a second.
    pub fn piece(&self) -> u64 {
        if self.rate == 0 { u64::MAX } else { self.rate / 2 }
    }

    /// When it is the next frame's turn, if that is not now.
    pub fn turn(&self) -> Option<Instant> {
        (self.rate > 0 && self.free_at > Instant::now()).then_some(self.free_at)
    }

    /// So many bytes go.
    pub fn took(&mut self, bytes: u64) {
        if self.rate == 0 {
            return;
        }
        let now = Instant::now();
        let burst = Duration::from_millis(100);
        let begin = self.free_at.max(now.checked_sub(burst).unwrap_or(now));
        self.free_at = begin + Duration::from_secs_f64(bytes as f64 / self.rate as f64);
    }
}

fn bounded(rate: u64) -> u64 {
    if rate == 0 { 0 } else { rate.max(RATE_MIN) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_get_smaller_is_not_compressed_for_a_while() {
        let mut pays = Pays::default();
        for _ in 0..POINTLESS {
            assert!(pays.try_it());
            pays.took(100_000, 99_000);
        }
        for _ in 0..PLAIN {
            assert!(!pays.try_it());
            pays.took(100_000, 100_048);
        }
        assert!(pays.try_it());
        pays.took(100_000, 30_000);
        assert!(pays.try_it());
    }

    #[test]
    fn a_pace_is_kept() {
        let wait = |pace: &mut Pace, bytes| {
            let turn = pace.turn().map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
            pace.took(bytes);
            turn
        };
        let mut pace = Pace::new(1 << 20);
        let waits: Vec<Duration> = (0..20).map(|_| wait(&mut pace, 1 << 18)).collect();
        assert!(waits[0].is_zero());
        // Nineteen quarters of a second, less the burst.
        assert!(waits[19] > Duration::from_millis(4500) && waits[19] < Duration::from_millis(4760), "{:?}", waits[19]);
        assert_eq!(pace.piece(), 1 << 19);
        pace.set_rate(2 << 20);
        assert!(pace.turn().is_none(), "nothing is owed by another limit");
        pace.took(1 << 30);
        pace.set_rate(0);
        assert!(wait(&mut pace, u64::MAX).is_zero() && wait(&mut Pace::new(0), u64::MAX).is_zero());
    }

    /// Under a limit of a byte a second the pings of a session alone would be more than may go.
    #[test]
    fn there_is_a_lowest_limit() {
        let mut pace = Pace::new(1);
        pace.took(100);
        let turn = pace.turn().unwrap_or_else(Instant::now);
        assert!(turn < Instant::now() + Duration::from_millis(100));
        assert_eq!(pace.piece(), RATE_MIN / 2);
    }
}
