//! A state that is being made beside the present one, in memory: what of it survives a power cut, and how it takes the present one's place.

use std::collections::BTreeMap;

use aspfs_replica::catchup::{Install, InstallError, Page, Refused, Rows, Source};
use aspfs_replica::node::NodeId;
use bytes::Bytes;
use vefs::clock::Timestamp;
use vefs::codec;
use vefs::format::incoming::Manifest;
use vefs::format::role::RoleKind;
use vefs::ids::{Epoch, Hash, InodeNo, Lineage, PayloadId, Position, VeId};

use super::content::{self, State, Value};
use super::store::{Bug, History, Role, Store};

/// Rows after which what was put is flushed.
const FLUSH_EVERY: usize = 3;

#[derive(Clone, Debug)]
pub struct Incoming {
    pub manifest: Manifest,
    pub state: State,
    durable: State,
}

impl Incoming {
    pub fn power_cut(&mut self) {
        self.state = self.durable.clone();
    }
}

fn full(store: &Store) -> Result<(), InstallError> {
    if store.full { Err(InstallError::Store("no space".into())) } else { Ok(()) }
}

/// Adds bytes of something that is named by its hash; with the last ones it is whole.
fn grow(store: &mut Store, hash: Hash, total: u64, offset: u64, bytes: &[u8]) -> Result<Option<Bytes>, InstallError> {
    full(store)?;
    let part = store.parts.entry(hash).or_default();
    if part.len() as u64 != offset {
        store.parts.remove(&hash);
        return Err(InstallError::Corrupt("not at its end".into()));
    }
    part.extend_from_slice(bytes);
    if (part.len() as u64) < total {
        return Ok(None);
    }
    let whole = Bytes::from(store.parts.remove(&hash).unwrap());
    if Hash::of(&whole) == hash { Ok(Some(whole)) } else { Err(InstallError::Corrupt("another hash".into())) }
}

impl Install for Store {
    fn highest_epoch(&self) -> Epoch {
        self.role.epoch
    }

    fn under_way(&mut self) -> Result<Option<Manifest>, InstallError> {
        Ok(self.incoming.as_ref().map(|i| i.manifest))
    }

    fn has_tree(&mut self, root: Hash) -> Result<bool, InstallError> {
        Ok(self.trees.contains(&root))
    }

    fn tree_so_far(&mut self, root: Hash) -> u64 {
        self.parts.get(&root).map_or(0, |p| p.len() as u64)
    }

    fn put_tree(&mut self, root: Hash, total: u64, offset: u64, bytes: &[u8]) -> Result<(), InstallError> {
        if grow(self, root, total, offset, bytes)?.is_some() {
            self.trees.insert(root);
        }
        Ok(())
    }

    fn missing_of_tree(&mut self, root: Hash, after: Option<Hash>, max: usize) -> Result<Vec<Hash>, InstallError> {
        assert!(self.trees.contains(&root));
        let mut named: Vec<Hash> = content::tree().chunks(32).map(|c| Hash(c.try_into().unwrap())).collect();
        named.sort();
        named.retain(|h| after.is_none_or(|a| *h > a) && !self.objects.contains_key(h));
        named.truncate(max);
        Ok(named)
    }

    fn has_object(&mut self, hash: Hash) -> Result<bool, InstallError> {
        Ok(self.objects.contains_key(&hash))
    }

    fn object_so_far(&mut self, hash: Hash) -> u64 {
        self.tree_so_far(hash)
    }

    fn put_object(&mut self, hash: Hash, total: u64, offset: u64, bytes: &[u8]) -> Result<(), InstallError> {
        if let Some(whole) = grow(self, hash, total, offset, bytes)? {
            self.objects.insert(hash, whole);
        }
        Ok(())
    }

    fn own_page(&mut self, after: Option<&[u8]>, max: usize) -> Option<Page> {
        Some(self.state.page(after, None, max.min(200)))
    }

