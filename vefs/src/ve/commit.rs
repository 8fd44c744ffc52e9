//! Sealing transactions and making them durable.
//!
//! A flush has a leader, whom the VE's gate chooses: he collects everything that is not durable, and flushes it outside the lock.

use std::sync::Arc;

use super::feed::Sealed;
use super::gate::Turn;
use super::{Open, State, Ve};
use crate::change::Seal;
use crate::codec;
use crate::content::extent_file;
use crate::error::Result;
use crate::format::record::FrameKind;
use crate::ids::Hash;
use crate::journal;
use crate::meta::rows::TxnRow;
use crate::storage::{File, Storage};
use crate::store::{Shared, distrust};

/// Everything that one flush of a VE covers.
pub(crate) struct FlushJob {
    files: Option<extent_file::Flush>,
    journal: Option<journal::Flush>,
}

impl FlushJob {
    /// Does it, file by file.
    pub fn run(&self, storage: &dyn Storage) -> std::io::Result<()> {
        let (files, dirs) = self.parts();
        for file in files {
            file.sync()?;
        }
        for dir in dirs {
            storage.sync_dir(dir)?;
        }
        Ok(())
    }

    fn parts(&self) -> (impl Iterator<Item = &Arc<dyn File>>, impl Iterator<Item = &String>) {
        let files = self.files.iter().flat_map(|f| &f.files).chain(self.journal.iter().flat_map(|j| &j.files));
        let dirs = self.files.iter().flat_map(|f| &f.dir).chain(self.journal.iter().flat_map(|j| &j.dir));
        (files, dirs)
    }
}

impl State {
    /// Ends the open transaction: its state is a version from now on. Nothing happens when it has no records.
    pub fn seal(&mut self, shared: &Shared) -> Result<()> {
        if self.open.records == 0 {
            return Ok(());
        }
        self.check_writer()?;
        self.journal.check()?;
        let mut payloads = Vec::with_capacity(self.open.pending.len());
        for pending in &self.open.pending {
            match pending.get() {
                Ok(hash) => payloads.push(hash),
                // What was just written does not read back: the disk cannot be trusted with more.
                Err(e) => return Err(self.journal.poison(format!("reading a payload back: {e}"))),
            }
        }
        // Version time never goes back, whatever the clock does.
        let time = self.head.time.max(shared.clock.wall());
        let chain = chain_hash(&self.open, &payloads, time, self.epoch);
        let seal = Seal { records: self.open.records, time, payloads, chain };
        let body = codec::encode(&seal);
        let written = self.journal.append(FrameKind::Seal, self.open.txn, self.epoch, &body, &[], &[])?;
        self.sealed(&seal, self.epoch, self.head.journal, written.end, self.open.payload);
        Ok(())
    }

    /// Takes over a seal that is in the journal up to `end`, of a transaction that begins at `begin` and has so many bytes of payload.
    pub fn sealed(&mut self, seal: &Seal, epoch: crate::ids::Epoch, begin: u64, end: u64, payload: u64) {
        let txn = self.open.txn;
        let (previous, chain) = (self.head.chain, seal.chain);
        self.index.push(Sealed { txn, epoch, chain, previous, begin, end, volume: 0 }, payload);
        self.head.epoch = epoch;
        let row = TxnRow { time: seal.time, chain: seal.chain, epoch };
        self.tables.active.txns.push((txn, row));
        self.head.txn = txn;
        self.head.chain = seal.chain;
        self.head.time = seal.time;
        self.head.journal = end;
        self.head.seq = self.journal.seq();
        self.head.bytes = self.tables.usage.bytes;
        self.head.inodes = self.tables.usage.inodes;
        self.head.next_ino = self.tables.usage.next_ino;
        self.open = Open::after(seal.chain, txn);
    }

    /// Inline payload bytes that publishing has yet to copy: what this VE holds of the store's space.
    pub fn inline(&self) -> u64 {
        self.tables.active.inline + self.tables.frozen.as_ref().map_or(0, |f| f.inline)
    }

    /// Whether everything that was written is durable; an error when nothing will be any more.
    pub fn is_durable(&self) -> Result<bool> {
        self.journal.check()?;
        Ok(self.journal.durable() == self.journal.position() && self.files.durable() == self.files.appended())
    }

    /// What is not durable yet; the caller has to flush it, then call [`State::flushed`].
    pub fn flush_job(&mut self) -> Option<FlushJob> {
        let job = FlushJob { files: self.files.flush_wanted(), journal: self.journal.flush_wanted() };
        (job.files.is_some() || job.journal.is_some()).then_some(job)
    }

