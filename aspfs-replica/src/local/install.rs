//! What takes a whole state in: base tree, objects, rows and bytes go to the store, beside the present state of the VE.

use std::collections::BTreeMap;
use std::sync::Arc;

use vefs::codec;
use vefs::format::incoming::Manifest;
use vefs::ids::{Epoch, Hash, PayloadId, VeId};
use vefs::object::{ObjectError, ObjectWriter, Pin, Staged};
use vefs::state::key::{Key, Value};
use vefs::store::{Install as Making, TreeCopy};
use vefs::ve::Snapshot;
use vefs::{Error, Store};

use super::wire_page;
use crate::catchup::{Install, InstallError, Page};

/// Whole objects that are made durable together: at most so many, with so many bytes. Each has two files open meanwhile.
const STAGED_MAX: usize = 256;
const STAGED_BYTES_MAX: u64 = 64 << 20;

/// One VE's state on its way in.
pub struct LocalInstall {
    store: Arc<Store>,
    ve: VeId,
    /// The highest epoch that the source of the state is known to write in.
    epoch: Epoch,
    /// Name of the branch that keeps the present state.
    branch: Option<String>,
    tree: Option<(Hash, TreeCopy)>,
    object: Option<(Hash, ObjectWriter)>,
    /// Objects that are whole and proved, and have no names yet.
    staged: Vec<Staged>,
    /// What the base tree names, in order.
    named: Option<(Hash, Vec<Hash>)>,
    making: Option<Making>,
    /// The present state, once it was asked for and while it can be read.
    own: Option<Option<Snapshot>>,
    pins: BTreeMap<Hash, Pin>,
}

impl LocalInstall {
    /// For a VE. `epoch`: the highest that the source has seen. `branch`: the name under which the present state is kept; else it is erased.
    pub fn new(store: Arc<Store>, ve: VeId, epoch: Epoch, branch: Option<String>) -> LocalInstall {
        LocalInstall {
            store,
            ve,
            epoch,
            branch,
            tree: None,
            object: None,
            staged: Vec::new(),
            named: None,
            making: None,
            own: None,
            pins: BTreeMap::new(),
        }
    }

    fn pin(&mut self, hash: Hash) {
        let store = &self.store;
        self.pins.entry(hash).or_insert_with(|| store.pin(hash));
    }

    /// Gives what is staged its names, durably.
    fn place(&mut self) -> Result<(), InstallError> {
        if self.staged.is_empty() {
            return Ok(());
        }
        let staged = std::mem::take(&mut self.staged);
        self.store.objects().place(staged).map_err(|e: ObjectError| failed(e))
    }

    /// The present state, if there is one that can be read.
    fn present(&self) -> vefs::Result<Option<Snapshot>> {
        if !self.store.has_ve(self.ve) {
            return Ok(None);
        }
        let ve = self.store.ve(self.ve)?;
        ve.version(ve.position().txn).map(Some)
    }

    fn making(&mut self) -> Result<&mut Making, InstallError> {
        self.making.as_mut().ok_or_else(|| InstallError::Store("no state was begun".into()))
    }
}

fn failed(e: impl Into<Error>) -> InstallError {
    match e.into() {
        e @ (Error::Damage { .. } | Error::Change(_) | Error::Base(vefs::base::BaseError::Tree { .. })) => {
            InstallError::Corrupt(e.to_string())
        }
        e => InstallError::Store(e.to_string()),
    }
}

impl Install for LocalInstall {
    fn highest_epoch(&self) -> Epoch {
        let known = self.store.has_ve(self.ve).then(|| self.store.ve(self.ve).ok()).flatten();
        known.map_or(self.epoch, |ve| ve.epoch().max(self.epoch))
    }

    fn under_way(&mut self) -> Result<Option<Manifest>, InstallError> {
        self.store.under_way(self.ve).map_err(failed)
    }

    fn has_tree(&mut self, root: Hash) -> Result<bool, InstallError> {
        self.pin(root);
        self.store.has_tree(root).map_err(failed)
    }

    fn tree_so_far(&mut self, root: Hash) -> u64 {
        self.tree.as_ref().filter(|(hash, _)| *hash == root).map_or(0, |(_, copy)| copy.len())
    }

    fn put_tree(&mut self, root: Hash, total: u64, offset: u64, bytes: &[u8]) -> Result<(), InstallError> {
        if self.tree.as_ref().is_none_or(|(hash, _)| *hash != root) {
            self.tree = Some((root, self.store.copy_tree().map_err(failed)?));
        }
        let Some((_, mut copy)) = self.tree.take() else { return Ok(()) };
        if copy.len() != offset {
            return Err(InstallError::Corrupt(format!("bytes {offset} of a tree where {} are wanted", copy.len())));
        }
        copy.write(bytes).map_err(failed)?;
        if copy.len() < total {
            self.tree = Some((root, copy));
            return Ok(());
        }
        let pin = self.store.place_tree(copy, root).map_err(failed)?;
        self.pins.insert(root, pin);
        Ok(())
    }

