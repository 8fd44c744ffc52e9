//! A store in memory with one VE over an empty tree, for unit tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vefs::Ve;
use vefs::base::BaseTree;
use vefs::change::Settings;
use vefs::clock::ManualClock;
use vefs::entropy::SeededEntropy;
use vefs::ids::{Epoch, Lineage, VeId};
use vefs::meta::MemoryMeta;
use vefs::storage::memory::MemStorage;
use vefs::store::{Options, Parts, Store};

use super::{Runtime, Writers};
use crate::cluster::{Bundle, Cluster, ClusterError};

/// The lineage of what follows.
pub const LINEAGE: Lineage = Lineage([3; 16]);

/// An empty store, and its clock.
pub fn store() -> (Arc<Store>, Arc<ManualClock>) {
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
    (Arc::new(Store::open_with(parts).unwrap()), clock)
}

/// A VE that is written here.
pub fn writer(store: &Store, id: u32) -> Arc<Ve> {
    store.create_ve(VeId(id), BaseTree::empty().hash(), Settings::default()).unwrap()
}

/// A VE that follows.
pub fn follower(store: &Store, id: u32) -> Arc<Ve> {
    store.create_follower(VeId(id), LINEAGE, BaseTree::empty().hash(), Epoch(1)).unwrap()
}

/// A node that runs, alone in its cluster.
pub struct Running {
    pub store: Arc<Store>,
    pub clock: Arc<ManualClock>,
    pub runtime: Runtime,
    _dir: tempfile::TempDir,
}

/// A node over an empty store.
pub fn running(writers: &Writers) -> Running {
    let address = "127.0.0.1:7400".parse().unwrap();
    let names = ("test".parse().unwrap(), "one".parse().unwrap());
    start(writers, |dir, clock| Cluster::init(dir, &names.0, &names.1, &[address], clock))
}

/// A node that joins the cluster of another one.
pub fn joining(bundle: &Bundle) -> Running {
    start(&Writers::default(), |dir, clock| Cluster::join(dir, bundle, clock))
}

fn start(writers: &Writers, member: impl FnOnce(&Path, Arc<ManualClock>) -> Result<Cluster, ClusterError>) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let (store, clock) = store();
    let cluster = member(&dir.path().join("cluster"), clock.clone()).unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let runtime = Runtime::start(store.clone(), Arc::new(cluster), listen, clock.clone(), writers).unwrap();
    Running { store, clock, runtime, _dir: dir }
}
