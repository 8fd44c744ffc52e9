//! Putting right what the scrub found damaged (promise G24): objects and base trees are the same bytes on every node that has them, and their names are the
//! hashes of these. So any other node of the cluster may be asked, and nothing that it sends is believed: the store takes the bytes only where they are
//! the thing's, beside the damaged ones, and puts them in their place by a rename.
//!
//! Memory: one answer.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use vefs::ids::Hash;
use vefs::store::scrub::{DAMAGE_MAX, Thing};

use super::{Inner, Runtime};
use crate::catchup::{Answer, Ask, Part};
use crate::net::Answers;
use crate::node::NodeId;

/// How long another node may take for the next part.
const PATIENCE: Duration = Duration::from_secs(30);
/// When what could not be repaired is tried again.
const AGAIN: Duration = Duration::from_secs(60);

impl Runtime {
    /// Fetches a damaged thing from another node that has it whole, if one does. What is no object and no tree cannot be had by its name. Blocks;
    /// never to be called by a task of the runtime. What nobody had is asked for again after a
    /// minute at the earliest.
    pub fn repair(&self, thing: &Thing) -> bool {
        let inner = self.inner();
        let (Thing::Object(hash) | Thing::Tree(hash)) = thing else { return false };
        let now = inner.clock.boot();
        let tried = inner.repairs.lock().get(hash).copied();
        if tried.is_some_and(|at| now < at + AGAIN) {
            return false;
        }
        for node in inner.neighbours() {
            let done = match thing {
                Thing::Tree(_) => inner.repair_tree(node, *hash),
                _ => inner.repair_object(node, *hash),
            };
            match done {
                Ok(()) => {
                    inner.repaired.fetch_add(1, Ordering::Relaxed);
                    inner.repairs.lock().remove(hash);
                    tracing::warn!(?thing, %node, "repaired with the bytes of another node");
                    return true;
                }
                Err(why) => tracing::info!(?thing, %node, why, "not repaired from this node"),
            }
        }
        let mut repairs = inner.repairs.lock();
        if repairs.len() >= DAMAGE_MAX {
            repairs.clear();
        }
        repairs.insert(*hash, now);
        if tried.is_none() {
            tracing::error!(?thing, "ALARM: damaged, and no other node that answers has it whole");
        }
        false
    }

    /// Damaged things that were repaired since this began.
    pub fn repaired(&self) -> u64 {
        self.inner().repaired.load(Ordering::Relaxed)
    }
}

impl Inner {
    /// The nodes that have to do with a VE of this store: others refuse whoever asks them (promise G30).
    fn neighbours(&self) -> BTreeSet<NodeId> {
        let me = self.cluster.node();
        let ves = self.store.list().unwrap_or_default();
        let all = ves.into_iter().filter_map(|ve| self.store.ve(ve).ok()).flat_map(|ve| self.members(&ve));
        all.filter(|node| *node != me).collect()
    }

    fn repair_object(&self, node: NodeId, hash: Hash) -> Result<(), String> {
        let mut bytes = self.fetch(node, Ask::Objects { wanted: vec![hash], offset: 0 })?;
        self.store.repair_object(hash, &mut bytes).map_err(|e| e.to_string())
    }

    fn repair_tree(&self, node: NodeId, hash: Hash) -> Result<(), String> {
        let mut bytes = self.fetch(node, Ask::Tree { hash, offset: 0 })?;
        let mut copy = self.store.copy_tree().map_err(|e| e.to_string())?;
        while let Some(part) = bytes.part().map_err(|e| e.to_string())? {
            copy.write(&part).map_err(|e| e.to_string())?;
        }
        self.store.repair_tree(hash, copy).map_err(|e| e.to_string())
    }

    fn fetch(&self, node: NodeId, ask: Ask) -> Result<Fetched<'_>, String> {
        let asked = async {
            let peer = self.transport().connect(node).await.map_err(|e| e.to_string())?;
            peer.request(ask.encode()).await.map_err(|e| e.to_string())
        };
        let asked = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, asked).await });
        let answers = asked.map_err(|_| "no answer in time".to_owned())??;
        Ok(Fetched { on: self, answers, rest: Bytes::new(), at: 0, total: None })
    }
}

/// The bytes of a thing, as they come.
struct Fetched<'a> {
    on: &'a Inner,
    answers: Answers,
    /// What came and was not taken yet.
    rest: Bytes,
    /// Bytes that came.
    at: u64,
    /// Bytes of the whole thing, once something came.
    total: Option<u64>,
}

impl Fetched<'_> {
    /// The next bytes; `None` when all have come. Only as many as were announced first are ever taken.
    fn part(&mut self) -> io::Result<Option<Bytes>> {
        while self.total.is_none_or(|total| self.at < total) {
            let next = async { tokio::time::timeout(PATIENCE, self.answers.next()).await };
            let blob = self.on.runtime.block_on(next).map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
            let blob = blob.map_err(io::Error::other)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let part = match Answer::decode(&blob).map_err(io::Error::other)? {
                Answer::Working => continue,
                Answer::Bytes { total, offset, bytes } => Part { total, offset, bytes },
                // One object was asked for.
                Answer::Parts(mut parts) if parts.len() == 1 => parts.remove(0),
                Answer::Refused(why) => return Err(io::Error::other(format!("it refuses: {why:?}"))),
                _ => return Err(io::Error::other("an answer out of turn")),
            };
            if part.offset != self.at || self.total.is_some_and(|t| t != part.total) {
                return Err(io::Error::other("an answer out of turn"));
            }
            self.total = Some(part.total);
            self.at += part.bytes.len() as u64;
            return Ok(Some(part.bytes.into()));
        }
        Ok(None)
    }
}

impl Read for Fetched<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.part()? {
                Some(part) => self.rest = part,
                None => return Ok(0),
            }
        }
        let n = into.len().min(self.rest.len());
        into[..n].copy_from_slice(&self.rest.split_to(n));
        Ok(n)
    }
}
