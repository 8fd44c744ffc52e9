//! What a follower does ahead of its primary: a file that has come in and is quiet becomes an object before the record arrives that says so. Made
//! only then, a large one would hold the VE's stream up for as long as it takes to copy it, and the VE would be as exposed for as long.
//!
//! Nothing depends on it. An object that no record names in time is left to the collector.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

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

/// Objects that were made ahead, by file, with the time when they were made: a collection does not take them meanwhile (promise G26).
pub(super) type Ahead = Mutex<BTreeMap<InodeNo, (Pin, Duration)>>;

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
        self.ahead.lock().retain(|_, (_, at)| now.saturating_sub(*at) < KEPT);
        for ino in self.quiet_files(quiet / PART) {
            let Some((inode, extents)) = self.private_file(ino)? else { continue };
            if !inode.is_worth_an_object() || !super::housekeep::is_sealable(&inode, &extents) {
                continue;
            }
            let Some(staged) = self.copy_body(ino, inode.size)? else { continue };
            // What came in meanwhile makes it an object that nobody names.
            if self.private_file(ino)? != Some((inode, extents)) {
                continue;
            }
            let pin = self.shared.objects.pin(staged.hash());
            self.shared.objects.place(vec![staged])?;
            self.ahead.lock().insert(ino, (pin, self.shared.clock.boot()));
        }
        Ok(())
    }
}
