//! Object bodies as backing files of the kernel: opened through a read-only view of the store, registered, pinned, given back.
//!
//! Invariant: no descriptor that the kernel gets can be made writable. The kernel opens the backing file again with the flags of the
//! program that opened the file; through a read-only mount that can never write (promise G26 of others' bytes, and the template's).

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use fuser::BackingId;
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags, openat};

use super::nodes::Backings;
use super::sys;
use crate::ids::Hash;
use crate::object::{ObjectStore, Pin};

/// The store's object bodies, for reading only.
#[derive(Debug)]
pub struct Objects {
    view: OwnedFd,
}

impl Objects {
    /// Makes a read-only view of the store in a folder. Needs CAP_SYS_ADMIN.
    pub fn new(store: &Path) -> std::io::Result<Objects> {
        Ok(Objects { view: sys::read_only_view(store)? })
    }

    fn open(&self, object: Hash) -> std::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(openat(&self.view, ObjectStore::body_path(object), flags, Mode::empty())?)
    }
}

/// The backing files of one mount.
pub struct Registry {
    device: Arc<OwnedFd>,
    objects: Arc<Objects>,
    store: ObjectStore,
    backings: Mutex<HashMap<u32, Backing>>,
}

/// A backing file that the kernel has.
struct Backing {
    _pin: Pin,
    /// How often objects had been repaired when it was opened; not known of what an earlier daemon opened.
    repairs: Option<u64>,
}

impl Registry {
    /// With what the kernel has already.
    pub fn new(
        device: Arc<OwnedFd>,
        objects: Arc<Objects>,
        store: ObjectStore,
        live: impl Iterator<Item = (u32, Hash)>,
    ) -> Registry {
        let backings = live.map(|(id, object)| (id, Backing { _pin: store.pin(object), repairs: None })).collect();
        Registry { device, objects, store, backings: Mutex::new(backings) }
    }
}

impl Backings for Registry {
    fn register(&self, object: Hash) -> Option<u32> {
        // Pinned before it is opened: what is open to the kernel is not collected (promise G26).
        let backing = Backing { _pin: self.store.pin(object), repairs: Some(self.store.repairs()) };
        let id = self.objects.open(object).and_then(|file| BackingId::create_raw(&*self.device, &file));
        match id {
            Ok(id) => {
                self.backings.lock().insert(id, backing);
                Some(id)
            }
            Err(e) => {
                tracing::warn!(%object, error = %e, "not passed through");
                None
            }
        }
    }

    fn is_current(&self, backing: u32) -> bool {
        let repairs = Some(self.store.repairs());
        self.backings.lock().get(&backing).is_some_and(|b| b.repairs == repairs)
    }

    fn release(&self, backing: u32, object: Hash) {
        if let Err(e) = sys::close_backing(self.device.as_fd(), backing) {
            tracing::warn!(backing, %object, error = %e, "giving a backing file back");
        }
        self.backings.lock().remove(&backing);
    }
}
