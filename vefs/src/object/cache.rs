//! Open objects, least recently used first out. Bounded by number (each holds a file open) and by bytes of checksums.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Object;
use crate::ids::Hash;

/// Most objects held open for later use.
const OBJECTS_MAX: usize = 1024;
/// Most bytes of checksums held for later use.
const BYTES_MAX: usize = 64 << 20;

#[derive(Default)]
pub(super) struct Cache {
    objects: HashMap<Hash, (Arc<Object>, u64)>,
    by_use: BTreeMap<u64, Hash>,
    clock: u64,
    bytes: usize,
}

impl Cache {
    pub fn get(&mut self, hash: &Hash) -> Option<Arc<Object>> {
        let (object, used) = self.objects.get_mut(hash)?;
        self.clock += 1;
        self.by_use.remove(used);
        self.by_use.insert(self.clock, *hash);
        *used = self.clock;
        Some(object.clone())
    }

    /// Keeps an object, unless it alone is too heavy.
    pub fn insert(&mut self, hash: Hash, object: Arc<Object>) {
        self.remove(&hash);
        if object.weight() > BYTES_MAX {
            return;
        }
        self.clock += 1;
        self.bytes += object.weight();
        self.by_use.insert(self.clock, hash);
        self.objects.insert(hash, (object, self.clock));
        while self.objects.len() > OBJECTS_MAX || self.bytes > BYTES_MAX {
            let Some((_, oldest)) = self.by_use.first_key_value() else { return };
            let oldest = *oldest;
            self.remove(&oldest);
        }
    }

    pub fn remove(&mut self, hash: &Hash) {
        if let Some((object, used)) = self.objects.remove(hash) {
            self.by_use.remove(&used);
            self.bytes -= object.weight();
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        assert_eq!(self.objects.len(), self.by_use.len());
        self.objects.len()
    }
}
