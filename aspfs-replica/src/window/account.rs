//! What is counted of a window's states.

use std::time::Duration;

use super::{Counters, Exposure, State, Window};

impl Window {
    /// What happened so far, what is going on included.
    pub fn counters(&self) -> Counters {
        let running = |since: Option<Duration>| since.map_or(Duration::ZERO, |s| self.now.saturating_sub(s));
        Counters {
            breached: self.counters.breached + running(self.breach_since),
            stalled: self.counters.stalled + running(self.stalled_since),
            ..self.counters
        }
    }

    /// The state becomes `next`, with this exposure.
    pub(super) fn account(&mut self, next: State, exposure: Exposure) {
        let passed = match exposure {
            Exposure::Known(age) => self.now.saturating_sub(age.saturating_sub(self.policy.window)),
            Exposure::Unknown => self.now,
        };
        match (next == State::Lagging, self.breach_since) {
            (true, None) => {
                self.counters.breaches += 1;
                self.breach_since = Some(passed);
            }
            (false, Some(since)) => {
                self.counters.breached += self.now.saturating_sub(since);
                self.breach_since = None;
            }
            _ => {}
        }
        match (next == State::Stalled, self.stalled_since) {
            (true, None) => self.stalled_since = Some(self.now),
            (false, Some(since)) => {
                self.counters.stalled += self.now.saturating_sub(since);
                self.stalled_since = None;
            }
            _ => {}
        }
    }
}
