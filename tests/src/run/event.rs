//! What happens to a store besides file operations, and how often.

use crate::opgen::Rng;

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it; the runner says the rest")]
pub enum Event {
    Operation,
    Tick,
    Sync,
    Commit,
    Publish,
    Persist,
    Checkpoint,
    Collect,
    Hold,
    Release,
    ReadVersion,
    OpenVersion,
    CloseVersion,
    SetQuota,
    Create,
    Destroy,
    Pause,
    KillDaemon,
    KillInside,
    PowerCut,
    PowerCutInside,
    CleanStop,
    Rebuild,
    Seal,
    Coalesce,
    Housekeep,
    Reclaim,
}

/// Of 10,000 steps, how many are which.
const WEIGHTS: [(Event, u64); 26] = [
    (Event::Tick, 60),
    (Event::Sync, 60),
    (Event::Commit, 50),
    (Event::Publish, 30),
    (Event::Persist, 10),
    (Event::Checkpoint, 8),
    (Event::Collect, 12),
    (Event::Hold, 12),
    (Event::Release, 16),
    (Event::ReadVersion, 20),
    (Event::OpenVersion, 8),
    (Event::CloseVersion, 12),
    (Event::SetQuota, 6),
    (Event::Create, 8),
    (Event::Destroy, 6),
    (Event::Pause, 10),
    (Event::KillDaemon, 8),
    (Event::KillInside, 8),
    (Event::PowerCut, 8),
    (Event::PowerCutInside, 12),
    (Event::CleanStop, 4),
    (Event::Rebuild, 5),
    (Event::Seal, 30),
    (Event::Coalesce, 30),
    (Event::Housekeep, 4),
    (Event::Reclaim, 6),
];

impl Event {
    /// The next event.
    pub fn draw(rng: &mut Rng) -> Event {
        let mut at = rng.below(10_000);
        for (event, weight) in WEIGHTS {
            if at < weight {
                return event;
            }
            at -= weight;
        }
        Event::Operation
    }

    /// All events that a run has, for seeing that none was left out.
    pub fn all() -> impl Iterator<Item = Event> {
        WEIGHTS.into_iter().map(|(e, _)| e)
    }

    /// Its name in [`super::Counts`].
    pub fn name(self) -> &'static str {
        match self {
            Event::Operation => "Operation",
            Event::Tick => "Tick",
            Event::Sync => "Sync",
            Event::Commit => "Commit",
            Event::Publish => "Publish",
            Event::Persist => "Persist",
            Event::Checkpoint => "Checkpoint",
            Event::Collect => "Collect",
            Event::Hold => "Hold",
            Event::Release => "Release",
            Event::ReadVersion => "ReadVersion",
            Event::OpenVersion => "OpenVersion",
            Event::CloseVersion => "CloseVersion",
            Event::SetQuota => "SetQuota",
            Event::Create => "Create",
            Event::Destroy => "Destroy",
            Event::Pause => "Pause",
            Event::KillDaemon => "KillDaemon",
            Event::KillInside => "KillInside",
            Event::PowerCut => "PowerCut",
            Event::PowerCutInside => "PowerCutInside",
            Event::CleanStop => "CleanStop",
            Event::Rebuild => "Rebuild",
            Event::Seal => "Seal",
            Event::Coalesce => "Coalesce",
            Event::Housekeep => "Housekeep",
            Event::Reclaim => "Reclaim",
        }
    }
}
