//! Checking objects on the storage, for verification and scrub: whatever is open already counts for nothing.

use super::reader::body_path;
use super::{Object, ObjectError, ObjectStore};
use crate::ids::Hash;

impl ObjectStore {
    /// Reads an object's sidecar and body from the storage, whatever is open already, and checks all of it. Does not
    /// count as a lookup.
    ///
    /// # Errors
    /// As [`ObjectStore::open`] and [`Object::read_at`]. A damaged object is not served from the cache any more.
    pub fn verify(&self, hash: Hash) -> Result<(), ObjectError> {
        let result = Object::load(&*self.shared.storage, hash).and_then(|object| object.verify());
        if result.is_err() {
            self.shared.marks().cache.remove(&hash);
        }
        result
    }

    /// Whether an object has a body, whatever that is like. Does not count as a lookup.
    ///
    /// # Errors
    /// `Io`.
    pub fn has_body(&self, hash: Hash) -> Result<bool, ObjectError> {
        self.shared.exists(&body_path(hash))
    }

    /// As [`ObjectStore::verify`], of about `max` bytes from `from` on, which is 0 or the end of an earlier part: how many bytes were read, and
    /// whether there are more.
    ///
    /// # Errors
    /// As [`ObjectStore::verify`].
    pub fn verify_part(&self, hash: Hash, from: u64, max: u64) -> Result<(u64, bool), ObjectError> {
        let result = Object::load(&*self.shared.storage, hash).and_then(|object| object.verify_part(from, max));
        if result.is_err() {
            self.shared.marks().cache.remove(&hash);
        }
        result
    }
}
