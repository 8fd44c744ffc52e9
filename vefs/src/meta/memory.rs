//! A metadata store in memory, for simulation: it forgets what was not persisted when it is told to crash.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Batch, MetaError, MetaStore, Row, Scan, Table, Visit};

type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// The rows now and the rows that a crash would leave.
#[derive(Default)]
struct State {
    live: Rows,
    durable: Arc<Rows>,
    checkpoints: BTreeMap<std::path::PathBuf, Arc<Rows>>,
}

/// A metadata store in memory.
#[derive(Default)]
pub struct MemoryMeta {
    state: Mutex<State>,
}

impl MemoryMeta {
    /// What would be left after a crash now: everything up to the last persist.
    pub fn after_crash(&self) -> MemoryMeta {
        let s = self.state.lock();
        MemoryMeta {
            state: Mutex::new(State {
                live: (*s.durable).clone(),
                durable: s.durable.clone(),
                checkpoints: s.checkpoints.clone(),
            }),
        }
    }

    /// A store that holds what the checkpoint in `dir` holds; empty when there is none.
    pub fn from_checkpoint(&self, dir: &Path) -> MemoryMeta {
        let s = self.state.lock();
        let rows = s.checkpoints.get(dir).cloned().unwrap_or_default();
        MemoryMeta {
            state: Mutex::new(State { live: (*rows).clone(), durable: rows, checkpoints: s.checkpoints.clone() }),
        }
    }

    /// Number of rows in a table, for tests of what grows.
    pub fn rows(&self, table: Table) -> usize {
        self.state.lock().live.range((table, vec![])..).take_while(|((t, _), _)| *t == table).count()
    }
}

impl MetaStore for MemoryMeta {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, MetaError> {
        Ok(self.state.lock().live.get(&(table, key.to_vec())).cloned())
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), MetaError> {
        if from >= to {
            return Ok(());
        }
        // The callback may come back to this store: rows are fetched a few at a time, outside the lock.
        let mut lower = Bound::Included((table, from.to_vec()));
        let upper = (table, to.to_vec());
        loop {
            let some: Vec<Row> = {
                let s = self.state.lock();
                s.live
                    .range((lower.clone(), Bound::Excluded(upper.clone())))
                    .take(64)
                    .map(|((_, k), v)| (k.clone(), v.clone()))
                    .collect()
            };
            let Some((last, _)) = some.last() else { return Ok(()) };
            lower = Bound::Excluded((table, last.clone()));
            for (k, v) in &some {
                if visit(k, v) == Scan::Stop {
                    return Ok(());
                }
            }
        }
    }

    fn floor(&self, table: Table, from: &[u8], at: &[u8]) -> Result<Option<Row>, MetaError> {
        if from > at {
            return Ok(None);
        }
        let s = self.state.lock();
        let mut range = s.live.range((table, from.to_vec())..=(table, at.to_vec()));
        Ok(range.next_back().map(|((_, k), v)| (k.clone(), v.clone())))
    }

    fn write(&self, batch: Batch) -> Result<(), MetaError> {
        let mut s = self.state.lock();
        for (table, key, value) in batch.rows {
            match value {
                Some(v) => s.live.insert((table, key), v),
                None => s.live.remove(&(table, key)),
            };
        }
        Ok(())
    }

    fn persist(&self) -> Result<(), MetaError> {
        let mut s = self.state.lock();
        s.durable = Arc::new(s.live.clone());
        Ok(())
    }

    fn get_persisted(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, MetaError> {
        Ok(self.state.lock().durable.get(&(table, key.to_vec())).cloned())
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), MetaError> {
        let mut s = self.state.lock();
        let rows = Arc::new(s.live.clone());
        s.checkpoints.insert(dir.to_owned(), rows);
        Ok(())
    }
}
