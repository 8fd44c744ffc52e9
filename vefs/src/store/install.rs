//! Making a state of a VE beside the one in use, from what another node sends, and putting it in its place (promises G9, G23).
//!
//! Crash points: `incoming` says what is being made and where; rows come in the order of their keys, each behind the durable bytes that it
//! names, so the last row that is there says where to go on; until the identity is replaced the present state is untouched. What a
//! crash leaves of one that is not gone on with is erased when the next one begins.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Store;
use super::files::{read_whole, write_whole};
use crate::codec;
use crate::content::ExtentPlace;
use crate::content::extent_file::ExtentFiles;
use crate::error::{Error, Result};
use crate::format::identity::Identity;
use crate::format::incoming::{self, Incoming, Manifest};
use crate::format::role::{Fork, Role, RoleKind};
use crate::ids::{Epoch, Hash, PayloadId, VeId};
use crate::limits;
use crate::meta::rows::{Current, Head, TxnRow};
use crate::meta::{Batch, Scan, Table, prefix_end, rows};
use crate::object::Pin;
use crate::state::check;
use crate::state::key::{Key, Value};
use crate::types::Source;
use crate::ve::Ve;

/// Bytes of rows and payloads after which they are written and flushed.
const PART: u64 = 16 << 20;

/// Path of what is being made for a VE.
fn path(ve: VeId) -> String {
    format!("ves/{ve}/incoming")
}

/// A state that is being made.
pub struct Install {
    store: Arc<Store>,
    incoming: Incoming,
    files: ExtentFiles,
    batch: Batch,
    /// Bytes that were appended since the last flush.
    appended: u64,
    /// Ranges of payload bytes that have a place.
    placed: BTreeMap<PayloadId, u64>,
    last: Option<Key>,
    pins: Vec<Pin>,
    old: Option<Arc<Ve>>,
}

impl Store {
    /// What is being made for a VE.
    pub(super) fn read_incoming(&self, ve: VeId) -> Result<Option<Incoming>> {
        let path = path(ve);
        let Some(bytes) = read_whole(&*self.shared.storage, &path, incoming::LEN)? else { return Ok(None) };
        let incoming = Incoming::parse(&bytes).map_err(|e| e.at("state to come", path.clone()))?;
        if incoming.ve != ve || incoming.store != self.shared.store {
            let detail = format!("it is of VE {} of another folder or store", incoming.ve);
            return Err(Error::Damage { what: "state to come", place: path, detail });
        }
        Ok(Some(incoming))
    }

    /// The manifest of the state that is being made for a VE, if one is.
    pub fn under_way(&self, ve: VeId) -> Result<Option<Manifest>> {
        Ok(self.read_incoming(ve)?.map(|i| i.manifest))
    }

    /// Every state that is being made.
    pub(super) fn all_incoming(&self) -> Result<Vec<Incoming>> {
        let names = self.shared.storage.list("ves").map_err(Error::io("listing", "ves"))?;
        let ids = names.iter().filter_map(|n| n.parse().ok());
        ids.filter_map(|ve| self.read_incoming(ve).transpose()).collect()
    }

    /// Begins to make a state, or goes on with one of the same manifest. The base tree is there. Of a present state of the same lineage
    /// bytes are taken over.
    pub fn install(self: &Arc<Self>, ve: VeId, manifest: Manifest) -> Result<Install> {
        if !manifest.is_sane() || ve == VeId(0) {
            return Err(Error::Store(format!("the state offered for VE {ve} has impossible numbers")));
        }
        self.shared.base(manifest.base)?;
        let mut incoming = self.read_incoming(ve)?;
        if let Some(other) = incoming.take_if(|i| i.manifest != manifest) {
            self.abandon(&other)?;
        }
        let incoming = match incoming {
            Some(incoming) => incoming,
            None => {
                let _making = self.making.lock();
                let slot = self.free_slot(ve)?;
                self.erase(slot)?;
                let incoming = Incoming { store: self.shared.store, ve, slot, manifest };
                write_whole(&*self.shared.storage, &path(ve), &incoming.to_bytes())?;
                incoming
            }
        };
        let old = match self.read_identity(ve)? {
            Some(identity) if identity.lineage == manifest.at.lineage => Some(self.ve(ve)?),
            _ => None,
        };
        let storage = self.shared.storage.clone();
        let files = ExtentFiles::open(incoming.slot, self.shared.store, storage, self.shared.options.extent_target)?;
        let (last, placed) = self.made_so_far(incoming.slot)?;
        let (batch, pins) = Default::default();
        Ok(Install { store: self.clone(), incoming, files, batch, appended: 0, placed, last, pins, old })
    }

