//! Where bytes lie that may come once more, by their hash: payloads that VEs sent or received lately, and small files of templates.
//!
//! Between two nodes that have the same bytes the hash is enough, and who installs in one VE what another VE has sends names. An entry is a hint: whoever
//! uses it reads the bytes and compares their hash. Nothing of it is stored; a daemon begins with none.
//!
//! Invariants: at most [`PAYLOADS_MAX`] payloads, the oldest go first, and [`FILES_MAX`] files; a tree is read once.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use super::Shared;
use crate::base::BaseTree;
use crate::ids::{Hash, InodeNo, PayloadId};
use crate::limits::INLINE_MAX;
use crate::types::Source;
use crate::ve::Ve;

/// Less than this travels sooner than a question about it would.
pub(crate) const CONTENT_MIN: u64 = 8 << 10;
const PAYLOADS_MAX: usize = 1 << 16;
const FILES_MAX: usize = 1 << 16;

/// A payload of a VE, or bytes of an object.
#[derive(Clone)]
enum Place {
    Payload(Weak<Ve>, PayloadId),
    File { object: Hash, offset: u64 },
}

#[derive(Default)]
pub(crate) struct Contents(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    places: HashMap<Hash, Place>,
    payloads: VecDeque<Hash>,
    files: usize,
    /// Trees whose files are in here or are being read.
    trees: HashSet<Hash>,
}

impl Contents {
    /// A VE's payload has these bytes. Whether something else had them before.
    pub fn note(&self, ve: &Arc<Ve>, id: PayloadId, hash: Hash) -> bool {
        let mut inner = self.0.lock();
        match inner.places.get(&hash) {
            Some(Place::Payload(other, at)) => *at != id || !std::ptr::eq(other.as_ptr(), Arc::as_ptr(ve)),
            Some(Place::File { .. }) => true,
            None => {
                if inner.payloads.len() >= PAYLOADS_MAX
                    && let Some(oldest) = inner.payloads.pop_front()
                {
                    inner.places.remove(&oldest);
                }
                inner.places.insert(hash, Place::Payload(Arc::downgrade(ve), id));
                inner.payloads.push_back(hash);
                false
            }
        }
    }

    /// The bytes with this hash, proved by it.
    pub fn find(&self, shared: &Shared, hash: Hash, len: u64) -> Option<Bytes> {
        let place = self.0.lock().places.get(&hash).cloned()?;
        let bytes = match &place {
            Place::Payload(ve, id) => ve.upgrade().and_then(|ve| ve.payload(*id, 0, len as usize).ok()),
            Place::File { object, offset } => read(shared, *object, *offset, len),
        };
        let bytes = bytes.filter(|b| Hash::of(b) == hash);
        if bytes.is_none() {
            self.forget(hash);
        }
        bytes
    }

    /// What was there is not any more.
    fn forget(&self, hash: Hash) {
        let mut inner = self.0.lock();
        match inner.places.remove(&hash) {
            Some(Place::Payload(..)) => inner.payloads.retain(|h| *h != hash),
            Some(Place::File { .. }) => inner.files -= 1,
            None => {}
        }
    }

    /// Whether a tree is still to be read: the first asker does it.
    fn begin(&self, tree: Hash) -> bool {
        self.0.lock().trees.insert(tree)
    }

    fn file(&self, hash: Hash, object: Hash, offset: u64) -> bool {
        let mut inner = self.0.lock();
        if inner.files < FILES_MAX && !inner.places.contains_key(&hash) {
            inner.places.insert(hash, Place::File { object, offset });
            inner.files += 1;
        }
        inner.files < FILES_MAX
    }
}

fn read(shared: &Shared, object: Hash, offset: u64, len: u64) -> Option<Bytes> {
    let mut bytes = vec![0; len as usize];
    shared.objects.open(object).ok()?.read_at(&mut bytes, offset).ok()?;
    Some(Bytes::from(bytes))
}

/// Takes in the files of a template that are as large as an inline payload may be, on a thread of its own, once.
pub(crate) fn learn(shared: &Arc<Shared>, tree: Hash) {
    if !shared.contents.begin(tree) {
        return;
    }
    let tree = match shared.base(tree) {
        Ok(tree) if tree.inode_count() > 1 => tree,
        Ok(_) => return,
        Err(e) => return tracing::warn!(error = %e, "reading a template's files"),
    };
    let shared = Arc::downgrade(shared);
    let started = std::thread::Builder::new().name("vefs-contents".into()).spawn(move || {
        for ino in 1..=tree.inode_count() {
            // A store that is closed has no use for it.
            let Some(shared) = shared.upgrade() else { return };
            if !take(&shared, &tree, InodeNo(ino)) {
                return;
            }
        }
    });
    if let Err(e) = started {
        tracing::warn!(error = %e, "no thread to read a template's files");
    }
}

fn take(shared: &Shared, tree: &BaseTree, ino: InodeNo) -> bool {
    let [(0, extent)] = tree.content(ino) else { return true };
    let Source::Base { hash: object, offset } = extent.source else { return true };
    if !(CONTENT_MIN..INLINE_MAX as u64).contains(&extent.len) {
        return true;
    }
    read(shared, object, offset, extent.len).is_none_or(|bytes| shared.contents.file(Hash::of(&bytes), object, offset))
}
