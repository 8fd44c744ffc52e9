//! Disks that broke their promises: a write that went elsewhere, a flushed write that is not there, a flipped bit.
//!
//! What is demanded: opening or reading answers damage, or the VE stands after an operation that no later valid frame, and no
//! metadata, proves to be older than what was durable (promise G5). Nothing else may be read (G24), and a disk that is refused is left
//! as it was.

use std::collections::BTreeMap;
use std::sync::Arc;

use vefs::Error;
use vefs::format::record;
use vefs::format::segment::{DATA_START, SegmentHeader};
use vefs::ids::VeId;
use vefs::meta::{MemoryMeta, MetaStore, Table, rows};
use vefs::storage::memory::{Content, MemStorage};

use super::check::{Depth, Tally, batches};
use super::probe::Probe;
use super::record::{Recording, demands};
use super::world::{VE, open};
use crate::crash::Classes;

/// Every state of the classes of damage.
pub fn sweep(run: &Recording, depth: Depth) -> Result<Tally, String> {
    let demands = demands(&run.log);
    let mut tally = Tally::default();
    for state in run
        .recorder
        .states(&run.log)
        .classes(Classes::DAMAGE)
        .seed(depth.seed)
        .per_class(depth.per_class.unwrap_or(usize::MAX))
    {
        let demand = demands[state.at];
        for batch in batches(demand) {
            let found = one(run, &state.storage, &run.metas[batch], demand.issued);
            let found = found.map_err(|e| {
                format!("{}\n  {:?}, {demand:?}, metadata after batch {batch}\n  {e}", state.description, state.class)
            })?;
            tally.recovered += 1;
            tally.damaged += u64::from(found);
        }
    }
    Ok(tally)
}

/// The end of a run with one bit of one file changed.
pub fn flip(run: &Recording, path: &str, byte: u64, bit: u32) -> Result<Tally, String> {
    let storage = run.recorder.now();
    let files = storage.files();
    let Some(content) = files.get(path) else { return Err(format!("{path} is not there")) };
    let mut changed = Content::clone(content);
    let mut value = [0];
    if !changed.read_at(&mut value, byte) {
        return Err(format!("{path} has no byte {byte}"));
    }
    value[0] ^= 1 << (bit % 8);
    changed.write_at(&value, byte);
    let damaged =
        files.iter().map(|(p, c)| (p.clone(), if &**p == path { Arc::new(changed.clone()) } else { c.clone() }));
    let disk = MemStorage::from_files(damaged, storage.folders());
    let last = run.models.len() - 1;
    let newest = run.metas.last().ok_or("no metadata")?;
    let found = one(run, &disk, newest, last).map_err(|e| format!("bit {bit} of byte {byte} of {path}: {e}"))?;
    Ok(Tally { recovered: 1, damaged: u64::from(found), ..Tally::default() })
}

/// Opens one disk; whether it said that there is damage.
fn one(run: &Recording, disk: &MemStorage, meta: &MemoryMeta, issued: usize) -> Result<bool, String> {
    let before = bytes(disk);
    let storage = Arc::new(disk.snapshot());
    let opened = open(&run.base, storage.clone(), Arc::new(meta.after_crash()), 0xDA4A_6E00_0000_0001);
    let opened = opened.and_then(|(store, _)| Ok((store.ve(VE)?, store)));
    let (ve, _store) = match opened {
        Ok(opened) => opened,
        Err(Error::Damage { .. }) if bytes(&storage) == before => return Ok(true),
        Err(e @ Error::Damage { .. }) => {
            let after = bytes(&storage);
            let other: Vec<_> = before.iter().filter(|(path, bytes)| after.get(*path) != Some(*bytes)).collect();
            let paths: Vec<_> = other.iter().map(|(path, _)| *path).collect();
            return Err(format!("refused, and the disk was changed ({paths:?}): {e}"));
        }
        Err(e) => return Err(format!("neither opened nor called damaged: {e:?}")),
    };
    let promised = promised(disk).max(published(meta)?);
    let begun = &run.ends[..=issued.min(run.models.len() - 1)];
    let low = begun.iter().rposition(|end| *end <= promised).unwrap_or(0);
    let mut first = None;
    for k in (0..=issued.min(run.models.len() - 1)).rev() {
        match Probe::new(&ve, &run.models[k]).run() {
            (Ok(()), damaged) if k >= low => return Ok(damaged > 0),
            (Ok(()), _) => return Err(format!("the state after {k}, though {low} is proven to be durable")),
            (Err(e), _) => first = first.or(Some(format!("not the state after {k}: {e}"))),
        }
    }
    Err(format!("a state that never was; {}", first.unwrap_or_default()))
}

/// All files but those in `staging/`, which nothing names and every start removes.
fn bytes(storage: &MemStorage) -> BTreeMap<Arc<str>, Vec<u8>> {
    let files = storage.files().into_iter().filter(|(path, _)| !path.starts_with("staging/"));
    files.map(|(path, content)| (path, content.to_vec())).collect()
}

/// What the metadata proves to have been durable.
fn published(meta: &MemoryMeta) -> Result<u64, String> {
    match meta.get(Table::System, &rows::head(VE)).map_err(|e| e.to_string())? {
        None => Ok(0),
        Some(row) => rows::head_row(&row).map(|head| head.journal).map_err(|e| e.to_string()),
    }
}

/// The largest position that a whole valid frame of any segment says was durable.
pub fn promised(disk: &MemStorage) -> u64 {
    let folder = vefs::journal::folder(VeId(1));
    let mut most = 0;
    for (_, content) in disk.files().iter().filter(|(path, _)| path.starts_with(&folder)) {
        let bytes = content.to_vec();
        let Ok(header) = SegmentHeader::parse(&bytes) else { continue };
        for at in (DATA_START as usize..bytes.len()).step_by(record::ALIGN as usize) {
            if bytes[at..].starts_with(&record::MAGIC.to_le_bytes())
                && let Ok(frame) = record::parse(&bytes[at..], header.incarnation)
            {
                most = most.max(frame.header.synced_upto);
            }
        }
    }
    most
}
