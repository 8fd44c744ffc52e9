//! A store in memory with one VE over an empty tree, for unit tests.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Options, Parts, Store};
use crate::base::BaseTree;
use crate::change::Settings;
use crate::clock::ManualClock;
use crate::entropy::SeededEntropy;
use crate::ids::VeId;
use crate::meta::MemoryMeta;
use crate::storage::memory::MemStorage;
use crate::ve::Ve;

/// The store, its VE and its clock.
pub(crate) fn in_memory() -> (Store, Arc<Ve>, Arc<ManualClock>) {
    let (storage, clock) = (Arc::new(MemStorage::default()), Arc::new(ManualClock::default()));
    Store::create_on(&*storage, &*clock, &SeededEntropy::new(1)).unwrap();
    let parts = Parts {
        storage,
        meta: Arc::new(MemoryMeta::default()),
        clock: clock.clone(),
        entropy: Arc::new(SeededEntropy::new(2)),
        checkpoints: PathBuf::from("/nonexistent-checkpoints"),
        options: Options { reserve: 0, ..Options::default() },
    };
    let store = Store::open_with(parts).unwrap();
    let ve = store.create_ve(VeId(7), BaseTree::empty().hash(), Settings::default()).unwrap();
    (store, ve, clock)
}