    /// The flush ended.
    pub fn flushed(&mut self, job: &FlushJob, result: std::io::Result<()>) -> Result<()> {
        match result {
            Ok(()) => {
                if let Some(f) = &job.files {
                    self.files.flushed(f);
                }
                if let Some(j) = &job.journal {
                    self.journal.flushed(j);
                }
                Ok(())
            }
            Err(e) => Err(self.journal.poison_flush(format!("flushing: {e}"))),
        }
    }
}

/// The chain hash after a transaction: over the hash before it, its record bodies, and what the seal adds.
pub(crate) fn chain_hash(
    open: &Open,
    payloads: &[Hash],
    time: crate::clock::Timestamp,
    epoch: crate::ids::Epoch,
) -> Hash {
    let mut h = open.hasher.clone();
    h.update(b"seal");
    h.update(&open.txn.0.to_le_bytes());
    h.update(&epoch.0.to_le_bytes());
    h.update(&time.secs.to_le_bytes());
    h.update(&time.nanos.to_le_bytes());
    for p in payloads {
        h.update(&p.0);
    }
    Hash(*h.finalize().as_bytes())
}

impl Ve {
    /// Whether [`Ve::sync`] has nothing to do.
    pub(crate) fn is_durable(&self) -> Result<bool> {
        self.state.lock().is_durable()
    }

    /// Makes everything that was answered before this call durable (fsync(2), promise G1). Does not end the transaction.
    pub fn sync(&self) -> Result<()> {
        loop {
            if self.is_durable()? {
                return Ok(());
            }
            match self.gate.enter() {
                Turn::Served => return Ok(()),
                Turn::Failed => {}
                Turn::Lead(lead) => {
                    self.lead_flush()?;
                    lead.done();
                    return Ok(());
                }
            }
        }
    }

    /// Flushes everything up to now.
    fn lead_flush(&self) -> Result<()> {
        let job = {
            let mut s = self.state.lock();
            s.journal.check()?;
            s.flush_job()
        };
        let Some(job) = job else { return Ok(()) };
        let result = job.run(&*self.shared.storage);
        self.end_flush(&job, result)
    }

    /// Flushes what a poisoned VE wrote before its error: opened anew it takes all that it reads for durable, and whoever is told so must not rely on
    /// the page cache (promises G3, G11). Refused after a failed flush, which a later one would not hear of.
    pub(crate) fn flush_poisoned(&self) -> Result<()> {
        loop {
            // One flush of the same files at a time, as in [`Ve::sync`].
            let turn = self.gate.enter();
            let job = {
                let mut s = self.state.lock();
                if s.journal.has_failed_flush() {
                    return s.journal.check();
                }
                s.flush_job()
            };
            let Turn::Lead(lead) = turn else { continue };
            if let Some(job) = job {
                let result = job.run(&*self.shared.storage);
                self.end_flush(&job, result)?;
            }
            lead.done();
            return Ok(());
        }
    }

    /// Ends the open transaction, so that its state is a version. Not durable before [`Ve::sync`].
    pub fn seal(&self) -> Result<()> {
        self.make_hashes();
        self.state.lock().seal(&self.shared)
    }

    /// Makes the hashes that the open transaction still lacks, so that whoever seals it next does not do so under the lock.
    pub(crate) fn make_hashes(&self) {
        let late: Vec<_> = self.state.lock().open.pending.iter().filter(|p| !p.is_made()).cloned().collect();
        for pending in late {
            // An error is told to whoever seals.
            let _ = pending.get();
        }
    }

    /// Ends the open transaction and makes it durable.
    pub fn commit(&self) -> Result<()> {
        self.seal()?;
        self.sync()
    }

    /// Begins a flush that somebody else does for many VEs at once: seals, and gives the job. Nobody waits for it: an fsync that comes
    /// meanwhile leads a flush of its own, beside it.
    pub(crate) fn begin_shared_flush(&self) -> Result<Option<FlushJob>> {
        self.make_hashes();
        let mut s = self.state.lock();
        s.seal(&self.shared)?;
        Ok(s.flush_job())
    }

    /// Ends such a flush.
    pub(crate) fn end_shared_flush(&self, job: &FlushJob, result: std::io::Result<()>) -> Result<()> {
        self.end_flush(job, result)
    }

    fn end_flush(&self, job: &FlushJob, result: std::io::Result<()>) -> Result<()> {
        if result.is_err() {
            distrust::mark(&*self.shared.storage);
        }
        let mut s = self.state.lock();
        // A seal that was not durable may be so now. It need not be the last one: then more are on their way.
        let sealed = s.journal.durable() < s.head.journal;
        s.flushed(job, result)?;
        let watcher = s.hooks.watcher.clone().filter(|_| sealed);
        drop(s);
        if let Some(watcher) = watcher {
            watcher.durable();
        }
        Ok(())
    }
}

/// An I/O error that can be told to many.
pub(crate) fn same_error(e: &std::io::Error) -> std::io::Error {
    std::io::Error::new(e.kind(), e.to_string())
}
