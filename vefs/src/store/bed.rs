//! Stores in memory with one VE over an empty tree, for unit tests.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::{Install, Options, Parts, Store};
use crate::base::BaseTree;
use crate::change::Settings;
use crate::clock::ManualClock;
use crate::entropy::SeededEntropy;
use crate::ids::{Epoch, InodeNo, VeId};
use crate::meta::{MemoryMeta, MetaStore};
use crate::op::{Op, Owner, Reply};
use crate::storage::Storage;
use crate::storage::memory::MemStorage;
use crate::types::mode;
use crate::ve::{Feed, FeedPayload, Request, Ve};

/// The VE of a bed.
pub(crate) const VE: VeId = VeId(7);

/// The store, its VE and its clock.
pub(crate) fn in_memory() -> (Store, Arc<Ve>, Arc<ManualClock>) {
    let (storage, clock) = (Arc::new(MemStorage::default()), Arc::new(ManualClock::default()));
    Store::create_on(&*storage, &*clock, &SeededEntropy::new(1)).unwrap();
    let store = open(storage, Arc::new(MemoryMeta::default()), clock.clone(), 2);
    let ve = create_ve(&store, VE);
    (store, ve, clock)
}

/// An empty store on a storage.
pub(crate) fn on(storage: Arc<dyn Storage>, meta: Arc<dyn MetaStore>) -> Store {
    Store::create_on(&*storage, &ManualClock::default(), &SeededEntropy::new(1)).unwrap();
    open(storage, meta, Arc::default(), 2)
}

/// The store that is on a storage. Its journals are short.
pub(crate) fn again(storage: Arc<dyn Storage>, meta: Arc<dyn MetaStore>) -> Store {
    open(storage, meta, Arc::default(), 3)
}

fn open(storage: Arc<dyn Storage>, meta: Arc<dyn MetaStore>, clock: Arc<ManualClock>, seed: u64) -> Store {
    let parts = Parts {
        storage,
        meta,
        clock,
        entropy: Arc::new(SeededEntropy::new(seed)),
        checkpoints: PathBuf::from("/nonexistent-checkpoints"),
        options: Options { reserve: 0, segment_min: 64 << 10, segment_max: 64 << 10, ..Options::default() },
    };
    Store::open_with(parts).unwrap()
}

/// A VE over an empty tree.
pub(crate) fn create_ve(store: &Store, id: VeId) -> Arc<Ve> {
    store.create_ve(id, BaseTree::empty().hash(), Settings::default()).unwrap()
}

/// What follows a VE, in another store.
pub(crate) fn create_follower(store: &Store, of: &Ve) -> Arc<Ve> {
    store.create_follower(of.id(), of.identity().lineage, BaseTree::empty().hash(), Epoch(1)).unwrap()
}

/// A file in the root of a VE.
pub(crate) fn create(ve: &Ve, name: &str) -> InodeNo {
    let parent = InodeNo::ROOT;
    let op = Op::Create { parent, name: name.into(), mode: mode::IFREG | 0o600, rdev: 0, owner: Owner::default() };
    let Reply::Inode(ino, _) = ve.execute(&op, Request::default()).unwrap() else { panic!("no inode") };
    ino
}

/// Writes to a file.
pub(crate) fn write(ve: &Ve, ino: InodeNo, offset: u64, data: Vec<u8>) -> crate::Result<()> {
    let op = Op::Write { ino, offset, data: Bytes::from(data), kill_priv: false };
    ve.execute(&op, Request::default()).map(drop)
}

/// Takes the whole state of a VE over into another store, in the place of what is there.
pub(crate) fn pull(store: &Arc<Store>, from: &Arc<Ve>, branch: Option<&str>) -> Arc<Ve> {
    install(store, from).finish(Epoch(1), branch).unwrap()
}

/// The whole state of a VE, about to be put in its place in another store.
pub(crate) fn install(store: &Arc<Store>, from: &Arc<Ve>) -> Install {
    let (manifest, state) = from.manifest().unwrap();
    let mut install = store.install(from.id(), manifest).unwrap();
    loop {
        let page = state.page(install.last(), None, 1 << 20).unwrap();
        for (id, len, _) in &page.payloads {
            install.put_payload(*id, &state.payload(*id, 0, *len as usize).unwrap()).unwrap();
        }
        install.put_rows(&page.rows).unwrap();
        if page.last {
            return install;
        }
    }
}

/// Takes the next transaction over to a follower, which has yet to flush it; false when there is none.
pub(crate) fn ship(from: &Ve, to: &Ve) -> crate::Result<bool> {
    let Feed::Txn(txn) = from.feed(to.position().txn)? else { return Ok(false) };
    for record in &txn.records {
        if let Some(FeedPayload::Bulk(id, len)) = &record.payload {
            to.stage(*id, &from.payload(*id, 0, *len as usize)?, None)?;
        }
    }
    match to.receive(&txn) {
        Ok(()) => Ok(true),
        Err(crate::ve::ReceiveError::Store(e)) => Err(e),
        Err(e) => panic!("{e}"),
    }
}
