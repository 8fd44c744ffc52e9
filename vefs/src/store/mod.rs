//! A store: the folder on one node that holds VEs, objects, base trees and metadata; opening, creating, the tick.
//!
//! Folders: `superblock`, `lock`, `ves/XXXXXXXX/{identity,journal/,extents/}`, `objects/`, `bases/`, `templates/`, `stacks/`, `staging/`, and beside them, under
//! RocksDB's own care, `meta/` and `checkpoints/`.

mod background;
#[cfg(test)]
pub(crate) mod bed;
pub(crate) mod contents;
mod copies;
mod destroy;
pub(crate) mod distrust;
pub(crate) mod files;
mod install;
mod mounted;
mod notes;
mod rebuild;
mod reclaim;
pub mod scrub;
mod shared;
mod slots;
mod stacks;
mod table;
mod templates;
mod tick;
mod trees;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

pub use background::Background;
pub use copies::TreeCopy;
use files::{read_small, read_whole, write_whole};
pub use install::Install;
pub use reclaim::Reclaimed;
pub use shared::{Options, Shared, Space};
pub use slots::is_branch_name;
use table::Claimed;
pub use templates::{Template, Verified};

use crate::change::Settings;
use crate::clock::{Clock, SystemClock};
use crate::codec;
use crate::entropy::{Entropy, SystemEntropy};
use crate::error::{Error, Result};
use crate::format::FormatError;
use crate::format::identity::{self, Identity};
use crate::format::superblock::{self, Superblock};
use crate::ids::{Epoch, Hash, Lineage, VeId};
use crate::meta::{Batch, MetaStore, RocksMeta, Scan, Table, prefix_end, rows};
use crate::object::ObjectStore;
use crate::storage::Storage;
use crate::storage::disk::{DiskStorage, StoreLock};
use crate::ve::Ve;

/// Name of the superblock's file.
const SUPERBLOCK: &str = "superblock";

/// An open store.
pub struct Store {
    shared: Arc<Shared>,
    ves: table::Table,
    /// Held while a VE is made or a slot is given to one.
    making: Mutex<()>,
    /// Where checkpoints of the metadata go.
    checkpoints: PathBuf,
    checkpoint_state: Mutex<shared::CheckpointState>,
    /// Branches that are open.
    branches: Mutex<BTreeMap<(VeId, String), Arc<Ve>>>,
    /// Slots that are not their VE's number, once they were asked for.
    foreign_slots: Mutex<Option<std::collections::BTreeSet<VeId>>>,
    /// Held over a collection, and over the destruction of a VE: a collection removes files of the VEs that it has looked at, by number,
    /// and a VE made anew under the same identifier has the same numbers. Taken before any right to a VE: a collection waits for those.
    collecting: Mutex<()>,
    /// Held over the making of a checkpoint.
    checkpointing: Mutex<()>,
    /// Held over a step of the scrub.
    scrubbing: Mutex<()>,
    /// Keeps others out of the folder.
    _lock: Option<StoreLock>,
}

/// What a store is put together from.
pub struct Parts {
    /// Files.
    pub storage: Arc<dyn Storage>,
    /// Metadata.
    pub meta: Arc<dyn MetaStore>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Random numbers.
    pub entropy: Arc<dyn Entropy>,
    /// Where checkpoints of the metadata go.
    pub checkpoints: PathBuf,
    /// Sizes and thresholds.
    pub options: Options,
}

impl Store {
    /// Makes an empty folder (or one that is not there) a store.
    pub fn create(path: &Path) -> Result<()> {
        std::fs::create_dir_all(path).map_err(Error::io("creating store", path.display().to_string()))?;
        let mut entries = std::fs::read_dir(path).map_err(Error::io("reading store", path.display().to_string()))?;
        if entries.any(|e| e.is_ok_and(|e| e.file_name() != "lost+found")) {
            return Err(Error::Store(format!("{} is not empty: a store is made in an empty folder", path.display())));
        }
        let storage = DiskStorage::open(path).map_err(Error::io("opening", path.display().to_string()))?;
        Self::create_on(&storage, &SystemClock, &SystemEntropy)
    }

    /// Makes a storage a store: the superblock, durably.
    pub fn create_on(storage: &dyn Storage, clock: &dyn Clock, entropy: &dyn Entropy) -> Result<()> {
        let block = Superblock { store: entropy.bytes16(), created: clock.wall() };
        write_whole(storage, SUPERBLOCK, &block.to_bytes())
    }

