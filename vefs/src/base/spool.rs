//! Small contents of a tree in the making. They wait until all are there, because packs are filled in the order of the tree,
//! whatever the order in which contents come: so the same tree gives the same packs, and the same hash.

use std::collections::HashMap;
use std::io::IoSlice;

use super::BaseError;
use crate::ids::Hash;
use crate::object::{ObjectStore, Staging};

/// So many bytes are held in memory; beyond that they go to a file.
const MEMORY: usize = 1 << 20;

/// A small content that waits.
#[derive(Clone, Copy)]
struct Small {
    /// Where in the spool, in bytes.
    at: u64,
    len: usize,
    /// Number of the pack it is in and where, once it is.
    packed: Option<(usize, u64)>,
}

/// The contents that wait, each once.
#[derive(Default)]
pub(super) struct Spool {
    known: HashMap<Hash, usize>,
    all: Vec<Small>,
    /// The last bytes; those before are in the file.
    tail: Vec<u8>,
    file: Option<Staging>,
    written: u64,
}

impl Spool {
    /// Takes a content and answers its number.
    pub fn add(&mut self, objects: &ObjectStore, bytes: &[u8]) -> Result<usize, BaseError> {
        let hash = Hash::of(bytes);
        if let Some(number) = self.known.get(&hash) {
            return Ok(*number);
        }
        if self.tail.len() + bytes.len() > MEMORY {
            self.spill(objects)?;
        }
        let number = self.all.len();
        self.all.push(Small { at: self.written + self.tail.len() as u64, len: bytes.len(), packed: None });
        self.tail.extend_from_slice(bytes);
        self.known.insert(hash, number);
        Ok(number)
    }

    fn spill(&mut self, objects: &ObjectStore) -> Result<(), BaseError> {
        let staging = match &mut self.file {
            Some(staging) => staging,
            none => none.insert(objects.staging(".small")?),
        };
        let done = staging.file.write_at(&[IoSlice::new(&self.tail)], self.written);
        done.map_err(|source| BaseError::Io { path: staging.path.clone(), source })?;
        self.written += self.tail.len() as u64;
        self.tail.clear();
        Ok(())
    }

    /// The bytes of a content.
    pub fn read(&self, number: usize) -> Result<Vec<u8>, BaseError> {
        let Some(small) = self.all.get(number) else { return Ok(Vec::new()) };
        if let Some(start) = small.at.checked_sub(self.written) {
            return Ok(self.tail[start as usize..start as usize + small.len].to_vec());
        }
        let mut bytes = vec![0; small.len];
        if let Some(staging) = &self.file {
            let done = staging.file.read_at(&mut bytes, small.at);
            done.map_err(|source| BaseError::Io { path: staging.path.clone(), source })?;
        }
        Ok(bytes)
    }

    /// Where a content was packed, if it was.
    pub fn packed(&self, number: usize) -> Option<(usize, u64)> {
        self.all.get(number)?.packed
    }

    /// Remembers where a content was packed: number of the pack, and offset in it.
    pub fn set_packed(&mut self, number: usize, pack: usize, place: u64) {
        if let Some(small) = self.all.get_mut(number) {
            small.packed = Some((pack, place));
        }
    }
}
