//! A metadata store that remembers its state after each batch, and writes into the recorder's log when a batch came and when
//! it was persisted.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use vefs::meta::{Batch, MemoryMeta, MetaError, MetaStore, Row, Table, Visit};

use super::Mark;
use crate::crash::Recorder;

/// Where states are kept inside the memory store, beside the checkpoints that the product makes.
const KEPT: &str = "kept";

/// The remembering metadata store.
pub struct RecordedMeta {
    below: Mutex<Arc<MemoryMeta>>,
    tape: Arc<Recorder>,
    /// Index 0 is what was there at the start.
    states: Mutex<Vec<Arc<MemoryMeta>>>,
    /// Whether every batch is durable at once.
    eager: bool,
}

impl RecordedMeta {
    /// Goes on from `start`, all of which counts as durable.
    pub fn new(start: &MemoryMeta, tape: Arc<Recorder>, eager: bool) -> RecordedMeta {
        let states = Mutex::new(vec![Arc::new(start.after_crash())]);
        RecordedMeta { below: Mutex::new(Arc::new(start.after_crash())), tape, states, eager }
    }

    /// The process dies: what was not persisted is forgotten, and what is left is durable.
    pub fn forget(&self) {
        let left = self.below.lock().after_crash();
        *self.below.lock() = Arc::new(left.after_crash());
        self.keep(left);
        self.mark_persisted();
    }

    fn below(&self) -> Arc<MemoryMeta> {
        self.below.lock().clone()
    }

    /// Notes what a crash may leave from now on.
    fn keep(&self, rows: MemoryMeta) {
        let mut states = self.states.lock();
        self.tape.mark(Mark::Batch(states.len()).to_number());
        states.push(Arc::new(rows));
    }

    fn mark_persisted(&self) {
        let last = self.states.lock().len() - 1;
        self.tape.mark(Mark::Persisted(last).to_number());
    }

    /// The states after each batch.
    pub fn states(&self) -> Vec<Arc<MemoryMeta>> {
        self.states.lock().clone()
    }
}

impl MetaStore for RecordedMeta {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, MetaError> {
        self.below().get(table, key)
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), MetaError> {
        self.below().scan(table, from, to, visit)
    }

    fn floor(&self, table: Table, from: &[u8], at: &[u8]) -> Result<Option<Row>, MetaError> {
        self.below().floor(table, from, at)
    }

    fn write(&self, batch: Batch) -> Result<(), MetaError> {
        let below = self.below();
        below.write(batch)?;
        below.checkpoint(Path::new(KEPT))?;
        self.keep(below.from_checkpoint(Path::new(KEPT)));
        if self.eager { self.persist() } else { Ok(()) }
    }

    fn persist(&self) -> Result<(), MetaError> {
        self.below().persist()?;
        self.mark_persisted();
        Ok(())
    }

    fn get_persisted(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, MetaError> {
        self.below().get_persisted(table, key)
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), MetaError> {
        self.persist()?;
        self.below().checkpoint(dir)
    }
}
