//! The metadata store on RocksDB: one column family a table, no write-ahead log, atomic flush over all families, so that
//! what survives a crash is the state after some batch (measured: aborts land exactly on the applied marker).

use std::path::{Path, PathBuf};

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedOptions, BottommostLevelCompaction, Cache, ColumnFamily, ColumnFamilyDescriptor, CompactOptions, DB,
    FlushOptions, Options, ReadOptions, ReadTier, WriteBatch, WriteOptions,
};

use super::{Batch, MetaError, MetaStore, Row, Scan, Table, Visit};

/// Bytes of block cache for the whole node.
const BLOCK_CACHE: usize = 64 << 20;
/// Bytes of one memtable; RocksDB keeps at most three a family.
const MEMTABLE: usize = 32 << 20;

/// A RocksDB in a folder.
pub struct RocksMeta {
    db: DB,
    path: PathBuf,
}

impl RocksMeta {
    /// Opens the store in `path`, creating it when there is none.
    pub fn open(path: &Path) -> Result<RocksMeta, MetaError> {
        let cache = Cache::new_lru_cache(BLOCK_CACHE);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_atomic_flush(true);
        options.set_max_background_jobs(2);
        options.set_bytes_per_sync(1 << 20);
        options.set_keep_log_file_num(4);
        options.set_max_open_files(512);
        options.set_paranoid_checks(true);
        let families = Table::ALL.map(|t| ColumnFamilyDescriptor::new(t.name(), family_options(t, &cache)));
        let db = DB::open_cf_descriptors(&options, path, families)?;
        Ok(RocksMeta { db, path: path.to_owned() })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Rewrites every table without what was deleted, so that its space comes back.
    pub fn compact(&self) -> Result<(), MetaError> {
        let mut options = CompactOptions::default();
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        for table in Table::ALL {
            self.db.compact_range_cf_opt(self.family(table)?, None::<&[u8]>, None::<&[u8]>, &options);
        }
        Ok(())
    }

    /// Bytes of its live table files.
    pub fn live_bytes(&self) -> u64 {
        Table::ALL
            .iter()
            .filter_map(|t| self.db.cf_handle(t.name()))
            .filter_map(|cf| self.db.property_int_value_cf(cf, "rocksdb.live-sst-files-size").ok().flatten())
            .sum()
    }

    fn family(&self, table: Table) -> Result<&ColumnFamily, MetaError> {
        self.db
            .cf_handle(table.name())
            .ok_or_else(|| MetaError::Damaged { table: table.name(), detail: "column family missing".into() })
    }
}

fn family_options(table: Table, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_format_version(5);
    if matches!(table, Table::Current | Table::System) {
        // Most look-ups in an old directory are for names that are not there.
        blocks.set_bloom_filter(10.0, false);
    }
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size(MEMTABLE);
    options.set_max_write_buffer_number(3);
    if matches!(table, Table::Current) {
        options.set_memtable_prefix_bloom_ratio(0.05);
        options.set_memtable_whole_key_filtering(true);
    }
    options.set_level_compaction_dynamic_level_bytes(true);
    options
}

impl MetaStore for RocksMeta {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, MetaError> {
        Ok(self.db.get_cf(self.family(table)?, key)?)
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), MetaError> {
        if from >= to {
            return Ok(());
        }
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to.to_vec());
        let mut rows = self.db.raw_iterator_cf_opt(self.family(table)?, options);
        rows.seek(from);
        while let Some((k, v)) = rows.item() {
            if visit(k, v) == Scan::Stop {
                return Ok(());
            }
            rows.next();
        }
        Ok(rows.status()?)
    }

    fn floor(&self, table: Table, from: &[u8], at: &[u8]) -> Result<Option<Row>, MetaError> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from.to_vec());
        let mut rows = self.db.raw_iterator_cf_opt(self.family(table)?, options);
        rows.seek_for_prev(at);
        match rows.item() {
            None => Ok(rows.status().map(|()| None)?),
            Some((k, v)) => Ok(Some((k.to_vec(), v.to_vec()))),
        }
    }

    fn write(&self, batch: Batch) -> Result<(), MetaError> {
        let mut wb = WriteBatch::with_capacity_bytes(batch.bytes + batch.rows.len() * 8);
        for (table, key, value) in &batch.rows {
            let cf = self.family(*table)?;
            match value {
                Some(v) => wb.put_cf(cf, key, v),
                None => wb.delete_cf(cf, key),
            }
        }
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        Ok(self.db.write_opt(wb, &options)?)
    }

    fn persist(&self) -> Result<(), MetaError> {
        let mut families = Vec::with_capacity(Table::ALL.len());
        for table in Table::ALL {
            families.push(self.family(table)?);
        }
        let mut options = FlushOptions::default();
        options.set_wait(true);
        Ok(self.db.flush_cfs_opt(&families, &options)?)
    }

    fn get_persisted(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, MetaError> {
        let mut options = ReadOptions::default();
        options.set_read_tier(ReadTier::Persisted);
        Ok(self.db.get_cf_opt(self.family(table)?, key, &options)?)
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), MetaError> {
        self.persist()?;
        if let Some(parent) = dir.parent() {
            std::fs::create_dir_all(parent)?;
        }
        Ok(Checkpoint::new(&self.db)?.create_checkpoint(dir)?)
    }
}
