//! What a follower does ahead of its primary: a file that has come in and is quiet becomes an object before the record arrives that says so. Made
//! only then, a large one would hold the VE's stream up for as long as it takes to copy it, and the VE would be as exposed for as long.
//!
//! Nothing depends on it. An object that no record names in time is left to the collector.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use super::housekeep::Seen;
use super::{State, Ve};
use crate::change::{Body, Change, Purpose};
use crate::error::Result;
use crate::ids::InodeNo;
use crate::object::Pin;
use crate::types::Source;

/// A primary seals a file that was quiet for a time; its followers make the object after this part of it.
const PART: u32 = 3;
/// How long an object waits for its record.
const KEPT: Duration = Duration::from_secs(60);

/// Objects that were made ahead, by file.
pub(super) type Ahead = Mutex<BTreeMap<InodeNo, Made>>;

/// An object that was made ahead: a collection does not take it meanwhile (promise G26).
pub(super) struct Made {
    _pin: Pin,
    at: Duration,
    /// How often one was made for the file while the one before was kept.
    times: u32,
}

/// How long a file must be quiet before its object is made ahead, when one was made so often and it was written again: a file that is written every
/// few seconds is never sealed, and its followers would copy it each time. `None` is for ever.
fn patience(quiet: Duration, times: u32) -> Option<Duration> {
    match times {
        0 => Some(quiet / PART),
        1 => Some(quiet * (PART - 1) / PART),
        _ => None,
    }
}

impl State {
    /// Remembers which files a transaction from the primary wrote.
    pub(super) fn note_received(&mut self, bodies: &[Body], at: Duration) {
        let written = bodies.iter().filter(|body| body.purpose == Purpose::Operation).flat_map(|body| &body.changes);
        for change in written {
            if let Change::Map(ino, _, extent) = change
                && matches!(extent.source, Source::Payload(_))
            {
                self.note_write(*ino, at);
            }
        }
    }
}

impl Ve {
    /// Makes the objects that the primary is going to name: `quiet` is the time after which it seals a file.
    pub(super) fn make_ahead(&self, quiet: Duration) -> Result<()> {
        let now = self.shared.clock.boot();
        let made: BTreeMap<InodeNo, u32> = {
            let mut ahead = self.ahead.lock();
            ahead.retain(|_, made| now.saturating_sub(made.at) < KEPT);
            ahead.iter().map(|(ino, made)| (*ino, made.times)).collect()
        };
        let times = |ino: InodeNo| made.get(&ino).copied().unwrap_or(0);
        for ino in self.quiet_files(|ino| patience(quiet, times(ino))) {
            let Some(seen) = self.see(ino)?.filter(Seen::is_sealable) else { continue };
            let Some(staged) = self.stage_body(ino, &seen)? else { continue };
            // What came in meanwhile makes it an object that nobody names.
            if self.see(ino)? != Some(seen) {
                continue;
            }
            let pin = self.shared.objects.pin(staged.hash());
            self.shared.objects.place(vec![staged])?;
            let made = Made { _pin: pin, at: self.shared.clock.boot(), times: times(ino) + 1 };
            self.ahead.lock().insert(ino, made);
        }
        Ok(())
    }
}