    /// Erases a state that is not gone on with.
    pub(super) fn abandon(&self, incoming: &Incoming) -> Result<()> {
        // It may have been put in its place, and only this file stayed.
        let used = self.read_identity(incoming.ve)?.is_some_and(|i| i.slot == incoming.slot);
        self.remove_small(&path(incoming.ve))?;
        if !used {
            self.erase(incoming.slot)?;
            self.give_slot_back(incoming.slot);
        }
        Ok(())
    }

    /// The last key that has a row, and the ranges that have places.
    fn made_so_far(&self, slot: VeId) -> Result<(Option<Key>, BTreeMap<PayloadId, u64>)> {
        let from = rows::ve_prefix(slot);
        let to = prefix_end(&from).unwrap_or_else(|| vec![0xff; 64]);
        let last = self.shared.meta.floor(Table::Current, &from, &to)?;
        let last = last.map(|(row, _)| rows::parse_current(&row)).transpose()?;
        let (mut placed, mut bad) = (BTreeMap::new(), None);
        self.shared.meta.scan(Table::Places, &from, &to, &mut |k, v| match rows::parse_place(k, v) {
            Ok((id, place)) => {
                placed.insert(id, place.len);
                Scan::Next
            }
            Err(e) => {
                bad = Some(e);
                Scan::Stop
            }
        })?;
        bad.map_or(Ok((last, placed)), |e| Err(e.into()))
    }
}

impl Install {
    /// What it becomes.
    pub fn manifest(&self) -> &Manifest {
        &self.incoming.manifest
    }

    /// The last key whose row is there and stays, should this process end now. Rows are wanted from behind it on.
    pub fn last(&self) -> Option<&Key> {
        self.last.as_ref()
    }

    /// Keeps an object from collection until this is done; whether it is here.
    pub fn has_object(&mut self, hash: Hash) -> Result<bool> {
        self.pins.push(self.store.shared.objects.pin(hash));
        Ok(self.store.shared.objects.contains(hash)?)
    }

