//! The commit tick: everything that is dirty is sealed and made durable, with one flush where that is cheaper; then what has come due is done.

use std::sync::Arc;

use super::Store;
use crate::error::{Error, Result};
use crate::ve::Ve;
use crate::ve::commit::same_error;

impl Store {
    /// The commit tick: seals and flushes every dirty VE, with one flush of the file system when they are many; publishes,
    /// persists and makes checkpoints when enough has come together; looks at free space. Called about once a second, five times as
    /// often while a replicated VE is dirty.
    pub fn tick(&self) -> Result<()> {
        self.shared.measure_space()?;
        let mut written = 0;
        let mut jobs = Vec::new();
        for ve in self.opened() {
            if ve.read_only_reason().is_some() {
                continue;
            }
            written += ve.take_written();
            match ve.begin_shared_flush() {
                Ok(Some(job)) => jobs.push((ve, job)),
                Ok(None) => {}
                Err(e) => tracing::error!(ve = %ve.id(), error = %e, "commit tick"),
            }
        }
        self.flush(&jobs)?;
        for ve in self.opened() {
            ve.prepare_spare();
        }
        let (persist, checkpoint) = {
            let mut c = self.checkpoint_state.lock();
            c.since_persist += written;
            c.since_checkpoint += written;
            let o = &self.shared.options;
            (c.since_persist >= o.persist_bytes, c.since_checkpoint >= o.checkpoint_bytes)
        };
        if checkpoint {
            self.checkpoint_as(false)
        } else if persist {
            self.publish_what_can_be(false);
            self.persist()
        } else {
            Ok(())
        }
    }

    /// As [`Store::tick`], for the VEs that somebody follows: they are sealed and flushed five times as often, so that what a replica
    /// has is fresh.
    pub fn tick_followed(&self) -> Result<()> {
        let mut jobs = Vec::new();
        for ve in self.opened() {
            if !ve.is_followed() || ve.read_only_reason().is_some() || !ve.is_dirty() {
                continue;
            }
            match ve.begin_shared_flush() {
                Ok(Some(job)) => jobs.push((ve, job)),
                Ok(None) => {}
                Err(e) => tracing::error!(ve = %ve.id(), error = %e, "commit tick of a followed VE"),
            }
        }
        self.flush(&jobs)
    }

    /// Makes what the jobs name durable.
    fn flush(&self, jobs: &[(Arc<Ve>, crate::ve::commit::FlushJob)]) -> Result<()> {
        let storage = &*self.shared.storage;
        if jobs.len() > self.shared.options.flush_files_max {
            let result = storage.sync_all();
            for (ve, job) in jobs {
                let copy = result.as_ref().copied().map_err(same_error);
                // A failed flush poisons each journal; the next one's is told as well.
                let _ = ve.end_shared_flush(job, copy);
            }
            return result.map_err(Error::io("flushing", "store"));
        }
        for (ve, _) in jobs {
            // Through the gate: a flush of the same files beside one that fails might not hear of it. The error poisons the journal.
            let _ = ve.sync();
        }
        Ok(())
    }
}