    /// Opens the store in a folder: refused when it is in use, of an unknown format, or none.
    pub fn open(path: &Path, options: Options) -> Result<Store> {
        let place = path.display().to_string();
        let storage = DiskStorage::open(path).map_err(Error::io("opening store", place.clone()))?;
        // Before anything is locked or opened: what is no store, or of an unknown format, must stay untouched.
        read_superblock(&storage)?;
        let lock = storage.lock().map_err(|e| match e.kind() {
            std::io::ErrorKind::ResourceBusy => Error::Store(format!("store {place} is in use by another process")),
            _ => Error::io("locking store", place.clone())(e),
        })?;
        let meta_path = path.join("meta");
        if options.rebuild {
            rebuild::reset_meta(path)?;
        }
        let meta = RocksMeta::open(&meta_path)?;
        let parts = Parts {
            storage: Arc::new(storage),
            meta: Arc::new(meta),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            checkpoints: path.join("checkpoints"),
            options,
        };
        let mut store = Store::open_with(parts)?;
        store._lock = Some(lock);
        Ok(store)
    }

    /// Opens a store from its parts: for simulation, and for what [`Store::open`] put together. VEs open when they are asked for.
    pub fn open_with(parts: Parts) -> Result<Store> {
        let block = read_superblock(&*parts.storage)?;
        distrust::settle(&*parts.storage)?;
        let objects = ObjectStore::new(parts.storage.clone());
        objects.clean_staging()?;
        let checkpoint_state = shared::CheckpointState::load(&parts.checkpoints)?;
        let shared =
            Shared::new(block.store, parts.storage, parts.meta, objects, parts.clock, parts.entropy, parts.options);
        let store = Store {
            shared: Arc::new(shared),
            ves: table::Table::default(),
            making: Mutex::default(),
            checkpoints: parts.checkpoints,
            checkpoint_state: Mutex::new(checkpoint_state),
            branches: Mutex::default(),
            foreign_slots: Mutex::default(),
            collecting: Mutex::default(),
            checkpointing: Mutex::default(),
            scrubbing: Mutex::default(),
            _lock: None,
        };
        store.finish_destroying();
        Ok(store)
    }

    /// The store's objects.
    pub fn objects(&self) -> &ObjectStore {
        &self.shared.objects
    }