    fn begin(&mut self, manifest: &Manifest) -> Result<Option<Vec<u8>>, InstallError> {
        assert!(self.trees.contains(&manifest.base), "the base tree is there first");
        full(self)?;
        let (state, durable) = Default::default();
        let fresh = Incoming { manifest: *manifest, state, durable };
        let old = self.incoming.take().filter(|i| i.manifest == *manifest);
        let incoming = self.incoming.insert(old.unwrap_or(fresh));
        Ok(incoming.state.rows.keys().next_back().cloned())
    }

    fn has_payload(&mut self, id: PayloadId, len: u64, hash: Hash) -> Result<bool, InstallError> {
        let Some(incoming) = &mut self.incoming else { return Err(InstallError::Store("not begun".into())) };
        if incoming.state.payload(id, len).is_some() {
            return Ok(true);
        }
        // Numbers repeat on a branch: only the hash says that the bytes are these.
        match self.state.payload(id, len).filter(|b| Hash::of(b) == hash) {
            Some(bytes) => {
                incoming.state.bytes.insert(id, bytes);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn put_payload(&mut self, id: PayloadId, bytes: &[u8]) -> Result<(), InstallError> {
        full(self)?;
        let Some(incoming) = &mut self.incoming else { return Err(InstallError::Store("not begun".into())) };
        incoming.state.bytes.insert(id, Bytes::copy_from_slice(bytes));
        Ok(())
    }

    fn put_rows(&mut self, rows: &[(Vec<u8>, Vec<u8>)]) -> Result<(), InstallError> {
        full(self)?;
        let Some(incoming) = &mut self.incoming else { return Err(InstallError::Store("not begun".into())) };
        for (key, value) in rows {
            if incoming.state.rows.keys().next_back().is_some_and(|last| key <= last) {
                return Err(InstallError::Corrupt("out of order".into()));
            }
            match codec::decode(value).map_err(|e| InstallError::Corrupt(e.to_string()))? {
                Value::Payload(id, len, _) if covered(&incoming.state, id, len).is_none() => {
                    return Err(InstallError::Corrupt("bytes that were not sent".into()));
                }
                Value::Object(hash) if !self.objects.contains_key(&hash) => {
                    return Err(InstallError::Corrupt("an object that was not sent".into()));
                }
                _ => {}
            }
            incoming.state.rows.insert(key.clone(), value.clone());
            if incoming.state.rows.len().is_multiple_of(FLUSH_EVERY) {
                incoming.durable = incoming.state.clone();
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), InstallError> {
        let Some(Incoming { manifest, state, .. }) = self.incoming.take() else {
            return Err(InstallError::Store("not begun".into()));
        };
        let mut state = state;
        if !join_ranges(&mut state) && self.bug != Bug::Unproved {
            return Err(InstallError::Corrupt("payload".into()));
        }
        if state.root() != manifest.root && self.bug != Bug::Unproved {
            return Err(InstallError::Corrupt("state root".into()));
        }
        let history = History { base: manifest.at, start: state.clone(), txns: vec![], bulk: BTreeMap::new() };
        let mut old = std::mem::replace(&mut self.history, history);
        old.txns.truncate(self.durable);
        if let Some(name) = self.branch.take().filter(|_| self.bug != Bug::DropTail) {
            self.branches.insert(name, old);
        }
        (self.state, self.durable, self.recycled) = (state, 0, 0);
        self.staged.clear();
        self.role = Role { kind: RoleKind::Replica, fork: manifest.at, successor: None, ..self.role };
        Ok(())
    }

    fn abandon(&mut self) -> Result<(), InstallError> {
        self.incoming = None;
        Ok(())
    }
}

/// The bytes of a payload that came in ranges.
fn covered(state: &State, id: PayloadId, len: u64) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    while (out.len() as u64) < len {
        out.extend_from_slice(state.bytes.get(&id.plus(out.len() as u64))?);
    }
    Some(out)
}

/// Puts the ranges of each payload together; whether all have their hashes.
fn join_ranges(state: &mut State) -> bool {
    let (mut joined, mut right) = (BTreeMap::new(), true);
    for value in state.rows.values() {
        if let Ok(Value::Payload(id, len, hash)) = codec::decode(value) {
            let bytes = covered(state, id, len).unwrap_or_default();
            right &= Hash::of(&bytes) == hash;
            joined.insert(id, Bytes::from(bytes));
        }
    }
    state.bytes = joined;
    right
}

/// A primary's store as a source. `holds` survive the death of the node.
pub struct Serve<'a> {
    pub ve: VeId,
    pub store: &'a mut Store,
    pub holds: &'a mut BTreeMap<NodeId, (Position, State)>,
}

impl Serve<'_> {
    fn held(&self, peer: NodeId, ve: VeId, at: Position) -> Result<&State, Refused> {
        if ve != self.ve {
            return Err(Refused::UnknownVe);
        }
        if self.store.role.kind != RoleKind::Primary {
            return Err(Refused::OldEpoch);
        }
        self.holds.get(&peer).filter(|(held, _)| *held == at).map(|(_, s)| s).ok_or(Refused::Gone)
    }
}

fn part(bytes: &[u8], offset: u64, max: usize) -> (u64, Vec<u8>) {
    let from = (offset as usize).min(bytes.len());
    // Small parts, so that something comes in between.
    let part = bytes[from..].iter().copied().take(max.min(400)).collect();
    (bytes.len() as u64, part)
}

impl Source for Serve<'_> {
    fn snapshot(
        &mut self,
        peer: NodeId,
        ve: VeId,
        lineage: Lineage,
        _have: Position,
        epoch: Epoch,
    ) -> Result<(Manifest, Epoch), Refused> {
        if ve != self.ve {
            return Err(Refused::UnknownVe);
        }
        if lineage != self.store.lineage() {
            return Err(Refused::ForeignLineage);
        }
        if self.store.role.kind != RoleKind::Primary || epoch > self.store.writing {
            return Err(Refused::OldEpoch);
        }
        self.store.flush();
        let (at, state) = (self.store.head(), self.store.state.clone());
        let manifest = Manifest {
            at,
            time: Timestamp { secs: 1, nanos: 0 },
            base: Hash::of(&content::tree()),
            root: state.root(),
            bytes: 0,
            inodes: 0,
            next_ino: InodeNo::FIRST_PRIVATE,
        };
        self.holds.insert(peer, (at, state));
        Ok((manifest, self.store.writing))
    }

    fn rows(&mut self, peer: NodeId, of: &Rows<'_>, max: usize) -> Result<Page, Refused> {
        if of.epoch > self.store.writing {
            return Err(Refused::OldEpoch);
        }
        Ok(self.held(peer, of.ve, of.at)?.page(of.after, of.upto, max.min(300)))
    }

    fn payload(&mut self, peer: NodeId, ve: VeId, at: Position, id: PayloadId, len: u64) -> Result<Vec<u8>, Refused> {
        self.held(peer, ve, at)?.payload(id, len).map(|b| b.to_vec()).ok_or(Refused::NotHeld)
    }

    fn tree(&mut self, hash: Hash, offset: u64, max: usize) -> Result<(u64, Vec<u8>), Refused> {
        if self.store.trees.contains(&hash) { Ok(part(&content::tree(), offset, max)) } else { Err(Refused::NotHeld) }
    }

    fn object(&mut self, hash: Hash, offset: u64, max: usize) -> Result<(u64, Vec<u8>), Refused> {
        self.store.objects.get(&hash).map(|b| part(b, offset, max)).ok_or(Refused::NotHeld)
    }

    fn done(&mut self, peer: NodeId, ve: VeId, at: Position) -> Result<(), Refused> {
        self.held(peer, ve, at)?;
        self.holds.remove(&peer);
        Ok(())
    }
}
