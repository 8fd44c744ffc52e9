//! How long a writer waits so that the window is rarely met (promise G15).
//!
//! Two ages count, each as an `x` that is 0 at W/2: the exposure, with 1 at W, and the time that draining what is behind would take at the
//! replicas' rate, with 1 at 3/4 W. By the draining time bytes are let in at `rate · (1 - x) / x`: at x = 1/2 as much comes in as goes out, so a slow
//! link settles at 5/8 of the window, and what is left is for the link's own delay and a misjudged rate. The exposure follows
//! what was let in only a while later, so that steering by it alone swings; it allows `2 · rate · (1 - x²) / x`, which is gentler until
//! the window is near. The delay is shared by all writers of the VE: it is a time before which the next byte is not due,
//! so ten threads get no more than one.
//!
//! The rate is what was acknowledged over the last window. It is believed when it is higher than what was believed before, and when
//! it is lower only at an exposure over W/2: before that a low rate may say no more than that little was written.

use std::time::Duration;

/// Slots of the measured past, which is one window long.
const SLOTS: usize = 32;
/// Bytes a second that are believed to go out at the start.
const RATE_START: f64 = 262_144.0;
/// Bytes a second that are believed to go out when nothing does.
const RATE_FLOOR: f64 = 65_536.0;
/// What the smallest operation counts for, in bytes.
const OPERATION_MIN: u64 = 4096;

/// The throttle of one VE.
#[derive(Clone, Debug)]
pub struct Throttle {
    window: Duration,
    slots: [u64; SLOTS],
    newest: u128,
    due: Duration,
    believed: f64,
}

impl Throttle {
    /// For a window of this length.
    pub fn new(window: Duration) -> Throttle {
        Throttle { window, slots: [0; SLOTS], newest: 0, due: Duration::ZERO, believed: RATE_START }
    }

    fn turn(&mut self, now: Duration) {
        let slot = now.as_nanos() / (self.window.as_nanos() / SLOTS as u128).max(1);
        let steps = slot.saturating_sub(self.newest).min(SLOTS as u128);
        for i in 0..steps {
            self.slots[((slot - i) % SLOTS as u128) as usize] = 0;
        }
        self.newest = self.newest.max(slot);
    }

    /// All required replicas hold this many bytes more.
    pub fn acknowledged(&mut self, now: Duration, bytes: u64) {
        self.turn(now);
        let slot = &mut self.slots[(self.newest % SLOTS as u128) as usize];
        *slot = slot.saturating_add(bytes);
    }

    /// Bytes a second that are believed to go out.
    fn rate(&mut self, now: Duration, backlogged: bool) -> f64 {
        self.turn(now);
        let span = self.window.as_secs_f64().max(1e-9);
        let measured = self.slots.iter().map(|b| *b as f64).sum::<f64>() / span;
        self.believed = if backlogged { measured } else { self.believed.max(measured) }.max(RATE_FLOOR);
        self.believed
    }

    /// How long an operation of `bytes` waits at an exposure, with so many bytes behind; a quarter of the window at most.
    pub fn delay(&mut self, now: Duration, exposure: Duration, behind: u64, bytes: u64) -> Duration {
        let half = (self.window.as_secs_f64() / 2.0).max(1e-9);
        let rate = self.rate(now, exposure.as_secs_f64() > half);
        let over = |age: f64| ((age - half) / half).max(0.0);
        let (drain, age) = (2.0 * over(behind as f64 / rate), over(exposure.as_secs_f64()));
        if drain.max(age) <= 0.0 {
            self.due = now;
            return Duration::ZERO;
        }
        let cap = self.window / 4;
        let by_drain = rate * (1.0 - drain).max(0.0) / drain;
        let by_age = 2.0 * rate * (1.0 - age * age).max(0.0) / age;
        let allowed = by_drain.min(by_age).max(1e-3);
        let cost = bytes.max(OPERATION_MIN) as f64 / allowed;
        let cost = Duration::from_secs_f64(cost.min(cap.as_secs_f64()));
        self.due = (self.due.max(now) + cost).min(now + cap);
        self.due - now
    }
}