    fn missing_of_tree(&mut self, root: Hash, after: Option<Hash>, max: usize) -> Result<Vec<Hash>, InstallError> {
        let named = match self.named.take().filter(|(of, _)| *of == root) {
            Some((_, named)) => named,
            None => self.store.tree_objects(root).map_err(failed)?,
        };
        let from = named.partition_point(|hash| after.is_some_and(|after| *hash <= after));
        let mut missing = Vec::new();
        for hash in &named[from..] {
            if missing.len() == max {
                break;
            }
            if !self.has_object(*hash)? {
                missing.push(*hash);
            }
        }
        // Kept while it is walked through.
        self.named = (!missing.is_empty()).then_some((root, named));
        Ok(missing)
    }

    fn has_object(&mut self, hash: Hash) -> Result<bool, InstallError> {
        self.place()?;
        self.pin(hash);
        self.store.objects().contains(hash).map_err(failed)
    }

    fn object_so_far(&mut self, hash: Hash) -> u64 {
        self.object.as_ref().filter(|(h, _)| *h == hash).map_or(0, |(_, writer)| writer.len())
    }

    fn put_object(&mut self, hash: Hash, total: u64, offset: u64, bytes: &[u8]) -> Result<(), InstallError> {
        if self.object.as_ref().is_none_or(|(h, _)| *h != hash) {
            self.object = Some((hash, self.store.objects().writer().map_err(failed)?));
        }
        let Some((_, mut writer)) = self.object.take() else { return Ok(()) };
        if writer.len() != offset {
            return Err(InstallError::Corrupt(format!(
                "bytes {offset} of an object where {} are wanted",
                writer.len()
            )));
        }
        writer.write(bytes).map_err(failed)?;
        if writer.len() < total {
            self.object = Some((hash, writer));
            return Ok(());
        }
        let staged = writer.seal().map_err(failed)?;
        if staged.hash() != hash {
            return Err(InstallError::Corrupt(format!("object {hash} came with the bytes of {}", staged.hash())));
        }
        self.pin(hash);
        self.staged.push(staged);
        let bytes: u64 = self.staged.iter().map(Staged::len).sum();
        if self.staged.len() >= STAGED_MAX || bytes >= STAGED_BYTES_MAX { self.place() } else { Ok(()) }
    }

    fn own_page(&mut self, after: Option<&[u8]>, max: usize) -> Option<Page> {
        let own = self.own.take().map_or_else(|| self.present(), Ok);
        let after = after.map(Key::from_bytes);
        let page = own.and_then(|own| {
            let page = own
                .as_ref()
                .filter(|_| after != Some(None))
                .map(|own| own.page(after.as_ref().and_then(Option::as_ref), None, max));
            self.own = Some(own);
            page.transpose()
        });
        match page {
            Ok(page) => page.map(wire_page),
            Err(e) => {
                // What cannot be read is no loss: it comes from the other node.
                tracing::warn!(ve = %self.ve, error = %e, "comparing the present state with one that is to come");
                self.own = Some(None);
                None
            }
        }
    }

    fn begin(&mut self, manifest: &Manifest) -> Result<Option<Vec<u8>>, InstallError> {
        let making = self.store.install(self.ve, *manifest).map_err(failed)?;
        let last = making.last().map(|key| key.as_bytes().to_vec());
        self.making = Some(making);
        Ok(last)
    }

    fn has_payload(&mut self, id: PayloadId, len: u64, hash: Hash) -> Result<bool, InstallError> {
        self.making()?.has_payload(id, len, hash).map_err(failed)
    }

    fn put_payload(&mut self, id: PayloadId, bytes: &[u8]) -> Result<(), InstallError> {
        self.making()?.put_payload(id, bytes).map_err(failed)
    }

    fn put_rows(&mut self, rows: &[(Vec<u8>, Vec<u8>)]) -> Result<(), InstallError> {
        let bad = |what: String| InstallError::Corrupt(what);
        self.place()?;
        let mut parsed = Vec::with_capacity(rows.len());
        for (key, value) in rows {
            let key = Key::from_bytes(key).ok_or_else(|| bad("a row's key".into()))?;
            let value: Value = codec::decode(value).map_err(|e| bad(format!("row {key:?}: {e}")))?;
            parsed.push((key, value));
        }
        self.making()?.put_rows(&parsed).map_err(failed)
    }

    fn finish(&mut self) -> Result<(), InstallError> {
        self.place()?;
        self.own = None;
        let making = self.making.take().ok_or_else(|| InstallError::Store("no state was begun".into()))?;
        // Not the one that this node has seen: it may have been promoted since, and then its state stays.
        making.finish(self.epoch, self.branch.as_deref()).map_err(failed)?;
        // It is in place: once more would put it aside.
        self.branch = None;
        self.pins.clear();
        Ok(())
    }

    fn abandon(&mut self) -> Result<(), InstallError> {
        match self.making.take() {
            Some(making) => making.abandon().map_err(failed),
            None => Ok(()),
        }
    }
}
