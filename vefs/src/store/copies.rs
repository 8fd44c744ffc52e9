//! Base trees that come from other nodes, and go to them, as the files they are.

use std::io::IoSlice;

use super::Store;
use crate::base::BaseTree;
use crate::error::{Error, Result};
use crate::ids::Hash;
use crate::object::{Pin, Staging};

/// A base tree that is being copied. Dropping it drops what came.
pub struct TreeCopy {
    staging: Staging,
    len: u64,
}

impl TreeCopy {
    /// Bytes that came so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether none came.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes the next bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let at = self.staging.path.clone();
        self.staging.file.write_at(&[IoSlice::new(bytes)], self.len).map_err(Error::io("writing base tree", at))?;
        self.len += bytes.len() as u64;
        Ok(())
    }
}

impl Store {
    /// Whether a base tree is here. Whether it is undamaged is seen when it is opened.
    pub fn has_tree(&self, hash: Hash) -> Result<bool> {
        let path = BaseTree::path(hash);
        match self.shared.storage.open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(hash == BaseTree::empty().hash()),
            other => other.map(|_| true).map_err(Error::io("opening", path)),
        }
    }

    /// The objects that a base tree names, in order.
    pub fn tree_objects(&self, hash: Hash) -> Result<Vec<Hash>> {
        let mut objects = self.shared.base(hash)?.objects();
        objects.sort_unstable();
        objects.dedup();
        Ok(objects)
    }

    /// Length of a base tree's file, and up to `max` bytes of it from an offset on.
    pub fn tree_part(&self, hash: Hash, offset: u64, max: usize) -> Result<(u64, Vec<u8>)> {
        let path = BaseTree::path(hash);
        let file = self.shared.storage.open(&path).map_err(Error::io("opening base tree", path.clone()))?;
        let len = file.len().map_err(Error::io("reading base tree", path.clone()))?;
        let mut bytes = vec![0; len.saturating_sub(offset).min(max as u64) as usize];
        file.read_at(&mut bytes, offset).map_err(Error::io("reading base tree", path))?;
        Ok((len, bytes))
    }

    /// Begins to copy a tree.
    pub fn copy_tree(&self) -> Result<TreeCopy> {
        Ok(TreeCopy { staging: self.shared.objects.staging(".tree")?, len: 0 })
    }

    /// All bytes are there: checks the whole tree and gives it its name, durably. The pin keeps it until something names it.
    pub fn place_tree(&self, copy: TreeCopy, hash: Hash) -> Result<Pin> {
        BaseTree::check(&*copy.staging.file, copy.len, hash)
            .map_err(|source| crate::base::BaseError::Tree { hash, source })?;
        let pin = self.shared.objects.pin(hash);
        let path = copy.staging.path.clone();
        copy.staging.file.sync().map_err(Error::io("flushing base tree", path))?;
        copy.staging.rename(&BaseTree::path(hash))?;
        self.shared.storage.sync_dir("bases").map_err(Error::io("flushing", "bases"))?;
        Ok(pin)
    }

    /// Keeps a tree or an object from collection while the pin lives.
    pub fn pin(&self, hash: Hash) -> Pin {
        self.shared.objects.pin(hash)
    }
}
