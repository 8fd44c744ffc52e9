//! The scrub by the clock: a step every few seconds, as large as the rate allows.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aspfs_replica::runtime::Runtime;
use vefs::store::scrub::{Bad, Part, Scrub, Thing};

use super::refuse::{Answer, about};
use super::{Daemon, Periodic};
use crate::control::message::Id;
use crate::control::path::Path;
use crate::control::scrub::{DamageRow, ReaderRow, ScrubRow};
use crate::units;

/// Time between two steps.
const STEP: Duration = Duration::from_secs(5);

/// Starts the thread.
pub fn start(daemon: Arc<Daemon>) -> io::Result<Periodic> {
    Periodic::start("aspfs-scrub", STEP, move || {
        if let Err(e) = step(&daemon) {
            tracing::error!(error = %e, "scrub");
        }
    })
}

fn step(daemon: &Daemon) -> vefs::Result<()> {
    let mut scrub = daemon.store.scrub_status()?;
    if !scrub.is_running() && is_due(&scrub, daemon.config.scrub_period) {
        scrub = daemon.store.scrub_begin()?;
    }
    if scrub.is_running() {
        let pass = daemon.store.scrub_step(daemon.config.scrub_rate.saturating_mul(STEP.as_secs()))?;
        scrub = pass;
        if !scrub.is_running() {
            let pass = &scrub;
            tracing::info!(
                pass = pass.pass,
                things = pass.things,
                bytes = pass.bytes,
                damaged = pass.found,
                "scrub ended"
            );
            // What each side finds damaged it finds alone; what both hold for right, and is not the same, only both find (promise G13).
            if let Ok(replication) = daemon.replication() {
                replication.compare_all();
            }
        }
    }
    if let Ok(replication) = daemon.replication() {
        repair(&replication, &scrub);
    }
    Ok(())
}

/// Puts right what is damaged and can be had from another node. What could not is tried again a minute later.
fn repair(replication: &Runtime, scrub: &Scrub) {
    let begun = Instant::now();
    for bad in &scrub.damage {
        replication.repair(&bad.thing);
        // The rest has its turn in the next step: a stop of the daemon waits for this one.
        if begun.elapsed() >= STEP {
            break;
        }
    }
}

/// Whether a pass has to begin. Wall time is good enough for that: a clock that jumps makes one too many or one too late.
fn is_due(scrub: &Scrub, period: Option<Duration>) -> bool {
    let Some(period) = period else { return false };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let since = (now.as_secs() as i64).saturating_sub(scrub.begun.secs);
    scrub.pass == 0 || since < 0 || since.unsigned_abs() >= period.as_secs()
}

impl Daemon {
    /// How the scrub is; with `now` a pass begins, if none is under way.
    pub fn scrub(&self, now: bool) -> Answer<ScrubRow> {
        let scrub = if now { self.store.scrub_begin() } else { self.store.scrub_status() };
        let repaired = self.replication().map_or(0, |replication| replication.repaired());
        Ok(ScrubRow { repaired, ..row(&scrub.map_err(about("scrub"))?) })
    }
}

fn row(scrub: &Scrub) -> ScrubRow {
    let time = |at| units::show_time(at);
    ScrubRow {
        pass: scrub.pass,
        begun: (scrub.pass > 0).then(|| time(scrub.begun)),
        ended: scrub.ended.map(time),
        part: match scrub.part {
            Part::Trees => Some("trees"),
            Part::Objects => Some("objects"),
            Part::Payloads => Some("payloads"),
            Part::Journals => Some("journals"),
            Part::Rows => Some("rows"),
            Part::Ended => None,
        }
        .map(str::to_owned),
        things: scrub.things,
        bytes: scrub.bytes,
        found: scrub.found,
        repaired: 0,
        damage: scrub.damage.iter().map(damage).collect(),
    }
}

fn damage(bad: &Bad) -> DamageRow {
    let (kind, name) = match &bad.thing {
        Thing::Tree(hash) => ("tree", hash.to_string()),
        Thing::Object(hash) => ("object", hash.to_string()),
        Thing::Payload(slot, id) => ("payload", format!("slot {slot} transaction {} offset {}", id.txn, id.offset)),
        Thing::Journal(slot) => ("journal", format!("slot {slot}")),
        Thing::Row(table, key) => {
            ("row", format!("{table} {}", key.iter().map(|b| format!("{b:02x}")).collect::<String>()))
        }
    };
    let reader = |r: &vefs::store::scrub::Reader| ReaderRow {
        ve: Id(r.ve),
        ino: r.ino.0,
        path: r.path.as_deref().map(Path::shortened),
    };
    DamageRow {
        kind: kind.to_owned(),
        name,
        detail: bad.detail.clone(),
        since: units::show_time(bad.since),
        readers: bad.readers.iter().map(reader).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_is_due_after_its_period_and_never_without_one() {
        let store = tempfile::tempdir().unwrap();
        let path = store.path().join("s");
        vefs::Store::create(&path).unwrap();
        let store = vefs::Store::open(&path, vefs::Options::default()).unwrap();
        let week = Some(Duration::from_secs(7 * 86_400));
        let first = store.scrub_status().unwrap();
        assert!(is_due(&first, week) && !is_due(&first, None));
        let mut scrub = store.scrub_begin().unwrap();
        while scrub.is_running() {
            scrub = store.scrub_step(1 << 20).unwrap();
        }
        assert!(!is_due(&scrub, week));
        assert!(is_due(&scrub, Some(Duration::ZERO)));
        assert_eq!((row(&scrub).pass, row(&scrub).part, row(&scrub).found), (1, None, 0));
    }
}
