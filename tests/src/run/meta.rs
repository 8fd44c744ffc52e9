//! A metadata store that keeps what is durable and every batch since apart, so that a crash may leave the state after any
//! of them: what the trait promises, and no more.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use vefs::meta::{Batch, MetaError, MetaStore, Row, Scan, Table, Visit};

use super::fuse::Fuse;

type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;
type Written = Vec<(Table, Vec<u8>, Option<Vec<u8>>)>;

#[derive(Default)]
struct State {
    live: Rows,
    durable: Rows,
    since: Vec<Written>,
    checkpoint: Rows,
}

/// A metadata store in memory with a history.
pub struct CrashMeta {
    state: Mutex<State>,
    fuse: Arc<Fuse>,
}

fn carry_out(rows: &mut Rows, batch: Written) {
    for (table, key, value) in batch {
        match value {
            Some(v) => rows.insert((table, key), v),
            None => rows.remove(&(table, key)),
        };
    }
}

impl CrashMeta {
    /// An empty one.
    pub fn new(fuse: Arc<Fuse>) -> CrashMeta {
        CrashMeta { state: Mutex::default(), fuse }
    }

    /// Batches that are not durable.
    pub fn pending(&self) -> usize {
        self.state.lock().since.len()
    }

    /// What a crash leaves that was so late that `keep` of the pending batches had become durable.
    pub fn after_crash(&self, keep: usize) -> CrashMeta {
        let s = self.state.lock();
        let mut live = s.durable.clone();
        s.since.iter().take(keep).for_each(|b| carry_out(&mut live, b.clone()));
        let state = State { durable: live.clone(), live, since: Vec::new(), checkpoint: s.checkpoint.clone() };
        CrashMeta { state: Mutex::new(state), fuse: self.fuse.clone() }
    }

    /// A store that holds what the last checkpoint holds; empty when there is none.
    pub fn from_checkpoint(&self) -> CrashMeta {
        let rows = self.state.lock().checkpoint.clone();
        let state = State { live: rows.clone(), durable: rows.clone(), since: Vec::new(), checkpoint: rows };
        CrashMeta { state: Mutex::new(state), fuse: self.fuse.clone() }
    }

    /// Number of rows, for tests of what grows.
    pub fn rows(&self, table: Table) -> usize {
        self.state.lock().live.range((table, vec![])..).take_while(|((t, _), _)| *t == table).count()
    }
}

impl MetaStore for CrashMeta {
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
        let mut step = 4;
        loop {
            let some: Vec<Row> = {
                let s = self.state.lock();
                let range = s.live.range((lower.clone(), Bound::Excluded(upper.clone())));
                range.take(step).map(|((_, k), v)| (k.clone(), v.clone())).collect()
            };
            step = 64;
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
        self.fuse.burn()?;
        let mut s = self.state.lock();
        carry_out(&mut s.live, batch.rows.clone());
        s.since.push(batch.rows);
        Ok(())
    }

    fn persist(&self) -> Result<(), MetaError> {
        self.fuse.burn()?;
        let s = &mut *self.state.lock();
        for batch in std::mem::take(&mut s.since) {
            carry_out(&mut s.durable, batch);
        }
        Ok(())
    }

    fn get_persisted(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, MetaError> {
        Ok(self.state.lock().durable.get(&(table, key.to_vec())).cloned())
    }

    fn checkpoint(&self, _dir: &Path) -> Result<(), MetaError> {
        self.fuse.burn()?;
        let s = &mut *self.state.lock();
        s.checkpoint = s.live.clone();
        Ok(())
    }
}
