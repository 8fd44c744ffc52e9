//! What serves whole states of this store's VEs to nodes that catch up.
//!
//! A state is held for a node while it asks: its version is being read, and a cursor keeps the history behind it. Both go with the next
//! question for a state, when the node says that it is done, or when it has not been heard for a while.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use vefs::Store;
use vefs::clock::Clock;
use vefs::format::incoming::Manifest;
use vefs::ids::{Epoch, Hash, Lineage, PayloadId, Position, VeId};
use vefs::state::key::Key;
use vefs::ve::Snapshot;

use super::wire_page;
use crate::catchup::{Page, Refused, Rows, Source};
use crate::node::NodeId;

/// A state that nobody has asked about for so long is held no longer.
const IDLE: Duration = Duration::from_secs(300);
/// Most states held at a time.
const HELD_MAX: usize = 64;

struct Held {
    manifest: Manifest,
    snapshot: Arc<Snapshot>,
    asked: Duration,
}

/// The states that are held.
#[derive(Default)]
pub struct HeldStates(parking_lot::Mutex<BTreeMap<(VeId, NodeId), Held>>);

impl HeldStates {
    /// Takes out what nobody has asked about for a while. To drop it may wait for the disk.
    pub fn take_idle(&self, now: Duration) -> Vec<Arc<Snapshot>> {
        let mut idle = Vec::new();
        self.0.lock().retain(|_, h| {
            let keep = now.saturating_sub(h.asked) < IDLE;
            if !keep {
                idle.push(h.snapshot.clone());
            }
            keep
        });
        idle
    }

    /// Whether any is held for this node.
    pub fn has(&self, peer: NodeId) -> bool {
        self.0.lock().keys().any(|(_, node)| *node == peer)
    }
}

/// A store's VEs, trees and objects.
pub struct LocalSource {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    held: Arc<HeldStates>,
}

fn failed(what: &'static str) -> impl FnOnce(vefs::Error) -> Refused {
    move |e| {
        tracing::warn!(error = %e, "serving {what}");
        Refused::Store
    }
}

impl LocalSource {
    /// Of this store; `held` is shared by all that serve.
    pub fn new(store: Arc<Store>, clock: Arc<dyn Clock>, held: Arc<HeldStates>) -> LocalSource {
        LocalSource { store, clock, held }
    }

    fn snapshot_of(&self, peer: NodeId, ve: VeId, at: Position) -> Result<Arc<Snapshot>, Refused> {
        let mut held = self.held.0.lock();
        match held.get_mut(&(ve, peer)) {
            Some(h) if h.manifest.at == at => {
                h.asked = self.clock.boot();
                Ok(h.snapshot.clone())
            }
            _ => Err(Refused::Gone),
        }
    }
}

impl Source for LocalSource {
    fn snapshot(
        &mut self,
        peer: NodeId,
        ve: VeId,
        lineage: Lineage,
        _have: Position,
        epoch: Epoch,
    ) -> Result<(Manifest, Epoch), Refused> {
        if !self.store.has_ve(ve) {
            return Err(Refused::UnknownVe);
        }
        let found = self.store.ve(ve).map_err(failed("a VE"))?;
        if found.identity().lineage != lineage {
            return Err(Refused::ForeignLineage);
        }
        if !found.is_writer() || found.epoch() < epoch {
            return Err(Refused::OldEpoch);
        }
        let now = self.clock.boot();
        drop(self.held.take_idle(now));
        {
            let mut held = self.held.0.lock();
            held.remove(&(ve, peer));
            if held.len() >= HELD_MAX {
                return Err(Refused::Busy);
            }
        }
        let (manifest, snapshot) = found.manifest().map_err(failed("a state"))?;
        // It has nothing of this yet: that it is offered is no acknowledgement (promise G14).
        found.hold_for(peer.0, manifest.at.txn).map_err(failed("a cursor"))?;
        let held = Held { manifest, snapshot: Arc::new(snapshot), asked: now };
        self.held.0.lock().insert((ve, peer), held);
        Ok((manifest, found.epoch()))
    }

    fn rows(&mut self, peer: NodeId, rows: &Rows<'_>, max: usize) -> Result<Page, Refused> {
        let snapshot = self.snapshot_of(peer, rows.ve, rows.at)?;
        let writes = self.store.ve(rows.ve).map_err(failed("a VE"))?;
        if !writes.is_writer() || writes.epoch() < rows.epoch {
            return Err(Refused::OldEpoch);
        }
        let key = |bytes: &[u8]| Key::from_bytes(bytes).ok_or(Refused::Malformed);
        let (after, upto) = (rows.after.map(key).transpose()?, rows.upto.map(key).transpose()?);
        snapshot.page(after.as_ref(), upto.as_ref(), max).map(wire_page).map_err(failed("rows"))
    }

    fn payload(&mut self, peer: NodeId, ve: VeId, at: Position, id: PayloadId, len: u64) -> Result<Vec<u8>, Refused> {
        let snapshot = self.snapshot_of(peer, ve, at)?;
        snapshot.payload(id, 0, len as usize).map(Vec::from).map_err(failed("payload bytes"))
    }

    fn tree(&mut self, hash: Hash, offset: u64, max: usize) -> Result<(u64, Vec<u8>), Refused> {
        if !self.store.has_tree(hash).map_err(failed("a base tree"))? {
            return Err(Refused::NotHeld);
        }
        self.store.tree_part(hash, offset, max).map_err(failed("a base tree"))
    }

    fn object(&mut self, hash: Hash, offset: u64, max: usize) -> Result<(u64, Vec<u8>), Refused> {
        let object = self.store.objects().open(hash).map_err(|e| match e {
            vefs::object::ObjectError::NotFound { .. } => Refused::NotHeld,
            e => failed("an object")(e.into()),
        })?;
        let mut bytes = vec![0; object.len().saturating_sub(offset).min(max as u64) as usize];
        object.read_at(&mut bytes, offset).map_err(|e| failed("an object")(e.into()))?;
        Ok((object.len(), bytes))
    }

    fn done(&mut self, peer: NodeId, ve: VeId, at: Position) -> Result<(), Refused> {
        let mut held = self.held.0.lock();
        if held.get(&(ve, peer)).is_some_and(|h| h.manifest.at == at) {
            held.remove(&(ve, peer));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::bed;

    /// What a node that died had asked for was held until somebody else asked for a state, with all the history behind it.
    #[test]
    fn what_nobody_asks_about_is_let_go() {
        let (store, clock) = bed::store();
        let ve = bed::writer(&store, 7);
        let held = Arc::<HeldStates>::default();
        let mut source = LocalSource::new(store, clock.clone(), held.clone());
        let (peer, lineage) = (NodeId([2; 16]), ve.identity().lineage);
        source.snapshot(peer, ve.id(), lineage, Position::default(), ve.epoch()).unwrap();
        clock.advance(IDLE - Duration::from_secs(1));
        assert!(held.take_idle(clock.boot()).is_empty() && held.has(peer));
        clock.advance(Duration::from_secs(1));
        assert!(held.take_idle(clock.boot()).len() == 1 && !held.has(peer));
    }
}
