//! The metadata store: derived state on disk, behind a narrow trait so that RocksDB and a memory stand-in are the same
//! to everything above. What it holds can be thrown away and rebuilt from a checkpoint and the journals (promise G32).
//!
//! Invariants: a [`Batch`] is written whole or not at all; what is readable after a crash is the state after some batch,
//! not older than the last [`MetaStore::persist`]. Only transactions that are durable in their journal are ever written
//! here, so it is never ahead of the ground state.

mod memory;
mod rocks;
pub mod rows;

use std::path::Path;

pub use memory::MemoryMeta;
pub use rocks::RocksMeta;

/// A part of the metadata store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// VE ‖ logical key → (transaction, value): the current state.
    Current,
    /// VE ‖ logical key ‖ !birth → (death, value): what was current from `birth` until `death`.
    History,
    /// VE ‖ transaction ‖ inode → kinds of change: the change index.
    Changes,
    /// VE ‖ payload id → place: where payload bytes lie.
    Places,
    /// Heads of VEs, rows of transactions, markers.
    System,
}

impl Table {
    /// All tables.
    pub const ALL: [Table; 5] = [Table::Current, Table::History, Table::Changes, Table::Places, Table::System];

    /// Its name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Table::Current => "current",
            Table::History => "history",
            Table::Changes => "changes",
            Table::Places => "places",
            Table::System => "system",
        }
    }
}

/// A failure of the metadata store.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// RocksDB said so.
    #[error(transparent)]
    Rocks(#[from] rocksdb::Error),
    /// A file operation around it failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A row of a format this program does not know (promise G28).
    #[error("row in {table} is of encoding format {found}, this program knows {known}")]
    Format {
        /// Where.
        table: &'static str,
        /// The format number met.
        found: u8,
        /// The one known here.
        known: u8,
    },
    /// What it returned is impossible.
    #[error("damaged row in {table}: {detail}")]
    Damaged {
        /// Where.
        table: &'static str,
        /// What.
        detail: String,
    },
}

/// Changes that are written together.
#[derive(Debug, Default)]
pub struct Batch {
    /// In this order; `None` deletes.
    pub rows: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
    /// Bytes of keys and values, for bounding it.
    pub bytes: usize,
}

impl Batch {
    /// Sets a row.
    pub fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.bytes += key.len() + value.len();
        self.rows.push((table, key, Some(value)));
    }

    /// Removes a row.
    pub fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.bytes += key.len();
        self.rows.push((table, key, None));
    }
}

/// What a scan's callback wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// The next row.
    Next,
    /// No more rows.
    Stop,
}

/// Receives the rows of a scan.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Scan + 'a;

/// A row's key and value.
pub type Row = (Vec<u8>, Vec<u8>);

/// An ordered store of rows in tables.
pub trait MetaStore: Send + Sync + 'static {
    /// The value of a row.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, MetaError>;

    /// Visits the rows with `from ≤ key < to` in order.
    fn scan(&self, table: Table, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), MetaError>;

    /// The last row with `from ≤ key ≤ at`.
    fn floor(&self, table: Table, from: &[u8], at: &[u8]) -> Result<Option<Row>, MetaError>;

    /// Writes a batch whole. Readable at once, durable after [`MetaStore::persist`] or when the store thinks fit.
    fn write(&self, batch: Batch) -> Result<(), MetaError>;

    /// Makes everything written so far durable.
    fn persist(&self) -> Result<(), MetaError>;

    /// The value of a row in what is durable already.
    fn get_persisted(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, MetaError>;

    /// Writes a durable copy of everything into a new folder `dir`.
    fn checkpoint(&self, dir: &Path) -> Result<(), MetaError>;
}

/// The smallest key greater than every key that starts with `prefix`; `None` when there is none.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < 0xff {
            *last += 1;
            return Some(end);
        }
        end.pop();
    }
    None
}
