//! Publishing: what the overlay holds goes to the metadata store, small payloads leave the journal, the journal shrinks.
//!
//! Crash points: before the batch, nothing happened but unnamed bytes in an extent file; after it, a replay begins behind what
//! it covers. The batch may become durable at any moment after it was written, so all it names is durable before.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use super::{Frozen, State, Ve};
use crate::codec;
use crate::error::{Error, Result};
use crate::journal;
use crate::meta::{Table, rows};
use crate::state::publish;

impl State {
    /// Freezes the overlay, so that new changes go to a new one; false when there is nothing to freeze or something still is. Only
    /// between transactions.
    pub fn freeze(&mut self) -> bool {
        if self.open.records > 0 || self.tables.frozen.is_some() || self.tables.active.is_empty() {
            return false;
        }
        let next = std::mem::take(&mut self.tables.spare);
        let active = std::mem::replace(&mut self.tables.active, next);
        self.tables.frozen = Some(Arc::new(active));
        self.frozen_head = Some(Frozen {
            head: self.head.clone(),
            fresh_from: self.tables.fresh_from,
            answered: self.answered.clone(),
        });
        self.tables.fresh_from = self.tables.usage.next_ino;
        true
    }
}

/// How long it takes until it is looked again whether somebody publishes.
const AGAIN: Duration = Duration::from_millis(1);

/// Nobody publishes for as long as this lives.
pub(crate) struct Collecting<'a> {
    ve: &'a Ve,
    _one: MutexGuard<'a, ()>,
}

impl Drop for Collecting<'_> {
    fn drop(&mut self) {
        // Before the lock is let go.
        self.ve.collecting.store(false, Ordering::Release);
    }
}

impl Ve {
    /// Publishes everything up to now: what is frozen already, then what is active. What others write meanwhile can wait: whoever writes
    /// without a pause must not keep this from ending.
    pub fn publish(&self) -> Result<()> {
        let _one = self.publishing.lock();
        self.publish_now()
    }

    /// As [`Ve::publish`], unless its history is being collected: that takes as long as the VE's owner made much of it, and others' journals wait for whoever
    /// calls this. Another publication is waited for, as a start replays what is not published.
    pub(crate) fn publish_unless_collected(&self) -> Result<()> {
        loop {
            if let Some(_one) = self.publishing.try_lock() {
                return self.publish_now();
            }
            if self.collecting.load(Ordering::Acquire) {
                return Ok(());
            }
            std::thread::sleep(AGAIN);
        }
    }

