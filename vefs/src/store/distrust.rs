//! What memory has of files, and whether it can be believed.
//!
//! A start reads what an earlier run wrote, most of it from the page cache, and takes it for durable. So it is flushed first. But a flush that failed
//! is told once: the pages count as written then, a second flush finds nothing to do and succeeds, and what is read is what the disk does not have
//! (fsync(2), promise G3). So a run whose flush fails leaves a mark, and who finds it reads from the disk. The mark need not survive the power: memory does
//! not, either.

use std::io::ErrorKind;

use crate::error::{Error, Result};
use crate::storage::Storage;

/// The mark.
const MARK: &str = "distrust";

/// A flush has failed.
pub(crate) fn mark(storage: &dyn Storage) {
    if let Err(e) = storage.create(MARK, 0) {
        tracing::error!(error = %e, "noting that a flush failed: reboot before the store is opened again");
    }
}

/// Before anything is read: what memory has is what the disk has.
pub(super) fn settle(storage: &dyn Storage) -> Result<()> {
    if let Err(e) = storage.sync_all() {
        mark(storage);
        return Err(Error::io("flushing", "store")(e));
    }
    match storage.open(MARK) {
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io("opening", MARK)(e)),
    }
    tracing::warn!("a flush failed before: what was written last is read from the disk");
    let list = |dir: &str| -> Result<Vec<String>> {
        match storage.list(dir) {
            Ok(names) => Ok(names.into_iter().map(|name| format!("{dir}/{name}")).collect()),
            // Files lie beside the folders.
            Err(e) if e.kind() == ErrorKind::NotADirectory => Ok(Vec::new()),
            Err(e) => Err(Error::io("listing", dir.to_owned())(e)),
        }
    };
    // Journals and extent files lie in folders of the VEs' folders; all else is written whole, or keeps sums of its own.
    for ve in list("ves")? {
        for folder in list(&ve)? {
            for file in list(&folder)? {
                storage.forget_cached(&file).map_err(Error::io("reading anew", file))?;
            }
        }
    }
    storage.remove(MARK).map_err(Error::io("removing", MARK))
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::sync::Arc;

    use crate::meta::MemoryMeta;
    use crate::storage::cut::CutStorage;
    use crate::storage::fault::{Call, FaultPlan, FaultStorage};
    use crate::store::bed::{self, VE};

    /// A disk failed a flush, the VE became read-only, and the daemon was restarted, as the manual says. It read what the page cache had, called it durable,
    /// let programs go on behind it and answered their fsyncs; after the next power cut the journal had a hole (checks G1, G3).
    #[test]
    fn after_a_failed_flush_a_start_believes_the_disk() {
        let (disk, plan, meta) = (Arc::new(CutStorage::default()), FaultPlan::new(), Arc::new(MemoryMeta::default()));
        let storage = Arc::new(FaultStorage::new(disk.clone(), plan.clone()));
        let store = bed::on(storage.clone(), meta.clone());
        let ve = bed::create_ve(&store, VE);
        let ino = bed::create(&ve, "kept");
        bed::write(&ve, ino, 0, vec![1; 100_000]).unwrap();
        ve.commit().unwrap();
        let durable = ve.durable_position();
        bed::create(&ve, "lost");
        bed::write(&ve, ino, 0, vec![2; 100_000]).unwrap();
        plan.fail(Call::Sync, 1, ErrorKind::Other);
        ve.commit().unwrap_err();
        disk.fail_flush();
        drop((ve, store));

        // What cannot be looked for is not believed: the mark stays.
        for nth in 1..=3 {
            plan.fail(Call::List, nth, ErrorKind::Other);
            assert!(super::settle(&*storage).is_err(), "list {nth}");
            plan.heal();
        }
        let store = bed::again(storage.clone(), meta.clone());
        let ve = store.ve(VE).unwrap();
        assert_eq!(ve.position(), durable, "what the disk does not have is gone");
        assert_eq!(ve.read(ino, 0, 3).unwrap(), [1; 3]);
        let after = bed::create(&ve, "after");
        bed::write(&ve, after, 0, vec![3; 100_000]).unwrap();
        ve.commit().unwrap();
        let position = ve.position();
        drop((ve, store));
        let left = bed::again(Arc::new(disk.after_cut()), Arc::new(meta.after_crash()));
        let ve = left.ve(VE).unwrap();
        assert_eq!((ve.position(), ve.read(after, 0, 3).unwrap()), (position, vec![3; 3]));
    }
}