    /// Whether a range of payload bytes has its place, or can be had from the present state, where it is taken over.
    pub fn has_payload(&mut self, id: PayloadId, len: u64, hash: Hash) -> Result<bool> {
        if self.uncovered(id, len).is_empty() {
            return Ok(true);
        }
        let Some(old) = &self.old else { return Ok(false) };
        // Numbers repeat on a branch: only the hash says that the bytes are these.
        match old.payload(id, 0, len as usize) {
            Ok(bytes) if Hash::of(&bytes) == hash => {
                self.put_payload(id, &bytes)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// The parts of a range that have no place yet.
    fn uncovered(&self, id: PayloadId, len: u64) -> Vec<(PayloadId, u64)> {
        let (mut out, mut at, end) = (Vec::new(), id, id.offset + len);
        let before =
            self.placed.range(..=id).next_back().filter(|(s, l)| s.txn == id.txn && s.offset + **l > id.offset);
        let first = before.map_or(id, |(s, _)| *s);
        for (start, l) in self.placed.range(first..PayloadId { txn: id.txn, offset: end }) {
            if start.offset > at.offset {
                out.push((at, start.offset - at.offset));
            }
            at.offset = at.offset.max(start.offset + l);
        }
        if at.offset < end {
            out.push((at, end - at.offset));
        }
        out
    }

    /// Gives payload bytes a place. The caller has checked them against their hash.
    pub fn put_payload(&mut self, id: PayloadId, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() || bytes.len() as u64 > limits::PLACE_MAX || id.offset > limits::COUNTER_MAX {
            return Err(Error::Store("payload bytes of an impossible length or number".into()));
        }
        if self.store.shared.is_tight()? {
            return Err(Error::NoSpace { what: "a state from another node" });
        }
        for (part, len) in self.uncovered(id, bytes.len() as u64) {
            let from = (part.offset - id.offset) as usize;
            let place: ExtentPlace = self.files.append_packed(&bytes[from..from + len as usize])?;
            self.batch.put(Table::Places, rows::place(self.incoming.slot, part), codec::encode(&place));
            self.placed.insert(part, len);
            self.appended += len;
            self.store.shared.space.spend(len);
        }
        Ok(())
    }

    /// Adds rows behind those that are there, in the order of their keys. The bytes that they name have their places.
    pub fn put_rows(&mut self, rows: &[(Key, Value)]) -> Result<()> {
        let txn = self.incoming.manifest.at.txn;
        for (key, value) in rows {
            if self.last.as_ref().is_some_and(|last| key <= last) {
                return Err(Error::Store(format!("row {key:?} out of order")));
            }
            check::value(key, value).map_err(Error::Change)?;
            if let Value::Extent(e) = value
                && let Source::Payload(id) = e.source
                && (id.txn > txn || !self.uncovered(id, e.len).is_empty())
            {
                return Err(Error::Store(format!("row {key:?} names bytes that were not sent")));
            }
            let row = Current { birth: txn, value: value.clone() };
            self.batch.put(Table::Current, rows::current(self.incoming.slot, key.as_bytes()), codec::encode(&row));
            self.last = Some(key.clone());
        }
        if self.appended + self.batch.bytes as u64 >= PART { self.flush() } else { Ok(()) }
    }

    /// Makes what was put so far readable: the bytes durably first, then the rows, which may become durable at any time.
    fn flush(&mut self) -> Result<()> {
        if let Some(flush) = self.files.flush_wanted() {
            let storage = &self.store.shared.storage;
            let sync = || -> std::io::Result<()> {
                flush.files.iter().try_for_each(|f| f.sync())?;
                flush.dir.iter().try_for_each(|d| storage.sync_dir(d))
            };
            sync().map_err(Error::io("flushing extent files of a state to come", self.incoming.ve.to_string()))?;
            self.files.flushed(&flush);
        }
        self.appended = 0;
        Ok(self.store.shared.meta.write(std::mem::take(&mut self.batch))?)
    }

    /// All rows are there: checks the whole state against its root and puts it in the place of the present one, which stays as a branch of
    /// this name, if one is given. `epoch`: the highest that the node has seen which the state comes from. Refused, and given up, where this node was
    /// promoted meanwhile to write in a higher one.
    pub fn finish(mut self, epoch: Epoch, branch: Option<&str>) -> Result<Arc<Ve>> {
        let (slot, m) = (self.incoming.slot, self.incoming.manifest);
        let head = Head {
            lineage: m.at.lineage,
            epoch: m.at.epoch,
            txn: m.at.txn,
            chain: m.at.chain,
            time: m.time,
            journal: 0,
            seq: 0,
            bytes: m.bytes,
            inodes: m.inodes,
            next_ino: m.next_ino,
            floor: m.at.txn,
            history: 0,
        };
        self.batch.put(Table::System, rows::head(slot), codec::encode(&head));
        let row = TxnRow { time: m.time, chain: m.at.chain, epoch: m.at.epoch };
        self.batch.put(Table::System, rows::txn(slot, m.at.txn), codec::encode(&row));
        self.flush()?;
        self.store.shared.meta.persist()?;
        let Install { store, incoming, pins, files, old, .. } = self;
        drop((files, old));
        let (ve, base, shared) = (incoming.ve, m.base, &store.shared);
        let identity = Identity { store: shared.store, ve, lineage: m.at.lineage, base, epoch: m.at.epoch, slot };
        let role = Role {
            store: shared.store,
            ve,
            lineage: m.at.lineage,
            kind: RoleKind::Replica,
            epoch,
            fork: Fork::default(),
        };
        let made = Ve::open_as(shared, identity, true, role)?;
        let root = made.version(m.at.txn)?.state_root()?.root;
        drop(made);
        if root != m.root {
            store.abandon(&incoming)?;
            let detail = format!("its state root is {root}, the one announced {}", m.root);
            return Err(Error::Damage { what: "state from another node", place: format!("VE {ve}"), detail });
        }
        // No journal leads to these rows: a rebuild has to find them in a checkpoint (promise G32).
        store.checkpoint()?;
        let installed = match store.replace(identity, epoch, branch) {
            Err(e) if store.ve(ve).is_ok_and(|present| present.is_writer() && present.epoch() > epoch) => {
                store.abandon(&incoming)?;
                return Err(e);
            }
            replaced => replaced?,
        };
        store.remove_small(&path(ve))?;
        drop(pins);
        Ok(installed)
    }

    /// Gives it up.
    pub fn abandon(self) -> Result<()> {
        self.store.abandon(&self.incoming)
    }
}