    /// Keeps everybody from publishing, and whoever would wait for that knows that it may take long.
    pub(crate) fn begin_collecting(&self) -> Collecting<'_> {
        let one = self.publishing.lock();
        self.collecting.store(true, Ordering::Release);
        Collecting { ve: self, _one: one }
    }

    /// The caller holds `publishing`.
    fn publish_now(&self) -> Result<()> {
        self.publish_frozen()?;
        self.make_hashes();
        {
            let mut s = self.state.lock();
            // What a writer has frozen since holds everything up to now, too.
            if s.tables.frozen.is_none() {
                s.seal(&self.shared)?;
                if !s.freeze() {
                    return Ok(());
                }
            }
        }
        self.publish_frozen()
    }

    /// Publishes what is frozen, if anything is. The caller holds `publishing`.
    pub(crate) fn publish_frozen(&self) -> Result<()> {
        let (overlay, Frozen { head, fresh_from, answered }) = {
            let s = self.state.lock();
            let frozen = match (&s.tables.frozen, &s.frozen_head) {
                (Some(overlay), Some(frozen)) => (overlay.clone(), frozen.clone()),
                _ => return Ok(()),
            };
            // Poisoned, it may have been opened anew or replaced: then its files and rows are another's.
            s.journal.check()?;
            frozen
        };
        let moved = publish::move_inline(&overlay, &mut |bytes| self.state.lock().files.append_packed(bytes))?;
        self.sync()?;
        let target = publish::Target {
            ve: self.slot,
            meta: &*self.shared.meta,
            base: &self.state.lock().tables.base.clone(),
            fresh_from,
        };
        // A garbage collection since the freeze may have corrected the figure, and has forgotten what is below the floor.
        let (history, floor) = {
            let s = self.state.lock();
            (s.head.history, s.head.floor)
        };
        let before = rows::Head { history, floor, ..head };
        let (mut batch, after) = publish::rows(&target, &overlay, &moved, before)?;
        batch.put(Table::System, rows::answers(self.slot), codec::encode(&answered.to_row()));
        self.state.lock().cursor_rows(&mut batch);
        self.shared.meta.write(batch)?;
        let mut s = self.state.lock();
        s.head.history = after.history;
        s.tables.frozen = None;
        self.shared.space.release(overlay.inline);
        s.tables.found.published(&overlay);
        s.tables.places.clear();
        s.frozen_head = None;
        drop(s);
        // Outside the lock: these are many small pieces of memory.
        if let Ok(overlay) = Arc::try_unwrap(overlay) {
            let spare = overlay.emptied();
            self.state.lock().tables.spare = spare;
        }
        Ok(())
    }

    /// Publishes what was frozen by a writer, if anything was.
    pub(crate) fn publish_pending(&self) -> Result<()> {
        let _one = self.publishing.lock();
        self.publish_frozen()
    }

    /// Ends the present journal segment: the next frame begins a new one. Gives the position and the order of that next segment,
    /// or nothing when something is not published.
    pub(crate) fn end_segment(&self) -> Option<(u64, u64)> {
        let mut s = self.state.lock();
        let all = s.open.records == 0 && s.tables.active.is_empty() && s.tables.frozen.is_none();
        let durable = s.journal.durable() == s.journal.position();
        (all && durable).then(|| s.journal.end_segment())
    }

    /// Bytes of journal frames written since this was asked last, at the tick before. A VE that does little gives back what it keeps for more.
    pub(crate) fn take_written(&self) -> u64 {
        let mut s = self.state.lock();
        self.shared.given_back.fetch_add(s.tick_quiet() as u64, Ordering::Relaxed);
        std::mem::take(&mut s.written)
    }

    /// Keeps a zero-filled journal segment ready. A full disk is no error here: the next roll-over tells. The zeros are written
    /// without the lock: they are up to 64 MiB.
    pub(crate) fn prepare_spare(&self) {
        let Some((path, capacity)) = self.state.lock().journal.spare_wanted() else { return };
        let storage = &*self.shared.storage;
        // Flushed here, name and all, or the first fsync after the roll-over would have to wait for that.
        let flush = |file: &dyn crate::storage::File| {
            file.sync()?;
            storage.sync_dir(&journal::folder(self.slot))
        };
        let made = journal::create_segment(storage, &path, capacity)
            .and_then(|file| {
                let flushed = flush(&*file).map_err(Error::io("flushing journal segment", path.clone()));
                if flushed.is_err() {
                    let _ = storage.remove(&path);
                }
                flushed.map(|()| file)
            })
            .and_then(|file| self.state.lock().journal.take_spare(path, file, capacity));
        if let Err(e) = made {
            self.state.lock().journal.no_spare();
            tracing::warn!(ve = %self.id, error = %e, "no spare journal segment");
            // Any other error says nothing about space: writers of other VEs must not be refused for it.
            if matches!(e, Error::NoSpace { .. }) {
                self.shared.space.set_tight(true);
            }
        }
    }

    /// Where the metadata store says the journal may begin, as far as that is durable.
    pub(crate) fn persisted_journal(&self) -> Result<u64> {
        match self.shared.meta.get_persisted(Table::System, &rows::head(self.slot))? {
            None => Ok(0),
            Some(row) => Ok(rows::head_row(&row)?.journal),
        }
    }

    /// Gives back journal segments that end before `position`.
    pub(crate) fn recycle_journal(&self, position: u64) -> Result<()> {
        // What a start will find: a cursor that has moved on since its row was written needs what is behind the row's position. The rows are read
        // without the lock; they only move on.
        let nodes: Vec<[u8; 16]> = {
            let mut s = self.state.lock();
            s.limit_cursors(self.shared.options.cursor_bytes);
            s.holding().collect()
        };
        let held = self.stored_floor(&nodes)?;
        let mut s = self.state.lock();
        // A cursor that came meanwhile may hold all there is.
        if s.holding().any(|node| !nodes.contains(&node)) {
            return Ok(());
        }
        s.journal.recycle(held.map_or(position, |h| h.min(position)))
    }
}