    /// The store's files, for building base trees.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.shared.storage
    }

    /// The metadata store.
    pub fn meta(&self) -> &Arc<dyn MetaStore> {
        &self.shared.meta
    }

    /// Creates a VE over a base tree. Durable when this returns; of a crash before that nothing is left.
    pub fn create_ve(&self, id: VeId, base: Hash, settings: Settings) -> Result<Arc<Ve>> {
        if id == VeId(0) {
            return Err(Error::Store("VE 00000000 is the node itself and has no tree".into()));
        }
        let _making = self.making.lock();
        let claim = self.claim_new(id)?;
        // Until the identity names it: a collection may be running.
        let _pin = self.shared.objects.pin(base);
        self.shared.base(base)?;
        let slot = self.free_slot(id)?;
        self.erase(slot)?;
        self.remove_small(&crate::ve::role::path(id))?;
        let identity = Identity {
            store: self.shared.store,
            ve: id,
            lineage: Lineage(self.shared.entropy.bytes16()),
            base,
            epoch: Epoch(1),
            slot,
        };
        let ve = Ve::open(&self.shared, identity, false)?;
        ve.set_settings(settings)?;
        ve.commit()?;
        // Last: a VE never exists without its quota, whatever interrupts this.
        write_whole(&*self.shared.storage, &identity_path(id), &identity.to_bytes())?;
        claim.open(ve.clone());
        Ok(ve)
    }

    /// The right to make a VE, if there is none of this identifier.
    fn claim_new(&self, id: VeId) -> Result<table::Claim<'_>> {
        match self.ves.claim(id) {
            Claimed::Free(claim) if self.shared.storage.open(&identity_path(id)).is_err() => Ok(claim),
            _ => Err(Error::Store(format!("VE {id} exists already"))),
        }
    }

    /// The VE of this identifier, opened (and recovered) if it is not open yet. Several can be opened at once.
    pub fn ve(&self, id: VeId) -> Result<Arc<Ve>> {
        let claim = match self.ves.claim(id) {
            Claimed::Open(ve) => return Ok(ve),
            Claimed::Free(claim) => claim,
        };
        let identity = self.read_identity(id)?.ok_or_else(|| Error::Store(format!("there is no VE {id}")))?;
        self.check_not_buried(&identity)?;
        self.drop_foreign_rows(&identity)?;
        let ve = Ve::open(&self.shared, identity, true)?;
        claim.open(ve.clone());
        Ok(ve)
    }

    /// The identity of a VE; `None` when there is no such VE.
    fn read_identity(&self, id: VeId) -> Result<Option<Identity>> {
        let path = identity_path(id);
        let Some(bytes) = read_whole(&*self.shared.storage, &path, identity::LEN)? else { return Ok(None) };
        let identity = Identity::parse(&bytes).map_err(|e: FormatError| e.at("VE identity", path.clone()))?;
        if identity.ve != id || identity.store != self.shared.store {
            let detail = format!("it is VE {} of another folder or store", identity.ve);
            return Err(Error::Damage { what: "VE identity", place: path, detail });
        }
        Ok(Some(identity))
    }

    /// Metadata that came back from a checkpoint may be that of an erased VE of the same identifier: it is of no use to this one.
    fn drop_foreign_rows(&self, identity: &Identity) -> Result<()> {
        match self.shared.meta.get(Table::System, &rows::head(identity.slot))? {
            Some(row) if rows::head_row(&row)?.lineage != identity.lineage => {
                tracing::warn!(ve = %identity.ve, "metadata of an earlier VE of this identifier, dropped");
                self.erase_rows(identity.slot)
            }
            _ => Ok(()),
        }
    }

    /// The identifiers of all VEs.
    pub fn list(&self) -> Result<Vec<VeId>> {
        let names = self.shared.storage.list("ves").map_err(Error::io("listing", "ves"))?;
        let mut out: Vec<VeId> = names.iter().filter_map(|n| n.parse().ok()).collect();
        out.retain(|id| self.shared.storage.open(&identity_path(*id)).is_ok());
        out.sort_unstable();
        Ok(out)
    }

    /// Opens every VE that is not open yet.
    pub fn open_all(&self) -> Result<()> {
        self.list()?.into_iter().try_for_each(|id| self.ve(id).map(|_| ()))
    }

    /// Removes a small file, if it is there, durably.
    fn remove_small(&self, path: &str) -> Result<()> {
        let dir = path.rsplit_once('/').map_or("", |(d, _)| d);
        match self.shared.storage.remove(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.and_then(|()| self.shared.storage.sync_dir(dir)).map_err(Error::io("removing", path)),
        }
    }

    /// Removes rows and files of a slot that no identity names, durably: a VE that gets the slot must never find them.
    fn erase(&self, id: VeId) -> Result<()> {
        self.erase_rows(id)?;
        let storage = &self.shared.storage;
        for dir in [crate::journal::folder(id), crate::content::extent_file::folder(id)] {
            let names = storage.list(&dir).map_err(Error::io("listing", dir.clone()))?;
            for name in &names {
                let path = format!("{dir}/{name}");
                storage.remove(&path).map_err(Error::io("removing", path))?;
            }
            if !names.is_empty() {
                storage.sync_dir(&dir).map_err(Error::io("flushing", dir))?;
            }
        }
        Ok(())
    }

    /// Removes a VE's rows.
    fn erase_rows(&self, id: VeId) -> Result<()> {
        let meta = &self.shared.meta;
        let txns = [b"T".to_vec(), id.0.to_be_bytes().to_vec()].concat();
        let prefixes = [Table::Current, Table::History, Table::Changes, Table::Places]
            .map(|t| (t, rows::ve_prefix(id)))
            .into_iter()
            .chain(
                [
                    txns,
                    rows::head(id),
                    rows::clean(id),
                    rows::answers(id),
                    rows::cursor_prefix(id),
                    rows::mounted_prefix(id),
                ]
                .map(|row| (Table::System, row)),
            );
        let mut any = false;
        for (table, prefix) in prefixes {
            let end = prefix_end(&prefix).unwrap_or_else(|| vec![0xff; 32]);
            loop {
                let mut batch = Batch::default();
                meta.scan(table, &prefix, &end, &mut |k, _| {
                    batch.delete(table, k.to_vec());
                    if batch.rows.len() < 10_000 { Scan::Next } else { Scan::Stop }
                })?;
                if batch.rows.is_empty() {
                    break;
                }
                any = true;
                meta.write(batch)?;
            }
        }
        if any {
            meta.persist()?;
        }
        Ok(())
    }

    /// The VEs that are open.
    pub(crate) fn opened(&self) -> Vec<Arc<Ve>> {
        self.ves.open()
    }

    /// Persists everything, so that the next start replays nothing and does not even look for what was torn. The store can go on
    /// afterwards.
    pub fn close(&self) -> Result<()> {
        let mut batch = Batch::default();
        for ve in self.opened() {
            if ve.read_only_reason().is_none() {
                if let Err(e) = ve.publish() {
                    tracing::error!(ve = %ve.id(), error = %e, "publishing at the end: the next start replays it");
                    continue;
                }
                if let Some(end) = ve.end_segment() {
                    batch.put(Table::System, rows::clean(ve.slot), codec::encode(&end));
                }
            }
        }
        self.shared.meta.write(batch)?;
        self.persist()
    }
}

fn identity_path(id: VeId) -> String {
    format!("ves/{id}/identity")
}

fn read_superblock(storage: &dyn Storage) -> Result<Superblock> {
    let file = match storage.open(SUPERBLOCK) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::Store("there is no store here: the file `superblock` is missing".into()));
        }
        other => other.map_err(Error::io("opening", SUPERBLOCK))?,
    };
    let bytes = read_small(&*file, superblock::LEN).map_err(Error::io("reading", SUPERBLOCK))?;
    Superblock::parse(&bytes).map_err(|e| e.at("store", SUPERBLOCK))
}
